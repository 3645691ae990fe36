"""Jobs for a teacher and their outcomes, whoever answers: a local model here, an endpoint in openai_teacher.py and batch.py.

Outcomes are read from the log alone and given in the order of the jobs, so neither restarts nor concurrency change them.
This module sends nothing and imports no model: a local one is handed over as a function.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from typing import Any, Protocol

import orjson

from zhtune.errors import ZhtuneError
from zhtune.log import progress
from zhtune.synthesis.teachers.joblog import JobLog, Outcome, Received
from zhtune.synthesis.teachers.prices import FREE, Price

_MESSAGE_TOKENS = 16                                        # role, turn markers and a dummy prefix, of any template known


class TeacherStopped(ZhtuneError):
    """The teacher cannot go on: it fails all the time, refuses the key, or a cap is reached. The log keeps what is done."""


@dataclass(frozen=True)
class Job:
    """One question to a teacher."""

    messages: list[dict[str, Any]]
    """`[{"role", "content"}…]`"""
    max_tokens: int
    """Of the answer."""
    temperature: float
    seed: int
    key: str
    """Tells apart jobs that are otherwise equal; not sent."""


class Teacher(Protocol):
    """Whatever answers jobs."""

    name: str

    def ask(self, jobs: list[Job]) -> list[Outcome]:
        """One outcome a job, in the order of the jobs; each different job is answered once, from the log if it is there."""


class Reply(Protocol):
    """What a local model's function returns for each conversation (zhtune/models/engine.py has one)."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish: str


Generate = Callable[[list[list[dict[str, Any]]], int, float, int], Sequence[Reply]]
"""(conversations, max_tokens, temperature, seed) -> one reply each, in order."""


def job_id(name: str, job: Job) -> str:
    """sha256 over the teacher's name and all of the job, as JSON with sorted keys."""
    parts = [name, job.messages, job.max_tokens, float(job.temperature), job.seed, job.key]
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()


def different(name: str, jobs: list[Job]) -> dict[str, Job]:
    """Jobs by their id, repeats left out, in order."""
    return {job_id(name, job): job for job in jobs}


def expected_tokens(messages: list[dict[str, Any]]) -> int:
    """About how many tokens a prompt has: one for each character beyond ASCII, one for four of ASCII, four a message."""
    total = 0
    for message in messages:
        text = str(message.get("content") or "")
        ascii_characters = sum(map(str.isascii, text))
        total += 4 + len(text) - ascii_characters + (ascii_characters + 3) // 4
    return total


def most_tokens(messages: list[dict[str, Any]]) -> int:
    """No tokenizer with a byte alphabet or byte fallback makes more: one a byte of UTF-8, and 16 a message."""
    return _MESSAGE_TOKENS + sum(_MESSAGE_TOKENS + len(str(message.get("content") or "").encode()) for message in messages)


def reserve(job: Job, price: Price) -> tuple[int, Decimal]:
    """The most tokens and the most cost that one call for the job can have."""
    prompt = most_tokens(job.messages)
    return prompt + job.max_tokens, price.cost({"prompt_tokens": prompt, "completion_tokens": job.max_tokens})


class Rehearsal:
    """A teacher that keeps the jobs and answers none: what a run would ask first, for an estimate."""

    def __init__(self, name: str):
        self.name, self.jobs = name, {}

    def ask(self, jobs: list[Job]) -> list[Outcome]:
        self.jobs |= different(self.name, jobs)
        return [Outcome(job_id(self.name, job), "", "", {}, "not sent") for job in jobs]


class LocalTeacher:
    """A teacher that is a function in this process; its calls cost nothing and are logged all the same.

    A sampled answer can depend on its batch. So batches are cut from the jobs as they are given, never from what a kill
    left over: a batch of which one answer is missing is generated again as a whole, and the answers that are there stay.
    Only jobs of equal sampling share a batch; sampled ones (temperature above 0) need equal seeds for that.

    Args:
        name: what answers, such as a model's digest: part of every job's id.
        generate: answers a list of conversations.
        log: where answers are kept.
        batch: conversations in one call.
    """

    def __init__(self, name: str, generate: Generate, log: JobLog, batch: int = 32):
        self.name, self.log, self._generate, self._batch = name, log, generate, batch

    def ask(self, jobs: list[Job]) -> list[Outcome]:
        chunks = _chunks(different(self.name, jobs), self._batch)
        for chunk in progress(chunks, self.name, len(chunks)):
            if any(self.log.state(id).answer is None for id in chunk):
                self._answer(chunk)
        return [self.log.outcome(job_id(self.name, job)) for job in jobs]

    def _answer(self, chunk: dict[str, Job]) -> None:
        first = next(iter(chunk.values()))
        replies = self._generate([job.messages for job in chunk.values()], first.max_tokens, first.temperature, first.seed)
        self.log.answer([
            (id, 1, Received(reply.text, reply.finish, {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}))
            for id, reply in zip(chunk, replies, strict=True) if self.log.state(id).answer is None], FREE)


def _chunks(jobs: dict[str, Job], size: int) -> list[dict[str, Job]]:
    """Batches of jobs with equal sampling, in order. A greedy answer needs no seed."""
    def sampling(item: tuple[str, Job]) -> tuple:
        job = item[1]
        return job.max_tokens, job.temperature, job.seed if job.temperature > 0 else 0
    runs = (list(run) for _, run in groupby(jobs.items(), sampling))
    return [dict(run[i:i + size]) for run in runs for i in range(0, len(run), size)]
