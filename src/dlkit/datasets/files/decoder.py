"""What one kind of file is: its suffixes, and how an array is made of a file's content."""

from __future__ import annotations

import hashlib
import os
import types
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dlkit._opening import open_regular
from dlkit.errors import ArgumentError, DataError
from dlkit.storage.identity import of_transform

__all__ = ["Decoder", "MAX_BYTES", "read_with_status"]

Array = npt.NDArray[Any]

#: Larger files are not read.
MAX_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """A kind of file. All that `FileFolder` does (classes, threads, cache, bad files, splits) follows from it.

    It goes to worker processes with the dataset. Where these are spawned (macOS, Windows, Python 3.14), the functions
    must therefore be at the top of a module, as everything that is pickled.

    Attributes:
        suffixes: The endings of such files' names, in any case, such as `[".npy"]`.
        decode: Makes an array of numbers, of any shape, of a file's content. Whatever it raises means that the file
            cannot be read. It runs in several threads at once (`threads=1` if it is not thread-safe) and may not draw
            random numbers.
        shape: Reads the shape of that array from the content's beginning without decoding it; None decodes.
        noun: What messages call one such file, such as "recording".
        rule: Another text whenever `decode` gives other arrays, so that none of before are taken from a cache. None
            takes the compiled code of `decode` itself for it, which does not see what other functions it calls.
        advice: What to do with a folder that holds such files and no class folders, for the message.

    Raises:
        ArgumentError: no suffix, or something that cannot be called.

    >>> import io
    >>> arrays = Decoder(suffixes=["npy"], decode=lambda data: np.load(io.BytesIO(data), allow_pickle=False))
    >>> file = io.BytesIO(); np.save(file, np.arange(3, dtype=np.int16))
    >>> arrays.array(file.getvalue(), "a.npy"), arrays.fits("B.NPY")
    (array([0, 1, 2], dtype=int16), True)
    """

    suffixes: Collection[str]
    decode: Callable[[bytes], Any]
    shape: Callable[[bytes], tuple[int, ...]] | None = None
    noun: str = "file"
    rule: str | None = None
    advice: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.suffixes, str) or not self.suffixes:
            raise ArgumentError(f"suffixes must be a list of endings such as ['.npy'], not {self.suffixes!r}")
        if not callable(self.decode):
            raise ArgumentError(f"decode must be a function from bytes to an array, not {type(self.decode).__name__}")
        endings = frozenset(f".{str(suffix).lower().removeprefix('.')}" for suffix in self.suffixes)
        object.__setattr__(self, "suffixes", endings)

    def fits(self, name: str) -> bool:
        """Whether a file's name has one of the endings.

        Args:
            name: With or without folders.
        """
        return f".{name.rpartition('.')[2].lower()}" in self.suffixes

    def array(self, data: bytes, name: str) -> Array:
        """The array of a file, in memory of its own order, contiguous and writable.

        Args:
            data: The file's content.
            name: What errors call the file.

        Raises:
            DataError: the file cannot be decoded; the message names it.
        """
        value = np.asarray(self.decoded(data, name))
        if value.dtype.kind not in "biufc":
            raise DataError(f"{name}: decode= must give an array of numbers, not of {value.dtype}")
        return np.require(value, value.dtype.newbyteorder("="), ["C", "W"])

    def decoded(self, data: bytes, name: str) -> Any:
        """What `decode` makes of a file, as it is.

        Args:
            data: The file's content.
            name: What errors call the file.

        Raises:
            DataError: the file cannot be decoded; the message names it.
        """
        return self._guarded(self.decode, data, name)

    def shape_of(self, data: bytes, name: str) -> tuple[int, ...]:
        """The shape of a file's array, from its beginning where `shape` is given.

        Args:
            data: The file's content.
            name: What errors call the file.

        Raises:
            DataError: the file cannot be read.
        """
        if self.shape is None:
            return self.array(data, name).shape
        return tuple(map(int, self._guarded(self.shape, data, name)))

    def _guarded(self, work: Callable[[bytes], Any], data: bytes, name: str) -> Any:
        try:
            return work(data)
        except (ArgumentError, ImportError, MemoryError):  # not the file's fault: a missing extra, say
            raise
        except DataError as error:
            raise type(error)(f"{name}: {error}") from error
        except Exception as error:  # a decoder raises whatever a broken file leads to
            raise DataError(f"{name}: cannot be decoded: {type(error).__name__}: {error}") from error

    @property
    def identity(self) -> str | None:
        """What arrays are kept under; None where it cannot be known, as of a function made in place."""
        if self.rule is not None:
            return f"{self.noun} {self.rule}"
        name, code = of_transform(self.decode), getattr(self.decode, "__code__", None)
        return None if name is None or code is None else f"{self.noun} {name} {_digest(code)}"


def _digest(code: types.CodeType) -> str:
    """Compiled code, with that of functions inside it."""
    constants = [
        _digest(each)
        if isinstance(each, types.CodeType)
        else repr(sorted(map(repr, each)) if isinstance(each, frozenset) else each)  # its order is another in each run
        for each in code.co_consts
    ]
    return hashlib.sha256(repr((code.co_code, code.co_names, constants)).encode()).hexdigest()[:16]


def read_with_status(path: str | os.PathLike[str]) -> tuple[bytes, os.stat_result]:
    """A file's content, and its size and time stamp at that moment.

    Args:
        path: The file.

    Raises:
        DataNotFoundError: there is none.
        DataError: it is larger than `MAX_BYTES`, or cannot be read.
    """
    try:
        with open_regular(path, buffering=0) as file:
            status = os.fstat(file.fileno())
            if status.st_size > MAX_BYTES:
                raise DataError(
                    f"{Path(path)}: {status.st_size:,} bytes are more than the {MAX_BYTES:,} that are read of a file"
                )
            return file.read(), status
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{Path(path)}: cannot be read: {error.strerror or error}") from error
