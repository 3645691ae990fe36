"""How a stage asks its teacher: prompts with strict placeholders, the teacher itself, and what asking would take.

Knows no task. A local model is handed over as a function (zhtune/models/engine.py); endpoints are opened here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar
from urllib.parse import urlsplit

from zhtune.config import StageConfig
from zhtune.errors import ConfigError
from zhtune.references import Source
from zhtune.synthesis.teachers.batch import OpenAIBatchTeacher
from zhtune.synthesis.teachers.joblog import JobLog, Outcome
from zhtune.synthesis.teachers.limits import Limits
from zhtune.synthesis.teachers.openai_teacher import Endpoint, OpenAITeacher, require_address
from zhtune.synthesis.teachers.prices import FREE, Price, read_price
from zhtune.synthesis.teachers.teacher import Generate, Job, LocalTeacher, Rehearsal, Teacher, expected_tokens, reserve

_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")
_LOG = Path("logs") / "teacher.jsonl"


@dataclass(frozen=True)
class Prompt:
    """A prompt with strict placeholders, written {{name}}."""

    text: str
    sha256: str

    @classmethod
    def read(cls, folder: Path, name: str, placeholders: tuple[str, ...]) -> Prompt:
        """NAME.txt of a folder, shipped or the user's own.

        Raises:
            ConfigError: the file cannot be read, or its placeholders are not exactly these.
        """
        path = folder / f"{name}.txt"
        try:
            text = path.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the prompt {path} cannot be read: {error}") from error
        if set(_PLACEHOLDER.findall(text)) != set(placeholders):
            wanted = ", ".join("{{" + placeholder + "}}" for placeholder in placeholders)
            raise ConfigError(f"{path} must have the placeholders {wanted} and no other")
        return cls(text, hashlib.sha256(text.encode()).hexdigest())

    def fill(self, **values: str | int) -> list[dict[str, str]]:
        """The messages of a request; a value that holds {{…}} stays as it is."""
        return [{"role": "user", "content": _PLACEHOLDER.sub(lambda match: str(values[match[1]]), self.text)}]


@dataclass(frozen=True)
class Asking:
    """How the teacher is asked."""

    teacher: Teacher
    max_tokens: int
    temperature: float
    seed: int

    def ask(self, requests: list[tuple[str, list[dict[str, str]]]]) -> list[Outcome]:
        """Outcomes of `(key, messages)` requests, in order."""
        return self.teacher.ask([Job(messages, self.max_tokens, self.temperature, self.seed, key) for key, messages in requests])

    def provenance(self, prompt: Prompt, outcome: Outcome) -> dict[str, Any]:
        """Who was asked what, and what the call took; several records may share one call."""
        return {"teacher": self.teacher.name, "prompt": prompt.sha256, "job": outcome.job_id, "seed": self.seed, "usage": outcome.usage,
                "cost": str(outcome.cost)}


@dataclass(frozen=True, kw_only=True)
class TeacherConfig(StageConfig):
    """What every stage with a teacher knows of it, besides its own field `teacher`."""

    neutral: ClassVar[tuple[str, ...]] = ("limits", "key_variable", "dry_run")

    teacher_model: str = ""
    """The model's name at the endpoint"""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable with the endpoint's key; where it is not set, none is sent to an endpoint on this machine"""
    template: str = ""
    """Chat template for a local teacher that has none, such as chatml"""
    prices: str = ""
    """YAML price table, to count costs"""
    max_tokens: int = 3072
    """Longest reply in tokens"""
    temperature: float = 0.8
    """Of the teacher"""
    batch_api: bool = False
    """Ask through the endpoint's batch API: cheaper, each round of requests answered within a day; may be stopped and run again"""
    dry_run: bool = False
    """Say how many calls, tokens and costs the teacher would take; send and write nothing"""
    limits: Limits = field(default_factory=Limits)
    """Rates, attempts and caps of an endpoint"""

    def check_teacher(self, teacher: str) -> None:
        """Raise ConfigError for flags that name no teacher, or one with its key in the address."""
        if self.max_tokens < 1 or self.temperature < 0:
            raise ConfigError("--max_tokens must be at least 1 and --temperature at least 0")
        if not teacher.startswith(("http://", "https://")):
            if self.batch_api:
                raise ConfigError("--batch_api is for an endpoint; --teacher is none")
            return
        require_address(teacher)
        address = urlsplit(teacher)
        if not self.teacher_model:
            raise ConfigError("--teacher is an endpoint; give the model's name there as --teacher_model")
        if self.template:
            raise ConfigError("an endpoint has its own chat template; leave out --template")
        if address.username or address.password or address.query:
            raise ConfigError("--teacher must hold no key; export it in the environment variable that --key_variable names")


@contextmanager
def open_teacher(sources: dict[str, Source], folder: Path, config: TeacherConfig,
                 local: Callable[[Source, int, str], AbstractContextManager[Generate]]) -> Iterator[tuple[Teacher, JobLog]]:
    """The teacher and its log, logs/teacher.jsonl of a folder.

    Args:
        sources: "teacher", and "prices" where costs are counted.
        folder: of the unfinished artifact.
        config: how it is asked.
        local: opens a model of this machine as a function: (source, threads, chat template).

    Raises:
        ConfigError: no key, no price of the model, a cap on the cost without prices.
    """
    source, model = sources["teacher"], config.teacher_model
    (folder / _LOG).parent.mkdir(exist_ok=True)
    with JobLog(folder / _LOG) as log:
        if source.kind == "endpoint":
            kind = OpenAIBatchTeacher if config.batch_api else OpenAITeacher
            endpoint = Endpoint(model=model, api_key_env=config.key_variable, base_url=source.reference)
            yield kind(endpoint, log, config.limits, _price(sources, model)), log
            return
        with local(source, config.workers, config.template) as generate:
            yield LocalTeacher(_name(source, model), generate, log), log


def rehearse(sources: dict[str, Source], model: str) -> Rehearsal:
    """A teacher of the same name that is sent nothing."""
    return Rehearsal(_name(sources["teacher"], model))


def forecast(rehearsal: Rehearsal, replies: int, sources: dict[str, Source], config: TeacherConfig, note: str) -> str:
    """What the jobs of a rehearsal would take, in words.

    Args:
        rehearsal: that was asked everything.
        replies: tokens that all replies are expected to have.
        sources: "prices" among them, where costs are counted.
        config: what an interrupted run left in the log of its `out` is paid for.
        note: what may change the number of calls.
    """
    price, log_at = _price(sources, config.teacher_model), Path(config.out).with_name(f"{Path(config.out).name}.partial") / _LOG
    price = price.batched() if config.batch_api else price
    with TemporaryDirectory() as empty, JobLog(log_at if log_at.exists() else Path(empty) / "log") as log:
        rest = [job for id, job in rehearsal.jobs.items() if log.state(id).answer is None]
    jobs, calls, prompts = len(rehearsal.jobs), len(rest), sum(expected_tokens(job.messages) for job in rest)
    replies = round(replies * calls / max(jobs, 1))
    most = [reserve(job, price) for job in rest]
    cost = price.cost({"prompt_tokens": prompts, "completion_tokens": replies})
    told = f"about {cost:.4f}, at most {sum(cost for _, cost in most):.4f}" if "prices" in sources else "not counted; give --prices"
    return "\n".join([f"{rehearsal.name}: nothing was sent, nothing is written",
                      f"calls   {calls:,}, besides {jobs - calls:,} that the log answers; {note}",
                      f"tokens  about {prompts:,} of prompts and {replies:,} of replies, at most {sum(tokens for tokens, _ in most):,} in all",
                      f"cost    {told}"])


def _name(source: Source, model: str) -> str:
    if source.kind == "endpoint":
        return model
    return f"{source.path.name if source.path else source.reference}@{source.digest[:12]}"


def _price(sources: dict[str, Source], model: str) -> Price:
    return read_price(sources["prices"].path, model) if "prices" in sources else FREE
