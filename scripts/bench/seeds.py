"""The main figure: fine-tune and measure with several seeds on all held-out questions.

Usage: python scripts/bench/seeds.py WORKSPACE [SEED …]. WORKSPACE is that of a finished quickstart recipe; its pretrain, kg and
kg-instruct artifacts are reused, the recipe's sft (and the evaluation of its model) is repeated a seed, and means are printed.
"""

import json
import sys
from pathlib import Path

import yaml

from zhtune import EvaluateConfig, SftConfig, evaluate, log, sft
from zhtune.config import from_mapping

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "quickstart.yaml"


def main() -> None:
    workspace, seeds = Path(sys.argv[1]), [int(s) for s in sys.argv[2:]] or [0, 1, 2]
    log.configure()
    fields, rows = yaml.safe_load(RECIPE.read_text("utf-8"))["sft"], []
    for seed in seeds:
        section = {**fields, "model": str(workspace / "pretrain"), "records": str(workspace / "kg-instruct"), "seed": seed}
        model = sft(from_mapping(SftConfig, "sft", {**section, "out": str(workspace / f"sft@seed{seed}")}))
        report = evaluate(EvaluateConfig(model=str(model.path), graph=str(workspace / "kg"), records=str(workspace / "kg-instruct"),
                                         questions=0, unknown=200, out=str(workspace / f"evaluate@seed{seed}")))
        rows.append(json.loads((report.path / "figures.json").read_text("utf-8"))["facts"])
        for split in ("near", "far"):
            row = rows[-1][split]
            print(f"seed {seed} {split}: {row['exact']:.3f} ({row['low']:.3f}–{row['high']:.3f}, n {row['n']}), majority {row['majority']:.3f}, "
                  f"false refusals {row['false_refusals']:.3f}, worst wording {row['worst_wordings'][0]}")
    for split in ("near", "far"):
        print(f"mean of {len(rows)} seeds, {split}: {sum(r[split]['exact'] for r in rows) / len(rows):.3f}")


if __name__ == "__main__":
    main()
