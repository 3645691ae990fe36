"""A conversation through a Jinja chat template: placeholders where its texts stand, so that text and control text stay apart.

Every string that a caller gives (contents, reasoning, names and arguments of tool calls, descriptions of tools) is a
placeholder while the template runs; what the template itself writes is control text. `tojson` makes one text of all it
is given. Knows no tokens.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from zhtune import assets
from zhtune.errors import ConfigError, DataError

OPEN, CLOSE = "\ue000", "\ue001"                          # private-use marks around a text's key
MARK = re.compile(f"{OPEN}([^{CLOSE}]*){CLOSE}")
# What the variables `cut` and `target` of zhtune's own templates are; other programs render them as nothing.
CUT, TARGET = "\ue002", "\ue003"


class Conversation:
    """Messages as a template sees them.

    Args:
        messages: `{"role", "content"}`, optional `reasoning`, `tool_calls`, `name`; the first may hold `tools`.
        forbidden: finds what must not stand in the keys of a tool's description, which a template sees as they are.
    """

    def __init__(self, messages: list[dict[str, Any]], forbidden: re.Pattern[str]):
        self.texts: dict[str, str] = {}
        self.inside: dict[str, list[str]] = {}
        """Keys of the texts that went into a text of `tojson`"""
        self._keys: dict[str, str] = {}
        self._forbidden = forbidden
        self.contents = [str(i) for i, m in enumerate(messages) if m["content"] or not m.get("tool_calls")]
        self.messages = [self._message(i, m) for i, m in enumerate(messages)]
        tools = messages[0].get("tools") if messages else None
        self.tools = [self._marked(tool) for tool in tools] if tools else None
        functions = [t.get("function", t) for t in self.tools or []] + [c["function"] for m in self.messages for c in m.get("tool_calls", [])]
        self.needed = [*self.contents, *(MARK.fullmatch(f["name"])[1] for f in functions)]

    def _message(self, i: int, message: dict[str, Any]) -> dict[str, Any]:
        seen = {"role": message["role"], "content": self._mark(message["content"], str(i)) if str(i) in self.contents else ""}
        if message.get("reasoning"):
            seen["reasoning_content"] = self._mark(message["reasoning"], f"{i}r")
        for name in ("name", "tool_call_id"):
            if isinstance(message.get(name), str):
                seen[name] = self._mark(message[name])
        if message.get("tool_calls"):
            seen["tool_calls"] = [self._call(call) for call in message["tool_calls"]]
        return seen

    def _call(self, call: dict[str, Any]) -> dict[str, Any]:
        function = call.get("function", call)
        arguments = function.get("arguments") or {}
        if isinstance(arguments, str):                      # OpenAI's form: JSON in a string
            try:
                arguments = json.loads(arguments)
            except ValueError as error:
                raise DataError(f"the arguments of a call of {function['name']!r} are not valid JSON") from error
        named = {self._mark(name): self._marked(value) for name, value in arguments.items()}
        return {"type": "function", "function": {"name": self._mark(function["name"]), "arguments": named}}

    def _marked(self, value: Any) -> Any:
        """A JSON value with its strings as placeholders; keys stay, because templates look things up by them."""
        if isinstance(value, str):
            return value if value == "function" else self._mark(value)
        if isinstance(value, list):
            return [self._marked(item) for item in value]
        if not isinstance(value, dict):
            return value
        if wrong := next((key for key in value if self._forbidden.search(key)), None):
            raise DataError(f"a tool has a field named {wrong!r}, which holds a control token of the model")
        return {key: self._marked(item) for key, item in value.items()}

    def _mark(self, text: str, key: str = "") -> str:
        key = key or self._keys.setdefault(text, f"t{len(self._keys)}")
        self.texts[key] = text
        return f"{OPEN}{key}{CLOSE}"

    def json(self, value: Any, indent: int | None = None) -> str:
        """The template's `tojson`: one placeholder for the JSON of a value."""
        marked = json.dumps(value, ensure_ascii=False, indent=indent)
        text = MARK.sub(lambda found: json.dumps(self.texts[found[1]], ensure_ascii=False)[1:-1], marked)
        mark = self._mark(text)
        self.inside[MARK.fullmatch(mark)[1]] = MARK.findall(marked)
        return mark

    def require_whole(self, rendered: str) -> None:
        """Raise DataError unless every message stands in the rendered text, in order, and every tool and call."""
        keys = [inner for key in MARK.findall(rendered) for inner in self.inside.get(key, [key])]
        if [key for key in keys if key.isdigit()] != self.contents:
            raise DataError("the chat template leaves out or reorders messages of the conversation")
        if not set(self.needed) <= set(keys):
            raise DataError("the chat template has no place for tools and their calls; choose another one with --template")


class Template:
    """A compiled chat template.

    Args:
        text: Jinja.
        names: bos_token, eos_token … of the tokenizer.

    Raises:
        ConfigError: the text is not valid Jinja.
    """

    def __init__(self, text: str, names: dict[str, str]):
        from jinja2 import TemplateError, pass_context
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def refuse(message: str) -> None:
            raise TemplateError(message)

        @pass_context
        def tojson(context: Any, value: Any, indent: int | None = None, **_: Any) -> str:
            return context["_conversation"].json(value, indent)
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
        environment.globals["raise_exception"] = refuse
        environment.filters["tojson"] = tojson
        self._names = names
        try:
            self._template = environment.from_string(text)
        except TemplateError as error:
            raise ConfigError(f"the chat template is not valid Jinja: {error}") from error

    def render(self, conversation: Conversation, answering: bool, count: int | None = None) -> str:
        """The first `count` messages (all for None), and the beginning of an answer if `answering`.

        Raises:
            DataError: the template refuses the conversation.
        """
        from jinja2 import TemplateError
        try:
            return self._template.render(messages=conversation.messages[:count], tools=conversation.tools, _conversation=conversation,
                                         add_generation_prompt=answering, cut=CUT, target=TARGET, **self._names)
        except TemplateError as error:
            raise DataError(f"the chat template refuses the conversation: {error}") from error


def named_template(name: str) -> str:
    """The text of prompts/chat/NAME.jinja.

    Raises:
        ConfigError: there is none.
    """
    folder = assets.root() / "prompts" / "chat"
    file = folder / f"{name}.jinja"
    if not file.exists():
        raise ConfigError(f"no chat template {name!r}; there are: {', '.join(sorted(p.stem for p in folder.glob('*.jinja')))}")
    return file.read_text("utf-8")


def template_of(folder: Path) -> str:
    """The chat template that travels with a model; empty if it has none."""
    if (folder / "chat_template.jinja").exists():
        return (folder / "chat_template.jinja").read_text("utf-8")
    template = read_json(folder / "tokenizer_config.json").get("chat_template")
    return template if isinstance(template, str) else ""


def read_json(path: Path) -> dict[str, Any]:
    """A file of a model's folder; empty if there is none."""
    return json.loads(path.read_text("utf-8")) if path.exists() else {}
