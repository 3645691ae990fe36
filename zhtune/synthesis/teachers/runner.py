"""Sends jobs, many at a time, within limits and caps, each attempt in the log before and after. One asyncio loop, no threads.

    worker: next job → gate (requests and tokens a minute) → cap (spent + held + this call) → log `sent` → call → log its end
            ↑________________________ backoff, while the job is neither answered nor given up ________________________|

Knows nothing of HTTP: the call is handed over, and says by `Fault` what a failure means.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import closing
from decimal import Decimal

from zhtune.log import Bar, logger
from zhtune.synthesis.teachers.joblog import BLANK, Fault, JobLog, Received
from zhtune.synthesis.teachers.limits import Gate, Limits, backoff
from zhtune.synthesis.teachers.prices import Price
from zhtune.synthesis.teachers.teacher import Job, TeacherStopped, expected_tokens, reserve


class _Halt(Exception):
    """Ends a worker that waits, once the run has stopped."""


class Runner:
    """One run over jobs that are not settled.

    Args:
        call: sends one job; raises Fault.
        log: holds what earlier runs did.
        limits: rates, attempts and caps.
        price: of a call's tokens.
        name: the teacher's, for people.
    """

    def __init__(self, call: Callable[[Job], Awaitable[Received]], log: JobLog, limits: Limits, price: Price, name: str):
        self._call, self._log, self._limits, self._price, self._name = call, log, limits, price, name
        self._gate, self._stop, self._ended = Gate(limits, self._sleep), asyncio.Event(), asyncio.Condition()
        self._in_flight, self._in_a_row, self._settled, self._reason = 0, 0, 0, ""

    async def run(self, jobs: dict[str, Job]) -> None:
        """Settle every job, or stop.

        Raises:
            TeacherStopped: a cap is reached, the breaker is open, or the server refuses every call.
        """
        queue = deque((id, job) for id, job in jobs.items() if not self._log.settled(id, self._limits.attempts))
        with closing(Bar(self._name, len(queue))) as self._bar:
            await asyncio.gather(*(self._work(queue) for _ in range(min(self._limits.concurrency, len(queue)))))
        if self._reason:
            done = sum(self._log.state(id).answer is not None for id in jobs)
            raise TeacherStopped(f"{self._reason}; {done:,} of {len(jobs):,} jobs are answered in {self._log.path} and will not be sent "
                                 "again: run the same command to go on")

    async def _work(self, queue: deque[tuple[str, Job]]) -> None:
        try:
            while queue:
                id, job = queue.popleft()
                while not self._log.settled(id, self._limits.attempts):
                    await self._attempt(id, job)
                self._settled += 1
                self._bar.update(self._settled, f"{self._name}, cost {self._log.ledger.cost:.4f}")
        except _Halt:
            return

    async def _attempt(self, id: str, job: Job) -> None:
        tokens, cost = reserve(job, self._price)
        expected = min(tokens, expected_tokens(job.messages) + job.max_tokens)
        await self._gate.enter(expected)
        await self._afford(tokens, cost)
        attempt, began = self._log.sent([(id, tokens, cost)])[0], time.monotonic()
        self._in_flight += 1
        fault = None
        try:
            received = await self._call(job)
            self._answered(id, attempt, received, cost, expected, time.monotonic() - began)
        except Fault as error:
            fault = error
            self._failed(id, attempt, error, time.monotonic() - began)
        finally:
            self._in_flight -= 1
        async with self._ended:
            self._ended.notify_all()
        if fault is not None and not self._log.settled(id, self._limits.attempts):
            state = self._log.state(id)
            await self._sleep(backoff(id, state.failures + state.refusals, self._limits.backoff))

    async def _afford(self, tokens: int, cost: Decimal) -> None:
        """Wait until the caps allow the call; stop the run when no call in flight can free what it needs."""
        async with self._ended:
            while not self._stop.is_set():
                spent_tokens, spent_cost = self._log.reach
                if not (cap := self._limits.affords(spent_tokens + tokens, spent_cost + cost)):
                    return
                if not self._in_flight:
                    self._halt(f"{cap} allows no further call (spent or held: {spent_cost:.4f} and {spent_tokens:,} tokens; the next call "
                               f"can take {cost:.4f} and {tokens:,}): raise it")
                    break
                await self._ended.wait()
        raise _Halt

    def _answered(self, id: str, attempt: int, received: Received, most: Decimal, expected: int, seconds: float) -> None:
        usage = received.usage
        self._log.answer([(id, attempt, received)], self._price, seconds=round(seconds, 3))
        self._in_a_row = 0
        if not usage:
            return
        self._gate.correct(expected, usage["prompt_tokens"] + usage["completion_tokens"])
        if self._price.cost(usage) > most:
            logger.warning("%s: a call cost %s, more than max_tokens allows (%s): the caps cannot be kept exactly", self._name,
                           self._price.cost(usage), most)

    def _failed(self, id: str, attempt: int, fault: Fault, seconds: float) -> None:
        self._log.fail(id, attempt, fault, self._price, seconds=round(seconds, 3))
        useless = fault.status in BLANK and self._log.ledger.answered_jobs > 0      # where all are, the model is set wrongly
        self._in_a_row = 0 if useless else self._in_a_row + 1
        if fault.retry_after:
            self._gate.pause(fault.retry_after)
        if fault.reach == "run":
            self._halt(f"{self._name} refuses every call ({fault.status}: {fault.message})", down=True)
        elif self._in_a_row >= self._limits.breaker:
            self._halt(f"{self._in_a_row} calls in a row failed, the last with {fault.status}: {fault.message}", down=True)

    def _halt(self, reason: str, down: bool = False) -> None:
        """Send nothing more; calls in flight are awaited, so that what they cost is known."""
        if self._stop.is_set():
            return
        self._reason = reason
        self._stop.set()
        if down:
            self._log.stopped(reason)

    async def _sleep(self, seconds: float) -> None:
        """Sleep, but not beyond the end of the run."""
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return
        raise _Halt
