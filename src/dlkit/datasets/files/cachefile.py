"""The two files of a pixel cache: pixels one image after the other, and an entry of 48 bytes for each.

Every function leaves files behind that are good whenever the process is killed in it: pixels come before the entry
that points to them, half an entry is cut off by the next writer, and a copy becomes valid by its index, last of all.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dlkit.storage.files import atomic_write

__all__ = ["ENTRY", "Item", "append", "copy", "lengths", "mapped", "sound", "useful"]

Pixels = npt.NDArray[np.uint8]
#: Key, CRC-32 of the path, pixels.
Item = tuple[bytes, int, Pixels]

# Key, offset, height, width, channels, CRC-32 of the pixels and of the path; then CRC-32 of all that.
_FIELDS = struct.Struct("<16sQIIIII")
ENTRY = np.dtype(
    [
        ("key", "V16"),
        ("offset", "<u8"),
        ("height", "<u4"),
        ("width", "<u4"),
        ("channels", "<u4"),
        ("pixels_crc", "<u4"),
        ("path_crc", "<u4"),
        ("entry_crc", "<u4"),
    ]
)


def append(pixels: Path, index: Path, items: Sequence[Item]) -> None:
    """Add images at the end of both files; a disk that takes no more finds them as they were.

    Args:
        pixels: The file of pixels.
        index: The file of entries.
        items: What to add.

    Raises:
        OSError: the disk is full, say.
    """
    entries = b""
    with open(pixels, "ab", buffering=0) as file, open(index, "ab", buffering=0) as index_file:
        start, known = file.tell(), index_file.tell() // ENTRY.itemsize * ENTRY.itemsize
        index_file.truncate(known)  # half an entry of a writer that was killed
        try:
            for key, path_crc, image in items:
                offset, data = file.tell(), np.ascontiguousarray(image).data.cast("B")
                _write_all(file.fileno(), data)
                entries += _packed(key, offset, image.shape, zlib.crc32(data), path_crc)
            _write_all(index_file.fileno(), memoryview(entries))
        except OSError:
            file.truncate(start)
            index_file.truncate(known)
            raise


def copy(entries: npt.NDArray[Any], old: Path, pixels: Path, index: Path) -> None:
    """Write a new pair with these entries alone; its index appears last.

    Args:
        entries: Of the old pair.
        old: Its file of pixels.
        pixels: The new file of pixels.
        index: The new file of entries.
    """
    source, written = mapped(old), b""
    with atomic_write(pixels) as file:
        for entry, length in zip(entries, lengths(entries).tolist(), strict=True):
            start = int(entry["offset"])
            crcs = int(entry["pixels_crc"]), int(entry["path_crc"])
            written += _packed(bytes(entry["key"]), file.tell(), shape_of(entry), *crcs)
            file.write(source[start : start + length].data)
    with atomic_write(index) as file:
        file.write(written)


def useful(entries: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """The newest entry of each path, as far as the file has its pixels, in the order of the pixels.

    Two paths with one CRC-32 cost one of them its pixels, which are then decoded once more.

    Args:
        entries: All of them, in the order of writing.
        size: How many bytes the file of pixels has.
    """
    _, last = np.unique(entries["path_crc"][::-1], return_index=True)
    newest = entries[np.sort(len(entries) - 1 - last)]
    return newest[newest["offset"] + lengths(newest) <= size]


def lengths(entries: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """How many bytes the pixels of each entry take.

    Args:
        entries: Any.
    """
    product: npt.NDArray[np.uint64] = np.ones(len(entries), np.uint64)
    for name in ("height", "width", "channels"):
        product *= entries[name].astype(np.uint64)
    return product


def sound(entry: Any, flat: Pixels) -> bool:
    """Whether an entry and its pixels are as they were written.

    Args:
        entry: One of them.
        flat: The bytes it points to.
    """
    crcs = int(entry["pixels_crc"]), int(entry["path_crc"])
    packed = _packed(bytes(entry["key"]), int(entry["offset"]), shape_of(entry), *crcs)
    return packed[-4:] == struct.pack("<I", int(entry["entry_crc"])) and zlib.crc32(flat.data) == crcs[0]


def shape_of(entry: Any) -> tuple[int, int, int]:
    """Height, width and channels of an entry.

    Args:
        entry: One of them.
    """
    return int(entry["height"]), int(entry["width"]), int(entry["channels"])


def size_of(path: Path) -> int:
    """A file's size; 0 where there is none.

    Args:
        path: The file.
    """
    try:
        return path.stat().st_size
    except OSError:
        return 0


def mapped(path: Path) -> Any:
    """Copy on write: what torch would warn about in a read-only array cannot happen, and the file stays untouched.

    Args:
        path: The file of pixels.
    """
    return np.asarray(np.memmap(path, np.uint8, mode="c")) if size_of(path) else np.empty(0, np.uint8)


def _packed(key: bytes, offset: int, shape: tuple[int, ...], pixels_crc: int, path_crc: int) -> bytes:
    packed = _FIELDS.pack(key, offset, *shape, pixels_crc, path_crc)
    return packed + struct.pack("<I", zlib.crc32(packed))


def _write_all(descriptor: int, data: memoryview) -> None:
    while len(data):
        data = data[os.write(descriptor, data) :]
