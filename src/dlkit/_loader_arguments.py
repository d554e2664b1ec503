"""What a `DataLoader` is asked for: each argument of its kind, and none that excludes another."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Mapping
from multiprocessing.context import BaseContext
from typing import Any

from torch.utils.data import IterableDataset

from dlkit._arguments import callable_object, switch, whole_number
from dlkit.errors import ArgumentError

__all__ = ["WORKER_SETTINGS", "check_dataset", "check_order", "checked_settings"]

#: What a stock loader has beyond dataset, order and collate_fn; handed through as it is.
WORKER_SETTINGS = (
    "num_workers",
    "timeout",
    "worker_init_fn",
    "multiprocessing_context",
    "prefetch_factor",
    "persistent_workers",
)


def check_dataset(dataset: Any, collate_fn: Any) -> None:
    """Refuse what has no samples by number, and what makes no batch of them.

    Args:
        dataset: As given to the loader.
        collate_fn: As given to the loader.
    """
    if isinstance(dataset, type):
        raise ArgumentError(f"dataset is the class {dataset.__name__}; make an object of it: {dataset.__name__}(...)")
    if isinstance(dataset, IterableDataset):
        raise ArgumentError(
            f"{type(dataset).__name__} is an IterableDataset, which has no order to seek in; "
            "give torch's DataLoader(dataset, ...) to the Trainer instead"
        )
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise ArgumentError(f"a dataset needs __getitem__ and __len__; {type(dataset).__name__} lacks one of them")
    if collate_fn is not None:
        callable_object("collate_fn", collate_fn, "collate_fn(samples)")


def check_order(batch_size: int | None, shuffle: bool, sampler: Any, batch_sampler: Any) -> None:
    """Refuse two orders at once, and a class of samplers.

    Args:
        batch_size: As given to the loader.
        shuffle: As given to the loader.
        sampler: As given to the loader.
        batch_sampler: As given to the loader.
    """
    if sampler is not None and shuffle:
        raise ArgumentError("sampler= and shuffle=True exclude each other: the sampler is the order")
    if batch_sampler is not None and (sampler is not None or shuffle or batch_size not in (1, None)):
        raise ArgumentError("batch_sampler= excludes batch_size, shuffle and sampler: it is both order and batches")
    for name, value in (("sampler", sampler), ("batch_sampler", batch_sampler)):
        if isinstance(value, type):
            raise ArgumentError(f"{name} is the class {value.__name__}; make an object of it: {value.__name__}(...)")
        if value is not None and not (hasattr(value, "__iter__") or callable(getattr(value, "plan", None))):
            wanted = "an iterable of indices" if name == "sampler" else "an iterable of lists of indices, or a planner"
            raise ArgumentError(f"{name} must be {wanted}, not {type(value).__name__}")


def checked_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """How workers are run, each setting of its kind.

    Args:
        settings: What the loader was given beside its named arguments, and `num_workers`.
    """
    if unknown := set(settings) - set(WORKER_SETTINGS):
        raise ArgumentError(
            f"unknown argument {', '.join(sorted(unknown))}; besides the named ones there are {WORKER_SETTINGS[1:]}"
        )
    checked = dict(settings) | {"num_workers": whole_number("num_workers", settings["num_workers"], least=0)}
    if (factor := settings.get("prefetch_factor")) is not None:
        checked["prefetch_factor"] = whole_number("prefetch_factor", factor, least=1, unit="batches per worker")
    if (stay := settings.get("persistent_workers")) is not None:
        checked["persistent_workers"] = switch("persistent_workers", stay)
    if (begin := settings.get("worker_init_fn")) is not None:
        callable_object("worker_init_fn", begin, "worker_init_fn(worker_id)")
    _check_timeout(settings.get("timeout", 0))
    _check_context(settings.get("multiprocessing_context"))
    return checked


def _check_timeout(timeout: Any) -> None:
    number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if not number or not (math.isfinite(timeout) and timeout >= 0):
        raise ArgumentError(f"timeout must be a number of seconds, 0 for none, not {timeout!r}")


def _check_context(context: Any) -> None:
    known = multiprocessing.get_all_start_methods()
    if context is not None and not isinstance(context, BaseContext) and context not in known:
        raise ArgumentError(
            f"multiprocessing_context must be one of {', '.join(known)}, or a context of multiprocessing, "
            f"not {context!r}"
        )
