"""Tokenizers + texts -> report: tokens per character and what else tells tokenizers apart, by domain."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from zhtune.artifact import Artifact
from zhtune.building import Stage, Work, build
from zhtune.config import StageConfig
from zhtune.corpus.domains import group_by_domain
from zhtune.corpus.read import read_texts
from zhtune.errors import ConfigError, DataError
from zhtune.log import logger
from zhtune.models import shapes
from zhtune.models.embedded import embedded_tokenizer
from zhtune.models.load import chain
from zhtune.records import write_json
from zhtune.references import Source
from zhtune.tokenizers.load import read_object, read_tokenizer
from zhtune.vocabulary import compare, gates
from zhtune.vocabulary.fertility_page import terminal, write_page

STAGE = Stage("fertility", version=1, kind="report",
              inputs={"tokenizer": ("model", "tokenizer", "adapter", "file", "base"), "input": ("file",), "corpus": ("corpus", "file")})


@dataclass(frozen=True, kw_only=True)
class FertilityConfig(StageConfig):
    """Compare tokenizers on your text: tokens per character, context in characters, byte fallback, words cut; and what an
    extension has brought where one of them extends another."""

    tokenizer: str | list[str]
    """Model or tokenizer folders, tokenizer.json, SentencePiece .model or tiktoken files, embedded; as many as you like"""
    input: str | list[str] = ""
    """Files or folders of raw text (txt, md, jsonl)"""
    corpus: str = ""
    """Corpus artifact (its held-out documents, if it has some), or a folder of text"""
    contexts: int | list[int] = field(default_factory=lambda: list(compare.CONTEXTS))
    """Context lengths in tokens, told in characters"""
    characters: int = 1_000_000
    """Characters of each domain that are measured; 0 for all"""
    word_characters: int = 100_000
    """Characters of each domain in which jieba looks for words that are cut; 0 for none"""

    def check(self) -> None:
        if not (self.input or self.corpus):
            raise ConfigError("fertility needs text to measure on: give --input or --corpus")
        if self.characters < 0 or self.word_characters < 0:
            raise ConfigError("--characters and --word_characters must be at least 0")
        if min(_list(self.contexts), default=1) < 1:
            raise ConfigError("--contexts must be at least 1 token each")


def fertility(config: FertilityConfig) -> Artifact:
    """Write figures.json and report.html, and show the table.

    Raises:
        ConfigError: a tokenizer is none or cannot be read.
        DataError: there is no text.
    """
    made = build(STAGE, config, lambda work: _write(work, config))
    logger.info("%s\n", terminal(orjson.loads((made.path / "figures.json").read_bytes())))
    return made


def _write(work: Work, config: FertilityConfig) -> None:
    sources = work.given("tokenizer")
    names = unique_names([_name(source) for source in sources])
    tokenizers, configs = {}, {}
    for name, source in zip(names, sources, strict=True):
        base = chain(source)[0]
        tokenizers[name] = _open(base)
        if base.path is not None and base.path.is_dir() and (base.path / "config.json").exists():
            configs[name] = read_object(base.path / "config.json")
    texts = _texts(work, config)
    work.counted_in = work.kept = sum(map(len, texts.values()))
    figures = compare.compare(tokenizers, texts, _list(config.contexts), config.word_characters, configs)
    write_json(work.path / "figures.json", figures)
    write_page(work.path / "report.html", figures)
    work.report |= figures
    work.metrics |= {f"{name}_tokens_per_character": row["all"]["tokens_per_character"] for name, row in figures["tokenizers"].items()}


def _open(source: Source) -> Any:
    """The tokenizer under a reference; text that looks like a special token stays text."""
    scheme, _, name = source.reference.partition(":")
    if source.kind != "base":
        path = source.path                                  # a tokenizer.json may be of any kind here; read_tokenizer wants one to extend
        definition = read_object(path) if path.suffix == ".json" and path.is_file() else read_tokenizer(path).definition
        try:
            return gates.load(definition)
        except Exception as error:                          # the library has no type of its own for it
            raise ConfigError(f"{source.reference} is no tokenizer that can be loaded: {str(error).splitlines()[0]}") from error
    if scheme == "new" and name not in shapes.SHAPES:
        raise ConfigError(f"no shape {name!r}; there are: {', '.join(f'new:{n}' for n in shapes.SHAPES)}")
    tokenizer = embedded_tokenizer() if scheme == "embedded" else shapes.byte_tokenizer("chatglm" if name.startswith("chatglm") else "llama")
    tokenizer.encode_special_tokens = True
    return tokenizer


def _texts(work: Work, config: FertilityConfig) -> dict[str, list[str]]:
    """Domain -> sampled texts, of all inputs; where two have a domain of one name, the later one says where it is from."""
    texts: dict[str, list[str]] = {}
    for field_name, splits in (("input", ("part",)), ("corpus", ("heldout", "part"))):
        for source in work.given(field_name):
            for split in splits:
                if found := group_by_domain(read_texts(source.path, split), source.path.stem, config.characters, config.seed):
                    break
            for domain, documents in found.items():
                texts[_free(domain, source.path.stem, texts)] = documents
            if source.kind == "corpus":
                work.resolved["split"] = split
    if not texts:
        raise DataError("holds no text: there is nothing to measure on", (work.given("input") or work.given("corpus"))[0].path)
    return texts


def _free(domain: str, place: str, taken: dict[str, Any]) -> str:
    if domain not in taken:
        return domain
    return unique_names([*taken, domain if domain == place else f"{place}/{domain}"])[-1]


def unique_names(names: list[str]) -> list[str]:
    """The same names, a second one of a kind with a number: a, b, a.2."""
    found: list[str] = []
    for name in names:
        numbered = (f"{name}.{number}" for number in range(2, len(names) + 2))
        found.append(name if name not in found else next(other for other in numbered if other not in found))
    return found


def _name(source: Source) -> str:
    """The folder of a tokenizer.json or tokenizer.model; else the last part of the reference."""
    if source.path is not None and source.path.stem == "tokenizer":
        return source.path.resolve().parent.name
    return source.reference.rstrip("/").rpartition("/")[2]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
