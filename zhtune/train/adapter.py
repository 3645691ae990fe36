"""What is trained of a model: configs of all methods, the adapters they make, and where an adapter's base lies."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from zhtune.config import Checked
from zhtune.errors import ConfigError, require
from zhtune.models.extend import token_indices
from zhtune.models.families import Family
from zhtune.references import Source

Method = Literal["full", "freeze", "lora", "qlora", "p-tuning-v2", "p-tuning", "prompt-tuning", "ia3", "bottleneck"]
WHOLE = ("full", "freeze")                                  # methods that write a model, not an adapter
BY_PEFT = ("lora", "qlora", "ia3")                          # the other adapters are zhtune's own modules (models/attached.py)


@dataclass(frozen=True)
class Lora(Checked):
    """Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685)."""

    rank: int = 8
    """Rank r of the update B·A"""
    alpha: int = 16
    """The update is scaled by alpha / rank"""
    dropout: float = 0.0
    """Dropout in front of A"""
    new_rows: bool = False
    """Train the rows of an extended model's new tokens too, in the embedding and in an output layer of its own"""
    rslora: bool = False
    """Scale by alpha / √rank instead, for high ranks (Kalajdzievski 2023, arXiv 2312.03732)"""
    dora: bool = False
    """Train the lengths of the weights' columns apart from their directions (Liu et al. 2024, arXiv 2402.09353)"""


@dataclass(frozen=True)
class Prefix(Checked):
    """P-tuning v2 (Liu et al. 2021, arXiv 2110.07602); its published learning rate is 2e-2."""

    tokens: int = 128
    """Length of the prefix"""
    projection: bool = False
    """Make keys and values by a two-layer network, which is worked out when the adapter is written"""
    dropout: float = 0.1
    """Dropout of the prefix while training"""


@dataclass(frozen=True)
class Tuning(Checked):
    """The methods besides LoRA."""

    quantize: Literal["auto", "none", "nf4", "int8"] = "auto"
    """How the frozen base is held while training; auto: nf4 for qlora, none for the others"""
    prefix: Prefix = field(default_factory=Prefix)
    """p-tuning-v2"""
    prompt_tokens: int = 20
    """Trained tokens in front of the text (p-tuning, prompt-tuning)"""
    bottleneck: int = 64
    """Width of the bottlenecks (bottleneck)"""
    layers: int = 2
    """How many of the last layers are trained (freeze)"""

    def check(self) -> None:
        if min(self.prefix.tokens, self.prompt_tokens, self.bottleneck, self.layers) < 1:
            raise ConfigError("--tuning.prefix.tokens, .prompt_tokens, .bottleneck and .layers must be at least 1")


def quantization(method: Method, tuning: Tuning) -> str:
    """How bitsandbytes holds the base: "nf4", "int8", or empty.

    Raises:
        ConfigError: the weights themselves are to be trained.
    """
    if tuning.quantize == "auto":
        return "nf4" if method == "qlora" else ""
    if tuning.quantize != "none" and method in WHOLE:
        raise ConfigError(f"--method {method} trains the weights themselves, which must not be quantized; "
                          f"with --tuning.quantize {tuning.quantize} take qlora, p-tuning-v2 or another adapter")
    return "" if tuning.quantize == "none" else tuning.quantize


def prompt_length(method: Method, tuning: Tuning) -> int:
    """Positions of the context that the method takes for itself."""
    return tuning.prompt_tokens if method in ("p-tuning", "prompt-tuning") else 0


def adapt(model: Any, found: Family, method: Method, lora: Lora, tuning: Tuning, seed: int, rows: range | None = None,
          start: Path | None = None) -> Any:
    """The model with what `method` trains: a PeftModel, or an Attached around it.

    Args:
        model: a causal language model; it is frozen, and changed in place.
        found: its family.
        seed: of the adapter's first weights.
        rows: embedding rows that LoRA trains too, each weight of them.
        start: a checkpoint of a prefix to begin with.
    """
    torch = require("torch", "train")
    torch.manual_seed(seed)
    if method in BY_PEFT:
        return _by_peft(model, found, method, lora, rows)
    from zhtune.models.attached import Attached
    from zhtune.models.inserts import Bottleneck, SoftPrompt
    from zhtune.models.prefix import Prefix as PrefixPart
    from zhtune.models.prefix import published_tensors
    if method == "p-tuning-v2" and start:
        part: Any = PrefixPart.from_tensors(model, published_tensors(start), tuning.prefix.dropout)
    elif method == "p-tuning-v2":
        part = PrefixPart.of(model, tuning.prefix.tokens, tuning.prefix.projection, tuning.prefix.dropout)
    elif method == "bottleneck":
        part = Bottleneck.of(model, found, tuning.bottleneck)
    else:
        part = SoftPrompt.of(model, tuning.prompt_tokens, network=method == "p-tuning")
    return Attached(model, part)


def _by_peft(model: Any, found: Family, method: str, lora: Lora, rows: range | None) -> Any:
    """LoRA on every linear layer but the output layer, or IA3.

    Embeddings stay out: LoRA on tied embeddings merges wrongly (difference 1e+01).
    """
    peft = require("peft", "train")
    if method == "ia3":                                     # Liu et al. 2022, arXiv 2205.05638
        return peft.get_peft_model(model, peft.IA3Config(target_modules=list(found.scaled), feedforward_modules=[found.scaled[-1]],
                                                         task_type="CAUSAL_LM"))
    return peft.get_peft_model(model, peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, use_rslora=lora.rslora, use_dora=lora.dora, task_type="CAUSAL_LM",
        target_modules=found.linear if isinstance(found.linear, str) else list(found.linear),
        trainable_token_indices=token_indices(model, rows) if rows else None))


def last_layers(model: Any, count: int) -> Any:
    """Freeze a model but for its last layers.

    Raises:
        ConfigError: it has fewer.
    """
    torch = require("torch", "train")
    total = model.config.num_hidden_layers
    stack = next(m for m in model.get_decoder().children() if isinstance(m, torch.nn.ModuleList) and len(m) == total)
    if count > total:
        raise ConfigError(f"--tuning.layers {count}: the model has {total}")
    model.requires_grad_(False)
    for layer in stack[total - count:]:
        layer.requires_grad_(True)
    return model


def save_adapter(model: Any, folder: Path, out: Path, base: Source, weights: dict[str, Any] | None = None) -> dict[str, Any]:
    """Write the adapter folder; its base is named by relative path, or as a hub has it. Returns what the manifest says of the base.

    Args:
        model: a PeftModel or an Attached.
        folder: the unfinished artifact.
        out: where the artifact will lie, for the relative path.
        base: the model it was trained on.
        weights: all of them, where an engine has divided the model among processes.
    """
    from zhtune.models.attached import Attached
    location = base.fixed if base.kind == "base" or base.fixed.startswith("hf:") else os.path.relpath(base.path, out)
    if isinstance(model, Attached):
        model.save_pretrained(folder, location)
    else:
        for config in model.peft_config.values():
            config.base_model_name_or_path = location
            for name, value in vars(config).items():
                if isinstance(value, set):                  # in the order of hashes, which differs from process to process
                    setattr(config, name, sorted(value))
        model.save_pretrained(folder, save_embedding_layers=False, state_dict=weights, selected_adapters=["default"])     # not TRL's reference
        (folder / "README.md").unlink(missing_ok=True)      # PEFT's model card template, empty
    return {"base": location, "base_kind": base.kind, "base_digest": base.digest}
