"""The append-only log of a teacher's calls: what was sent, answered, failed. All results and sums are read from it alone.

Two lines an attempt, each on the disk (fsync) before anything depends on it: `sent`, which reserves the most that the
call can cost, and its end. A line without an end is a call that was in flight when the process died: its reservation
stays held, because the server may have charged for it. So spent + held is never below the true bill.

    {"event":"sent","job":…,"attempt":1,"tokens":812,"cost":"0.0012"}
    {"event":"answered","job":…,"attempt":1,"text":…,"finish":"stop","usage":{…},"cost":"0.0004","response":…,"seconds":1.2}
    {"event":"failed","job":…,"attempt":1,"status":"429","error":…,"usage":{},"billed":false,"final":false,"seconds":0.1}
    {"event":"stopped","error":…}            failures before it no longer count, but for BLANK ones once any job was answered: the service was down
    {"event":"batch","digest":…,"id":…,"state":"sent"}     `sent` lines of its jobs carry the digest too

Knows nothing of HTTP. Seconds are for people and never leave the log.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from zhtune.errors import ArtifactError, DataError
from zhtune.records import dumps, parse_object
from zhtune.synthesis.teachers.prices import Price

_NOT_COUNTED = ("429", "unsent")                            # the account's pace, a batch that never was: not the job's failures
BLANK = ("empty", "no choice", "unreadable")
"""Statuses of an answer (200) that is of no use: failures of the job, never of the endpoint, and for good"""


@dataclass(frozen=True)
class Received:
    """One answer as it came."""

    text: str
    finish: str
    usage: dict[str, int]
    """prompt_tokens, completion_tokens; empty where the server's figures are unusable."""
    response: str = ""
    """The server's own id of the answer, to be found on its bill."""


@dataclass
class Fault(Exception):
    """A failed call."""

    status: str
    """ "429", "timeout", "unreadable" …: counted by it """
    message: str
    reach: str = "call"
    """What would fail again: "call" (nothing, try again), "job", "run" (every job: wrong key, no credit, no such model)"""
    billed: bool = False
    """The server may have charged although there is no answer: the reservation is held, unless usage tells the cost."""
    usage: dict[str, int] = field(default_factory=dict)
    retry_after: float = 0.0
    """Seconds in which the server wants no call at all."""
    response: str = ""
    """The server's id of an answer that is of no use but has usage."""


@dataclass(frozen=True)
class Outcome:
    """What became of one job."""

    job_id: str
    text: str
    finish: str
    """ "stop", "length" or what else the server says """
    usage: dict[str, int]
    """prompt_tokens, completion_tokens of this answer; empty where they are not known."""
    error: str
    """"" when there is a text, else the last failure."""
    cost: Decimal = Decimal(0)
    """Of this answer alone, without usage the most that it can have cost; the log's ledger has the failed calls too."""


@dataclass
class JobState:
    """What the log says of one job."""

    attempts: int = 0
    """Highest attempt sent."""
    failures: int = 0
    """Failed attempts that count against the job."""
    blanks: int = 0
    """Those of them that no stop of the run takes back, once any job was answered."""
    refusals: int = 0
    """Failed attempts that do not count."""
    error: str = ""
    final: bool = False
    """The last failure was the job's own fault: another attempt would fail as well."""
    answer: Outcome | None = None


@dataclass
class Batch:
    """What the log says of one batch."""

    state: str = "written"
    """ "written" (perhaps sent), "sent" or "merged" """
    id: str = ""
    open: dict[str, int] = field(default_factory=dict)
    """Attempt by job, of calls without an end."""
    heard: bool = False
    """Whether any job was answered, or refused for good"""


@dataclass
class Ledger:
    """Sums over all calls in the log."""

    cost: Decimal = Decimal(0)
    """Of all calls whose usage the server has told."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    """Ended calls by "answered" or the status of their failure."""
    held_tokens: int = 0
    """Reserved by calls whose bill is not known: in flight, lost in a kill, unreadable."""
    held_cost: Decimal = Decimal(0)
    answered_jobs: int = 0


class JobLog:
    """Opens the log (making it where there is none), replays it, and holds a lock to the end of its `with`.

    Args:
        path: the log's file; its folder must exist.

    Raises:
        ArtifactError: another process writes it, or the disk refuses.
        DataError: a line other than a torn last one is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.jobs: dict[str, JobState] = {}
        self.batches: dict[str, Batch] = {}
        """By the digest of their requests, in the order they were written."""
        self.ledger = Ledger()
        self.last_error = ""
        """Of the last failed call."""
        self._open: dict[tuple[str, int], tuple[int, Decimal]] = {}
        self._lock = FileLock(f"{self.path}.lock", timeout=0)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise ArtifactError(f"{self.path} is in use by another process; wait for it or stop it") from error
        try:
            self._replay()
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> JobLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._lock.release()

    @property
    def reach(self) -> tuple[int, Decimal]:
        """The most tokens and cost that the server can have counted: spent and held."""
        ledger = self.ledger
        return ledger.prompt_tokens + ledger.completion_tokens + ledger.held_tokens, ledger.cost + ledger.held_cost

    def state(self, job_id: str) -> JobState:
        """What is known of a job."""
        return self.jobs.get(job_id) or JobState()

    def outcome(self, job_id: str) -> Outcome:
        """What became of a job so far."""
        state = self.state(job_id)
        return state.answer or Outcome(job_id, "", "", {}, state.error or "never sent")

    def settled(self, job_id: str, attempts: int) -> bool:
        """A job is answered, failed by its own fault, or failed `attempts` times."""
        state = self.state(job_id)
        return state.answer is not None or state.final or state.failures >= attempts

    def sent(self, calls: list[tuple[str, int, Decimal]], batch: str = "") -> list[int]:
        """Note calls before they are sent, as one write.

        Args:
            calls: `(job id, most tokens, most cost)` of each.
            batch: digest of the batch that carries them.

        Returns:
            The attempt number of each.
        """
        more = {"batch": batch} if batch else {}
        lines = [{"event": "sent", "job": job, "attempt": self.state(job).attempts + 1, "tokens": tokens, "cost": str(cost)} | more
                 for job, tokens, cost in calls]
        self._append(lines)
        return [line["attempt"] for line in lines]

    def answer(self, calls: list[tuple[str, int, Received]], price: Price, **more: Any) -> None:
        """Note answers as one write.

        Args:
            calls: `(job id, attempt, answer)` of each; one without usage costs what was reserved for it.
            price: of their tokens.
            more: seconds, batch.
        """
        self._append([{"event": "answered", "job": job, "attempt": attempt, "text": got.text, "finish": got.finish, "usage": got.usage,
                       "cost": str(price.cost(got.usage) if got.usage else self._open[job, attempt][1]), "response": got.response} | more
                      for job, attempt, got in calls])

    def fail(self, job: str, attempt: int, fault: Fault, price: Price, **more: Any) -> None:
        """Note a failed call; `more`: seconds, batch."""
        cost = price.cost(fault.usage) if fault.usage else 0
        self._append([{"event": "failed", "job": job, "attempt": attempt, "status": fault.status, "error": fault.message, "usage": fault.usage,
                       "cost": str(cost), "billed": fault.billed, "final": fault.reach == "job", "response": fault.response} | more])

    def stopped(self, error: str) -> None:
        """Note that the run stopped because the endpoint failed; unanswered jobs get back the attempts that it cost them."""
        self._append([{"event": "stopped", "error": error}])

    def batch(self, digest: str, state: str, id: str = "") -> None:
        """Note a step of a batch: "sent" (with the server's id) or "merged"."""
        self._append([{"event": "batch", "digest": digest, "id": id, "state": state}])

    def summary(self) -> dict[str, Any]:
        """The ledger for a stage's report.json, decimals as strings."""
        ledger = self.ledger
        return {"answered_jobs": ledger.answered_jobs, "calls": dict(sorted(ledger.statuses.items())),
                "prompt_tokens": ledger.prompt_tokens, "completion_tokens": ledger.completion_tokens, "cost": str(ledger.cost),
                "held_calls": len(self._open), "held_tokens": ledger.held_tokens, "held_cost": str(ledger.held_cost)}

    def _append(self, lines: list[dict[str, Any]]) -> None:
        data = b"".join(dumps(line) + b"\n" for line in lines)
        try:
            written = self._file.write(data)                # unbuffered: nothing is left to be written later
            os.fsync(self._file.fileno())
        except OSError as error:
            raise ArtifactError(f"{self.path} cannot be written: {error.strerror}; make room and run again") from error
        if written != len(data):
            raise ArtifactError(f"{self.path} could not be written whole: the disk is full; make room and run again")
        for line in lines:
            self._apply(line)

    def _replay(self) -> None:
        """Read the log; a last line without its LF was torn by a kill and is cut off."""
        try:
            self._file = open(self.path, "ab", buffering=0)
            whole = 0
            with open(self.path, "rb") as written:
                for number, line in enumerate(written, 1):
                    if not line.endswith(b"\n"):
                        break
                    whole += len(line)
                    self._read(line, number)
            self._file.truncate(whole)
        except OSError as error:
            raise ArtifactError(f"{self.path} cannot be opened: {error.strerror}") from error

    def _read(self, line: bytes, number: int) -> None:
        value = parse_object(line, self.path, number)
        try:
            self._apply(value)
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise DataError(f"not a line of a teacher's log ({error!r}); restore the file or remove it", self.path, number) from error

    def _apply(self, line: dict[str, Any]) -> None:
        event = line["event"]
        if event == "batch":
            batch = self.batches.setdefault(line["digest"], Batch())
            batch.state, batch.id = line["state"], line["id"]
        elif event == "stopped":
            for state in self.jobs.values():
                if not self.ledger.answered_jobs:           # blank, all of them: the model was set wrongly
                    state.blanks = 0
                state.failures, state.refusals = state.blanks, 0
        elif event == "sent":
            state = self.jobs.setdefault(line["job"], JobState())
            state.attempts = line["attempt"]
            if "batch" in line:
                self.batches.setdefault(line["batch"], Batch()).open[line["job"]] = line["attempt"]
            self._open[line["job"], line["attempt"]] = (line["tokens"], Decimal(line["cost"]))
            self.ledger.held_tokens += line["tokens"]
            self.ledger.held_cost += Decimal(line["cost"])
        elif event in ("answered", "failed"):
            if "batch" in line:
                batch = self.batches[line["batch"]]
                batch.open.pop(line["job"], None)
                batch.heard |= event == "answered" or line["billed"] or line["final"]
            (self._apply_answer if event == "answered" else self._apply_failure)(line)
        else:
            raise ValueError(event)

    def _apply_answer(self, line: dict[str, Any]) -> None:
        state = self.jobs.setdefault(line["job"], JobState())
        state.attempts = max(state.attempts, line["attempt"])
        cost = Decimal(line["cost"])
        self.ledger.statuses["answered"] += 1
        if line["usage"]:
            self._spend(line, cost)
        if state.answer is None:                            # of two answers the first stays
            self.ledger.answered_jobs += 1
            state.answer = Outcome(line["job"], line["text"], line["finish"], line["usage"], "" if line["text"] else "empty answer", cost)

    def _apply_failure(self, line: dict[str, Any]) -> None:
        state = self.jobs.setdefault(line["job"], JobState())
        if line["status"] in _NOT_COUNTED:
            state.refusals += 1
        else:
            state.failures += 1
            state.blanks += line["status"] in BLANK
        state.error, state.final = f"{line['status']}: {line['error']}", line["final"]
        self.last_error = state.error
        self.ledger.statuses[line["status"]] += 1
        if line["usage"]:
            self._spend(line, Decimal(line["cost"]))
        elif not line["billed"]:
            self._release(line)

    def _release(self, line: dict[str, Any]) -> None:
        tokens, cost = self._open.pop((line["job"], line["attempt"]), (0, Decimal(0)))
        self.ledger.held_tokens -= tokens
        self.ledger.held_cost -= cost

    def _spend(self, line: dict[str, Any], cost: Decimal) -> None:
        self._release(line)
        self.ledger.cost += cost
        self.ledger.prompt_tokens += line["usage"]["prompt_tokens"]
        self.ledger.completion_tokens += line["usage"]["completion_tokens"]
