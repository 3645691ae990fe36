"""Drives the chat page in a real browser against a fake engine: `python tests/browser_check.py [FOLDER for screenshots]`.

Needs `pip install playwright` and a Chromium at /usr/bin/chromium; says so and passes where one is missing. Not collected by
pytest: the normal suite needs no browser.
"""

from __future__ import annotations

import importlib.util
import socket
import sys
import tempfile
import threading
from pathlib import Path

from fake_engine import FakeEngine

from zhtune.serving.api import create_app
from zhtune.stages.serve import bind, listen

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
ANSWER = ("感冒一般挂**呼吸内科**。\n\n### 常见症状\n\n- 鼻塞、流涕 🤧\n- `发热`\n\n1. 多休息\n2. 多喝水\n\n"
          "```python\nprint('<b>')\n```\n\n"
          "<script>window.pwned = 1</script> <img src=x onerror='window.pwned = 1'>\n")
NOTICE = "仅供学习，不构成医疗建议。 For study only; not medical advice."


def main() -> int:
    """Run the checks; returns the exit status."""
    if importlib.util.find_spec("playwright") is None or not Path(CHROMIUM).exists():
        print(f"skipped: needs the playwright package and {CHROMIUM}")
        return 0
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    engine = FakeEngine([ANSWER[i:i + 2] for i in range(0, len(ANSWER), 2)], seconds=0.02)
    app = create_app(engine, "medical-q4_1", licences=["Apache-2.0", "CC-BY-4.0"], notice=NOTICE)
    listener = bind("127.0.0.1", 0)
    threading.Thread(target=listen, args=(app, listener, 90), daemon=True).start()
    check(listener, engine, folder)
    print(f"passed; screenshots are in {folder}")
    return 0


def check(listener: socket.socket, engine: FakeEngine, folder: Path) -> None:
    """Every thing a person does with the page, and pictures of it."""
    from playwright.sync_api import sync_playwright
    address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for name, width, scheme in (("light", 1000, "light"), ("dark", 1000, "dark"), ("narrow", 360, "light")):
            context = browser.new_context(viewport={"width": width, "height": 720}, color_scheme=scheme)
            page = context.new_page()
            complaints: list[str] = []
            page.on("console", lambda message, to=complaints: to.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error, to=complaints: to.append(str(error)))
            page.on("request", lambda request, to=complaints: request.url.startswith((address, "data:")) or to.append(request.url))
            page.goto(address)
            page.wait_for_selector("#name:text('medical-q4_1')")
            page.screenshot(path=folder / f"{name}-1-empty.png")
            check_conversation(page, engine, folder / name)
            assert page.evaluate("window.pwned") is None
            assert page.evaluate("document.documentElement.scrollWidth") == width
            refused = [text for text in complaints if "400" not in text]      # the one question that is too long
            assert not refused, refused
            context.close()
        browser.close()


def check_conversation(page, engine: FakeEngine, shots: Path) -> None:
    """Ask by Enter, compose with an input method, stop, change the settings, fail, begin anew."""
    picture = lambda step: page.screenshot(path=f"{shots}-{step}.png")      # noqa: E731
    box = page.locator("#question")
    box.fill("感冒挂什么科？")
    box.dispatch_event("keydown", {"key": "Enter", "isComposing": True, "bubbles": True})
    assert page.locator(".turn").count() == 0
    box.press("Shift+Enter")
    assert box.input_value() == "感冒挂什么科？\n"
    box.press("Enter")
    page.wait_for_selector(".body li")
    picture("2-during")
    page.wait_for_selector(".foot")
    picture("3-after")
    assert page.locator(".body script, .body img").count() == 0
    assert page.locator(".body pre code").inner_text() == "print('<b>')"
    assert page.locator(".body strong").inner_text() == "呼吸内科"
    box.fill("第二个问题")
    page.click("#send")
    page.wait_for_selector(".turn:nth-of-type(5) .body p")
    engine.ended.clear()
    page.click("#stop")
    page.wait_for_selector("text=已停止")
    assert engine.ended.wait(3)
    messages, _ = engine.seen[-1]
    assert [m["role"] for m in messages] == ["user", "assistant", "user"] and messages[1]["content"] == ANSWER
    page.click("#open")
    page.fill("#tokens", "5")
    page.fill("#system", "用一句话回答。")
    box.fill("第三个问题")
    page.click("#send")
    page.wait_for_selector("text=达到长度上限")
    picture("4-settings")
    assert engine.seen[-1][1].max_tokens == 5 and engine.seen[-1][0][0] == {"role": "system", "content": "用一句话回答。"}
    page.click("#open")
    box.fill("长" * 1000)
    page.click("#send")
    page.wait_for_selector(".error")
    picture("5-error")
    page.click("#language")
    page.click("#new")
    assert page.locator(".turn").count() == 0
    assert page.locator("#send").inner_text() == "Send"
    picture("6-english")


if __name__ == "__main__":
    raise SystemExit(main())
