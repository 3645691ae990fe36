"""How fast, how often and for how much a teacher may be asked. Knows nothing of HTTP, logs or jobs.

A bucket holds a tenth of the minute's limit and is refilled by the rest over a minute, so that no window of 60 seconds
sees more than the limit: `tenth + (limit - tenth) = limit`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal

from zhtune.config import Checked
from zhtune.errors import ConfigError

_LONGEST_WAIT = 60.0


@dataclass(frozen=True, kw_only=True)
class Limits(Checked):
    """Bounds on the calls of one teacher; none of them changes what is answered."""

    concurrency: int = 8
    """Calls in flight at a time"""
    requests_per_minute: int = 0
    """0: no limit"""
    tokens_per_minute: int = 0
    """Prompt and completion tokens; 0: no limit"""
    attempts: int = 6
    """Failed calls for one job before it is given up; a 429 is no failure of the job and does not count"""
    timeout: float = 120.0
    """Seconds that one call may take"""
    backoff: float = 1.0
    """Seconds before the second attempt; doubled for each further one, at most a minute"""
    breaker: int = 20
    """Failed calls in a row, of whatever job, that stop the run; an answer without a usable text is no failure of the endpoint"""
    poll: float = 60.0
    """Seconds between two looks at a batch"""
    max_cost: float = 0.0
    """What all calls in the log may cost together, in the currency of the prices; 0: no limit"""
    max_tokens: int = 0
    """Tokens that all calls in the log may use together; 0: no limit"""

    def check(self) -> None:
        for name, least in (("concurrency", 1), ("attempts", 1), ("breaker", 1), ("requests_per_minute", 0),
                            ("tokens_per_minute", 0), ("max_cost", 0), ("max_tokens", 0), ("backoff", 0), ("poll", 0)):
            if not self.__dict__[name] >= least:
                raise ConfigError(f"--limits.{name} must be at least {least}, found {self.__dict__[name]}")
        if not self.timeout > 0:
            raise ConfigError(f"--limits.timeout must be more than 0 seconds, found {self.timeout}")

    def affords(self, tokens: int, cost: Decimal) -> str:
        """"" if a sum of spent and reserved is within the caps, else the cap that it would break."""
        if self.max_cost and cost > Decimal(str(self.max_cost)):
            return f"--limits.max_cost {self.max_cost:g}"
        return f"--limits.max_tokens {self.max_tokens}" if self.max_tokens and tokens > self.max_tokens else ""


class TokenBucket:
    """A level that rises with time. What is larger than the bucket leaves a debt, which later takers wait for.

    Args:
        per_minute: the limit; 0 is none.
        clock: seconds, never going back.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic):
        self._size = float(max(1, per_minute // 10))
        self._rate = (per_minute - self._size if per_minute > self._size else per_minute) / 60
        self._clock, self._level, self._seen = clock, self._size, clock()

    def delay(self, amount: float) -> float:
        """Seconds until `amount` may be taken; 0 is now."""
        if not self._rate:
            return 0.0
        now = self._clock()
        self._level, self._seen = min(self._size, self._level + (now - self._seen) * self._rate), now
        missing = min(amount, self._size) - self._level
        return missing / self._rate if missing > 1e-6 else 0.0

    def take(self, amount: float) -> None:
        """Take what `delay` has allowed; a negative amount gives back."""
        self._level -= amount

    def drain(self) -> None:
        """Empty it: a server that says 429 has counted more than we have."""
        self._level = min(self._level, 0.0)


class Gate:
    """Lets calls pass one after the other, in the order they came, as both buckets and the server's pauses allow.

    Args:
        limits: requests and tokens a minute.
        sleep: awaited for each wait.
        clock: seconds, never going back.
    """

    def __init__(self, limits: Limits, sleep: Callable[[float], Awaitable[None]], clock: Callable[[], float] = time.monotonic):
        self._requests, self._tokens = TokenBucket(limits.requests_per_minute, clock), TokenBucket(limits.tokens_per_minute, clock)
        self._sleep, self._clock, self._paused_until, self._turn = sleep, clock, clock(), asyncio.Lock()

    async def enter(self, tokens: int) -> None:
        """Wait until a call of about `tokens` tokens may be sent, and count it."""
        async with self._turn:
            while (wait := max(self._paused_until - self._clock(), self._requests.delay(1), self._tokens.delay(tokens))) > 0:
                await self._sleep(wait)
            self._requests.take(1)
            self._tokens.take(tokens)

    def correct(self, expected: int, used: int) -> None:
        """Give back what a call was expected to use and did not, or take what it used beyond that."""
        self._tokens.take(used - expected)

    def pause(self, seconds: float) -> None:
        """Send nothing for so long: the server's Retry-After."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)
        self._requests.drain()
        self._tokens.drain()


def backoff(job_id: str, failures: int, base: float) -> float:
    """Seconds to wait after a job's n-th failure: doubled each time, half of it jittered by a generator of its own.

    The generator is seeded by job and failure, so that neither concurrency nor a restart changes the wait.
    """
    longest = min(_LONGEST_WAIT, base * 2 ** (min(failures, 30) - 1))
    return longest * random.Random(f"{job_id}:{failures}").uniform(0.5, 1.0)
