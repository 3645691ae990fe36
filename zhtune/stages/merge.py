"""Adapter (or a chain of them) -> one model folder, in the weights' own 16 or 32 bits, saying what its base says."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from zhtune.artifact import Artifact
from zhtune.building import Stage, Work, build
from zhtune.config import StageConfig
from zhtune.errors import ConfigError
from zhtune.models.load import chain, copy_tokenizer, is_adapter, load_chain, open_encoder, refuse_unmergeable, save_template
from zhtune.references import MODEL_KINDS

STAGE = Stage("merge", version=1, kind="model", inputs={"adapter": ("adapter", "file"), "base": MODEL_KINDS})


@dataclass(frozen=True, kw_only=True)
class MergeConfig(StageConfig):
    """Fold an adapter, and those under it, into their base."""

    adapter: str
    """An adapter artifact or a plain PEFT folder; it names its base"""
    base: str = ""
    """Where the base lies now, if not where the adapter says"""


def merge(config: MergeConfig) -> Artifact:
    """Write a model folder: merged weights, everything else as in the base.

    Raises:
        ArtifactError: the base is gone or another one now.
        ConfigError: an adapter that does not fold into weights.
    """
    return build(STAGE, config, lambda work: _write(work, config))


def _write(work: Work, config: MergeConfig) -> None:
    adapter = work.sources["adapter"]
    if not is_adapter(adapter):
        raise ConfigError(f"--adapter {adapter.reference} is no adapter: it has no adapter_config.json")
    base, adapters = chain(adapter, config.base)
    refuse_unmergeable(adapters)
    with tempfile.TemporaryDirectory(prefix="zhtune-") as scratch:
        model, folder = load_chain(adapter, Path(scratch), "auto", base=config.base)
        model.save_pretrained(work.path)
        encoder, _ = open_encoder(adapter, Path(scratch), chat=False, base=config.base)
        copy_tokenizer(folder, work.path)                   # after save_pretrained: the base's generation config stands
        save_template(encoder, folder, work.path)           # that of an adapter goes before the base's
    work.licences |= set(base.licences)
    work.metrics |= {"adapters": len(adapters), "parameters": sum(p.numel() for p in model.parameters())}
