"""What an artifact is made of: its figures, its inputs and theirs, its licences; `--verify` hashes its files again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zhtune.artifact import Artifact
from zhtune.config import Checked
from zhtune.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ShowConfig(Checked):
    """Show an artifact and its lineage."""

    artifact: str
    """The folder of an artifact"""
    verify: bool = False
    """Hash its files again instead of trusting size and date"""


def show(config: ShowConfig) -> str:
    """A text: the artifact, its counts and metrics, and the tree of its inputs.

    Raises:
        ConfigError: not an artifact.
        ArtifactError: corrupt or changed.
    """
    path = Path(config.artifact)
    if not (path / "manifest.json").exists():
        raise ConfigError(f"{path} is no finished artifact: it has no manifest.json")
    artifact = Artifact.open(path, verify=config.verify)
    lines = [artifact.summary(), f"digest   {artifact.digest}", f"licences {', '.join(artifact.manifest['licences'])}",
             f"made by  {artifact.manifest['stage']} in {artifact.manifest['environment']['seconds']} s", "inputs"]
    return "\n".join([*lines, *_tree(artifact, "  "), *(["files verified"] if config.verify else [])])


def _tree(artifact: Artifact, indent: str) -> list[str]:
    lines = []
    for entry in artifact.manifest["inputs"]:
        path = artifact.path / entry["path"]
        there = (path / "manifest.json").exists()
        changed = there and Artifact.open(path).digest != entry["digest"]
        note = " (has changed since)" if changed else "" if there or entry["kind"] in ("base", "file") else " (gone)"
        lines.append(f"{indent}{entry['path']}  {entry['kind']}  {entry['digest'][:12]}{note}")
        if there:
            lines += _tree(Artifact.open(path), indent + "  ")
    return lines
