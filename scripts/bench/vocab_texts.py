"""The texts of vocab.py: shared/data of the neighbouring folder as JSON Lines by domain, exact lines once.

What `zhtune clean` cannot read yet (CSV, HTML, JSON) is taken apart here in the plainest way.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from html import unescape
from pathlib import Path

MODERN = ("laws_prc", "paddle_docs", "react_docs", "d2l", "drug_monographs", "csl_abstracts", "web_dirty", "luxun", "toyhom", "finance",
          "html_cn")
TRADITIONAL = ("laws_tw", "html_tw", "debian_reference", "classical", "tcm", "poetry")


def training_texts(corpus: Path) -> dict[str, Iterator[str]]:
    """Domain -> documents, of every Chinese file in the folder."""
    return {
        "laws_prc": _jsonl(corpus / "laws_prc.jsonl"), "paddle_docs": _jsonl(corpus / "paddle_docs_zh.jsonl"),
        "react_docs": _jsonl(corpus / "react_docs_zh.jsonl"), "d2l": _jsonl(corpus / "d2l_zh.jsonl"),
        "drug_monographs": _jsonl(corpus / "drug_monographs.jsonl"), "csl_abstracts": _jsonl(corpus / "csl_abstracts.jsonl", "abst"),
        "web_dirty": _jsonl(corpus / "web_dirty.jsonl"), "luxun": _files(corpus / "luxun", "utf-8"),
        "toyhom": _csv(corpus / "toyhom_internal_medicine_gb18030.csv", "gb18030", ("title", "ask", "answer")),
        "finance": _csv(corpus / "finance_news_bom.csv", "utf-8-sig", ("title", "content")),
        "html_cn": _html(_jsonl(corpus / "html_pages_zh_CN.jsonl", "html")), "laws_tw": _jsonl(corpus / "laws_tw_traditional.jsonl"),
        "html_tw": _html(_jsonl(corpus / "html_pages_zh_TW.jsonl", "html")),
        "debian_reference": _html(path.read_text("utf-8") for path in sorted(corpus.glob("debian*.html"))),
        "classical": _jsonl(corpus / "classical_modern.jsonl", "classical", "modern"), "tcm": _files(corpus / "tcm_gb18030", "gb18030"),
        "poetry": _poems(corpus / "poetry"),
    }


def write_training(corpus: Path, out: Path, domains: Iterable[str]) -> int:
    """Write OUT/<domain>.jsonl, a line of text that stood in an earlier document left out; returns the bytes of text."""
    out.mkdir(parents=True, exist_ok=True)
    texts, seen, size = training_texts(corpus), set(), 0
    for domain in domains:
        with open(out / f"{domain}.jsonl", "w", encoding="utf-8") as file:
            for text in texts[domain]:
                lines = []
                for line in map(str.strip, text.splitlines()):
                    if line and line not in seen:
                        seen.add(line)
                        lines.append(line)
                if lines:
                    size += sum(len(line.encode("utf-8")) for line in lines)
                    file.write(json.dumps({"text": "\n".join(lines)}, ensure_ascii=False) + "\n")
    return size


def huatuo(data: Path) -> list[str]:
    """Instruction, input and output of all HuaTuo records."""
    rows = map(json.loads, open(data / "sft" / "huatuo_llama_data.json", encoding="utf-8"))
    return [row["instruction"] + row["input"] + row["output"] for row in rows]


def general(data: Path) -> list[str]:
    """General Chinese that no training text is from: alpaca-zh, ShareGPT, CMRC 2018 (Wikipedia)."""
    alpaca = json.loads((data / "sft" / "alpaca_zh_demo.json").read_text("utf-8"))
    texts = [row["instruction"] + row.get("input", "") + row["output"] for row in alpaca]
    for line in open(data / "sft" / "medicalgpt_sharegpt_zh_first700.jsonl", encoding="utf-8"):
        texts += [turn["value"] for turn in json.loads(line)["conversations"]]
    cmrc = json.loads((data / "benchmark" / "cmrc2018_trial.json").read_text("utf-8"))
    return [*texts, *(_cmrc_texts(cmrc))]


def _cmrc_texts(value: object) -> Iterator[str]:
    """Paragraphs ("context" or "context_text"), wherever they stand in the file."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in ("context", "context_text") and isinstance(item, str):
                yield item
            else:
                yield from _cmrc_texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _cmrc_texts(item)


def overlap(training: Iterable[str], test: Iterable[str], n: int = 13) -> float:
    """Share of the test text's n-grams of characters, white space left out, that occur in the training text."""
    grams = {gram for text in test for gram in _grams(text, n)}
    found: set[int] = set()
    for text in training:
        found.update(gram for gram in _grams(text, n) if gram in grams)
    return len(found) / len(grams) if grams else 0.0


def _grams(text: str, n: int) -> Iterator[int]:
    text = "".join(text.split())
    return (hash(text[i:i + n]) for i in range(len(text) - n + 1))


def _jsonl(path: Path, *keys: str) -> Iterator[str]:
    for line in open(path, encoding="utf-8"):
        row = json.loads(line)
        yield "\n".join(row[key] for key in keys or ("text",))


def _files(folder: Path, encoding: str) -> Iterator[str]:
    return (path.read_bytes().decode(encoding) for path in sorted(folder.glob("*.txt")))


def _csv(path: Path, encoding: str, columns: tuple[str, ...]) -> Iterator[str]:
    csv.field_size_limit(1 << 30)
    for row in csv.DictReader(io.StringIO(path.read_bytes().decode(encoding))):
        yield "\n".join(row[column] or "" for column in columns)


def _html(pages: Iterable[str]) -> Iterator[str]:
    for page in pages:
        body = re.sub(r"(?s)<(script|style)\b.*?</\1>", "", page)
        yield unescape(re.sub(r"<[^>]*>", "\n", body))


def _poems(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("*.json")):
        for poem in json.loads(path.read_text("utf-8")):
            yield "\n".join(poem.get("paragraphs", []))
