"""Rows of token ids -> tensors of one batch; and the proof that packed documents do not see each other in a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from zhtune.errors import ConfigError
from zhtune.train.samples import IGNORED

EVEN = 16                                                   # rows are filled up to a multiple: oneDNN keeps code for every length that comes
_SAME = 1e-3                                                # log-probabilities that differ by less are the same computation
_ROUNDED = 0.1                                              # the same where a quantized base computes in 16 bit
_WAYS = "leave out --packing (sft) or give --isolate false (pretrain)"


@dataclass(frozen=True)
class Collator:
    """Pads rows on the right, to a multiple of EVEN tokens.

    Rows with `position_ids` get no attention mask: where positions begin again at 0, transformers keeps attention within
    the document, on eager and SDPA by a block-diagonal mask, on flash-attention, which wants one row, by lengths.
    """

    pad_id: int
    flat: bool = False
    """Lay packed rows end to end as one row (flash-attention)"""

    def __call__(self, rows: list[dict[str, list[int]]]) -> dict[str, Any]:
        """`input_ids`, `labels` and `attention_mask` or `position_ids`, each (batch, sequence)."""
        columns = {name: [torch.tensor(row[name]) for row in rows] for name in rows[0]}
        packed = "position_ids" in columns
        if packed and self.flat:
            return {name: torch.cat(values)[None] for name, values in columns.items()}
        ids = _filled(columns["input_ids"], self.pad_id)
        batch = {"input_ids": ids, "labels": _filled(columns["labels"], IGNORED)}
        if packed:                                          # padding is a document of its own: positions 0, 1, 2 … again
            rest = [torch.arange(ids.shape[1] - len(p)) for p in columns["position_ids"]]
            return batch | {"position_ids": torch.stack([torch.cat(pair) for pair in zip(columns["position_ids"], rest, strict=True)])}
        lengths = torch.tensor([len(i) for i in columns["input_ids"]])
        return batch | {"attention_mask": (torch.arange(ids.shape[1])[None] < lengths[:, None]).long()}


def _filled(rows: list[Any], filling: int) -> Any:
    batch = pad_sequence(rows, batch_first=True, padding_value=filling)
    return pad(batch, (0, -batch.shape[1] % EVEN), value=filling)


def require_isolation(model: Any) -> None:
    """Compute two short documents packed and apart.

    Raises:
        ConfigError: the second one sees the first (BLOOM's ALiBi: it does not follow positions).
    """
    ids = torch.arange(4, 14, device=model.device)[None]
    positions = torch.tensor([[*range(5), *range(5)]], device=model.device)
    try:
        with torch.no_grad():
            apart = model(input_ids=ids[:, 5:], position_ids=positions[:, 5:], use_cache=False).logits
            together = model(input_ids=ids, position_ids=positions, use_cache=False).logits[:, -5:]
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError) as error:  # ChatGLM-6B counts two positions a token
        raise ConfigError(f"{model.config.model_type} takes no positions of packed documents ({error}); {_WAYS}") from error
    difference = (apart.float().log_softmax(-1) - together.float().log_softmax(-1)).abs().max().item()
    rounded = ids.is_cuda and any(not p.is_floating_point() or p.element_size() < 4 for p in model.parameters())
    if not difference < (_ROUNDED if rounded else _SAME):
        raise ConfigError(f"packed documents see each other in this model ({model.config.model_type}: log-probabilities differ by "
                          f"{difference:.2g}); {_WAYS}")
