"""Why p-tuning teaches tiny BLOOM less than the others: ours beside PEFT's, and with ALiBi's distance to the prompt taken away.

Usage: python scripts/bench/prompt_bloom.py [--base_steps 1500] [--steps 400]

Prints the largest difference of 60 training losses between zhtune's and PEFT's p-tuning from equal weights; the loss on the 32
answers without a prompt, of BLOOM and of LLaMA; then the mean of the last 8 losses (batches of 8) with ALiBi as it is, and with
prompt keys as near to every query as its own token. Results: docs/measurements/adapters.md.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import peft
import torch
from adapters import train_base, write_records

from zhtune.models.attached import Attached
from zhtune.models.inserts import SoftPrompt
from zhtune.models.load import load_model
from zhtune.records import read_jsonl
from zhtune.templates.encode import ChatEncoder


def batch_of(base: Path, records: Path) -> dict[str, Any]:
    """The 32 records, padded: input_ids, attention_mask, labels, each (32, tokens)."""
    encoder = ChatEncoder(base)
    samples = [encoder.sample(row["messages"]) for _, row in read_jsonl(records)]
    width = max(len(s.ids) for s in samples)
    return {"input_ids": torch.tensor([s.ids + [0] * (width - len(s.ids)) for s in samples]),
            "attention_mask": torch.tensor([[1] * len(s.ids) + [0] * (width - len(s.ids)) for s in samples]),
            "labels": torch.tensor([[i if m else -100 for i, m in zip(s.ids, s.mask, strict=True)] + [-100] * (width - len(s.ids)) for s in samples])}


def losses(model: Any, data: dict[str, Any], steps: int, rows: int, rate: float = 1e-2) -> list[float]:
    """Train what can be trained, in batches of `rows`; the loss of each step."""
    trained = [weight for weight in model.train().parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0, betas=(.9, .99))
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1, 20 * s / steps) * max(0, 1 - s / steps))
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(steps):
        chosen = torch.randperm(32, generator=generator)[:rows]
        loss = model(**{name: values[chosen] for name, values in data.items()}).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step(), optimizer.zero_grad(), decay.step()
        found.append(loss.item())
    return found


def prompted(base: Path, tokens: int, network: bool = True) -> Any:
    """A base with a fresh prompt of ours."""
    model = load_model(base)
    torch.manual_seed(1)
    return Attached(model, SoftPrompt.of(model, tokens, network))


def beside_pefts(base: Path, data: dict[str, Any]) -> float:
    """Largest difference of 60 losses from equal weights."""
    ours = prompted(base, 16)
    theirs = peft.get_peft_model(load_model(base), peft.PromptEncoderConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=16, encoder_hidden_size=ours.part.embedding.shape[1]))
    encoder = theirs.prompt_encoder["default"]
    encoder.embedding.weight.data.copy_(ours.part.embedding)
    encoder.mlp_head.load_state_dict(ours.part.network.state_dict())
    return max(abs(a - b) for a, b in zip(losses(ours, data, 60, 32), losses(theirs, data, 60, 32), strict=True))


def at_distance_0(model: Any, tokens: int) -> Any:
    """BLOOM whose prompt keys have the ALiBi of each query's own position."""
    def before(attention: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        alibi = kwargs["alibi"].expand(-1, args[0].shape[1], -1).clone()     # (batch * heads, queries, keys)
        alibi[:, :, :tokens] = kwargs["alibi"].transpose(1, 2)
        return args, kwargs | {"alibi": alibi}
    for module in model.base_model.modules():
        if type(module).__name__ == "BloomAttention":
            module.register_forward_pre_hook(before, with_kwargs=True)
    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base_steps", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=400)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        records = Path(scratch) / "records.jsonl"
        write_records(records)
        for family in ("llama", "bloom"):
            train_base(family, Path(scratch) / family, given.base_steps)
            base = Path(scratch) / family / "base"
            data = batch_of(base, records)
            with torch.inference_mode():
                print(family, "without a prompt", round(load_model(base)(**data).loss.item(), 3), flush=True)
        print("largest difference to PEFT's", beside_pefts(base, data), flush=True)
        for tokens, network in ((16, True), (64, True), (64, False)):
            for name, change in (("ALiBi", lambda model, _: model), ("distance 0", at_distance_0)):
                found = losses(change(prompted(base, tokens, network), tokens), data, given.steps, 8)
                method, last = "p-tuning" if network else "prompt tuning", found[-8:]
                print(method, tokens, name, f"{found[0]:.3f} -> {sum(last) / len(last):.3f}", flush=True)
