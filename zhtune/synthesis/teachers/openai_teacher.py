"""A teacher behind any OpenAI-compatible endpoint. Its key comes from the environment and is written nowhere.

The openai client only carries requests: it retries nothing, and answers are read here, strictly, from their bytes. How often,
how fast and for how much is asked is the runner's work (runner.py).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import orjson

from zhtune.errors import ConfigError, require
from zhtune.synthesis.teachers.joblog import Fault, JobLog, Outcome, Received
from zhtune.synthesis.teachers.limits import Limits
from zhtune.synthesis.teachers.prices import FREE, Price
from zhtune.synthesis.teachers.runner import Runner
from zhtune.synthesis.teachers.teacher import Job, different, job_id

_MESSAGE_LENGTH = 200
_LIMIT, NEW_LIMIT = "max_tokens", "max_completion_tokens"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_LONGEST_PAUSE = 3600.0
_RUN_STATUSES = (401, 402, 403, 404)                        # key, credit, permission, model: no other job would fare better
_RETRY_STATUSES = (408, 409, 425, 429)
_RUN_CODES = ("insufficient_quota", "billing_hard_limit_reached", "invalid_api_key", "model_not_found")


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a teacher answers. Of the key it holds the name of an environment variable, never the value."""

    model: str
    """The model's name at the endpoint"""
    base_url: str
    """Its address, such as https://api.openai.com/v1"""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable with its key; an endpoint on this machine needs none"""

    def credentials(self) -> dict[str, str]:
        """base_url and api_key, for the client alone.

        Raises:
            ConfigError: the variable is not set or holds what cannot be a key, or the address is none.
        """
        require_address(self.base_url)
        key = os.environ.get(self.api_key_env, "").strip() or ("none" if urlsplit(self.base_url).hostname in _LOOPBACK else "")
        if not key:
            raise ConfigError(f"the environment variable {self.api_key_env} is not set; export the teacher's api_key in it")
        if not (key.isascii() and key.isprintable()):
            raise ConfigError(f"the environment variable {self.api_key_env} holds no key: keys are of ASCII characters")
        return {"api_key": key, "base_url": self.base_url}

    def clean(self, message: str) -> str:
        """A server's message as one short line, without key and address."""
        for value in (*self.credentials().values(), urlsplit(self.base_url).netloc):
            message = message.replace(value, "***")
        return " ".join(message.split())[:_MESSAGE_LENGTH]

    def body(self, job: Job, limit: str) -> dict[str, Any]:
        """The fields of a chat completion; `limit` names the one that holds the most tokens."""
        return {"model": self.model, "messages": job.messages, limit: job.max_tokens, "temperature": job.temperature,
                "seed": job.seed}


class OpenAITeacher:
    """Answers jobs through chat completions, many at a time.

    Args:
        endpoint: model, address and name of the key's variable.
        log: where every call is kept.
        limits: rates, attempts and caps.
        price: of the model's tokens.

    Raises:
        ConfigError: the variable is not set, or a cap on the cost without a price.
        MissingDependency: the openai client is not installed.
    """

    def __init__(self, endpoint: Endpoint, log: JobLog, limits: Limits | None = None, price: Price = FREE):
        self.name, self.endpoint, self.log, self.limits, self.price = endpoint.model, endpoint, log, limits or Limits(), price
        if self.limits.max_cost and not (price.input or price.output):
            raise ConfigError("--limits.max_cost needs a price of the model; give a price table, or use --limits.max_tokens")
        self.limit_field = NEW_LIMIT if any(NEW_LIMIT in state.error for state in log.jobs.values()) else _LIMIT
        """Name of the field with the most tokens of a reply; a server that wants the newer one says so once"""
        endpoint.credentials()
        require_client()

    def ask(self, jobs: list[Job]) -> list[Outcome]:
        """As the protocol says.

        Raises:
            TeacherStopped: a cap is reached, the breaker is open, the endpoint refuses every call, or a batch failed as a whole.
        """
        self._settle(different(self.name, jobs))
        return [self.log.outcome(job_id(self.name, job)) for job in jobs]

    def _settle(self, jobs: dict[str, Job]) -> None:
        """Ask until each job, by its id, is answered or given up."""
        if not all(self.log.settled(id, self.limits.attempts) for id in jobs):
            _run(self._ask(jobs))

    async def _ask(self, jobs: dict[str, Job]) -> None:
        import openai
        async with openai.AsyncOpenAI(**self.endpoint.credentials(), max_retries=0, timeout=self.limits.timeout) as client:
            async def call(job: Job) -> Received:
                limit = self.limit_field
                try:
                    return await _send(client, self.endpoint, job, limit, self.limits.timeout)
                except Fault as fault:
                    if not wants_new_limit(limit, fault):
                        raise
                self.limit_field = NEW_LIMIT
                return await _send(client, self.endpoint, job, self.limit_field, self.limits.timeout)
            await Runner(call, self.log, self.limits, self.price, self.name).run(jobs)


def wants_new_limit(limit: str, fault: Fault) -> bool:
    """Whether a server refused `max_tokens` and names the field that it takes (OpenAI's reasoning models do)."""
    return limit == _LIMIT and fault.status == "400" and NEW_LIMIT in fault.message


def require_client() -> None:
    """Check that the openai client is installed, and keep its transport from logging each request with its address."""
    require("openai", "teacher")
    logging.getLogger("httpx2").setLevel(logging.WARNING)


def _run(work: Coroutine[Any, Any, None]) -> None:
    """asyncio.run, also where a loop runs already (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
        return
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


async def _send(client: Any, endpoint: Endpoint, job: Job, limit: str, timeout: float) -> Received:
    """One request; raises Fault."""
    import httpx2
    import openai
    try:
        async with asyncio.timeout(timeout):                # the client's own timeout begins anew with each byte
            raw = await client.chat.completions.with_raw_response.create(**endpoint.body(job, limit))
    except (TimeoutError, openai.APITimeoutError) as error:
        raise Fault("timeout", f"no answer in {timeout:g} s", billed=True) from error
    except openai.APIStatusError as error:
        raise status_fault(endpoint, error.status_code, error.body, error.response.headers) from error
    except openai.APIConnectionError as error:
        reached = not isinstance(error.__cause__, httpx2.ConnectError)
        raise Fault("connection", type(error.__cause__ or error).__name__, billed=reached) from error
    return read_completion(raw.content)


def require_address(url: str) -> None:
    """Raise ConfigError for what cannot be an endpoint's address."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:                                      # a port that is no number, a bracket that is not closed
        good = False
    if not good:
        raise ConfigError(f"{url!r} is no address of an endpoint, such as https://api.openai.com/v1")


def status_fault(endpoint: Endpoint, status: int, body: Any, headers: Any) -> Fault:
    """What an HTTP status says. Only 2xx is taken as charged."""
    error = body if isinstance(body, dict) else {}
    error = error["error"] if isinstance(error.get("error"), dict) else error
    message = endpoint.clean(str(error.get("message") or body or "no message"))
    if status in _RUN_STATUSES or error.get("code") in _RUN_CODES:
        return Fault(str(status), message, "run")
    if status in _RETRY_STATUSES or status >= 500:
        return Fault(str(status), message, retry_after=_retry_after(headers) if status in (429, 503) else 0.0)
    return Fault(str(status), message, "job")


def _retry_after(headers: Any) -> float:
    """Seconds of a Retry-After header, which may also be a date; 0 where there is none."""
    value = str(headers.get("retry-after") or "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return 0.0
    return min(max(seconds, 0.0), _LONGEST_PAUSE) if seconds == seconds else 0.0


def read_completion(content: bytes | dict[str, Any]) -> Received:
    """A chat completion's body; of several choices the first is taken, and usage only where it makes sense.

    Raises:
        Fault: not whole JSON, no choice, no text.
    """
    try:
        body = orjson.loads(content) if isinstance(content, bytes) else content
    except orjson.JSONDecodeError as error:
        if content.lstrip()[:1] in (b"{", b""):
            raise Fault("unreadable", "the answer is no whole JSON", billed=True) from error
        body = None                                         # a page of HTML
    if not isinstance(body, dict) or "choices" not in body:
        raise Fault("no completion", "the answer is no chat completion; the address must be that of an API, such as …/v1", billed=True)
    usage, response = _usage(body.get("usage")), str(body.get("id") or "")
    try:
        choice = body["choices"][0]
        text, finish = choice["message"].get("content"), str(choice.get("finish_reason") or "stop")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise Fault("no choice", "the answer holds no choice with a message", billed=True, usage=usage, response=response) from error
    if not isinstance(text, str) or not text.strip():
        again = "call" if finish == "stop" else "job"       # cut off or filtered: it would be so again
        raise Fault("empty", f"the answer has no text (finish {finish[:40]})", again, True, usage, response=response)
    return Received(text, finish, usage, response)


def _usage(value: Any) -> dict[str, int]:
    """prompt_tokens, completion_tokens (and cached_tokens), or nothing where they are missing or impossible."""
    if not isinstance(value, dict):
        return {}
    details = value.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    prompt, completion, cached = value.get("prompt_tokens"), value.get("completion_tokens"), cached or 0
    if not all(type(n) is int and n >= 0 for n in (prompt, completion, cached)) or cached > prompt:
        return {}
    return {"prompt_tokens": prompt, "completion_tokens": completion} | ({"cached_tokens": cached} if cached else {})
