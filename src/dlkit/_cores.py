"""How many threads a process may use, and work for them."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import get_worker_info

__all__ = ["default_threads", "for_each", "one_thread", "scratch"]

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
_making = threading.Lock()
_own = threading.local()
_LINE = 64  # bytes of a line of the processor's cache, where the memory begins
_KEPT = 1 << 23  # bytes; what is larger is not kept


def default_threads() -> int:
    """The cores this process may use, divided among a DataLoader's workers."""
    count = getattr(os, "sched_getaffinity", None)
    cores = len(count(0)) if count is not None else (os.cpu_count() or 1)
    worker = get_worker_info()
    return max(1, cores // worker.num_workers) if worker is not None else cores


def scratch(use: str, count: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Memory of this thread with arbitrary content, used again by the next call: fresh memory costs a fault per page.

    Args:
        use: What for; each has memory of its own.
        count: How many numbers.
        dtype: Of what type.
    """
    size = count * np.dtype(dtype).itemsize
    if size > _KEPT:
        return np.empty(count, dtype)
    kept: dict[str, npt.NDArray[np.uint8]] = _own.__dict__
    if use not in kept or len(kept[use]) < size:
        kept[use] = np.empty(size + _LINE, np.uint8)
        kept[use] = kept[use][-kept[use].ctypes.data % _LINE :]
    return kept[use][:size].view(dtype)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """A block in which torch computes in one thread, as in a worker; in several, some sums round differently."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def for_each(work: Callable[[int], None], count: int, threads: int) -> None:
    """Call `work(0)` to `work(count - 1)`, each once, by this thread and `threads - 1` more; wait for all.

    Args:
        work: Must not draw random numbers, and write only to its own places.
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
            _pools[key] = ThreadPoolExecutor(threads, thread_name_prefix="dlkit")
    return _pools[key]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_making.acquire, after_in_parent=_making.release, after_in_child=_making.release)
