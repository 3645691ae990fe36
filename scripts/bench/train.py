"""Tokens per second and peak memory of SFT and pretraining: zhtune, TRL's defaults, TRL's best settings, LLaMA-Factory; same model, same data.

Usage: python scripts/bench/train.py [--repeats 5] [--steps 30] [--results FILE.jsonl] [--factory PYTHON_OF_ITS_ENVIRONMENT] [--gpu]

Each run is a process of its own; a repeat runs all contestants one after the other, every second one in the opposite order.
Speed counts real tokens, no padding, and the training loop only (neither loading nor tokenising), with the one checkpoint that
everybody writes at its end; the figure a CPU second holds on a busy machine, too. Medians of all lines in FILE are printed at the end.
--gpu runs what needs a card instead (random weights of real shapes): QLoRA of 7B at 1 × 1024, P-tuning v2 of ChatGLM-6B in 4 bit,
fp16 for 500 steps. [--tiny] shows without a card that its commands are right, on tiny shapes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BATCH, BLOCKS, BLOCK = 16, 4, 256
CONTESTANTS = {"sft": ("zhtune", "zhtune_checkpointing", "trl_defaults", "trl_by_length", "trl_packed"),
               "pretrain": ("zhtune", "zhtune_checkpointing", "trl_defaults", "trl_best")}
FACTORY = {"sft": ("factory_defaults", "factory_by_length"), "pretrain": ("factory_defaults", "factory_best")}


def prepare(folder: Path) -> None:
    """A 15 M model with a Chinese vocabulary of 8,000, short medical records, blocks of shipped text."""
    from zhtune import CleanConfig, ExtendConfig, KgConfig, KgInstructConfig, PackConfig, VocabConfig, clean, extend, kg, kg_instruct, pack, vocab
    clean(CleanConfig(input="shipped:corpus/zh", out=str(folder / "corpus")))
    vocab(VocabConfig(corpus=str(folder / "corpus"), size=8000, out=str(folder / "vocab")))
    extend(ExtendConfig(model="new:llama-15m", vocab=str(folder / "vocab"), out=str(folder / "model")))
    kg(KgConfig(input="shipped:medical", out=str(folder / "graph")))
    kg_instruct(KgInstructConfig(graph=str(folder / "graph"), heads=20, records_per_fact=4, out=str(folder / "records")))
    pack(PackConfig(corpus=str(folder / "corpus"), model=str(folder / "model"), out=str(folder / "tokens")))


def samples(folder: Path, task: str, steps: int) -> list:
    """The same samples for everybody, in zhtune's form."""
    from zhtune.corpus.tokens import read_blocks
    from zhtune.records import read_records
    from zhtune.templates.encode import ChatEncoder
    from zhtune.train.samples import Sample
    if task == "pretrain":
        return [Sample(str(i), row.tolist(), [True] * BLOCK) for i, row in enumerate(read_blocks(folder / "tokens", BLOCK)[:steps * BLOCKS])]
    encoder = ChatEncoder(folder / "model")
    made = []
    for number, record in read_records(folder / "records" / "records.jsonl"):
        encoded = encoder.sample(record["messages"])
        if len(encoded.ids) <= 512:
            made.append(Sample(str(number), encoded.ids, encoded.mask))
    return made[:steps * BATCH]


def one(task: str, who: str, folder: Path, steps: int) -> dict:
    """One run in this process."""
    from zhtune.models.load import load_model
    batch = BATCH if task == "sft" else BLOCKS
    rows, model, read = samples(folder, task, steps), load_model(folder / "model"), clock()
    with tempfile.TemporaryDirectory() as scratch:
        if who.startswith("zhtune"):
            from zhtune.train.schedule import Schedule
            from zhtune.train.trainer import Run, train
            schedule = Schedule(batch_size=batch, checkpoints=0, gradient_checkpointing=who.endswith("checkpointing"))
            train(model.train(), folder / "model", rows, Run(schedule, Path(scratch), 0))
        else:
            trl_trainer(task, who, folder, rows, model, batch, scratch).train()
    return figures(task, who, sum(len(s.input_ids) for s in rows), read | {"peak_mib": peak_mib()})


def figures(task: str, who: str, tokens: int, read: dict) -> dict:
    return {"task": task, "who": who, "tokens": tokens, "seconds": read["wall"], "speed": tokens / read["wall"],
            "per_cpu_second": tokens / read["cpu"], "peak_mib": read["peak_mib"]}


def clock() -> dict:
    """Wall and processor seconds of the training loop of whatever uses transformers' Trainer in this process, once it is through."""
    from transformers import TrainerCallback, trainer
    read: dict = {}

    class Clock(TrainerCallback):
        def on_train_begin(self, *_, **__):
            read.update(wall=-time.monotonic(), cpu=-time.process_time())

        def on_train_end(self, *_, **__):
            read.update(wall=read["wall"] + time.monotonic(), cpu=read["cpu"] + time.process_time())
    trainer.DEFAULT_CALLBACKS.append(Clock)
    return read


def peak_mib() -> float:
    # Not ru_maxrss: that of a process begins with what its parent had when it started it.
    return next(int(line.split()[1]) for line in open("/proc/self/status", encoding="ascii") if line.startswith("VmHWM")) / 1024


def trl_trainer(task: str, who: str, folder: Path, rows: list, model, batch: int, scratch: str):
    """TRL as its users have it: ids and labels given, so that it trains on answers only, as zhtune does."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from zhtune.train.trainer import tokenizer_of
    data = Dataset.from_dict({"input_ids": [s.input_ids for s in rows], "length": [len(s.input_ids) for s in rows],
                              "labels": [[i if m else -100 for i, m in zip(s.input_ids, s.loss_mask)] for s in rows]})
    common = dict(output_dir=scratch, per_device_train_batch_size=batch, num_train_epochs=1, use_cpu=True, report_to="none", disable_tqdm=True)
    best = dict(gradient_checkpointing=False, bf16=True, optim="adamw_torch_fused", max_length=None, dataloader_pin_memory=False)
    settings = {"trl_defaults": {}, "trl_best": best, "trl_by_length": {**best, "train_sampling_strategy": "group_by_length"},
                "trl_packed": {**best, "packing": True, "max_length": 512, "per_device_train_batch_size": 1}}[who]
    if who == "trl_by_length" or task == "pretrain":
        common["dataset_kwargs"] = {"skip_prepare_dataset": True}
    else:
        data = data.remove_columns("length")
    model.set_attn_implementation("sdpa")                   # what a model has that is loaded by name
    return SFTTrainer(model=model, args=SFTConfig(**{**common, **settings}), train_dataset=data, processing_class=tokenizer_of(folder / "model"))


def factory(task: str, who: str, folder: Path, steps: int, python: str) -> dict:
    """LLaMA-Factory in its own environment, on the same records and blocks as text."""
    from zhtune.records import read_records
    from zhtune.templates.encode import ChatEncoder
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant", "system_tag": "system"}
    more = {"bf16": True}
    if who != "factory_defaults":
        more |= {"disable_gradient_checkpointing": True, "optim": "adamw_torch_fused"}
    if who == "factory_by_length":
        more["train_sampling_strategy"] = "group_by_length"
    rows = samples(folder, task, steps)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        if task == "sft":
            chosen = {s.id for s in rows}
            records = read_records(folder / "records" / "records.jsonl")
            data = [{"messages": record["messages"]} for number, record in records if str(number) in chosen]
            form = {"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": tags}
        else:
            decoder = ChatEncoder(folder / "model")
            data, form = [{"text": decoder.decode(s.input_ids)} for s in rows * 2], {"columns": {"prompt": "text"}}
        (place / "data.json").write_text(json.dumps(data, ensure_ascii=False), "utf-8")
        (place / "dataset_info.json").write_text(json.dumps({"bench": {"file_name": "data.json", **form}}), "utf-8")
        batch, cutoff, stage = (BATCH, 512, "sft") if task == "sft" else (BLOCKS, BLOCK, "pt")
        (place / "train.json").write_text(json.dumps({
            "model_name_or_path": str(folder / "model"), "stage": stage, "do_train": True, "finetuning_type": "full", "dataset": "bench",
            "dataset_dir": scratch, "template": "chatml", "cutoff_len": cutoff, "output_dir": f"{scratch}/out", "max_steps": steps,
            "per_device_train_batch_size": batch, "gradient_accumulation_steps": 1, "report_to": "none", "use_cpu": True,
            "learning_rate": 2e-4, "disable_tqdm": True, **more}), "utf-8")
        done = subprocess.run([python, __file__, "--inside", str(place / "train.json")], check=True, capture_output=True, text=True, timeout=600,
                              env={**os.environ, "DISABLE_VERSION_CHECK": "1"})
    return figures(task, who, sum(len(s.input_ids) for s in rows), json.loads(done.stdout.splitlines()[-1]))


def inside(settings: Path) -> None:
    """What LLaMA-Factory's python runs."""
    from llamafactory.train.tuner import run_exp
    read = clock()
    run_exp(json.loads(settings.read_text("utf-8")))
    print(json.dumps(read | {"peak_mib": peak_mib()}))


def summary(lines: list[dict]) -> str:
    """Medians by task and contestant, with the ratio to zhtune."""
    text = []
    for task in dict.fromkeys(line["task"] for line in lines):
        medians = {}
        for who in dict.fromkeys(line["who"] for line in lines if line["task"] == task):
            runs = [line for line in lines if (line["task"], line["who"]) == (task, who)]
            medians[who] = [statistics.median(r[key] for r in runs) for key in ("speed", "per_cpu_second", "peak_mib")] + [len(runs)]
        text += [f"{task:9} {who:20} {speed:7.0f} tokens/s  {cpu:6.0f} a CPU second  {peak:6.0f} MiB  "
                 f"zhtune is {medians['zhtune'][0] / speed:.2f} ({medians['zhtune'][1] / cpu:.2f}) times as fast  (n={runs})"
                 for who, (speed, cpu, peak, runs) in medians.items()]
    return "\n".join(text)


GPU = {
    "7B QLoRA, 1 × 1024": {"model": "7b", "flags": ["--method", "qlora", "--max_length", "1024", "--schedule.batch_size", "1",
                                                   "--schedule.gradient_checkpointing", "true", "--schedule.optimizer", "paged_adamw8bit"]},
    # THUDM's setting: a prefix of 128, questions and answers of 64 tokens, one at a time
    "ChatGLM-6B P-tuning v2, 4 bit": {"model": "chatglm-6b", "flags": ["--method", "p-tuning-v2", "--tuning.quantize", "nf4", "--max_length", "128",
                                      "--tuning.prefix.tokens", "128", "--schedule.batch_size", "1", "--schedule.precision", "fp16"]},
    "1.1B full, fp16, 500 steps": {"model": "1b", "flags": ["--method", "full", "--max_length", "512", "--schedule.batch_size", "4",
                                                          "--schedule.epochs", "3", "--schedule.precision", "fp16",
                                                          "--schedule.gradient_checkpointing", "true"]},
}
# hidden, MLP, layers, heads, rows
SHAPES = {"7b": (4096, 11008, 32, 32, 55296), "chatglm-6b": (4096, 16384, 28, 32, 130528), "1b": (2048, 5632, 22, 32, 55296)}
TINY = {"7b": (64, 128, 2, 4, 512), "chatglm-6b": (64, 256, 2, 4, 512), "1b": (64, 128, 2, 4, 512)}


def random_model(name: str, shape: tuple[int, ...], folder: Path) -> None:
    """Weights in float16 and the byte tokenizer, whose ids the first rows are."""
    from zhtune.models.shapes import write_byte_tokenizer
    hidden, mlp, layers, heads, rows = shape
    own = name.startswith("chatglm")
    write_byte_tokenizer(folder, "chatglm" if own else "llama")
    if own:
        from zhtune.models.chatglm.configuration import ChatGLMConfig
        from zhtune.models.chatglm.modeling import ChatGLMForCausalLM
        made = ChatGLMForCausalLM(ChatGLMConfig(
            vocab_size=rows, hidden_size=hidden, inner_hidden_size=mlp, num_layers=layers, num_attention_heads=heads,
            pad_token_id=0, mask_token_id=1, gmask_token_id=2, bos_token_id=3, eos_token_id=4))
    else:
        from transformers import LlamaConfig, LlamaForCausalLM
        made = LlamaForCausalLM(LlamaConfig(
            vocab_size=rows, hidden_size=hidden, intermediate_size=mlp, num_hidden_layers=layers, num_attention_heads=heads,
            max_position_embeddings=4096, eos_token_id=2, pad_token_id=0))
    made.save_pretrained(folder)


def gpu(folder: Path, shapes: dict[str, tuple[int, ...]], device: str) -> None:
    """What needs a card; prints peak memory of the card and the last loss, which is finite or the run stops."""
    import torch
    for name, case in GPU.items():
        model, out = folder / case["model"], folder / f"out-{case['model']}"
        if not model.exists():
            torch.set_default_dtype(torch.float16)
            with torch.device(device):
                random_model(case["model"], shapes[case["model"]], model)
            torch.set_default_dtype(torch.float32)
            if device == "cuda":
                torch.cuda.empty_cache()
        where = ["--model", str(model), "--records", str(folder / "records"), "--out", str(out)]
        flags = case["flags"] if device == "cuda" else ["fp32" if flag == "fp16" else flag for flag in case["flags"]]
        subprocess.run([sys.executable, "-m", "zhtune", "sft", *where, *flags], check=True)
        report = json.loads((out / "report.json").read_text("utf-8"))
        peak = f"{report['peak_memory_gib']:.2f} GiB" if device == "cuda" else "not a card's"
        print(f"{name}: {report['tokens_per_second']:.0f} tokens/s, peak {peak}, last loss {report['losses'][-1][1]:.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--data", type=Path, help="keep the prepared model and data here")
    parser.add_argument("--factory", default="")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        inside(given.inside)
        return
    if given.one:
        task, who, folder = given.one[0], given.one[1], Path(given.one[2])
        run = factory(task, who, folder, given.steps, given.factory) if who.startswith("factory") else one(task, who, folder, given.steps)
        print(json.dumps(run))
        return
    with tempfile.TemporaryDirectory(prefix="zhtune-bench-") as scratch:
        folder = given.data or Path(scratch)
        prepare(folder)
        if given.gpu:
            gpu(folder, *((TINY, "cpu") if given.tiny else (SHAPES, "cuda")))
            return
        lines = []
        runs = [(task, who) for task, those in CONTESTANTS.items() for who in those + (FACTORY[task] if given.factory else ())]
        for repeat in range(given.repeats):
            for task, who in runs[::-1 if repeat % 2 else 1]:
                command = [sys.executable, __file__, "--factory", given.factory, "--steps", str(given.steps), "--one", task, who, str(folder)]
                os.sync()                                   # nobody waits for what the one before left to be written
                lines.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]))
                if given.results:
                    with open(given.results, "a", encoding="utf-8") as file:
                        file.write(json.dumps(lines[-1]) + "\n")
    if given.results:
        lines = [json.loads(line) for line in given.results.read_text("utf-8").splitlines()]
    print(summary(lines))


if __name__ == "__main__":
    main()
