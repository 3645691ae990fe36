"""One record or one pair of messages under all rules, and repaired. What is to be dropped is the caller's affair."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zhtune.corpus.pii import MASKS
from zhtune.synthesis.linting.names import Problem
from zhtune.synthesis.linting.repairs import repair
from zhtune.synthesis.linting.rules import shape_problems, talk_problems, text_problems, tool_problems

Value = dict[str, Any]
Fields = dict[str, list[str]]
# Of a rejected answer only what is wrong by accident counts: what it says is meant to be worse.
_ACCIDENTS = ("half_character", "replacement_character", "cut_character", "private_use", "mojibake", "garbled", "invisible", *MASKS)


def check_record(value: Value, fields: Fields, own_names: list[str]) -> list[Problem]:
    """The problems of a record, by the names of the user's fields where they are given."""
    messages = value["messages"]
    names = field_names("messages", messages, fields)
    return [*shape_problems(messages, names), *talk_problems(messages, names, own_names),
            *tool_problems(messages, names, value.get("tools", []))]


def check_pair(value: Value, fields: Fields, own_names: list[str]) -> list[Problem]:
    """The problems of a preference pair: its prompt and chosen answer as a record, its rejected answer by itself."""
    prompt, chosen, rejected = value["prompt"], value["chosen"], value["rejected"]
    asked, good, bad = (field_names(key, value[key], fields) for key in ("prompt", "chosen", "rejected"))
    whole, names = [*prompt, *chosen], [*asked, *good]
    return [*_pair_shape(value, asked, good, bad), *talk_problems(whole, names, own_names),
            *tool_problems(whole, names, value.get("tools", [])),
            *(p for m, name in zip(rejected, bad, strict=True) for p in text_problems(m["content"], m["role"], name) if p.name in _ACCIDENTS)]


def _pair_shape(value: Value, asked: list[str], good: list[str], bad: list[str]) -> Iterator[Problem]:
    if not value["prompt"] or all(m["role"] == "system" for m in value["prompt"]):
        yield Problem("no_prompt", "prompt", "")
    elif value["prompt"][-1]["role"] == "assistant":
        yield Problem("prompt_is_answered", asked[-1], value["prompt"][-1]["content"][:40])
    for key, names in (("chosen", good), ("rejected", bad)):
        if not value[key] or value[key][-1]["role"] != "assistant":
            yield Problem("no_answer", names[-1] if names else key, "")
        elif key == "rejected" and not (value[key][-1]["content"].strip() or value[key][-1].get("tool_calls")):
            yield Problem("empty_answer", names[-1], "")    # a chosen one is found with its turns
    if [(m["content"].strip(), m.get("tool_calls")) for m in value["chosen"]] == \
            [(m["content"].strip(), m.get("tool_calls")) for m in value["rejected"]]:
        yield Problem("same_answers", good[0] if good else "chosen", value["chosen"][0]["content"][:40] if value["chosen"] else "")


def mend_record(value: Value, problems: list[Problem]) -> Value:
    """The record with all problems repaired that have a repair."""
    return {**value, "messages": repair(value["messages"], {p.name for p in problems})}


def mend_pair(value: Value, problems: list[Problem]) -> Value:
    """The pair with all problems repaired that have a repair; its rejected answer only by its own accidents."""
    names = {p.name for p in problems}
    return {**value, "prompt": repair(value["prompt"], names, whole=False), "chosen": repair(value["chosen"], names, whole=False),
            "rejected": repair(value["rejected"], names & set(_ACCIDENTS), whole=False)}


def field_names(key: str, messages: list[Value], fields: Fields) -> list[str]:
    """The user's fields that messages came from; others where they are not known, or a repair has joined or cut the messages."""
    given = fields.get(key, [])
    return given if len(given) == len(messages) else [f"{key}[{i}]" for i in range(len(messages))]
