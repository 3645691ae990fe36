"""Benchmark items planted in real text: how many are found in six altered forms, and how much clean text is taken for an item.

Usage: python scripts/bench/contamination.py TEXTS BENCHMARK … [--items 300] [--seed 0]. BENCHMARK: files or folders that
`zhtune clean --against` reads; TEXTS: a file or folder that `zhtune clean` reads. Items without 13 words are left out.
Clean: the documents of TEXTS, minus those that share 30 words in a row with an item (these hold it in fact).
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

from mutate import texts

from zhtune.corpus import units
from zhtune.corpus.contamination import RUN, Benchmark, Item
from zhtune.synthesis.leaks import benchmark_items

_WIDTH = str.maketrans("，。；：？！（）", ",.;:?!()")


def traditional(text: str) -> str:
    old, new = (Path(units.__file__).parent / "simplified.txt").read_text("utf-8").split()
    return text.translate(str.maketrans(new, old))


def joined(item: Item, rng: random.Random) -> str:
    return "\n".join((item.questions[0], *dict.fromkeys(p for p in item.parts if p != item.questions[0])))


def shuffled(item: Item, rng: random.Random) -> str:
    options = list(dict.fromkeys(p for p in item.parts if p != item.questions[0]))
    return "\n".join((item.questions[0], *rng.sample(options, len(options))))


def edited(text: str, rng: random.Random) -> str:
    at = rng.choice([i for i, char in enumerate(text) if char.isalnum()])
    return text[:at] + chr(rng.randrange(0x4E00, 0x9000)) + text[at + 1:]


def broken(text: str, rng: random.Random) -> str:
    return "".join(char + ("\n" if rng.random() < 0.1 else "") for char in text)


FORMS: dict[str, Callable[[Item, random.Random], str]] = {
    "verbatim": joined,
    "question only": lambda item, rng: item.questions[0],
    "half width": lambda item, rng: joined(item, rng).translate(_WIDTH),
    "traditional": lambda item, rng: traditional(joined(item, rng)),
    "line broken": lambda item, rng: broken(joined(item, rng), rng),
    "options shuffled": shuffled,
    "one character": lambda item, rng: edited(joined(item, rng), rng),
    "question, one character": lambda item, rng: edited(item.questions[0], rng),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path)
    parser.add_argument("benchmark", type=Path, nargs="+")
    parser.add_argument("--items", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    began = time.process_time()
    items = list(benchmark_items(arguments.benchmark))
    benchmark = Benchmark(items)
    print(json.dumps({"items": benchmark.items, "common_grams": benchmark.common_grams, "index_s": round(time.process_time() - began, 2)}))
    documents = texts(arguments.texts)
    size = sum(len(text.encode()) for text in documents) / 1e6
    began = time.process_time()
    hits = [hit for start in range(0, len(documents), 200) for hit in benchmark.find(documents[start:start + 200])]
    spent = time.process_time() - began
    held = [hit for hit in hits if hit and hit.held]
    real = [hit for hit in held if hit.words >= 30]
    overlap = sum(hit is not None and hit.words >= RUN for hit in hits)
    print(json.dumps({"clean_documents": len(documents), "held": len(held), "of_them_30_words_in_a_row": len(real), "13_words_in_a_row": overlap,
                      "mb_s": round(size / spent, 1)}))
    for hit in [h for h in held if h.words < 30][:12]:
        print(json.dumps({"place": hit.place, "share": round(hit.share, 2), "words": hit.words, "text": hit.text[:60]}, ensure_ascii=False))
    clean = [text for text, hit in zip(documents, hits) if hit is None]
    suited = [item for item in items if item.questions and len(units.fold_units([item.questions[0]])[0]) >= RUN]
    for name, form in FORMS.items():
        chosen = rng.sample(suited, min(arguments.items, len(suited)))
        planted = [rng.choice(clean)[:500] + "\n" + form(item, rng) + "\n" + rng.choice(clean)[:500] for item in chosen]
        found = sum(hit is not None and hit.held for hit in benchmark.find(planted))
        print(json.dumps({"form": name, "found": found, "of": len(planted), "share": round(found / len(planted), 3)}))


if __name__ == "__main__":
    main()
