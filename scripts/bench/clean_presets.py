"""What each preset of `zhtune clean` keeps of real text of its kind, and how fast, on one core: a table on stdout.

    python scripts/bench/clean_presets.py --data ../shared/data/corpus [--documents 400] [--read 20]
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from pathlib import Path

from zhtune import assets
from zhtune.corpus.filters import read_rules
from zhtune.corpus.prepare import Settings, prepare
from zhtune.corpus.read import read_files
from zhtune.corpus.tabular import Refusal

FIELDS = ("text", "abst", "classical", "html", "content", "paragraphs", "ask", "answer")
SOURCES = {
    "laws_prc.jsonl": "prose", "laws_tw_traditional.jsonl": "prose",
    "drug_monographs.jsonl": "prose", "csl_abstracts.jsonl": "prose", "luxun": "prose",
    "paddle_docs_zh.jsonl": "technical", "d2l_zh.jsonl": "technical", "react_docs_zh.jsonl": "technical",
    "html_pages_zh_CN.jsonl": "web", "html_pages_zh_TW.jsonl": "web", "finance_news_bom.csv": "web",
    "toyhom_internal_medicine_gb18030.csv": "dialogue", "web_dirty.jsonl": "short",
    "classical_modern.jsonl": "classical", "poetry": "classical", "tcm_gb18030": "classical",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=400, help="of each source, drawn with seed 0")
    parser.add_argument("--read", type=int, default=0, help="refused documents shown of each source")
    args = parser.parse_args()
    print("| source | preset | documents | kept | refused | MB/s of CPU |\n|---|---|---|---|---|---|")
    for source, preset in SOURCES.items():
        documents = [item for item in read_files([args.data / source], FIELDS) if not isinstance(item, Refusal)]
        documents = random.Random(0).sample(documents, min(args.documents, len(documents)))
        settings = Settings(read_rules(assets.shipped(preset), {}))
        prepare(documents[0], settings)                     # builds its tables
        began, reasons, shown = time.process_time(), Counter(), []
        for document in documents:
            outcome = prepare(document, settings)
            reasons[outcome.reason] += 1
            if outcome.reason:
                shown.append(f"    {outcome.reason} {outcome.details.get('value', '')} {outcome.id}: {' '.join(document.text.split())[:150]}")
        seconds = time.process_time() - began
        size = sum(len(document.text.encode("utf-8")) for document in documents) / 1e6
        kept = reasons.pop("", 0)
        refused = ", ".join(f"{reason} {n}" for reason, n in reasons.most_common())
        print(f"| {source} | {preset} | {len(documents)} | {100 * kept / len(documents):.1f} % | {refused} | {size / seconds:.1f} |", flush=True)
        print("\n".join(shown[:args.read]), end="\n" if args.read and shown else "")


if __name__ == "__main__":
    main()
