"""zhtune builds vertical-domain Chinese chat models: stages over artifacts.

Floors, each importing only those below it (tests/test_layers.py): 0 errors config digests artifact references building
assets records text log page; 1 corpus vocabulary graph synthesis templates tokenizers (no torch); 2 models; 3 train evaluation export
(never each other); 4 serving; 5 stages cli.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

# Before torch or llama.cpp load libgomp: spinning threads cost 7x (torch) to 100x (llama.cpp) on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

# Each is a function and its config: zhtune.kg_instruct and zhtune.KgInstructConfig are in zhtune/stages/kg_instruct.py.
_STAGES = ("chat", "clean", "convert", "dpo", "evaluate", "extend", "fertility", "generate", "kg", "kg_instruct", "lint", "merge",
           "pack", "prefer", "pretrain", "quantize", "run", "self_instruct", "serve", "sft", "show", "vocab")
# Public name -> module that holds it. Loaded on first use, so that `import zhtune` costs nothing.
_EXPORTS = {
    "Artifact": "zhtune.artifact",
    "Launch": "zhtune.train.schedule",
    "Lora": "zhtune.train.adapter",
    "Prefix": "zhtune.train.adapter",
    "Schedule": "zhtune.train.schedule",
    "Tuning": "zhtune.train.adapter",
    "Validation": "zhtune.train.schedule",
    "ZhtuneError": "zhtune.errors",
    "to_networkx": "zhtune.graph.export",
    **{name: f"zhtune.stages.{name}" for name in _STAGES},
    **{f"{name.title().replace('_', '')}Config": f"zhtune.stages.{name}" for name in _STAGES},
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'zhtune' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
