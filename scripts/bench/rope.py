"""Bits per character by position of a small model, trained from scratch at its own context and scaled to four times that.

    python scripts/bench/rope.py OUT

Two minutes of one core. Prints the table of docs/measurements/README.md; each run's own report has the same figures.
"""

import json
import sys
from pathlib import Path

from zhtune import CleanConfig, ExtendConfig, PackConfig, PretrainConfig, Schedule, clean, extend, pack, pretrain

MODEL, BLOCK, BLOCKS = "new:llama-tiny", 512, 1200


def main(out: Path) -> None:
    corpus = clean(CleanConfig(input="shipped:corpus/zh", out=str(out / "corpus"))).path
    tokens = pack(PackConfig(corpus=str(corpus), model=MODEL, out=str(out / "tokens"))).path
    model = pretrain(PretrainConfig(model=MODEL, tokens=str(tokens), block=BLOCK, blocks=BLOCKS, out=str(out / "model"),
                                    schedule=Schedule(learning_rate=3e-3, batch_size=8, epochs=2, precision="fp32"))).path
    columns = {}
    for scaling in ("linear", "dynamic", "yarn"):
        made = extend(ExtendConfig(model=str(model), rope=scaling, context=4 * BLOCK, corpus=str(corpus), windows=4, out=str(out / scaling)))
        columns[scaling] = json.loads((made.path / "report.json").read_text())["bits_per_character_by_position"]
    print("| positions | unscaled |", " | ".join(columns), "|\n|---|---|---|---|---|")
    for row in zip(*columns.values()):
        print(f"| {row[0]['from']}–{row[0]['to']} | {row[0]['before']:.2f} |", " | ".join(f"{cell['after']:.2f}" for cell in row), "|")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
