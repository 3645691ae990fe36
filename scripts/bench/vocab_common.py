"""What the parts of vocab.py share: the folder of data, its digests, prepared texts, vocabularies and base tokenizers."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from vocab_texts import MODERN, TRADITIONAL, training_texts, write_training

from zhtune import VocabConfig, vocab
from zhtune.models.embedded import embedded_tokenizer
from zhtune.records import write_json
from zhtune.tokenizers.load import BaseTokenizer, read_tokenizer
from zhtune.vocabulary.pieces import Piece, read_pieces

DOMAINS = {"all": (*MODERN, *TRADITIONAL), "modern": MODERN}
FAMILIES = ("llama", "qwen2_5", "llama3_1", "qwen1_tiktoken", "smollm2", "bloom_style")
ENGLISH = "english_wiki_demo.txt"
# As BLOOM's tokenizer.json has it.
_BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
_BLOOM_SIZE, _BLOOM_CHARACTERS = 20_000, 2_500_000


@dataclass
class Bench:
    """Where data is and where results go."""

    data: Path
    out: Path

    def texts(self, name: str) -> Path:
        """The folder of prepared training text: "all" or "modern"."""
        folder = self.out / f"text-{name}"
        if not folder.exists():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            write_training(self.data / "corpus", partial, DOMAINS[name])
            partial.rename(folder)
        return folder

    def vocabulary(self, name: str, text: str, **settings: Any) -> list[Piece]:
        """The pieces of `zhtune vocab` on a prepared text."""
        config = VocabConfig(input=str(self.texts(text)), out=str(self.out / f"vocab-{name}"), **settings)
        return read_pieces(apart(_train, config) / "pieces.jsonl")

    def llama_folder(self) -> Path:
        """LLaMA's tokenizer.model alone: 32,000 pieces; the tokenizer.json beside it in the data has a token more."""
        folder = self.out / "llama"
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "tokenizer.model").exists():
            shutil.copyfile(self.data / "tokenizers" / "llama" / "tokenizer.model", folder / "tokenizer.model")
        return folder

    def base(self, name: str) -> BaseTokenizer:
        """One of FAMILIES."""
        if name == "smollm2":
            return BaseTokenizer("bytelevel", json.loads(embedded_tokenizer().to_str()))
        if name == "llama":
            return read_tokenizer(self.llama_folder())
        if name != "bloom_style":
            return read_tokenizer(self.data / "tokenizers" / name)
        file = self.out / "bloom_style.json"
        if not file.exists():
            write_json(file, train_bloom_style(self._mixed_lines()))
        return read_tokenizer(file)

    def corpus_lines(self) -> list[str]:
        """All different lines of the corpus as they are, English too."""
        lines = dict.fromkeys(line for texts in training_texts(self.data / "corpus").values() for text in texts for line in text.split("\n"))
        lines |= dict.fromkeys((self.data / "corpus" / ENGLISH).read_text("utf-8").split("\n"))
        return [line for line in lines if line]

    def _mixed_lines(self) -> Iterator[str]:
        """All English lines and a seeded share of the Chinese ones."""
        lines = self.corpus_lines()
        random.Random(0).shuffle(lines)
        size = 0
        for line in lines:
            size += len(line)
            if size > _BLOOM_CHARACTERS:
                break
            yield line
        yield from (self.data / "corpus" / ENGLISH).read_text("utf-8").split("\n")

    def digests(self) -> dict[str, str]:
        """sha256 of every input file, by its path in the data."""
        folders = ("corpus", "tokenizers")
        files = [path for name in folders for path in sorted((self.data / name).rglob("*")) if path.is_file()]
        files += [self.data / name for name in ("sft/huatuo_llama_data.json", "sft/alpaca_zh_demo.json",
                                                "sft/medicalgpt_sharegpt_zh_first700.jsonl", "benchmark/cmrc2018_trial.json")]
        return {path.relative_to(self.data).as_posix(): digest(path) for path in files}


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a process of its own: after a training a process keeps about a gigabyte that is free."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _train(config: VocabConfig) -> Path:
    return vocab(config).path


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def train_bloom_style(lines: Iterable[str]) -> dict[str, Any]:
    """The parsed tokenizer.json of a small tokenizer that splits text as BLOOM does."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(_BLOOM), "isolated"),
                                                       pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(lines, trainers.BpeTrainer(
        vocab_size=_BLOOM_SIZE, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<unk>", "<s>", "</s>", "<pad>"], max_token_length=64))
    return json.loads(tokenizer.to_str())


def encode(tokenizer: Any, lines: list[str]) -> list[list[int]]:
    """Ids of each line, nothing before or after it."""
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(lines, add_special_tokens=False)]


def table(rows: list[dict[str, Any]]) -> None:
    """Print rows of equal keys in columns."""
    if not rows:
        return
    cells = [list(rows[0]), *([f"{v:.4f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    for row in cells:
        print("  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))))
    print(flush=True)
