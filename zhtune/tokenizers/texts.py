"""Many texts -> ids by tiktoken, where that gives what tokenizers gives. Knows no special tokens: they stay text.

tiktoken is three to five times as fast as tokenizers. It is taken where it gives the same ids: the merges of a byte-level
BPE are those that its own rule leads to (see ranks.py), and a sample of texts has equal ids, which is about the pattern
of pre-tokens and NFC, for which it has other libraries.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import partial
from typing import Any

from zhtune.tokenizers.ranks import rank_merges
from zhtune.vocabulary.symbols import to_bytes

Encode = Callable[[list[str]], list[list[int]]]
_GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def faster_encoder(definition: dict[str, Any], texts: list[str], ids: list[list[int]]) -> Encode | None:
    """What gives the ids of texts by tiktoken; None where it is not installed, cannot do what the tokenizer does, or gives other ids.

    Args:
        definition: parsed tokenizer.json.
        texts: a sample.
        ids: of each of them.
    """
    if any(not token["special"] and not token["content"].strip() for token in definition["added_tokens"]):
        return None                                         # Gemma's runs of spaces are found in text
    pattern = _pattern(definition)
    ranks = _ranks(definition) if pattern else None
    if not ranks:
        return None
    try:
        import tiktoken
    except ModuleNotFoundError:
        return None
    encoding = tiktoken.Encoding("corpus", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    encode = partial(_encode, encoding, definition["normalizer"] is not None)
    return encode if encode(texts) == ids else None


def _encode(encoding: Any, nfc: bool, texts: list[str]) -> list[list[int]]:
    if nfc:
        texts = [unicodedata.normalize("NFC", text) for text in texts]
    return [encoding.encode_ordinary(text) for text in texts]


def _pattern(definition: dict[str, Any]) -> str | None:
    """The pattern of pre-tokens, where that and NFC are all that is done to a text before its merges."""
    steps = definition.get("pre_tokenizer") or {}
    steps = steps["pretokenizers"] if steps.get("type") == "Sequence" else [steps]
    split, level = steps if len(steps) == 2 else (None, steps[0])
    if level.get("type") != "ByteLevel" or level.get("add_prefix_space") or level.get("use_regex", True) is (split is not None):
        return None
    if (definition.get("normalizer") or {"type": "NFC"}) != {"type": "NFC"}:
        return None
    if split is None:
        return _GPT2
    plain = split.get("type") == "Split" and split.get("behavior") == "Isolated" and not split.get("invert")
    return split["pattern"].get("Regex") if plain else None


def _ranks(definition: dict[str, Any]) -> dict[bytes, int] | None:
    """Bytes -> id, where joining the two neighbours of the lowest id is what the merges say."""
    model = definition["model"]
    if model.get("type") != "BPE" or any(model.get(key) for key in
                                         ("dropout", "byte_fallback", "continuing_subword_prefix", "end_of_word_suffix")):
        return None
    pairs = [pair if isinstance(pair, list) else pair.split(" ") for pair in model["merges"]]
    reachable = {"".join(pair) for pair in pairs}
    tokens = {symbols: id_ for symbols, id_ in model["vocab"].items() if len(symbols) == 1 or symbols in reachable or model.get("ignore_merges")}
    ranks = {data: id_ for symbols, id_ in sorted(tokens.items(), key=lambda item: item[1]) if (data := to_bytes(symbols)) is not None}
    if len({data for data in ranks if len(data) == 1}) != 256:
        return None
    merges, unreached = rank_merges(list(ranks))
    listed = [(to_bytes(left), to_bytes(right)) for left, right in pairs]
    # More pairs than those (Llama 3 lists every split of a token) never meet in a text, but all stand in the order of what they make.
    made = [ranks.get(left + right, -1) if left and right else -1 for left, right in listed]
    proven = set(merges) <= set(listed) and made == sorted(made) and -1 not in made
    return ranks if proven and (model.get("ignore_merges") or not unreached) else None
