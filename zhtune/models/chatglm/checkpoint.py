"""Tensors of a published folder, one at a time: sharded or single, safetensors or .bin, official int8 and int4 as 16 bits.

The only place of zhtune that opens a .bin file: weights only, so no code in it is run, and mapped, so a model that is
larger than the memory can be read. And back: tensors -> safetensors shards.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zhtune.errors import ConfigError, DataError, require
from zhtune.records import write_json
from zhtune.tokenizers.load import read_object

_SHARD = 2 << 30                                            # bytes of a written file, at least one tensor
_SCALE = "_scale"                                           # what the official code calls a quantized weight's scales


class Checkpoint:
    """Reads tensors by name.

    Args:
        folder: holds *.safetensors or pytorch_model*.bin, and an index where they are several.
        bits: of the official quantization, 8 or 4; 0 for none.

    Raises:
        ConfigError: no weights.
        DataError: a file is missing, cut, or more than tensors.
    """

    def __init__(self, folder: Path, bits: int = 0):
        files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
        if not files:
            raise ConfigError(f"{folder} holds no weights: expected *.safetensors or pytorch_model*.bin; fetch the whole folder")
        for index in folder.glob(f"*{files[0].suffix}.index.json"):
            missing = sorted({*read_object(index)["weight_map"].values()} - {file.name for file in files})
            if missing:
                raise DataError(f"names {len(missing)} files that are not there, such as {missing[0]}; fetch the whole folder", index)
        self._bits = bits
        self._holder = {name: holder for file in files for holder in [_open(file)] for name in holder.keys()}

    @property
    def names(self) -> set[str]:
        """Of all tensors but the scales of quantized ones."""
        return {name for name in self._holder if not (name.endswith(_SCALE) and name.removesuffix(_SCALE) in self._holder)}

    def read(self, name: str) -> Any:
        """A tensor, (rows, columns) or (rows,); a quantized weight in the type of its scales."""
        tensor = self._raw(name)
        return dequantise(tensor, self._raw(name + _SCALE), self._bits) if name + _SCALE in self._holder else tensor

    def _raw(self, name: str) -> Any:
        holder = self._holder[name]
        return holder[name] if isinstance(holder, dict) else holder.get_tensor(name)


def dequantise(weight: Any, scale: Any, bits: int) -> Any:
    """The official scheme: one scale a row, signed integers; int4 has an even column in the high half of a byte.

    Args:
        weight: int8, (rows, columns) or for int4 (rows, columns / 2).
        scale: (rows,), float16.
        bits: 8 or 4.

    Raises:
        DataError: another number of bits.
    """
    import torch
    if bits not in (4, 8):
        raise DataError(f"holds quantized weights, and config.json says quantization_bit {bits}; expected 8 or 4")
    if bits == 4:
        weight = torch.stack([weight >> 4, weight << 4 >> 4], -1).flatten(-2)
    return weight.to(scale.dtype) * scale[:, None]


def _open(file: Path) -> Any:
    """A mapping of names to tensors (.bin), or safetensors' handle, which reads them when asked."""
    torch, safetensors = require("torch", "train"), require("safetensors", "train")
    try:
        if file.suffix == ".safetensors":
            return safetensors.safe_open(file, "pt")
        return torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        raise DataError("holds more than tensors, or is cut; code in a checkpoint is never run", file) from error
    except (safetensors.SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise DataError(f"cannot be read: it is cut or corrupt ({str(error).splitlines()[0]}); fetch it again", file) from error


def write_shards(tensors: Iterable[tuple[str, Any]], folder: Path, shard: int = _SHARD) -> int:
    """Write (name, tensor) pairs as model.safetensors, or several files and their index; returns the bytes.

    Args:
        shard: bytes of one file.
    """
    from safetensors.torch import save_file
    parts: list[list[str]] = []
    held: dict[str, Any] = {}
    total = size = 0

    def write() -> None:
        save_file(held, folder / f"part-{len(parts)}", metadata={"format": "pt"})
        parts.append(list(held))
        held.clear()
    for name, tensor in tensors:
        if held and size + tensor.nbytes > shard:
            write()
            size = 0
        held[name] = tensor.contiguous()
        size, total = size + tensor.nbytes, total + tensor.nbytes
    write()
    if len(parts) == 1:
        (folder / "part-0").rename(folder / "model.safetensors")
        return total
    files = [f"model-{i + 1:05d}-of-{len(parts):05d}.safetensors" for i in range(len(parts))]
    for i, file in enumerate(files):
        (folder / f"part-{i}").rename(folder / file)
    weight_map = {name: file for file, names in zip(files, parts, strict=True) for name in names}
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})
    return total
