"""What torch's wrappers hide: a `Subset` or a `ConcatDataset` answers here as the data behind it does.

`random_split` gives `Subset`s. A wrapper has no classes, no spec and no way of batching of its own, so whoever asks a
dataset what its samples mean, or how they are fetched, asks through this file.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from dlkit.declared import check_same
from dlkit.errors import ArgumentError
from dlkit.samplers.buckets import LengthBuckets
from dlkit.samplers.order import Planner, Sequential, SlicedPlan

__all__ = ["View", "parts_of", "tensors_behind", "unwrap", "view_of"]

#: Where a dataset says what its samples mean.
_MEANING = ("classes", "spec", "transform")


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

    A wrapper with `classes`, a `spec` or a `transform` of its own speaks for itself. Of several datasets
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


def view_of(data: Any) -> Any:
    """The data itself, or a `View` of it where it is a wrapper of torch that changes nothing about the samples.

    Args:
        data: Any dataset.
    """
    kind = type(data)
    if isinstance(data, Subset):
        plain = (kind.__getitem__, kind.__getitems__) == (Subset.__getitem__, Subset.__getitems__)
    else:
        plain = isinstance(data, ConcatDataset) and kind.__getitem__ is ConcatDataset.__getitem__
        plain = plain and not hasattr(kind, "__getitems__")
    return View(data) if plain else data


class View:
    """A `Subset` or a `ConcatDataset` that is fetched from as the data behind it is: in whole batches, as it batches.

    Args:
        data: The wrapper.

    >>> View(ConcatDataset([range(3), Subset(range(9), [7, 8])])).__getitems__([4, 0])
    [8, 0]
    """

    takes_index_tensors = True

    def __init__(self, data: Any) -> None:
        self.viewed = data
        self._parts = [view_of(part) for part in parts_of(data)]

    def __len__(self) -> int:
        return len(self.viewed)

    def __getitem__(self, index: int) -> Any:
        return self.viewed[index]

    def __getitems__(self, indices: Any) -> Any:
        """The samples at `indices`, as the data behind gives them."""
        if isinstance(self.viewed, Subset):
            return _fetched(self._parts[0], self._rows(indices))
        return self._joined(np.asarray(indices))

    def _rows(self, indices: Any) -> Any:
        """Places in a subset as places in the data behind it."""
        chosen = self.viewed.indices
        if isinstance(chosen, Tensor | np.ndarray):
            return torch.as_tensor(chosen)[torch.as_tensor(indices)]
        listed = indices.tolist() if isinstance(indices, Tensor | np.ndarray) else indices
        # In C, twice as fast as a comprehension; looked up again each time, because the list may be changed.
        return list(operator.itemgetter(*listed)(chosen)) if len(listed) > 1 else [chosen[index] for index in listed]

    def _joined(self, indices: Any) -> Any:
        """The samples of several datasets in the order of `indices`."""
        ends = np.asarray(self.viewed.cumulative_sizes)
        indices = np.where(indices < 0, indices + len(self), indices)
        owners = np.searchsorted(ends, indices, side="right")
        if len(indices) and not (indices.min() >= 0 and indices.max() < len(self)):
            raise IndexError(f"an index is out of range for {len(self)} samples")
        fetched, places = [], []
        for owner in np.unique(owners).tolist():
            mine = np.flatnonzero(owners == owner)
            first = int(ends[owner - 1]) if owner else 0
            fetched.append(_fetched(self._parts[owner], torch.from_numpy(indices[mine] - first)))
            places.append(mine)
        if len(fetched) == 1:
            return fetched[0]
        complete = all(len(rows) == len(mine) for rows, mine in zip(fetched, places, strict=True))
        # Where a dataset has left samples out, it is not known which.
        order = np.argsort(np.concatenate(places)) if complete else np.arange(sum(map(len, fetched)))
        join = getattr(fetched[0], "joined", None)
        whole = join(fetched[1:], torch.from_numpy(order)) if callable(join) else None
        if whole is not None:
            return whole
        samples = [sample for rows in fetched for sample in rows]
        return [samples[place] for place in order.tolist()]

    @property
    def draws_random(self) -> bool | None:
        """Whether fetching draws random numbers; None where a part does not say."""
        told = [False if type(each) is TensorDataset else getattr(each, "draws_random", None) for each in self._parts]
        return None if None in told else any(told)

    @property
    def needs_no_worker(self) -> bool:
        """Whether any process may fetch from all parts."""
        return all(getattr(each, "needs_no_worker", False) for each in self._parts)

    @property
    def set_epoch(self) -> Callable[[int], None] | None:
        """Passed on to the parts that have it; None where there is none."""
        told = [own for each in self._parts if callable(own := getattr(each, "set_epoch", None))]
        return functools.partial(_tell_all, told) if told else None

    @property
    def collate(self) -> Callable[[Any], Any] | None:
        """How the parts make batches; None where they leave that to torch. Different ways are an error when used."""
        first, *others = (getattr(each, "collate", None) for each in self._parts)
        return self._refused if any(other != first for other in others) else first

    def _refused(self, samples: Any) -> Any:
        ways = dict.fromkeys(repr(getattr(each, "collate", "torch's default_collate"))[:150] for each in self._parts)
        raise ArgumentError(
            f"the parts of the {type(self.viewed).__name__} make batches in different ways: {' and '.join(ways)}; "
            "pass collate_fn="
        )

    @property
    def lengths(self) -> Any:
        """The length of each sample, int64 [N]; None where a part does not know it."""
        known = [getattr(each, "lengths", None) for each in self._parts]
        if any(each is None for each in known):
            return None
        if isinstance(self.viewed, Subset):
            return np.asarray(known[0])[np.asarray(self.viewed.indices, dtype=np.int64)]
        return np.concatenate([np.asarray(each) for each in known])

    @property
    def planner(self) -> Callable[..., Planner] | None:
        """How the parts make batches by themselves, over the samples that are here; None where any order is as good."""
        if not all(callable(getattr(each, "planner", None)) for each in self._parts):
            return None
        if self.lengths is not None:
            return self._by_length
        return self._as_the_whole if isinstance(self.viewed, Subset) else None

    def _by_length(self, batch_size: int, *, shuffle: bool, drop_last: bool) -> Planner:
        if shuffle:
            return LengthBuckets(self.lengths, batch_size, drop_last=drop_last)
        return Sequential(len(self), batch_size, drop_last=drop_last)

    def _as_the_whole(self, batch_size: int, *, shuffle: bool, drop_last: bool) -> Planner:
        if not shuffle:
            return Sequential(len(self), batch_size, drop_last=drop_last)
        whole = self._parts[0].planner(batch_size, shuffle=True, drop_last=False)
        return _Chosen(whole, len(self._parts[0]), self.viewed.indices, batch_size, drop_last=drop_last)


class _Chosen:
    """Some samples of a dataset, in the order in which a planner has all of them."""

    def __init__(self, planner: Planner, size: int, indices: Any, batch_size: int, *, drop_last: bool) -> None:
        self.planner, self.size, self.batch_size, self.drop_last = planner, size, batch_size, drop_last
        self.indices = torch.as_tensor(indices, dtype=torch.int64)

    def plan(self, seed: int, epoch: int) -> SlicedPlan:
        """See `Planner`."""
        rank = torch.empty(self.size, dtype=torch.int64)
        order = torch.cat([torch.as_tensor(batch) for batch in self.planner.plan(seed, epoch)])
        rank[order] = torch.arange(len(order))
        return SlicedPlan(rank[self.indices].argsort(stable=True), self.batch_size, drop_last=self.drop_last)


def tensors_behind(data: Any, indices: Any) -> tuple[Any, Any] | None:
    """The `TensorDataset` that this is or views, and where samples are in it; None if it is another dataset.

    Args:
        data: A dataset, or a view of one.
        indices: Which samples.
    """
    if isinstance(data, View) and isinstance(data.viewed, Subset):
        rows = data._rows(indices)
        tensor = rows if isinstance(rows, Tensor) else torch.from_numpy(np.fromiter(rows, np.int64, len(rows)))
        return tensors_behind(data._parts[0], tensor)
    return (data, indices) if type(data) is TensorDataset else None


def _fetched(data: Any, rows: Any) -> Any:
    whole = getattr(data, "__getitems__", None)
    if isinstance(rows, Tensor) and not (whole is not None and getattr(data, "takes_index_tensors", False)):
        rows = rows.tolist()
    return [data[row] for row in rows] if whole is None else whole(rows)


def _tell_all(told: Sequence[Callable[[int], None]], epoch: int) -> None:
    for each in told:
        each(epoch)
