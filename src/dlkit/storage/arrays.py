"""Arrays on disk: whole or not there, found by their file, mapped into memory.

`write_arrays` puts some of them and a JSON document into one `.safetensors` file (no code can hide in it, any tool
reads it) with a CRC-32 of everything, which notices a damaged file at about 4 GB/s. `ArrayWriter` collects one long
array whose length is not known before, in memory while it is small, in a file beyond a budget.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
import weakref
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from dlkit._opening import regular
from dlkit.errors import DataError
from dlkit.storage.files import atomic_write, give_name, mapped, mark_used

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ArrayWriter", "Arrays", "Kind", "SharedArray", "open_arrays", "write_arrays"]

Array = np.ndarray[Any, Any]

# What the format calls torch's types.
_NAMES = {"bool": "BOOL", "bfloat16": "BF16", "uint8": "U8", "int8": "I8"} | {
    f"{word}{bits}": f"{word[0].upper()}{bits}" for word in ("int", "float") for bits in (16, 32, 64)
}


@dataclass(frozen=True)
class Kind:
    """What is in a file of arrays.

    Attributes:
        name: What errors call it, such as "pack of images".
        version: Raised by one whenever what is written changes.
    """

    name: str
    version: int


@dataclass(frozen=True, eq=False)
class Arrays:
    """An open file of arrays. Pickled (for a worker that is spawned), it travels as its path and is mapped again there.

    Attributes:
        path: The file.
        kind: What is in it.
        tensors: By name, in the memory of the file.
        about: What the writer said of them.
        checksum: The CRC-32 over everything.
        mapping: Keeps the file from being cleared.
    """

    path: Path
    kind: Kind
    tensors: dict[str, Tensor]
    about: dict[str, Any]
    checksum: int
    mapping: Any = None

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __reduce__(self) -> Any:
        return _reopen, (self.path, self.kind, self.checksum)


def _reopen(path: Path, kind: Kind, checksum: int) -> Arrays:
    arrays = open_arrays(path, kind, verify=False)
    if arrays.checksum != checksum:
        raise DataError(f"{path} was rebuilt since this dataset was opened; open the dataset again")
    return arrays


def write_arrays(path: Path, kind: Kind, tensors: Mapping[str, Tensor], about: Mapping[str, Any] | None = None) -> None:
    """Write some arrays and what is to be said of them, so that they appear together or not at all.

    Args:
        path: The file, in a folder that is there; an existing one is replaced.
        kind: What is in it.
        tensors: By name.
        about: Plain data that JSON can hold.

    Raises:
        OSError: the disk is full, say.

    >>> import torch; file = Path(tempfile.mkdtemp()) / "a.safetensors"
    >>> write_arrays(file, Kind("square", 1), {"x": torch.eye(2)}, {"side": 2})
    >>> arrays = open_arrays(file, Kind("square", 1)); arrays["x"].sum().item(), arrays.about["side"]
    (2.0, 2)
    """
    # By hand, because safetensors would put all of it into memory once more; the widest numbers first, so that all lie
    # where they can be read in place.
    ordered = sorted(tensors.items(), key=lambda item: -item[1].element_size())
    described = json.dumps({"kind": kind.name, "version": kind.version, "about": dict(about or {})}, sort_keys=True)
    checksum = _checksum(described, dict(ordered))
    header: dict[str, Any] = {"__metadata__": {"dlkit": described, "crc32": str(checksum)}}
    start = 0
    for name, tensor in ordered:
        end = start + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _NAMES[str(tensor.dtype).removeprefix("torch.")],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        start = end
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 64)
    with atomic_write(path) as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for _, tensor in ordered:
            file.write(_bytes(tensor))


def open_arrays(path: Path, kind: Kind, *, verify: bool = True) -> Arrays:
    """Map a file of arrays into memory.

    Args:
        path: The file.
        kind: What must be in it.
        verify: Read it through once and compare its checksum.

    Raises:
        DataNotFoundError: there is no such file.
        DataError: it is of another kind or version, or damaged.
    """
    from safetensors import SafetensorError, safe_open

    regular(path)
    try:
        mapping = mapped(path, np.uint8)
        with safe_open(path, "pt") as file:
            metadata, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        said = json.loads(metadata.get("dlkit", "{}"))
        checksum = int(metadata.get("crc32", 0))
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error or type(error).__name__})") from error
    if said.get("kind") != kind.name:
        raise DataError(f"{path} is not a {kind.name}: it holds {', '.join(sorted(tensors)) or 'nothing'}")
    if said.get("version") != kind.version:
        raise DataError(f"{path} was written in version {said.get('version')} of the format, this is {kind.version}")
    if verify and checksum != _checksum(metadata["dlkit"], tensors):
        raise DataError(f"{path} is damaged (its checksum is wrong)")
    return Arrays(path, kind, tensors, said["about"], checksum, mapping)


def kept_arrays(path: Path, kind: Kind) -> Arrays | None:
    """A file of arrays in a cache, noted as used; None where nothing whole of this `kind` and version is at `path`."""
    try:
        arrays = open_arrays(path, kind)
    except (DataError, OSError):
        return None
    mark_used(path)
    return arrays


def keep_arrays(
    path: Path, kind: Kind, tensors: Mapping[str, Tensor], about: Mapping[str, Any] | None = None
) -> Arrays | None:
    """`write_arrays` for a cache, whose folder need not be there; mapped, or None where the disk takes no more."""
    with contextlib.suppress(OSError, DataError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_arrays(path, kind, tensors, about)
        return open_arrays(path, kind, verify=False)
    return None


def _checksum(described: str, tensors: Mapping[str, Tensor]) -> int:
    checksum = zlib.crc32(described.encode())
    for name, tensor in sorted(tensors.items()):
        checksum = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), checksum)
        checksum = zlib.crc32(_bytes(tensor), checksum)
    return checksum


def _bytes(tensor: Tensor) -> memoryview:
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else memoryview(b"")


class SharedArray:
    """An array that, when it is a mapped file, travels to other processes as its path.

    >>> import pickle
    >>> pickle.loads(pickle.dumps(SharedArray(np.arange(3)))).array.tolist()
    [0, 1, 2]
    """

    __slots__ = ("array", "path")

    def __init__(self, array: Array, path: Path | None = None) -> None:
        self.array, self.path = array, path

    @classmethod
    def map(cls, path: Path, dtype: Any) -> SharedArray:
        """The numbers of a `dtype`, which alone are in the file at `path`, read page by page when they are used."""
        return cls(mapped(path, dtype), path)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.path is not None:
            return SharedArray.map, (self.path, self.array.dtype)
        return SharedArray, (self.array,)


class ArrayWriter:
    """Collects pieces of an array, at most `budget` bytes of it in memory.

    Args:
        dtype: The type of the numbers.
        budget: Bytes from which on everything goes to a file.
        folder: Where that file lies; it is made when it is needed.

    >>> writer = ArrayWriter(np.int32, budget=100, folder=Path("unused"))
    >>> writer.append(np.array([1, 2])); writer.append(np.array([3]))
    >>> writer.finish(".ids").array.tolist()
    [1, 2, 3]
    """

    def __init__(self, dtype: Any, *, budget: int, folder: Path) -> None:
        self.dtype, self.budget, self.folder = np.dtype(dtype).newbyteorder("<"), budget, folder
        self._pieces: list[Array] = []
        self._bytes = 0
        self._digest = hashlib.sha256()
        self._file: IO[bytes] | None = None
        self._temporary = Path()

    def append(self, values: Array) -> None:
        """Add a piece, `values` that the type of this array can hold."""
        piece = np.ascontiguousarray(values, dtype=self.dtype)
        self._bytes += piece.nbytes
        if self._file is not None:
            self._write(piece)
            return
        self._pieces.append(piece)
        if self._bytes > self.budget:
            self._spill()

    def finish(self, suffix: str, name: str | None = None) -> SharedArray:
        """The whole array. Where it is in a file, that is called `name`, or by its content, plus `suffix`.

        Args:
            suffix: Such as ".ids".
            name: Of the file, without the suffix; None takes the SHA-256 of the content.
        """
        if self._file is None:
            return SharedArray(np.concatenate([np.zeros(0, dtype=self.dtype), *self._pieces]))
        path = self.folder / f"{name or self._digest.hexdigest()}{suffix}"
        self._file.close()
        give_name(self._temporary, path)
        return SharedArray.map(path, self.dtype)

    def _spill(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=self.folder, prefix=".", suffix=".tmp")
        self._file, self._temporary = open(descriptor, "wb"), Path(name)  # noqa: SIM115  (open until `finish`)
        weakref.finalize(self, self._temporary.unlink, missing_ok=True)
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            self._write(piece)

    def _write(self, piece: Array) -> None:
        assert self._file is not None
        self._file.write(piece.data)
        self._digest.update(piece.data)
