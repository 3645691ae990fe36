"""Texts -> domains, each a bounded and repeatable sample. Reads nothing, judges nothing.

A domain is the first component of a document's id: the folder of "laws/civil.txt", the file of "laws.jsonl:12#0". Where
there are more of them than a table can show, there is no telling domains from documents, and all is one.
"""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from zhtune.digests import hash64

MOST_DOMAINS = 20
_PLACE = re.compile(r"(:\d+)?(#\d+)?$")                     # the line of a document in its file, the part of a divided one


def domain_of(name: str) -> str:
    """The first path component of a document's id: a folder, or a file's name without suffix."""
    parts = [part for part in _PLACE.sub("", name).split("/") if part]
    if not parts:
        return ""
    return parts[0] if len(parts) > 1 else PurePosixPath(parts[0]).stem


def group_by_domain(texts: Iterable[tuple[str, str]], name: str = "text", characters: int = 0, seed: int = 0) -> dict[str, list[str]]:
    """Texts by domain, domains sorted, texts in an order drawn from the seed and their ids, so that the first of them are a sample.

    Args:
        texts: `(id, text)`; empty texts do not count.
        name: of the one domain that there is if more than MOST_DOMAINS are found.
        characters: bound of each domain, reached by cutting its last text; 0 keeps all. No more than that is held in memory.
        seed: another one takes other texts.
    """
    limit = characters or math.inf
    pools: dict[str, _Pool] = {}
    single = False
    for id_, text in texts:
        if not text:
            continue
        domain = name if single else domain_of(id_) or name
        pools.setdefault(domain, _Pool(limit)).add(-hash64(f"{seed}:{id_}"), text)
        if len(pools) > MOST_DOMAINS:                       # what the lowest keys of all reach is among what the lowest of each do
            single, parts, pools = True, pools, {name: _Pool(limit)}
            for key, text in (found for part in parts.values() for found in part.heap):
                pools[name].add(key, text)
    return {domain: pools[domain].texts() for domain in sorted(pools)}


class _Pool:
    """The texts of the lowest keys that reach `limit` characters; the same ones in whatever order they come."""

    def __init__(self, limit: float):
        self._limit, self._total = limit, 0
        self.heap: list[tuple[int, str]] = []               # (negative key, text): the highest key on top

    def add(self, key: int, text: str) -> None:
        heapq.heappush(self.heap, (key, text))
        self._total += len(text)
        while self._total - len(self.heap[0][1]) >= self._limit:
            self._total -= len(heapq.heappop(self.heap)[1])

    def texts(self) -> list[str]:
        chosen = [text for _, text in sorted(self.heap, reverse=True)]
        if chosen and self._total > self._limit:
            chosen[-1] = chosen[-1][:len(chosen[-1]) - int(self._total - self._limit)]
        return chosen
