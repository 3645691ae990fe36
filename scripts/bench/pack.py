"""Tokenise and pack: `zhtune pack` against datasets.map + group_texts of the Hugging Face examples. CPU seconds, equal ids, tokens lost.

Usage: python scripts/bench/pack.py TEXTS TOKENIZER [--megabytes 35] [--block 1024] [--train 32000]. TEXTS is a file or folder that
`zhtune clean` reads, TOKENIZER a folder with tokenizer.json; with --train it is made: a byte-level BPE of so many pieces with Qwen2's
pattern, from the first 8 MB of the texts. Loading the tokenizer, and zhtune's proof that tiktoken gives the same, count in full.
Each side runs in a process of its own, one worker, with the same documents and end token.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from mutate import texts

from zhtune.corpus.tokens import TokenFile
from zhtune.models.shapes import SPECIAL, write_tokenizer_config


def run_zhtune(corpus: Path, tokenizer: Path, block: int, out: Path) -> dict[str, Any]:
    from zhtune.stages.pack import PackConfig, pack
    began = time.process_time()
    pack(PackConfig(corpus=str(corpus), model=str(tokenizer), out=str(out / "packed"), workers=1))
    return {"cpu": time.process_time() - began}


def run_datasets(corpus: Path, tokenizer: Path, block: int, out: Path) -> dict[str, Any]:
    import datasets
    from transformers import PreTrainedTokenizerFast

    from zhtune.templates.encode import ChatEncoder
    end = ChatEncoder(tokenizer).end_id
    datasets.disable_progress_bars()
    began = time.process_time()
    encode = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer / "tokenizer.json"))
    rows = datasets.load_dataset("json", data_files=str(corpus), split="train", cache_dir=str(out / "cache"))
    tokens = rows.map(lambda batch: {"input_ids": [[*ids, end] for ids in encode(batch["text"], add_special_tokens=False)["input_ids"]]},
                      batched=True, remove_columns=rows.column_names)

    def group_texts(batch: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        joined = {key: list(chain.from_iterable(lists)) for key, lists in batch.items()}
        length = len(joined["input_ids"]) // block * block
        grouped = {key: [ids[i:i + block] for i in range(0, length, block)] for key, ids in joined.items()}
        return {**grouped, "labels": grouped["input_ids"].copy()}
    blocks = tokens.map(group_texts, batched=True)
    spent = time.process_time() - began
    ids = np.concatenate([np.asarray(part) for part in tokens["input_ids"]]).astype(np.uint32)
    np.save(out / "datasets.npy", ids)
    return {"cpu": spent, "lost": len(ids) - block * len(blocks)}


def peak() -> int:
    """Megabytes of this process alone; getrusage has its parent's in it."""
    return int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text("utf-8"))[1]) // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--megabytes", type=float, default=35)
    parser.add_argument("--block", type=int, default=1024)
    parser.add_argument("--train", type=int, default=0, help="pieces of a tokenizer to be trained and written to TOKENIZER")
    parser.add_argument("--one", nargs=3, help="ENGINE CORPUS OUT: run it here and print its result")
    arguments = parser.parse_args()
    if arguments.one:
        run = {"zhtune": run_zhtune, "datasets": run_datasets}[arguments.one[0]]
        result = run(Path(arguments.one[1]), arguments.tokenizer, arguments.block, Path(arguments.one[2]))
        print(json.dumps({**result, "peak_mb": peak()}))
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(arguments, Path(folder))


def train(path: Path, pieces: int, folder: Path) -> None:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    tokenizer = Tokenizer(models.BPE())
    pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                                       pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    rows = (json.loads(line)["text"] for line in path.read_text("utf-8")[:3_000_000].split("\n")[:-1])
    tokenizer.train_from_iterator(rows, trainers.BpeTrainer(vocab_size=pieces, special_tokens=SPECIAL, show_progress=False,
                                                            initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_tokenizer_config(folder, eos="<|im_end|>", pad="<|endoftext|>")


def compare(arguments: argparse.Namespace, out: Path) -> None:
    size = 0
    with open(out / "corpus.jsonl", "w", encoding="utf-8") as file:
        for text in texts(arguments.texts):
            size += len(text.encode())
            if size > arguments.megabytes * 1e6:
                break
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    if arguments.train:
        train(out / "corpus.jsonl", arguments.train, arguments.tokenizer)
    results = {}
    for engine in ("zhtune", "datasets"):
        done = subprocess.run([sys.executable, __file__, str(arguments.texts), str(arguments.tokenizer), "--block", str(arguments.block),
                               "--one", engine, str(out / "corpus.jsonl"), str(out)], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        results[engine] = json.loads(done.stdout.splitlines()[-1])
    file = TokenFile(out / "packed")
    ids = np.concatenate([file[i] for i in range(len(file.offsets) - 1)]).astype(np.uint32)
    theirs = np.load(out / "datasets.npy")
    for engine, result in results.items():
        print(json.dumps({"engine": engine, **result, "million_tokens_s": round(len(ids) / 1e6 / result["cpu"], 3)}))
    print(json.dumps({"megabytes": round(size / 1e6, 1), "tokens": len(ids), "equal": bool(np.array_equal(ids, theirs)),
                      "lost_by_zhtune": int(len(theirs) - len(ids)), "times": round(results["datasets"]["cpu"] / results["zhtune"]["cpu"], 2)}))


if __name__ == "__main__":
    main()
