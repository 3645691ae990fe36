"""Content digests. A file from outside is hashed once and remembered by (device, inode, size, mtime_ns)."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from zhtune.errors import DataError
from zhtune.log import logger
from zhtune.records import write_json

_READ_SIZE = 1 << 20


def digest_path(path: Path) -> str:
    """sha256 of a file, or of a folder's sorted (relative name, sha256) list. Hidden files do not count.

    Raises:
        DataError: the folder holds no file, or a file cannot be read.
    """
    if path.is_file():
        return _remembered([path])[0]
    names = sorted(file.relative_to(path).as_posix() for file in visible_files(path))
    if not names:
        raise DataError("the folder holds no file", path)
    digests = _remembered([path / name for name in names])
    return hash_text("".join(f"{name}\0{digest}\n" for name, digest in zip(names, digests, strict=True)))


def visible_files(folder: Path) -> list[Path]:
    """What counts in a folder, sorted by name: its files, however deep, but for hidden ones and those in hidden folders.

    Raises:
        DataError: a name that is not UTF-8, which no artifact can hold.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not any(part.startswith(".") for part in p.relative_to(folder).parts))
    for file in files:
        check_name(file)
    return files


def check_name(path: Path) -> None:
    """Refuse a name that is not UTF-8, such as those of archives from Chinese Windows."""
    if not (raw := os.fsencode(path)).isascii():
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{raw.decode('utf-8', 'backslashreplace')} is no UTF-8 name; rename it (convmv -f gbk -t utf8)") from error


def _remembered(paths: list[Path]) -> list[str]:
    """sha256 of each file, from memory where its inode, size and mtime have not changed."""
    memory, digests, news = _load_memory(), [], False
    for path in paths:
        try:
            stat = path.stat()
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}", path) from error
        key = f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}"
        if key not in memory:
            memory[key], news = hash_file(path), True
        digests.append(memory[key])
    if news:
        _save_memory(memory)
    return digests


def hash_file(path: Path) -> str:
    """sha256 of one file's bytes, read now."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(_READ_SIZE):
                digest.update(chunk)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path) from error
    return digest.hexdigest()


def hash_text(text: str) -> str:
    """sha256 of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def hash64(text: str) -> int:
    """64 bits of blake2b of a text's UTF-8 bytes, half characters included: a key, or a draw that only the text decides."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def drawn(key: str, share: float) -> bool:
    """Whether a key is of the share that its hash draws, so that growth moves nothing."""
    return int.from_bytes(hashlib.sha256(key.encode("utf-8")).digest()[:8]) < share * 2**64


# The remembered digests are a JSON file in the user's cache folder; losing it costs a second hashing, nothing else.

def _memory_file() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zhtune" / "digests.json"


def _load_memory() -> dict[str, str]:
    try:
        return json.loads(_memory_file().read_text("utf-8"))
    except (OSError, ValueError):
        return {}


def _save_memory(memory: dict[str, str]) -> None:
    try:
        _memory_file().parent.mkdir(parents=True, exist_ok=True)
        write_json(_memory_file(), memory)
    except OSError as error:
        logger.debug("digests are not remembered: %s", error)
