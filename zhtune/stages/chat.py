"""Talk to a model in the terminal, or pipe questions through it. Writes nothing but the answers.

At a terminal: /new begins a new conversation, /adapter off answers without the adapter and /adapter on with it again, /quit
or Ctrl-D ends, Ctrl-C stops the answer. From a pipe: one question a line, one conversation, and nothing on stdout but the
answers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TextIO

from zhtune import references
from zhtune.config import Checked
from zhtune.errors import ConfigError, DataError
from zhtune.log import logger
from zhtune.models.engine import Conversation, Engine, Reply, Sampling
from zhtune.models.open import open_engine

_CONTROL = dict.fromkeys([c for c in (*range(0x20), *range(0x7F, 0xA0)) if c not in b"\n\t"])    # escape sequences move cursors


@dataclass(frozen=True, kw_only=True)
class ChatConfig(Checked):
    """Chat with a model, adapter, quantized artifact, .gguf file or endpoint in the terminal."""

    model: str
    """What answers"""
    system: str = ""
    """System message that every conversation begins with"""
    temperature: float = 0.0
    """0 always takes the likeliest token; higher values vary the answers"""
    max_tokens: int = 256
    """Most tokens of an answer"""
    seed: int = 0
    """Seed of the sampling"""
    prompt: str = ""
    """Answer this one question and end"""
    template: str = ""
    """Chat template for a model that has none, such as chatml"""
    apart: bool = False
    """Do not merge a LoRA, so that /adapter off can leave it out (slower; other adapters always can be)"""

    def check(self) -> None:
        if self.max_tokens < 1 or not 0 <= self.temperature <= 2:
            raise ConfigError("--max_tokens must be at least 1, --temperature from 0 to 2")


def chat(config: ChatConfig) -> None:
    """Chat until the input ends.

    Raises:
        ConfigError: the reference names nothing that answers.
        DataError: a question that the model cannot take, or input that is not UTF-8.
    """
    with closing(open_engine(references.resolve(config.model), template=config.template, apart=config.apart)) as engine:
        talk = Talk(engine, config.system, Sampling(config.max_tokens, config.temperature, seed=config.seed))
        try:
            if config.prompt:
                answer(talk, config.prompt, sys.stdout)
            elif sys.stdin.isatty():
                at_terminal(talk, sys.stdout)
            else:
                through_pipe(talk, sys.stdin.buffer, sys.stdout)
        except BrokenPipeError:                             # the reader (head, say) has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Talk:
    """One conversation with an engine, turn by turn.

    Args:
        engine: whatever answers.
        system: the system message; empty for none.
        sampling: of every answer.
    """

    def __init__(self, engine: Engine, system: str, sampling: Sampling):
        self._engine, self.sampling = engine, sampling
        self._system: Conversation = [{"role": "system", "content": system}] if system else []
        self.turns: Conversation = []
        self.finish = ""
        """How the last answer ended: "stop", "length", or "" where it was interrupted"""

    def ask(self, question: str) -> Iterator[str]:
        """Yield the answer in pieces. What was said of it stays in the conversation, also when it is interrupted."""
        self.turns.append({"role": "user", "content": question})
        self.finish, said = "", ""
        try:
            for item in self._fitting():
                if isinstance(item, Reply):
                    self.finish = item.finish
                else:
                    said += item
                    yield item
        finally:
            if said:
                self.turns.append({"role": "assistant", "content": said})
            else:
                self.turns.pop()

    def obey(self, line: str) -> bool:
        """Do what /new, /adapter on and /adapter off say; whether the line was one of them."""
        if line == "/new":
            self.turns.clear()
        elif line in ("/adapter on", "/adapter off"):
            self.sampling = replace(self.sampling, adapter=line == "/adapter on")
        else:
            return False
        return True

    def _fitting(self) -> Iterator[str | Reply]:
        """The engine's stream; where it refuses the conversation (too long for the context), the oldest turns are forgotten."""
        for oldest in range(0, len(self.turns), 2):
            stream = self._engine.stream([*self._system, *self.turns[oldest:]], self.sampling)
            try:
                first = next(stream)
            except DataError:
                if oldest + 1 == len(self.turns):           # the question alone does not fit
                    raise
                continue
            if oldest:
                logger.info("the conversation is too long for the model; its oldest %d turns are forgotten", oldest // 2)
                del self.turns[:oldest]
            yield first
            yield from stream
            return


def answer(talk: Talk, question: str, out: TextIO) -> None:
    """Write one answer as it comes, and end the line, also when it is interrupted; a terminal is sent no control characters."""
    hidden = _CONTROL if out.isatty() else {}
    with closing(talk.ask(question)) as pieces:
        try:
            for piece in pieces:
                out.write(piece.translate(hidden))
                out.flush()
        finally:
            out.write("\n")
            out.flush()


def through_pipe(talk: Talk, lines: Iterable[bytes], out: TextIO) -> None:
    """Answer one question a line; blank lines are skipped, /new, /adapter and /quit mean what they mean at a terminal.

    Raises:
        DataError: a line is not UTF-8, or the model cannot take it.
    """
    for number, line in enumerate(lines, 1):
        try:
            question = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise DataError("not UTF-8 text; convert it first, such as with: iconv -f gb18030 -t utf-8", "stdin", number) from error
        if question == "/quit":
            return
        if question and not talk.obey(question):
            answer(talk, question, out)


def at_terminal(talk: Talk, out: TextIO) -> None:
    """Ask and answer until /quit or Ctrl-D."""
    import readline  # noqa: F401                           # input() edits the line and remembers earlier ones
    print("/new begins a new conversation, /adapter off answers without the adapter, Ctrl-C stops an answer, /quit or Ctrl-D ends", file=sys.stderr)
    while True:
        try:
            question = input("> ").strip()
        except KeyboardInterrupt:
            out.write("\n")
            continue
        except EOFError:
            out.write("\n")
            return
        if question == "/quit":
            return
        if question and not talk.obey(question):
            _answer_or_say(talk, question, out)


def _answer_or_say(talk: Talk, question: str, out: TextIO) -> None:
    """Answer; what goes wrong with one question does not end the conversation."""
    try:
        answer(talk, question, out)
    except KeyboardInterrupt:
        print("[stopped]", file=sys.stderr)
    except (DataError, ConfigError) as error:
        if isinstance(error, ConfigError):                  # a model without an adapter has refused to do without
            talk.obey("/adapter on")
        print(f"zhtune: {error}", file=sys.stderr)
    else:
        if talk.finish == "length":
            print(f"[cut at {talk.sampling.max_tokens} tokens or the end of the context; see --max_tokens]", file=sys.stderr)
