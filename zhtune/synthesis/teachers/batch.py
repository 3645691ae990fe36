"""The batch API as a teacher: the same jobs, ids and log, answered within a day at a lower price.

    request file → log `sent` of all its jobs → upload → create → log its id → poll → log every answer → log `merged`

A kill between any two steps repeats none that costs: a batch whose id is in the log is polled again; one that was created
just before the kill is found on the server by its digest, which it carries as metadata.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import orjson

from zhtune.log import logger
from zhtune.records import dumps
from zhtune.synthesis.teachers.joblog import Fault, JobLog, Received
from zhtune.synthesis.teachers.limits import Limits
from zhtune.synthesis.teachers.openai_teacher import NEW_LIMIT, Endpoint, OpenAITeacher, read_completion, status_fault, wants_new_limit
from zhtune.synthesis.teachers.prices import FREE, Price
from zhtune.synthesis.teachers.teacher import Job, TeacherStopped, reserve

_REQUESTS, _BYTES = 50_000, 150_000_000                     # of one file; OpenAI's limits are 50,000 and 200 MB
_OVER = ("completed", "failed", "expired", "cancelled")
_LISTED = 1000                                              # latest batches among which a lost one is looked for
_READ_RETRIES = 5


class OpenAIBatchTeacher(OpenAITeacher):
    """Answers jobs through the batch API of an OpenAI-compatible endpoint.

    Args:
        endpoint: model, address and name of the key's variable.
        log: where every call is kept.
        limits: attempts, caps and how often it is looked at; rates are the server's here.
        price: of a call that is not batched; its `batch` share is what is counted.
        sleep: waits so long.

    Raises:
        ConfigError: the variable is not set, or a cap on the cost without a price.
        MissingDependency: the openai client is not installed.
    """

    def __init__(self, endpoint: Endpoint, log: JobLog, limits: Limits | None = None, price: Price = FREE,
                 sleep: Callable[[float], None] = time.sleep):
        super().__init__(endpoint, log, limits, price)
        self.price, self._sleep = price.batched(), sleep

    def _settle(self, jobs: dict[str, Job]) -> None:
        """Send batches until each job is answered or given up; waits until every batch is over."""
        import openai
        try:
            with openai.OpenAI(**self.endpoint.credentials(), max_retries=_READ_RETRIES, timeout=self.limits.timeout) as client:
                self._resume(client)
                while todo := {id: job for id, job in jobs.items() if not self.log.settled(id, self.limits.attempts)}:
                    self._finish(client, self._send(client, self._affordable(todo)))
        except openai.APIStatusError as error:
            raise self._stopped(f"{error.status_code}: {self.endpoint.clean(error.message)}") from error
        except openai.APIError as error:
            raise self._stopped(type(error).__name__) from error

    def _resume(self, client: Any) -> None:
        """Finish the batches of earlier runs, whatever jobs they hold: they are paid for."""
        for digest, batch in list(self.log.batches.items()):
            if batch.state == "merged":
                continue
            if batch.state == "written":
                found = [b for b in itertools.islice(client.batches.list(limit=100), _LISTED) if (b.metadata or {}).get("zhtune") == digest]
                if not found:
                    self._fail_open(digest, "unsent", "the run died before the batch was created", billed=False)
                    self.log.batch(digest, "merged")
                    continue
                self.log.batch(digest, "sent", found[0].id)
            self._finish(client, digest)

    def _affordable(self, todo: dict[str, Job]) -> dict[str, tuple[bytes, int, Decimal]]:
        """As many jobs as one file and the caps allow: id -> its request line, most tokens, most cost."""
        part: dict[str, tuple[bytes, int, Decimal]] = {}
        size, (tokens, cost), cap = 0, self.log.reach, ""
        for id, job in todo.items():
            most_tokens, most_cost = reserve(job, self.price)
            tokens, cost = tokens + most_tokens, cost + most_cost
            body = self.endpoint.body(job, self.limit_field)
            line = dumps({"custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": body}) + b"\n"
            size += len(line)
            cap = self.limits.affords(tokens, cost)
            if cap or len(part) == _REQUESTS or (part and size > _BYTES):
                break
            part[id] = (line, most_tokens, most_cost)
        if not part:
            raise self._stopped(f"{cap} allows no further call: raise it")
        return part

    def _send(self, client: Any, part: dict[str, tuple[bytes, int, Decimal]]) -> str:
        """Create one batch; returns its digest."""
        content = b"".join(line for line, _, _ in part.values())
        digest = hashlib.sha256(content + str(len(self.log.batches)).encode()).hexdigest()   # a second try is another batch
        path = self.log.path.with_name(f"{self.log.path.stem}.batch-{digest[:12]}.jsonl")
        path.write_bytes(content)
        self.log.sent([(id, tokens, cost) for id, (_, tokens, cost) in part.items()], digest)
        with open(path, "rb") as file:
            uploaded = client.files.create(file=file, purpose="batch")
        batch = client.with_options(max_retries=0).batches.create(        # a repeated creation would be paid twice
            input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"zhtune": digest})
        self.log.batch(digest, "sent", batch.id)
        logger.info("batch %s with %d jobs is under way; this may be stopped and run again at any time", batch.id, len(part))
        return digest

    def _finish(self, client: Any, digest: str) -> None:
        """Wait for a batch and merge what it brings."""
        entry = self.log.batches[digest]
        batch = client.batches.retrieve(entry.id)
        while batch.status not in _OVER:
            self._sleep(self.limits.poll)
            batch = client.batches.retrieve(entry.id)
        heard = [entry.heard,                               # by a run that died while it merged
                 *(self._merge(digest, client.files.content(file).content) for file in (batch.output_file_id, batch.error_file_id) if file)]
        self._fail_open(digest, "missing", f"the batch is {batch.status} without an answer to this job", billed=batch.status == "completed")
        self.log.batch(digest, "merged", entry.id)
        if not any(heard):
            told = [str(error.message) for error in (batch.errors.data if batch.errors else None) or []]
            reason = f"batch {entry.id} is {batch.status} and answered nothing" + (f": {self.endpoint.clean(told[0])}" if told else "")
            self.log.stopped(reason)
            raise self._stopped(reason)

    def _merge(self, digest: str, content: bytes) -> bool:
        """Note the answers of an output or error file; of two lines for a job the first counts. Says whether any job was dealt with."""
        batch, answers, failures = self.log.batches[digest], {}, {}
        for id, line in _lines(content):
            if id not in batch.open or id in answers or id in failures:
                continue
            try:
                answers[id] = self._read(line)
            except Fault as fault:
                failures[id] = fault
        self.log.answer([(id, batch.open[id], received) for id, received in answers.items()], self.price, batch=digest)
        for id, fault in failures.items():
            again = replace(fault, reach="call") if wants_new_limit(self.limit_field, fault) else fault
            self.log.fail(id, batch.open[id], again, self.price, batch=digest)
        self.limit_field = next((NEW_LIMIT for fault in failures.values() if wants_new_limit(self.limit_field, fault)), self.limit_field)
        return bool(answers) or any(fault.billed or fault.reach == "job" for fault in failures.values())

    def _read(self, line: dict[str, Any]) -> Received:
        response = line.get("response") or {}
        status, body = response.get("status_code", 0), response.get("body") or {}
        if status == 200:
            return read_completion(body)
        if status:
            raise status_fault(self.endpoint, status, body, {})
        error = line.get("error") or {}
        raise Fault("batch", self.endpoint.clean(str(error.get("message") or error.get("code") or "no response")))

    def _fail_open(self, digest: str, status: str, message: str, billed: bool) -> None:
        for id, attempt in list(self.log.batches[digest].open.items()):
            self.log.fail(id, attempt, Fault(status, message, billed=billed), self.price, batch=digest)

    def _stopped(self, reason: str) -> TeacherStopped:
        return TeacherStopped(f"{reason}; {self.log.ledger.answered_jobs:,} jobs are answered in {self.log.path} and will not be sent again: "
                              "run the same command to go on")


def _lines(content: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Job id and object of each readable line; a cut line's job is found missing later."""
    for line in content.split(b"\n"):
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(value, dict):
            yield str(value.get("custom_id")), value
