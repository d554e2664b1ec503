"""Threads behind `__getitems__`, and batch memory that is used again once the consumer has let go of it."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from dlkit.datasets.files.handover import Pieces, numpy_type

__all__ = ["BatchMemory", "for_each"]

Array = npt.NDArray[Any]

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
_making = threading.Lock()


def for_each(work: Callable[[int], None], count: int, threads: int) -> None:
    """Call `work(0)` to `work(count - 1)`, each once, by this thread and `threads - 1` more; wait for all.

    Args:
        work: Must not draw random numbers, and write only to places of its own.
        count: How often.
        threads: 1 runs everything here.

    Raises:
        Exception: what `work` raised with the lowest number; the numbers after it may not have been run.
    """
    if threads <= 1 or count <= 1:
        for number in range(count):
            work(number)
        return
    left, failures = deque(range(count)), list[tuple[int, BaseException]]()

    def drain() -> None:
        while not failures:
            try:
                number = left.popleft()
            except IndexError:
                return
            try:
                work(number)
            except BaseException as error:  # noqa: BLE001  (raised again below, in the calling thread)
                failures.append((number, error))

    helpers = [_pool(threads - 1).submit(drain) for _ in range(min(threads, count) - 1)]
    drain()
    for helper in helpers:
        helper.result()
    if failures:
        raise min(failures, key=lambda failure: failure[0])[1]


def _pool(threads: int) -> ThreadPoolExecutor:
    """One pool per process and size: a forked worker would inherit an object whose threads do not exist."""
    key = (os.getpid(), threads)
    with _making:
        if key not in _pools:
            _pools[key] = ThreadPoolExecutor(threads, thread_name_prefix="dlkit-files")
    return _pools[key]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_making.acquire, after_in_parent=_making.release, after_in_child=_making.release)


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
        """A tensor with arbitrary content.

        Args:
            shape: Of the tensor.
            dtype: Of the tensor.
        """
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

    def _is_free(self, number: int) -> bool:
        return sys.getrefcount(self._arrays[number]) <= _UNUSED


def _references_of_an_unused_array() -> int:
    arrays = [np.empty(1)]
    return sys.getrefcount(arrays[0])


_UNUSED = _references_of_an_unused_array()
