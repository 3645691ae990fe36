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
_CONTINUES = 4                                              # characters before the first name of a part that only goes on


@dataclass(frozen=True)
class Claim:
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
    """Checks answers against one graph.

    Args:
        graph: with its ontology.
        aliases: other names of entities.
    """

    def __init__(self, graph: Graph, aliases: dict[str, str] | None = None):
        self._graph = graph
        self._linker = Linker(graph.types, aliases)

    def verify(self, answer: str, head: str, relation: str, numbers: Iterable[str] = ()) -> Verification:
        """Check an answer to a question about one fact.

        Args:
            answer: its text.
            head, relation: what was asked.
            numbers: numbers with units that it may state, such as the value of an attribute.
        """
        tails = self._graph.tails(head, relation)
        rule = self._graph.ontology.relations[relation]
        mentions = self._linker.mentions(answer)
        named = self._names(answer, mentions, head, rule, set(tails))
        claims = [*named.values(), *_unknown_items(answer, mentions, rule),
                  *_numbers(answer, mentions, len(tails), set(map(_value, numbers)))]
        stated = {mention.name for mention, claim in named.items() if claim.verdict == SUPPORTED}
        return Verification(tuple(sorted(claims, key=lambda c: (c.start, c.end))), tuple(t for t in tails if t not in stated))

    def _names(self, answer: str, mentions: list[Mention], head: str, rule: Relation, tails: set[str]) -> dict[Mention, Claim]:
        negative = bool(_negations(rule.say.replace("{h}", "").replace("{ts}", "")))
        polarity = _polarities(answer, mentions, negative)
        claims = {}
        for mention in mentions:
            if mention.name == head:
                continue
            verdict, reason = self._judge(mention.name, head, rule, tails)
            if verdict == SUPPORTED and mention.name in tails and polarity[mention] != negative:
                verdict, reason = CONTRADICTED, "polarity"
            claims[mention] = Claim(mention.start, mention.end, answer[mention.start:mention.end], verdict, reason)
        return claims

    def _judge(self, name: str, head: str, rule: Relation, tails: set[str]) -> tuple[str, str]:
        if name in tails:
            return SUPPORTED, ""
        if name in self._graph.about(head):                 # true of the head, but not what was asked
            return UNSUPPORTED, "other_fact"
        kind = self._graph.types[name]
        return CONTRADICTED, "other_head" if kind in rule.heads and kind not in rule.tails else "not_in_graph"


def _polarities(answer: str, mentions: list[Mention], negative: bool) -> dict[Mention, bool]:
    """Whether each mention stands under a negation. A part without a word of its own goes on as the one before."""
    masked = _masked(answer, mentions)
    found: dict[Mention, bool] = {}
    for start, end in _spans(masked, _BREAK, 0, len(masked)):
        state = negative
        for first, last in _spans(masked, _PART, start, end):
            inside = [m for m in mentions if first <= m.start < last]
            part = masked[first:last]
            if _negations(part):
                state = True
            elif _AFFIRMATION.search(part):
                state = False
            elif inside and inside[0].start - first > _CONTINUES:
                state = negative
            found |= dict.fromkeys(inside, state)
    return found


def _negations(text: str) -> list[str]:
    return _NEGATION.findall(_HARMLESS.sub(lambda m: "〇" * len(m[0]), text))


def _masked(answer: str, mentions: list[Mention]) -> str:
    """The answer with every name blotted out: 无力 and 禁食 are names, no negations."""
    characters = list(answer)
    for m in mentions:
        characters[m.start:m.end] = "〇" * (m.end - m.start)
    return "".join(characters)


def _spans(text: str, separator: re.Pattern[str], start: int, end: int) -> list[tuple[int, int]]:
    """What lies between separators, from start to end."""
    spans, at = [], start
    for match in separator.finditer(text, start, end):
        spans.append((at, match.start()))
        at = match.end()
    return [(a, b) for a, b in [*spans, (at, end)] if a < b]


def _unknown_items(answer: str, mentions: list[Mention], rule: Relation) -> list[Claim]:
    """Items of a list that are no name: a list is what 、 and the like join, with a name among its items."""
    masked = _masked(answer, mentions)
    claims = []
    for first, last in _lists(masked):
        items = _spans(masked, _ITEM, first, last)
        named = [i for i, (a, b) in enumerate(items) if any(a <= m.start < b for m in mentions)]
        if len(items) < 2 or not named:
            continue
        for i, (a, b) in enumerate(items):
            if i in named or i < named[0]:                  # before the first name stand the words that lead to the list
                continue
            text = answer[a:b]
            core = _TRAIL.sub("", text)
            lead = len(core) - len(_LEAD.sub("", core))
            core = core[lead:].strip(" “”\"'")
            if len(core) >= 2 and core not in rule.labels and not _negations(core):
                claims.append(_claim(answer, answer.index(core, a), core, UNSUPPORTED, "unknown_item"))
    return [*claims, *_unknown_lines(answer, mentions)]


def _lists(masked: str) -> list[tuple[int, int]]:
    return [(a, b) for start, end in _spans(masked, _BREAK, 0, len(masked)) for a, b in _spans(masked, _PART, start, end)]


def _unknown_lines(answer: str, mentions: list[Mention]) -> list[Claim]:
    """Lines of a bulleted list that hold no name, where others do."""
    lines, at = [], 0
    for line in answer.split("\n"):
        bullet = _LINE_ITEM.match(line)
        if bullet:
            lines.append((at + bullet.end(), at + len(line)))
        at += len(line) + 1
    known = [any(a <= m.start < b for m in mentions) for a, b in lines]
    return [_claim(answer, a, answer[a:b].strip(), UNSUPPORTED, "unknown_item")
            for (a, b), named in zip(lines, known, strict=True) if not named and any(known) and answer[a:b].strip()]


def _numbers(answer: str, mentions: list[Mention], size: int, allowed: set[str]) -> list[Claim]:
    """Counts that are not the number of tails, and quantities that nobody gave."""
    masked, claims = _masked(answer, mentions), []
    for match in _COUNT.finditer(masked):
        if _integer(match[1]) != size and _value(match[0]) not in allowed:
            claims.append(_claim(answer, match.start(), match[0], CONTRADICTED, "number"))
    for match in _NUMBER.finditer(masked):
        if _value(match[0]) not in allowed and not any(c.start <= match.start() < c.end for c in claims):
            claims.append(_claim(answer, match.start(), match[0], UNSUPPORTED, "number"))
    return claims


def _integer(text: str) -> int:
    if text.isdigit():
        return int(text)
    head, ten, rest = text.partition("十")
    if not ten:
        return _DIGITS.get(text, -1)
    return (_DIGITS.get(head, 1) if head else 1) * 10 + (_DIGITS.get(rest, 0) if rest else 0)


def _value(text: str) -> str:
    """A number and its unit as one string: ９８％ and 98 % are one."""
    folded = text.translate({**{0xFF10 + i: str(i) for i in range(10)}, 0xFF05: "%"})
    return re.sub(r"\s+", "", folded).lower()


def _claim(answer: str, start: int, text: str, verdict: str, reason: str) -> Claim:
    return Claim(start, start + len(text), answer[start:start + len(text)], verdict, reason)
