"""The rules of lint for one record: each looks at a text or at the turns and yields the problems it finds, by name.

They change nothing (zhtune/synthesis/linting/repairs.py does) and remember nothing (zhtune/synthesis/leaks.py does).
What each name means stands in zhtune/synthesis/linting/names.py. Code between backticks is not looked at for marks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from zhtune.corpus.mojibake import GARBLED, mend
from zhtune.corpus.pii import personal
from zhtune.synthesis.linting.identity import foreign_self
from zhtune.synthesis.linting.names import Problem
from zhtune.text import fold

_CONTEXT = 12                                               # characters shown around a find
_ECHO = 6                                                   # a shorter answer may repeat the question: 你好, 再见
_HALF = re.compile("[\ud800-\udfff]")
_PRIVATE = re.compile("[\ue000-\uf8ff]")
INVISIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200b\u2060\ufeff]")
_TOKEN = (r"<[|｜](?:im_start|start_header_id)[|｜]>[ ]?(?:system|user|assistant)?\n?"
          r"|(?:<[|｜][A-Za-z_▁]{2,30}(?:[ ][A-Za-z]{2,30})?[|｜]>|\[\|(?:Human|AI|MOSS)\|\])(?:[ ]?[:：])?"    # <|Human|>: and [|AI|] too
          r"|\[/?INST\]|<</?SYS>>|\[gMASK\]|<(?:sop|eo[achmprst]|bos|pad|unk|start_of_turn|end_of_turn)>")
_HEADER = r"#{2,3}[ ]?(?:Response|Instruction|Input|Human|Assistant|回答|指令|输入)[ ]?[:：]"
_ANSWERER = r"(?:Assistant|AI|答|助手)[ ]?[:：]"
_ASKER = r"(?:Human|User|问|用户)[ ]?[:：]"
_ENDS = {
    "assistant": (re.compile(rf"\A(?:\s*(?:{_TOKEN}|<s>|{_HEADER}|{_ANSWERER}))+\s*"), re.compile(rf"\s*(?:(?:{_TOKEN}|</s>)\s*)+\Z")),
    "user": (re.compile(rf"\A(?:\s*(?:{_TOKEN}|<s>|{_HEADER}))+\s*"), re.compile(rf"\s*(?:(?:{_TOKEN}|</s>|(?<=\n){_HEADER})\s*)+\Z")),
}
# 问：…答： around a whole question; a prompt that has such lines within is laid out so by its writer.
_WRAPPED = re.compile(rf"\A\s*{_ASKER}\s*(.*?)(?:\n\s*{_ANSWERER})?\s*\Z", re.DOTALL)
_SPEAKER_LINE = re.compile(rf"(?m:^[ \t]*(?:{_ASKER}|{_ANSWERER}))")
_INSIDE = re.compile(rf"{_TOKEN}|</?think>|(?m:^[ \t]*{_HEADER})")
_SECOND_EXCHANGE = re.compile(rf"(?m:^[ \t]*{_ASKER})(?s:.*?)(?m:^[ \t]*{_ANSWERER})")
_DIALOGUE_WANTED = re.compile("问答|对话|对答|采访|访谈|剧本|问题|Q&A|dialog|conversation|interview", re.IGNORECASE)
THINKING = re.compile(r"\A\s*<think>(.*?)</think>\s*", re.DOTALL)
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)
_PLACEHOLDER = re.compile(r"\{\{ ?(?:name|author|company|model|developer|名字|作者|公司) ?\}\}", re.IGNORECASE)
_UNFINISHED = re.compile(r"[，、：,:(（“「《【]\s*\Z")


def text_problems(text: str, role: str, field: str) -> Iterator[Problem]:
    """What is wrong with the text of one message by itself."""
    yield from _encoding(text, field)
    for name, pattern in (("private_use", _PRIVATE), ("invisible", INVISIBLE), ("placeholder", _PLACEHOLDER)):
        if found := pattern.search(text):
            yield Problem(name, field, around(text, found.start(), found.end()))
    if role in _ENDS:
        yield from _marks(text, role, field)
    for find in personal(text):
        yield Problem(find.name, field, find.masked)


def _encoding(text: str, field: str) -> Iterator[Problem]:
    if half := _HALF.search(text):
        yield Problem("half_character", field, around(text, half.start(), half.end()))
        return
    if "\ufffd" in text:
        at = text.index("\ufffd")
        ends = text.strip("\ufffd").count("\ufffd") == 0
        yield Problem("cut_character" if ends else "replacement_character", field, around(text, at, at + 1))
    mended = mend(text)
    if mended != text:
        yield Problem("mojibake", field, f"{text[:30]} → {mended[:30]}")
    elif found := GARBLED.search(text):
        yield Problem("garbled", field, around(text, found.start(), found.start() + 3))


def _marks(text: str, role: str, field: str) -> Iterator[Problem]:
    if role == "assistant" and THINKING.match(text):
        yield Problem("thinking", field, text.lstrip()[:30])
        text = THINKING.sub("", text)
    bare = strip_marks(text, role)
    if bare != text:
        yield Problem("marker_at_end", field, f"{text[:15]} … {text[-15:]}" if len(text) > 30 else text)
    if found := _INSIDE.search(without_code(bare)):
        yield Problem("marker_inside", field, around(bare, found.start(), found.end()))


def strip_marks(text: str, role: str) -> str:
    """Text without the marks of a template at its beginning and end."""
    for pattern in _ENDS[role]:
        if (found := pattern.search(text)) and found[0].strip():
            text = text[:found.start()] + text[found.end():]
    wrapped = _WRAPPED.match(text) if role == "user" else None
    return wrapped[1] if wrapped and wrapped[1].strip() and not _SPEAKER_LINE.search(wrapped[1]) else text


def without_code(text: str) -> str:
    """Text of the same length in which code is blank."""
    return _CODE.sub(lambda code: re.sub(r"[^\n]", " ", code[0]), text) if "`" in text else text


def talk_problems(messages: list[dict[str, Any]], fields: list[str], own_names: list[str]) -> Iterator[Problem]:
    """What is wrong with a conversation: its texts, its answers and the order of its turns."""
    system = "\n".join(m["content"] for m in messages if m["role"] == "system")
    question = ""
    for i, (message, place) in enumerate(zip(messages, fields, strict=True)):
        yield from text_problems(message["content"], message["role"], place)
        yield from _turn(messages, i, place)
        if message["role"] == "user":
            question = message["content"]
        elif message["role"] == "assistant" and message["content"].strip():
            yield from _answer(message["content"], question, place, system, own_names)


def _answer(text: str, question: str, place: str, system: str, own_names: list[str]) -> Iterator[Problem]:
    if len(folded := fold(text)) >= _ECHO and folded == fold(question):
        yield Problem("echo", place, text[:40])
    if name := foreign_self(without_code(text), system, own_names):
        yield Problem("identity", place, name)
    if _UNFINISHED.search(text) or text.count("```") % 2:
        yield Problem("cut_answer", place, f"…{text[-20:]}")
    if (found := _SECOND_EXCHANGE.search(without_code(text))) and not _DIALOGUE_WANTED.search(question + system):
        yield Problem("marker_inside", place, around(text, found.start(), found.start() + 3))


def _turn(messages: list[dict[str, Any]], i: int, place: str) -> Iterator[Problem]:
    message, before = messages[i], messages[i - 1] if i else {"role": ""}
    role, blank = message["role"], not message["content"].strip()
    if role == "system" and blank:
        yield Problem("empty_system", place, "")
    if role == "user" and blank:
        yield Problem("empty_question", place, "")
    if role == "assistant" and blank and not message.get("tool_calls"):
        yield Problem("empty_answer", place, "")
    if role == "system" and i and any(m["role"] != "system" for m in messages[:i]):
        yield Problem("late_system", place, message["content"][:40])
    if role == before["role"] and role != "tool":
        yield Problem("same_speaker", place, f"{role} twice")
    if role == "assistant" and before["role"] in ("", "system"):
        yield Problem("agent_first", place, message["content"][:40])


def shape_problems(messages: list[dict[str, Any]], fields: list[str]) -> Iterator[Problem]:
    """Whether a record has a question, an answer and an end."""
    roles = [message["role"] for message in messages]
    if not messages:
        yield Problem("empty_record", "messages", "")
    elif "assistant" not in roles:
        yield Problem("no_answer", fields[-1], messages[-1]["content"][:40])
    elif "user" not in roles:
        yield Problem("no_question", fields[0], messages[0]["content"][:40])
    elif roles[-1] != "assistant":
        yield Problem("unanswered_end", fields[-1], messages[-1]["content"][:40])


def tool_problems(messages: list[dict[str, Any]], fields: list[str], tools: list[dict[str, Any]], last: bool = True) -> Iterator[Problem]:
    """Calls and results. `last`: whether the talk ends here, so that its last call may be what is trained."""
    known = {tool["function"]["name"] for tool in tools}
    called = False
    for i, (message, place) in enumerate(zip(messages, fields, strict=True)):
        for call in message.get("tool_calls", ()):
            function = call["function"]
            if not isinstance(function["arguments"], dict):
                loose = isinstance(function["arguments"], str) and isinstance(loosely(function["arguments"]), dict)
                yield Problem("loose_arguments" if loose else "broken_arguments", place, str(function["arguments"])[:80])
            if not function["name"] or (known and function["name"] not in known):
                defined = ", ".join(sorted(known)) or "none"
                yield Problem("unknown_tool", place, f"{function['name'] or 'a call without a name'}; defined are {defined}")
        if message["role"] == "tool" and not called:
            yield Problem("result_without_call", place, message["content"][:40])
        if message.get("tool_calls") and not _is_answered(messages, i, last):
            yield Problem("call_without_result", place, message["tool_calls"][0]["function"]["name"])
        called = (message["role"] == "tool" and called) or bool(message.get("tool_calls"))


def _is_answered(messages: list[dict[str, Any]], i: int, last: bool) -> bool:
    if i + 1 == len(messages):
        return last
    return messages[i + 1]["role"] == "tool" or bool(messages[i + 1].get("tool_calls"))


def loosely(arguments: str) -> Any:
    """The one value that a text in Python's spelling means ({'a': 1}); None where it means none."""
    import ast
    try:
        return ast.literal_eval(arguments.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None


def around(text: str, start: int, end: int) -> str:
    """A find with what stands beside it, fit for JSON."""
    shown = text[max(0, start - _CONTEXT):end + _CONTEXT]
    return shown.encode("utf-8", "backslashreplace").decode("utf-8")
