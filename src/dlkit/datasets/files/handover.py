"""Batches of a DataLoader's worker in shared memory that is used again once the consumer has let go of them.

torch gives every batch of a worker its own shared memory, whose pages the kernel clears and maps one by one: for
floats of 224 pixels that costs about as much as cropping and resizing the image. Here a worker keeps some pieces of
shared memory. Each is sent by torch's own means the first time, and by its number from then on. The consumer's process
keeps it mapped, hands out an array over it, and marks the piece as free when nothing refers to that array any more.

Only the batch as a whole is sent like this. To torch the memory is ordinary, so that whatever else is sent of it (a
slice that the user's `collate_fn` made, say) is copied, as the memory of any tensor is.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import weakref
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["Pieces", "numpy_type", "sendable"]

Bytes = npt.NDArray[np.uint8]

_FREE, _TAKEN = 0, 1
#: How many pieces a worker keeps: with the usual prefetching two wait, one or two are in use, one is being filled.
_MOST = 6


class _Batch(Tensor):
    """A batch that is in a piece; what is computed from it is an ordinary tensor."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    piece: Piece


class Piece:
    """Shared memory for one batch, with a mark at the end that says whether the consumer has it.

    Args:
        token: What the worker is known by.
        number: Its number in this worker.
        count: How many bytes it holds.
    """

    def __init__(self, token: tuple[int, str], number: int, count: int) -> None:
        self.token, self.number, self.count, self.sent = token, number, count, False
        self.memory = _shared((count + 1,), torch.uint8)
        self.bytes: Bytes = self.memory.numpy()
        self.bytes[-1] = _FREE
        self._lent: weakref.ref[npt.NDArray[Any]] | None = None

    @property
    def is_free(self) -> bool:
        """Whether nothing refers to the batch in it any more, neither here nor in the consumer's process."""
        return self.bytes[-1] == _FREE and (self._lent is None or self._lent() is None)

    def lend(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A batch of this `shape` and `dtype` in this memory."""
        array = _array(self.bytes, shape, dtype)
        self._lent = weakref.ref(array)
        batch = torch.from_numpy(array).as_subclass(_Batch)
        batch.piece = self
        return batch

    def holds(self, batch: Tensor) -> bool:
        """Whether `batch` is still what `lend` gave, and not moved or turned since."""
        array = self._lent() if self._lent is not None else None
        same = array is not None and batch.data_ptr() == self.memory.data_ptr()
        return same and batch.is_contiguous() and array is not None and tuple(batch.shape) == array.shape


class Pieces:
    """The pieces of one worker."""

    def __init__(self) -> None:
        self._token: tuple[int, str] = (os.getpid(), secrets.token_hex(8))
        self._pieces: list[Piece] = []

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor of this `shape` and `dtype` with arbitrary content, in shared memory."""
        count = int(np.prod(shape)) * dtype.itemsize
        if os.name == "nt":  # pragma: no cover  (where a consumer cannot see that a worker has ended)
            return _shared(shape, dtype)
        piece = next((one for one in self._pieces if one.count >= count and one.is_free), None)
        if piece is None:
            if len(self._pieces) >= _MOST:  # the consumer holds on to its batches: each gets its own memory
                return _shared(shape, dtype)
            piece = Piece(self._token, len(self._pieces), count)
            self._pieces.append(piece)
        return piece.lend(shape, dtype)


@functools.cache
def numpy_type(dtype: torch.dtype) -> np.dtype[Any] | None:
    """The type in numpy that torch's `dtype` is, None where it has none."""
    try:
        kind: np.dtype[Any] = torch.empty(0, dtype=dtype).numpy().dtype
    except TypeError:  # bfloat16
        return None
    return kind


def _array(memory: Bytes, shape: tuple[int, ...], dtype: torch.dtype) -> npt.NDArray[Any]:
    """Numbers of a piece, from its beginning on, in their own array."""
    return memory[: int(np.prod(shape)) * dtype.itemsize].view(numpy_type(dtype) or np.uint8).reshape(shape)


def _shared(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor in shared memory of its own, as torch's own `default_collate` makes it in a worker."""
    storage = torch.UntypedStorage._new_shared(int(np.prod(shape)) * dtype.itemsize, device="cpu")
    tensor: Tensor = torch.empty(0, dtype=dtype).set_(storage, 0, shape)  # type: ignore[call-overload]
    return tensor


def sendable(batch: Tensor, whole: Tensor) -> Tensor:
    """The `batch` as `take` gave it, if it still is the `whole` of that."""
    same = isinstance(whole, _Batch) and batch.data_ptr() == whole.data_ptr() and batch.shape == whole.shape
    return whole if same else batch


def _reduce(batch: _Batch) -> Any:
    """What a worker's queue sends of a batch."""
    piece: Piece | None = getattr(batch, "piece", None)
    if piece is None or not piece.holds(batch):
        return _as_it_is, (batch.as_subclass(Tensor),)
    first, piece.sent = not piece.sent, True
    piece.bytes[-1] = _TAKEN
    return _open, (piece.token, piece.number, piece.memory if first else None, tuple(batch.shape), batch.dtype)


ForkingPickler.register(_Batch, _reduce)


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


# The pieces of each worker that this process consumes from, by the worker's process and number.
_mapped: dict[tuple[int, str], dict[int, Bytes]] = {}


def _open(
    token: tuple[int, str], number: int, memory: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype
) -> Tensor:
    """In the consumer: the batch in a piece, as an ordinary tensor."""
    if memory is not None:
        _forget_ended()
        _mapped.setdefault(token, {})[number] = memory.numpy()
    whole = _mapped[token][number]
    array = _array(whole, shape, dtype)
    # The tensor, and all that shares its memory, keeps this very array alive.
    weakref.finalize(array, _release, whole, token).atexit = False
    return torch.from_numpy(array)


def _release(whole: Bytes, token: tuple[int, str]) -> None:
    whole[-1] = _FREE
    if not _is_alive(token[0]):
        _mapped.pop(token, None)


def _forget_ended() -> None:
    """Let go of the pieces of workers that have ended."""
    for token in [token for token in _mapped if not _is_alive(token[0])]:
        _mapped.pop(token, None)


def _is_alive(process: int) -> bool:
    with contextlib.suppress(PermissionError):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
    return True
