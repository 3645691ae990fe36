"""Part 1 of vocab.py: LLaMA + 17,953 pieces, tokens per character, beside the published merge as it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vocab_common import Bench, encode, table
from vocab_texts import general, huatuo, overlap

from zhtune.text import HAN_RUN
from zhtune.tokenizers.spm import SentencePieceModel, SpPiece, append_pieces, read_spm
from zhtune.tokenizers.spm_definition import spm_definition
from zhtune.vocabulary import gates
from zhtune.vocabulary.extend import extend_tokenizer
from zhtune.vocabulary.lines import plain_lines

PUBLISHED, SMALL = 17_953, 8_000
CHINESE = "general, half Han"                               # the records of it that are code, English and tables left out
_ROWS = {                                                   # name -> (training text, pieces of the vocabulary, new tokens, settings)
    "whole corpus": ("all", 19_000, PUBLISHED, {}),
    "modern": ("modern", 19_000, PUBLISHED, {}),
    "modern, 8,000": ("modern", 9_000, SMALL, {}),
    "modern + seed": ("modern", 19_000, PUBLISHED, {"seed_size": 8_000}),
}
_CHUNK = 20_000                                             # lines


def run(bench: Bench) -> dict[str, Any]:
    """Overlap, tokens per character of each row, and the faults of the published merge."""
    tests = {"huatuo": huatuo(bench.data), "general": general(bench.data)}
    tests[CHINESE] = [text for text in tests["general"] if han_share(text) >= .5]
    shares = overlaps(bench, tests)
    base, seed = bench.base("llama"), bench.data / "tokenizers" / "chinese_sp" / "chinese_sp.model"
    merged = published(base.model, seed)
    rows = [row("base", base.model, 0, tests), row("published merge", merged, len(merged.pieces) - len(base.model.pieces), tests)]
    for name, (text, size, new_tokens, settings) in _ROWS.items():
        extra = settings | {"seed_vocab": str(seed)} if settings else {}
        pieces = bench.vocabulary(name.replace(", ", "-").replace(" + ", "-").replace(" ", "-"), text, size=size, **extra)
        new, extension = extend_tokenizer(base, pieces, new_tokens)
        rows.append(row(name, new.model, len(extension.tokens), tests))
    table(rows)
    faults = find_faults(base.model, merged, bench.corpus_lines())
    print("published merge: " + ", ".join(f"{key} {value}" for key, value in faults.items()), flush=True)
    return {"tests": {name: {"texts": len(texts), "characters": sum(map(len, texts))} for name, texts in tests.items()},
            "training_bytes": {name: sum(len(text.encode()) for text in prepared(bench.texts(name))) for name in ("all", "modern")},
            "overlap_13": shares, "rows": rows, "published_faults": faults}


def overlaps(bench: Bench, tests: dict[str, list[str]]) -> dict[str, float]:
    """Share of each test set's runs of 13 characters that the whole training text holds; the modern part is in it."""
    shares = {name: overlap(prepared(bench.texts("all")), texts) for name, texts in tests.items()}
    print("13-gram overlap of test with training text: " + ", ".join(f"{name} {share:.3%}" for name, share in shares.items()), flush=True)
    return shares


def prepared(folder: Path) -> Iterator[str]:
    """The texts of a prepared folder."""
    for path in sorted(folder.glob("*.jsonl")):
        for line in open(path, encoding="utf-8"):
            yield json.loads(line)["text"]


def published(base: SentencePieceModel, chinese: Path) -> SentencePieceModel:
    """Chinese-LLaMA's merge: every piece that the base lacks behind its own, all with score 0."""
    known = {piece.text for piece in base.pieces}
    return append_pieces(base, (SpPiece(piece.text, 0.0) for piece in read_spm(chinese).pieces if piece.text not in known))


def han_share(text: str) -> float:
    """Share of Han characters among the characters that are no white space, 0 for blank text."""
    return sum(map(len, HAN_RUN.findall(text))) / max(1, len("".join(text.split())))


def row(name: str, model: SentencePieceModel, new_tokens: int, tests: dict[str, list[str]]) -> dict[str, Any]:
    from sentencepiece import SentencePieceProcessor
    processor, found = SentencePieceProcessor(model_proto=model.data), {}
    for test, texts in tests.items():
        tokens = sum(len(ids) for i in range(0, len(texts), _CHUNK) for ids in processor.encode(texts[i:i + _CHUNK]))
        found[test] = tokens / sum(map(len, texts))
    return {"vocabulary": name, "new": new_tokens, **found}


def find_faults(base: SentencePieceModel, merged: SentencePieceModel, lines: list[str]) -> dict[str, int]:
    """Pieces that their own text is not encoded to, lines without Chinese that changed, and SentencePiece against tokenizers."""
    from sentencepiece import SentencePieceProcessor
    old, new = (SentencePieceProcessor(model_proto=model.data) for model in (base, merged))
    pieces = [piece.text for piece in merged.pieces[len(base.pieces):]]
    # Behind a line feed (two tokens) no ▁ is put before the text; a piece that begins with one takes just that.
    found = new.encode([piece[1:] if piece.startswith("▁") else "\n" + piece for piece in pieces])
    dead = sum((ids if piece.startswith("▁") else ids[2:]) != [i] for i, (piece, ids) in enumerate(zip(pieces, found), len(base.pieces)))
    plain = plain_lines()
    drift = sum(a != b for a, b in zip(old.encode(plain), new.encode(plain)))
    exact, differ = gates.load(spm_definition(merged)), 0
    for i in range(0, len(lines), _CHUNK):
        some = lines[i:i + _CHUNK]
        differ += sum(a != b for a, b in zip(encode(exact, some), new.encode(some)))
    return {"pieces": len(pieces), "dead": dead, "plain_lines": len(plain), "plain_changed": drift, "corpus_lines": len(lines),
            "sentencepiece_differs_from_tokenizers": differ}


def goals(result: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    rows = {row["vocabulary"]: row for row in result["rows"]}
    wanted = [("whole corpus", "huatuo", .65), ("modern, 8,000", "huatuo", .70), ("modern + seed", "general", .68),
              ("modern + seed", CHINESE, .68)]
    found = [(f"LLaMA + {rows[name]['new']:,}, {name}: {test}", f"<= {limit}", f"{rows[name][test]:.4f}", rows[name][test] <= limit)
             for name, test, limit in wanted]
    return [*((f"13-gram overlap, {name}", "< 1 %", f"{share:.3%}", share < .01) for name, share in result["overlap_13"].items()), *found]
