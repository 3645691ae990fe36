"""Training on preferences by TRL's DPOTrainer and KTOTrainer, which receive ids, never text; and what it does to the model.

Imports torch and TRL at its top; the stage imports it inside its function. The reference is the model without its adapter.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from zhtune.errors import ConfigError
from zhtune.models.load import causal_of
from zhtune.train import parallel
from zhtune.train.batches import EVEN, Collator
from zhtune.train.loss import answer_loss
from zhtune.train.memory import in_words
from zhtune.train.precision import autocast_of
from zhtune.train.samples import IGNORED, order
from zhtune.train.schedule import Schedule
from zhtune.train.trainer import Run, announce, arguments, fit, own_types, tokenizer_of

COLLAPSE = -0.5                                             # nats a token: each token of a chosen answer 40 % less likely than before


@dataclass(frozen=True)
class Pair:
    """One preference as token ids."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]


@dataclass(frozen=True)
class Objective:
    """What is minimised."""

    loss: str
    """sigmoid (Rafailov et al. 2023, arXiv 2305.18290), ipo (2310.12036), hinge (2305.10425), kto (2402.01306)"""
    beta: float
    label_smoothing: float
    """Share of preferences that may be the wrong way round (2403.00409)"""
    reference_free: bool


def train_pairs(model: Any, tokenizer_folder: Path, pairs: list[Pair], objective: Objective, run: Run,
                look: Callable[[Any], Any]) -> dict[str, Any]:
    """Train a PeftModel's adapter on pairs, in place.

    Args:
        model: a PeftModel, where finetune.load has put it; without its adapter it is the reference.
        tokenizer_folder: where its tokenizer.json lies.
        pairs: what to train on.
        objective: the loss.
        run: how; its validation holds pairs.
        look: takes the model before and after, stored and computed alike.

    Returns:
        the figures of trainer.fit, with the margin and accuracy of the first step and of the last epoch, and what `look` found "before" and "after".
    """
    kto, schedule = objective.loss == "kto", run.schedule
    rows = order([len(p.prompt_ids) + len(p.chosen_ids) for p in pairs], schedule.batch_size, schedule.epochs, run.seed)
    at_once = parallel.share_of_batch(schedule)[1]
    data, held = (_unpaired(ps, at_once) if kto else _paired(ps, objective.reference_free) for ps in ([pairs[i] for i in rows], run.validation))
    tokens = sum(2 * len(p.prompt_ids) + len(p.chosen_ids) + len(p.rejected_ids) for p in pairs) * schedule.epochs
    announce(model, len(pairs), tokens, schedule, len(data))
    kind, settings = _KINDS[objective.loss]
    more = {"beta": objective.beta, "pad_to_multiple_of": EVEN, **settings}
    if objective.label_smoothing:
        more |= {"loss_type": ["robust"], "label_smoothing": objective.label_smoothing}
    if objective.reference_free:
        more["precompute_ref_log_probs"] = True
    args = arguments(KTOConfig if kto else DPOConfig, run, len(data), more, model)
    with in_words(model, run.schedule.optimizer, args.per_device_train_batch_size):
        before = look(model)
    with own_types(model):
        trainer = kind(model=model, args=args, train_dataset=data, eval_dataset=held if run.validation else None,
                       processing_class=tokenizer_of(tokenizer_folder))
    figures = fit(trainer, run, tokens, len(data))
    return figures | {"rewards": _rewards(figures["history"], schedule, len(data)), "before": before, "after": look(model)}


def _rewards(history: list[dict[str, Any]], schedule: Schedule, rows: int) -> dict[str, list[float]]:
    """Margins and the like: of the first step that was logged, and the mean over an epoch's rows at the end, each log by the rows it covers."""
    logged, done, last = [entry for entry in history if "rewards/margins" in entry], 0, []
    ends = [min(entry["step"] * schedule.batch_size, rows) for entry in logged]
    for entry, now in zip(logged, ends, strict=True):
        if now > ends[-1] - rows / schedule.epochs:         # a run may stop before its last epoch
            last.append((now - done, entry))
        done = now
    names = [name for name in ("margins", "accuracies", "chosen", "rejected") if f"rewards/{name}" in logged[0]]
    return {name: [logged[0][f"rewards/{name}"], sum(n * entry[f"rewards/{name}"] for n, entry in last) / sum(n for n, _ in last)] for name in names}


def _as_it_is(trainer: Any, dataset: Any, *_: Any, **__: Any) -> Any:
    return dataset


class EncodedDPOTrainer(DPOTrainer):
    """DPOTrainer for pairs that are token ids already, with their reference's log-probabilities where they bring some."""

    _prepare_dataset = _precompute_ref_logps = _as_it_is


class EncodedKTOTrainer(KTOTrainer):
    """KTOTrainer for answers that are token ids already."""

    _prepare_dataset = _as_it_is


_KINDS: dict[str, tuple[type, dict[str, Any]]] = {
    "sigmoid": (EncodedDPOTrainer, {"loss_type": ["sigmoid"]}), "ipo": (EncodedDPOTrainer, {"loss_type": ["ipo"]}),
    "hinge": (EncodedDPOTrainer, {"loss_type": ["hinge"]}), "kto": (EncodedKTOTrainer, {"loss_type": "kto"})}


def _paired(pairs: list[Pair], reference_free: bool) -> Dataset:
    columns: dict[str, list[Any]] = {name: [getattr(p, name) for p in pairs] for name in ("prompt_ids", "chosen_ids", "rejected_ids")}
    if reference_free:                                      # a reference to which all answers are equally likely
        columns |= {name: [0.0] * len(pairs) for name in ("ref_chosen_logps", "ref_rejected_logps")}
    return Dataset.from_dict(columns)


def _unpaired(pairs: list[Pair], at_once: int) -> Dataset:
    """Chosen and rejected answers one by one; beside each the answer to another prompt, from which KTO estimates its zero point.

    One batch:    c0 c1 r0 r1     and beside them:    r1 c0 c1 r0
    """
    if at_once < 4 or at_once % 2:
        raise ConfigError(f"--loss kto needs an even number of at least 4 answers at once, found {at_once}: "
                          f"raise --schedule.batch_size or --schedule.micro_batch")
    rows: dict[str, list[Any]] = {name: [] for name in ("prompt_ids", "completion_ids", "KL_completion_ids", "label")}
    for start in range(0, len(pairs), at_once // 2):
        batch = pairs[start:start + at_once // 2]
        answers = [p.chosen_ids for p in batch] + [p.rejected_ids for p in batch]
        rows["prompt_ids"] += [p.prompt_ids for p in batch] * 2
        rows["completion_ids"] += answers
        rows["KL_completion_ids"] += answers[-1:] + answers[:-1]
        rows["label"] += [True] * len(batch) + [False] * len(batch)
    return Dataset.from_dict(rows)


def log_probabilities(model: Any, pairs: list[Pair]) -> list[tuple[float, float]]:
    """Log-probability, in nats, that the model gives the chosen and the rejected answer of each pair."""
    model.eval()
    found = []
    with torch.no_grad(), autocast_of(model):
        for pair in pairs:
            sums = []
            for answer in (pair.chosen_ids, pair.rejected_ids):
                row = {"input_ids": [*pair.prompt_ids, *answer], "labels": [IGNORED] * len(pair.prompt_ids) + answer}
                batch = {name: value.to(model.device) for name, value in Collator(0)([row]).items()}
                sums.append(-answer_loss(model, causal_of(model), batch, batch.pop("labels"), nullcontext()).item())
            found.append((sums[0], sums[1]))
    return found


def answer_lengths(model: Any, prompts: list[list[int]], stop_ids: list[int], most: int) -> list[int]:
    """Tokens of the model's own greedy answers, up to their end."""
    model.eval()
    width = max(map(len, prompts))
    ids = torch.tensor([[stop_ids[0]] * (width - len(p)) + p for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    with torch.no_grad(), autocast_of(model):
        made = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=most, do_sample=False, eos_token_id=stop_ids,
                              pad_token_id=stop_ids[0])
    answers = made[:, width:].tolist()
    return [next((n for n, token in enumerate(answer) if token in stop_ids), len(answer)) for answer in answers]


def compared(pairs: list[Pair], before: list[tuple[float, float]], after: list[tuple[float, float]]) -> dict[str, float]:
    """Shares of pairs whose chosen answer is the likelier one, and how far the chosen answers' log-probability moved a token."""
    moved = [(new[0] - old[0]) / len(pair.chosen_ids) for pair, old, new in zip(pairs, before, after, strict=True)]
    return {"preferred_before": sum(c > r for c, r in before) / len(pairs), "preferred_after": sum(c > r for c, r in after) / len(pairs),
            "chosen_drift": sum(moved) / len(moved)}
