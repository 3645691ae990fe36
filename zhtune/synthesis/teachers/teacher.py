"""Jobs for a teacher and their outcomes, whoever answers: a local model here, an endpoint in openai_teacher.py and batch.py.

Outcomes are read from the log alone and given in the order of the jobs, so neither restarts nor concurrency change them.
This module sends nothing and imports no model: a local one is handed over as a function.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from typing import Any, Protocol

import orjson

from zhtune.errors import ConfigError, ZhtuneError
from zhtune.log import progress
from zhtune.synthesis.teachers.joblog import JobLog
from zhtune.synthesis.teachers.prices import Price

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


@dataclass(frozen=True)
class Outcome:
    """What became of one job."""

    job_id: str
    text: str
    finish: str
    """ "stop", "length" or what else the server says """
    usage: dict[str, int]
    """prompt_tokens, completion_tokens of this answer; empty where they are not known."""
    attempts: int
    """Calls that ended, failed ones included. Depends on the server's moods: for reports, not for records."""
    error: str
    """"" when there is a text, else the last failure."""
    cost: Decimal
    """Of this answer alone; the log's ledger has the failed calls too."""


class Teacher(Protocol):
    """Whatever answers jobs."""

    name: str

    def job_id(self, job: Job) -> str:
        """The identity of a job at this teacher."""

    def ask(self, jobs: Iterable[Job]) -> list[Outcome]:
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


def different(teacher: Teacher, jobs: Sequence[Job]) -> dict[str, Job]:
    """Jobs by their id, repeats left out, in order.

    Raises:
        ConfigError: a job that no teacher can answer.
    """
    for job in jobs:
        if not job.messages or job.max_tokens < 1:
            raise ConfigError(f"a job needs messages and max_tokens of at least 1, found {len(job.messages)} and {job.max_tokens}")
    found: dict[str, Job] = {}
    for job in jobs:
        found.setdefault(teacher.job_id(job), job)
    return found


def outcomes(log: JobLog, ids: Iterable[str]) -> list[Outcome]:
    """What the log says of these jobs, in their order."""
    found = []
    for job in ids:
        state = log.state(job)
        if answer := state.answer:
            found.append(Outcome(job, answer.text, answer.finish, answer.usage, state.ended,
                                 "" if answer.text else "empty answer", answer.cost))
        else:
            found.append(Outcome(job, "", "", {}, state.ended, state.error or "never sent", Decimal(0)))
    return found


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


@dataclass(frozen=True)
class Estimate:
    """What asking would take, before anything is sent."""

    jobs: int
    """Different jobs."""
    answered: int
    """Of them in the log already."""
    prompt_tokens: int
    """Expected of the rest, by `expected_tokens`."""
    most_tokens: int
    """Upper bound of prompt and completion tokens of the rest, one call a job."""
    most_cost: Decimal
    """Upper bound of what the rest costs, one call a job."""


def reserve(job: Job, price: Price) -> tuple[int, Decimal]:
    """The most tokens and the most cost that one call for the job can have."""
    prompt = most_tokens(job.messages)
    return prompt + job.max_tokens, price.cost({"prompt_tokens": prompt, "completion_tokens": job.max_tokens})


def estimate(jobs: dict[str, Job], log: JobLog, price: Price) -> Estimate:
    """The dry run: jobs by id, as `different` gives them."""
    rest = [job for id, job in jobs.items() if log.state(id).answer is None]
    most = [reserve(job, price) for job in rest]
    return Estimate(len(jobs), len(jobs) - len(rest), sum(expected_tokens(job.messages) for job in rest),
                    sum(tokens for tokens, _ in most), sum((cost for _, cost in most), Decimal(0)))


class Rehearsal:
    """A teacher that keeps the jobs and answers none: what a run would ask first, for an estimate."""

    def __init__(self, name: str):
        self.name, self.jobs = name, {}

    def job_id(self, job: Job) -> str:
        return job_id(self.name, job)

    def ask(self, jobs: Iterable[Job]) -> list[Outcome]:
        jobs = list(jobs)
        self.jobs |= different(self, jobs)
        return [Outcome(self.job_id(job), "", "", {}, 0, "not sent", Decimal(0)) for job in jobs]


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

    def job_id(self, job: Job) -> str:
        return job_id(self.name, job)

    def ask(self, jobs: Iterable[Job]) -> list[Outcome]:
        jobs = list(jobs)
        chunks = _chunks(different(self, jobs), self._batch)
        for chunk in progress(chunks, self.name, len(chunks)):
            if any(self.log.state(id).answer is None for id in chunk):
                self._answer(chunk)
        return outcomes(self.log, map(self.job_id, jobs))

    def _answer(self, chunk: dict[str, Job]) -> None:
        first = next(iter(chunk.values()))
        replies = self._generate([job.messages for job in chunk.values()], first.max_tokens, first.temperature, first.seed)
        self.log.answer([
            {"job": id, "attempt": 1, "text": reply.text, "finish": reply.finish, "cost": Decimal(0),
             "usage": {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}}
            for id, reply in zip(chunk, replies, strict=True) if self.log.state(id).answer is None])


def _chunks(jobs: dict[str, Job], size: int) -> list[dict[str, Job]]:
    """Batches of jobs with equal sampling, in order. A greedy answer needs no seed."""
    def sampling(item: tuple[str, Job]) -> tuple:
        job = item[1]
        return job.max_tokens, job.temperature, job.seed if job.temperature > 0 else 0
    runs = (list(run) for _, run in groupby(jobs.items(), sampling))
    return [dict(run[i:i + size]) for run in runs for i in range(0, len(run), size)]
