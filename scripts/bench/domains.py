"""Two more domains without a line of code: classical poetry and stocks, from raw data over an ontology to records and pairs.

Usage: python scripts/bench/domains.py --out OUT [--data ../shared/data] [--show 30]
The poems' JSON has no graph shape, so this script writes it as entities (one object a work, one a poet); stocks are read as they are,
once with the draft ontology and once with the draft put into Chinese (ontologies/stock.yaml).
Prints counts, coverage and `--show` records and pairs of each, to be read.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from pathlib import Path

from opencc import OpenCC

from zhtune.records import read_jsonl, write_jsonl
from zhtune.stages.kg import KgConfig, kg
from zhtune.stages.kg_instruct import KgInstructConfig, kg_instruct
from zhtune.stages.prefer import PreferConfig, prefer
from zhtune.synthesis.flaws import FLAWS
from zhtune.synthesis.tasks import MAKERS

ROOT = Path(__file__).parents[2]
POEMS = {"poet.tang.1000.json": "唐", "poet.tang.20000.json": "唐", "poet.tang.35000.json": "唐", "ci.song.1000.json": "宋"}


def main() -> None:
    options = read_options()
    options.out.mkdir(parents=True, exist_ok=True)
    poetry = options.out / "poetry.jsonl"
    print("poetry:", write_jsonl(poetry, entities(options.data / "corpus" / "poetry")), "entities written")
    stock, corrected = options.data / "kg" / "stock", str(Path(__file__).parent / "ontologies" / "stock.yaml")
    for name, source, ontology in (("poetry", poetry, ""), ("stock", stock, ""), ("stock-corrected", stock, corrected)):
        run(name, source, ontology, options.out / name, options.show)


def entities(folder: Path) -> list[dict]:
    """Works whose name only one poet has, and their poets; a ci has no title and is named by its tune and first line."""
    simplified = OpenCC("t2s").convert
    rows, poets = {}, {}
    for file, dynasty in POEMS.items():
        for poem in json.loads(simplified((folder / file).read_text("utf-8"))):
            first = poem["paragraphs"][0].split("，")[0].rstrip("。？！") if poem["paragraphs"] else ""
            name = poem.get("title") or f"{poem['rhythmic']}·{first}"
            if not first or "□" in first:
                continue
            work = {"名称": name, "类型": "诗词", "作者": [poem["author"]], "首句": first, "行数": len(poem["paragraphs"])}
            if "rhythmic" in poem:
                work["词牌"] = [poem["rhythmic"]]
            rows.setdefault(name, []).append(work)
            poets[poem["author"]] = {"名称": poem["author"], "类型": "诗人", "朝代": [dynasty]}
    single = [works[0] for name, works in rows.items() if len(works) == 1 and name not in poets]
    return [*single, *(poets[author] for author in dict.fromkeys(work["作者"][0] for work in single))]


def run(name: str, source: Path, ontology: str, out: Path, show: int) -> None:
    graph = kg(KgConfig(input=str(source), ontology=ontology, out=str(out / "graph")))
    tasks = dict.fromkeys(MAKERS, 60) | {"attribute": graph.manifest["metrics"].get("attributes", 0)}
    made = kg_instruct(KgInstructConfig(graph=str(graph.path), records_per_fact=1, noise=False, tasks=tasks, out=str(out / "records")))
    chosen = prefer(PreferConfig(graph=str(graph.path), records=str(made.path), pairs=200, flaws=list(FLAWS), flaw_pairs=60, out=str(out / "pairs")))
    for artifact in (graph, made, chosen):
        print(name, artifact.manifest["stage"], artifact.manifest["metrics"], artifact.manifest["counts"]["dropped"])
    report = json.loads((made.path / "report.json").read_text("utf-8"))
    print(name, report["coverage"], report.get("coverage_of_attributes"), report["verified"])
    by_task: dict[str, list[dict]] = {}
    for _, row in read_jsonl(made.path / "records.jsonl"):
        by_task.setdefault(row["source"]["task"], []).append(row)
    draw = random.Random(0)
    for i in range(show):
        task = list(by_task)[i % len(by_task)]
        print(f"  [{task}]", " | ".join(message["content"].replace("\n", "\\n") for message in draw.choice(by_task[task])["messages"]))
    pairs = [row for _, row in read_jsonl(chosen.path / "preferences.jsonl")]
    print(name, Counter(row["source"]["flaw"] for row in pairs))
    for row in draw.sample(pairs, min(show, len(pairs))):
        texts = (row[part][0]["content"].replace("\n", "\\n") for part in ("prompt", "chosen", "rejected"))
        print(f"  <{row['source']['flaw']}>", " | ".join(texts))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--show", type=int, default=30)
    return parser.parse_args()


if __name__ == "__main__":
    main()
