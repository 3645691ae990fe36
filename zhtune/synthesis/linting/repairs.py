"""What lint can put right: for each problem with one right repair, a function from messages to repaired messages.

Never changes what it is given. What has no repair here is dropped by --fix (zhtune/synthesis/linting/names.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zhtune.corpus.mojibake import mend
from zhtune.corpus.pii import MASKS, mask
from zhtune.synthesis.linting.rules import INVISIBLE, THINKING, loosely, strip_marks

Messages = list[dict[str, Any]]


def repair(messages: Messages, names: set[str], whole: bool = True) -> Messages:
    """The messages with each of the problems repaired.

    Args:
        messages: of a record, or of one side of a pair.
        names: problems found in them; those without a repair are passed over.
        whole: whether it is a whole record, which must end with an answer.
    """
    for name, function in _REPAIRS.items():
        if name in names and (whole or name != "unanswered_end"):
            messages = function(messages)
    return messages


def _texts(change: Callable[[str, str], str]) -> Callable[[Messages], Messages]:
    return lambda messages: [{**m, "content": change(m["content"], m["role"])} for m in messages]


def _masked(name: str) -> Callable[[Messages], Messages]:
    return _texts(lambda text, role: mask(text, name))


def _thinking(messages: Messages) -> Messages:
    made = []
    for message in messages:
        found = THINKING.match(message["content"]) if message["role"] == "assistant" else None
        if found:
            thoughts = [t for t in (message.get("reasoning", ""), found[1].strip()) if t]
            message = {**message, "content": message["content"][found.end():], **({"reasoning": "\n".join(thoughts)} if thoughts else {})}
        made.append(message)
    return made


def join_speakers(messages: Messages) -> Messages:
    """Neighbouring messages of one speaker as one, with every word in order; not where only one of them is trained."""
    made: Messages = []
    for message in messages:
        last = made[-1] if made else {"role": ""}
        if message["role"] == "tool" or last["role"] != message["role"] or last.get("train") != message.get("train"):
            made.append(message)
            continue
        joined = {**last, "content": "\n".join(t for t in (last["content"], message["content"]) if t)}
        for key in ("reasoning", "tool_calls"):
            if key in message:
                joined[key] = (last[key] + message[key] if key == "tool_calls" else f"{last[key]}\n{message[key]}") if key in last else message[key]
        made[-1] = joined
    return made


def _until_last_answer(messages: Messages) -> Messages:
    ends = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    return messages[:ends[-1] + 1] if ends else messages


def _arguments(messages: Messages) -> Messages:
    return [{**m, "tool_calls": [_call(call) for call in m["tool_calls"]]} if "tool_calls" in m else m for m in messages]


def _call(call: dict[str, Any]) -> dict[str, Any]:
    arguments = call["function"]["arguments"]
    read = loosely(arguments) if isinstance(arguments, str) else None
    return {**call, "function": {**call["function"], "arguments": read}} if isinstance(read, dict) else call


# In this order: text is put right before marks are looked for, turns are joined before the end is cut.
_REPAIRS: dict[str, Callable[[Messages], Messages]] = {
    "mojibake": _texts(lambda text, role: mend(text)),
    "invisible": _texts(lambda text, role: INVISIBLE.sub("", text)),
    "thinking": _thinking,
    "marker_at_end": _texts(lambda text, role: strip_marks(text, role) if role in ("user", "assistant") else text),
    **{name: _masked(name) for name in MASKS},
    "loose_arguments": _arguments,
    "empty_system": lambda messages: [m for m in messages if m["role"] != "system" or m["content"].strip()],
    "same_speaker": join_speakers,
    "unanswered_end": _until_last_answer,
}
