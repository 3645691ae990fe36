"""How an artifact comes about: made once by a stage, skipped, resumed, found stale or rebuilt. Knows nothing of what any stage does.

    NAME.partial/          work happens here       started.json   first: the identity of what is being made
    NAME/                  renamed at the end      manifest.json  last: its existence means that the folder is whole
    NAME.stale-1/          the former result after --rebuild       .NAME.lock  keeps a second writer out
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import orjson
from filelock import FileLock, Timeout

from zhtune import references
from zhtune.artifact import FORMAT, Artifact, environment
from zhtune.digests import hash_file
from zhtune.errors import ArtifactError, ConfigError, ZhtuneError
from zhtune.log import logger
from zhtune.records import dumps, write_json

# Fields of every config that cannot change what is written.
NEUTRAL = ("out", "workers", "rebuild")
_NOT_DATA = ("started.json", "manifest.json", "report.json", "report.html")
_NOT_DATA_FOLDERS = ("checkpoints", "logs")


@dataclass(frozen=True)
class Stage:
    """What the harness must know of a stage."""

    name: str
    """The verb."""
    version: int
    """Raised when the stage's output changes for equal inputs; independent of zhtune's version."""
    kind: str
    """The kind of artifact it writes (a stage with several sets `Work.kind`)."""
    inputs: dict[str, tuple[str, ...]]
    """Config fields that hold references, with the kinds each accepts ("file" is a plain file or folder)."""
    others: tuple[str, ...] = ()
    """Kinds that it writes with some settings instead of `kind`."""


class Work:
    """The unfinished folder that a stage writes into."""

    def __init__(self, path: Path, stage: Stage, sources: dict[str, Any]):
        self.path = path
        """Write data files here; `checkpoints/` and `logs/` in it are not data."""
        self.checkpoints = path / "checkpoints"
        """The same folder in every process of a run"""
        self.leads = True
        """Whether what this process writes is kept"""
        self.kind = stage.kind
        self.sources: dict[str, Any] = sources
        self.counted_in = 0
        self.kept = 0
        self.dropped: Counter[str] = Counter()
        self.metrics: dict[str, Any] = {}
        self.resolved: dict[str, Any] = {}
        self.report: dict[str, Any] = {}
        self.licences: set[str] = {licence for source in _flat(sources) for licence in source.licences}
        self._refused = None

    def given(self, field: str) -> list[references.Source]:
        """What a config field that may hold several references names; empty where it is not set."""
        value = self.sources.get(field, [])
        return value if isinstance(value, list) else [value]

    def drop(self, reason: str, **item: Any) -> None:
        """Count a refused item and keep it, with its reason, in dropped.jsonl."""
        if self._refused is None:
            self._refused = open(self.path / "dropped.jsonl", "wb")
        self.dropped[reason] += 1
        self._refused.write(dumps({"reason": reason, **item}) + b"\n")

    def close(self) -> None:
        if self._refused is not None:
            self._refused.close()


def build(stage: Stage, config: Any, write: Callable[[Work], None], resumable: bool = False, joined: bool = False) -> Artifact:
    """Make the artifact `config.out`, or skip it if it is there already with the same identity.

    Args:
        stage: what is being built.
        config: the stage's config; its reference fields are resolved and digested here.
        write: fills `Work.path`; everything it writes there becomes part of the artifact.
        resumable: whether `write` can go on from what an interrupted run left; otherwise it starts over.
        joined: whether processes that a launcher started beside the first call `write` too (training); else they wait for the artifact.

    Raises:
        ConfigError: an input lies in `config.out`.
        ArtifactError: another identity is finished there and `rebuild` is off; a second writer; a full disk.
    """
    out = Path(config.out)
    sources = resolve_inputs(stage, config)
    for source in _flat(sources):
        if source.path and out.resolve() in (source.path.resolve(), *source.path.resolve().parents):
            raise ConfigError(f"{source.reference} lies in --out {out}, which is to be written; copy it to another place, or give another --out")
    identity = _identity(stage, config, sources)
    if os.environ.get("RANK", "0") != "0":
        return _follow(stage, config, sources, identity, write if joined else None)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be made: {error.strerror}") from error
    with _locked(out), _plain_disk_errors(out):
        finished = _finished(out, identity, config.rebuild)
        if finished is not None:
            logger.info("%s: %s is up to date", stage.name, out)
            return finished
        partial = _partial(out, identity, resumable)
        began = time.monotonic()
        work = Work(partial, stage, sources)
        try:
            write(work)
        except ZhtuneError:
            if sorted(partial.iterdir()) == [partial / "started.json"]:     # refused before anything was made
                shutil.rmtree(partial)
            raise
        finally:
            work.close()
        _seal(work, stage, config, identity, out, time.monotonic() - began)
        os.replace(partial, out)
        shutil.rmtree(out / "checkpoints", ignore_errors=True)  # only an unfinished run needs them; they are no data
        _warn_of_licences(stage, work)
        return Artifact.open(out)


def _follow(stage: Stage, config: Any, sources: dict[str, Any], identity: dict[str, Any], write: Callable[[Work], None] | None) -> Artifact:
    """The part of a process that a launcher started beside the first: it works along, if it has something to do, and writes nothing."""
    out = Path(config.out)
    partial = out.with_name(out.name + ".partial")
    while not ((out / "manifest.json").exists() and not first_difference(Artifact.open(out).manifest["identity"], identity)):
        if write is not None and _same(partial, identity):
            with tempfile.TemporaryDirectory(prefix="zhtune-") as scratch:
                work = Work(Path(scratch), stage, sources)
                work.checkpoints, work.leads = partial / "checkpoints", False
                write(work)
                work.close()
            write = None
        time.sleep(0.1)                                     # the first process begins or seals it; when it fails, the launcher ends us
    return Artifact.open(out)


def status(stage: Stage, config: Any) -> tuple[str, str]:
    """("fresh" | "stale" | "absent" | "unfinished", why) of `config.out` as the config and its inputs are now."""
    out = Path(config.out)
    if not (out / "manifest.json").exists():
        unfinished = out.with_name(out.name + ".partial").exists()
        return ("unfinished", "was interrupted") if unfinished else ("absent", "not made yet")
    try:
        artifact = Artifact.open(out)
    except ArtifactError as error:
        return "stale", str(error)
    difference = first_difference(artifact.manifest["identity"], _identity(stage, config, resolve_inputs(stage, config)))
    return ("stale", difference) if difference else ("fresh", "")


def resolve_inputs(stage: Stage, config: Any) -> dict[str, Any]:
    """The config's reference fields as Sources: one, a list, or absent where the field is empty.

    Raises:
        ConfigError: an input does not exist or is of a kind that the stage does not read.
    """
    sources: dict[str, Any] = {}
    many = {f.name for f in fields(config) if "list" in str(f.type)}
    required = {f.name for f in fields(config) if f.default is MISSING and f.default_factory is MISSING}
    for name, kinds in stage.inputs.items():
        value = getattr(config, name)
        if (not value and name in required) or (isinstance(value, list) and "" in value):
            raise ConfigError(f"--{name} names nothing; {stage.name} reads {' or '.join(kinds)} there")
        if not value:
            continue
        found = [references.resolve(item) for pattern in ([value] if isinstance(value, str) else value) for item in references.expand(pattern)]
        if len(found) > 1 and name not in many:
            raise ConfigError(f"--{name} {value} names {len(found)} files; {stage.name} reads one there")
        for source in found:
            if source.kind not in kinds:
                raise ConfigError(f"--{name} {source.reference} is of kind {source.kind}; {stage.name} reads {' or '.join(kinds)} there")
        sources[name] = found[0] if isinstance(value, str) and len(found) == 1 else found
    return sources


def first_difference(old: Any, new: Any, where: str = "") -> str:
    """The first place where two identities differ, in words; empty if they are equal."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*new, *(k for k in old if k not in new)]:
            found = first_difference(old.get(key), new.get(key), f"{where}.{key}" if where else key)
            if found:
                return found
        return ""
    if old == new:
        return ""
    if where.startswith("inputs."):
        return f"{where.removeprefix('inputs.')} has changed"
    return f"{where.removeprefix('config.')} was {old!r}, is now {new!r}"


def _flat(sources: dict[str, Any]) -> Iterator[references.Source]:
    for value in sources.values():
        yield from value if isinstance(value, list) else [value]


def _identity(stage: Stage, config: Any, sources: dict[str, Any]) -> dict[str, Any]:
    requested = {name: asdict(value) if is_dataclass(value) else value for name, value in vars(config).items()
              if name not in NEUTRAL and name not in stage.inputs and name not in config.neutral}
    digests = {name: [s.digest for s in source] if isinstance(source, list) else source.digest for name, source in sources.items()}
    # Through JSON once, so that it equals what is read back from started.json (tuples become lists).
    return orjson.loads(dumps({"stage": stage.name, "version": stage.version, "config": requested, "inputs": digests}))


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    lock = FileLock(out.parent / f".{out.name}.lock", timeout=0)
    try:
        with lock:
            yield
    except PermissionError as error:
        if error.filename != str(lock.lock_file):
            raise
        raise ConfigError(f"--out {out}: {out.parent} cannot be written to") from error
    except Timeout as error:
        raise ArtifactError(f"{out} is being written by another process; wait for it or give another --out") from error


@contextmanager
def _plain_disk_errors(out: Path) -> Iterator[None]:
    """Turn a full disk, however a library reports it, into one clear line; what is written so far stays in .partial."""
    try:
        yield
    except ZhtuneError:
        raise
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
        words = ("No space left on device", "File too large", "Disk quota exceeded", "disk is full", "PytorchStreamWriter failed",
             "unexpected pos")                              # torch.save, when the last bytes of an archive do not fit
        if full or any(word in str(error) for word in words):
            raise ArtifactError(f"the disk is full (or a file size limit is reached) while writing {out}; "
                                f"free some space and run the same command again") from error
        raise


def _finished(out: Path, identity: dict[str, Any], rebuild: bool) -> Artifact | None:
    if not out.exists():
        return None
    if not (out / "manifest.json").exists():
        raise ArtifactError(f"{out} exists and is no artifact of zhtune; give another --out or move it away")
    try:
        artifact = Artifact.open(out)
        difference = first_difference(artifact.manifest["identity"], identity)
        if not difference:
            return artifact
    except ArtifactError as error:
        difference = str(error)
    if not rebuild:
        raise ArtifactError(f"{out} is finished with other settings or inputs: {difference}. "
                            f"Use --rebuild (the old folder is kept as {out.name}.stale-N) or another --out")
    os.replace(out, _next_free(out, "stale"))
    return None


def _next_free(out: Path, word: str) -> Path:
    number = 1
    while (candidate := out.with_name(f"{out.name}.{word}-{number}")).exists():
        number += 1
    return candidate


def _partial(out: Path, identity: dict[str, Any], resumable: bool) -> Path:
    """The folder to work in: empty, or with work of the same identity to go on from."""
    partial = out.with_name(out.name + ".partial")
    same = _same(partial, identity)
    if same and resumable:
        logger.info("going on with the unfinished %s", out)
        (partial / "dropped.jsonl").unlink(missing_ok=True)     # written anew, if anything is refused this time
        return partial
    if same:
        shutil.rmtree(partial)                              # the same work, which this stage does again from the start
    elif partial.exists():
        os.replace(partial, _next_free(out, "unfinished"))
    partial.mkdir()
    write_json(partial / "started.json", identity)
    return partial


def _same(partial: Path, identity: dict[str, Any]) -> bool:
    """Whether an unfinished folder is of this identity."""
    try:
        return orjson.loads((partial / "started.json").read_bytes()) == identity
    except (OSError, orjson.JSONDecodeError):
        return False


def _seal(work: Work, stage: Stage, config: Any, identity: dict[str, Any], out: Path, seconds: float) -> None:
    files = [{"name": name, "bytes": (work.path / name).stat().st_size, "sha256": hash_file(work.path / name)}
             for name in _data_files(work.path)]
    if not files:
        raise ArtifactError(f"{stage.name} wrote nothing")  # cannot happen with a correct stage
    counts = {"in": work.counted_in, "kept": work.kept, "dropped": dict(sorted(work.dropped.items()))}
    spent = {"seconds": round(seconds, 2), "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}
    write_json(work.path / "report.json", {"stage": stage.name, "counts": counts, "metrics": work.metrics, **work.report, "spent": spent})
    manifest = {
        "kind": work.kind, "format": FORMAT, "stage": stage.name, "version": stage.version, "identity": identity,
        "resolved": work.resolved,
        "inputs": [{"path": os.path.relpath(s.path, out) if s.path else s.reference, "kind": s.kind, "digest": s.digest}
                   for s in _flat(work.sources)],
        "files": files, "counts": counts, "metrics": work.metrics, "seed": config.seed,
        "licences": sorted(work.licences), "environment": {**environment(), **spent},
    }
    write_json(work.path / "manifest.json", manifest)


def _data_files(folder: Path) -> list[str]:
    names = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    return sorted(n.as_posix() for n in names
                  if n.as_posix() not in _NOT_DATA and n.parts[0] not in _NOT_DATA_FOLDERS and not n.name.endswith(".tmp"))


def _warn_of_licences(stage: Stage, work: Work) -> None:
    doubtful = sorted(name for name in work.licences if name == "unknown" or "NC" in name.upper().split("-"))
    if doubtful:
        logger.info("%s: licences of its inputs: %s; check them before you publish the result", stage.name, ", ".join(doubtful))
