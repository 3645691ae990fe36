"""Every adapter on every family in miniature, learnt and measured: what is slow in the tests, and the table in docs/.

Usage: python scripts/bench/adapters.py [FAMILY …] [--shape WIDTH HEADS] [--out TABLE.md]

Each family's `new:` shape is first trained in full on the shipped Chinese text (1,500 steps; shown: what is left of the
held-out loss, at most 60 % of its start); then each adapter trains on 32 records through `zhtune sft`. Shown: by how much the loss on the answers
fell (whole batches, before and after), and of LoRA's kind how many of the 32 answers come back exactly from `zhtune`'s
engine in a new process. 1 means that the method is refused for the family.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from zhtune import assets, references
from zhtune.errors import ConfigError
from zhtune.models.engine import Sampling
from zhtune.models.load import copy_tokenizer, load_model
from zhtune.models.open import open_engine
from zhtune.models.shapes import SHAPES, write_shape
from zhtune.records import read_jsonl, write_jsonl
from zhtune.stages.sft import SftConfig, sft
from zhtune.train.adapter import Lora, Prefix, Tuning
from zhtune.train.schedule import Schedule

FAMILIES = sorted(name.removesuffix("-tiny") for name in SHAPES if name.endswith("-tiny"))
_LORA = Lora(rank=32, alpha=64)
# column -> learning rate, epochs of four steps, fields of SftConfig
METHODS: dict[str, tuple[float, int, dict[str, Any]]] = {
    "full": (3e-3, 30, {"method": "full"}),
    "freeze": (3e-3, 30, {"method": "freeze", "tuning": Tuning(layers=1)}),
    "lora": (1e-2, 60, {"method": "lora", "lora": _LORA}),
    "rslora": (1e-2, 30, {"method": "lora", "lora": Lora(rank=16, alpha=16, rslora=True)}),
    "dora": (1e-2, 30, {"method": "lora", "lora": Lora(rank=16, alpha=32, dora=True)}),
    "qlora nf4": (1e-2, 30, {"method": "qlora", "lora": _LORA}),
    "qlora int8": (1e-2, 30, {"method": "qlora", "lora": _LORA, "tuning": Tuning(quantize="int8")}),
    "p-tuning-v2": (1e-1, 40, {"method": "p-tuning-v2", "tuning": Tuning(prefix=Prefix(tokens=16))}),
    "p-tuning-v2, projected": (1e-2, 40, {"method": "p-tuning-v2", "tuning": Tuning(prefix=Prefix(tokens=16, projection=True))}),
    "p-tuning-v2, nf4": (1e-1, 40, {"method": "p-tuning-v2", "tuning": Tuning(prefix=Prefix(tokens=16), quantize="nf4")}),
    "p-tuning": (1e-2, 200, {"method": "p-tuning", "tuning": Tuning(prompt_tokens=64)}),
    "prompt-tuning": (1e-1, 60, {"method": "prompt-tuning", "tuning": Tuning(prompt_tokens=64)}),
    "ia3": (1e-1, 30, {"method": "ia3"}),
    "bottleneck": (1e-2, 30, {"method": "bottleneck", "tuning": Tuning(bottleneck=32)}),
}


_HEAD = ("By `python scripts/bench/adapters.py` (some of it: tests/test_adapter_table.py): two layers of width 64, 32 records, one seed. base: "
         "what is left of the held-out loss after training on text; then by how much each adapter lowered the loss on the answers; – is refused. "
         "Loss, not quality: full training and LoRA learn the answers by heart here, prompts cannot.")


def texts() -> str:
    """Some of the shipped text, whole files end to end."""
    return "\n".join(file.read_text("utf-8") for file in sorted(assets.shipped("corpus/zh").glob("luxun_*.txt")))


def write_records(file: Path) -> None:
    """32 records of the shipped poetry graph: a poem's name asks who wrote it."""
    facts = [row for _, row in read_jsonl(assets.shipped("poetry") / "triples.jsonl") if row["relation"] == "作者"]
    chosen = list({fact["head"]: fact for fact in facts}.values())[:32]
    write_jsonl(file, ({"messages": [{"role": "user", "content": fact["head"]},
                                     {"role": "assistant", "content": f"作者是{fact['tail']}。"}]} for fact in chosen))


def train_base(family: str, folder: Path, steps: int, seed: int = 0) -> float:
    """Train a family's shape in full on text; returns the share of the held-out loss that is left."""
    write_shape(f"{family}-tiny", folder / "new")
    model = load_model(folder / "new")
    from zhtune.templates.encode import ChatEncoder
    encoder = ChatEncoder(folder / "new")                   # as zhtune pack does it: an end behind each text
    ids = torch.tensor([i for line in texts()[:200_000].splitlines() for i in (*encoder.text_ids(line), encoder.end_id)])
    blocks = ids[:len(ids) // 128 * 128].view(-1, 128)
    heldout, blocks = blocks[::20], torch.cat([blocks[i::20] for i in range(1, 20)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(seed)
    first = heldout_loss(model, heldout)
    for _ in range(steps):
        rows = blocks[torch.randint(len(blocks), (8,), generator=generator)]
        model.train()(input_ids=rows, labels=rows).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder / "base")
    copy_tokenizer(folder / "new", folder / "base")
    return heldout_loss(model, heldout) / first


def heldout_loss(model: Any, blocks: Any) -> float:
    """Mean loss on blocks, (blocks, tokens)."""
    with torch.inference_mode():
        return sum(model.eval()(input_ids=b, labels=b).loss.item() for b in blocks[:32].split(8)) / len(blocks[:32].split(8))


def try_method(method: str, base: Path, records: Path, out: Path) -> tuple[float, Any]:
    """(last loss / first loss, the artifact) of one adapter; 1 and the reason where it is refused."""
    rate, epochs, fields = METHODS[method]
    schedule = Schedule(learning_rate=rate, epochs=epochs, batch_size=8, checkpoints=1, precision="fp32")
    try:
        made = sft(SftConfig(model=str(base), records=str(records), out=str(out), schedule=schedule, max_length=256, **fields))
    except ConfigError as error:
        return 1.0, str(error)
    return made.manifest["metrics"]["last_loss"] / made.manifest["metrics"]["first_loss"], made


def exact_answers(model: Path, records: Path) -> int:
    """How many answers to the records come back exactly, asked in a new process."""
    out = subprocess.run([sys.executable, __file__, "--answer", str(model), str(records)], check=True, capture_output=True, text=True).stdout
    return int(out.strip().splitlines()[-1])


def answer(model: str, records: str) -> int:
    """The same in this process."""
    rows = [row["messages"] for _, row in read_jsonl(Path(records))]
    replies = open_engine(references.resolve(model)).generate([messages[:-1] for messages in rows], Sampling(max_tokens=64))
    return sum(r.finish == "stop" and r.text == m[-1]["content"] for r, m in zip(replies, rows, strict=True))


def measure(families: list[str], methods: list[str], scratch: Path, steps: int = 1500) -> dict[str, dict[str, Any]]:
    """family -> {"base": share of the held-out loss, method: share of the answers' loss, "exact": of LoRA's 32 answers}."""
    records = scratch / "records.jsonl"
    write_records(records)
    found: dict[str, dict[str, Any]] = {}
    for family in families:
        row: dict[str, Any] = {"base": train_base(family, scratch / family, steps)}
        for method in methods:
            row[method], made = try_method(method, scratch / family / "base", records, scratch / family / method.replace(" ", "-"))
            if method == "lora":
                row["exact"] = exact_answers(made.path, records)
            print(family, method, round(row[method], 3), row.get("exact", ""), flush=True)
        found[family] = row
    return found


def table(found: dict[str, dict[str, Any]], methods: list[str]) -> str:
    """The result as Markdown."""
    lines = ["# Adapters on every family in miniature", "", _HEAD, "", "| | base | " + " | ".join(methods) + " | exact of 32 (lora) |",
             "|---" * (len(methods) + 3) + "|"]
    for family, row in found.items():
        cells = ["–" if row[m] == 1.0 else f"−{round(100 * (1 - row[m]))} %" for m in methods]
        lines.append(f"| {family} | {round(100 * row['base'])} % | {' | '.join(cells)} | {row.get('exact', '')} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", default=FAMILIES)
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--shape", type=int, nargs=2, metavar=("WIDTH", "HEADS"), help="in place of 64 and 4")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--answer", nargs=2)
    given = parser.parse_args()
    if given.answer:
        print(answer(*given.answer))
    else:
        if given.shape:
            width, heads = given.shape
            SHAPES.update({f"{family}-tiny": (width, 2 * width, 2, heads, heads // 2, 512) for family in given.families})
        with tempfile.TemporaryDirectory() as folder:
            result = measure(given.families, given.methods, Path(folder))
        print(json.dumps(result))
        if given.out:
            given.out.write_text(table(result, given.methods), "utf-8")
