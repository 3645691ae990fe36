"""The exception family. The CLI prints one line of it and exits non-zero; nothing else is caught.

ZhtuneError
├── ConfigError        a setting is wrong: unknown field, bad value, two that exclude each other
├── DataError          the user's data is wrong: says file:line
├── ArtifactError      a folder is not what it should be: corrupt, stale, locked, unfinished
└── MissingDependency  an optional library is not installed: says what to install
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType


class ZhtuneError(Exception):
    """Base of every error that a user can cause or cure."""


class ConfigError(ZhtuneError):
    """A setting is wrong."""


class ArtifactError(ZhtuneError):
    """An artifact folder is not what it should be."""


class MissingDependency(ZhtuneError):
    """An optional library is not installed."""


class DataError(ZhtuneError):
    """The user's data is wrong.

    Args:
        message: what was found and what was expected.
        file: the file it was found in.
        line: 1-based line (or record) in that file.
    """

    def __init__(self, message: str, file: str | Path | None = None, line: int | None = None):
        where = f"{file}:{line}: " if line is not None else f"{file}: " if file is not None else ""
        super().__init__(where + message)


def require(module: str, extra: str) -> ModuleType:
    """Import an optional library, or say how to install it.

    Args:
        module: the import name, such as "torch".
        extra: the extra of zhtune that brings it, such as "train".

    Raises:
        MissingDependency: the library is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingDependency(f'{module} is not installed; install it with: pip install "zhtune[{extra}]"') from error
