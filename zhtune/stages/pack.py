"""Corpora + tokenizer -> tokens: every document tokenized once, its bounds kept, no token lost; several corpora are mixed."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from zhtune.artifact import Artifact
from zhtune.building import Stage, Work, build
from zhtune.config import StageConfig
from zhtune.corpus import mixing
from zhtune.corpus.read import read_texts
from zhtune.corpus.tokens import TokenFile, write_tokens
from zhtune.errors import ConfigError, DataError
from zhtune.log import logger, progress
from zhtune.models.load import chain, materialise
from zhtune.references import MODEL_KINDS, Source
from zhtune.templates.encode import ChatEncoder
from zhtune.tokenizers.load import fingerprint, read_object
from zhtune.tokenizers.texts import Encode, faster_encoder

STAGE = Stage("pack", version=2, kind="tokens", inputs={"corpus": ("corpus", "file"), "model": (*MODEL_KINDS, "tokenizer")})
_BATCH = 250                                                # documents handed to a thread at once
_SAMPLE = 300                                               # documents whose ids prove the faster way
_LARGE = 4_000_000                                          # characters from which the proof, seconds for 150,000 tokens, pays
_ESTIMATED = 100                                            # documents of each corpus that say its tokens per character


@dataclass(frozen=True, kw_only=True)
class PackConfig(StageConfig):
    """Tokenize a corpus for pretraining, or mix several."""

    corpus: str | list[str]
    """A corpus artifact, or a folder of text; several are mixed, their documents in an order drawn from the seed"""
    model: str
    """The model (or tokenizer folder) whose tokenizer is used"""
    weights: list[float] = field(default_factory=list)
    """Of each corpus: its share of the mix in tokens, in any unit; none: by size and --temperature"""
    temperature: float = 1.0
    """Without weights a corpus has the share size ** (1 / temperature): 1 takes all as they are, more evens them out"""
    max_epochs: float = 4.0
    """A corpus stands in the mix so often at most; what it cannot give the others give (Muennighoff et al. 2023: four are harmless)"""
    total_tokens: int = 0
    """Size of the mix; 0 for as much as all corpora hold"""

    def check(self) -> None:
        if self.weights and self.temperature != 1:
            raise ConfigError("--temperature makes weights of sizes: give it or --weights, not both")
        if self.temperature < 1:
            raise ConfigError(f"--temperature is at least 1, found {self.temperature}")
        if self.max_epochs <= 0:
            raise ConfigError(f"--max_epochs is above 0, found {self.max_epochs}")
        if self.total_tokens < 0:
            raise ConfigError(f"--total_tokens is 0 or more, found {self.total_tokens}")


def pack(config: PackConfig) -> Artifact:
    """Write tokens.bin (uint16 or uint32) and offsets.npy. Strings that look like special tokens stay text.

    Raises:
        DataError: no document.
        ConfigError: weights and epochs that no mix can have.
    """
    return build(STAGE, config, lambda work: _write(work, config))


def _write(work: Work, config: PackConfig) -> None:
    source = chain(work.sources["model"])[0]
    with tempfile.TemporaryDirectory(prefix="zhtune-") as scratch:
        has_tokenizer = source.path is not None and (source.path / "tokenizer.json").exists()
        folder = source.path if has_tokenizer else materialise(source, Path(scratch))
        encoder, definition = ChatEncoder(folder, chat=False), read_object(folder / "tokenizer.json")
    work.resolved["tokenizer"] = fingerprint(definition)
    sources = work.given("corpus")
    mixed = len(sources) > 1 or config.total_tokens > 0
    names = _names(sources)
    if mixed:
        _announce(mixing.plan(names, _estimates(sources, encoder.texts_ids), config.weights, config.temperature, config.max_epochs,
                              config.total_tokens, estimated=True))
    elif config.weights:
        raise ConfigError("--weights are for several corpora: name them with --corpus A B, or leave the weights out")
    folders = [work.path / "checkpoints" / str(i) if mixed else work.path for i in range(len(sources))]
    made = [_tokenise(work, s, f, definition, encoder, config.workers) for s, f in zip(sources, folders, strict=True)]
    tokens = [tokens for tokens, _ in made]
    work.kept = work.counted_in
    work.metrics |= {"tokens": sum(tokens), "tokens_per_character": sum(tokens) / max(sum(characters for _, characters in made), 1)}
    if mixed:
        parts = mixing.plan(names, tokens, config.weights, config.temperature, config.max_epochs, config.total_tokens)
        _mix(work, config, parts, folders, encoder.size)


def _tokenise(work: Work, source: Source, folder: Path, definition: dict[str, Any], encoder: ChatEncoder, workers: int) -> tuple[int, int]:
    """Write one corpus; (tokens, characters)."""
    folder.mkdir(parents=True, exist_ok=True)
    characters = 0

    def texts() -> Iterator[str]:
        nonlocal characters
        for _, text in progress(read_texts(source.path, "part"), "pack"):
            work.counted_in += 1
            characters += len(text)
            yield text
    given = definition if _characters(source) >= _LARGE else None
    documents = ([*ids, encoder.end_id] for ids in _encoded(texts(), encoder.texts_ids, given, workers))
    count, tokens = write_tokens(folder, documents, encoder.size)
    if count == 0 or characters == 0:
        raise DataError("holds no document" if count == 0 else "holds no text", source.path)
    return tokens, characters


def _encoded(texts: Iterator[str], encode: Encode, definition: dict[str, Any] | None, workers: int) -> Iterator[list[int]]:
    """Ids of each text, in order, encoded by threads; after a sample in a faster way, where that gives the same.

    Args:
        definition: of the tokenizer; None for a corpus that is too small for a faster way to pay.
    """
    sample = list(islice(texts, _SAMPLE))
    ids = encode(sample)
    yield from ids
    if definition and len(sample) == _SAMPLE:
        encode = faster_encoder(definition, sample, ids) or encode
    with ThreadPoolExecutor(max(workers, 1)) as threads:    # the libraries let go of the GIL
        waiting: deque = deque()
        while batch := list(islice(texts, _BATCH)):
            waiting.append(threads.submit(encode, batch))
            if len(waiting) > 2 * max(workers, 1):
                yield from waiting.popleft().result()
        for future in waiting:
            yield from future.result()


def _names(sources: list[Source]) -> list[str]:
    """What the corpora are called in plan and manifest: their folders' names, numbered where two have one."""
    names = [source.path.name for source in sources]
    return [name if names.count(name) == 1 else f"{name}.{i}" for i, name in enumerate(names)]


def _estimates(sources: list[Source], encode: Encode) -> list[float]:
    """Tokens of each corpus, from its characters and its first documents."""
    sizes = []
    for source in sources:
        sample = [text for _, text in islice(read_texts(source.path, "part"), _ESTIMATED)]
        sizes.append(_characters(source) * sum(map(len, encode(sample))) / max(sum(map(len, sample)), 1))
    return sizes


def _characters(source: Source) -> float:
    """About how many a corpus has."""
    if source.manifest:
        return source.manifest["metrics"]["characters"]
    files = [p for p in source.path.rglob("*") if p.is_file()] if source.path.is_dir() else [source.path]
    return sum(p.stat().st_size for p in files) / 3         # Chinese has three bytes a character


def _announce(parts: list[mixing.Part]) -> None:
    total = sum(part.size * part.epochs for part in parts)
    logger.info("mix of about %s tokens:", f"{total:,.0f}")
    for part in parts:
        logger.info("  %s: about %s tokens, %.2f epochs; share wanted %.3f, reached %.3f", part.name, f"{part.size:,.0f}", part.epochs,
                    part.wanted, part.size * part.epochs / total)


def _mix(work: Work, config: PackConfig, parts: list[mixing.Part], folders: list[Path], vocabulary: int) -> None:
    """Write the mix of what was tokenized, and tell the shares that came of it."""
    files = [TokenFile(folder) for folder in folders]
    sizes = [len(file.offsets) - 1 for file in files]
    corpora, numbers = mixing.draw(sizes, [part.epochs for part in parts], config.seed)
    _, total = write_tokens(work.path, (files[c][n] for c, n in zip(corpora.tolist(), numbers.tolist())), vocabulary)
    rows = []
    for i, (part, file) in enumerate(zip(parts, files)):
        drawn = numbers[corpora == i]
        tokens = int((file.offsets[drawn + 1] - file.offsets[drawn]).sum())
        used = len(set(drawn.tolist()))
        work.dropped["not_drawn"] += sizes[i] - used
        rows.append({"corpus": part.name, "tokens": int(part.size), "wanted": part.wanted, "epochs": part.epochs,
                     "documents": len(drawn), "mixed_tokens": tokens, "reached": tokens / max(total, 1)})
        file.close()
    work.dropped = +work.dropped
    work.kept = work.counted_in - sum(work.dropped.values())
    work.metrics |= {"tokens": total, "mix": rows}
