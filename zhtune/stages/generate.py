"""Anything that answers + prompts -> records with the answers, in the order of the prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zhtune.artifact import Artifact
from zhtune.building import Stage, Work, build
from zhtune.config import StageConfig
from zhtune.errors import ConfigError, DataError
from zhtune.models.engine import Engine, Reply, Sampling
from zhtune.models.open import open_engine
from zhtune.records import check_messages, read_jsonl, write_jsonl
from zhtune.references import MODEL_KINDS, Source
from zhtune.synthesis.teachers.joblog import JobLog, Outcome
from zhtune.synthesis.teachers.replies import part_thinking
from zhtune.synthesis.teachers.teacher import Job, LocalTeacher
from zhtune.templates.encode import with_tools

STAGE = Stage("generate", version=1, kind="records",
              inputs={"model": MODEL_KINDS, "prompts": ("records", "file"), "adapters": ("adapter",)})


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(StageConfig):
    """Answer prompts with a model, adapter, quantized artifact, .gguf file or endpoint (http://HOST/v1#MODEL)."""

    model: str
    """What answers"""
    prompts: str
    """Records (their last answer is left out), JSON Lines of {"messages"} or {"prompt"} or {"instruction", "input"}, or .txt: a prompt a line"""
    adapters: list[str] = field(default_factory=list)
    """Adapters on the model, kept apart: a prompt's field `adapter` names the one (its folder) that answers, without it the model"""
    max_tokens: int = 512
    """Most tokens of an answer"""
    temperature: float = 0.0
    """0 always takes the likeliest token; higher values vary the answers"""
    without_adapter: bool = False
    """Answer as the model under the adapter that --model names; a prompt's field `adapter`, true or false, goes before it"""
    top_p: float = 1.0
    """Only the likeliest tokens that have this share of the probability together are drawn from"""
    stop: list[str] = field(default_factory=list)
    """Strings before which an answer ends"""
    batch: int = 32
    """Prompts of similar length that are given to the engine, and logged, together"""
    template: str = ""
    """Chat template for a model that has none, such as chatml"""

    def check(self) -> None:
        if self.max_tokens < 1 or self.batch < 1 or not 0 <= self.temperature <= 2 or not 0 < self.top_p <= 1:
            raise ConfigError("--max_tokens and --batch must be at least 1, --temperature from 0 to 2, --top_p above 0 to 1")
        if "" in self.stop:
            raise ConfigError("--stop holds an empty string")
        if len({Path(adapter).name for adapter in self.adapters}) < len(self.adapters):
            raise ConfigError("--adapters: two folders have the same name; prompts name adapters by their folders")


@dataclass(frozen=True)
class Prompt:
    """One conversation to be answered."""

    id: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    adapter: str | bool
    """Name of the one of --adapters that answers; True for the model as it is, False for the model under its own adapter"""


def generate(config: GenerateConfig) -> Artifact:
    """Write records.jsonl; a killed run goes on from its log and ends with the same bytes.

    Raises:
        ConfigError: the reference names nothing that answers, or not in this way.
        DataError: no prompt is left.
    """
    return build(STAGE, config, lambda work: _write(work, config), resumable=True)


def _write(work: Work, config: GenerateConfig) -> None:
    source: Source = work.sources["model"]
    adapters = {adapter.path.name: adapter for adapter in work.given("adapters")}
    prompts = list(_read(work, adapters, not config.without_adapter))
    (work.path / "logs").mkdir(exist_ok=True)
    with JobLog(work.path / "logs" / "answers.jsonl") as log, closing(
            open_engine(source, config.workers, config.template, adapters, any(p.adapter is False for p in prompts))) as engine:
        prompts = [prompt for prompt in prompts if _fits(work, engine, prompt)]
        if not prompts:
            raise DataError(f"no prompt is left: {dict(work.dropped) or 'the file is empty'}", work.sources["prompts"].path)
        answers = {}
        for adapter in sorted({prompt.adapter for prompt in prompts}, key=str):
            chosen = [prompt for prompt in prompts if prompt.adapter == adapter]
            answers |= _answers(chosen, engine, log, config, adapter)
    name = f"{source.path.name}@{source.digest[:12]}" if source.path else source.reference.rpartition("#")[2]
    work.kept = write_jsonl(work.path / "records.jsonl", (_record(prompt, answers[prompt.id], name) for prompt in prompts))
    ends = Counter(outcome.finish for outcome in answers.values())
    work.metrics |= {"answers": len(answers), "empty": sum(not o.text for o in answers.values()), **dict(sorted(ends.items())),
                     "completion_tokens": sum(o.usage.get("completion_tokens", 0) for o in answers.values())}


def _answers(prompts: list[Prompt], engine: Engine, log: JobLog, config: GenerateConfig, adapter: str | bool) -> dict[str, Outcome]:
    """Outcomes by prompt, from the log where it has them. Batches are of similar length, and the same after a kill."""
    def ask(conversations: list[Any], max_tokens: int, temperature: float, seed: int) -> list[Reply]:
        return engine.generate(conversations, Sampling(max_tokens, temperature, config.top_p, seed, tuple(config.stop),
                                                       adapter if isinstance(adapter, str) else "", adapter is not False))
    ordered = sorted(prompts, key=lambda prompt: sum(len(m["content"]) for m in prompt.messages))
    jobs = [Job(with_tools(p.messages, p.tools), config.max_tokens, config.temperature, config.seed, p.id) for p in ordered]
    name = f"generate {adapter}" if isinstance(adapter, str) else "generate" if adapter else "generate /without"   # no folder's name
    outcomes = LocalTeacher(name, ask, log, config.batch).ask(jobs)
    return {prompt.id: outcome for prompt, outcome in zip(ordered, outcomes, strict=True)}


def _record(prompt: Prompt, outcome: Outcome, name: str) -> dict[str, Any]:
    thinking, text = part_thinking(outcome.text)
    answer = {"role": "assistant", "content": text, **({"reasoning": thinking} if thinking else {})}
    source = {"model": name, **({} if prompt.adapter is True else {"adapter": prompt.adapter}), "finish": outcome.finish}
    return {"id": prompt.id, "messages": [*prompt.messages, answer], **({"tools": prompt.tools} if prompt.tools else {}), "source": source}


def _fits(work: Work, engine: Engine, prompt: Prompt) -> bool:
    try:
        engine.check(with_tools(prompt.messages, prompt.tools))
    except DataError as error:
        work.drop("refused", id=prompt.id, why=str(error))
        return False
    return True


def _read(work: Work, adapters: dict[str, Source], own: bool) -> Iterator[Prompt]:
    """The prompts of a file. Dropped by name: no_question (nothing to answer)."""
    file = work.sources["prompts"].file("records.jsonl")
    taken: set[str] = set()
    for number, row in _lines(file) if file.suffix == ".txt" else read_jsonl(file):
        work.counted_in += 1
        messages = _messages(row, file, number)
        while messages and messages[-1]["role"] == "assistant":
            messages = messages[:-1]
        name = str(row.get("id", number))
        adapter = own if row.get("adapter") in (None, "") else row["adapter"]
        if name in taken:
            raise DataError(f"a second prompt has the id {name!r}", file, number)
        if not isinstance(adapter, bool) and adapter not in [*adapters]:
            raise DataError(f"no adapter {adapter!r}; --adapters has: {', '.join(adapters) or 'none'}", file, number)
        taken.add(name)
        if messages:
            yield Prompt(name, messages, row.get("tools"), adapter)
        else:
            work.drop("no_question", id=name)


def _lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with open(file, encoding="utf-8-sig", newline="\n") as opened:
            for number, line in enumerate(opened, 1):
                if line.strip():
                    yield number, {"prompt": line.strip()}
    except UnicodeDecodeError as error:
        raise DataError("is not UTF-8 text", file) from error


def _messages(row: dict[str, Any], file: Path, number: int) -> list[dict[str, Any]]:
    prompt = row.get("prompt", row.get("instruction"))
    if "messages" in row or isinstance(prompt, list):
        key = "messages" if "messages" in row else "prompt"
        return check_messages(row[key], file, number, key)
    if not isinstance(prompt, str):
        raise DataError('expected "messages", "prompt" or "instruction", found ' + (", ".join(row) or "nothing"), file, number)
    more = row.get("input") if "prompt" not in row else None
    parts = [str(part) for part in (prompt, more) if part and str(part).strip()]
    return [{"role": "user", "content": "\n".join(parts)}] if parts else []
