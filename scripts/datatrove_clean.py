"""`zhtune clean` past one machine: datatrove's executors (local, Slurm, Ray) judge the documents, one task what needs all of them.

    python scripts/datatrove_clean.py clean.yaml --tasks 64 --executor slurm --options '{"partition": "cpu", "time": "8:00:00"}'

clean.yaml holds the fields of `zhtune clean --config`, `out` and `input` among them, on a disk that all machines see. The same
functions work in three jobs, and the corpus is, byte for byte, the one that `zhtune clean` writes; that then finds it up to date.

    count    each task its files -> lines of navigation counted        (only where the rule boilerplate asks for it)
    judge    each task its files -> OUT.ranks-*/NNNNN.jsonl, one outcome a document
    gather   one task: these in order -> duplicates, other data sets, benchmarks, parts -> OUT

Files are dealt out to tasks, so cut a large one into several before. A job that was stopped goes on with the tasks that are not
done. --options: whatever else the executor takes (docs of datatrove); a Ray cluster is found as `ray.init()` finds it.
Needs: pip install "zhtune[datatrove]", or "zhtune[ray]".
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from zhtune.building import build, resolve_inputs
from zhtune.config import parse
from zhtune.corpus.boilerplate import LineCounts
from zhtune.corpus.prepare import Outcome, Settings, count_lines, prepared
from zhtune.corpus.read import list_files, read_file
from zhtune.errors import ZhtuneError, require
from zhtune.records import Document, dumps
from zhtune.stages.clean import STAGE, CleanConfig, settings_of, write


@dataclass(frozen=True)
class Job:
    """What every task knows."""

    config: CleanConfig
    settings: Settings
    """Without the counts of lines"""
    files: list[tuple[Path, str]]
    folder: Path
    """Where the jobs hand over"""

    def mine(self, rank: int, size: int) -> Iterator[tuple[int, Any]]:
        """(number, pieces of input) of each file that is this task's."""
        for number in range(rank, len(self.files), size):
            yield number, read_file(*self.files[number], tuple(self.config.fields))


def count(job: Job, data: Any, rank: int, size: int) -> None:
    table = count_lines(chain.from_iterable(items for _, items in job.mine(rank, size)), job.settings.rules).table.reshape(-1)
    at = np.flatnonzero(table)
    np.savez(job.folder / f"lines-{rank:05d}.npz", at=at, counts=table[at])


def judge(job: Job, data: Any, rank: int, size: int) -> None:
    settings = job.settings
    if settings.rules.boilerplate:
        settings = replace(settings, lines=LineCounts())
        for path in sorted(job.folder.glob("lines-*.npz")):
            with np.load(path) as part:
                settings.lines.table.reshape(-1)[part["at"]] += part["counts"]
    for number, items in job.mine(rank, size):
        with open(job.folder / f"{number:05d}.partial", "wb") as file:
            for outcome in prepared(items, settings):
                file.write(dumps({**vars(outcome), "document": outcome.document and vars(outcome.document)}) + b"\n")
        os.replace(file.name, job.folder / f"{number:05d}.jsonl")


def gather(job: Job, data: Any, rank: int, size: int) -> None:
    build(STAGE, job.config, lambda work: write(work, job.config, (job.settings, outcomes(job))))


def outcomes(job: Job) -> Iterator[Outcome]:
    """What the tasks wrote, in the order of the input."""
    for number in range(len(job.files)):
        with open(job.folder / f"{number:05d}.jsonl", "rb") as file:
            for row in map(orjson.loads, file):
                document = Document(**row["document"]) if row["document"] else None
                yield Outcome(**{**row, "document": document, "personal": Counter(row["personal"])})


def job_of(config: CleanConfig, tasks: int) -> Job:
    """What is to be done; its folder is of these settings, inputs and tasks alone."""
    sources = resolve_inputs(STAGE, config)
    inputs = sources["input"] if isinstance(sources["input"], list) else [sources["input"]]
    key = hashlib.sha256(repr((config, tasks, sources)).encode()).hexdigest()[:12]
    files = list(list_files([source.path for source in inputs]))
    return Job(config, settings_of(config, sources), files, Path(f"{config.out}.ranks-{key}").absolute())


def executor_class(name: str) -> Any:
    executor = require("datatrove.executor", "datatrove")
    if name == "ray":
        require("ray", "ray")
        from datatrove.executor.ray import RayPipelineExecutor
        return RayPipelineExecutor
    return {"local": executor.LocalPipelineExecutor, "slurm": executor.SlurmPipelineExecutor}[name]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="YAML of `zhtune clean`")
    parser.add_argument("--tasks", type=int, default=2)
    parser.add_argument("--executor", choices=("local", "slurm", "ray"), default="local")
    parser.add_argument("--options", type=json.loads, default={}, help="a JSON object of what the executor takes besides")
    arguments = parser.parse_args()
    try:
        job = job_of(parse(CleanConfig, "clean", ["--config", arguments.config]), arguments.tasks)
        executor = executor_class(arguments.executor)
        job.folder.mkdir(parents=True, exist_ok=True)
        last = None
        for step in (count, judge, gather) if job.settings.rules.boilerplate else (judge, gather):
            last = executor([partial(step, job)], tasks=1 if step is gather else arguments.tasks, depends=last, skip_completed=step is not gather,
                            logging_dir=str(job.folder / "logs" / step.__name__), **arguments.options)
        last.run()
    except ZhtuneError as error:
        print(f"datatrove_clean: {error}", file=sys.stderr)
        return 1
    if arguments.executor != "slurm":                       # which only takes the jobs in
        shutil.rmtree(job.folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
