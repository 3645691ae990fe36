"""Kill the smoke recipe at seeded moments, start it again until it is done, and compare it with an undisturbed run.

Usage: python scripts/bench/kill.py [KILLS] [SEED]. Stages that train nothing must have equal digests, the others equal losses.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "smoke.yaml"
TRAINED = ("pretrain", "sft", "dpo")


def start(workspace: Path) -> subprocess.Popen:
    """The recipe in a process group of its own."""
    command = [sys.executable, "-m", "zhtune", "run", str(RECIPE), "--workspace", str(workspace)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def disturbed(workspace: Path, kills: int, seconds: float, seed: int) -> int:
    """Run until done, with up to `kills` SIGKILLs, each at a moment of a whole run; returns how many hit."""
    generator, hits = random.Random(seed), 0
    while True:
        process = start(workspace)
        if hits < kills:
            try:
                process.wait(timeout=generator.uniform(0.5, seconds))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                hits += 1
        status = process.wait()
        if status == 0:
            return hits
        if status != -signal.SIGKILL:
            raise SystemExit(f"the recipe failed with status {status} after {hits} kills")


def outcome(workspace: Path) -> dict:
    """Digest or losses of each section."""
    found = {}
    for manifest in sorted(workspace.glob("*/manifest.json")):
        if ".stale" in manifest.parent.name or ".unfinished" in manifest.parent.name:
            continue
        content = json.loads(manifest.read_text("utf-8"))
        report = json.loads((manifest.parent / "report.json").read_text("utf-8"))
        found[manifest.parent.name] = report["losses"] if content["stage"] in TRAINED else content["files"]
    return found


def main() -> None:
    kills, seed = int(sys.argv[1]) if len(sys.argv) > 1 else 30, int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with tempfile.TemporaryDirectory(prefix="zhtune-kill-") as folder:
        began = time.monotonic()
        disturbed(Path(folder) / "calm", 0, 0, seed)
        seconds = time.monotonic() - began
        wanted, hits, rounds = outcome(Path(folder) / "calm"), 0, 0
        while hits < kills:
            rounds += 1
            workspace = Path(folder) / f"round{rounds}"
            hits += disturbed(workspace, min(2, kills - hits), seconds, seed + rounds)
            got = outcome(workspace)
            wrong = [name for name in wanted if got.get(name) != wanted[name]]
            if wrong or set(got) != set(wanted):
                raise SystemExit(f"round {rounds} differs in {wrong or set(got) ^ set(wanted)}")
    print(f"{hits} kills in {rounds} runs of {len(wanted)} sections ({seconds:.0f} s undisturbed): equal digests and losses")


if __name__ == "__main__":
    main()
