"""Preference training on graph pairs: the share of chosen answers preferred on held-out pairs, and what it does to fact accuracy.

Usage: python scripts/bench/dpo.py WORKSPACE OUT [--pairs 100 | --sampled 400] [--taught 0] [--seed 0] [--questions 0] [--dpo '{"beta": 0.1, …}']

WORKSPACE is that of a finished quickstart recipe; its sft, kg and kg-instruct are read. Held-out pairs are about facts that no
training pair is about, or about the same facts with another false answer and wording.
Accuracy is measured on the same questions (0: all of them) before and after.
--sampled: the pairs are the model's own answers to so many questions, those about one half of the facts to train on. The recipe's
pairs, with a swapped entity, are told apart by the fine-tuned model already (1.000 of 200 held out, 24 nats on average).
--taught N: the model is one with more to learn, fine-tuned by the recipe on N records a fact and not on its own 22.
OUT keeps what is made; what is there already is used again. Without --dpo, the settings of the recipe.
"""

import argparse
import hashlib
import json
import random
import tempfile
import time
from pathlib import Path

import yaml

from zhtune import DpoConfig, EvaluateConfig, KgInstructConfig, PreferConfig, SftConfig, dpo, evaluate, kg_instruct, log, prefer, sft
from zhtune.config import from_mapping
from zhtune.models.load import load_chain, open_encoder
from zhtune.records import read_preferences, write_jsonl
from zhtune.references import resolve
from zhtune.stages.dpo import encode_answer
from zhtune.train.preference import Pair, log_probabilities

QUICKSTART = Path(__file__).resolve().parents[1] / "recipes" / "quickstart.yaml"
HELD = 300                                                  # pairs asked for, before those about trained facts are left out
RECIPE = {"schedule": {"learning_rate": 5e-5, "batch_size": 8, "checkpoints": 1}}


def fine_tuned(workspace: Path, out: Path, per_fact: int) -> Path:
    """The recipe's model, or one taught fewer records a fact."""
    if not per_fact:
        return workspace / "sft"
    recipe = yaml.safe_load(QUICKSTART.read_text("utf-8"))
    records = kg_instruct(from_mapping(KgInstructConfig, "kg-instruct", recipe["kg-instruct"] | {
        "graph": str(workspace / "kg"), "records_per_fact": per_fact, "out": str(out / f"records-{per_fact}")}))
    return sft(from_mapping(SftConfig, "sft", recipe["sft"] | {
        "model": str(workspace / "pretrain"), "records": str(records.path), "out": str(out / f"sft-{per_fact}")})).path


def pairs(workspace: Path, out: Path, wanted: int, seed: int, model: str = "") -> list[dict]:
    made = prefer(PreferConfig(graph=str(workspace / "kg"), records=str(workspace / "kg-instruct"), pairs=wanted, seed=seed, model=model,
                               max_tokens=64, out=str(out)))
    return [row for _, row in read_preferences(made.path / "preferences.jsonl")]


def divided(workspace: Path, model: Path, out: Path, given: argparse.Namespace) -> tuple[list[dict], dict[str, list[dict]]]:
    """Pairs to train on, and pairs held out: about other facts, and other pairs about the same facts."""
    if given.sampled:
        rows = pairs(workspace, out / f"sampled-{given.taught}-{given.sampled}-{given.seed}", given.sampled, given.seed, str(model))
        facts = sorted({about(row) for row in rows})
        random.Random(given.seed).shuffle(facts)
        taught = set(facts[:len(facts) // 2])
        return [row for row in rows if about(row) in taught], {"other facts": [row for row in rows if about(row) not in taught]}
    rows = pairs(workspace, out / f"pairs-{given.pairs}-{given.seed}", given.pairs, given.seed)
    taught, known = {about(row) for row in rows}, {swap(row) for row in rows}
    held = pairs(workspace, out / "pairs-held", HELD, given.seed + 1000)
    return rows, {"other facts": [row for row in held if about(row) not in taught],
                  "other swaps": [row for row in held if about(row) in taught and swap(row) not in known]}


def about(row: dict) -> str:
    return str(row["source"]["triples"])


def swap(row: dict) -> tuple[str, str]:
    """A fact, and the false answer to it."""
    return about(row), row["rejected"][-1]["content"]


def preferred(model: Path, rows: list[dict]) -> str:
    """How often, and by how much, the chosen answer is the likelier one."""
    source = resolve(str(model))
    with tempfile.TemporaryDirectory() as scratch:
        encoder, _ = open_encoder(source, Path(scratch))
        encoded = [Pair(encoder.prompt(row["prompt"]), *(encode_answer(encoder, row["prompt"], row[key][-1]) for key in ("chosen", "rejected")))
                   for row in rows]
        found = log_probabilities(load_chain(source, Path(scratch))[0], encoded)
    return (f"chosen preferred {sum(c > r for c, r in found) / len(found):.4f} of {len(found)}, "
            f"mean margin {sum(c - r for c, r in found) / len(found):.2f} nats")


def accuracy(workspace: Path, model: Path, out: Path, questions: int) -> str:
    report = evaluate(EvaluateConfig(model=str(model), graph=str(workspace / "kg"), records=str(workspace / "kg-instruct"),
                                     questions=questions, unknown=200, out=str(out)))
    facts = json.loads((report.path / "figures.json").read_text("utf-8"))["facts"]
    rows = [(split, facts[split]) for split in ("near", "far")]
    return ", ".join(f"{split} {row['exact']:.4f} ({row['low']:.3f}–{row['high']:.3f}, n {row['n']})" for split, row in rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("workspace", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--sampled", type=int, default=0)
    parser.add_argument("--taught", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--questions", type=int, default=0)
    parser.add_argument("--dpo", type=json.loads, default=RECIPE)
    given = parser.parse_args()
    log.configure()
    workspace, out = given.workspace, given.out
    model = fine_tuned(workspace, out, given.taught)
    trained, held = divided(workspace, model, out, given)
    name = hashlib.sha256(json.dumps([given.dpo, given.pairs, given.sampled, given.taught, given.seed], sort_keys=True).encode()).hexdigest()[:8]
    write_jsonl(out / f"{name}.jsonl", trained)
    began = time.monotonic()
    made = dpo(from_mapping(DpoConfig, "dpo", {"model": str(model), "preferences": str(out / f"{name}.jsonl"), "seed": given.seed,
                                               "out": str(out / f"dpo-{name}"), **given.dpo}))
    print(f"{name} {given.dpo}: {time.monotonic() - began:.0f} s, {len(trained)} pairs; {made.summary()}")
    for when, measured, label in (("before", model, f"taught-{given.taught}"), ("after", made.path, name)):
        for what, rows in held.items():
            print(f"{when}: held-out pairs about {what}: {preferred(measured, rows)}")
        print(f"{when}: {accuracy(workspace, measured, out / f'evaluate-{label}-{given.questions}', given.questions)}", flush=True)


if __name__ == "__main__":
    main()
