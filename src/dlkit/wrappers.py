"""What torch's wrappers hide: a `Subset` or a `ConcatDataset` answers here as the data behind it does.

`random_split` gives `Subset`s. A wrapper has no classes, no schema and no way of batching of its own, so whoever asks a
dataset what its samples mean, or how they are fetched, asks through this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils.data import ConcatDataset, Subset

from dlkit.declared import check_same

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
        check_same(first, other, there="the first part", here=f"another part of the {type(data).__name__}")
    return first
