"""A checkpoint file: plain data with a checksum, which cannot be half written and runs no code when it is read.

It holds nothing but tensors and plain values, so that `torch.load(..., weights_only=True)` reads it, and ends in a
checksum of everything before it, which `torch.load` does not mind.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from dlkit._filekinds import HEAD, told
from dlkit._opening import name_of, open_regular
from dlkit.errors import CheckpointError, DamagedCheckpointError, DlkitError
from dlkit.runs import rows
from dlkit.storage.files import atomic_write

__all__ = ["CheckpointWarning", "load_checkpoint", "plain", "save_checkpoint"]

_MAGIC = b"dlkit-sha256-v1:"
_TRAILER = len(_MAGIC) + 32
_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)


class CheckpointWarning(UserWarning):
    """Something is wrong with a checkpoint file, and training continues: it says what, and what is still good."""


def save_checkpoint(state: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write plain data to one file that is whole or not there, with its checksum at the end.

    Args:
        state: Tensors, numbers, strings, None, and lists, tuples and dicts of them.
        path: Replaced in one step if it exists.

    Raises:
        CheckpointError: a value is more than plain data; the message has its key.
        OSError: the disk is full, or the folder cannot be written to.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.pt"
    >>> save_checkpoint({"step": 3}, path); load_checkpoint(path)
    {'step': 3}
    """
    data = plain(state)
    with atomic_write(path) as file:
        hashing = _HashingFile(file)
        torch.save(data, hashing)  # type: ignore[arg-type]
        if hashing.refused is not None:
            raise hashing.refused
        file.write(_MAGIC + hashing.digest.digest())


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint file: its checksum is compared, and nothing in it is ever executed.

    Args:
        path: A file of a `CheckpointStore`; tensors are returned on the CPU. Keys of a Trainer's files: `model` (the
            `state_dict`), `optimizers`, `cursor`, `history`, `callbacks`, `rng` and more.

    Raises:
        CheckpointError: there is no such file.
        DamagedCheckpointError: it is truncated, changed, no checkpoint, or holds more than plain data; or the files
            of rows beside it are, which processes on shares have written.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint file at {path}")
    try:
        with open_regular(path, DamagedCheckpointError) as file:
            _verify(file, path)
            state = torch.load(name_of(file, path), map_location="cpu", weights_only=True)
    except DlkitError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a crafted file brings out any error of the unpickler
        reason = str(error).strip().partition("\n")[0]
        raise DamagedCheckpointError(
            f"{path} holds more than plain data, or is damaged; not loaded: {reason}"
        ) from error
    if not isinstance(state, dict):
        raise DamagedCheckpointError(f"{path} holds a {type(state).__name__}, not a checkpoint's dict")
    return rows.whole(state, path) if rows.FIELD in state else state


def _verify(file: IO[bytes], path: Path) -> None:
    digest, size = hashlib.sha256(), os.fstat(file.fileno()).st_size
    left = size - _TRAILER
    while left > 0 and (chunk := file.read(min(left, 1 << 22))):
        digest.update(chunk)
        left -= len(chunk)
    trailer = file.read(_TRAILER) if size >= _TRAILER else b""
    if not trailer.startswith(_MAGIC):
        raise DamagedCheckpointError(f"{path} {_what_it_is(path)}")
    if trailer[len(_MAGIC) :] != digest.digest():
        raise DamagedCheckpointError(f"{path} was changed or damaged: its checksum does not match its content")


def _what_it_is(path: Path) -> str:
    """What a file without a checksum is; a checkpoint of dlkit begins as any file of `torch.save`."""
    with open_regular(path, DamagedCheckpointError) as file:
        head = file.read(HEAD)
    if head.startswith(b"PK") or not (what := told(head, "a checkpoint of dlkit")):
        return (
            "is truncated, or was not written by dlkit: its checksum is missing; weights from torch.save are for "
            "dlkit.transfer.load_weights(model, path)"
        )
    return what


class _HashingFile:
    """A file that computes its checksum while it is written, and keeps what the disk says against it.

    `torch.save` turns an error of `write` into its own RuntimeError about positions; so it never sees one.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest = file, hashlib.sha256()
        self.refused: OSError | None = None

    def write(self, data: Any) -> int:
        if self.refused is None:
            self.digest.update(data)
            with self._keeping():
                self._file.write(data)
        return len(data)

    def flush(self) -> None:
        if self.refused is None:
            with self._keeping():
                self._file.flush()

    @contextlib.contextmanager
    def _keeping(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.refused = error


def plain(value: Any, key: str = "state") -> Any:
    """The same data in types that load with `weights_only=True`; subclasses become their plain base.

    Args:
        value: Anything a `state_dict` may hold.
        key: The path to it, for the error.

    Raises:
        CheckpointError: a type that cannot be loaded safely, such as your own class or a numpy array.

    >>> from collections import OrderedDict
    >>> plain(OrderedDict(a=(1, 2.0)))
    {'a': (1, 2.0)}
    """
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, bool | type(None)) or type(value) in _PLAIN:
        return value
    if isinstance(value, Mapping):
        return {plain(name, f"{key}: a key"): plain(item, f"{key}[{name!r}]") for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = [plain(item, f"{key}[{number}]") for number, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items) if isinstance(value, tuple) else set(items)
    if isinstance(value, int | float | str):  # numpy.float64, enum members
        return next(kind(value) for kind in (int, float, str) if isinstance(value, kind))
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise CheckpointError(
        f"{key} is a {type(value).__module__}.{type(value).__qualname__}, which cannot be loaded without running code; "
        "let its state_dict return tensors, numbers, strings, lists and dicts"
    )
