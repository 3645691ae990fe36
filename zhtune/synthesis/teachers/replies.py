"""What a model really returns -> tasks: thinking aloud, fences, full-width signs, numbered batches, JSON lists and lines, a cut end.

Nothing is guessed: what is not whole is refused by name, and the rest of the reply still counts. Judges no content
(zhtune/synthesis/chinese_filters.py does).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from zhtune.synthesis.teachers.joblog import Outcome
from zhtune.text import normalise

_NAMES = {
    "instruction": ("instruction", "指令", "任务指令", "任务", "问题", "题目", "提问", "question", "query", "问"),
    "given": ("input", "输入", "上下文", "材料", "context"),
    "output": ("output", "输出", "回答", "答案", "参考答案", "answer", "response", "答"),
    "reasoning": ("reasoning", "思路", "推理", "推理过程", "步骤", "解题步骤"),
    "quote": ("quote", "原文", "依据", "引文", "evidence"),
}
_KINDS = {name: kind for kind, names in _NAMES.items() for name in names}
_BATCH_NAMES = "|".join(sorted((n for kind in ("instruction", "given", "output") for n in _NAMES[kind]), key=len, reverse=True))
# "1. 指令：", "**１、Instruction:**", "### 2) 【输出】": number, name and what follows on the line
_HEADER = re.compile(rf"[ \t]*(?:#+[ \t]*)?\**[ \t]*(?:[(（]?(\d{{1,3}})[ \t]*[.．、:：)）]*[ \t]*)?\**"
                     rf"[【\[]?({_BATCH_NAMES})(?:[】\]]\**[ \t]*[:：]?|\**[ \t]*[:：])\**[ \t]*(.*)", re.IGNORECASE)
_SEPARATOR = re.compile(r"[ \t]*(?:#{2,}[ \t]*(?:任务|Task)?[ \t]*\d*[ \t]*[.．、:：]?|-{3,}|={3,})[ \t]*", re.IGNORECASE)
_FENCED = re.compile(r"```[\w-]*[ \t]*\n(.*?)\n?```\s*", re.DOTALL)
_NO_INPUT = re.compile(r"[<（(【\[]?\s*(?:无输入|无|没有|空|noinput|no input|none|n/a|null)\s*[>）)】\]]?[。.]?|[-—]*", re.IGNORECASE)
_THOUGHT = re.compile(r"<(think|thinking|thought)>(.*?)</\1>|<\|begin_of_thought\|>(.*?)<\|end_of_thought\|>", re.DOTALL | re.IGNORECASE)
_THOUGHT_OPEN = re.compile(r"<(?:think|thinking|thought)>|<\|begin_of_thought\|>", re.IGNORECASE)
_THOUGHT_END = re.compile(r"</(?:think|thinking|thought)>|<\|end_of_thought\|>", re.IGNORECASE)
_SOLUTION = re.compile(r"<\|(?:begin|end)_of_solution\|>|</?answer>", re.IGNORECASE)
_STEPS_NAME, _ANSWER_NAME = (rf"[【\[](?:{names})[】\]]" for names in ("步骤|思路|推理|推理过程|解题步骤", "答案|回答|最终答案"))
_STEPS_HEADING, _ANSWER_HEADING = (rf"(?:^#+[ \t]*)?(?:\*\*{name}(?:\*\*[:：]?|[:：]\*\*)|{name}[:：]?)" for name in (_STEPS_NAME, _ANSWER_NAME))
# whatever stands before, perhaps an open fence, steps without the second heading, an answer without any
_STEPS = re.compile(rf".*?(```[\w-]*\s*)?{_STEPS_HEADING}((?:(?!{_ANSWER_HEADING}).)*){_ANSWER_HEADING}((?:(?!{_STEPS_NAME}|{_ANSWER_NAME}).)*)",
                    re.DOTALL | re.MULTILINE)
_OBJECT = re.compile(r"[{｛]\s*[\"“”＂']?\w+[\"“”＂']?\s*[:：]")
_NEXT_OBJECT = re.compile(r"[}｝][\s,，、]*(?=[{｛])")
# LaTeX commands that JSON's \n and \t would break; those that leave a likely word (\ne: a line "e", \tan: "an") only within a formula
_LATEX = r"n(?:abla|atural|earrow|eg|eq(?!\d*\s*=)|ewcommand|ewline|o(?:indent|number|t|tag|tin)|warrow)" \
    r"|t(?:anh|au|binom|ext[a-z]*(?=\{)|frac|herefore|heta|ilde|imes|o|riangle[a-z]*)"
_LATEX_IN_FORMULA = "n(?:e|exists|geq|i|leq|mid|parallel|rightarrow|sim|subseteq|u)|t(?:ag|an|op)"
_BACKSLASH = re.compile(rf'\\(?:\\|(?!["/nrt]|u[0-9a-fA-F]{{4}})|(?=r[A-Za-z]|(?:(?:{_LATEX})|(?P<formula>{_LATEX_IN_FORMULA}))(?![A-Za-z])))')


@dataclass(frozen=True)
class Task:
    """One task as a teacher wrote it; normalised, not judged."""

    instruction: str
    given: str
    """Its input; empty where there is none"""
    output: str
    reasoning: str = ""
    quote: str = ""
    """The words of a document that the answer stands on"""


@dataclass(frozen=True)
class Refused:
    """A reply, or a part of one, that is no task."""

    reason: str
    """only_thinking, no_answer, no_task, cut, incomplete, broken_json, not_text"""
    text: str


def split_thinking(text: str) -> tuple[str, str]:
    """(thinking, answer) of a reasoning model's reply; the answer is empty where the thinking never ends."""
    thoughts = [match[2] or match[3] or "" for match in _THOUGHT.finditer(text)]
    rest = _THOUGHT.sub("", text)
    *before, rest = _THOUGHT_END.split(rest)                # a template may have opened the block
    rest, *after = _THOUGHT_OPEN.split(rest, maxsplit=1)
    thinking = "\n".join(part.strip() for part in (*thoughts, *before, *after) if part.strip())
    return thinking, _SOLUTION.sub("", rest).strip()


def part_thinking(text: str) -> tuple[str, str]:
    """(thinking, answer) of a text that begins with its thinking; any other text is an answer as it is."""
    return split_thinking(text) if text.lstrip().startswith("<think>") else ("", text)


def tasks_of(outcome: Outcome, refuse: Callable[..., None], **about: Any) -> list[Task]:
    """The tasks of a reply. No reply, and parts that are no tasks, are named: refuse(reason, **about, job=…, error=… or text=…)."""
    if not outcome.text:
        refuse("no_reply", **about, job=outcome.job_id, error=outcome.error)
        return []
    found = parse_tasks(outcome.text, outcome.finish)
    for item in found:
        if isinstance(item, Refused):
            refuse(item.reason, **about, job=outcome.job_id, text=item.text[:200])
    return [item for item in found if isinstance(item, Task)]


def parse_tasks(reply: str, finish: str = "stop") -> list[Task | Refused]:
    """The tasks of a reply in any of the known forms, and what in it is none; at least one of both.

    Args:
        reply: as the model gave it.
        finish: "length" where the limit cut it: the last numbered task is then refused, whole or not.
    """
    thinking, text = split_thinking(normalise(reply))
    if not text:
        return [Refused("only_thinking" if thinking else "no_answer", reply)]
    objects = _OBJECT.search(text)
    header = next((m for m in re.finditer(r"^.*$", text, re.MULTILINE) if _HEADER.fullmatch(m[0])), None)
    read = _from_json if objects and (header is None or objects.start() < header.start()) else _from_batch
    return list(read(text, finish == "length")) or [Refused("no_task", text)]


def parse_steps(reply: str, finish: str = "stop") -> tuple[str, str] | Refused:
    """(reasoning, answer) of a step-by-step reply: 【步骤】…【答案】…, or a reasoning model's thinking and its answer.

    What stands before 【步骤】, a fence and bold marks are left out; headings that stand otherwise are refused as no_steps.
    """
    thinking, text = split_thinking(normalise(reply))
    if not text:
        return Refused("only_thinking" if thinking else "no_answer", reply)
    if finish == "length":
        return Refused("cut", text)
    marked = _STEPS.fullmatch(text)
    if not marked and re.search(f"{_STEPS_NAME}|{_ANSWER_NAME}", text):
        return Refused("no_steps", text)
    reasoning, answer = (_unfenced(marked[2], marked[1]), _unfenced(marked[3], marked[1])) if marked else (thinking, text)
    if not answer:
        return Refused("no_answer", text)
    return (reasoning, answer) if reasoning else Refused("no_steps", text)


def _unfenced(part: str, opened: str | None) -> str:
    """A part of a reply without the end of a fence that was opened before it."""
    return (part[:part.rfind("```")] if opened and part.count("```") % 2 else part).strip()


def task_of(row: dict[str, Any]) -> Task | Refused | None:
    """The task in a JSON object, whatever its keys are called; None if it holds no instruction and no output at all."""
    fields: dict[str, str] = {}
    for key, value in row.items():
        kind = _KINDS.get(str(key).strip().lower())
        if kind is None or kind in fields or value is None:
            continue
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            value = "\n".join(value)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return Refused("not_text", json.dumps(row, ensure_ascii=False))
        fields[kind] = normalise(str(value)).strip()
    if not fields.keys() & {"instruction", "output"}:
        return None
    return _task(fields) or Refused("incomplete", json.dumps(row, ensure_ascii=False))


def _task(fields: dict[str, str]) -> Task | None:
    if not (fields.get("instruction") and fields.get("output")):
        return None
    given = fields.get("given", "")
    return Task(fields["instruction"], "" if _NO_INPUT.fullmatch(given) else given, fields["output"], fields.get("reasoning", ""),
                fields.get("quote", ""))


def _from_json(text: str, cut: bool) -> Iterator[Task | Refused]:
    """Objects wherever they stand: in a list, one a line, between fences or prose."""
    text, decoder, place = _BACKSLASH.sub(_backslash, text), json.JSONDecoder(strict=False), 0
    while begin := re.compile("[{｛]").search(text, place):
        try:
            value, place = decoder.raw_decode(text, begin.start())
        except ValueError:
            following = _NEXT_OBJECT.search(text, begin.start())
            place = following.end() if following else len(text)
            piece = text[begin.start():place]
            try:
                value, _ = decoder.raw_decode(_repaired(piece))
            except ValueError:
                ended = piece.rstrip(" \n`]］,，").endswith(("}", "｝"))
                yield Refused("cut" if not following and (cut or not ended) else "broken_json", piece)
                continue
        yield from _objects(value)


def _objects(value: Any) -> Iterator[Task | Refused]:
    """The tasks in a decoded value: itself, or in the lists that it holds ({"tasks": […]})."""
    if isinstance(value, list):
        for item in value:
            yield from _objects(item)
        return
    found = task_of(value) if isinstance(value, dict) else None
    if found:
        yield found
    elif isinstance(value, dict):
        for item in value.values():
            if isinstance(item, list | dict):
                yield from _objects(item)


def _backslash(found: re.Match[str]) -> str:
    """A JSON string's backslash as it is meant: doubled where it is LaTeX's or begins no escape that a text can need (\\b and \\f are none)."""
    if not found["formula"]:
        return "\\\\"
    before = found.string[found.string.rfind('"', 0, found.start()) + 1:found.start()]
    signs = re.findall(r"\$\$?|\\[()[\]]", before)
    in_formula = len(signs) % 2 and not before.endswith(("$$", "\\[")) and not re.search(r"\\\\[A-Za-z]", before)
    if in_formula and signs[-1] == "$":                     # $1, $name of a script and $5 open none: nothing closes it
        in_formula = re.compile(r"[^$\"]*\$(?![\w$({])", re.ASCII).match(found.string, found.end())
    return "\\\\" if in_formula else "\\"


def _repaired(piece: str) -> str:
    """JSON whose own signs were written full-width, with curly quotes, or with a comma too many; signs inside of texts stay."""
    piece = piece.translate(str.maketrans("｛｝［］＂", '{}[]"'))
    piece = re.sub(r'([{,，]\s*)["“”](\w+)["“”]\s*[:：]\s*', r'\1"\2": ', piece)
    piece = re.sub(r'("\w+": )[“”](.*?)[“”](?=\s*[,，}])',
                   lambda m: m[1] + json.dumps(m[2].replace(r"\\", "\\"), ensure_ascii=False), piece, flags=re.DOTALL)
    piece = re.sub(r'"\s*，\s*(?="\w+": )', '", ', piece)
    return re.sub(r"[,，]\s*}", "}", piece)


def _from_batch(text: str, cut: bool) -> list[Task | Refused]:
    """Numbered tasks as Alpaca and BELLE ask for them, with or without ### between them."""
    fenced = _FENCED.fullmatch(text)
    batch = _Batch()
    for line in (fenced[1] if fenced else text).split("\n"):
        batch.read(line)
    found: list[Task | Refused] = []
    for number, raw in enumerate(batch.items, 1):
        fields = {kind: value.strip() for kind, value in raw.items()}
        last, task = number == len(batch.items), _task(fields)
        if task is None or (last and cut):
            found.append(Refused("cut" if last and (cut or "output" not in fields) else "incomplete", "\n".join(fields.values())))
        else:
            found.append(task)
    return found


class _Batch:
    """Reads a numbered batch line by line.

    An answer may itself hold lines such as "输入：3". So a header counts only under the name by which the batch's first
    task calls that field, with its task's number where it has one, and in the order instruction, input, output.
    """

    def __init__(self) -> None:
        self.items: list[dict[str, str]] = []
        self._open, self._number, self._field = False, "", ""
        self._names: dict[str, str] = {}

    def read(self, line: str) -> None:
        if _SEPARATOR.fullmatch(line):
            if not self._open or "output" in self.items[-1] or line.strip().startswith("#"):
                self._open = False
                return
        header = _HEADER.fullmatch(line)
        if header and self._counts(*header.groups("")[:2]):
            self._begin(header[1] or "", header[2].lower(), header[3])
        elif self._open:
            self.items[-1][self._field] += "\n" + line

    def _counts(self, number: str, name: str) -> bool:
        kind, name = _KINDS[name.lower()], name.lower()
        if self._names.get(kind, name) != name:
            return False
        if kind == "instruction":
            if not self._open:
                return True
            return number != self._number if number else not self._number and "output" in self.items[-1]
        if not self._open or (number and self._number and number != self._number):
            return False
        return kind not in self.items[-1] and "output" not in self.items[-1]

    def _begin(self, number: str, name: str, rest: str) -> None:
        kind = _KINDS[name]
        self._names.setdefault(kind, name)
        if kind == "instruction":
            self.items.append({})
            self._open, self._number = True, number
        self._field = kind
        self.items[-1][kind] = rest
