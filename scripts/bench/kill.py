"""Kill the smoke recipe at seeded moments, start it again until it is done, and compare it with an undisturbed run.

Usage: python scripts/bench/kill.py [KILLS] [SEED] [--training]. Stages that train nothing must have equal digests, the others
equal losses. --training: longer runs of pretrain, sft, sft with LoRA and dpo on data made before; their weights must be equal as
well, byte by byte, and the kills that left a checkpoint to go on from are counted.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "smoke.yaml"
TRAINED = ("pretrain", "sft", "dpo")
LONGER = {                                                  # what --training changes in the recipe; None takes a section out
    "pretrain": {"blocks": 320, "isolate": True, "schedule": {"learning_rate": 1e-3, "batch_size": 4, "checkpoints": 10}},
    "sft": {"packing": True, "neftune": 5.0, "max_length": 256, "validation": {"share": 0.1},
            "schedule": {"learning_rate": 1e-3, "batch_size": 4, "micro_batch": 2, "epochs": 8, "checkpoints": 10}},
    "sft@lora": {"validation": {"share": 0.1}, "schedule": {"learning_rate": 1e-3, "batch_size": 8, "epochs": 4, "checkpoints": 10}},
    "prefer": {"pairs": 60}, "merge": None, "evaluate@after": None,
    "dpo": {"validation": {"share": 0.1}, "schedule": {"learning_rate": 1e-4, "batch_size": 4, "epochs": 4, "checkpoints": 10}},
}


def longer(file: Path) -> Path:
    """The recipe of --training, written."""
    import yaml
    recipe = yaml.safe_load(RECIPE.read_text("utf-8"))
    changed = {name: section if name not in LONGER else LONGER[name] and section | LONGER[name] for name, section in recipe.items()}
    file.write_text(json.dumps({name: section for name, section in changed.items() if section is not None}), "utf-8")
    return file


def start(recipe: Path, workspace: Path) -> subprocess.Popen:
    """The recipe in a process group of its own."""
    command = [sys.executable, "-m", "zhtune", "run", str(recipe), "--workspace", str(workspace)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def disturbed(recipe: Path, workspace: Path, kills: int, seconds: float, seed: int) -> tuple[int, int]:
    """Run until done, with up to `kills` SIGKILLs, each at a moment of a whole run; returns how many hit, and how many left a checkpoint."""
    generator, hits, left = random.Random(seed), 0, 0
    while True:
        process = start(recipe, workspace)
        if hits < kills:
            try:
                process.wait(timeout=generator.uniform(0.5, seconds))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                hits += 1
                left += any(workspace.glob("*.partial/checkpoints/**/whole.json"))
        status = process.wait()
        if status == 0:
            return hits, left
        if status != -signal.SIGKILL:
            raise SystemExit(f"the recipe failed with status {status} after {hits} kills")


def outcome(workspace: Path, weights: bool) -> dict:
    """Digest or losses of each section; with `weights`, the digests of trained weights, too."""
    found = {}
    for manifest in sorted(workspace.glob("*/manifest.json")):
        if ".stale" in manifest.parent.name or ".unfinished" in manifest.parent.name:
            continue
        content = json.loads(manifest.read_text("utf-8"))
        report = json.loads((manifest.parent / "report.json").read_text("utf-8"))
        found[manifest.parent.name] = content["files"]
        if content["stage"] in TRAINED:
            files = [file for file in content["files"] if weights and file["name"].endswith(".safetensors")]
            found[manifest.parent.name] = [report["losses"], report["validation"], files]
    return found


def prepared(calm: Path, workspace: Path) -> None:
    """A workspace in which everything is made but what is trained."""
    shutil.copytree(calm, workspace, ignore=lambda _, names: [name for name in names if name.partition("@")[0] in TRAINED])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kills", type=int, nargs="?", default=30)
    parser.add_argument("seed", type=int, nargs="?", default=0)
    parser.add_argument("--training", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="zhtune-kill-") as folder:
        place, training, hits, rounds, left = Path(folder), given.training, 0, 0, 0
        recipe = longer(place / "longer.yaml") if training else RECIPE
        calm, at_once = place / "calm", 4 if training else 2
        if training:
            disturbed(recipe, place / "data", 0, 0, 0)
            prepared(place / "data", calm)
        began = time.monotonic()
        disturbed(recipe, calm, 0, 0, 0)
        seconds, wanted = time.monotonic() - began, outcome(calm, training)
        while hits < given.kills:
            rounds += 1
            workspace = place / f"round{rounds}"
            if training:
                prepared(calm, workspace)
            hit, good = disturbed(recipe, workspace, min(at_once, given.kills - hits), seconds, given.seed + rounds)
            hits, left = hits + hit, left + good
            got = outcome(workspace, training)
            wrong = [name for name in wanted if got.get(name) != wanted[name]]
            if wrong or set(got) != set(wanted):
                raise SystemExit(f"round {rounds} differs in {wrong or set(got) ^ set(wanted)}")
            shutil.rmtree(workspace)
            print(f"{hits} kills, {left} with a checkpoint to go on from", flush=True)
    equal = "digests, losses and weights" if training else "digests and losses"
    print(f"{hits} kills in {rounds} runs of {len(wanted)} sections ({seconds:.0f} s undisturbed): equal {equal}")


if __name__ == "__main__":
    main()
