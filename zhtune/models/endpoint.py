"""The engine over an OpenAI-compatible endpoint, such as llama.cpp's, vLLM's or zhtune serve's.

Its reference is the address, with the model's name there behind #: http://127.0.0.1:8000/v1#qwen3. The key comes from
OPENAI_API_KEY; an endpoint on this machine needs none. Templates and token ids are the endpoint's own. For large paid jobs
with caps on rate and cost there are teachers (synthesis/teachers/openai_teacher.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from zhtune.errors import ConfigError, DataError, ZhtuneError
from zhtune.log import progress
from zhtune.models.engine import Conversation, Reply, Sampling, refuse_bare
from zhtune.references import Source
from zhtune.synthesis.teachers.openai_teacher import Endpoint, require_client

_AT_ONCE, _RETRIES, _SECONDS = 8, 4, 600.0


class EndpointEngine:
    """Answers by asking an endpoint.

    Args:
        source: a resolved URL.

    Raises:
        ConfigError: no key, or the endpoint has several models and none is named.
    """

    def __init__(self, source: Source):
        require_client()
        import openai
        address, _, model = source.reference.partition("#")
        self.name = source.reference
        self._endpoint = Endpoint(model=model, base_url=address)
        self._client = openai.OpenAI(**self._endpoint.credentials(), max_retries=_RETRIES, timeout=_SECONDS)
        self.model = model or self._only_model(address)

    def generate(self, conversations: list[Conversation], sampling: Sampling) -> list[Reply]:
        """Answer many conversations, several at a time; the answers come in their order.

        Raises:
            DataError: the endpoint refuses a conversation.
            ZhtuneError: it cannot be reached, or fails again and again.
        """
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            answers = pool.map(lambda messages: self._answer(messages, sampling), conversations)
            return list(progress(answers, "generate", len(conversations)))

    def stream(self, messages: Conversation, sampling: Sampling) -> Iterator[str | Reply]:
        """Yield pieces of one answer, last the Reply. Closing it ends the generation."""
        import openai
        text, finish, usage = "", "length", None
        with self._ask(messages, sampling, stream=True, stream_options={"include_usage": True}) as chunks:
            try:
                for chunk in chunks:
                    usage = chunk.usage or usage
                    for choice in chunk.choices:
                        finish = choice.finish_reason or finish
                        if choice.delta.content:
                            text += choice.delta.content
                            yield choice.delta.content
            except openai.OpenAIError as error:
                raise ZhtuneError(f"the endpoint broke off: {self._endpoint.clean(str(error))}") from error
        yield _reply(text, finish, usage)

    def check(self, messages: Conversation) -> None:
        """Only the endpoint knows what it can answer."""

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _answer(self, messages: Conversation, sampling: Sampling) -> Reply:
        completion = self._ask(messages, sampling)
        if not completion.choices:
            raise ZhtuneError("the endpoint's answer holds no choice")
        choice = completion.choices[0]
        thinking = getattr(choice.message, "reasoning_content", None)       # not OpenAI's, but many servers'
        text = (f"<think>\n{thinking}\n</think>\n\n" if thinking else "") + (choice.message.content or "")
        return _reply(text, choice.finish_reason, completion.usage)

    def _ask(self, messages: Conversation, sampling: Sampling, **more: Any) -> Any:
        import openai
        if not sampling.adapter:
            refuse_bare(self.name)
        fields = {"stop": list(sampling.stop) or None, "tools": messages[0].get("tools")}
        sent = [{name: m[name] for name in ("role", "content", "tool_calls", "tool_call_id", "name") if name in m} for m in messages]
        try:
            return self._client.chat.completions.create(
                model=self.model, messages=sent, max_tokens=sampling.max_tokens, temperature=sampling.temperature, top_p=sampling.top_p,
                seed=sampling.seed, **{name: value for name, value in fields.items() if value}, **more)
        except openai.BadRequestError as error:
            raise DataError(f"the endpoint refuses the conversation: {self._endpoint.clean(_message(error))}") from error
        except openai.OpenAIError as error:
            raise ZhtuneError(f"the endpoint does not answer: {self._endpoint.clean(_message(error))}") from error

    def _only_model(self, address: str) -> str:
        import openai
        try:
            names = [model.id for model in self._client.models.list()]
        except openai.OpenAIError as error:
            raise ZhtuneError(f"the endpoint does not answer: {self._endpoint.clean(_message(error))}") from error
        if len(names) != 1:
            raise ConfigError(f"the endpoint has {len(names)} models ({', '.join(names[:5])}); name one: {address}#NAME")
        return names[0]


def _message(error: Any) -> str:
    body = getattr(error, "body", None)
    return str(body.get("message") or error) if isinstance(body, dict) else str(error)


def _reply(text: str, finish: str | None, usage: Any) -> Reply:
    return Reply(text, usage.prompt_tokens if usage else 0, usage.completion_tokens if usage else 0, finish or "stop")
