"""How well the verifier tells right answers from wrong ones: 2,000 seeded corruptions, and paraphrases that are right.

Usage: python scripts/bench/verifier.py [--graph FOLDER] [--paraphrases FILE] [--corruptions 2000] [--seed 0] [--show N]
A corruption counts as caught if a claim that overlaps the corrupted place is flagged.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from pathlib import Path
from time import perf_counter

from zhtune.graph.graph import Graph
from zhtune.synthesis.instruct import LIST_MARK, answer
from zhtune.synthesis.verify import Verifier

ROOT = Path(__file__).parents[2]
# Forms of the shipped answers, turned around.
FLIPS = (("适合多吃", "不适合吃"), ("要忌口的有", "可以放心吃的有"), ("需要做的检查有", "不需要做的检查有"), ("应到", "不应到"),
         ("多由", "不是由"), ("可能引起的并发症有", "不会引起的并发症有"), ("人群是", "人群不是"), ("常用药物有", "不能用的药物有"),
         ("办法有", "办法没有"), ("症状有", "症状没有"))
INVENTED = ("量子共振", "蓝光激活素", "星尘综合反应", "极光草本露", "三号稳态片", "云母波动症", "晶格松弛法", "负熵饮食")


def main() -> None:
    options = read_options()
    graph = Graph.open(options.graph)
    verifier = Verifier(graph)
    right = [(h, r, answer(graph, h, r)) for h, r in sorted(graph.facts)]
    rows = [json.loads(line) for line in open(options.paraphrases, encoding="utf-8")] if options.paraphrases.exists() else []
    began = perf_counter()
    rejected = [text for h, r, text in right if not verifier.verify(text, h, r).accepted]
    print(f"template answers: {len(right) - len(rejected)} of {len(right)} accepted, {len(right) / (perf_counter() - began):,.0f} a second")
    if rows:
        refused = [row for row in rows if not verifier.verify(row["answer"], row["head"], row["relation"]).accepted]
        print(f"paraphrases: {len(rows) - len(refused)} of {len(rows)} accepted ({1 - len(refused) / len(rows):.1%})")
        for row in refused[:options.show]:
            found = verifier.verify(row["answer"], row["head"], row["relation"])
            print("  ", row["answer"], [(c.text, c.reason) for c in found.flagged], found.missing)
    answers = right + [(row["head"], row["relation"], row["answer"]) for row in rows]
    caught, total = Counter(), Counter()
    for kind, head, relation, text, start, end in corruptions(graph, answers, options.corruptions, options.seed):
        found = verifier.verify(text, head, relation)
        hit = any(c.start < end and start < c.end for c in found.flagged)
        total[kind] += 1
        caught[kind] += hit
        if not hit and options.show > 0:
            print("   missed", kind, text, (text[start:end]), [(c.text, c.reason) for c in found.flagged])
            options.show -= 1
    for kind in sorted(total):
        print(f"{kind}: {caught[kind]} of {total[kind]} ({caught[kind] / total[kind]:.1%})")
    print(f"corruptions flagged at their place: {caught.total()} of {total.total()} ({caught.total() / total.total():.2%})")


def corruptions(graph: Graph, answers: list[tuple[str, str, str]], number: int, seed: int):
    """Yield (kind, head, relation, corrupted text, start, end) of the place that is wrong."""
    makers = {"entity_swap": swap, "polarity": polarity, "number": count, "invented_item": invent, "wrong_head": wrong_head}
    generator, made = random.Random(seed), 0
    while made < number:
        kind = list(makers)[made % len(makers)]
        head, relation, text = generator.choice(answers)
        corrupted = makers[kind](graph, head, relation, text, generator)
        if corrupted is not None:
            yield kind, head, relation, *corrupted
            made += 1


def swap(graph: Graph, head: str, relation: str, text: str, generator: random.Random):
    tail = generator.choice(graph.tails(head, relation))
    false = graph.false_names(head, graph.ontology.relations[relation].tails[0], set())
    at = text.find(tail)
    return _put(text, at, at + len(tail), generator.choice(false)) if false and at >= 0 else None


def polarity(graph: Graph, head: str, relation: str, text: str, generator: random.Random):
    for form, flipped in FLIPS:
        at = text.find(form)
        if at >= 0 and text == answer(graph, head, relation):
            changed, start, _ = _put(text, at, at + len(form), flipped)
            return changed, start, len(changed)             # the whole list is wrong now
    return None


def count(graph: Graph, head: str, relation: str, text: str, generator: random.Random):
    size = len(graph.tails(head, relation))
    false = generator.choice([n for n in range(2, 9) if n != size])
    front = f"{head}的{graph.ontology.relations[relation].labels[0]}共有"
    said = generator.choice((f"{false}种", f"{'零一二三四五六七八九'[false]}项"))
    return f"{front}{said}：{LIST_MARK.join(graph.tails(head, relation))}。", len(front), len(front) + len(said)


def invent(graph: Graph, head: str, relation: str, text: str, generator: random.Random):
    tail, new = generator.choice(graph.tails(head, relation)), generator.choice(INVENTED)
    at = text.find(tail)
    joint = generator.choice(("、", "以及", "和"))
    return (*_put(text, at + len(tail), at + len(tail), joint + new)[:1], at + len(tail) + len(joint), at + len(tail) + len(joint) + len(new)) \
        if at >= 0 else None


def wrong_head(graph: Graph, head: str, relation: str, text: str, generator: random.Random):
    rule = graph.ontology.relations[relation]
    tails = set(graph.tails(head, relation))
    others = [h for h in graph.of_type(*rule.heads) if h != head and h not in tails and head not in h and h not in head]
    at = text.find(head)
    return _put(text, at, at + len(head), generator.choice(others)) if at >= 0 and text.count(head) == 1 else None


def _put(text: str, start: int, end: int, new: str):
    return text[:start] + new + text[end:], start, start + len(new)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graph", type=Path, default=ROOT / "knowledge_graphs" / "medical")
    parser.add_argument("--paraphrases", type=Path, default=ROOT / "tests" / "data" / "paraphrases.jsonl")
    parser.add_argument("--corruptions", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
