"""Is an answer what the graph says? Every claim of it is marked supported, contradicted or unsupported, with its place.

An answer is about one fact, (head, relation) -> tails. Names of the graph are linked, longest first; each is a claim
about the head. A sentence is read part by part: negations turn a claim around unless the relation itself is one of
avoidance, which its answer form in the ontology shows. Items of a list that are no name of the graph, numbers that do not
count the list, and names of other heads are claims too. The world is open: "unsupported" is not "false".
It does not judge grammar, style or helpfulness.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import NamedTuple

from zhtune.graph.graph import Graph
from zhtune.graph.ontology import Relation
from zhtune.synthesis.link import Linker, Mention

SUPPORTED, CONTRADICTED, UNSUPPORTED = "supported", "contradicted", "unsupported"

_NEGATION = re.compile(
    "不是|不宜|不能|不可|不要|不得|不应|不该|不吃|不会|不需|不用|不属于|不包括|没有|并无|绝非|并非|避免|避开|远离|禁止|禁忌|禁食|忌口|忌|戒|除外|"
    "别(?=再|吃|碰|喝|让|沾|去|把|随|乱)|勿|莫|少吃|少碰|少喝|拒绝|不|无(?=关|需)|非(?!常)")
# Negations in form only, and those of a warning: "do not overlook the headache" states the headache.
_HARMLESS = re.compile(
    "不仅|不但|不只|不光|不止|不少|不同|不过|不断|不妨|不外乎|不外|无非|不适(?![合宜用])|不良|不足|不振|不佳|不清|不舒服|不一定|不尽相同|不明|不太舒服|"
    "除非|非常|无论|不管|特别|分别|个别|区别|识别|级别|类别|性别|别名|莫非|未必|不复杂|不难|不麻烦|不愈|不了干系|"
    "(?:不要|不可|不能|不应|不宜|不该|不容|别|勿|切勿|切莫)(?:再)?(?:忽视|忽略|大意|小看|轻视|错过|拖延|拖|担心|害怕|惊慌|慌张|慌|着急|掉以轻心|漏掉|漏下|落下)|"
    "少不了|离不开|不可或缺|不可少|必不可少|免不了|躲不开|逃不过|逃不掉|差不多|对不起|不好意思|要不然|不得不")
_AFFIRMATION = re.compile("可以|应该|应当|适合|适宜|宜|推荐|建议|多吃|常吃|需要|能够|有助|有益|包括|就是|会出现|表现为|主要有|常见的有|"
                          "放心|尽管|首选|允许")
_BREAK = re.compile("[。！？!?；;\n]+")
_PART = re.compile("[，,：:（）()]+")
_ITEM = re.compile("、|以及|还有|或者|或是|/|和|及|与|跟|或|·")
_LINE_ITEM = re.compile(r"^\s*(?:[-*•·]|\d+\s*[.．、)）]|[①-⑳]|第?[一二三四五六七八九十]+[、.．])\s*")
_TRAIL = re.compile("(?:等等|等|之类|这些|这类|的|都|是|了|吧|呢|哦|呀|啊|一类|方面)+.*$")
_LEAD = re.compile("^(?:其中|此外|另外|同时|还|也|又|再|并|并且|而且|最后|其次|首先|比如|例如|像|如|有|是|和|及|与|或)+")
_COUNT = re.compile(r"(?<![第约每\d.])(\d{1,3}|[二两三四五六七八九十]{1,3})\s*(?:大)?(?:种|个|类|项|样|条|位|味|款|点)(?!月|小时|人|星期|疗程|半)")
_NUMBER = re.compile(r"\d+(?:\.\d+)?\s*(?:%|％|毫克|mg|克|g|毫升|ml|片|粒|次|天|周|月|年|岁|度|℃|小时|分钟)", re.IGNORECASE)
_DIGITS = {"二": 2, "两": 2, "三": 3, "四": 4, "五": 5, "六": 6, "七": 7, "八": 8, "九": 9, "十": 10}
NARROW = {0xFF10 + i: str(i) for i in range(10)} | {0xFF05: "%", 0xFF0E: "."}
_MARK = "\0"                                                # a name in a shape
_CONTINUES = 4                                              # characters before the first name of a part that only goes on


class Claim(NamedTuple):
    """Something that an answer says."""

    start: int
    end: int
    text: str
    verdict: str
    reason: str
    """ "" when supported; else: other_head, polarity, not_in_graph, other_fact, unknown_item, number"""


@dataclass(frozen=True)
class Verification:
    """What is known of an answer."""

    claims: tuple[Claim, ...]
    missing: tuple[str, ...]
    """Tails that the answer does not state"""

    @property
    def flagged(self) -> list[Claim]:
        """Claims that the graph does not support."""
        return [claim for claim in self.claims if claim.verdict != SUPPORTED]

    @property
    def accepted(self) -> bool:
        """Everything it says is supported, and nothing of the fact is missing."""
        return not self.flagged and not self.missing


class Verifier:
    """Checks answers against one graph; its entities may be called by their aliases.

    Args:
        graph: with its ontology.
    """

    def __init__(self, graph: Graph):
        self._graph = graph
        self.linker = Linker(graph.types, graph.alias_of)

    def verify(self, answer: str, head: str, relation: str, numbers: Iterable[str] = ()) -> Verification:
        """Check an answer to a question about one fact.

        Args:
            answer: its text.
            head, relation: what was asked.
            numbers: numbers with units that it may state, such as the value of an attribute.
        """
        tails = self._graph.tails(head, relation)
        rule = self._graph.ontology.relations[relation]
        mentions = self.linker.mentions(answer)
        form = shape(answer, mentions)
        reading, known, negative = read(form, rule.labels, len(tails), frozenset(map(_value, numbers))), set(tails), avoids(rule.say)
        claims, stated = [], set()
        for mention, state in zip(mentions, reading.states[negative], strict=True):
            if mention.name != head:
                verdict, reason = self._judge(mention.name, state != negative, head, rule, known)
                claims.append(Claim(mention.start, mention.end, answer[mention.start:mention.end], verdict, reason))
                if verdict == SUPPORTED:
                    stated.add(mention.name)
        return verification(answer, form, mentions, claims, reading, [t for t in tails if t not in stated])

    def _judge(self, name: str, turned: bool, head: str, rule: Relation, tails: set[str]) -> tuple[str, str]:
        if name in tails:
            return (CONTRADICTED, "polarity") if turned else (SUPPORTED, "")
        if name in self._graph.about(head):                 # true of the head, but not what was asked
            return UNSUPPORTED, "other_fact"
        kind = self._graph.types[name]
        return CONTRADICTED, "other_head" if kind in rule.heads and kind not in rule.tails else "not_in_graph"


def verification(answer: str, form: str, mentions: list[Mention], claims: list[Claim], reading: Reading, missing: list[str]) -> Verification:
    """What is known of an answer, from the claims that its names make and the reading of its shape."""
    if reading.items or reading.numbers or "\n" in answer:
        claims = [*claims, *(_claim(answer, _place(form, mentions, at), text, UNSUPPORTED, "unknown_item") for at, text in reading.items),
                  *_unknown_lines(answer, mentions),
                  *(_claim(answer, _place(form, mentions, at), text, verdict, "number") for at, text, verdict in reading.numbers)]
        claims.sort(key=lambda c: c[:2])
    return Verification(tuple(claims), tuple(missing))


@cache
def avoids(say: str) -> bool:
    """Whether an answer form itself negates, as that of what to avoid does."""
    return bool(negations(re.sub(r"\{\w+\}", "", say)))


def shape(answer: str, mentions: list[Mention]) -> str:
    """The answer with one mark for every name: 无力 and 禁食 are names, no negations.

    Answers of one form and as many names have one shape, which is read once for all of them.
    """
    answer, at, pieces = answer.replace(_MARK, "\1"), 0, []
    for m in mentions:
        pieces.append(answer[at:m.start])
        at = m.end
    return _MARK.join([*pieces, answer[at:]])


class Reading(NamedTuple):
    """What a shape says apart from its names."""

    states: tuple[tuple[bool, ...], tuple[bool, ...]]
    """Whether each name stands under a negation: where the relation is none of avoidance, where it is one"""
    items: list[tuple[int, str]]
    """Items of lists that are no name, with their places"""
    numbers: list[tuple[int, str, str]]
    """Counts and quantities that are not allowed: place, text, verdict"""


@lru_cache(1 << 14)
def read(shape: str, labels: tuple[str, ...], size: int, allowed: frozenset[str] = frozenset(), quantity: re.Pattern[str] = _NUMBER) -> Reading:
    """Read a shape.

    Args:
        labels: of the relations that are asked for; they are no items.
        size: which counts may be stated.
        allowed: counts and quantities that may be stated, too.
        quantity: what a quantity is.
    """
    return Reading((_polarities(shape, False), _polarities(shape, True)), _unknown_items(shape, labels), _numbers(shape, size, allowed, quantity))


def _polarities(shape: str, negative: bool) -> tuple[bool, ...]:
    """Whether each name stands under a negation. A part without a word of its own goes on as the one before."""
    found: list[bool] = []
    for start, end in _spans(shape, _BREAK, 0, len(shape)):
        state = negative
        for first, last in _spans(shape, _PART, start, end):
            part = shape[first:last]
            if negations(part):
                state = True
            elif _AFFIRMATION.search(part):
                state = False
            elif part.find(_MARK) > _CONTINUES:
                state = negative
            found += [state] * part.count(_MARK)
    return tuple(found)


def negations(text: str) -> list[str]:
    """The negations of a text, those in form only left out."""
    return _NEGATION.findall(_HARMLESS.sub(lambda m: "〇" * len(m[0]), text))


def _spans(text: str, separator: re.Pattern[str], start: int, end: int) -> list[tuple[int, int]]:
    """What lies between separators, from start to end."""
    spans, at = [], start
    for match in separator.finditer(text, start, end):
        spans.append((at, match.start()))
        at = match.end()
    return [(a, b) for a, b in [*spans, (at, end)] if a < b]


def _place(form: str, mentions: list[Mention], at: int) -> int:
    """Where in the answer a place of its shape is."""
    return at + sum(m.end - m.start - 1 for m in mentions[:form.count(_MARK, 0, at)])


def _unknown_items(shape: str, labels: tuple[str, ...]) -> list[tuple[int, str]]:
    """Items of a list that are no name: a list is what 、 and the like join, with a name among its items."""
    found = []
    for first, last in (part for start, end in _spans(shape, _BREAK, 0, len(shape)) for part in _spans(shape, _PART, start, end)):
        items = _spans(shape, _ITEM, first, last)
        named = {i for i, (a, b) in enumerate(items) if _MARK in shape[a:b]}
        if len(items) < 2 or not named:
            continue
        for i, (a, b) in enumerate(items):
            if i in named or i < min(named):                # before the first name stand the words that lead to the list
                continue
            core = _LEAD.sub("", _TRAIL.sub("", shape[a:b])).strip(" “”\"'")
            if len(core) >= 2 and core not in labels and not negations(core):
                found.append((shape.index(core, a), core))
    return found


def _unknown_lines(answer: str, mentions: list[Mention]) -> list[Claim]:
    """Lines of a bulleted list that hold no name, where others do."""
    lines, at = [], 0
    for line in answer.split("\n") if "\n" in answer else ():
        bullet = _LINE_ITEM.match(line)
        if bullet:
            lines.append((at + bullet.end(), at + len(line)))
        at += len(line) + 1
    known = [any(a <= m.start < b for m in mentions) for a, b in lines]
    return [_claim(answer, a, answer[a:b].strip(), UNSUPPORTED, "unknown_item")
            for (a, b), named in zip(lines, known, strict=True) if not named and any(known) and answer[a:b].strip()]


def _numbers(shape: str, size: int, allowed: frozenset[str], quantity: re.Pattern[str]) -> list[tuple[int, str, str]]:
    """Counts that are not the size, and quantities that nobody gave."""
    counts = [(m.start(), m[0], CONTRADICTED) for m in _COUNT.finditer(shape) if _integer(m[1]) != size and _value(m[0]) not in allowed]
    return counts + [(m.start(), m[0], UNSUPPORTED) for m in quantity.finditer(shape)
                     if _value(m[0]) not in allowed and not any(at <= m.start() < at + len(text) for at, text, _ in counts)]


def _integer(text: str) -> int:
    if text.isdigit():
        return int(text)
    head, ten, rest = text.partition("十")
    if not ten:
        return _DIGITS.get(text, -1)
    return (_DIGITS.get(head, 1) if head else 1) * 10 + (_DIGITS.get(rest, 0) if rest else 0)


def _value(text: str) -> str:
    """A number and its unit as one string: ９８％ and 98 % are one."""
    return re.sub(r"\s+", "", text.translate(NARROW)).lower()


def _claim(answer: str, start: int, text: str, verdict: str, reason: str) -> Claim:
    return Claim(start, start + len(text), answer[start:start + len(text)], verdict, reason)
