"""How many threads a process may use."""

from __future__ import annotations

import os

from torch.utils.data import get_worker_info

__all__ = ["default_threads"]


def default_threads() -> int:
    """The cores this process may use, divided among a DataLoader's workers."""
    count = getattr(os, "sched_getaffinity", None)
    cores = len(count(0)) if count is not None else (os.cpu_count() or 1)
    worker = get_worker_info()
    return max(1, cores // worker.num_workers) if worker is not None else cores
