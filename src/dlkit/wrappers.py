"""What torch's wrappers hide: a `Subset` or a `ConcatDataset` answers here as the data behind it does.

`random_split` gives `Subset`s. A wrapper has no classes, no schema and no way of batching of its own, so whoever asks a
dataset what its samples mean, or how they are fetched, asks through this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils.data import ConcatDataset, Subset

from dlkit.errors import DataError

__all__ = ["parts_of", "unwrap"]

#: Where a dataset says what its samples mean.
_MEANING = ("classes", "schema", "spec", "transform")


def parts_of(data: Any) -> Sequence[Any]:
    """What a wrapper of torch holds; nothing for any other data.

    Args:
        data: A dataset.

    >>> parts_of(Subset(range(3), [0])), parts_of(range(3))
    ((range(0, 3),), ())
    """
    if isinstance(data, Subset):
        return (data.dataset,)
    return tuple(data.datasets) if isinstance(data, ConcatDataset) else ()


def unwrap(data: Any) -> Any:
    """The dataset that says what the samples mean: the data itself, or the data behind torch's wrappers.

    A wrapper with `classes`, a `schema`, a `spec` or a `transform` of its own speaks for itself. Of several datasets
    behind a `ConcatDataset` the first is given, if all of them mean the same.

    Args:
        data: Any dataset, or None.

    Raises:
        DataError: data that mean different things were joined; the first difference is named.

    >>> data = range(8)
    >>> unwrap(ConcatDataset([Subset(data, [0, 1]), Subset(data, [5])])) is data
    True
    """
    parts = parts_of(data)
    if not parts or any(name in vars(data) for name in _MEANING):
        return data
    first, *others = (unwrap(part) for part in parts)
    for other in others:
        _check_same(first, other, type(data).__name__)
    return first


def _check_same(first: Any, other: Any, wrapper: str) -> None:
    for name in _MEANING:
        mine, theirs = (_meaning(data, name) for data in (first, other))
        if mine is not theirs and mine != theirs:
            raise DataError(
                f"{wrapper} joins data that mean different things: {name} is {mine!r:.200} in the first part and "
                f"{theirs!r:.200} in another; read all parts with the first one's (class_to_idx=, schema=, spec= or "
                "transform=), or join their files before reading"
            )


def _meaning(data: Any, name: str) -> Any:
    """What can be compared of it: the order of classes, and a transform as it is after the training."""
    value = getattr(data, name, None)
    if name == "classes":
        return None if value is None else list(value)
    if name == "transform":
        evaluated = getattr(value, "for_evaluation", None)
        return evaluated() if callable(evaluated) else None
    return value
