"""A seeded sample of what `zhtune clean` dropped and kept, for a person to read, and error rates by reason from what they found.

    python scripts/bench/clean_sample.py draw CORPUS --input ../shared/data/corpus --fields text abst … --out SAMPLE
    python scripts/bench/clean_sample.py rates docs/measurements/clean-verdicts.jsonl

draw: 200 dropped documents, as even by reason as there are, and 200 kept ones, as even by file, into SAMPLE.txt (beginning and end;
value, twin or item of a dropped one) and SAMPLE.jsonl (id, set, reason or file, how many documents that stands for), to which the
reader adds `right`, `why` and, where it is wrong, `mended` (whether a rule was changed since). rates: errors by reason with Wilson's
95 % interval, and all of a set weighted by what was drawn from.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

from zhtune.corpus.read import read_files, read_texts
from zhtune.corpus.tabular import Refusal
from zhtune.records import dumps


def even(strata: dict[str, list[str]], total: int, seed: int) -> list[tuple[str, str]]:
    """(stratum, id) of `total` things, the same number of each stratum as far as it has them."""
    chosen, left = [], total
    for place, name in enumerate(sorted(strata, key=lambda name: (len(strata[name]), name))):
        count = min(len(strata[name]), left // (len(strata) - place))
        chosen += [(name, item) for item in sorted(random.Random(seed).sample(sorted(strata[name]), count))]
        left -= count
    return chosen


def draw(arguments: argparse.Namespace) -> None:
    dropped = {row["id"]: row for row in map(json.loads, open(arguments.corpus / "dropped.jsonl", encoding="utf-8"))}
    reasons, files, texts = defaultdict(list), defaultdict(list), defaultdict(str)
    for name, row in dropped.items():
        reasons[row["reason"]].append(name)
    pieces = [piece for split in ("part", "heldout") for piece in read_texts(arguments.corpus, split)]
    for name, text in sorted(pieces, key=lambda piece: int(piece[0].rpartition("#")[2]) if "#" in piece[0] else 0):
        texts[name.partition("#")[0]] += text
    for name in texts:
        files[name.partition(":")[0].partition("/")[0]].append(name)
    sample = [("dropped", *item) for item in even(reasons, 200, 0)] + [("kept", *item) for item in even(files, 200, 0)]
    wanted = {name for what, _, name in sample if what == "dropped"} | {row["same_as"] for row in dropped.values() if "same_as" in row}
    raw = {item.id: item.text for item in read_files(arguments.input, arguments.fields) if not isinstance(item, Refusal) and item.id in wanted}
    with open(f"{arguments.out}.jsonl", "wb") as rows, open(f"{arguments.out}.txt", "w", encoding="utf-8") as read:
        for number, (what, stratum, name) in enumerate(sample):
            rows.write(dumps({"id": name, "set": what, "reason" if what == "dropped" else "file": stratum,
                              "of": len((reasons if what == "dropped" else files)[stratum])}) + b"\n")
            more = {k: v for k, v in dropped[name].items() if k not in ("id", "reason", "text")} if what == "dropped" else {}
            print(f"=== {number} {what} {stratum} {name} {more or ''}\n{_shown(raw.get(name, '') if what == 'dropped' else texts[name])}", file=read)
            if "same_as" in more:
                print(f"  ~~~ {_shown(raw.get(more['same_as'], ''), 200)}", file=read)


def _shown(text: str, most: int = 400) -> str:
    return f"{len(text)}: " + (text if len(text) <= most + 100 else f"{text[:most]} […] {text[-100:]}")


def rates(arguments: argparse.Namespace) -> None:
    strata: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in map(json.loads, open(arguments.verdicts, encoding="utf-8")):
        strata[row["set"], row.get("reason", row.get("file"))].append(row)
    print("| | of | read | wrong | 95 % | after mending |\n|---|---|---|---|---|---|")
    for (what, name), rows in sorted(strata.items()):
        wrong = sum(not row["right"] for row in rows)
        low, high = wilson(wrong, len(rows))
        left = sum(not row["right"] and not row["mended"] for row in rows)
        print(f"| {what}: {name} | {rows[0]['of']} | {len(rows)} | {wrong} | {100 * low:.0f} to {100 * high:.0f} % | {left} |")
    for what in ("dropped", "kept"):
        mine = [rows for (kind, _), rows in strata.items() if kind == what]
        total = sum(rows[0]["of"] for rows in mine)
        for when, mended in (("as read", True), ("after mending", False)):
            share = sum(rows[0]["of"] / total * sum(not row["right"] and (mended or not row["mended"]) for row in rows) / len(rows) for rows in mine)
            print(f"{what}: {sum(map(len, mine))} read; wrong {when}, weighted by what was drawn from: {100 * share:.1f} % of {total}")


def wilson(wrong: int, of: int, z: float = 1.96) -> tuple[float, float]:
    """The interval of Wilson 1927 for a share."""
    share, scale = wrong / of, 1 + z * z / of
    middle, half = (share + z * z / (2 * of)) / scale, z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of)) / scale
    return max(middle - half, 0.0), min(middle + half, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("draw")
    verb.add_argument("corpus", type=Path)
    verb.add_argument("--input", type=Path, nargs="+", required=True)
    verb.add_argument("--fields", nargs="*", default=[])
    verb.add_argument("--out", required=True)
    verb.set_defaults(run=draw)
    verb = verbs.add_parser("rates")
    verb.add_argument("verdicts", type=Path)
    verb.set_defaults(run=rates)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
