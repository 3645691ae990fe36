"""Adapters that stand between a frozen model's layers: trained tokens in front of the text, bottlenecks behind the sublayers."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.nn import functional

from zhtune.models.families import Family, family


class SoftPrompt(torch.nn.Module):
    """Embeddings in front of every text: prompt tuning (Lester et al. 2021, arXiv 2104.08691), or p-tuning (Liu et al. 2021,
    arXiv 2103.10385), where a network of three layers makes them.

    They stand at positions 0 … n-1 and the text behind them, whatever the padding between them; PEFT's own forward gets
    left padding wrong. They pass through the decoder and are cut off its output, so losses and logits need not know.

    Args:
        weight: first values, (tokens, hidden).
        network: put PEFT's three-layer network behind them.
    """

    def __init__(self, weight: Any, network: bool = False):
        super().__init__()
        hidden = weight.shape[1]
        self.on, self._added = True, 0
        self.embedding = torch.nn.Parameter(weight.detach().float().clone())
        layers = (torch.nn.Linear(hidden, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, hidden), torch.nn.ReLU(),
                  torch.nn.Linear(hidden, hidden))
        self.network = torch.nn.Sequential(*layers) if network else torch.nn.Identity()

    @classmethod
    def of(cls, model: Any, tokens: int, network: bool) -> SoftPrompt:
        """A fresh prompt: rows of tokens drawn from torch's seed, or N(0, 1) in front of a network."""
        rows = model.get_input_embeddings().weight
        return cls(torch.randn(tokens, rows.shape[1]) if network else rows[torch.randint(rows.shape[0], (tokens,)).to(rows.device)], network)

    @classmethod
    def from_tensors(cls, model: Any, tensors: dict[str, Any]) -> SoftPrompt:
        weight, hidden = tensors["prompt_embeddings"], model.config.hidden_size
        if weight.shape[1] != hidden:
            raise RuntimeError(f"its prompt is {weight.shape[1]} wide, the model {hidden}")
        return cls(weight)

    def attach(self, model: Any) -> None:
        """Hook this prompt into a model's decoder."""
        self._heads, self._layers = model.config.num_attention_heads, model.config.num_hidden_layers
        decoder = model.get_decoder()
        decoder.register_forward_pre_hook(self._before, with_kwargs=True)
        decoder.register_forward_hook(self._after)

    @property
    def positions(self) -> int:
        """How many positions of the model's context this takes."""
        return self.embedding.shape[0]

    def saved(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Config and tensor as PEFT's prompt tuning writes them; a network is worked out and left behind."""
        with torch.no_grad():
            weight = self.network(self.embedding)
        return {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": weight.shape[0], "token_dim": weight.shape[1],
                "num_transformer_submodules": 1, "num_attention_heads": self._heads, "num_layers": self._layers,
                "prompt_tuning_init": "RANDOM"}, {"prompt_embeddings": weight}

    def _before(self, decoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._added = 0
        if not self.on:
            return None
        embeds = kwargs.get("inputs_embeds")
        if embeds is None:
            embeds = decoder.get_input_embeddings()(args[0] if args else kwargs["input_ids"])
        cache, mask, tokens = kwargs.get("cache"), kwargs.get("attention_mask"), self.embedding.shape[0]
        if cache is None or cache.get_seq_length() == 0:    # later steps find it in the cache
            prompt = self.network(self.embedding).to(embeds.dtype)
            embeds, self._added = torch.cat([prompt.expand(embeds.shape[0], -1, -1), embeds], 1), tokens
        positions = None
        if mask is not None:
            mask = functional.pad(mask, (tokens, 0), value=1)
            positions = (mask.long().cumsum(-1) - 1).clamp(min=0)[:, -embeds.shape[1]:]
        return (), kwargs | {"input_ids": None, "inputs_embeds": embeds, "attention_mask": mask, "position_ids": positions}

    def _after(self, decoder: Any, args: tuple[Any, ...], output: Any) -> Any:
        if self._added:
            output.last_hidden_state = output.last_hidden_state[:, self._added:]
        return output


class Bottleneck(torch.nn.Module):
    """Two small layers behind each attention and each MLP, before the residual (Houlsby et al. 2019, arXiv 1902.00751).

    Args:
        places: how many outputs they stand behind.
        hidden, size: the model's width and the bottleneck's.
        outputs: last parts of these outputs' names.
    """

    positions = 0                                           # of the context

    def __init__(self, places: int, hidden: int, size: int, outputs: tuple[str, ...]):
        super().__init__()
        self.on, self._outputs = True, outputs
        self.down = torch.nn.ModuleList(torch.nn.Linear(hidden, size) for _ in range(places))
        self.up = torch.nn.ModuleList(torch.nn.Linear(size, hidden) for _ in range(places))
        for layer in self.up:                               # the model is itself before training
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)

    @classmethod
    def of(cls, model: Any, found: Family, size: int) -> Bottleneck:
        """A fresh one for a model."""
        return cls(2 * model.config.num_hidden_layers, model.config.hidden_size, size, found.outputs)

    @classmethod
    def from_tensors(cls, model: Any, tensors: dict[str, Any]) -> Bottleneck:
        made = cls.of(model, family(model.config.to_dict()), tensors["down.0.weight"].shape[0])
        made.load_state_dict(tensors)
        return made

    def attach(self, model: Any) -> None:
        """Hook the bottlenecks behind the model's outputs."""
        outputs = [module for name, module in model.named_modules() if name.endswith(self._outputs)]
        if len(outputs) != len(self.down):
            raise RuntimeError(f"{type(model).__name__} has {len(outputs)} outputs of attention and MLP, not {len(self.down)}")
        for place, output in enumerate(outputs):
            output.register_forward_hook(partial(self._add, place))

    def saved(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Config and tensors."""
        return {"peft_type": "ZHTUNE_BOTTLENECK", "size": self.down[0].out_features}, self.state_dict()

    def _add(self, place: int, module: Any, args: tuple[Any, ...], output: Any) -> Any:
        if not self.on:
            return output
        weight = self.down[place].weight
        return output + self.up[place](functional.gelu(self.down[place](output.to(weight.dtype)))).to(output.dtype)
