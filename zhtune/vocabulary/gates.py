"""Checks that every extension of a tokenizer must pass before it is written. They change nothing.

ids         the base's entries are as they were, new ids follow its highest id, added tokens included
pieces      every new token is Han characters, one of the marks, or the beginning of such a character
order       (SentencePiece) new scores are distinct, falling, and below all of the base; old pieces are as they were
parity      (SentencePiece) tokenizer.model and tokenizer.json give a line the same ids where the base's did
dead        every new token is what its own text is encoded to, with the merges and not as a looked-up whole
context     (report) new words also form behind a space or a mark
chinese     (report) Chinese lines that changed although no new token is in them
drift       text without Han characters and marks has the ids it had
round_trip  what the base gives back unchanged still comes back unchanged
reload      the written file, loaded again, encodes the same and knows every token under its id

Lines that hold a mark the base lacked are not "text without marks": they get shorter, which is why marks are added.
Where a base had not even the mark's first two bytes as a token (a byte-only tokenizer), neither are lines with other
characters that begin so (U+2000-203F, U+3000-303F, U+FF00-FF3F).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from zhtune.errors import ZhtuneError
from zhtune.text import is_han
from zhtune.tokenizers.load import BaseTokenizer, ids_of, read_object
from zhtune.tokenizers.spm import NORMAL, SentencePieceModel
from zhtune.vocabulary.extension import Extension
from zhtune.vocabulary.lines import plain_lines
from zhtune.vocabulary.pieces import MARKS, WORDS
from zhtune.vocabulary.symbols import is_text

_EXAMPLES = 5
_CONTEXTS = (" ", "，", "。", "“")


class GateFailed(ZhtuneError):
    """A tokenizer or a quantized file is not fit for use."""


@dataclass(frozen=True)
class Gate:
    """The outcome of one check."""

    name: str
    passed: bool
    numbers: dict[str, float]
    examples: list[str] = field(default_factory=list)
    """Up to five things found wrong"""


def run_gates(base: BaseTokenizer, new: BaseTokenizer, extension: Extension, texts: list[str], file: Path) -> list[Gate]:
    """All gates, in order.

    Args:
        base, new: the tokenizer before and after.
        extension: what was added.
        texts: Chinese text, for the round trip and the parity.
        file: the new tokenizer.json as it was written; the new tokenizer.model lies beside it.
    """
    before, after = load(base.definition), load(new.definition)
    merging = after
    if new.definition["model"].get("ignore_merges"):
        merging = load({**new.definition, "model": {**new.definition["model"], "ignore_merges": False}})
    plain, chinese = drift_lines(extension), _lines(texts)
    lines = [*plain, *chinese]
    gates = [check_ids(base.definition, new.definition, extension), check_pieces(extension)]
    if new.model is not None:
        gates += [check_order(base.model, new.model, extension),
                  check_parity(before, base.model, after, file.with_name("tokenizer.model"), lines)]
    return [*gates, check_dead(merging, new.definition, extension), check_context(merging, extension),
            check_drift(before, after, plain), check_chinese(before, after, extension, chinese),
            check_round_trip(before, after, lines), check_reload(after, file, extension, lines)]


def require_passed(gates: Iterable[Gate]) -> None:
    """Raise GateFailed for the first gate that did not pass, with what it found."""
    for gate in gates:
        if not gate.passed:
            numbers = ", ".join(f"{name} {number}" for name, number in gate.numbers.items())
            raise GateFailed(f"the extended tokenizer fails the gate {gate.name!r} ({numbers}), for example: "
                             f"{'; '.join(gate.examples)}")


def load(definition: dict[str, Any]) -> Any:
    """A `tokenizers.Tokenizer` of a parsed tokenizer.json, without padding and truncation; text never is a special token."""
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_str(orjson.dumps({**definition, "padding": None, "truncation": None}).decode("utf-8"))
    tokenizer.encode_special_tokens = True
    return tokenizer


def drift_lines(extension: Extension) -> list[str]:
    """Lines on which the base and the extended tokenizer must agree."""
    starts = tuple(extension.mark_helpers)

    def may_change(char: str) -> bool:
        return is_han(char) or char in MARKS or (bool(starts) and char.encode("utf-8").startswith(starts))
    return [line for line in plain_lines() if not any(map(may_change, set(line)))]


def all_lines(extension: Extension, texts: list[str]) -> list[str]:
    """What the gates are run on: lines without Chinese, and those of the texts."""
    return [*drift_lines(extension), *_lines(texts)]


def _lines(texts: list[str]) -> list[str]:
    return [line for text in texts for line in text.split("\n") if line]


def differing(tokenizer: BaseTokenizer, lines: list[str], others: list[list[int]]) -> list[str]:
    """The lines to which the tokenizer gives other ids than these."""
    return [line for line, ids, other in zip(lines, _ids(load(tokenizer.definition), lines), others, strict=True) if ids != other]


def check_ids(base: dict[str, Any], new: dict[str, Any], extension: Extension) -> Gate:
    """Base entries and added tokens unchanged, new ids contiguous behind the highest of them, no id twice."""
    old = ids_of(base)
    vocabulary = new["model"]["vocab"]
    wrong = [f"{token!r} had id {i}, has {vocabulary.get(token)}" for token, i in old.items() if vocabulary.get(token) != i]
    if new.get("added_tokens", []) != base.get("added_tokens", []):
        wrong.append("the list of added tokens has changed")
    first = max(old.values()) + 1
    added = sorted(i for token, i in vocabulary.items() if token not in old)
    wrong += [f"new token number {n} has id {i}, expected {first + n}" for n, i in enumerate(added) if i != first + n]
    if added != [token.id for token in extension.tokens]:
        wrong.append(f"{len(added)} new entries, {len(extension.tokens)} recorded")
    return _gate("ids", {"checked": len(vocabulary), "wrong": len(wrong)}, wrong)


def check_pieces(extension: Extension) -> Gate:
    """New tokens are Chinese: Han characters only, or a mark, or a helper that begins such a character."""
    wrong = [f"{t.text!r} (id {t.id}) is a {t.kind}" for t in extension.tokens
             if t.kind != "helper" and not (all(map(is_han, t.text)) or t.text in MARKS)]
    wrong += [f"helper {t.token!r} (id {t.id}) is whole text" for t in extension.tokens if t.kind == "helper" and is_text(t.token)]
    return _gate("pieces", {"checked": len(extension.tokens), "wrong": len(wrong)}, wrong)


def check_order(base: SentencePieceModel, new: SentencePieceModel, extension: Extension) -> Gate:
    """Pieces, types and scores of the base unchanged; scores of new pieces, in 32 bits, fall and are below all of the base."""
    wrong = [f"piece {i} was {old}, is {now}" for i, (old, now) in enumerate(zip(base.pieces, new.pieces, strict=False)) if old != now]
    added = new.pieces[extension.base_size:]
    wrong += [f"new piece {number} is {piece.text!r}, recorded is {token.text!r}"
              for number, (piece, token) in enumerate(zip(added, extension.tokens, strict=False)) if piece.text != token.text]
    # Runs of spaces have scores of -1e9 in LLaMA and are merged last in any case.
    last = min((p.score for p in base.pieces if p.type == NORMAL and p.score > -1e8), default=0.0)
    for piece in added:
        if piece.score >= last:
            wrong.append(f"{piece.text!r} has score {piece.score}, expected one below {last}")
        last = piece.score
    return _gate("order", {"checked": len(added), "wrong": len(wrong)}, wrong)


def check_parity(before: Any, base: SentencePieceModel, after: Any, model: Path, lines: list[str]) -> Gate:
    """The sentencepiece library reads the written tokenizer.model and gives each line the ids of tokenizer.json.

    Lines on which the base's two already differ do not count (they hold an added token that its model does not know).
    """
    from sentencepiece import SentencePieceProcessor
    old = SentencePieceProcessor(model_proto=base.data).encode(lines)
    agreed = [line for line, ids, other in zip(lines, _ids(before, lines), old, strict=True) if ids == other]
    expected = SentencePieceProcessor(model_file=str(model)).encode(agreed)
    wrong = [f"{line!r} is {ids}, in tokenizer.model {other}"
             for line, ids, other in zip(agreed, _ids(after, agreed), expected, strict=True) if ids != other]
    return _gate("parity", {"lines": len(lines), "base_differs": len(lines) - len(agreed), "differ": len(wrong)}, wrong)


def check_dead(merging: Any, new: dict[str, Any], extension: Extension) -> Gate:
    """Each new token's own text is encoded to it alone; a helper is the left side of a merge whose product exists."""
    whole = [t for t in extension.tokens if t.kind != "helper"]
    # A SentencePiece tokenizer puts ▁ before a text; behind a line feed it is out of the way.
    lead = "\n" if extension.family == "sentencepiece" else ""
    encoded, skip = _ids(merging, [lead + t.text for t in whole]), len(_ids(merging, [lead])[0])
    wrong = [f"{t.text!r} (id {t.id}) is encoded to {ids[skip:]}" for t, ids in zip(whole, encoded, strict=True) if ids[skip:] != [t.id]]
    lefts = {m.split(" ")[0] if isinstance(m, str) else m[0] for m in new["model"]["merges"]}
    wrong += [f"helper {t.token!r} (id {t.id}) begins no merge" for t in extension.tokens
              if t.kind == "helper" and t.token not in lefts]
    return _gate("dead", {"checked": len(extension.tokens), "dead": len(wrong)}, wrong)


def check_context(merging: Any, extension: Extension) -> Gate:
    """How many new words do not form behind a space, a comma, a full stop, a quotation mark. A report: it always passes."""
    words = [t for t in extension.tokens if t.kind in WORDS]
    numbers, examples = {"words": len(words)}, []
    for mark in _CONTEXTS:
        missed = [t for t, ids in zip(words, _ids(merging, [mark + t.text for t in words]), strict=True) if ids[-1:] != [t.id]]
        numbers[f"missed_after_{'space' if mark == ' ' else mark}"] = len(missed)
        examples += [mark + t.text for t in missed[:2]]
    return Gate("context", True, numbers, examples[:_EXAMPLES])


def check_drift(before: Any, after: Any, lines: list[str]) -> Gate:
    """The same ids for every line."""
    pairs = zip(lines, _ids(before, lines), _ids(after, lines), strict=True)
    wrong = [f"{line!r} was {old}, is {new}" for line, old, new in pairs if old != new]
    return _gate("drift", {"lines": len(lines), "changed": len(wrong)}, wrong)


def check_chinese(before: Any, after: Any, extension: Extension, lines: list[str]) -> Gate:
    """How many lines have other ids although none of them is new. A report: it always passes."""
    changed = [repr(line) for line, old, new in zip(lines, _ids(before, lines), _ids(after, lines), strict=True)
               if old != new and max(new, default=0) < extension.base_size]
    return Gate("chinese", True, {"lines": len(lines), "changed": len(changed), "lost_base_tokens": len(extension.lost)},
                [line[:200] for line in changed[:_EXAMPLES]])


def check_round_trip(before: Any, after: Any, lines: list[str]) -> Gate:
    """Lines that the base decodes to themselves must still decode to themselves; what it loses anyway does not count."""
    def returns(tokenizer: Any) -> list[bool]:
        decoded = tokenizer.decode_batch(_ids(tokenizer, lines), skip_special_tokens=False)
        return [text == line for text, line in zip(decoded, lines, strict=True)]
    old, new = returns(before), returns(after)
    wrong = [repr(line) for line, was, now in zip(lines, old, new, strict=True) if was and not now]
    return _gate("round_trip", {"lines": len(lines), "base_fails": old.count(False), "new_failures": len(wrong)}, wrong)


def check_reload(after: Any, file: Path, extension: Extension, lines: list[str]) -> Gate:
    """The file loads, knows new and added tokens under their ids and encodes the lines alike."""
    written = read_object(file)
    loaded, expected = load(written), {t["content"]: t["id"] for t in written.get("added_tokens", [])}
    expected |= {t.token: t.id for t in extension.tokens}
    wrong = [f"{token!r} is {loaded.token_to_id(token)}, expected {i}" for token, i in expected.items()
             if loaded.token_to_id(token) != i]
    wrong += [repr(line) for line, a, b in zip(lines, _ids(after, lines), _ids(loaded, lines), strict=True) if a != b]
    return _gate("reload", {"lines": len(lines), "differ": len(wrong)}, wrong)


def _ids(tokenizer: Any, lines: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(lines, add_special_tokens=False)]


def _gate(name: str, numbers: dict[str, int], wrong: list[str]) -> Gate:
    return Gate(name, not wrong, numbers, [text if len(text) <= 200 else text[:200] + "…" for text in wrong[:_EXAMPLES]])
