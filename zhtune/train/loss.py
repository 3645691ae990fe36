"""Cross entropy at trained positions only, through the model's own forward, so that PEFT, DDP, DeepSpeed and FSDP take part.

Off CUDA TRL 1.16 scores every position, prompts and padding too, against the whole vocabulary, which costs 2.5 to 3 times
the time. Knows nothing of batches and steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy, pad
from torch.utils.checkpoint import checkpoint

from zhtune.train.samples import IGNORED

LOGITS = 1 << 26                                            # positions × vocabulary of one chunk: 256 MB in float32
_SCALED = ("final_logit_softcapping", "logit_scale", "logits_scaling", "output_multiplier", "lm_head_multiplier")


def answer_loss(model: Any, causal: Any, inputs: dict[str, Any], labels: Any, autocast: Any, most: int = LOGITS) -> Any:
    """Summed cross entropy of the trained positions.

    The hidden states of trained positions are picked right in front of the output layer. Where their logits are more than
    `most`, the output layer is applied chunk by chunk and again in the backward pass, so that one chunk is in memory.

    Args:
        model: what is called, with all its wrappers.
        causal: the bare causal language model in it.
        inputs: of the forward, without labels.
        labels: (batch, sequence), IGNORED where nothing is trained.
        autocast: context manager for the chunks.
        most: logits of one chunk.
    """
    targets = labels[:, 1:]
    trained = targets != IGNORED                            # (batch, sequence - 1)
    goals, head = targets[trained], causal.get_output_embeddings()
    goals = pad(goals, (0, -len(goals) % (64 if len(goals) > 64 else 8)), value=IGNORED)    # few lengths: see batches.EVEN
    rows = max(1, most // causal.config.vocab_size)
    chunked = len(goals) > rows and not any(getattr(causal.config, name, None) for name in _SCALED)  # those change logits after the head
    picked: list[Any] = []

    def pick(_: Any, args: tuple[Any, ...]) -> tuple[Any]:
        hidden = args[0][:, -labels.shape[1]:]              # prompt tuning puts virtual tokens in front
        found = hidden[:, :-1][trained]
        picked.append(pad(found, (0, 0, 0, len(goals) - len(found))))   # (trained and filling, hidden)
        return (picked[0][:1] if chunked else picked[0],)

    hook = head.register_forward_pre_hook(pick)
    try:
        logits = model(**inputs, use_cache=False).logits
    finally:
        hook.remove()
    if not chunked:
        return cross_entropy(logits.float(), goals, reduction="sum")

    def part(hidden: Any, goal: Any) -> Any:
        return cross_entropy(head(hidden).float(), goal, reduction="sum")
    with autocast:
        parts = [checkpoint(part, hidden, goal, use_reentrant=False, preserve_rng_state=False)
                 for hidden, goal in zip(picked[0].split(rows), goals.split(rows), strict=True)]
    return torch.stack(parts).sum()
