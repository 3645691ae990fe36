"""A collection with known near duplicates: real texts, and seeded variants of them with the exact Jaccard of each pair.

Usage: python scripts/bench/mutate.py TEXTS OUT --megabytes 40 [--seed 0] [--share 0.1] [--longest 4000].
TEXTS is a file or folder that `zhtune clean` reads.
Writes OUT/corpus.jsonl (id, text) and OUT/pairs.jsonl (original, variant, kind, Jaccard of the sets of 5-grams of folded units).

    exact        the same again                     drop         3 to 40 % of the sentences out
    width        ，。；：？！（） to half width     boilerplate  a head and a foot that many pages have
    substitute   .2 to 8 % of the characters        shuffle      sentences in another order
    mix          two of these, one after the other
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from zhtune.corpus.filters import divide
from zhtune.corpus.read import read_files
from zhtune.corpus.units import fold_units, shingles
from zhtune.records import Document
from zhtune.text import normalise

_WIDTH = str.maketrans("，。；：？！（）", ",.;:?!()")
_HEADS = ("首页 > 新闻 > 正文　字号：大 中 小　责任编辑：小王\n", "扫码关注我们的公众号，每天获取最新资讯。\n", "您当前的位置：网站首页 > 文章列表\n")
_FEET = ("\n上一篇：没有了　下一篇：请稍候", "\n版权所有，转载请注明出处。京ICP备00000000号", "\n相关阅读：更多精彩内容请点击展开全部")


def texts(source: Path, shortest: int = 60, longest: int = 4000) -> list[str]:
    """The documents of a file or folder, normalised, long ones divided, in the order of their names."""
    found = []
    for item in read_files([source]):
        if isinstance(item, Document):
            found += [piece for piece in divide(normalise(item.text).strip(), longest) if len(piece) >= shortest]
    return found


def sentences(text: str) -> list[str]:
    return re.findall(r"[^。！？\n]*[。！？\n]+|[^。！？\n]+$", text)


def substitute(text: str, rng: random.Random) -> str:
    chars = list(text)
    for at in rng.sample(range(len(chars)), max(1, int(len(chars) * rng.uniform(0.002, 0.08)))):
        chars[at] = chr(rng.randrange(0x4E00, 0x9000))
    return "".join(chars)


def drop(text: str, rng: random.Random) -> str:
    parts, share = sentences(text), rng.uniform(0.03, 0.4)
    return "".join(part for part in parts if rng.random() >= share) or text


def shuffle(text: str, rng: random.Random) -> str:
    parts = sentences(text)
    rng.shuffle(parts)
    return "".join(parts)


KINDS: dict[str, Callable[[str, random.Random], str]] = {
    "exact": lambda text, rng: text,
    "width": lambda text, rng: text.translate(_WIDTH),
    "substitute": substitute,
    "drop": drop,
    "boilerplate": lambda text, rng: rng.choice(_HEADS) + text + rng.choice(_FEET),
    "shuffle": shuffle,
}


def variant(text: str, kind: str, rng: random.Random) -> str:
    if kind == "mix":
        for name in rng.sample(sorted(KINDS), 2):
            text = KINDS[name](text, rng)
        return text
    return KINDS[kind](text, rng)


def jaccard(left: str, right: str) -> float:
    a, b = (np.unique(shingles(fold_units([text])[0])) for text in (left, right))
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / max(len(a) + len(b) - common, 1)


def collection(originals: list[str], megabytes: float, seed: int, share: float) -> Iterator[tuple[str, str, str | None, str | None]]:
    """(id, text, id of the original, kind): that share of the text variants, or as many as it takes to reach the size."""
    rng = random.Random(seed)
    originals = list(originals)
    rng.shuffle(originals)
    wanted, size, kinds, n = megabytes * 1e6, 0, [*KINDS, "mix"], 0
    own = min((1 - share) * wanted, sum(len(t.encode()) for t in originals))
    used = []
    for text in originals:
        if size >= own:
            break
        used.append(text)
        size += len(text.encode())
        yield f"{len(used) - 1:07d}", text, None, None
    while size < wanted:
        at, kind = rng.randrange(len(used)), kinds[n % len(kinds)]
        text = variant(used[at], kind, rng)
        size += len(text.encode())
        yield f"v{n:06d}", text, f"{at:07d}", kind
        n += 1


def write(source: Path, out: Path, megabytes: float, seed: int = 0, share: float = 0.1, longest: int = 4000) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    by_id = {}
    rows = []
    with open(out / "pairs.jsonl", "w", encoding="utf-8") as pairs:
        for name, text, original, kind in collection(texts(source, longest=longest), megabytes, seed, share):
            rows.append((name, text))
            if original is None:
                by_id[name] = text
            else:
                pair = {"original": original, "variant": name, "kind": kind, "jaccard": round(jaccard(by_id[original], text), 6)}
                pairs.write(json.dumps(pair) + "\n")
    random.Random(seed).shuffle(rows)
    with open(out / "corpus.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"id": name, "text": text}, ensure_ascii=False) + "\n" for name, text in rows)
    return out / "corpus.jsonl"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--megabytes", type=float, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=0.1, help="of the text that is variants")
    parser.add_argument("--longest", type=int, default=4000, help="characters of an original; longer ones are divided")
    arguments = parser.parse_args()
    print(write(arguments.texts, arguments.out, arguments.megabytes, arguments.seed, arguments.share, arguments.longest))
