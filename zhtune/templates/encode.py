"""The one encoder: messages -> token ids and loss mask. Training, evaluation and serving all call it.

A chat template is rendered with placeholders where the messages' texts stand (render.py). Tokens are cut out of control
text only; the texts are encoded by a tokenizer that knows no special tokens. So user text never becomes a control token.
What lies between two tokens is encoded in one go, as published models saw it, but an answer is encoded apart from what
stands before it: a prompt is the beginning of the sample, and an answer has the same ids in every conversation.

    <|im_start|>user\\n今天挂什么科？<|im_end|>\\n<|im_start|>assistant\\n  内科。<|im_end|>  \\n
    token       text             token     text token       text          answer           text
    mask 0                                                                1                0

An answer is what stands between the prompt and the next special token, that one included: also the thinking, the calls of
tools, and what the template itself puts before the content. A template's variable `cut` divides a text (ChatGLM3 encodes
role line and content apart), from `target` on a prompt is trained too (the <sop> of ChatGLM-6B).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zhtune.errors import ConfigError, DataError
from zhtune.templates.render import CLOSE, CUT, MARK, OPEN, TARGET, Conversation, Template, named_template, read_json, template_of
from zhtune.tokenizers.glm import exact_ids

__all__ = ["ChatEncoder", "Sample", "named_template"]

_LEARN, _LEARNT = "\ue004", "\ue005"                        # private-use marks around what is trained
_DIVIDERS = (CUT, TARGET, _LEARN, _LEARNT)
_TOKEN = re.compile(r"<\|[^|<>\s]+\|>|\[gMASK\]|<[se]op>")  # what a shipped template means as a token
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")
_ASK, _TELL = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
_CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}


@dataclass(frozen=True)
class Sample:
    """One conversation as token ids, with the positions whose prediction is trained."""

    ids: list[int]
    """(tokens,)"""
    mask: list[bool]
    """(tokens,): True for an assistant's answer and its end-of-turn token"""


class ChatEncoder:
    """Encodes conversations for one tokenizer and one chat template.

    Messages are `{"role", "content"}`; optional are `reasoning`, `tool_calls` and `train` (false: no loss on this answer),
    and `tools` in the first message.

    Args:
        folder: holds tokenizer.json, and chat_template.jinja or a template in tokenizer_config.json.
        template: the name of one in prompts/chat; it goes before all others.
        adapters: folders of adapters on the model, first to last; a template of the last goes before the model's.
        chat: False for texts alone: without a template, documents end with the tokenizer's end of text.
        usual: the template to suggest where there is none.
        stops: special tokens that end answers of such models, besides those that its files name; the tokenizer may lack some.

    Raises:
        ConfigError: no tokenizer.json, no or an unusable template.
    """

    def __init__(self, folder: Path, template: str = "", adapters: Sequence[Path] = (), chat: bool = True, usual: str = "",
                 stops: Sequence[str] = ()):
        from tokenizers import AddedToken, Tokenizer
        file = folder / "tokenizer.json"
        if not file.exists():
            raise ConfigError(f"{folder} has no tokenizer.json")
        definition = json.loads(file.read_text("utf-8"))
        self._control = Tokenizer.from_file(str(file))
        self._control.no_padding()
        self._control.no_truncation()
        added = {t["content"]: t for t in definition["added_tokens"]}
        self._added = {text: t["id"] for text, t in added.items()}
        self._special = {t["id"] for t in added.values() if t["special"]}
        self._plain = Tokenizer(self._control.model)        # shares the vocabulary: a second reading takes seconds
        self._plain.normalizer, self._plain.pre_tokenizer = self._control.normalizer, self._control.pre_tokenizer
        self._plain.add_tokens([AddedToken(text, **{name: t[name] for name in _FLAGS})                  # Gemma's runs of spaces
                                for text, t in added.items() if not t["special"] and not text.strip()])
        self._bytes = _byte_tokens(definition)
        self._exact = exact_ids(folder, definition)
        self._ids = set(self._control.get_vocab(with_added_tokens=True).values())
        self._bos = self._control.encode("").ids            # what the tokenizer itself would put in front
        self.spaced = self.decode(self.text_ids("a") * 2) == "a a"
        """Whether the tokenizer puts a space before every text, and its decoder takes it away"""
        self._split = re.compile(f"({OPEN}[^{CLOSE}]*{CLOSE}|{_alternatives(_DIVIDERS)}|{_alternatives(added)})")
        self._ends = re.compile(_alternatives(text for text, t in added.items() if t["special"]))
        self._stops = _stop_ids(folder, self._control)
        self.template_text = named_template(template) if template else next(filter(None, map(template_of, (*reversed(adapters), folder))), "")
        self._template: Template | None = None
        self._lead, self.last_only = "", False
        if self.template_text or chat:
            self._open_template(folder, template, usual or "chatml")
            self.stop_ids = sorted({*self.stop_ids, *(self._added[token] for token in stops if self._added.get(token) in self._special)})
        elif self._stops:
            self.end_id, self.stop_ids = self._stops[-1], sorted(set(self._stops))
        else:
            raise ConfigError(f"{folder} says of no token that it ends a text; its tokenizer_config.json needs an eos_token")

    def _open_template(self, folder: Path, name: str, usual: str) -> None:
        if not self.template_text:
            raise ConfigError(f"{folder} has no chat template; name one with --template, such as --template {usual}")
        self._template = Template(self.template_text, _token_names(folder))
        _, rendered, answers = self._rendered([_ASK, _TELL])
        if name and (absent := [t for t in _TOKEN.findall(rendered) if t not in self._added]):
            raise ConfigError(f"--template {name} needs the token {absent[0]}, which the tokenizer of {folder} has not; choose another one")
        if not answers:
            raise ConfigError("the chat template does not end an assistant's turn with a special token of the tokenizer; "
                              "choose another one with --template")
        start, end = answers[1]
        lead, _, after = MARK.sub(OPEN, rendered[start:end]).rpartition(OPEN)
        self._lead = self._ends.sub("", lead.replace(CUT, ""))
        """What the template puts between a prompt and the content of the answer"""
        self.end_id = self._added[self._ends.findall(after)[-1]]
        self.last_only = self._only_last_is_whole()
        """Whether earlier answers stand otherwise than when they were given: as mere text, without their thinking"""
        others = [*self._turn_ends([_ASK, _TELL, _ASK]), *self._turn_ends([_ASK, _CALL, {**_ASK, "role": "tool"}])]
        self.stop_ids = sorted({self.end_id, *self._stops, *others})

    def sample(self, messages: list[dict[str, Any]]) -> Sample:
        """Ids and loss mask of a whole conversation; only assistant messages without `"train": false` are trained.

        With a template that is `last_only` it is the last of them alone: give the conversation up to each answer.

        Raises:
            DataError: the template cannot express the conversation.
        """
        conversation, rendered, answers = self._rendered(messages)
        trained = {i for i in answers if messages[i].get("train", True) and not (self.last_only and i < max(answers))}
        return self._encode(conversation, self._marked(rendered, answers, trained))

    def prompt(self, messages: list[dict[str, Any]]) -> list[int]:
        """Ids of a conversation that the model is to answer: the beginning of the same sample, up to the answer."""
        conversation, rendered, answers = self._rendered(messages, answering=True)
        return self._encode(conversation, self._marked(rendered, answers, set())).ids

    def text_ids(self, text: str) -> list[int]:
        """Ids of plain text; strings that look like special tokens stay text."""
        return self._exact(text) if self._exact else self._plain.encode(text, add_special_tokens=False).ids

    def texts_ids(self, texts: list[str]) -> list[list[int]]:
        """The same of many texts; of most tokenizers without the interpreter's lock."""
        if self._exact:
            return list(map(self._exact, texts))
        return [encoding.ids for encoding in self._plain.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens left out; bytes that are no UTF-8 are U+FFFD, and change nothing before them."""
        if not self._bytes:
            return self._control.decode(ids, skip_special_tokens=True)
        tokens, pending = [], bytearray()
        for i in (*ids, -1):                                # the decoder would give up all bytes of a run for one that is wrong
            if i in self._bytes:
                pending.append(self._bytes[i])
                continue
            if pending:
                tokens.append(pending.decode("utf-8", "replace"))
                pending.clear()
            if i not in self._special and (token := self._control.id_to_token(i) if i >= 0 else None):
                tokens.append(token)
        return self._control.decoder.decode(tokens)

    def answer(self, ids: Sequence[int]) -> str:
        """Text of generated ids, as a message's content."""
        return self.content(self.decode(ids))

    def content(self, text: str) -> str:
        """A generated text without what the template itself puts before the content: a line break, an empty thinking block."""
        if not self._lead or not text.startswith(self._lead):
            return "" if self._lead.startswith(text) else text
        return text[len(self._lead):].removeprefix(" " if self.spaced else "")

    @property
    def leads(self) -> bool:
        """Whether the template itself begins answers with what is no content."""
        return bool(self._lead)

    @property
    def size(self) -> int:
        """Ids that the tokenizer can produce are below this; there may be gaps."""
        return max(self._ids) + 1

    def unused(self, rows: int) -> list[int]:
        """Ids below `rows` that no token has: the padded rows of a model, and gaps before them."""
        return [i for i in range(rows) if i not in self._ids]

    def _rendered(self, messages: list[dict[str, Any]], answering: bool = False) -> tuple[Conversation, str, dict[int, tuple[int, int]]]:
        """The conversation with placeholders, its rendered text, and where the answers stand in that."""
        if self._template is None:
            raise ConfigError("the model has no chat template; name one with --template")
        conversation = Conversation(messages, self._ends)
        rendered = self._template.render(conversation, answering)
        conversation.require_whole(rendered)
        return conversation, rendered, self._answers(conversation, rendered)

    def _answers(self, conversation: Conversation, rendered: str) -> dict[int, tuple[int, int]]:
        """Where the answers stand in the rendered text, from the end of their prompt to behind the token that ends them."""
        found = {}
        marks = [(m.start(), m.end(), m[1]) for m in MARK.finditer(rendered)]
        for i, message in enumerate(conversation.messages):
            if message["role"] != "assistant":
                continue
            own = next((start for start, _, key in marks if key == str(i)), -1)
            try:
                prompt = self._template.render(conversation, True, i)
            except DataError:                               # an answer without a question
                prompt = OPEN + OPEN
            start = len(prompt) if rendered.startswith(prompt) else own
            if start < 0:
                continue
            later = {key for j in range(i + 1, len(conversation.messages)) for key in (str(j), f"{j}r")}
            stop = next((begin for begin, _, key in marks if begin >= start and key in later), len(rendered))
            last = max((end for begin, end, _ in marks if start <= begin < stop), default=start)
            if end := self._ends.search(rendered, last, stop):
                found[i] = start, end.end()
        return found

    def _only_last_is_whole(self) -> bool:
        _, rendered, answers = self._rendered([_ASK, _TELL] * 2)
        bodies = [self._ends.sub("", MARK.sub("", rendered[start:end])) for start, end in answers.values()]
        return len(bodies) < 2 or bodies[0] != bodies[1]

    def _turn_ends(self, messages: list[dict[str, Any]]) -> list[int]:
        """Tokens that end the answers of a conversation; none where the template refuses it."""
        try:
            _, rendered, answers = self._rendered(messages)
        except DataError:
            return []
        return [self._added[self._ends.findall(rendered[start:end])[-1]] for start, end in answers.values()]

    def _marked(self, rendered: str, answers: dict[int, tuple[int, int]], trained: set[int]) -> str:
        """The rendered text, divided at the answers, with marks around what is trained."""
        for i in sorted(answers, reverse=True):
            start, end = answers[i]
            before, body = rendered[:start], rendered[start:end]
            if self.spaced and body.startswith(f" {OPEN}"):
                body = body[1:]                             # the tokenizer puts a space before every text by itself
            if i in trained and (place := before.rfind(TARGET)) >= 0:
                before, body = before[:place], before[place:] + body
            rendered = before + (f"{_LEARN}{body}{_LEARNT}" if i in trained else f"{CUT}{body}") + rendered[end:]
        return rendered

    def _encode(self, conversation: Conversation, marked: str) -> Sample:
        """Ids and mask of a rendered text, the tokenizer's own beginning in front of it if it is not there."""
        ids, mask, run, learning = [], [], "", False
        for part in (*self._split.split(marked), CUT):
            if part not in self._added and part not in _DIVIDERS:
                run += conversation.texts[part[1:-1]] if part[:1] == OPEN else part
                continue
            new = [*(self.text_ids(run) if run else []), *([self._added[part]] if part in self._added else [])]
            ids += new
            mask += [learning] * len(new)
            run, learning = "", part == _LEARN or (learning and part != _LEARNT)
        if self._bos and ids[:len(self._bos)] != self._bos:
            return Sample([*self._bos, *ids], [*[False] * len(self._bos), *mask])
        return Sample(ids, mask)


def with_tools(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """A record's messages with its tools, as the encoder and the engines take them: in the first message."""
    return [{**messages[0], "tools": tools}, *messages[1:]] if tools else messages


def answered(messages: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """A conversation up to each answer that is to be trained; as it is where there is none."""
    ends = [i for i, m in enumerate(messages, 1) if m["role"] == "assistant" and m.get("train", True)]
    return [messages[:i] for i in ends] or [messages]


def _alternatives(texts: Iterable[str]) -> str:
    """A regular expression of fixed texts, the longest first; one that matches nothing for none."""
    return "|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or "(?!)"


def _byte_tokens(definition: dict[str, Any]) -> dict[int, int]:
    """Id -> byte, of a tokenizer that spells unknown characters in bytes."""
    vocabulary = definition["model"]["vocab"] if definition["model"].get("byte_fallback") else {}
    tokens = vocabulary.items() if isinstance(vocabulary, dict) else ((piece, i) for i, (piece, _) in enumerate(vocabulary))
    return {i: int(piece[3:5], 16) for piece, i in tokens if re.fullmatch("<0x[0-9A-F]{2}>", piece)}


def _stop_ids(folder: Path, tokenizer: Any) -> list[int]:
    """Stop tokens that the model's own files name: generation_config.json, config.json and, last, the tokenizer's eos_token."""
    stops: list[int] = []
    for name in ("generation_config.json", "config.json"):
        value = read_json(folder / name).get("eos_token_id")
        stops += value if isinstance(value, list) else [value] if isinstance(value, int) else []
    eos = tokenizer.token_to_id(_token_names(folder).get("eos_token", ""))
    return stops if eos is None else [*stops, eos]


def _token_names(folder: Path) -> dict[str, str]:
    """bos_token, eos_token … as a Jinja template may use them."""
    config = {**read_json(folder / "special_tokens_map.json"), **read_json(folder / "tokenizer_config.json")}
    values = {k: config[k] for k in ("bos_token", "eos_token", "unk_token", "pad_token") if config.get(k)}
    return {k: v["content"] if isinstance(v, dict) else v for k, v in values.items()}
