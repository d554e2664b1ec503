"""Memory for batches that is used again once the consumer has let go of it."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from dlkit.datasets.files.handover import Pieces, numpy_type

__all__ = ["BatchMemory"]

Array = npt.NDArray[Any]


class BatchMemory:
    """Memory for batches: fresh memory costs a page fault per 4 KiB, more than normalising the pixels in it.

    An array is handed out again when nothing refers to it any more, neither the batch nor any tensor or array that
    shares its memory. In a DataLoader's worker, batches are made in shared memory, which is used again likewise.

    >>> memory = BatchMemory(); first = memory.take((4, 2)); place = first.data_ptr(); kept = first[0]; del first
    >>> memory.take((4, 2)).data_ptr() == place
    False
    """

    #: How many batches are kept for the next time. A consumer holds one or two, a pipeline some more.
    most = 4

    def __init__(self) -> None:
        self._arrays: list[Array] = []
        self._pieces: Pieces | None = None
        self._pid = os.getpid()

    def __reduce__(self) -> tuple[Any, ...]:
        return BatchMemory, ()

    def take(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        """A tensor of this `shape` and `dtype` with arbitrary content."""
        kind = numpy_type(dtype)
        if kind is None:
            return torch.empty(shape, dtype=dtype)
        if self._pid != os.getpid():  # after a fork the parent's batches may still be in use there
            self._arrays, self._pieces, self._pid = [], None, os.getpid()
        if get_worker_info() is not None:
            self._pieces = self._pieces or Pieces()
            return self._pieces.take(shape, dtype)
        self._arrays = [
            array
            for array in self._arrays
            if array.shape[1:] == shape[1:] and len(array) >= shape[0] and array.dtype == kind
        ]
        free = next((number for number in range(len(self._arrays)) if self._is_free(number)), None)
        if free is None:
            array = np.empty(shape, kind)
            self._arrays = [*self._arrays, array][-self.most :]
        else:
            array = self._arrays[free]
        return torch.from_numpy(array[: shape[0]])

    def sendable(self, made: Any) -> Any:
        """In a worker, a tensor copied to where it is sent from without memory of its own; else as it is.

        Args:
            made: The inputs of a batch.
        """
        ordinary = type(made) is Tensor and made.device.type == "cpu" and made.layout == torch.strided
        if get_worker_info() is None or not ordinary or made.requires_grad or numpy_type(made.dtype) is None:
            return made
        return self.take(tuple(made.shape), made.dtype).copy_(made)

    def _is_free(self, number: int) -> bool:
        return sys.getrefcount(self._arrays[number]) <= _UNUSED


def _references_of_an_unused_array() -> int:
    arrays = [np.empty(1)]
    return sys.getrefcount(arrays[0])


_UNUSED = _references_of_an_unused_array()
