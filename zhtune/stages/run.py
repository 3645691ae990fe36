"""A recipe -> all its stages in order, each skipped, resumed or rebuilt as its identity says, and one report of the whole."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from zhtune.artifact import Artifact
from zhtune.building import Stage, status
from zhtune.config import Checked, from_mapping, read_yaml
from zhtune.errors import ConfigError
from zhtune.evaluation import recipe_report
from zhtune.log import logger
from zhtune.references import expand

_LABEL = re.compile(r"[a-z][a-z-]*(@[\w.-]+)?")


@dataclass(frozen=True, kw_only=True)
class RunConfig(Checked):
    """Run a recipe: YAML with `workspace:` and one section a stage (`sft@style:` labels a repeat)."""

    recipe: str
    """The recipe, a YAML file"""
    workspace: str = ""
    """Folder of the artifacts, instead of the recipe's"""
    until: str = ""
    """Stop after this section"""
    dry_run: bool = False
    """Say what would be done, and do nothing"""


@dataclass(frozen=True)
class Section:
    """One stage of a recipe, ready to run."""

    label: str
    stage: Stage
    function: Any
    config: Any
    needs: tuple[str, ...]
    """Labels of the sections that its inputs are"""


def run(config: RunConfig) -> str:
    """Run the stages of a recipe and write report.html and report.json into the workspace. Returns the terminal table.

    Raises:
        ConfigError: the recipe names an unknown verb, field or section.
    """
    recipe = read_yaml(config.recipe)
    workspace = Path(config.workspace or recipe.get("workspace") or f"out/{Path(config.recipe).stem}")
    sections = read_recipe(recipe, workspace, config.recipe)
    if config.until:
        labels = [s.label for s in sections]
        if config.until not in labels:
            raise ConfigError(f"--until {config.until} is no section of {config.recipe}; there are: {', '.join(labels)}")
        sections = sections[:labels.index(config.until) + 1]
    for section in sections:
        _require_files(section, workspace)
    if config.dry_run:
        return plan(sections)
    began = time.monotonic()
    done = [(section.label, _run_section(section)) for section in sections]
    if os.environ.get("RANK", "0") != "0":                 # of several processes one reports
        return ""
    text = recipe_report.write(workspace, Path(config.recipe).stem, done, time.monotonic() - began)
    chat = next((label for label, made in reversed(done) if made.kind in ("quantized", "model", "adapter")), None)
    lines = [text, "", f"report: {workspace / 'report.html'}", *([f"chat:   zhtune chat {workspace / chat}"] if chat else [])]
    return "\n".join(lines)


def read_recipe(recipe: dict[str, Any], workspace: Path, name: str) -> list[Section]:
    """The sections of a recipe as configs; a bare word among the inputs is the artifact of that section.

    Raises:
        ConfigError: an unknown verb or field, a section that comes later or does not exist.
    """
    import importlib

    from zhtune.cli import VERBS, load
    sections: list[Section] = []
    for label, values in recipe.items():
        if label in ("workspace", "title"):
            continue
        verb = str(label).partition("@")[0]
        if verb not in VERBS or not _LABEL.fullmatch(str(label)):
            raise ConfigError(f"{name}: {label!r} is no stage; sections are verbs, such as sft or sft@style")
        function, config_class = load(verb)
        module = importlib.import_module(function.__module__)
        if not any(field.name == "rebuild" for field in fields(config_class)):
            raise ConfigError(f"{name}: {verb} writes no artifact and cannot be a section")
        if isinstance(values, dict) and values.get("dry_run"):
            raise ConfigError(f"{name}: {label}: dry_run makes no artifact; call {verb} by hand for it")
        values, needs = _linked(values or {}, module.STAGE, {s.label: s.stage for s in sections}, workspace, f"{name}: {label}")
        stage_config = from_mapping(config_class, str(label), {**values, "out": str(workspace / str(label)), "rebuild": True})
        sections.append(Section(str(label), module.STAGE, function, stage_config, needs))
    if not sections:
        raise ConfigError(f"{name} has no stage")
    return sections


def _require_files(section: Section, workspace: Path) -> None:
    """Refuse a file that is not there now, before the stages in front of it have run for hours; what lies in the workspace may come."""
    for name in section.stage.inputs:
        value = getattr(section.config, name)
        for item in [value] if isinstance(value, str) else value:
            if not item or item == "embedded" or re.match(r"\w+:", item) or workspace.absolute() in Path(item).absolute().parents:
                continue
            if not Path(expand(item)[0]).exists():
                raise ConfigError(f"{section.label}.{name}: {item} does not exist")


def plan(sections: list[Section]) -> str:
    """What a run would do, one line a section."""
    lines, redone = [], set()
    for section in sections:
        follows = [n for n in section.needs if n in redone]
        state, why = ("stale", f"follows {', '.join(follows)}") if follows else status(section.stage, section.config)
        if state != "fresh":
            redone.add(section.label)
        lines.append(f"{section.label:<20} {state:<10} {why}".rstrip())
    return "\n".join(lines)


def _run_section(section: Section) -> Artifact:
    state, why = status(section.stage, section.config)
    logger.info("== %s%s", section.label, "" if state in ("fresh", "absent") else f": {state}, {why}")
    return section.function(section.config)


def _linked(values: dict[str, Any], stage: Stage, earlier: dict[str, Stage], workspace: Path, where: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must be a mapping of fields")
    linked, needs = dict(values), []
    for name, kinds in stage.inputs.items():
        value = values.get(name)
        for item in value if isinstance(value, list) else [value] if value else []:
            if not _LABEL.fullmatch(str(item)) or item == "embedded":
                continue
            if item not in earlier:
                raise ConfigError(f"{where}.{name}: {item!r} is no earlier section (write ./{item} for a file)")
            made = (earlier[item].kind, *earlier[item].others)
            if not {*made} & {*kinds}:
                raise ConfigError(f"{where}.{name}: {item} makes {' or '.join(made)}; {stage.name} reads {' or '.join(kinds)} there")
            needs.append(item)
            place = str(workspace / item)
            linked[name] = [place if v == item else v for v in linked[name]] if isinstance(value, list) else place
    return linked, tuple(needs)
