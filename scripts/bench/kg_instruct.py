"""How many template records a second kg-instruct writes, beside a yardstick, and whether every clean triple is covered.

Usage: python scripts/bench/kg_instruct.py [--records_per_fact 5] [--workers 2] [--data ../shared/data/kg] [--profile]
The graph is that of the shared shards and triples together. The yardstick writes the same bytes with orjson. Coverage is
counted a second time from records.jsonl and triples.jsonl alone, by ids and by the texts. Digests of two numbers of workers must be equal.
"""

from __future__ import annotations

import argparse
import cProfile
import hashlib
import json
import os
import pstats
import shutil
import tempfile
from pathlib import Path
from time import perf_counter

import orjson

from zhtune.artifact import Artifact
from zhtune.stages.kg import KgConfig, kg
from zhtune.stages.kg_instruct import KgInstructConfig, kg_instruct

ROOT = Path(__file__).parents[2]


def main() -> None:
    options = read_options()
    with tempfile.TemporaryDirectory() as scratch:
        graph = make_graph(options.data, Path(scratch))
        print(graph.manifest["metrics"], graph.manifest["counts"])
        run = Runs(graph, Path(scratch), options.records_per_fact, {"attribute": graph.manifest["metrics"]["attributes"]})
        if options.profile:
            profiler = cProfile.Profile()
            profiler.runcall(run.make, 1)
            pstats.Stats(profiler).sort_stats("cumulative").print_stats(45)
            return
        (made, seconds, cpu), (one, alone, cpu_alone) = run.make(options.workers), run.make(1)
        records = made.manifest["metrics"]["records"]
        print(f"kg-instruct: {records:,} records, {records / seconds:,.0f} a second with {options.workers} workers, {records / alone:,.0f} with one; "
              f"{cpu:.1f} and {cpu_alone:.1f} CPU seconds in {seconds:.1f} and {alone:.1f} s")
        print(f"yardstick: {records / yardstick(made.path / 'records.jsonl', Path(scratch)):,.0f} a second (orjson, the same bytes)")
        print("equal bytes:", made.digest == one.digest, made.digest[:12])
        print("covered: {} of {} triples, {} of {} values; in words: {}".format(*covered(graph.path, made.path)))
        print("report:", json.loads((made.path / "report.json").read_text("utf-8"))["verified"])


def make_graph(data: Path, scratch: Path) -> Artifact:
    """The graph of the shards and the triples, by the ontology beside this script."""
    folder = scratch / "input"
    folder.mkdir()
    for file in (data / "medical_triples.tsv", *sorted((data / "medical_shards").iterdir())):
        shutil.copyfile(file, folder / file.name)
    ontology = Path(__file__).parent / "ontologies" / "xywy.yaml"
    return kg(KgConfig(input=str(folder), ontology=str(ontology), on_contradiction="drop", out=str(scratch / "graph")))


class Runs:
    """The same records again and again, timed."""

    def __init__(self, graph: Artifact, scratch: Path, per_fact: int, tasks: dict[str, int]):
        self._graph, self._scratch, self._per_fact, self._tasks, self._number = graph, scratch, per_fact, tasks, 0

    def make(self, workers: int) -> tuple[Artifact, float, float]:
        """The records, seconds on the clock, and CPU seconds of this process and its children."""
        self._number += 1
        config = KgInstructConfig(graph=str(self._graph.path), records_per_fact=self._per_fact, tasks=self._tasks, workers=workers,
                                  out=str(self._scratch / f"records-{self._number}"))
        began, before = perf_counter(), sum(os.times()[:4])
        made = kg_instruct(config)
        return made, perf_counter() - began, sum(os.times()[:4]) - before


def yardstick(file: Path, scratch: Path) -> float:
    """Seconds that orjson needs to write the same records."""
    rows = [orjson.loads(line) for line in open(file, "rb")]
    began = perf_counter()
    with open(scratch / "yardstick.jsonl", "wb") as out:
        for row in rows:
            out.write(orjson.dumps(row) + b"\n")
    seconds = perf_counter() - began
    assert (scratch / "yardstick.jsonl").read_bytes() == file.read_bytes()
    return seconds


def covered(graph: Path, records: Path) -> tuple[int, int, int, int, int]:
    """(triples named by a record, all triples, values named, all values, statements whose head and tail stand in the text of such a record)."""
    wanted = [[(row["head"], row["relation"], row["tail"]) for row in map(json.loads, open(graph / "triples.jsonl", encoding="utf-8"))],
              [(row["entity"], row["attribute"], row["value"]) for row in map(json.loads, open(graph / "attributes.jsonl", encoding="utf-8"))]]
    ids = [{hashlib.sha1("\0".join(parts).encode()).hexdigest()[:12]: parts for parts in part} for part in wanted]
    named, said = set(), set()
    for line in open(records / "records.jsonl", encoding="utf-8"):
        row = json.loads(line)
        text = "\n".join(message["content"] for message in row["messages"])
        for name in row["source"]["triples"]:
            named.add(name)
            head, _, tail = ids[0].get(name) or ids[1][name]
            if head in text and tail in text:
                said.add(name)
    return len(named & set(ids[0])), len(ids[0]), len(named & set(ids[1])), len(ids[1]), len(said)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records_per_fact", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "kg")
    parser.add_argument("--profile", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
