"""`zhtune clean` beside data-juicer on the same rows, one process each: CPU seconds, megabytes a CPU second, peak, documents kept.

Usage: python scripts/bench/data_juicer.py COLLECTION --python DJ/bin/python [--megabytes 10]

COLLECTION: a corpus.jsonl of mutate.py; its first megabytes are taken. data-juicer (in an environment of its own) runs data_juicer.yaml;
zhtune the web preset with near duplicates, one worker. Both are run on 50 rows as well, and what that takes (imports, starting up) is
taken off, so that the figures are those of the work.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RECIPE = Path(__file__).with_suffix(".yaml")
_PEER = "from data_juicer.config import init_configs; from data_juicer.core import DefaultExecutor as E; E(init_configs()).run()"


def zhtune(python: str, rows: Path, out: Path) -> tuple[list[str], Path]:
    return [python, "-m", "zhtune", "clean", "--input", str(rows), "--preset", "shipped:web", "--near", "0.8", "--heldout", "0", "--max_characters",
            "100000000", "--workers", "1", "--out", str(out)], out / "report.json"


def data_juicer(python: str, rows: Path, out: Path) -> tuple[list[str], Path]:
    kept = out / "kept.jsonl"
    return [python, "-c", _PEER, "--config", str(RECIPE), "--dataset_path", str(rows), "--export_path", str(kept), "--np", "1"], kept


def ran(command: list[str], result: Path) -> dict[str, Any]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "UV_OFFLINE": "1"}
    done = subprocess.run(["/usr/bin/env", *command], capture_output=True, text=True, env=environment)
    if done.returncode or not result.exists():
        raise SystemExit(f"{command[:3]}: {done.stderr[-1500:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    kept = json.loads(result.read_bytes())["counts"]["kept"] if result.name == "report.json" else sum(1 for _ in open(result, "rb"))
    return {"cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, "kept": kept, "peak_mb": after.ru_maxrss // 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", type=Path)
    parser.add_argument("--python", required=True, help="the interpreter that has data-juicer")
    parser.add_argument("--megabytes", type=float, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        few, many = Path(scratch) / "few.jsonl", Path(scratch) / "many.jsonl"
        with open(arguments.collection, "rb") as rows, open(many, "wb") as file:
            for line in rows:
                if file.tell() < arguments.megabytes * 1e6:
                    file.write(line)
        few.write_bytes(b"".join(many.read_bytes().splitlines(keepends=True)[:50]))
        size = (many.stat().st_size - few.stat().st_size) / 1e6
        for name, engine, python in (("zhtune", zhtune, sys.executable), ("data-juicer", data_juicer, arguments.python)):
            start = ran(*engine(python, few, Path(scratch) / f"{name}-few"))
            whole = ran(*engine(python, many, Path(scratch) / f"{name}-many"))
            work = whole["cpu"] - start["cpu"]
            print(json.dumps({"engine": name, "mb": round(size, 1), "start_cpu_s": round(start["cpu"], 2), "work_cpu_s": round(work, 2),
                              "mb_a_cpu_s": round(size / work, 2), "kept": whole["kept"], "peak_mb": whole["peak_mb"]}), flush=True)


if __name__ == "__main__":
    main()
