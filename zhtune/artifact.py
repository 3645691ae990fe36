"""Artifacts as they are read: finished folders, whole if their manifest is there, trusted by size and date.

How a folder is made, skipped, resumed or rebuilt is in zhtune/building.py.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson

from zhtune.digests import hash_file
from zhtune.errors import ArtifactError
from zhtune.records import dumps

KINDS = ("corpus", "vocab", "tokenizer", "model", "tokens", "graph", "records", "preferences", "adapter", "quantized", "report")
FORMAT = 1
_LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "trl", "accelerate", "datasets", "numpy", "gguf", "xllamacpp",
              "bitsandbytes")


@dataclass(frozen=True)
class Artifact:
    """A finished folder."""

    path: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: str | os.PathLike[str], verify: bool = False) -> Artifact:
        """Read a finished artifact and check that its files are there, in size and date (`verify`: in content).

        Raises:
            ArtifactError: no or a corrupt manifest, a file missing, cut or changed.
        """
        path = Path(path)
        try:
            manifest = orjson.loads((path / "manifest.json").read_bytes())
            sealed = (path / "manifest.json").stat().st_mtime_ns
            for file in manifest["files"]:
                _check_file(path / file["name"], file, sealed, verify)
            return cls(path, _checked(manifest, path))
        except FileNotFoundError as error:
            raise ArtifactError(f"{error.filename} is missing; rebuild the stage with --rebuild") from error
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise ArtifactError(f"{path / 'manifest.json'} is corrupt ({error}); rebuild the stage with --rebuild") from error

    @property
    def kind(self) -> str:
        return self.manifest["kind"]

    @property
    def digest(self) -> str:
        """sha256 over the kind and the data files, nothing else: no time, no config, no path."""
        return hashlib.sha256(dumps([self.kind, self.manifest["files"]])).hexdigest()

    def summary(self) -> str:
        """One line for people."""
        counts, metrics = self.manifest["counts"], self.manifest["metrics"]
        parts = [f"{self.path}", self.kind]
        if counts["in"]:
            dropped = ", ".join(f"{reason} {n}" for reason, n in counts["dropped"].items())
            parts.append(f"kept {counts['kept']:,} of {counts['in']:,}" + (f" (dropped: {dropped})" if dropped else ""))
        parts += [f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                  for key, value in metrics.items() if isinstance(value, (int, float, str))][:6]
        return "  ".join(parts)


def _checked(manifest: dict[str, Any], path: Path) -> dict[str, Any]:
    if manifest["kind"] not in KINDS or manifest["format"] != FORMAT:
        raise ArtifactError(f"{path} is a {manifest['kind']!r} of format {manifest['format']}, which this zhtune does not read")
    for key in ("identity", "inputs", "counts", "metrics", "licences"):
        manifest[key]                                       # KeyError here means: corrupt
    return manifest


def _check_file(path: Path, entry: dict[str, Any], sealed: int, verify: bool) -> None:
    stat = path.stat()
    if stat.st_size != entry["bytes"]:
        raise ArtifactError(f"{path} has {stat.st_size} bytes, its manifest says {entry['bytes']}; rebuild the stage with --rebuild")
    # A file younger than the manifest was touched or copied after it was sealed: only its content can tell.
    if (verify or stat.st_mtime_ns > sealed) and hash_file(path) != entry["sha256"]:
        raise ArtifactError(f"{path} was changed after it was written; rebuild the stage with --rebuild")


def environment() -> dict[str, Any]:
    """Versions of zhtune, Python and the heavy libraries, and the machine's kind."""
    versions = {}
    for name in ("zhtune", *_LIBRARIES):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {"python": platform.python_version(), "system": f"{sys.platform} {platform.machine()}", "cpus": os.cpu_count(), **versions}
