"""Adapter (or a chain of them) -> one model folder, in the weights' own 16 or 32 bits, saying what its base says."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from zhtune.artifact import Artifact
from zhtune.building import Stage, Work, build
from zhtune.config import StageConfig
from zhtune.models.load import chain, copy_tokenizer, load_chain, open_encoder, save_template

STAGE = Stage("merge", version=1, kind="model", inputs={"adapter": ("adapter",)})


@dataclass(frozen=True, kw_only=True)
class MergeConfig(StageConfig):
    """Fold an adapter, and those under it, into their base."""

    adapter: str
    """An adapter artifact; its manifest names the base"""


def merge(config: MergeConfig) -> Artifact:
    """Write a model folder: merged weights, everything else as in the base.

    Raises:
        ArtifactError: the base is gone or another one now.
    """
    return build(STAGE, config, lambda work: _write(work, config))


def _write(work: Work, config: MergeConfig) -> None:
    adapter = work.sources["adapter"]
    with tempfile.TemporaryDirectory(prefix="zhtune-") as scratch:
        model, folder = load_chain(adapter, Path(scratch), "auto")
        model.save_pretrained(work.path)
        encoder, _ = open_encoder(adapter, Path(scratch), chat=False)
        copy_tokenizer(folder, work.path)                   # after save_pretrained: the base's generation config stands
        save_template(encoder, folder, work.path)           # that of an adapter goes before the base's
        if (folder / "extension.json").exists():
            (work.path / "extension.json").write_bytes((folder / "extension.json").read_bytes())
    base, adapters = chain(adapter)
    work.licences |= set(base.licences)
    work.metrics |= {"adapters": len(adapters), "parameters": sum(p.numel() for p in model.parameters())}
