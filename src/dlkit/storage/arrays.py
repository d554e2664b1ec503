"""One long array of numbers: in memory while it is small, in a memory-mapped file beyond a budget."""

from __future__ import annotations

import hashlib
import os
import tempfile
import weakref
from pathlib import Path
from typing import IO, Any

import numpy as np

from dlkit.storage.files import mapped, sync_folder

__all__ = ["Block", "BlockWriter"]

Array = np.ndarray[Any, Any]


class Block:
    """An array that, when it is a mapped file, travels to other processes as its path.

    >>> import pickle
    >>> pickle.loads(pickle.dumps(Block(np.arange(3)))).array.tolist()
    [0, 1, 2]
    """

    __slots__ = ("array", "path")

    def __init__(self, array: Array, path: Path | None = None) -> None:
        self.array, self.path = array, path

    @classmethod
    def map(cls, path: Path, dtype: Any) -> Block:
        """The numbers in a file, read page by page when they are used.

        Args:
            path: The file, with nothing but the numbers in it.
            dtype: Their type.
        """
        return cls(mapped(path, dtype), path)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.path is not None:
            return Block.map, (self.path, self.array.dtype)
        return Block, (self.array,)


class BlockWriter:
    """Collects pieces of an array, at most `budget` bytes of it in memory.

    Args:
        dtype: The type of the numbers.
        budget: Bytes from which on everything goes to a file.
        folder: Where that file lies; it is made when it is needed.

    >>> writer = BlockWriter(np.int32, budget=100, folder=Path("unused"))
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
        """Add a piece.

        Args:
            values: Numbers that the type of this array can hold.
        """
        piece = np.ascontiguousarray(values, dtype=self.dtype)
        self._bytes += piece.nbytes
        if self._file is not None:
            self._write(piece)
            return
        self._pieces.append(piece)
        if self._bytes > self.budget:
            self._spill()

    def finish(self, suffix: str, name: str | None = None) -> Block:
        """The whole array. Where it is in a file, that is called `name`, or by its content, plus `suffix`.

        Args:
            suffix: Such as ".ids".
            name: Of the file, without the suffix; None takes the SHA-256 of the content.
        """
        if self._file is None:
            return Block(np.concatenate([np.zeros(0, dtype=self.dtype), *self._pieces]))
        path = self.folder / f"{name or self._digest.hexdigest()}{suffix}"
        with self._file as file:
            file.flush()
            os.fsync(file.fileno())
        os.replace(self._temporary, path)
        sync_folder(self.folder)
        return Block.map(path, self.dtype)

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
