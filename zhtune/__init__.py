"""zhtune builds vertical-domain Chinese chat models: stages over artifacts.

Floors, each importing only those below it (tests/test_layers.py): 0 errors config artifact references assets records
text log page; 1 corpus vocabulary graph synthesis templates tokenizers (no torch); 2 models; 3 train evaluation export
(never each other); 4 serving; 5 stages cli.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Public name -> module that holds it. Loaded on first use, so that `import zhtune` costs nothing.
_EXPORTS = {
    "Artifact": "zhtune.artifact",
    "CleanConfig": "zhtune.stages.clean",
    "clean": "zhtune.stages.clean",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'zhtune' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
