"""Part 2 of vocab.py: every family extended by 8,000, and what must not have changed, over all of the corpus."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unicodedata import is_normalized

import orjson
from vocab_common import ENGLISH, Bench, apart, digest, encode, table
from vocab_lines import drift_sets
from vocab_texts import huatuo

from zhtune.errors import ConfigError
from zhtune.export.llamacpp_tokens import llamacpp_ids
from zhtune.tokenizers.load import BaseTokenizer
from zhtune.vocabulary import gates
from zhtune.vocabulary.extend import extend_tokenizer
from zhtune.vocabulary.extension import Extension

SIZE, _PIECES, _COVERAGE = 8_000, 40_000, .995              # strong bases know most of the pieces; the coverage is that of 8,000
_CHUNK = 20_000                                             # lines
_LONG_LINE = 10_000                                         # characters; llama.cpp's BLOOM pattern ends the process on such
_SAMPLE = 400                                               # texts for the gates


def run(bench: Bench, names: list[str]) -> dict[str, Any]:
    """The families named, one row each."""
    sets, files = drift_sets(bench.data / "corpus" / ENGLISH)
    print("drift lines: " + ", ".join(f"{name} {len(lines)}" for name, lines in sets.items()), flush=True)
    lines = bench.corpus_lines()
    print(f"corpus: {len(lines)} different lines, {sum(len(line) >= _LONG_LINE for line in lines)} of {_LONG_LINE} characters and more, "
          f"{sum(not is_normalized('NFC', line) for line in lines)} not composed (NFC)", flush=True)
    families = {}
    for name in names:
        families[name] = apart(measure, bench, name, sets)
        table([summary(name, families[name])])
    table([summary(name, family) for name, family in families.items()])
    return {"drift_lines": {name: len(some) for name, some in sets.items()}, "catalogues": {str(path): digest(path) for path in files},
            "corpus_lines": len(lines), "families": families}


def measure(bench: Bench, name: str, sets: dict[str, list[str]]) -> dict[str, Any]:
    """All of one family."""
    base, new, extension, folder = extended(bench, name)
    texts = huatuo(bench.data)
    checks = gates.run_gates(base, new, extension, texts[:_SAMPLE], folder / "tokenizer.json")
    return {"new": len(extension.tokens), **extension.summary(), "gates": {gate.name: [gate.passed, gate.numbers] for gate in checks},
            "examples": {gate.name: gate.examples for gate in checks if not gate.passed}, "drift": drift(base, new, sets),
            "corpus": compare_lines(base, new, folder, bench.corpus_lines()),
            "huatuo": [sum(map(len, encode(gates.load(t.definition), texts))) / sum(map(len, texts)) for t in (base, new)],
            "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}


def extended(bench: Bench, name: str) -> tuple[BaseTokenizer, BaseTokenizer, Extension, Path]:
    """A family before and after, what was done, and the folder with its new files."""
    base = bench.base(name)
    new, extension = extend_tokenizer(base, bench.vocabulary("families", "all", size=_PIECES, coverage=_COVERAGE), SIZE)
    folder = bench.out / "families" / name
    write(new, folder)
    write(base, folder / "base")
    return base, new, extension, folder


def write(tokenizer: BaseTokenizer, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_bytes(orjson.dumps(tokenizer.definition))
    if tokenizer.model is not None:
        (folder / "tokenizer.model").write_bytes(tokenizer.model.data)


def drift(base: BaseTokenizer, new: BaseTokenizer, sets: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    """Lines of each kind that have other ids."""
    before, after, found = gates.load(base.definition), gates.load(new.definition), {}
    for name, lines in sets.items():
        changed = [line for line, old, now in zip(lines, encode(before, lines), encode(after, lines)) if old != now]
        found[name] = {"lines": len(lines), "changed": len(changed), "examples": changed[:5]}
    return found


def compare_lines(base: BaseTokenizer, new: BaseTokenizer, folder: Path, lines: list[str]) -> dict[str, Any]:
    """Round trips that the base had and the extension lost, SentencePiece and llama.cpp against tokenizers.

    Returns:
        Counts and examples; "llamacpp_nfc" are lines that differ because the tokenizer composes and llama.cpp does not.
    """
    after, lost, spm, llamacpp, asked = gates.load(new.definition), [], [], [], 0
    processor, refused = _processor(new), ""
    for some in _chunks(lines):
        ids = encode(after, some)
        back = after.decode_batch(ids, skip_special_tokens=False)
        lost += [line for line, text in zip(some, back) if text != line]
        if processor:
            spm += [line for line, mine, other in zip(some, ids, processor.encode(some)) if mine != other]
        short = [(line, mine) for line, mine in zip(some, ids) if len(line) < _LONG_LINE]
        try:
            others = llamacpp_ids(folder, [line for line, _ in short])
        except ConfigError as error:
            refused, others = str(error), [mine for _, mine in short]
        asked += 0 if refused else len(short)
        llamacpp += [line for (line, mine), other in zip(short, others) if mine != other]
    composed = new.definition.get("normalizer") == {"type": "NFC"}
    changed = [line for line in llamacpp if composed and not is_normalized("NFC", line)]
    wrong = [line for line in llamacpp if not composed or is_normalized("NFC", line)]
    lost, kept = _split(lost, round_trips(gates.load(base.definition), lost))
    return {"lines": len(lines), "new_round_trip_failures": _listed(kept), "base_fails_too": len(lost),
            "sentencepiece": _listed(spm) if processor else None, "llamacpp_lines": asked, "llamacpp_refused": refused,
            "llamacpp": _listed(wrong), "llamacpp_of_base_too": _base_differs(base, folder, wrong),
            "llamacpp_nfc": {"count": len(changed), "lines": [line[:300] for line in changed]}}


def _processor(tokenizer: BaseTokenizer) -> Any:
    if tokenizer.model is None:
        return None
    from sentencepiece import SentencePieceProcessor
    return SentencePieceProcessor(model_proto=tokenizer.model.data)


def _chunks(lines: list[str]) -> Iterator[list[str]]:
    return (lines[i:i + _CHUNK] for i in range(0, len(lines), _CHUNK))


def round_trips(tokenizer: Any, lines: list[str]) -> list[bool]:
    """Whether each line comes back as it was."""
    return [text == line for some in _chunks(lines)
            for text, line in zip(tokenizer.decode_batch(encode(tokenizer, some), skip_special_tokens=False), some)]


def _split(lines: list[str], flags: list[bool]) -> tuple[list[str], list[str]]:
    """The lines whose flag is off, and those whose flag is on."""
    return [line for line, flag in zip(lines, flags) if not flag], [line for line, flag in zip(lines, flags) if flag]


def _listed(lines: list[str]) -> dict[str, Any]:
    return {"count": len(lines), "examples": [line[:300] for line in lines[:10]]}


def _base_differs(base: BaseTokenizer, folder: Path, lines: list[str]) -> int:
    """How many of the lines llama.cpp encodes otherwise with the base's tokenizer too."""
    if not lines:
        return 0
    return len(gates.differing(base, lines, llamacpp_ids(folder / "base", lines)))


def formed(family: dict[str, Any]) -> dict[str, float]:
    """Share of the new words that form behind each character of the gate's."""
    numbers = family["gates"]["context"][1]
    return {key.removeprefix("missed_after_"): 1 - missed / numbers["words"] if numbers["words"] else 1.0
            for key, missed in numbers.items() if key != "words"}


def summary(name: str, family: dict[str, Any]) -> dict[str, Any]:
    corpus = family["corpus"]
    return {"family": name, "new": family["new"], "words": family["words"], "known": family["skipped"].get("known", 0),
            "failed gates": " ".join(gate for gate, (passed, _) in family["gates"].items() if not passed) or "-",
            "dead": family["gates"]["dead"][1]["dead"], "drift": sum(some["changed"] for some in family["drift"].values()),
            "round trip": corpus["new_round_trip_failures"]["count"],
            "SP≠HF": corpus["sentencepiece"]["count"] if corpus["sentencepiece"] else "-",
            "llama.cpp≠HF": f"{corpus['llamacpp']['count']}" if not corpus["llamacpp_refused"] else "refused",
            "NFC": corpus["llamacpp_nfc"]["count"], **{f"after {mark}": f"{share:.2%}" for mark, share in formed(family).items()},
            "base": family["huatuo"][0], "extended": family["huatuo"][1]}


def goals(result: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    rows = []
    for name, family in result["families"].items():
        row, worst = summary(name, family), min(formed(family).items(), key=lambda item: item[1])
        counts = [row[key] for key in ("dead", "drift", "round trip", "SP≠HF", "llama.cpp≠HF")]
        rows.append((f"{name} + {row['new']:,}: dead, drift, round trip, SP≠HF, llama.cpp≠HF", "all 0", " ".join(map(str, counts)),
                     all(str(count) in ("0", "-") for count in counts) and row["failed gates"] == "-"))
        reported = "qwen" in name                           # a base that knows Chinese keeps its own segmentation
        rows.append((f"{name}: words formed, least of four contexts", "reported" if reported else ">= 99 %",
                     f"{worst[1]:.2%} after {worst[0]}", reported or worst[1] >= .99))
    return rows
