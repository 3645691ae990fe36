"""Time and peak memory of `zhtune clean --near` and `zhtune pack` by size of the corpus, and what the slopes say for 100 GB.

Usage: python scripts/bench/slope.py TEXTS OUT [--megabytes 10 20 40 80]. Half of each collection is variants (mutate.py), and documents are short
(300 characters), so that parts of 20,000 documents, which are held until they are written, are full from the second size on. One worker;
each stage runs in a process of its own, figures from its report.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from zhtune.models.shapes import write_byte_tokenizer


def run(*arguments: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-m", "zhtune", *arguments, "--workers", "1"], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-1000:])
    return json.loads((Path(arguments[-1]) / "report.json").read_text("utf-8"))["spent"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[10, 20, 40, 80])
    arguments = parser.parse_args()
    write_byte_tokenizer(arguments.out / "tokenizer")
    rows = []
    for size in arguments.megabytes:
        folder = arguments.out / f"{size:g}"
        corpus = folder / "corpus.jsonl"                    # by another process: a child counts its parent's memory as its own peak
        subprocess.run([sys.executable, str(Path(__file__).with_name("mutate.py")), str(arguments.texts), str(folder), "--megabytes", str(size),
                        "--share", "0.5", "--longest", "300"], check=True, capture_output=True)
        plain = run("clean", "--input", str(corpus), "--out", str(folder / "plain"))
        near = run("clean", "--input", str(corpus), "--near", "0.8", "--out", str(folder / "near"))
        packed = run("pack", "--corpus", str(folder / "near"), "--model", str(arguments.out / "tokenizer"), "--out", str(folder / "packed"))
        documents = json.loads((folder / "near" / "manifest.json").read_text("utf-8"))["counts"]["in"]
        rows.append({"mb": size, "documents": documents, **{f"{name}_{key}": spent[key] for name, spent in
                    (("clean", plain), ("near", near), ("pack", packed)) for key in ("seconds", "peak_rss_mib")}})
        print(json.dumps(rows[-1]), flush=True)
    sizes = [row["mb"] for row in rows]
    for key in rows[0]:
        if key.endswith(("seconds", "mib")):
            slope, start = np.polyfit(sizes, [row[key] for row in rows], 1)
            figures = {"at_0": round(float(start), 2), "per_mb": round(float(slope), 4), "at_100_gb": round(float(start + slope * 1e5))}
            print(json.dumps({"figure": key, **figures}))


if __name__ == "__main__":
    main()
