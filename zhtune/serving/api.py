"""The OpenAI-compatible endpoint of one engine, and the web page beside it.

GET /v1/models, POST /v1/chat/completions (whole or as server-sent events), GET /health, GET / (the page). It answers only
requests addressed to this machine's loopback names, and none that a page of another site sends: no CORS, no login.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhtune.errors import ZhtuneError
from zhtune.models.engine import Engine, Reply
from zhtune.records import dumps
from zhtune.serving.answers import Answer, Answers
from zhtune.serving.request import ChatRequest, RequestError, parse_request

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response

_BODY_LIMIT = 4 << 20                                       # bytes; the longest context is far smaller
_POLL = 0.25                                                # seconds between looks whether the client is still there


def create_app(engine: Engine, name: str, *, licences: Sequence[str] = (), notice: str = "",
               max_tokens: int = 512) -> FastAPI:
    """The application that serves one engine; it does not close the engine.

    Args:
        engine: whatever answers.
        name: the model's name, which requests give as `model` (or leave out).
        licences: shown on the page and in /v1/models.
        notice: one line shown under the page's chat, such as what the model must not be used for.
        max_tokens: of an answer, where the request names none.
    """
    from fastapi import FastAPI
    from starlette.exceptions import HTTPException
    endpoint = _Endpoint(engine, name, max_tokens, {"licences": list(licences), "notice": notice})

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        endpoint.answers.close()

    app = FastAPI(title=name, docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.add_route("/v1/chat/completions", endpoint.completions, methods=["POST"])
    app.add_route("/v1/models", endpoint.models, methods=["GET"])
    app.add_route("/health", _health, methods=["GET"])
    app.add_route("/", _page(), methods=["GET"])
    app.add_middleware(LoopbackOnly)
    app.add_exception_handler(ZhtuneError, _on_error)
    app.add_exception_handler(HTTPException, _on_error)
    return app


class _Endpoint:
    """The two /v1 routes, and what they know."""

    def __init__(self, engine: Engine, name: str, max_tokens: int, card: dict[str, Any]):
        self.answers = Answers(engine)
        self._name, self._max_tokens = name, max_tokens
        self._model = {"id": name, "object": "model", "created": int(time.time()), "owned_by": "zhtune",
                       "max_tokens": max_tokens, **card}

    async def models(self, request: Request) -> Response:
        return _json({"object": "list", "data": [self._model]})

    async def completions(self, request: Request) -> Any:
        chat = parse_request(await _body(request), self._max_tokens)
        if chat.model not in ("", self._name):
            raise RequestError(f"the model {chat.model!r} does not exist; this server has {self._name!r}", "model", 404,
                               "model_not_found")
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": self._name}
        if chat.stream:
            return _Stream(request, chat, self.answers.start(chat), head)
        with closing(self.answers.start(chat)) as answer:
            while not isinstance(item := await _first(answer, request), Reply):
                if item is None:
                    return _json({}, 499)                   # nobody reads it
        choice = {"index": 0, "message": {"role": "assistant", "content": item.text}, "finish_reason": item.finish}
        return _json({**head, "object": "chat.completion", "choices": [choice], "usage": _usage(item)})


class _Stream:
    """A streamed answer as an ASGI response; it cancels the answer however it ends."""

    def __init__(self, request: Request, chat: ChatRequest, answer: Answer, head: dict[str, Any]):
        self._request, self._chat, self._answer = request, chat, answer
        self._head = {**head, "object": "chat.completion.chunk"}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from starlette.responses import StreamingResponse
        with closing(self._answer):
            item = await _first(self._answer, self._request)     # what the engine refuses is still a plain 400 here
            if item is None:
                return
            headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
            response = StreamingResponse(self._events(item), media_type="text/event-stream; charset=utf-8", headers=headers)
            await response(scope, receive, send)

    async def _events(self, item: str | Reply | None) -> AsyncIterator[bytes]:
        yield self._chunk({"role": "assistant", "content": ""})
        while not isinstance(item, Reply):
            if item is not None:
                yield self._chunk({"content": item})
            try:
                item = await self._answer.next(60)
            except ZhtuneError as error:                    # the status line is long gone
                yield _event(_error_body(error)[1])
                return
        yield self._chunk({}, item.finish)
        if self._chat.include_usage:
            yield _event({**self._head, "choices": [], "usage": _usage(item)})
        yield b"data: [DONE]\n\n"

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        return _event({**self._head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


async def _first(answer: Answer, request: Request) -> str | Reply | None:
    """The next piece; None as soon as the client has gone, also while the request still waits in the queue."""
    while (item := await answer.next(_POLL)) is None:
        if await request.is_disconnected():
            return None
    return None if await request.is_disconnected() else item


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _BODY_LIMIT:
            raise RequestError(f"the body is larger than {_BODY_LIMIT >> 20} MiB", status=413)
    return bytes(body)


def _usage(answer: Reply) -> dict[str, int]:
    prompt, completion = answer.prompt_tokens, answer.completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _event(value: Any) -> bytes:
    return b"data: " + dumps(value) + b"\n\n"


def _json(value: Any, status: int = 200) -> Response:
    from starlette.responses import Response
    return Response(dumps(value), status, media_type="application/json")


async def _health(request: Request) -> Response:
    return _json({"status": "ok"})


def _page() -> Callable[[Request], Awaitable[Response]]:
    """The page's route. Its policy lets the page's own script and style run, talk to this server, and nothing else."""
    from starlette.responses import HTMLResponse
    text = Path(__file__).with_name("page.html").read_text("utf-8")
    hashes = {tag: _hash(re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[1]) for tag in ("script", "style")}
    policy = (f"default-src 'none'; connect-src 'self'; img-src data:; script-src {hashes['script']}; style-src {hashes['style']}; "
              f"base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
    headers = {"content-security-policy": policy, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}

    async def page(request: Request) -> Response:
        return HTMLResponse(text, headers=headers)
    return page


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode()}'"


# Errors in OpenAI's form.

async def _on_error(request: Request, error: Exception) -> Response:
    status, body = _error_body(error)
    return _json(body, status)


def _error_body(error: Exception) -> tuple[int, dict[str, Any]]:
    from starlette.exceptions import HTTPException
    status, message, field, code = 400, str(error), None, None      # a plain ZhtuneError: the engine refuses the conversation
    if isinstance(error, RequestError):
        status, field, code = error.status, error.field, error.code
    elif isinstance(error, HTTPException):
        status, message = error.status_code, f"{error.detail}; there are /v1/models, /v1/chat/completions, /health and /"
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return status, {"error": {"message": message, "type": kind, "param": field, "code": code}}


class LoopbackOnly:
    """ASGI middleware: only requests to a loopback name (against DNS rebinding), and from no page of another origin."""

    def __init__(self, app: Any):
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get("host", ""), headers.get("origin")
        if not is_loopback(re.sub(r":\d*$", "", host).strip("[]")):
            message = f"the Host header {host!r} is not a loopback name; open http://127.0.0.1 with this server's port"
        elif origin is not None and origin != f"http://{host}":
            message = f"requests from pages of {origin!r} are refused"
        else:
            await self._app(scope, receive, send)
            return
        await _json(_error_body(RequestError(message, status=403))[1], 403)(scope, receive, send)


def is_loopback(host: str) -> bool:
    """Whether a host's name or address means this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
