"""Part 3 of vocab.py: time and memory of train, select and extend by size of the text, and speed of encoding.

Usage as a process of its own: python scripts/bench/vocab_speed.py TEXT TOKENIZER OUT trains 19,000 pieces on a folder,
extends a tokenizer by 17,953 with all gates, and prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vocab_common import Bench, apart, encode, table
from vocab_families import extended
from vocab_fertility import PUBLISHED
from vocab_texts import general, huatuo

from zhtune import ExtendConfig, VocabConfig, extend, vocab
from zhtune.tokenizers.load import BaseTokenizer
from zhtune.vocabulary import gates
from zhtune.vocabulary.extend import extend_tokenizer

_MEGABYTE, _ROUNDS, _PIECES = 1_000_000, 5, 19_000


def run(bench: Bench, sizes: list[int], names: list[str]) -> dict[str, Any]:
    """Each size of the text (0 is all of it), then each tokenizer."""
    rows = sorted((measure(bench, size) for size in sizes), key=lambda row: row["megabytes"])
    for row, before in zip(rows, [{"megabytes": 0, "wall": 0, "cpu": 0}, *rows]):
        row |= {f"{key}_a_mb_more": (row[key] - before[key]) / (row["megabytes"] - before["megabytes"]) for key in ("wall", "cpu")}
    table(rows)
    return {"threads": os.cpu_count(), "training": rows, "encoding": encoding(bench, names)}


def measure(bench: Bench, megabytes: int) -> dict[str, Any]:
    """Train and extend in a process of its own."""
    text = bench.texts("all") if not megabytes else part_of(bench.texts("all"), bench.out / f"text-{megabytes}", megabytes * _MEGABYTE)
    out = bench.out / f"speed-{megabytes}-{os.getpid()}"
    done = subprocess.run([sys.executable, __file__, str(text), str(bench.llama_folder()), str(out)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"vocab_speed.py failed on {text}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def part_of(folder: Path, out: Path, size: int) -> Path:
    """A seeded share of every domain's documents, `size` bytes of text in all."""
    texts = {path.name: path.read_text("utf-8").splitlines(keepends=True) for path in sorted(folder.glob("*.jsonl"))}
    share = size / sum(len(json.loads(line)["text"].encode()) for lines in texts.values() for line in lines)
    out.mkdir(parents=True, exist_ok=True)
    for name, lines in texts.items():
        random.Random(0).shuffle(lines)
        room, kept = share * sum(len(line.encode()) for line in lines), []
        for line in lines:
            if room <= 0:
                break
            room -= len(line.encode())
            kept.append(line)
        (out / name).write_text("".join(kept), "utf-8")
    return out


def encoding(bench: Bench, names: list[str]) -> list[dict[str, Any]]:
    """Base and extended by turns."""
    rows = apart(published_size, bench) if "llama" in names else []
    rows += [apart(one_family, bench, name) for name in names]
    table(rows)
    return rows


def published_size(bench: Bench) -> list[dict[str, Any]]:
    """LLaMA + 17,953 in both libraries."""
    base, texts = bench.base("llama"), huatuo(bench.data) + general(bench.data)
    new, _ = extend_tokenizer(base, bench.vocabulary("whole-corpus", "all", size=_PIECES), PUBLISHED)
    return [{"tokenizer": "llama + 17,953, tokenizers", **compare_speed(base, new, _tokenizers, texts)},
            {"tokenizer": "llama + 17,953, sentencepiece", **compare_speed(base, new, _sentencepiece, texts)}]


def one_family(bench: Bench, name: str) -> dict[str, Any]:
    base, new, *_ = extended(bench, name)
    texts = huatuo(bench.data) + general(bench.data)
    return {"tokenizer": f"{name} + 8,000, tokenizers", **compare_speed(base, new, _tokenizers, texts)}


def _tokenizers(tokenizer: BaseTokenizer) -> Callable[[list[str]], Any]:
    loaded = gates.load(tokenizer.definition)
    return lambda texts: encode(loaded, texts)


def _sentencepiece(tokenizer: BaseTokenizer) -> Callable[[list[str]], Any]:
    from sentencepiece import SentencePieceProcessor
    processor = SentencePieceProcessor(model_proto=tokenizer.model.data)
    return lambda texts: processor.encode(texts, num_threads=1)


def compare_speed(base: BaseTokenizer, new: BaseTokenizer, load: Callable[[BaseTokenizer], Any], texts: list[str]) -> dict[str, float]:
    """Millions of characters a CPU second, and the median over rounds of extended to base time for the same text.

    Loaded anew each round: tokenizers remembers short texts.
    """
    speeds, ratios, walls, size = {0: [], 1: []}, [], [], sum(map(len, texts))
    for number in range(_ROUNDS):
        spent, wall = {}, {}
        for which in ((0, 1), (1, 0))[number % 2]:
            encoder = load((base, new)[which])
            began, started = time.process_time(), time.monotonic()
            encoder(texts)
            spent[which], wall[which] = time.process_time() - began, time.monotonic() - started
            speeds[which].append(size / spent[which] / 1e6)
        ratios.append(spent[1] / spent[0])
        walls.append(wall[1] / wall[0])
    return {"base": statistics.median(speeds[0]), "extended": statistics.median(speeds[1]), "time_ratio": statistics.median(ratios),
            "least": min(ratios), "most": max(ratios), "wall_ratio": statistics.median(walls)}


def goals(result: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    rows = []
    if result["training"]:
        most = max(result["training"], key=lambda row: row["megabytes"])
        rows += [(f"train, select, extend on {most['megabytes']:.0f} MB", "<= 300 s", f"{most['wall']:.0f} s wall, {most['cpu']:.0f} s CPU",
                  most["wall"] <= 300), ("its peak memory", "<= 4 GB", f"{most['peak_gb']:.2f} GB", most["peak_gb"] <= 4)]
    return rows + [(f"encoding time a character, {row['tokenizer']}", "<= 1.00", f"{row['time_ratio']:.2f}", row["time_ratio"] <= 1)
                   for row in result["encoding"]]


def child(text: Path, tokenizer: Path, out: Path) -> dict[str, Any]:
    """Seconds and peak memory of this process."""
    began, started = time.monotonic(), time.process_time()
    made = vocab(VocabConfig(input=str(text), size=_PIECES, out=str(out / "vocab")))
    trained = time.monotonic() - began
    extend(ExtendConfig(model=str(tokenizer), vocab=str(made.path), size=PUBLISHED, tokenizer_only=True, out=str(out / "extended")))
    wall, cpu = time.monotonic() - began, time.process_time() - started
    # Not ru_maxrss: that of a forked process begins with its parent's.
    peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
    size = sum(len(json.loads(line)["text"].encode()) for path in text.glob("*.jsonl") for line in open(path, encoding="utf-8"))
    return {"megabytes": size / _MEGABYTE, "wall": wall, "wall_train": trained, "cpu": cpu, "peak_gb": peak * 1024 / 1e9}


if __name__ == "__main__":
    print(json.dumps(child(*map(Path, sys.argv[1:4]))))
