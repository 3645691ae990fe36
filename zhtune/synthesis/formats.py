"""Rows of any known format -> records and preference pairs in messages form. A format is recognised by its keys alone.

Records: messages or conversations (role/content or from/value, with tools), Alpaca and its kin (instruction, input, output,
history), HuaTuo, BELLE and Guanaco (also whole dialogues in one string), MOSS, pCLUE, prompt/completion, query/response, 问/答.
Preferences: chosen/rejected as strings, dicts or message lists, with or without the prompt in them, and ranked or scored lists.

Texts are not changed, and nothing is judged here: a row that cannot be understood is a Refusal, all else is for the rules.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from zhtune.corpus.tabular import Refusal, Row
from zhtune.synthesis.messages import ROLES, Odd, Talk, listed, read_messages, read_moss, read_tools, text_of, without_nan

MESSAGES = ("messages", "conversations", "conversation")
# Question and answer by the names that data sets give them; the first pair that a row has is taken.
PAIRS = (("instruction", "output"), ("instruction", "response"), ("prompt", "completion"), ("prompt", "response"),
         ("query", "response"), ("question", "answer"), ("question", "response"), ("input", "target"), ("input", "output"),
         ("问", "答"), ("问题", "答案"), ("问题", "回答"), ("content", "summary"), ("ask", "answer"))
QUESTIONS = tuple(dict.fromkeys(question for question, _ in PAIRS))
_CHOSEN = (("chosen", "rejected"), ("response_chosen", "response_rejected"), ("chosen_response", "rejected_response"))
_RANKED = ("output", "responses", "answers", "completions")
_SCORES = ("scores", "score", "ratings", "overall_scores")
_OWN_SCORES = ("overall_score", "score", "rating", "rank")   # of each answer: UltraFeedback; ranks from the best, 1: Nectar
_SYSTEM = ("system", "system_prompt", "meta_instruction")
# A speaker's name in front of a turn, where a whole dialogue is one string: BELLE, HuaTuo, Guanaco, OpenAssistant-Guanaco, HH.
_SPEAKER = re.compile(r"(?:^|\n)[ \t]*(?:###[ ]?)?(Human|Assistant|User|System)[ ]?[:：][ ]?|<(user|bot|human|assistant)>[ ]?[:：][ ]?"
                      r"|###[ ](Human|Assistant)[:：][ ]?")


@dataclass(frozen=True)
class Item:
    """One record or pair, as read."""

    where: str
    form: str
    """The keys it was recognised by"""
    value: dict[str, Any]
    """{"messages", "source", …} or {"prompt", "chosen", "rejected", "source"}"""
    fields: dict[str, list[str]]
    """By key of `value`: for each message the field of the user's file that it came from"""
    ignored: tuple[str, ...] = ()
    """Filled fields of the row that have no place in the result"""


@dataclass
class _Fields:
    """A row that remembers which of its fields were used."""

    row: dict[str, Any]
    used: set[str] = field(default_factory=lambda: {"source", "id"})

    def get(self, key: str) -> Any:
        self.used.add(key)
        return self.row.get(key)

    def text(self, key: str) -> str:
        return text_of(self.get(key), key)

    def first(self, keys: tuple[str, ...]) -> str | None:
        return next((key for key in keys if key in self.row), None)


def read_record(row: Row) -> Item | Refusal:
    """The record of a row, or why there is none."""
    row = row._replace(value=without_nan(row.value))
    fields = _Fields(row.value)
    try:
        found = _record(fields)
        if found is None:
            raise Odd("unknown_keys", "", f"keys: {', '.join(map(str, row.value)) or 'none'}")
        form, talk = found
        value = {"messages": talk.messages, **read_tools(fields.get("tools") or fields.get("functions"))}
        return _item(row, form, value, {"messages": talk.fields}, fields)
    except Odd as odd:
        return Refusal(odd.reason, row.where, odd.said())


def read_pairs(row: Row) -> list[Item | Refusal]:
    """The preference pairs of a row (several where it ranks more than two answers), or why there are none."""
    row = row._replace(value=without_nan(row.value))
    fields = _Fields(row.value)
    try:
        form, prompt, pairs = _preference(fields)
        tools = read_tools(fields.get("tools") or fields.get("functions"))
        made: list[Item | Refusal] = []
        for n, (good, bad) in enumerate(pairs, 1):
            pair = f"#{n}" if len(pairs) > 1 else ""
            if bad is None:
                made.append(Refusal("equal_scores", row.where + pair, f"{form}: scored like the best answer"))
                continue
            asked, chosen, rejected = _without_prompt(prompt, good, bad)
            made.append(_item(row, form, {"prompt": asked.messages, "chosen": chosen.messages, "rejected": rejected.messages, **tools},
                              {"prompt": asked.fields, "chosen": chosen.fields, "rejected": rejected.fields}, fields, pair))
        return made
    except Odd as odd:
        return [Refusal(odd.reason, row.where, odd.said())]


def _item(row: Row, form: str, value: dict[str, Any], places: dict[str, list[str]], fields: _Fields,
          pair: str = "") -> Item:
    source = row.value.get("source")
    if not isinstance(source, dict):
        source = {"file": row.file, "row": row.number, "form": form, **({"name": source} if isinstance(source, str) and source else {})}
    name = row.value.get("id")
    head = {"id": str(name)} if isinstance(name, str | int) and name != "" else {}
    ignored = tuple(str(key) for key, held in row.value.items() if key not in fields.used and held not in (None, "", [], {}))
    return Item(row.where + pair, form, {**head, **value, "source": source}, places, ignored)


# Records.

def _record(fields: _Fields) -> tuple[str, Talk] | None:
    key = fields.first(MESSAGES)
    if key is not None:
        talk = read_messages(fields.get(key), key)
        return key, _with_system(fields, talk)
    pair = _pair(fields.row)
    if pair is None and isinstance(listed(fields.row.get("chat")), dict):
        return "chat", _with_system(fields, read_moss(fields.get("chat"), "chat"))
    if pair is None:
        talk = _dialogue(fields.text("text"), "text") if isinstance(fields.row.get("text"), str) else None
        return ("text", talk) if talk else None
    question, answer = pair
    if isinstance(fields.row[answer], list) and not isinstance(fields.row[question], list):
        raise Odd("not_text", answer, "a list of answers: for preferences give the file to --preferences")
    talk = _question(fields, question)
    answers = fields.get(answer)
    reply = read_messages(answers, answer) if _is_messages(answers) else Talk.of("assistant", text_of(answers, answer), answer)
    thought = fields.first(("reasoning", "reasoning_content"))
    if thought and fields.text(thought).strip():
        reply.messages[-1]["reasoning"] = fields.text(thought)
    return f"{question}/{answer}", talk + reply


def _pair(row: dict[str, Any]) -> tuple[str, str] | None:
    return next(((question, answer) for question, answer in PAIRS if question in row and answer in row), None)


def _question(fields: _Fields, key: str) -> Talk:
    """System text, history and the question under `key` (with its input), whether in fields or in one string."""
    value = _cell(fields.get(key)) if key == "prompt" else fields.get(key)
    if _is_messages(value):
        return _with_system(fields, read_messages(value, key))
    text, place = text_of(value, key), key
    more = fields.first(("input", "context")) if key == "instruction" else None
    if more and fields.text(more).strip():
        text, place = (f"{text}\n{fields.text(more)}", f"{key}+{more}") if text.strip() else (fields.text(more), more)
    talk = _dialogue(text, place) or Talk.of("user", text, place)
    if talk.messages and talk.messages[-1]["role"] == "assistant" and not talk.messages[-1]["content"].strip():
        talk = talk.cut(0, -1)                              # "Assistant:" at the end only asks for the answer
    return _with_system(fields, _history(fields) + talk)


def _with_system(fields: _Fields, talk: Talk) -> Talk:
    key = fields.first(_SYSTEM)
    if key is None or not fields.text(key).strip():
        return talk
    return Talk.of("system", fields.text(key), key) + talk


def _history(fields: _Fields) -> Talk:
    turns = listed(fields.get("history"))
    if turns in (None, ""):
        return Talk()
    if not isinstance(turns, list):
        raise Odd("not_text", "history", f"expected a list of turns, found {type(turns).__name__}")
    if _is_messages(turns):
        return read_messages(turns, "history")
    talk = Talk()
    for i, turn in enumerate(turns):
        if not isinstance(turn, list) or len(turn) != 2:
            raise Odd("not_text", f"history[{i}]", "expected a question and its answer")
        talk += Talk.of("user", text_of(turn[0], f"history[{i}][0]"), f"history[{i}][0]")
        talk += Talk.of("assistant", text_of(turn[1], f"history[{i}][1]"), f"history[{i}][1]")
    return talk


def _dialogue(text: str, place: str) -> Talk | None:
    """The turns of a dialogue that was written as one string; None if it does not begin with a speaker's name."""
    marks = list(_SPEAKER.finditer(text))
    if not marks or text[:marks[0].start()].strip():
        return None
    talk = Talk()
    for mark, following in zip(marks, [*marks[1:], None]):
        role = ROLES[(mark[1] or mark[2] or mark[3]).lower()]
        talk += Talk.of(role, text[mark.end():following.start() if following else len(text)].strip(), place)
    return talk


# Preferences.

def _preference(fields: _Fields) -> tuple[str, Talk, list[tuple[Talk, Talk | None]]]:
    """The form, the prompt, and the pairs; without a rejected answer where it is as good as the chosen one."""
    keys = next(((good, bad) for good, bad in _CHOSEN if good in fields.row and bad in fields.row), None)
    key = fields.first(MESSAGES)
    if keys is not None:
        good, bad = (_answers(fields.get(name), name) for name in keys)
        return "/".join(keys), _prompt(fields, key), [(c, r) for c in good for r in bad]
    if key is not None and "rejected_response" in fields.row:
        talk = read_messages(fields.get(key), key)
        rejected = _answers(fields.get("rejected_response"), "rejected_response")
        return f"{key}/rejected_response", _with_system(fields, talk.cut(0, -1)), [(talk.cut(-1), r) for r in rejected]
    ranked = next((name for name in _RANKED if isinstance(fields.row.get(name), list)), None)
    if ranked is None:
        raise Odd("unknown_keys", "", f"no chosen and rejected answers; keys: {', '.join(map(str, fields.row)) or 'none'}")
    answers = _ranked(fields, ranked)
    if len(answers) < 2:
        raise Odd("one_answer", ranked, f"{len(answers)} answers: there is nothing to prefer")
    (top, best), *others = answers
    return f"ranked {ranked}", _prompt(fields, key), [(best, other if score < top else None) for score, other in others]


def _prompt(fields: _Fields, key: str | None) -> Talk:
    if key is not None:
        return _with_system(fields, read_messages(fields.get(key), key))
    question = fields.first(QUESTIONS)
    return _with_system(fields, Talk()) if question is None else _question(fields, question)


def _ranked(fields: _Fields, key: str) -> list[tuple[float, Talk]]:
    """Answers with their scores, best first: in the order given, or by the scores (equal ones keep the order)."""
    given = fields.get(key)
    answers = [_answers(value, f"{key}[{i}]")[0] for i, value in enumerate(given)]
    own = next((name for name in _OWN_SCORES if any(isinstance(value, dict) and value.get(name) is not None for value in given)), None)
    scores = [isinstance(value, dict) and value.get(own) for value in given] if own else fields.get(fields.first(_SCORES) or _SCORES[0])
    if scores is None:
        return [(-i, answer) for i, answer in enumerate(answers)]
    if not isinstance(scores, list) or len(scores) != len(answers) or not all(type(s) in (int, float) and s == s for s in scores):
        raise Odd("not_text", key, "its scores are not one number an answer")
    scores = [-rank for rank in scores] if own == "rank" else scores
    return sorted(zip(scores, answers, strict=True), key=lambda pair: -pair[0])


def _answers(value: Any, key: str) -> list[Talk]:
    """One answer, or several where a list of strings is given."""
    value = _cell(value)
    if _is_messages(value):
        return [read_messages(value, key)]
    if isinstance(value, dict):
        if "role" in value or "from" in value:
            return [read_messages([value], key)]
        inner = next((name for name in ("content", "text", "value", "response", "answer") if name in value), None)
        if inner is None:
            raise Odd("not_text", key, f"no text of an answer; keys: {', '.join(map(str, value)) or 'none'}")
        return [Talk.of("assistant", text_of(value[inner], key), key)]
    if isinstance(value, list) and value:
        return [Talk.of("assistant", text_of(one, f"{key}[{i}]"), f"{key}[{i}]") for i, one in enumerate(value)]
    text = text_of(value, key)
    whole = _dialogue(text, key)
    return [whole if whole and len(whole.messages) > 1 else Talk.of("assistant", text, key)]


def _without_prompt(prompt: Talk, chosen: Talk, rejected: Talk) -> tuple[Talk, Talk, Talk]:
    """The prompt without the chosen answer, and the answers without the prompt, where one holds the other.

    What the answers have in common at their beginning is the prompt where there is none beside its system text, where it ends
    as the prompt does (which lacks their system text, or gives the last question alone), or where it begins as the prompt does
    and ends no sooner than its last question: UltraFeedback binarized gives all of the chosen talk.
    """
    same = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(chosen.messages, rejected.messages))))
    length = min(same, len(chosen.messages) - 1, len(rejected.messages) - 1)
    if length > 0 and prompt.messages[-length:] == chosen.messages[:length]:
        return prompt, chosen.cut(length), rejected.cut(length)
    system = len(list(takewhile(lambda message: message["role"] == "system", prompt.messages)))
    if chosen.messages[:system] == prompt.messages[:system]:
        system = 0                                          # the answers hold it too
    rest = prompt.messages[system:]
    ends = len(rest) <= length or rest[-1]["role"] == "assistant"
    begins = ends and all(a == b for a, b in zip(rest, chosen.messages[:length]))
    if length > 0 and (begins or rest == chosen.messages[:length][-len(rest):]):
        return prompt.cut(0, system) + chosen.cut(0, length), chosen.cut(length), rejected.cut(length)
    if not any(message["role"] != "system" for message in prompt.messages):
        raise Odd("no_prompt", "prompt", "chosen and rejected have no prompt, and no beginning in common")
    before = len(prompt.messages) - len(chosen.messages)
    if before > 0 and prompt.messages[before:] == chosen.messages:
        prompt = prompt.cut(0, before)
    return prompt, _beyond(prompt, chosen), _beyond(prompt, rejected)


def _beyond(prompt: Talk, answer: Talk) -> Talk:
    count = len(prompt.messages)
    return answer.cut(count) if len(answer.messages) > count and answer.messages[:count] == prompt.messages else answer


def _cell(value: Any) -> Any:
    """The messages that a cell of a table holds as JSON; an answer that merely is JSON stays text."""
    return listed(value) if _is_messages(listed(value)) else value


def _is_messages(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(m, dict) and ("role" in m or "from" in m) for m in value)
