"""The terminal chat: turns that are remembered, pipes without decoration, a real terminal with Ctrl-C and Ctrl-D."""

from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fake_engine import PIECES, FakeEngine

from zhtune.errors import ConfigError, DataError
from zhtune.models.engine import Sampling
from zhtune.stages.chat import ChatConfig, Talk, answer, chat, through_pipe

WHOLE = "".join(PIECES)
TERMINAL = """
import sys
from fake_engine import FakeEngine
from zhtune.models.engine import Sampling
from zhtune.stages.chat import Talk, at_terminal
engine = FakeEngine(["一", "二", "三"] + ["四"] * 200, seconds=0.05, adapter=False)
at_terminal(Talk(engine, "", Sampling()), sys.stdout)
print([[m["content"] for m in messages] for messages, _ in engine.seen])
"""


def _piped(text: bytes, engine: FakeEngine, system: str = "") -> str:
    out = io.StringIO()
    through_pipe(Talk(engine, system, Sampling()), io.BytesIO(text), out)
    return out.getvalue()


def test_pipe_one_question_a_line_and_only_answers_out():
    engine = FakeEngine()
    assert _piped("\ufeff感冒？\n\n  咳嗽？ \r\n/new\n头痛？".encode(), engine, "短答") == f"{WHOLE}\n" * 3
    system = {"role": "system", "content": "短答"}
    turn = [{"role": "user", "content": "感冒？"}, {"role": "assistant", "content": WHOLE}]
    assert [messages for messages, _ in engine.seen] == [
        [system, turn[0]], [system, *turn, {"role": "user", "content": "咳嗽？"}], [system, {"role": "user", "content": "头痛？"}]]


def test_the_adapter_is_switched_off_and_on():
    engine = FakeEngine()
    assert _piped("甲\n/adapter off\n乙\n/adapter on\n丙\n/adapter\n".encode(), engine) == f"{WHOLE}\n" * 4
    assert [(messages[-1]["content"], sampling.adapter) for messages, sampling in engine.seen] == [
        ("甲", True), ("乙", False), ("丙", True), ("/adapter", True)]
    with pytest.raises(ConfigError, match="fake has no adapter of its own beside its weights that an answer could leave out"):
        _piped("/adapter off\n甲\n".encode(), FakeEngine(adapter=False))


def test_pipe_ends_at_quit():
    engine = FakeEngine()
    assert _piped("甲\n/quit\n乙\n".encode(), engine) == f"{WHOLE}\n" and len(engine.seen) == 1


def test_pipe_refuses_what_is_not_utf8():
    with pytest.raises(DataError, match=r"^stdin:2: not UTF-8 text; convert it first"):
        _piped("一\n".encode() + "感冒".encode("gb18030"), FakeEngine())


def test_pieces_are_written_as_they_come():
    class Out(io.StringIO):
        flushed = 0

        def flush(self):
            self.flushed += 1
    out = Out()
    answer(Talk(FakeEngine(), "", Sampling()), "感冒？", out)
    assert out.getvalue() == WHOLE + "\n" and out.flushed == len(PIECES) + 1


def test_a_terminal_is_sent_no_control_characters():
    class Terminal(io.StringIO):
        def isatty(self):
            return True
    out = Terminal()
    answer(Talk(FakeEngine(["\x1b[2J甲\t乙\n", "\x9b丙\x07"]), "", Sampling()), "感冒？", out)
    assert out.getvalue() == "[2J甲\t乙\n丙\n"


def test_a_conversation_too_long_forgets_its_oldest_turn():
    engine = FakeEngine(["答" * 300])
    talk = Talk(engine, "", Sampling())
    for question in ("甲" * 300, "乙" * 300, "丙" * 300):         # the third would make 1,500, without the oldest turn 900
        assert "".join(talk.ask(question)) == "答" * 300
    assert [m["content"][0] for m in talk.turns] == ["乙", "答", "丙", "答"]
    with pytest.raises(DataError, match="the conversation has 1000 tokens"):
        list(talk.ask("长" * 1000))
    assert [m["content"][0] for m in talk.turns] == ["乙", "答", "丙", "答"]


def test_an_interrupted_answer_stays_in_the_conversation():
    engine = FakeEngine()
    talk = Talk(engine, "", Sampling())
    pieces = talk.ask("感冒？")
    assert [next(pieces), next(pieces)] == ["感冒", "挂"]
    pieces.close()
    assert talk.turns == [{"role": "user", "content": "感冒？"}, {"role": "assistant", "content": "感冒挂"}] and talk.finish == ""
    assert engine.ended.is_set()


def _read_until(terminal: int, word: str) -> str:
    text = b""
    while word.encode() not in text:
        text += os.read(terminal, 4096)
    return text.decode("utf-8", "replace")


def test_at_a_terminal_ctrl_c_stops_the_answer_and_ctrl_d_ends():
    control, terminal = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "PYTHONUTF8": "1", "TERM": "dumb"}
    process = subprocess.Popen([sys.executable, "-c", TERMINAL], stdin=terminal, stdout=terminal, stderr=terminal, env=environment,
                               start_new_session=True, preexec_fn=_own_terminal)
    os.close(terminal)
    try:
        _read_until(control, "> ")
        os.write(control, "问题\n".encode())
        _read_until(control, "三")
        os.write(control, b"\x03")
        assert "[stopped]" in _read_until(control, "> ")
        os.write(control, b"/new\n")
        _read_until(control, "> ")
        os.write(control, "/adapter off\n丙\n".encode())
        assert "has no adapter of its own" in _read_until(control, "weights\r\n> ")      # and answers with it again
        os.write(control, b"\x04")
        assert "[['问题'], ['丙']]" in _read_until(control, "]]")
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        os.close(control)


def _own_terminal() -> None:
    import fcntl
    import termios
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)            # a shell's background job ignores it, and its children with it


def test_one_question_with_a_real_model(capsys):
    pytest.importorskip("torch")
    chat(ChatConfig(model="new:llama-tiny", prompt="感冒挂什么科？", max_tokens=3))
    out = capsys.readouterr().out
    assert out.endswith("\n")


def test_bad_settings():
    with pytest.raises(ConfigError, match="--max_tokens must be at least 1"):
        ChatConfig(model="x", max_tokens=0)
    with pytest.raises(ConfigError, match="does not exist"):
        chat(ChatConfig(model="./nothing-there"))
