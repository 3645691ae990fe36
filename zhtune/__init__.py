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

# Public name -> module that holds it. Loaded on first use, so that `import zhtune` costs nothing.
_EXPORTS = {
    "Artifact": "zhtune.artifact",
    "ChatConfig": "zhtune.stages.chat",
    "CleanConfig": "zhtune.stages.clean",
    "ConvertConfig": "zhtune.stages.convert",
    "DpoConfig": "zhtune.stages.dpo",
    "EvaluateConfig": "zhtune.stages.evaluate",
    "ExtendConfig": "zhtune.stages.extend",
    "FertilityConfig": "zhtune.stages.fertility",
    "GenerateConfig": "zhtune.stages.generate",
    "KgConfig": "zhtune.stages.kg",
    "KgInstructConfig": "zhtune.stages.kg_instruct",
    "Launch": "zhtune.train.schedule",
    "LintConfig": "zhtune.stages.lint",
    "Lora": "zhtune.train.adapter",
    "MergeConfig": "zhtune.stages.merge",
    "PackConfig": "zhtune.stages.pack",
    "PreferConfig": "zhtune.stages.prefer",
    "Prefix": "zhtune.train.adapter",
    "PretrainConfig": "zhtune.stages.pretrain",
    "QuantizeConfig": "zhtune.stages.quantize",
    "RunConfig": "zhtune.stages.run",
    "Schedule": "zhtune.train.schedule",
    "SelfInstructConfig": "zhtune.stages.self_instruct",
    "ServeConfig": "zhtune.stages.serve",
    "SftConfig": "zhtune.stages.sft",
    "ShowConfig": "zhtune.stages.show",
    "Tuning": "zhtune.train.adapter",
    "Validation": "zhtune.train.schedule",
    "VocabConfig": "zhtune.stages.vocab",
    "ZhtuneError": "zhtune.errors",
    "chat": "zhtune.stages.chat",
    "clean": "zhtune.stages.clean",
    "convert": "zhtune.stages.convert",
    "dpo": "zhtune.stages.dpo",
    "evaluate": "zhtune.stages.evaluate",
    "extend": "zhtune.stages.extend",
    "fertility": "zhtune.stages.fertility",
    "generate": "zhtune.stages.generate",
    "kg": "zhtune.stages.kg",
    "kg_instruct": "zhtune.stages.kg_instruct",
    "lint": "zhtune.stages.lint",
    "merge": "zhtune.stages.merge",
    "pack": "zhtune.stages.pack",
    "prefer": "zhtune.stages.prefer",
    "pretrain": "zhtune.stages.pretrain",
    "quantize": "zhtune.stages.quantize",
    "run": "zhtune.stages.run",
    "self_instruct": "zhtune.stages.self_instruct",
    "serve": "zhtune.stages.serve",
    "sft": "zhtune.stages.sft",
    "show": "zhtune.stages.show",
    "to_networkx": "zhtune.graph.export",
    "vocab": "zhtune.stages.vocab",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'zhtune' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
