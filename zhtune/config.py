"""From flags and YAML to one frozen dataclass, by jsonargparse. Help texts are the docstrings under the fields.

Knows nothing of any stage. A default is written in exactly one place: the field.
"""

from __future__ import annotations

import difflib
import inspect
import json
import re
from argparse import ArgumentError
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from zhtune.errors import ConfigError


class Checked:
    """A dataclass whose values are what its fields say, however it is made: flags and YAML are checked while they are read, Python here.

    Raises:
        ConfigError: a value of another type, or none of the choices. A pathlib.Path becomes text.
    """

    def __post_init__(self) -> None:
        kinds = get_type_hints(type(self))
        for field in fields(self):
            value = getattr(self, field.name)
            try:
                object.__setattr__(self, field.name, _fit(value, kinds[field.name]))
            except TypeError:
                choices = get_args(kinds[field.name]) if get_origin(kinds[field.name]) is Literal else ()
                wanted = f"none of: {', '.join(filter(None, choices))}" if choices else f"not of type {field.type}"
                raise ConfigError(f"{type(self).__name__}.{field.name}: {value!r} is {wanted}") from None
        self.check()

    def check(self) -> None:
        """What types cannot say."""


def _fit(value: Any, kind: Any) -> Any:
    """A value of a kind of field.

    Raises:
        TypeError: it is none.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        for part in parts:
            with suppress(TypeError):
                return _fit(value, part)
    elif origin is Literal:
        if isinstance(value, str) and value in parts:
            return value
    elif origin is list and isinstance(value, list | tuple):
        return [_fit(item, parts[0]) for item in value]
    elif origin is dict and isinstance(value, dict):
        return {_fit(key, parts[0]): _fit(item, parts[1]) for key, item in value.items()}
    elif kind is Any or (kind is str and isinstance(value, Path)):
        return value if kind is Any else str(value)
    elif origin is None and isinstance(value, (int, float) if kind is float else kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise TypeError


@dataclass(frozen=True, kw_only=True)
class StageConfig(Checked):
    """What every stage knows. Stages add their own fields; nothing else is inherited, but what every teacher takes (synthesis/teachers/asking.py)."""

    neutral: ClassVar[tuple[str, ...]] = ()
    """Fields of the stage that cannot change what it writes (device, logging)."""

    out: str
    """The folder to write"""
    seed: int = 0
    """Seed of everything random in this stage"""
    workers: int = 2
    """Processes or threads to use; never changes the result"""
    rebuild: bool = False
    """If --out is finished with other settings, keep it as OUT.stale-N and build anew"""


Config = TypeVar("Config")


def parse(config_class: type[Config], verb: str, argv: list[str]) -> Config:
    """Make a config from command line arguments.

    Args:
        config_class: a frozen dataclass.
        verb: for usage and error texts.
        argv: flags; `--config FILE.yaml` among them gives fields that later flags override.

    Raises:
        ConfigError: an unknown field, a value of the wrong type, a required field that is missing, a key twice in a file.
    """
    for flag, value in pairwise([*argv, ""]):
        file = value if flag == "--config" else flag.partition("=")[2] if flag.startswith("--config=") else ""
        if Path(file).is_file():
            read_yaml(file)                                 # jsonargparse would take the last of two equal keys
    return _make(config_class, verb, lambda parser: parser.parse_args(_join_lists(argv, _lists(config_class))))


def from_mapping(config_class: type[Config], verb: str, values: dict[str, Any]) -> Config:
    """Make a config from a recipe's section; raises as `parse`."""
    return _make(config_class, verb, lambda parser: parser.parse_object(values))


def _make(config_class: type[Config], verb: str, read: Callable[[Any], Any]) -> Config:
    from jsonargparse import ArgumentParser, set_parsing_settings
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(exit_on_error=False, prog=f"zhtune {verb}", description=inspect.getdoc(config_class))
    parser.add_argument("--config", action="config", help="YAML file of fields; flags after it override them")
    parser.add_class_arguments(config_class, None)
    try:
        values = vars(parser.instantiate(read(parser)))
    except ConfigError:
        raise
    except (ArgumentError, TypeError, ValueError, KeyError) as error:
        raise ConfigError(_plain(str(error), config_class, verb)) from error
    values.pop("config", None)
    return config_class(**values)


def _lists(config_class: type) -> set[str]:
    """Flags of the fields that hold nothing but a list."""
    return {f"--{name}" for name, kind in get_type_hints(config_class).items() if get_origin(kind) is list}


def _join_lists(argv: list[str], lists: set[str]) -> list[str]:
    """`--input a b` becomes `--input ["a","b"]`, a flag without a value `--flag true`, `--dry-run` `--dry_run`: jsonargparse's own forms.
    One value of a flag in `lists` is a list of one, unless it is written as a list."""
    joined: list[str] = []
    flag, values = "", []
    for token in [*argv, "--"]:
        if not token.startswith("--"):
            values.append(token)
            continue
        if flag in ("--help", "--print_config") or "=" in flag or not flag:
            joined += [flag, *values] if flag else values
        else:
            several = len(values) > 1 or (flag in lists and bool(values) and not values[0].startswith("["))
            joined += [flag, json.dumps(values, ensure_ascii=False) if several else values[0] if values else "true"]
        flag, values = re.sub(r"^--[\w-]+", lambda name: "--" + name[0][2:].replace("-", "_"), token), []
    return joined


def _plain(message: str, config_class: type, verb: str) -> str:
    """jsonargparse's message as one line, with the nearest field where one was misspelt."""
    line = " ".join(message.split())
    unknown = re.search(r"unrecognized arguments: --([\w.]+)|Option '([\w.]+)' is not accepted", line)
    if choice := re.search(r'[Kk]ey "([\w.]+)".*typing\.Literal\[(.*?)\].*Got value: (\S+)', line):
        names = ", ".join(re.findall("'(.+?)'", choice[2].replace("'', ", "")))
        return f"--{choice[1]} {choice[3]} is none of: {names}"
    if not unknown:
        return f"{verb}: {line}"
    name = unknown[1] or unknown[2]
    known = [field.name for field in fields(config_class)]
    near = difflib.get_close_matches(name.split(".")[0], known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"its fields are: {', '.join(known)}"
    return f"{verb} has no field {name!r}; {hint}"


class _OnceEach(yaml.SafeLoader):
    """Refuses a key that stands twice: YAML's own reader forgets the first silently, such as a recipe's second `sft:`."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node, seen = super().compose_mapping_node(anchor), set()        # as it is written: what `<<` brings is not yet in it
        for key in (key for key, _ in node.value if key.tag.endswith(":str")):
            if key.value in seen:
                raise yaml.composer.ComposerError(None, None, f"{key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        return node


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file that holds a mapping.

    Raises:
        ConfigError: it cannot be read or is not a mapping.
    """
    try:
        value = yaml.load(Path(path).read_text("utf-8"), _OnceEach)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} must hold a mapping of fields, found {type(value).__name__}")
    return value
