"""The one encoder: messages -> token ids and loss mask. Training, evaluation and serving all call it.

A chat template is rendered with placeholders where the messages' texts stand. What lies between them is control text,
encoded with its special tokens; the texts themselves are encoded by a tokenizer that knows no special tokens. So user
text never becomes a control token, and a text has the same ids in every position.

    <|im_start|>user\\n  今天挂什么科？  <|im_end|>\\n<|im_start|>assistant\\n  内科。  <|im_end|>  \\n
    control             text           control                              text   end     control
    mask 0              0              0                                    1      1       0
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zhtune import assets
from zhtune.errors import ConfigError, DataError

_OPEN, _CLOSE = "\ue000", "\ue001"                          # private-use marks around a message's number


@dataclass(frozen=True)
class Sample:
    """One conversation as token ids, with the positions whose prediction is trained."""

    ids: list[int]
    """(tokens,)"""
    mask: list[bool]
    """(tokens,): True for assistant text and its end-of-turn token"""


class ChatEncoder:
    """Encodes conversations for one tokenizer and one chat template.

    Args:
        folder: holds tokenizer.json and, unless `template` is given, chat_template.jinja or a template in tokenizer_config.json.
        template: a template's name in prompts/chat, for a base that has none.

    Raises:
        ConfigError: no tokenizer.json, no or an unusable template.
    """

    def __init__(self, folder: Path, template: str = ""):
        from tokenizers import Tokenizer
        file = folder / "tokenizer.json"
        if not file.exists():
            raise ConfigError(f"{folder} has no tokenizer.json")
        definition = json.loads(file.read_text("utf-8"))
        self.template_text = named_template(template) if template else template_of(folder)
        self._template = _compile(self.template_text)
        self._control = Tokenizer.from_file(str(file))
        self._control.no_padding()
        self._control.no_truncation()
        self._special = {t["id"] for t in definition["added_tokens"] if t["special"]}
        self._plain = Tokenizer.from_str(json.dumps({**definition, "added_tokens": [], "post_processor": None}))
        self._ids = set(self._control.get_vocab(with_added_tokens=True).values())
        self._bos = self._control.encode("").ids            # what the tokenizer itself would put in front
        self._names = _token_names(folder)
        self.end_id = self._end_of_turn()
        self.stop_ids = sorted({self.end_id, *_stop_ids(folder, self._control)})

    def sample(self, messages: list[dict[str, Any]]) -> Sample:
        """Ids and loss mask of a whole conversation; only assistant messages without `"train": false` are trained.

        Raises:
            DataError: the template cannot express the conversation.
        """
        ids, mask = [], []
        pieces = self._pieces(messages, answering=False)
        for i, (kind, text) in enumerate(pieces):
            if kind < 0:
                control = self._control.encode(text, add_special_tokens=False).ids
                ends = i > 0 and self._trained(messages[pieces[i - 1][0]]) and control[:1] == [self.end_id]
                ids += control
                mask += [ends, *[False] * (len(control) - 1)] if control else []
            else:
                content = self.text_ids(text)
                ids += content
                mask += [self._trained(messages[kind])] * len(content)
        return self._with_bos(ids, mask)

    def prompt(self, messages: list[dict[str, Any]]) -> list[int]:
        """Ids of a conversation that the model is to answer: the beginning of the same sample, up to the answer."""
        ids = []
        for kind, text in self._pieces(messages, answering=True):
            ids += self.text_ids(text) if kind >= 0 else self._control.encode(text, add_special_tokens=False).ids
        return self._with_bos(ids, [False] * len(ids)).ids

    def text_ids(self, text: str) -> list[int]:
        """Ids of plain text; strings that look like special tokens stay text."""
        return self._plain.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        """Text of ids, special tokens left out."""
        return self._control.decode(ids, skip_special_tokens=True)

    @property
    def size(self) -> int:
        """Ids that the tokenizer can produce are below this; there may be gaps."""
        return max(self._ids) + 1

    def unused(self, rows: int) -> list[int]:
        """Ids below `rows` that no token has: the padded rows of a model, and gaps before them."""
        return [i for i in range(rows) if i not in self._ids]

    @staticmethod
    def _trained(message: dict[str, Any]) -> bool:
        return message["role"] == "assistant" and message.get("train", True)

    def _with_bos(self, ids: list[int], mask: list[bool]) -> Sample:
        if self._bos and ids[:len(self._bos)] != self._bos:
            return Sample([*self._bos, *ids], [*[False] * len(self._bos), *mask])
        return Sample(ids, mask)

    def _pieces(self, messages: list[dict[str, Any]], answering: bool) -> list[tuple[int, str]]:
        """The rendered conversation as (message number, its text) and (-1, control text), in order."""
        from jinja2 import TemplateError
        marked = [{**m, "content": f"{_OPEN}{i}{_CLOSE}"} for i, m in enumerate(messages)]
        try:
            rendered = self._template.render(messages=marked, add_generation_prompt=answering, **self._names)
        except TemplateError as error:
            raise DataError(f"the chat template refuses the conversation: {error}") from error
        pieces: list[tuple[int, str]] = []
        for n, part in enumerate(rendered.split(_OPEN)):
            number, _, control = part.partition(_CLOSE) if n else ("", "", part)
            if n:
                pieces.append((int(number), messages[int(number)]["content"]))
            if control:
                pieces.append((-1, control))
        if [k for k, _ in pieces if k >= 0] != list(range(len(messages))):
            raise DataError("the chat template leaves out or reorders messages of the conversation")
        return pieces

    def _end_of_turn(self) -> int:
        """The special token right after an assistant's text."""
        pieces = self._pieces([{"role": "user", "content": ""}, {"role": "assistant", "content": ""}], answering=False)
        last = pieces[-1][1] if pieces[-1][0] < 0 else ""
        ids = self._control.encode(last, add_special_tokens=False).ids
        if not ids or ids[0] not in self._special:
            raise ConfigError("the chat template does not end an assistant's turn with a special token of the tokenizer; "
                              "choose another one with --template")
        return ids[0]


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
    """The chat template that travels with a model.

    Raises:
        ConfigError: it has none.
    """
    if (folder / "chat_template.jinja").exists():
        return (folder / "chat_template.jinja").read_text("utf-8")
    template = _json(folder / "tokenizer_config.json").get("chat_template")
    if not isinstance(template, str):
        raise ConfigError(f"{folder} has no chat template; name one with --template, such as --template chatml")
    return template


def _compile(text: str) -> Any:
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.globals["raise_exception"] = refuse
    try:
        return environment.from_string(text)
    except TemplateError as error:
        raise ConfigError(f"the chat template is not valid Jinja: {error}") from error


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def _stop_ids(folder: Path, tokenizer: Any) -> list[int]:
    """Stop tokens that the model's own files name: generation_config.json, config.json and the tokenizer's eos_token."""
    stops: list[int] = []
    for name in ("generation_config.json", "config.json"):
        value = _json(folder / name).get("eos_token_id")
        stops += value if isinstance(value, list) else [value] if isinstance(value, int) else []
    eos = tokenizer.token_to_id(_token_names(folder).get("eos_token", ""))
    return stops if eos is None else [*stops, eos]


def _token_names(folder: Path) -> dict[str, str]:
    """bos_token, eos_token … as a Jinja template may use them."""
    config = _json(folder / "tokenizer_config.json")
    values = {k: config[k] for k in ("bos_token", "eos_token", "unk_token", "pad_token") if config.get(k)}
    return {k: v["content"] if isinstance(v, dict) else v for k, v in values.items()}
