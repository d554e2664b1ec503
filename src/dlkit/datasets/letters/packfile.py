"""One file for a prepared image dataset: pixels, targets and names, opened by memory map.

A `.safetensors` file (no code can hide in it, any tool reads it) with the tensors `images` uint8 [N, H, W], `targets`
int64 [N], and the names as one UTF-8 blob with offsets. Its metadata holds one JSON document, `about`, and a
CRC-32 of everything, which notices a damaged file at about 4 GB/s, so that opening stays far below a second.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dlkit._opening import regular
from dlkit.errors import DataError
from dlkit.storage.files import atomic_write
from dlkit.storage.strings import PackedStrings

__all__ = ["ImageStore", "Pack", "open_pack", "write_pack"]

#: Raised by one whenever what is written changes, so that packs of other versions are built again.
VERSION = 2
# Sizes of 8 bytes first, so that every int64 lies where it can be read in place.
_TYPES = {"targets": "I64", "name_offsets": "I64", "images": "U8", "names": "U8"}


@dataclass(frozen=True, eq=False)
class ImageStore:
    """What an image dataset and all its parts share.

    Attributes:
        images: uint8 [N, H, W].
        targets: int64 [N].
        names: One name per image; empty where images have none.
    """

    images: Tensor
    targets: Tensor
    names: PackedStrings


@dataclass(frozen=True, eq=False)
class Pack(ImageStore):
    """An open pack. Pickled (for a worker that is spawned), it travels as its path and is mapped again there.

    Attributes:
        path: The file.
        about: What the writer put there, and where it came from.
        checksum: The CRC-32 over everything.
    """

    path: Path
    about: dict[str, Any]
    checksum: int

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path, self.checksum)


def _reopen(path: Path, checksum: int) -> Pack:
    pack = open_pack(path, verify=False)
    if pack.checksum != checksum:
        raise DataError(f"{path} was built anew since this dataset was opened; open the dataset again")
    return pack


def write_pack(path: Path, store: ImageStore, about: dict[str, Any]) -> None:
    """Write a pack so that it appears whole or not at all.

    Args:
        path: The file; an existing one is replaced.
        store: Pixels, targets and names.
        about: Plain data that JSON can hold.
    """
    names, offsets = store.names.arrays()
    tensors = {
        "targets": store.targets.contiguous(),
        "name_offsets": torch.from_numpy(offsets),
        "images": store.images.contiguous(),
        "names": torch.from_numpy(names),
    }
    described = json.dumps({"version": VERSION, **about}, sort_keys=True)
    header: dict[str, Any] = {
        "__metadata__": {"dlkit": described, "crc32": str(_checksum(described, tensors))},
    }
    start = 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": _TYPES[name],
            "shape": list(tensor.shape),
            "data_offsets": [start, start + _size(tensor)],
        }
        start += _size(tensor)
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 64)
    with atomic_write(path) as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for tensor in tensors.values():
            file.write(_bytes(tensor))


def open_pack(path: Path, *, verify: bool = True) -> Pack:
    """Map a pack into memory.

    Args:
        path: The file.
        verify: Read it through once and compare its checksum.

    Raises:
        DataError: it is no pack of this version, or damaged. (And FileNotFoundError where there is none.)
    """
    regular(path)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if set(file.keys()) != set(_TYPES):
                raise DataError(
                    f"{path} is not a pack of images: it holds {', '.join(sorted(file.keys())) or 'nothing'}"
                )
            tensors = {name: cast(Tensor, file.get_tensor(name)) for name in _TYPES}
        described, checksum = metadata["dlkit"], int(metadata["crc32"])
        about = json.loads(described)
    except (SafetensorError, KeyError, ValueError, UnicodeDecodeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is damaged ({error or type(error).__name__})") from error
    if about.get("version") != VERSION:
        raise DataError(f"{path} was written in version {about.get('version')} of the format, this is {VERSION}")
    if verify and checksum != _checksum(described, tensors):
        raise DataError(f"{path} is damaged (its checksum is wrong)")
    sizes = len(tensors["images"]), len(tensors["targets"]), len(tensors["name_offsets"]) - 1
    if tensors["images"].dim() != 3 or len({*sizes}) != 1:
        raise DataError(f"{path} is damaged (its parts do not fit each other)")
    names = PackedStrings(tensors["names"].numpy(), tensors["name_offsets"].numpy())
    return Pack(tensors["images"], tensors["targets"], names, path, about, checksum)


def _checksum(described: str, tensors: dict[str, Tensor]) -> int:
    checksum = zlib.crc32(described.encode())
    for name in _TYPES:
        checksum = zlib.crc32(f"{name} {tensors[name].dtype} {list(tensors[name].shape)}".encode(), checksum)
        checksum = zlib.crc32(_bytes(tensors[name]), checksum)
    return checksum


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.numpy().reshape(-1).view(np.uint8).data


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
