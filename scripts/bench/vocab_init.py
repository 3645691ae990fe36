"""How new rows should start: bits per character of Chinese right after an extension and after an equal small budget.

Usage: python scripts/bench/vocab_init.py [--text FOLDER] [--size 8000] [--inits subtoken-mean …] [--heads tied untied]
[--rates 2e-4 1e-3] [--seeds 0 1] [--steps 12] [--out FILE.json]. The base is `embedded` (SmolLM2-135M, 30 layers;
`--base embedded:4` for a quick look). The windows come from documents that neither the vocabulary nor the training
has seen and share no run of 13 characters with them. Untied: the head is a copy of the embedding before the extension.
`--inits distil` adds token distillation (arXiv 2505.20133) of the input rows from their sub-token mean; it costs passes
over text that the others do not get. Peak memory is about 4 GB.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import random
import resource
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zhtune import log, references
from zhtune.corpus import filters
from zhtune.corpus.read import Document, read_files
from zhtune.digests import drawn
from zhtune.errors import ConfigError, require
from zhtune.log import logger
from zhtune.models import bits
from zhtune.models.extend import INITS, base_rows, check_rows, extend_rows
from zhtune.models.load import copy_tokenizer, load_model, materialise
from zhtune.templates.encode import ChatEncoder
from zhtune.text import normalise
from zhtune.vocabulary.bytelevel import extend_bytelevel
from zhtune.vocabulary.train import Plan, TextCounts, train_pieces

ROOT = Path(__file__).parents[2]
HELD_OUT, GRAM, WINDOW = 0.1, 13, 400                      # share of documents; characters of a shared run, of a training window


def main() -> None:
    log.configure()
    options = read_options()
    torch = require("torch", "train")
    torch.set_num_threads(options.threads)
    texts, windows, overlap = read_text(options.text, options.characters, options.windows)
    logger.info("%d training texts, %d held-out windows, %.1f %% of candidates shared %d characters with training and were left out",
                len(texts), len(windows), 100 * overlap, GRAM)
    with tempfile.TemporaryDirectory(prefix="zhtune-") as scratch:
        base, extended = Path(scratch) / "base", Path(scratch) / "extended"
        base.mkdir()
        materialise(references.resolve(options.base), base)
        definitions, ids = extend_tokenizer(base, extended, texts, options.size)
        encoders = ChatEncoder(base), ChatEncoder(extended)
        start = bits.bits_per_character(load_model(base), encoders[0], windows)
        print(f"base, not extended: {start:.3f} bits per character")
        rows = [row for head in options.heads for init in options.inits
                for row in measure(options, base, definitions, ids, encoders, texts, windows, head, init)]
    result = {"base": options.base, "new_tokens": len(ids), "windows": len(windows), "window_characters": bits.WINDOW,
              "steps": options.steps, "batch": options.batch, "block": options.block, "base_bits": start, "rows": rows,
              "left_out": overlap, "peak_gigabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)}
    show(rows, start)
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def read_options() -> argparse.Namespace:
    shared = ROOT.parent / "shared" / "data" / "corpus"
    parser = argparse.ArgumentParser(description="Initialisation of new rows, measured")
    parser.add_argument("--text", type=Path, default=shared if shared.is_dir() else ROOT / "scripts" / "corpus" / "zh")
    parser.add_argument("--base", default="embedded")
    parser.add_argument("--size", type=int, default=8000)
    parser.add_argument("--characters", type=int, default=8_000_000, help="most characters of training text")
    parser.add_argument("--windows", type=int, default=60)
    parser.add_argument("--inits", nargs="+", default=["subtoken-mean", "weighted-mean", "mean"], choices=[*INITS, "distil"])
    parser.add_argument("--heads", nargs="+", default=["tied", "untied"], choices=["tied", "untied"])
    parser.add_argument("--rates", nargs="+", type=float, default=[2e-4, 1e-3])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--block", type=int, default=96, help="tokens of one training sample")
    parser.add_argument("--distil-steps", type=int, default=48)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def read_text(folder: Path, characters: int, wanted: int) -> tuple[list[str], list[str], float]:
    """Training texts, held-out windows, and the share of candidate windows that the training text overlaps."""
    parts: dict[str, list[Document]] = {"train": [], "heldout": []}
    for document in read_files([folder]):
        if isinstance(document, Document):
            text = normalise(document.text).strip()
            if filters.refusal(text, filters.Rules(min_characters=bits.WINDOW, min_han=0.5)) is None:
                part = "heldout" if drawn(document.id, HELD_OUT) else "train"
                parts[part] += [Document(f"{document.id}#{n}", piece, {}) for n, piece in enumerate(filters.divide(text, 4000))]
    texts, size = [], 0
    for document in sorted(parts["train"], key=lambda d: hashlib.sha256(d.id.encode()).digest()):
        if size < characters:
            texts.append(document.text)
            size += len(document.text)
    candidates = bits.windows((d.text for d in parts["heldout"]), 10 * wanted, seed=0)
    grams = {window[i:i + GRAM] for window in candidates for i in range(len(window) - GRAM + 1)}
    seen = {text[i:i + GRAM] for text in texts for i in range(len(text) - GRAM + 1) if text[i:i + GRAM] in grams}
    clean = [w for w in candidates if not any(w[i:i + GRAM] in seen for i in range(len(w) - GRAM + 1))]
    if len(clean) < wanted:
        raise ConfigError(f"{folder} gives {len(clean)} held-out windows of {bits.WINDOW} characters, --windows asks for {wanted}; "
                          "give more text or ask for fewer")
    chosen = sorted(random.Random(0).sample(range(len(clean)), wanted))
    return texts, [clean[i] for i in chosen], 1 - len(clean) / len(candidates)


def extend_tokenizer(base: Path, extended: Path, texts: list[str], size: int) -> tuple[tuple[dict[str, Any], dict[str, Any]], range]:
    """Write the extended tokenizer; returns both definitions and the new ids."""
    counts = TextCounts()
    for text in texts:
        counts.add(text)
    old = json.loads((base / "tokenizer.json").read_text("utf-8"))
    new, extension = extend_bytelevel(old, train_pieces(counts, Plan(size=size)).pieces, size=size)
    extended.mkdir()
    copy_tokenizer(base, extended)
    (extended / "tokenizer.json").write_text(json.dumps(new), "utf-8")
    return (old, new), range(extension.base_size, extension.base_size + len(extension.tokens))


def measure(options: argparse.Namespace, base: Path, definitions: tuple[dict[str, Any], dict[str, Any]], ids: range,
            encoders: tuple[ChatEncoder, ChatEncoder], texts: list[str], windows: list[str], head: str, init: str) -> Iterator[dict[str, Any]]:
    """One row a learning rate and seed: bits per character before and after training."""
    model = load_model(base)
    if head == "untied":
        untie(model)
    before = base_rows(model, ids)
    made = extend_rows(model, *definitions, ids, "subtoken-mean" if init == "distil" else init)
    extra = options.distil_steps if init == "distil" else 0
    if extra:
        distil(model, encoders, blocks(encoders[1], texts, options, extra, seed=99), ids)
    gate = check_rows(model, before, *definitions, ids, init)
    first = bits.bits_per_character(model.eval(), encoders[1], windows)
    for rate in options.rates:
        for seed in options.seeds:
            trained = copy.deepcopy(model)
            loss = train(trained, encoders[1], blocks(encoders[1], texts, options, options.steps, seed), rate)
            after = bits.bits_per_character(trained.eval(), encoders[1], windows)
            logger.info("%s %s, rate %g, seed %d: %.3f then %.3f bits per character", head, init, rate, seed, first, after)
            yield {"head": head, "init": init, "rate": rate, "seed": seed, "bits_at_start": first, "bits_after": after, "last_loss": loss,
                   "equal_rows": made["equal_rows"], "gate": gate.passed, "norm": gate.numbers["norm"], "extra_steps": extra}


def untie(model: Any) -> None:
    """Give the output layer a copy of the embedding."""
    import torch
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.get_input_embeddings().weight.detach().clone())


def blocks(encoder: ChatEncoder, texts: list[str], options: argparse.Namespace, steps: int, seed: int) -> list[list[str]]:
    """Batches of seeded training texts, each at least a block long."""
    generator, chosen = random.Random(seed), []
    while len(chosen) < steps * options.batch:
        text = generator.choice(texts)
        at = generator.randrange(max(1, len(text) - WINDOW))
        ids = encoder.text_ids(text[at:at + WINDOW])[:options.block - 1]
        if len(ids) == options.block - 1:
            chosen.append(encoder.decode(ids).rstrip("\ufffd"))
    return [chosen[i:i + options.batch] for i in range(0, len(chosen), options.batch)]


def train(model: Any, encoder: ChatEncoder, batches: list[list[str]], rate: float) -> float:
    """All parameters, AdamW, the rate rising over two steps and falling linearly to zero; the last step's loss in nats a token."""
    import torch
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / 2, 1 - step / len(batches)))
    model.train()
    for batch in batches:
        rows = [[encoder.end_id, *encoder.text_ids(text)] for text in batch]
        width = min(map(len, rows))                         # a block decoded and encoded again may differ by a token
        ids = torch.tensor([row[:width] for row in rows])
        logits = model(input_ids=ids).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return loss.item()


def distil(model: Any, encoders: tuple[ChatEncoder, ChatEncoder], batches: list[list[str]], ids: range, rate: float = 1e-3) -> None:
    """Train the new input rows alone, so that the last hidden states of a text in new tokens are those in old tokens.

    The teacher is the model itself on the base's ids: it has no new rows in them. States are compared where a token of
    either segmentation ends after the same characters, by the squared error relative to the teacher's.
    """
    import torch
    embedding = model.get_input_embeddings().weight
    model.requires_grad_(False)
    embedding.requires_grad_(True)
    mask = torch.zeros(embedding.shape[0], 1)
    mask[ids.start:ids.stop] = 1
    hook = embedding.register_hook(lambda gradient: gradient * mask)
    optimizer = torch.optim.AdamW([embedding], lr=rate, weight_decay=0.0)
    for batch in batches:
        loss = 0
        for text in batch:
            (old, ends), (new, new_ends) = (_ends(encoder, text) for encoder in encoders)
            common = sorted(ends.keys() & new_ends.keys())
            with torch.no_grad():
                target = model.get_decoder()(input_ids=torch.tensor([old])).last_hidden_state[0, [ends[e] for e in common]]
            state = model.get_decoder()(input_ids=torch.tensor([new])).last_hidden_state[0, [new_ends[e] for e in common]]
            loss = loss + (state - target).square().mean() / target.square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    hook.remove()
    model.requires_grad_(True)


def _ends(encoder: ChatEncoder, text: str) -> tuple[list[int], dict[int, int]]:
    """Ids behind an end token, and for each number of characters the place of the token that ends there."""
    ids, ends, done = [encoder.end_id, *encoder.text_ids(text)], {}, 0
    for place in range(1, len(ids)):
        part = encoder.decode(ids[1:place + 1])
        if not part.endswith("\ufffd") and len(part) > done:
            done = len(part)
            ends[done] = place
    return ids, ends


def show(rows: list[dict[str, Any]], start: float) -> None:
    """A line for each head, init and rate: at the start, and after training as the mean of the seeds with their range."""
    print(f"{'head':8}{'init':16}{'rate':>8}{'start':>9}{'after':>9}{'range':>9}   bits per character; the base has {start:.3f}")
    for head, init, rate in dict.fromkeys((r["head"], r["init"], r["rate"]) for r in rows):
        group = [r for r in rows if (r["head"], r["init"], r["rate"]) == (head, init, rate)]
        after = [r["bits_after"] for r in group]
        print(f"{head:8}{init:16}{rate:8.0e}{group[0]['bits_at_start']:9.3f}{statistics.mean(after):9.3f}{max(after) - min(after):9.3f}")


if __name__ == "__main__":
    main()
