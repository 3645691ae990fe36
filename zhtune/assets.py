"""Finds the data folders that travel with zhtune: in the wheel under zhtune/_assets, in a checkout at its root."""

from __future__ import annotations

from pathlib import Path

from zhtune.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent
_SHIPPED = ("knowledge_graphs", "vocab", "prompts", "scripts", "scripts/recipes", "scripts/presets")  # where `shipped:NAME` looks, in order


def root() -> Path:
    """The folder that holds knowledge_graphs/, prompts/, vocab/ and scripts/."""
    packed = _PACKAGE / "_assets"
    return packed if packed.is_dir() else _PACKAGE.parent


def shipped(name: str) -> Path:
    """The path of what `shipped:NAME` means, such as "medical" (a graph) or "corpus" (text).

    Raises:
        ConfigError: nothing of that name is shipped.
    """
    for folder in _SHIPPED:
        for candidate in (root() / folder / name, root() / folder / f"{name}.yaml"):
            if candidate.exists():
                return candidate
    known = sorted({p.stem for folder in _SHIPPED for p in (root() / folder).glob("*") if not p.name.startswith(".")})
    raise ConfigError(f"nothing is shipped under the name {name!r}; there are: {', '.join(known)}")
