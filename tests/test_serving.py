"""The OpenAI-compatible endpoint: exact bodies and events, refusals in one line, one answer at a time, clients that leave."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time

import pytest
from fake_engine import PIECES, FakeEngine

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
from starlette.testclient import TestClient

from zhtune.errors import ConfigError
from zhtune.models.engine import Sampling, until_stop
from zhtune.serving.api import create_app, is_loopback
from zhtune.serving.request import RequestError, parse_request
from zhtune.stages.serve import ServeConfig, bind, listen, serve

ASK = [{"role": "user", "content": "感冒挂什么科？"}]           # 7 characters
WHOLE = "".join(PIECES)


def _client(engine=None, **settings):
    return TestClient(create_app(engine or FakeEngine(), "medical", **settings), base_url="http://127.0.0.1:8000")


def _post(body, engine=None, **headers):
    return _client(engine).post("/v1/chat/completions", json=body, headers=headers)


def _events(text):
    lines = text.split("\n\n")
    assert lines.pop() == "" and lines[-1] == "data: [DONE]" and all(line.startswith("data: ") for line in lines)
    return [json.loads(line[6:]) for line in lines[:-1]]


def test_whole_answer():
    engine = FakeEngine()
    reply = _post({"model": "medical", "messages": ASK, "seed": 3, "temperature": 0.5, "top_p": 0.9, "max_tokens": 50}, engine)
    body = reply.json()
    assert reply.status_code == 200 and body["id"].startswith("chatcmpl-") and body["object"] == "chat.completion"
    assert body["choices"] == [{"index": 0, "message": {"role": "assistant", "content": WHOLE}, "finish_reason": "stop"}]
    assert body["usage"] == {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12} and body["model"] == "medical"
    assert engine.seen == [(ASK, Sampling(max_tokens=50, temperature=0.5, top_p=0.9, seed=3))]


def test_a_request_can_leave_the_adapter_out():
    engine = FakeEngine()
    for adapter in (False, True, None):
        assert _post({"messages": ASK, "adapter": adapter}, engine).status_code == 200
    assert [sampling.adapter for _, sampling in engine.seen] == [False, True, True]
    for stream in (False, True):
        refused = _post({"messages": ASK, "adapter": False, "stream": stream}, FakeEngine(adapter=False))
        assert refused.status_code == 400 and refused.json()["error"]["message"].startswith("fake has no adapter of its own beside its weights")


def test_stream_events_are_exactly_openais():
    reply = _post({"messages": ASK, "stream": True, "stream_options": {"include_usage": True}})
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = _events(reply.text)
    head = {key: events[0][key] for key in ("id", "created", "model", "object")}
    assert head["object"] == "chat.completion.chunk" and head["model"] == "medical"
    deltas = [{"role": "assistant", "content": ""}, *({"content": piece} for piece in PIECES)]
    chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    end = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    usage = {**head, "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}}
    assert events == [*chunks, end, usage]


def test_length_limit():
    body = _post({"messages": ASK, "max_tokens": 2}).json()
    assert body["choices"][0]["message"]["content"] == "感冒挂" and body["choices"][0]["finish_reason"] == "length"
    events = _events(_post({"messages": ASK, "max_completion_tokens": 2, "stream": True}).text)
    assert events[-1]["choices"][0]["finish_reason"] == "length" and len(events) == 4


@pytest.mark.parametrize("stop, said, tokens", [("呼吸", "感冒挂", 3), (["挂呼", "科"], "感冒", 3), (["冒挂"], "感", 2), ("没有", WHOLE, 5)])
def test_stop_strings_end_an_answer(stop, said, tokens):
    engine = FakeEngine()
    body = _post({"messages": ASK, "stop": stop}, engine).json()
    assert body["choices"][0] == {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
    assert body["usage"] == {"prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": 7 + tokens}
    events = _events(_post({"messages": ASK, "stop": stop, "stream": True}).text)
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in events) == said
    assert engine.ended.is_set()


def test_until_stop_holds_back_what_may_become_a_stop_string():
    assert until_stop("感冒", ("冒挂", "科")) == ("感", "冒", False)
    assert until_stop("冒了", ("冒挂",)) == ("冒了", "", False)
    assert until_stop("a<|x|>b", ("<|x|>", "a<")) == ("", "", True)
    assert until_stop("text", ()) == ("text", "", False)


def test_content_parts_and_the_developer_role():
    engine = FakeEngine()
    parts = [{"type": "text", "text": "感冒"}, {"type": "text", "text": "？"}]
    messages = [{"role": "developer", "content": "短答"}, {"role": "user", "content": parts}]
    _post({"messages": messages, "user": "u1", "n": 1}, engine)
    assert engine.seen[0][0] == [{"role": "system", "content": "短答"}, {"role": "user", "content": "感冒？"}]


@pytest.mark.parametrize("body, field, words", [
    ({"messages": []}, "messages", "'messages' must be a non-empty list"),
    ({}, "messages", "'messages' must be a non-empty list"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role", "needs a role of system, user or assistant, found"),
    ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content", "must be a string or a list of text parts"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content", "parts only, found 'image_url'"),
    ({"messages": ASK, "max_tokens": 0}, "max_tokens", "must be an integer from 1 to 1048576, found 0"),
    ({"messages": ASK, "max_tokens": True}, "max_tokens", "must be an integer"),
    ({"messages": ASK, "temperature": 3}, "temperature", "must be a number from 0 to 2, found 3"),
    ({"messages": ASK, "top_p": 0}, "top_p", "must be a number from 0.001 to 1, found 0"),
    ({"messages": ASK, "stop": [""]}, "stop", "'stop' must be a string or a list of at most 4"),
    ({"messages": ASK, "stream": "yes"}, "stream", "must be true or false, found 'yes'"),
    ({"messages": ASK, "adapter": "off"}, "adapter", "'adapter' must be true or false, found 'off'"),
    ({"messages": ASK, "n": 2}, "n", "'n' is not supported here; leave it out or give 1"),
    ({"messages": ASK, "tools": [{}]}, "tools", "'tools' is not supported here"),
    ({"messages": ASK, "temprature": 1}, "temprature", "unknown field 'temprature'"),
])
def test_bad_requests_are_refused_in_words(body, field, words):
    engine = FakeEngine()
    reply = _post(body, engine)
    error = reply.json()["error"]
    assert reply.status_code == 400 and words in error["message"] and "\n" not in error["message"]
    assert error["param"] == field and error["type"] == "invalid_request_error" and engine.seen == []


def test_other_refusals():
    client = _client()
    message = lambda reply: reply.json()["error"]["message"]      # noqa: E731
    assert message(client.post("/v1/chat/completions", content=b"{not json")).startswith("the body is not valid JSON")
    assert message(client.post("/v1/chat/completions", content=b"[]")) == "the body must be a JSON object, found list"
    assert client.post("/v1/chat/completions", content=b" " * (5 << 20)).status_code == 413
    unknown = client.post("/v1/chat/completions", json={"model": "gpt-4o", "messages": ASK})
    assert unknown.status_code == 404 and unknown.json()["error"] == {
        "message": "the model 'gpt-4o' does not exist; this server has 'medical'", "type": "invalid_request_error",
        "param": "model", "code": "model_not_found"}
    assert client.get("/v1/embeddings").status_code == 404 and "Not Found; there are" in message(client.get("/nothing"))
    assert client.get("/v1/chat/completions").status_code == 405
    with pytest.raises(RequestError, match="not valid JSON"):
        parse_request(b'{"temperature": NaN}', 8)


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_engine_refuses_is_a_400(stream):
    reply = _post({"messages": [{"role": "user", "content": "长" * 1000}], "stream": stream})
    assert reply.status_code == 400
    assert reply.json()["error"]["message"] == "the conversation has 1000 tokens, the model's context is 1000"


class BrokenEngine(FakeEngine):
    """Fails after its first piece."""

    def stream(self, messages, sampling):
        yield "感冒"
        raise RuntimeError("secret path")


def test_an_engine_that_breaks(caplog):
    reply = _post({"messages": ASK}, BrokenEngine())
    assert reply.status_code == 500 and reply.json()["error"]["message"] == "the engine failed; the server's log says more"
    text = _post({"messages": ASK, "stream": True}, BrokenEngine()).text
    assert "[DONE]" not in text and "secret" not in text
    assert json.loads(text.split("\n\n")[-2][6:])["error"]["type"] == "server_error"


def test_hosts_and_origins():
    for host in ("127.0.0.1:8000", "localhost", "localhost:9", "[::1]:8000", "127.0.0.1"):
        assert _client().get("/health", headers={"host": host}).json() == {"status": "ok"}
    for host in ("evil.example", "127.0.0.1.evil.example:8000", "192.168.1.2", "localhost.evil.example", ""):
        reply = _client().get("/v1/models", headers={"host": host})
        assert reply.status_code == 403 and f"the Host header {host!r} is not a loopback name" in reply.json()["error"]["message"]
    own = _post({"messages": ASK}, origin="http://127.0.0.1:8000")
    assert own.status_code == 200 and "access-control-allow-origin" not in own.headers
    for origin in ("https://evil.example", "null", "http://localhost:3000"):
        assert _post({"messages": ASK}, origin=origin).status_code == 403
    assert is_loopback("::1") and is_loopback("LOCALHOST") and not is_loopback("0.0.0.0") and not is_loopback("")


def test_models_and_page():
    client = _client(licences=["Apache-2.0"], notice="仅供学习", max_tokens=99)
    model = client.get("/v1/models").json()["data"][0]
    assert isinstance(model.pop("created"), int)
    assert model == {"id": "medical", "object": "model", "owned_by": "zhtune", "max_tokens": 99, "licences": ["Apache-2.0"],
                     "notice": "仅供学习"}
    page = client.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"https?://|innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", page.text)
    assert "isComposing" in page.text and 'lang="zh-CN"' in page.text


# One real server on a real socket.

@pytest.fixture
def server():
    """Start a server for an engine in a thread; it is told to end after the test and ends by itself after 20 s."""
    threads = []

    def start(engine):
        app, listener = create_app(engine, "medical"), bind("127.0.0.1", 0)
        port = listener.getsockname()[1]
        threads.append(threading.Thread(target=listen, args=(app, listener, 20), daemon=True))
        threads[-1].start()
        return port
    yield start


def _wait(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def _open(port, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for _ in range(200):
        try:
            connection.connect()
            break
        except ConnectionRefusedError:
            time.sleep(0.02)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    return connection


def _leave(connection):
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_stops_the_answer(server, stream):
    engine = FakeEngine(["字"] * 400, seconds=0.02)
    connection = _open(server(engine), {"messages": ASK, "stream": stream})
    assert _wait(lambda: engine.yielded >= 3) and not engine.ended.is_set()
    _leave(connection)
    assert engine.ended.wait(5) and engine.yielded < 100


def test_requests_wait_their_turn_and_leave_the_queue(server):
    engine = FakeEngine(["字"] * 30, seconds=0.02)
    port = server(engine)
    first = _open(port, {"messages": ASK, "stream": True})
    assert _wait(lambda: engine.yielded >= 1)
    gone = _open(port, {"messages": [{"role": "user", "content": "走了"}], "stream": True})
    third = _open(port, {"messages": [{"role": "user", "content": "还在"}]})
    time.sleep(0.1)
    _leave(gone)
    assert "data: [DONE]" in first.getresponse().read().decode()
    assert json.loads(third.getresponse().read())["choices"][0]["message"]["content"] == "字" * 30
    assert [messages[0]["content"] for messages, _ in engine.seen] == [ASK[0]["content"], "还在"] and engine.most_at_once == 1


def test_a_stream_arrives_piece_by_piece(server):
    engine = FakeEngine(["字"] * 20, seconds=0.05)
    response = _open(server(engine), {"messages": ASK, "stream": True}).getresponse()
    for _ in range(2):
        assert response.readline().startswith(b"data: ") and response.readline() == b"\n"
    assert not engine.ended.is_set()
    assert response.read().endswith(b"data: [DONE]\n\n")


def test_a_taken_port_is_one_clear_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot listen on 127.0.0.1 port {port}: address already in use; give another"):
            serve(ServeConfig(model="new:llama-tiny", port=port))


def test_only_loopback_is_served():
    with pytest.raises(ConfigError, match=r"--host 0.0.0.0 is not a loopback address; .* ssh -L 8000:127.0.0.1:8000"):
        ServeConfig(model="x", host="0.0.0.0")
    with pytest.raises(ConfigError, match="does not exist"):
        serve(ServeConfig(model="./nothing-there", port=0))


def test_serve_ends_by_itself(capsys):
    pytest.importorskip("torch")
    began = time.monotonic()
    serve(ServeConfig(model="new:llama-tiny", port=0, seconds=0.2))
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+\n", capsys.readouterr().out) and time.monotonic() - began < 20
