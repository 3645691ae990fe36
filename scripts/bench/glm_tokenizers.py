"""tokenizer.json of ChatGLM-6B and ChatGLM3 against SentencePiece with the published pre- and post-processing, on real text.

    python scripts/bench/glm_tokenizers.py --data ../shared/data

Every line of every file, and every string in its JSON as a whole (line breaks, tabs and runs of spaces are what ChatGLM-6B
treats on its own). Compared are the ids of zhtune's encoder, those of tokenizer.json alone, and the text that they give back.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import sentencepiece
import tokenizers
from tokenizers import Tokenizer

from zhtune.tokenizers.glm import chatglm6b_definition, chatglm_definition, exact_ids
from zhtune.tokenizers.spm import read_spm

FOLDERS = ("sft", "corpus")
MODELS = {"chatglm6b": "ice_text.model", "chatglm3": "tokenizer.model"}
_BATCH = 2000


def published_ids(processor: sentencepiece.SentencePieceProcessor, name: str, text: str) -> list[int]:
    """What tokenization_chatglm.py gives to a text without control tokens."""
    if name == "chatglm6b":
        text = text.replace("\n", "<n>").replace("\t", "<|tab|>")
        for length in range(80, 1, -1):
            text = text.replace(" " * length, f"<|blank_{length}|>")
    return processor.encode(text)


def published_text(processor: sentencepiece.SentencePieceProcessor, name: str, ids: list[int]) -> str:
    """The text of an answer: decoding, then for ChatGLM-6B what process_response does to marks."""
    text = processor.decode(ids)
    if name == "chatglm6b":
        text = text.replace("<n>", "\n").replace("<|tab|>", "\t")
        for length in range(2, 81):
            text = text.replace(f"<|blank_{length}|>", " " * length)
        for mark, wide in ((",", "，"), ("!", "！"), (":", "："), (";", "；"), (r"\?", "？")):
            text = re.sub(f"([\u4e00-\u9fff]){mark}", rf"\1{wide}", text)
            text = re.sub(f"{mark}([\u4e00-\u9fff])", rf"{wide}\1", text)
    return text


def fast_tokenizer(path: Path, name: str) -> Tokenizer:
    """As zhtune's encoder encodes a user's text: without control tokens."""
    model = read_spm(path)
    definition = chatglm6b_definition(model) if name == "chatglm6b" else chatglm_definition(model, name)
    return Tokenizer.from_str(json.dumps({**definition, "added_tokens": []}))


def encoder(path: Path, name: str) -> Callable[[str], list[int]]:
    """What zhtune's encoder does to a text in a converted folder."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "tokenizer.model").write_bytes(path.read_bytes())
        fast = fast_tokenizer(path, name)
        exact = exact_ids(folder, json.loads(fast.to_str()))
    return exact or (lambda text: fast.encode(text).ids)


def texts(data: Path, folders: tuple[str, ...] = FOLDERS) -> Iterator[tuple[str, str]]:
    """(file, text): lines as they are, then the strings of JSON."""
    for path in sorted(p for folder in folders for p in (data / folder).rglob("*") if p.is_file()):
        raw = path.read_bytes()
        text = raw.decode("utf-8-sig") if _is_utf8(raw) else raw.decode("gb18030")
        name = path.relative_to(data).as_posix()
        yield from ((name, line) for line in text.split("\n"))
        if path.suffix in (".json", ".jsonl"):
            yield from ((name, value) for value in _strings(_parsed(text)))


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _parsed(text: str) -> list[object]:
    """One JSON value, or one a line; some of the files named .json have these."""
    try:
        return [json.loads(text)]
    except json.JSONDecodeError:
        return [json.loads(line) for line in text.split("\n") if line.strip()]


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def compare(data: Path, name: str, found: list[str]) -> None:
    """Print the counts of one tokenizer, and examples."""
    path = data / "tokenizers" / name / MODELS[name]
    processor, fast, text_ids = sentencepiece.SentencePieceProcessor(model_file=str(path)), fast_tokenizer(path, name), encoder(path, name)
    began, tokens = time.perf_counter(), 0
    wrong: dict[str, list[str]] = {"ids": [], "ids of tokenizer.json": [], "of them other pieces": [], "text": []}
    for start in range(0, len(found), _BATCH):
        batch = found[start:start + _BATCH]
        theirs = [published_ids(processor, name, text) for text in batch]
        tokens += sum(map(len, theirs))
        decoded = fast.decode_batch(theirs, skip_special_tokens=False)
        for text, ids, ours, back in zip(batch, theirs, fast.encode_batch(batch), decoded, strict=True):
            wrong["ids"] += [text] * (text_ids(text) != ids)
            wrong["ids of tokenizer.json"] += [text] * (ours.ids != ids)
            wrong["of them other pieces"] += [text] * (sorted(ours.ids) != sorted(ids))
            wrong["text"] += [text] * (back != published_text(processor, name, ids))
    counts = ", ".join(f"{len(texts)} {what}" for what, texts in wrong.items())
    print(f"{name}: {len(found):,} texts, {sum(map(len, found)):,} characters, {tokens:,} tokens; different: {counts}; "
          f"{time.perf_counter() - began:.0f} s")
    for what, examples in wrong.items():
        for text in examples[:5]:
            print(f"   {what}: {text[:160]!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with sft, corpus and tokenizers")
    data = parser.parse_args().data
    found = sorted({text for _, text in texts(data)})
    for name in MODELS:
        compare(data, name, found)
    print(f"sentencepiece {sentencepiece.__version__}, tokenizers {tokenizers.__version__}, Python {platform.python_version()}")


if __name__ == "__main__":
    main()
