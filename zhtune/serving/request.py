"""A chat completion request in OpenAI's form, checked field by field before any model sees it.

What would change the answer and is not supported is refused in words; what only labels a request is ignored. It knows
nothing of HTTP or of engines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from zhtune.errors import ZhtuneError
from zhtune.models.engine import Conversation, Sampling

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_KNOWN = {"model", "messages", "temperature", "top_p", "max_tokens", "max_completion_tokens", "seed", "stop", "stream",
          "stream_options", "adapter"}                      # the last is zhtune's own: false leaves the adapter out
# Labels of a request: they change no answer.
_IGNORED = {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls"}
# Fields that are accepted at these values only, where they do nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,), "presence_penalty": (0,), "frequency_penalty": (0,), "logprobs": (False,), "top_logprobs": (0,), "logit_bias": ({},),
    "tools": ([],), "tool_choice": ("none", "auto"), "response_format": ({"type": "text"},), "modalities": (["text"],),
}


class RequestError(ZhtuneError):
    """A request that cannot be answered.

    Args:
        message: what was found and what was expected.
        field: the field of the request that is wrong.
        status: HTTP status.
        code: OpenAI's code of the error.
    """

    def __init__(self, message: str, field: str | None = None, status: int = 400, code: str | None = None):
        super().__init__(message)
        self.field, self.status, self.code = field, status, code


@dataclass(frozen=True)
class ChatRequest:
    """What is to be answered, and how."""

    model: str
    """Name the client asks for; empty for whichever is served"""
    messages: Conversation
    sampling: Sampling
    stream: bool
    include_usage: bool
    """Whether a stream ends with a chunk of token counts"""


def parse_request(body: bytes, max_tokens: int) -> ChatRequest:
    """Read and check a request.

    Args:
        body: JSON as it came.
        max_tokens: of the answer, where the request names none.

    Raises:
        RequestError: the first thing that is wrong with it.
    """
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is not valid JSON ({error})") from error
    if not isinstance(fields, dict):
        raise RequestError(f"the body must be a JSON object, found {type(fields).__name__}")
    fields = {name: value for name, value in fields.items() if value is not None and name not in _IGNORED}
    for name in fields:
        _refuse_unsupported(name, fields[name])
    limit = "max_completion_tokens" if "max_completion_tokens" in fields else "max_tokens"
    sampling = Sampling(max_tokens=_number(fields, limit, max_tokens, 1, 1 << 20, whole=True),
                        temperature=float(_number(fields, "temperature", Sampling.temperature, 0, 2)),
                        top_p=float(_number(fields, "top_p", Sampling.top_p, 0.001, 1)),
                        seed=_number(fields, "seed", Sampling.seed, -(1 << 63), (1 << 63) - 1, whole=True),
                        stop=_stop(fields.get("stop", [])), adapter=_typed(fields, "adapter", bool, True))
    options = _typed(fields, "stream_options", dict, {})
    return ChatRequest(_typed(fields, "model", str, ""), _messages(fields.get("messages")), sampling,
                       _typed(fields, "stream", bool, False), options.get("include_usage") is True)


def _refuse_unsupported(name: str, value: Any) -> None:
    if name in _KNOWN:
        return
    if name not in _NEUTRAL:
        raise RequestError(f"unknown field {name!r}; known are {', '.join(sorted(_KNOWN))}", name)
    if value not in _NEUTRAL[name]:
        allowed = " or ".join(orjson.dumps(v).decode() for v in _NEUTRAL[name])
        raise RequestError(f"{name!r} is not supported here; leave it out or give {allowed}", name, code="unsupported_parameter")


def _number(fields: dict[str, Any], name: str, default: Any, low: float, high: float, whole: bool = False) -> Any:
    value = fields.get(name, default)
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        raise RequestError(f"{name!r} must be {'an integer' if whole else 'a number'} from {low} to {high}, found {value!r}", name)
    return value


def _typed(fields: dict[str, Any], name: str, kind: type, default: Any) -> Any:
    value = fields.get(name, default)
    if not isinstance(value, kind):
        words = {str: "a string", bool: "true or false", dict: "an object"}
        raise RequestError(f"{name!r} must be {words[kind]}, found {value!r}", name)
    return value


def _stop(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > 4 or not all(isinstance(s, str) and s for s in stops):
        raise RequestError("'stop' must be a string or a list of at most 4, none of them empty", "stop")
    return tuple(stops)


def _messages(value: Any) -> Conversation:
    if not isinstance(value, list) or not value:
        raise RequestError("'messages' must be a non-empty list", "messages")
    return [_message(message, f"messages[{i}]") for i, message in enumerate(value)]


def _message(message: Any, where: str) -> dict[str, Any]:
    role = message.get("role") if isinstance(message, dict) else None
    if not isinstance(role, str) or role not in _ROLES:
        raise RequestError(f"{where} needs a role of system, user or assistant, found {role!r}", f"{where}.role")
    return {"role": _ROLES[role], "content": _content(message.get("content"), f"{where}.content")}


def _content(value: Any, where: str) -> str:
    """A string, or a list of parts `{"type": "text", "text": …}` joined."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise RequestError(f"{where} must be a string or a list of text parts", where)
    for part in value:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise RequestError(f"{where} may hold text parts only, found {kind!r}", where)
    return "".join(part["text"] for part in value)
