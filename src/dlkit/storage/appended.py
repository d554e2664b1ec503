"""Arrays that are added one by one, found by a key: their numbers one after the other, and an entry of 76 bytes each.

Every function leaves files behind that are good whenever the process is killed in it: numbers come before the entry
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

from dlkit.storage import files as storage
from dlkit.storage.files import atomic_write

__all__ = ["ENTRY", "Item", "MOST_DIMENSIONS", "append", "array_of", "copy", "mapped", "size_of", "sound", "useful"]

Array = npt.NDArray[Any]
#: Key, CRC-32 of the path, array.
Item = tuple[bytes, int, Array]

MOST_DIMENSIONS = 6
# Key, offset, bytes, type, number of dimensions, their sizes, CRC-32 of the numbers and of the path; one of all that.
_FIELDS = struct.Struct("<16sQQ4sI6III")
ENTRY = np.dtype(
    [
        ("key", "V16"),
        ("offset", "<u8"),
        ("nbytes", "<u8"),
        ("dtype", "S4"),
        ("ndim", "<u4"),
        ("shape", "<u4", (MOST_DIMENSIONS,)),
        ("crc", "<u4"),
        ("path_crc", "<u4"),
        ("entry_crc", "<u4"),
    ]
)


def append(numbers: Path, index: Path, items: Sequence[Item]) -> None:
    """Add arrays at the end of both files; a disk that takes no more finds them as they were.

    Args:
        numbers: The file of numbers.
        index: The file of entries.
        items: What to add, of at most `MOST_DIMENSIONS` dimensions each.

    Raises:
        OSError: the disk is full, say.
    """
    entries = b""
    with open(numbers, "ab", buffering=0) as file, open(index, "ab", buffering=0) as index_file:
        start, known = file.tell(), index_file.tell() // ENTRY.itemsize * ENTRY.itemsize
        index_file.truncate(known)  # half an entry of a writer that was killed
        try:
            for key, path_crc, array in items:
                _write_all(file.fileno(), memoryview(bytes(-file.tell() % array.itemsize)))  # read in place later
                offset, data = file.tell(), _bytes(array)
                _write_all(file.fileno(), data)
                entries += _packed(key, offset, array.dtype.str.encode(), array.shape, zlib.crc32(data), path_crc)
            _write_all(index_file.fileno(), memoryview(entries))
        except OSError:
            file.truncate(start)
            index_file.truncate(known)
            raise


def copy(entries: npt.NDArray[Any], old: Path, numbers: Path, index: Path) -> None:
    """Write a new pair with these entries alone; its index appears last.

    Args:
        entries: Of the old pair.
        old: Its file of numbers.
        numbers: The new file of numbers.
        index: The new file of entries.
    """
    source, written = mapped(old), b""
    with atomic_write(numbers) as file:
        for entry in entries:
            file.write(bytes(-file.tell() % np.dtype(entry["dtype"].decode()).itemsize))
            start, crcs = int(entry["offset"]), (int(entry["crc"]), int(entry["path_crc"]))
            written += _packed(bytes(entry["key"]), file.tell(), bytes(entry["dtype"]), _shape(entry), *crcs)
            file.write(source[start : start + int(entry["nbytes"])].data)
    with atomic_write(index) as file:
        file.write(written)


def useful(entries: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """The newest entry of each path, as far as the file has its numbers, in the order of writing.

    Two paths with one CRC-32 cost one of them its array, which is then decoded once more.

    Args:
        entries: All of them, in the order of writing.
        size: How many bytes the file of numbers has.
    """
    _, last = np.unique(entries["path_crc"][::-1], return_index=True)
    newest = entries[np.sort(len(entries) - 1 - last)]
    there: npt.NDArray[Any] = newest[newest["offset"] + newest["nbytes"] <= size]
    return there


def sound(entry: Any, flat: npt.NDArray[np.uint8]) -> bool:
    """Whether an `entry` and its numbers, the bytes `flat`, are as they were written."""
    crcs = int(entry["crc"]), int(entry["path_crc"])
    packed = _packed(bytes(entry["key"]), int(entry["offset"]), bytes(entry["dtype"]), _shape(entry), *crcs)
    return packed[-4:] == struct.pack("<I", int(entry["entry_crc"])) and zlib.crc32(flat.data) == crcs[0]


def array_of(entry: Any, flat: npt.NDArray[np.uint8]) -> Array:
    """The array of a sound `entry`, in the memory of its bytes `flat`."""
    array: Array = flat.view(entry["dtype"].decode()).reshape(_shape(entry))
    return array


def size_of(path: Path) -> int:
    """The size of the file at `path`; 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def mapped(path: Path) -> Any:
    """Copy on write: what torch would warn about in a read-only array cannot happen, and the file stays untouched.

    Args:
        path: The file of numbers.
    """
    try:
        return storage.mapped(path, np.uint8, mode="c")
    except FileNotFoundError:
        return np.empty(0, np.uint8)


def _bytes(array: Array) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _shape(entry: Any) -> tuple[int, ...]:
    return tuple(int(side) for side in entry["shape"][: int(entry["ndim"])])


def _packed(key: bytes, offset: int, dtype: bytes, shape: tuple[int, ...], crc: int, path_crc: int) -> bytes:
    sizes = (*shape, *(0,) * (MOST_DIMENSIONS - len(shape)))
    nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype.decode()).itemsize
    packed = _FIELDS.pack(key, offset, nbytes, dtype, len(shape), *sizes, crc, path_crc)
    return packed + struct.pack("<I", zlib.crc32(packed))


def _write_all(descriptor: int, data: memoryview) -> None:
    while len(data):
        data = data[os.write(descriptor, data) :]
