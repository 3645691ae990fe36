"""`zhtune clean` beside data-juicer on the same rows: CPU seconds a megabyte, from two sizes, each in a process of its own.

Usage: python scripts/bench/clean_peer.py COLLECTION --python DJ/bin/python [--megabytes 0.5 2.5]

COLLECTION: a corpus.jsonl of mutate.py, of which the first megabytes are taken. data-juicer (in an environment of its own) runs the
operators of clean_peer.yaml one after the other, as its executor does; zhtune the web preset and near duplicates. Reading and
writing of files is left out on both sides. Both have run 20 rows before the clock starts; the slope between the two sizes leaves
out what data-juicer needs to start the processes of each operator (some 12 CPU s).
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

RECIPE = Path(__file__).with_suffix(".yaml")


def zhtune(texts: list[str]) -> int:
    """Documents kept."""
    from zhtune import assets
    from zhtune.corpus.distinct import Distinct
    from zhtune.corpus.filters import read_rules
    from zhtune.corpus.prepare import Settings, count_lines, prepared
    from zhtune.records import Document
    documents, rules = [Document(str(i), text, {"file": ""}) for i, text in enumerate(texts)], read_rules(assets.shipped("web"), {})
    kept = (o.document for o in prepared(documents, Settings(rules, lines=count_lines(documents, rules))) if o.document)
    with tempfile.TemporaryDirectory() as scratch:
        return sum(1 for _ in Distinct(near=0.8, shortest=rules.min_characters)(kept, (), Path(scratch), lambda *_, **__: None))


def data_juicer(texts: list[str]) -> int:
    import yaml
    from data_juicer.core.data import NestedDataset
    from data_juicer.ops import load_ops
    dataset = NestedDataset.from_list([{"text": text} for text in texts])
    steps = yaml.safe_load(RECIPE.read_text("utf-8"))["process"]
    for operator in load_ops([{name: options or {} for name, options in step.items()} for step in steps]):
        dataset = operator.run(dataset)
    return len(dataset)


ENGINES = {"zhtune": zhtune, "data-juicer": data_juicer}


def cpu() -> float:
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def one(engine: str, collection: Path, megabytes: float) -> None:
    texts, size = [], 0
    for line in open(collection, "rb"):
        if size < megabytes * 1e6:
            texts.append(json.loads(line)["text"])
            size += len(line)
    ENGINES[engine](texts[:20])
    began = cpu()
    kept = ENGINES[engine](texts)
    print(json.dumps({"mb": size / 1e6, "cpu": cpu() - began, "rows": len(texts), "kept": kept}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", type=Path)
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has data-juicer")
    parser.add_argument("--megabytes", type=float, nargs=2, default=[0.5, 2.5])
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=ENGINES)
    parser.add_argument("--one", type=float, help="run the engine here on so many megabytes")
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.engines[0], arguments.collection, arguments.one)
        return
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    for engine in arguments.engines:
        python, runs = arguments.python if engine == "data-juicer" else sys.executable, []
        for megabytes in arguments.megabytes:
            command = [python, __file__, str(arguments.collection), "--engines", engine, "--one", str(megabytes)]
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            if done.returncode:
                raise SystemExit(f"{engine}: {done.stderr[-1500:]}")
            runs.append(json.loads(done.stdout.splitlines()[-1]))
        less, more = runs
        slope = (more["cpu"] - less["cpu"]) / (more["mb"] - less["mb"])
        print(json.dumps({"engine": engine, "cpu_s": [round(run["cpu"], 2) for run in runs], "kept": more["kept"], "of": more["rows"],
                          "cpu_s_a_mb": round(slope, 2), "mb_a_cpu_s": round(1 / slope, 2)}), flush=True)


if __name__ == "__main__":
    main()
