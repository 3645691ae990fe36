"""The engine over llama.cpp: a GGUF file, answered in this process by xllamacpp, many conversations at a time.

Prompts are token ids from the one encoder where tokenizer.json lies beside the file, so they equal training's; a bare
.gguf is asked through the chat template and the tokenizer inside it. llama.cpp holds back half characters itself.
"""

from __future__ import annotations

import http.client
import json
import os
import queue
import secrets
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from zhtune.errors import ConfigError, DataError, ZhtuneError, require
from zhtune.log import logger, progress
from zhtune.models.engine import Conversation, Reply, Sampling, refuse_bare, until_stop
from zhtune.references import Source
from zhtune.templates.encode import ChatEncoder

MODEL_FILE = "model.gguf"
# From so many bits a weight on, llama.cpp's sums depend on who else is in the batch, hence answers on the clock: with 4 slots 1 of 12
# f16 answers varied over 5 runs, none in 8 or 4 bits. One at a time costs little (2 cores: 8 layers nothing, 30 layers 10 %).
_FLOAT_BITS = 16
# Conversations at a time: 8 answer 1.5 times as fast as 4 on two cores, but each keeps its context's keys and values in memory.
_SMALL, _SLOTS = 1 << 30, (8, 4)                            # bytes of a file up to which there are 8
# The most probable token alone: the other samplers sort the whole vocabulary for each token, a third of a small model's time.
_GREEDY = {"samplers": ["top_k"], "top_k": 1}
_QUIET = -1                                                 # below llama.cpp's own errors; what went wrong is raised


class LlamaCppEngine:
    """Answers with a GGUF file.

    Args:
        source: a quantized artifact, or a .gguf file.
        threads: CPU threads.
        slots: conversations answered at the same time, 0 by the file's size; `generate` asks a file of 16 bits or more one at a time.
        context: most tokens of one conversation, prompt and answer; the model's own limit holds as well.
        template: a chat template's name, for a model that has none.

    Raises:
        ConfigError: the file is missing, cut, or of no model that llama.cpp knows.
    """

    def __init__(self, source: Source, threads: int = 2, slots: int = 0, context: int = 2048, template: str = ""):
        file = _gguf_file(source)
        slots = slots or _SLOTS[file.stat().st_size > _SMALL]
        beside = (file.parent / "tokenizer.json").exists()
        if template and not beside:
            raise ConfigError(f"{source.reference} is asked through the chat template inside it; leave out --template")
        self.name = source.reference
        self.encoder = ChatEncoder(file.parent, template) if beside else None
        self._key = secrets.token_hex(16)
        self._server = _load(file, threads, slots, context, self._key)
        self._send("GET", "/slots")                         # its answer waits for the task loop; closed before that begins, llama.cpp hangs
        self.context: int = self.ask("GET", "/props")["default_generation_settings"]["n_ctx"]
        meta = self.ask("GET", "/v1/models")["data"][0]["meta"]
        self._at_once = 1 if 8 * meta["size"] >= _FLOAT_BITS * meta["n_params"] else slots
        self._bias, self._lead = [], ""
        self._cuts = self.encoder is not None and self.encoder.leads    # llama.cpp would look for stop strings in what is no content, too
        if self.encoder is not None:
            self._bias = [[i, False] for i in self.encoder.unused(meta["n_vocab"])]   # padded rows are no tokens
            self._lead = " " if self.encoder.spaced else ""     # what llama.cpp leaves before an answer and tokenizer.json's decoder takes away

    def generate(self, conversations: list[Conversation], sampling: Sampling) -> list[Reply]:
        """Answer many conversations; the answers come in the order of the conversations.

        Raises:
            DataError: a prompt leaves no room in the context.
        """
        requests = [self._request(messages, sampling) for messages in conversations]
        with ThreadPoolExecutor(self._at_once) as pool:
            return list(progress(pool.map(lambda request: self._answer(request, sampling.stop), requests), "generate", len(requests)))

    def stream(self, messages: Conversation, sampling: Sampling) -> Iterator[str | Reply]:
        """Yield pieces of one answer as whole characters, last the Reply. Closing it ends the generation."""
        request = {**self._request(messages, sampling), "stream": True, "stream_options": {"include_usage": True}}
        stops = sampling.stop if self._cuts else ()
        raw, text, held, finish, usage, tokens = "", "", "", "length", {}, 0
        for chunk in _chunks(self._call, request):
            usage = chunk.get("usage") or usage
            for choice in chunk["choices"]:
                finish, tokens = choice["finish_reason"] or finish, tokens + 1
                raw += _text(choice)
                shown, held, stopped = until_stop(self._content(raw), stops)
                if piece := shown[len(text):]:
                    text += piece
                    yield piece
                if stopped:
                    yield Reply(text, len(request["prompt"]), tokens, "stop")
                    return
        if held:
            text += held
            yield held
        yield Reply(text, usage["prompt_tokens"], usage["completion_tokens"], finish)

    def check(self, messages: Conversation) -> None:
        """Raise DataError where the conversation leaves no room for an answer."""
        self._request(messages, Sampling())

    def close(self) -> None:
        """Stop llama.cpp and free its memory."""
        self._server = None

    def tokenize(self, text: str, beginning: bool = False) -> list[int]:
        """llama.cpp's own ids of a text, in which control tokens are recognised.

        Args:
            text: any text.
            beginning: whether to put the token of the beginning in front, where the model has one.
        """
        return self.ask("POST", "/tokenize", {"content": text, "parse_special": True, "add_special": beginning})["tokens"]

    def render(self, messages: Conversation) -> str:
        """The prompt that the template inside the file makes, as llama.cpp renders it."""
        return self.ask("POST", "/apply-template", {"messages": messages})["prompt"]

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request to llama.cpp's loopback server, which answers nobody without this engine's key."""
        return _checked(self._send(method, path, body))

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        with closing(http.client.HTTPConnection(self._server.listening_address.removeprefix("http://"))) as connection:
            connection.request(method, path, json.dumps(body) if body else None, {"Authorization": f"Bearer {self._key}"})
            return json.loads(connection.getresponse().read())

    def _request(self, messages: Conversation, sampling: Sampling) -> dict[str, Any]:
        if not sampling.adapter:
            refuse_bare(self.name)
        request = {"max_tokens": sampling.max_tokens, "temperature": sampling.temperature, "top_p": sampling.top_p,
                   "seed": sampling.seed, "stop": [] if self._cuts else list(sampling.stop),
                   "samplers": ["temperature", "top_p"], "top_k": 0, "min_p": 0.0,
                   "repeat_penalty": 1.0, "logit_bias": self._bias, "cache_prompt": False}     # a reused prefix changes the last bits
        if sampling.temperature == 0:
            request |= _GREEDY
        if self.encoder is None:
            return {**request, "messages": messages}
        ids = self.encoder.prompt(messages)
        if len(ids) >= self.context:
            raise DataError(f"the conversation has {len(ids)} tokens, the context is {self.context}; shorten it")
        return {**request, "prompt": ids}

    def _content(self, text: str) -> str:
        """The content of a message in what llama.cpp has generated so far; half a character at its end is dropped."""
        text = text.removeprefix(self._lead)
        return (text if self.encoder is None else self.encoder.content(text)).rstrip("\ufffd")

    def _call(self, request: dict[str, Any], receive: Callable[[dict[str, Any]], bool] | None = None) -> Any:
        if self.encoder is None:
            return self._server.handle_chat_completions(request, receive)
        return self._server.handle_completions(request, receive)

    def _answer(self, request: dict[str, Any], stops: tuple[str, ...]) -> Reply:
        response = _checked(self._call(request))
        choice, usage = response["choices"][0], response["usage"]
        text, held, stopped = until_stop(self._content(_text(choice)), stops)
        return Reply(text + held, usage["prompt_tokens"], usage["completion_tokens"], "stop" if stopped else choice["finish_reason"])


def _gguf_file(source: Source) -> Path:
    path = source.path
    if path is None or not (path.suffix == ".gguf" or (path / MODEL_FILE).exists()):
        raise ConfigError(f"{source.reference} holds no {MODEL_FILE}; give a .gguf file or the output of zhtune quantize")
    file = path if path.suffix == ".gguf" else path / MODEL_FILE
    with open(file, "rb") as opened:
        if opened.read(4) != b"GGUF":
            raise ConfigError(f"{file} is no GGUF file: it does not begin with GGUF")
    return file


def _load(file: Path, threads: int, slots: int, context: int, key: str) -> Any:
    """A running xllamacpp.Server."""
    threads = _calm(threads)
    xllamacpp = require("xllamacpp", "gguf")
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.verbosity = _QUIET
    params.n_parallel, params.n_ctx = slots, slots * context
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.port, params.api_keys = 0, [key]
    params.ui = params.warmup = params.fit_params = False
    params.cache_ram_mib = 0                                # llama.cpp would keep up to 8 GB of old prompts
    try:
        return xllamacpp.Server(params)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"{file} cannot be loaded: it is cut or corrupt, of an architecture that llama.cpp does not know, or too "
                          "large for the memory") from error


def _calm(threads: int) -> int:
    """Threads that do not fight: OpenMP's spin by default, which costs llama.cpp 100x where another job shares the cores.

    The cure is read when OpenMP is loaded. Where torch has loaded it before, one thread is the other cure.
    """
    if "OMP_WAIT_POLICY" in os.environ or "GOMP_SPINCOUNT" in os.environ:
        return threads
    if "torch" in sys.modules and threads > 1:
        logger.info("llama.cpp runs on one thread: set OMP_WAIT_POLICY=PASSIVE before torch is imported to use %d", threads)
        return 1
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    return threads


def _text(choice: dict[str, Any]) -> str:
    """The text in a choice of a completion, a chat completion or a chunk of either."""
    if "text" in choice:
        return choice["text"]
    return (choice.get("message") or choice.get("delta") or {}).get("content") or ""


def _checked(response: dict[str, Any]) -> dict[str, Any]:
    error = response.get("error") or (response if "message" in response and "choices" not in response else None)
    if not error:
        return response
    if error.get("type") == "exceed_context_size_error":
        raise DataError(f"the conversation has {error['n_prompt_tokens']} tokens, the context is {error['n_ctx']}; shorten it")
    raise DataError(f"llama.cpp refuses the request: {error.get('message', error)}")


def _chunks(call: Callable[..., Any], request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a streaming call gives to its callback, as an iterator; closing it cancels the call."""
    arrived: queue.SimpleQueue[dict[str, Any] | Exception | None] = queue.SimpleQueue()
    cancelled = threading.Event()

    def receive(chunk: dict[str, Any]) -> bool:
        arrived.put(chunk)
        return cancelled.is_set()

    def run() -> None:
        try:
            call(request, receive)
        except Exception as error:                          # raised again where the chunks are read
            arrived.put(error)
        finally:
            arrived.put(None)
    worker = threading.Thread(target=run, name="llama.cpp", daemon=True)
    worker.start()
    try:
        while (chunk := arrived.get()) is not None:
            if isinstance(chunk, Exception):
                raise ZhtuneError(f"llama.cpp failed: {chunk}") from chunk
            yield _checked(chunk)
    finally:
        cancelled.set()
        worker.join()
