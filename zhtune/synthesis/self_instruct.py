"""Seed tasks + a teacher -> new tasks: batches (Self-Instruct), evolution (Evol-Instruct), questions on documents, worked steps.

What is asked depends on the seed, the number of the request and what was accepted before, never on who answers first: a
teacher that answers from its log gives the same records. Every reply and every task that is refused is named to `refuse`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zhtune.errors import DataError
from zhtune.records import dumps, read_jsonl
from zhtune.synthesis.chinese_filters import answer_refusal, instruction_refusal
from zhtune.synthesis.novelty import NoveltyIndex
from zhtune.synthesis.teachers.asking import Asking, Prompt
from zhtune.synthesis.teachers.joblog import Outcome
from zhtune.synthesis.teachers.replies import Refused, Task, parse_steps, task_of, tasks_of
from zhtune.text import fold

PROMPTS = {
    "numbered": ("count", "examples", "first", "last"), "json": ("count", "examples"), "deepen": ("way", "task"), "broaden": ("task",),
    "document": ("count", "passage"), "steps": ("task",),
}
"""Each prompt's file (prompts/self_instruct/NAME.txt) and its placeholders, written {{name}}."""
DEEPEN_WAYS = ("增加一个明确的限制条件，例如字数、格式、对象或必须包含的要点", "把笼统的概念换成更具体的概念，给出具体的人物、数字或场景",
               "让任务需要两三步推理才能完成，而不是一步就能答出", "追问原因、比较或取舍，让任务需要更深入的理解")
SEED_EXAMPLES, OWN_EXAMPLES = 3, 2                          # of Self-Instruct's 6 and 2, what leaves room for a batch of 10 or 20
_LEANS_ON_TEXT = re.compile("(?:根据|按照|依据|结合)?(?:上文|上述|以上(?:文|材料|内容|信息|资料|段)|下文|本文|"
                            "文中|原文|材料(?:中|里)|这段|该段|此段|文章(?:中|里)|作者在文)")
_EVOLUTION_TALK = re.compile("原任务|改写后的任务|给定的任务|上面的任务|下面的任务|#(?:原|新|改)")


@dataclass
class Pool:
    """Accepted tasks, the gate before them, and what was turned away."""

    index: NoveltyIndex
    refuse: Callable[..., None]
    """Called as `refuse(reason, **what)`"""
    most: int = 200
    """Characters of an instruction"""
    records: list[dict[str, Any]] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._known = len(self.index)                       # the seeds come first in it

    def offer(self, task: Task, **source: Any) -> bool:
        """Accept a task that passes every filter and is novel; else name the reason."""
        reason = instruction_refusal(task.instruction, task.given, self.most) or answer_refusal(task.output, task.instruction, task.given)
        if reason:
            return self._turn_away(reason, task, source)
        twin = self.index.admit(task.instruction)
        if twin is not None:
            near = f"record-{twin.number - self._known}" if twin.number >= self._known else "seed"
            return self._turn_away("not_novel", task, source, near=near, score=round(twin.score, 4))
        self.tasks.append(task)
        self.records.append(_record(task, source))
        return True

    def replies(self, outcomes: Iterable[Outcome], method: str) -> list[tuple[int, Outcome, list[Task]]]:
        """`(place, outcome, tasks)` of the replies that hold tasks; the others, and parts that are no tasks, are refused by name."""
        found = [(place, outcome, tasks_of(outcome, self.refuse, method=method)) for place, outcome in enumerate(outcomes)]
        return [reply for reply in found if reply[2]]

    def _turn_away(self, reason: str, task: Task, source: dict[str, Any], **more: Any) -> bool:
        self.refuse(reason, method=source["method"], job=source["job"], instruction=task.instruction[:200], output=task.output[:200], **more)
        return False


def read_seeds(path: Path) -> list[tuple[str, Task]]:
    """`(id, task)` of a JSON Lines file of seed tasks (instruction, input, output under any of their usual names, or the first turn of messages).

    Raises:
        DataError: a line that is no task, or no line at all.
    """
    seeds = []
    for number, row in read_jsonl(path):
        task = task_of(_first_turn(row.get("messages")) or row)
        if not isinstance(task, Task):
            raise DataError("is no seed task; expected an instruction and an output (and an input where it needs one)", path, number)
        seeds.append((str(row.get("id") or f"line-{number}"), task))
    if not seeds:
        raise DataError("holds no seed task", path)
    return seeds


def _first_turn(messages: Any) -> dict[str, Any]:
    """Question and answer of a record's messages; empty for anything else."""
    said: dict[str, Any] = {}
    for message in messages if isinstance(messages, list) else []:
        if isinstance(message, dict) and message.get("role") in ("user", "assistant"):
            said.setdefault(str(message["role"]), message.get("content"))
    return {"instruction": said.get("user"), "output": said.get("assistant")} if said else {}


def batches(asking: Asking, pool: Pool, seeds: list[tuple[str, Task]], prompt: Prompt, *, form: str, wanted: int, count: int,
            requests: int, at_once: int) -> int:
    """Ask for batches of `count` tasks until `wanted` are accepted or `requests` were sent; returns how many were sent.

    Args:
        prompt: of the form.
        form: "numbered" (### between numbered tasks, as Alpaca and BELLE ask) or "json" (one object a line).
        at_once: requests that are made from the same pool. Part of what is asked: another number gives other records.
    """
    sent, before = 0, len(pool.records)
    while sent < requests and len(pool.records) - before < wanted:
        chosen = [_examples(pool, seeds, random.Random(f"{asking.seed}:batch:{sent + i}")) for i in range(min(at_once, requests - sent))]
        asked = [(f"batch:{sent + i}", _batch_messages(prompt, form, count, [task for _, task in examples])) for i, examples in enumerate(chosen)]
        for place, outcome, tasks in pool.replies(asking.ask(asked), "batch"):
            for task in tasks:
                if len(pool.records) - before < wanted:
                    pool.offer(task, method="batch", **asking.provenance(prompt, outcome), call_tasks=len(tasks),
                               examples=[name for name, _ in chosen[place]])
        sent += len(asked)
    return sent


def evolve(asking: Asking, pool: Pool, prompts: dict[str, Prompt], wanted: int) -> None:
    """Ask for a deeper or (every fifth) a broader task from `wanted` accepted ones."""
    parents = _chosen(len(pool.tasks), wanted, f"{asking.seed}:evolve")
    methods = ["broaden" if number % 5 == 4 else "deepen" for number in range(len(parents))]
    asked = []
    for number, (parent, method) in enumerate(zip(parents, methods)):
        ways = {"way": DEEPEN_WAYS[number % len(DEEPEN_WAYS)]} if method == "deepen" else {}
        asked.append((f"{method}:{number}", prompts[method].fill(task=show(pool.tasks[parent]), **ways)))
    for place, outcome, tasks in pool.replies(asking.ask(asked), "evolve"):
        task, method = tasks[0], methods[place]
        source = {"method": method, **asking.provenance(prompts[method], outcome), "parent": parents[place]}
        if _EVOLUTION_TALK.search(task.instruction):
            pool.refuse("talks_of_the_prompt", method=method, job=outcome.job_id, instruction=task.instruction[:200])
        else:
            pool.offer(task, **source)


def documents(asking: Asking, pool: Pool, prompt: Prompt, passages: list[tuple[str, str]], pairs: int) -> None:
    """Ask for `pairs` questions and answers on each `(id, passage)`; an answer must quote words that stand in its passage."""
    asked = [(f"document:{name}", prompt.fill(count=pairs, passage=text)) for name, text in passages]
    for place, outcome, tasks in pool.replies(asking.ask(asked), "document"):
        name, text = passages[place]
        for task in tasks:
            source = {"method": "document", **asking.provenance(prompt, outcome), "call_tasks": len(tasks), "document": name, "quote": task.quote}
            reason = _ungrounded(task, text)
            if reason:
                pool.refuse(reason, method="document", job=outcome.job_id, instruction=task.instruction[:200], quote=task.quote[:200])
            else:
                pool.offer(task, **source)


def work_out(asking: Asking, pool: Pool, prompt: Prompt, wanted: int) -> int:
    """Answer `wanted` accepted tasks again step by step; the steps become `reasoning`. Returns how many were answered.

    A task whose new answer is refused keeps the old one.
    """
    chosen = _chosen(len(pool.tasks), wanted, f"{asking.seed}:steps")
    outcomes = asking.ask([(f"steps:{number}", prompt.fill(task=show(pool.tasks[number], answer=False))) for number in chosen])
    done = 0
    for number, outcome in zip(chosen, outcomes, strict=True):
        task = pool.tasks[number]
        found = parse_steps(outcome.text, outcome.finish) if outcome.text else Refused("no_reply", outcome.error)
        reason = found.reason if isinstance(found, Refused) else answer_refusal(found[1], task.instruction, task.given)
        if isinstance(found, Refused) or reason:
            pool.refuse(f"steps_{reason}", method="steps", job=outcome.job_id, text=outcome.text[:200])
            continue
        record = pool.records[number]
        record["messages"][1] = {"role": "assistant", "content": found[1], "reasoning": found[0]}
        record["source"]["steps"] = asking.provenance(prompt, outcome)
        done += 1
    return done


def show(task: Task, answer: bool = True) -> str:
    """A task as the prompts show it."""
    lines = [f"指令：{task.instruction}", f"输入：{task.given or '<无输入>'}"]
    return "\n".join([*lines, f"输出：{task.output}"] if answer else lines)


def _batch_messages(prompt: Prompt, form: str, count: int, examples: list[Task]) -> list[dict[str, str]]:
    if form == "json":
        rows = [dumps({"instruction": t.instruction, "input": t.given, "output": t.output}).decode() for t in examples]
        return prompt.fill(count=count, examples="\n".join(rows))
    shown = [f"###\n{n}. 指令：{t.instruction}\n{n}. 输入：\n{t.given or '<无输入>'}\n{n}. 输出：\n{t.output}" for n, t in enumerate(examples, 1)]
    return prompt.fill(count=count, examples="\n".join(shown), first=len(examples) + 1, last=len(examples) + count)


def _examples(pool: Pool, seeds: list[tuple[str, Task]], generator: random.Random) -> list[tuple[str, Task]]:
    """Three seeds and, once there are some, two accepted tasks."""
    chosen = generator.sample(seeds, min(SEED_EXAMPLES, len(seeds)))
    own = generator.sample(range(len(pool.tasks)), min(OWN_EXAMPLES, len(pool.tasks)))
    return [*chosen, *((f"record-{number}", pool.tasks[number]) for number in own)]


def _chosen(size: int, wanted: int, key: str) -> list[int]:
    return sorted(random.Random(key).sample(range(size), min(wanted, size)))


def _ungrounded(task: Task, passage: str) -> str | None:
    """Why a question on a document cannot stand alone, or its answer not on the document."""
    if _LEANS_ON_TEXT.search(task.instruction):
        return "leans_on_text"
    if len(fold(task.quote)) < 4:
        return "no_quote"
    return None if fold(task.quote) in fold(passage) else "quote_not_in_document"


def _record(task: Task, source: dict[str, Any]) -> dict[str, Any]:
    question = f"{task.instruction}\n\n{task.given}" if task.given else task.instruction
    answer = {"role": "assistant", "content": task.output} | ({"reasoning": task.reasoning} if task.reasoning else {})
    return {"messages": [{"role": "user", "content": question}, answer], "source": {"producer": "self-instruct", **source}}
