"""The novelty filter: decisions against rouge_score on real instructions, and time and memory for many.

Usage: python scripts/bench/novelty.py DATA [--exact N] [--many N] [--unit words]. DATA is a folder with Chinese instruction files
(JSON or JSON Lines, any of the common shapes). --exact compares with rouge_score (if installed; about 25 minutes for 3,000 on one core),
--many takes N texts; where DATA has fewer, variants with another number and another ending are added.
"""

import argparse
import csv
import hashlib
import json
import resource
import time
from pathlib import Path

from zhtune.synthesis import novelty

KEYS = ("instruction", "query", "question", "问", "content", "ask")
ENDINGS = ("", "请详细说明。", "请用三句话回答。", "谢谢！", "要具体一点。", "最好举一个例子。")
TOKENS = {"words": novelty.words, "characters": lambda text: [c for c in text if not c.isspace()]}


def rows(path: Path):
    """The objects of a JSON, JSON Lines or (GB18030) CSV file."""
    if path.suffix == ".csv":
        with open(path, encoding="gb18030", newline="") as file:
            yield from csv.DictReader(file)
        return
    text = path.read_text("utf-8-sig").strip()
    try:
        value = json.loads(text)
        yield from value if isinstance(value, list) else [value]
    except ValueError:
        yield from (json.loads(line) for line in text.split("\n") if line.strip())


def instruction(row: dict) -> str:
    """The first thing that the user says."""
    for key in KEYS:
        if isinstance(row.get(key), str):
            return row[key].strip()
    turns = row.get("conversations") or row.get("messages") or [{}]
    first = turns[0]
    return str(first.get("value") or first.get("content") or first.get("message") or "").strip()


def instructions(folder: Path, longest: int = 200) -> list[str]:
    """Distinct instructions of 4 to `longest` characters, in the order of their sha256."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".json", ".jsonl", ".csv")):
        try:
            for row in rows(path):
                if isinstance(row, dict) and 4 <= len(text := instruction(row)) <= longest:
                    found[hashlib.sha256(text.encode()).hexdigest()] = text
        except (ValueError, UnicodeDecodeError, csv.Error):
            continue
    return [found[key] for key in sorted(found)]


def enough(texts: list[str], wanted: int) -> list[str]:
    """`wanted` texts: the real ones, then variants of them."""
    many, turn = list(texts), 0
    while len(many) < wanted:
        turn += 1
        for place, text in enumerate(texts):
            ending = ENDINGS[(place + turn) % len(ENDINGS)] + texts[(place * 31 + turn * 17) % len(texts)][:12 * turn]
            many.append(f"{text}（情况{place * 7 % 997}）{ending}")
    return many[:wanted]


def exact(texts: list[str], unit: str) -> None:
    """Greedy decisions of rouge_score and of the index, one by one."""
    from rouge_score import rouge_scorer, scoring  # noqa: F401
    tokenise = TOKENS[unit]
    began, kept, wrong, index = time.monotonic(), [], 0, novelty.NoveltyIndex(tokens=tokenise)
    mine = [twin is None for twin in index.admit_all(texts)]
    spent = time.monotonic() - began
    for place, tokens in enumerate(map(tokenise, texts)):
        novel = all(rouge_scorer._score_lcs(tokens, old).fmeasure <= 0.7 for old in kept)
        wrong += novel != mine[place]
        if novel:
            kept.append(tokens)
        if place % 500 == 499:
            print(f"  {place + 1}: kept {len(kept)}, {wrong} decisions differ, {time.monotonic() - began - spent:.0f} s", flush=True)
    print(f"{len(texts)} texts, {unit}: kept {len(kept)}, {wrong} decisions differ from rouge_score "
          f"({time.monotonic() - began - spent:.0f} s; the index {spent:.2f} s)")


def many(texts: list[str], unit: str) -> None:
    novelty.words("热身")
    began, cpu = time.monotonic(), time.process_time()
    kept = sum(twin is None for twin in novelty.NoveltyIndex(tokens=TOKENS[unit]).admit_all(texts))
    print(f"{len(texts):,} texts, {unit}: kept {kept:,} in {time.monotonic() - began:.1f} s ({time.process_time() - cpu:.1f} s of one core), "
          f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--exact", type=int, default=0)
    parser.add_argument("--many", type=int, default=0)
    parser.add_argument("--unit", default="words", choices=TOKENS)
    given = parser.parse_args()
    texts = instructions(given.data)
    print(f"{len(texts):,} distinct instructions")
    if given.many:
        many(enough(texts, given.many), given.unit)
    if given.exact:
        exact(texts[:given.exact], given.unit)


if __name__ == "__main__":
    main()
