"""One file for a prepared image dataset: pixels, targets and names, opened by memory map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlkit.errors import DataError
from dlkit.storage.arrays import Arrays, Kind, open_arrays, write_arrays
from dlkit.storage.strings import PackedStrings

__all__ = ["ImageStore", "Pack", "open_pack", "write_pack"]

#: Raised by one whenever what is written changes, so that packs of other versions are built again.
VERSION = 3


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
        arrays: Of the file.
    """

    arrays: Arrays

    @property
    def path(self) -> Path:
        """The file."""
        return self.arrays.path

    @property
    def about(self) -> dict[str, Any]:
        """What the writer put there, and where it came from."""
        return self.arrays.about

    @property
    def checksum(self) -> int:
        """The CRC-32 over everything."""
        return self.arrays.checksum

    def __reduce__(self) -> tuple[Any, ...]:
        return _pack, (self.arrays,)


def write_pack(path: Path, store: ImageStore, about: dict[str, Any]) -> None:
    """Write a pack so that it appears whole or not at all.

    Args:
        path: The file; an existing one is replaced.
        store: Pixels, targets and names.
        about: Plain data that JSON can hold.
    """
    names, offsets = map(torch.from_numpy, store.names.arrays())
    tensors = {"targets": store.targets, "name_offsets": offsets, "images": store.images, "names": names}
    write_arrays(path, _kind(), tensors, about)


def open_pack(path: Path, *, verify: bool = True) -> Pack:
    """Map a pack into memory.

    Args:
        path: The file.
        verify: Read it through once and compare its checksum.

    Raises:
        DataNotFoundError: there is none.
        DataError: it is not a pack of this version, or damaged.
    """
    return _pack(open_arrays(path, _kind(), verify=verify))


def _kind() -> Kind:
    return Kind("pack of images", VERSION)


def _pack(arrays: Arrays) -> Pack:
    names = PackedStrings(arrays["names"].numpy(), arrays["name_offsets"].numpy())
    images, targets = arrays["images"], arrays["targets"]
    if images.dim() != 3 or len({len(images), len(targets), len(names)}) != 1:
        raise DataError(f"{arrays.path} is damaged (its parts do not fit each other)")
    return Pack(images, targets, names, arrays)
