"""Lists of messages in the two ways they are written (role/content, from/value), and MOSS's turns -> messages of zhtune, with their tools.

Knows nothing of whole rows (zhtune/synthesis/formats.py) and judges nothing: arguments that are no JSON stay the string
that they are.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from zhtune.corpus.tabular import parse

ROLES = {"system": "system", "developer": "system", "user": "user", "human": "user", "prompter": "user", "assistant": "assistant",
         "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant", "function_call": "assistant",
         "tool_call": "assistant", "observation": "tool", "tool": "tool", "function": "tool", "tool_response": "tool"}
_CALLS = ("function_call", "tool_call")
_KEPT = ("name", "tool_call_id")
_EXCHANGES = (("human", "assistant"), ("input", "output"))  # one an entry: Firefly, MOSS; Capybara
_MOSS = re.compile(r"\A\s*<\|[A-Za-z ]+\|>[:：]?[ ]?|\s*<eo[a-z]>\s*\Z")   # <|Human|>: … <eoh>


class Odd(Exception):
    """A row is none of the known forms. Never leaves zhtune/synthesis/formats.py, which turns it into a Refusal."""

    def __init__(self, reason: str, place: str, detail: str):
        super().__init__(reason)
        self.reason, self.place, self.detail = reason, place, detail

    def said(self) -> str:
        return f"{self.place}: {self.detail}" if self.place else self.detail


@dataclass
class Talk:
    """Messages, and for each the field of the user's file that it came from."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    fields: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, role: str, content: str, place: str) -> Talk:
        return cls([{"role": role, "content": content}], [place])

    def __add__(self, other: Talk) -> Talk:
        return Talk(self.messages + other.messages, self.fields + other.fields)

    def cut(self, start: int, end: int | None = None) -> Talk:
        return Talk(self.messages[start:end], self.fields[start:end])


def text_of(value: Any, place: str) -> str:
    """A field's text: a string as it is, a number as JSON writes it, null and NaN (a table's empty cell) as nothing.

    Raises:
        Odd: a list, an object, a truth value, infinity.
    """
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) != float("inf"):
        return json.dumps(value)
    raise Odd("not_text", place, f"expected text, found {value if isinstance(value, float) else type(value).__name__}")


def without_nan(fields: dict[str, Any]) -> dict[str, Any]:
    """The same with null for each field that is NaN."""
    return {key: value if value == value else None for key, value in fields.items()}


def listed(value: Any) -> Any:
    """What a cell means that holds a JSON list or object as text; any other value is itself."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return parse(value)
        except (ValueError, RecursionError):
            return value
    return value


def read_messages(value: Any, key: str) -> Talk:
    """The messages under `key`.

    Raises:
        Odd: no list of messages, a speaker or a content of no known kind.
    """
    value = listed(value)
    if value is None or value == "":
        return Talk()
    if not isinstance(value, list):
        raise Odd("not_text", key, f"expected a list of messages, found {type(value).__name__}")
    talk = Talk()
    for i, message in enumerate(value):
        place = f"{key}[{i}]"
        if not isinstance(message, dict):
            raise Odd("not_text", place, f"expected a message, found {type(message).__name__}")
        exchange = next((names for names in _EXCHANGES if set(names) <= set(message)), None)
        if exchange and "role" not in message and "from" not in message:
            for role, name in zip(("user", "assistant"), exchange, strict=True):
                talk += Talk.of(role, text_of(message[name], f"{place}.{name}"), f"{place}.{name}")
        else:
            talk += _message(message, place)
    return talk


def read_moss(value: Any, key: str) -> Talk:
    """The turns of moss-003-sft, {"turn_1": {"Human", "Inner Thoughts", "Commands", "Tool Responses", "MOSS"}, …}, by their number.

    Raises:
        Odd: a turn without words of both, or one that uses a plugin.
    """
    talk, chat = Talk(), listed(value)
    for name in sorted(chat, key=lambda name: int(re.sub("[^0-9]", "", name) or 0)):
        turn, place = chat[name], f"{key}.{name}"
        if turn is None or (isinstance(turn, dict) and not any(turn.values())):       # parquet: a turn of other rows
            continue
        if not isinstance(turn, dict) or not {"Human", "MOSS"} <= set(turn):
            raise Odd("not_text", place, "expected a turn with Human and MOSS")
        said = {part: _MOSS.sub("", text_of(words, f"{place}.{part}")) for part, words in turn.items()}
        for part, words in said.items():
            if part not in ("Human", "MOSS") and words.strip() not in ("", "None"):
                raise Odd("plugin_call", f"{place}.{part}", words[:80])
        talk += Talk.of("user", said["Human"], f"{place}.Human") + Talk.of("assistant", said["MOSS"], f"{place}.MOSS")
    return talk


def _message(message: dict[str, Any], place: str) -> Talk:
    message = without_nan(message)
    speaker = message.get("role", message.get("from"))
    role = ROLES.get(str(speaker).strip().lower())
    if role is None:
        raise Odd("unknown_role", place, f"the speaker is {speaker!r}; known are {', '.join(ROLES)}")
    key = next((name for name in ("content", "value", "text") if name in message), "content")
    content = _content(message.get(key), f"{place}.{key}")
    made: dict[str, Any] = {"role": role, "content": content}
    calls = message.get("tool_calls") or ([message["function_call"]] if message.get("function_call") else [])
    if str(speaker).strip().lower() in _CALLS:
        made["content"], calls = "", listed(content)
    if calls:
        made["tool_calls"] = [_call(call) for call in (calls if isinstance(calls, list) else [calls])]
    thought = message.get("reasoning") or message.get("reasoning_content")
    if isinstance(thought, str) and thought:
        made["reasoning"] = thought
    made |= {name: message[name] for name in _KEPT if isinstance(message.get(name), str)}
    if message.get("train") is False or message.get("loss") is False or message.get("weight") == 0:
        made["train"] = False
    return Talk([made], [f"{place}.{key}"])


def _content(value: Any, place: str) -> str:
    """Text, or the texts of OpenAI's content parts."""
    if not isinstance(value, list):
        return text_of(value, place)
    parts = [part.get("text") if isinstance(part, dict) and part.get("type", "text") == "text" else None for part in value]
    if not all(isinstance(part, str) for part in parts):
        raise Odd("not_text", place, "a part of the message is no text; images and sound are not read")
    return "".join(parts)


def _call(call: Any) -> dict[str, Any]:
    """{"type": "function", "function": {"name", "arguments"}}, arguments as an object wherever they are one."""
    inner = call.get("function", call) if isinstance(call, dict) else {"arguments": call}
    if not isinstance(inner, dict):
        inner = {"arguments": call}
    arguments = inner.get("arguments", inner.get("parameters", {}))
    if isinstance(arguments, dict):                         # parquet fills the fields of other rows' calls with null
        arguments = {key: value for key, value in arguments.items() if value is not None}
    made: dict[str, Any] = {"type": "function", "function": {"name": str(inner.get("name") or ""), "arguments": listed(arguments)}}
    return {"id": call["id"], **made} if isinstance(call, dict) and isinstance(call.get("id"), str) else made


def read_tools(value: Any) -> dict[str, Any]:
    """{"tools": […]} in OpenAI's form, or {} where there are none.

    Raises:
        Odd: the definitions are no JSON list of named functions.
    """
    tools = listed(value)
    if not tools or (isinstance(tools, str) and not tools.strip()):
        return {}
    tools = tools if isinstance(tools, list) else [tools]
    made = [tool if isinstance(tool, dict) and isinstance(tool.get("function"), dict) else {"type": "function", "function": tool}
            for tool in tools]
    if not all(isinstance(tool["function"], dict) and isinstance(tool["function"].get("name"), str) for tool in made):
        raise Odd("bad_tools", "tools", "expected a JSON list of functions with names")
    return {"tools": made}
