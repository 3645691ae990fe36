"""Corpus + tokenizer -> tokens: every document tokenized once, its bounds kept, no token lost."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zhtune.artifact import Artifact
from zhtune.building import Stage, Work, build
from zhtune.config import StageConfig
from zhtune.corpus.read import read_texts
from zhtune.corpus.tokens import write_tokens
from zhtune.errors import DataError
from zhtune.log import progress
from zhtune.models.load import chain, materialise
from zhtune.references import MODEL_KINDS
from zhtune.templates.encode import ChatEncoder

STAGE = Stage("pack", version=1, kind="tokens", inputs={"corpus": ("corpus", "file"), "model": (*MODEL_KINDS, "tokenizer")})


@dataclass(frozen=True, kw_only=True)
class PackConfig(StageConfig):
    """Tokenize a corpus for pretraining."""

    corpus: str
    """A corpus artifact, or a folder of text"""
    model: str
    """The model (or tokenizer folder) whose tokenizer is used"""


def pack(config: PackConfig) -> Artifact:
    """Write tokens.bin (uint16 or uint32) and offsets.npy. Strings that look like special tokens stay text.

    Raises:
        DataError: no document.
    """
    return build(STAGE, config, lambda work: _write(work, config))


def _write(work: Work, config: PackConfig) -> None:
    source = chain(work.sources["model"])[0]
    with tempfile.TemporaryDirectory(prefix="zhtune-") as scratch:
        has_tokenizer = source.path is not None and (source.path / "tokenizer.json").exists()
        encoder = ChatEncoder(source.path if has_tokenizer else materialise(source, Path(scratch)), chat=False)
    characters = 0

    def documents() -> Iterator[list[int]]:
        nonlocal characters
        for _, text in progress(read_texts(work.sources["corpus"].path, "part"), "pack"):
            work.counted_in += 1
            characters += len(text)
            yield [*encoder.text_ids(text), encoder.end_id]
    count, tokens = write_tokens(work.path, documents(), encoder.size)
    if count == 0:
        raise DataError("holds no document", work.sources["corpus"].path)
    work.kept = count
    work.metrics |= {"tokens": tokens, "tokens_per_character": tokens / characters}
