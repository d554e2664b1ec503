"""Datasets whose samples already are in memory: whole batches by one indexing operation, in any DataLoader.

torch's fetcher hands the list of indices to `__getitems__` where a dataset has one, and runs `collate_fn` on what
comes back. `default_collate` in turn looks the type of the first element up in a public registry. So `__getitems__`
returns `Samples`: a list that already holds the batch as tensors, whose elements' types are registered there with
"take the tensors as they are". A `collate_fn` of the user's own sees an ordinary list of ordinary samples, made when
it looks.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate
from torch.utils.data._utils.collate import default_collate_fn_map

from dlkit._html import cards, escaped, lines, number
from dlkit.collate.padding import Ragged
from dlkit.errors import ArgumentError

__all__ = ["InMemoryDataset", "Samples", "shown"]

Inputs = Tensor | dict[str, Any]  # of the dict's values, each a Tensor [B, ...] or a list of B strings
Indices = Tensor | np.ndarray[Any, Any] | Sequence[int]
_T = TypeVar("_T")
_SAMPLES = 6  # that a notebook shows


class Row(tuple[Any, ...]):
    """A sample `(inputs, target)` of `Samples`: a tuple whose type tells `default_collate` that the batch is ready."""

    __slots__ = ()


class RowDict(dict[str, Any]):
    """An unlabelled sample of several parts, see `Row`."""


class RowTensor(Tensor):
    """An unlabelled sample that is one tensor, see `Row`."""


class Samples(list[Any]):
    """A batch as a list of samples that are only made when they are accessed.

    Args:
        inputs: Tensor, or dict of tensors and lists of strings, with the batch as first dimension.
        targets: Tensor or dict of tensors with the same first dimension, or None for unlabelled data.

    >>> rows = Samples(torch.arange(6.0).view(3, 2), torch.tensor([0, 1, 2]))
    >>> len(rows), rows[1]
    (3, (tensor([2., 3.]), tensor(1)))
    >>> torch.utils.data.default_collate(rows)[1]
    tensor([0, 1, 2])
    """

    __slots__ = ("_changed", "_filled", "_inputs", "_size", "_targets")

    def __init__(self, inputs: Inputs, targets: Inputs | None = None) -> None:
        super().__init__()
        self._inputs, self._targets = inputs, targets
        self._size = len(_first(inputs))
        self._filled = self._changed = False
        if targets is None and isinstance(inputs, Tensor):
            # C code (`torch.stack(batch)`) reads a list's own storage past every override, and here that is usual.
            self._fill()

    def whole(self) -> Any:
        """The batch as `default_collate` returns it: `[inputs, targets]`, or the inputs alone."""
        if self._changed:
            return default_collate([_plain(row) for row in self])
        return self._inputs if self._targets is None else [self._inputs, self._targets]

    def joined(self, others: Sequence[Any], order: Tensor) -> Samples | None:
        """This batch and others as one; None where their samples do not lie together in tensors.

        Args:
            others: Batches of other datasets.
            order: int64 [N], the samples of all of them, one batch after the other, in their new order.
        """
        parts = [self, *others]
        if any(type(part) is not type(self) or part._changed for part in parts):
            return None
        inputs = _together([part._inputs for part in parts], order)
        targets = _together([part._targets for part in parts], order)
        if inputs is None or (targets is None and any(part._targets is not None for part in parts)):
            return None
        return self._like(inputs, targets, others)

    def _like(self, inputs: Any, targets: Any, others: Sequence[Any]) -> Samples | None:
        del others
        return Samples(inputs, targets)

    def __len__(self) -> int:
        return super().__len__() if self._filled else self._size

    def __getitem__(self, index: Any) -> Any:
        if not self._filled and isinstance(index, int):
            if not -self._size <= index < self._size:
                raise IndexError(f"sample {index} of a batch of {self._size}")
            index %= self._size
            row = _row(self._inputs, index)
            return row if self._targets is None else Row((row, _row(self._targets, index)))
        self._fill()
        value = super().__getitem__(index)
        return value.as_subclass(RowTensor) if type(value) is Tensor and not self._changed else value

    def _fill(self) -> None:
        if not self._filled:
            samples: Any = _unbind(self._inputs)
            if self._targets is not None:
                samples = map(Row, zip(samples, _unbind(self._targets), strict=True))
            super().extend(samples)
            self._filled = True

    def __reduce__(self) -> tuple[Any, ...]:
        return (list, ([_plain(row) for row in self],))


def _over_list(name: str, *, changes: bool) -> Callable[..., Any]:
    method = getattr(list, name)

    def call(self: Samples, *args: Any, **kwargs: Any) -> Any:
        self._fill()
        self._changed = self._changed or changes
        return method(self, *args, **kwargs)

    call.__name__, call.__doc__ = name, method.__doc__
    return call


for _name in (
    "__iter__",
    "__reversed__",
    "__contains__",
    "__eq__",
    "__ne__",
    "__add__",
    "__mul__",
    "__rmul__",
    "__repr__",
):
    setattr(Samples, _name, _over_list(_name, changes=False))
for _name in ("count", "index", "copy"):
    setattr(Samples, _name, _over_list(_name, changes=False))
for _name in ("append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"):
    setattr(Samples, _name, _over_list(_name, changes=True))
for _name in ("__delitem__", "__setitem__", "__iadd__", "__imul__"):
    setattr(Samples, _name, _over_list(_name, changes=True))


def _collate_rows(batch: Sequence[Any], *, collate_fn_map: Any = None) -> Any:
    whole = getattr(batch, "whole", None)  # of `Samples`, and of other lists of samples that know what they are as one
    return default_collate([_plain(row) for row in batch]) if whole is None else whole()


default_collate_fn_map.update({Row: _collate_rows, RowDict: _collate_rows, RowTensor: _collate_rows})


def _plain(row: Any) -> Any:
    """The same sample in ordinary types, which `default_collate` stacks one by one."""
    if isinstance(row, Row):
        return tuple(_plain(part) for part in row)
    if isinstance(row, RowDict):
        return dict(row)
    return row.as_subclass(Tensor) if isinstance(row, RowTensor) else row


def _first(values: Inputs) -> Any:
    return next(iter(values.values())) if isinstance(values, dict) else values


def _row(values: Inputs, index: int) -> Any:
    if isinstance(values, dict):
        return RowDict((name, value[index]) for name, value in values.items())
    return values[index]


def _together(values: Sequence[Any], order: Tensor) -> Any:
    """The same part of several batches as one; None where they differ in kind or shape."""
    first = values[0]
    if any(type(value) is not type(first) for value in values):
        return None
    if isinstance(first, Tensor):
        alike = all(value.dtype == first.dtype and value.shape[1:] == first.shape[1:] for value in values)
        return torch.cat(list(values)).index_select(0, order) if alike else None
    if isinstance(first, dict):
        if any(value.keys() != first.keys() for value in values):
            return None
        parts = {name: _together([value[name] for value in values], order) for name in first}
        return None if any(part is None for part in parts.values()) else parts
    if isinstance(first, list):
        strings = [string for value in values for string in value]
        return [strings[place] for place in order.tolist()]
    return Ragged.joined(values, order.numpy()) if isinstance(first, Ragged) else None


def _unbind(values: Inputs) -> Sequence[Any]:
    if isinstance(values, dict):
        columns = zip(
            *(value if isinstance(value, list) else value.unbind(0) for value in values.values()), strict=True
        )
        return [RowDict(zip(values, column, strict=True)) for column in columns]
    return values.unbind(0)


class InMemoryDataset(Dataset[Any]):
    """A dataset that can give any set of samples by one indexing operation. Subclasses write `__len__` and `take`.

    A stock `DataLoader(dataset, 1024, shuffle=True)` gets whole-batch speed without any argument, `dataset[i]` gives
    one ordinary sample `(inputs, target)` (the inputs alone where there are no targets), and both give the same values.

    >>> class Squares(InMemoryDataset):
    ...     def __len__(self): return 10
    ...     def take(self, indices): return indices.float(), indices**2
    >>> Squares()[3]
    (tensor(3.), tensor(9))
    >>> x, y = next(iter(torch.utils.data.DataLoader(Squares(), batch_size=4))); y
    tensor([0, 1, 4, 9])
    """

    #: `dlkit.DataLoader` hands over index tensors instead of lists of Python integers.
    takes_index_tensors = True

    @property
    def draws_random(self) -> bool:
        """Whether fetching draws random numbers (a random transform). If not, the loader does not seed for it."""
        return False

    def __len__(self) -> int:
        """The number of samples."""
        raise TypeError(f"{type(self).__name__} must define __len__")

    def take(self, indices: Tensor) -> tuple[Inputs, Inputs | None]:
        """The samples at `indices` (int64 [B], each in range) as `(inputs, targets)`, batch dimension first."""
        raise TypeError(f"{type(self).__name__} must define take")

    def __getitem__(self, index: Any) -> Any:
        """One sample: `(inputs, target)`, or the inputs alone without targets; for several indices their batch."""
        if several(index):
            return default_collate(self.__getitems__(index))
        return _plain(self._rows(torch.tensor([self._checked(index)]))[0])

    def __getitems__(self, indices: Indices) -> Samples:
        """The samples at `indices` as a list that `default_collate` takes whole."""
        return self._rows(as_index_tensor(indices, len(self)))

    def _rows(self, indices: Tensor) -> Samples:
        return Samples(*self.take(indices))

    def _checked(self, index: int) -> int:
        size = len(self)
        position = operator.index(index)
        if not -size <= position < size:
            raise IndexError(f"index {position} is out of range for {type(self).__name__} with {size} samples")
        return position % size


def shown(dataset: Any) -> str:
    """A dataset as a notebook shows it: what it prints, and a few samples from all over it with their classes.

    Args:
        dataset: One with `sample_html(index)`.
    """
    places = torch.linspace(0, max(len(dataset) - 1, 0), min(_SAMPLES, len(dataset))).round().long().tolist()
    classes, targets = getattr(dataset, "classes", ()), getattr(dataset, "targets", None)

    def caption(place: int) -> str:
        target = None if targets is None else targets[place]
        if target is None or target.dim() or target.is_floating_point() or not classes:
            return "" if target is None or target.dim() else number(float(target))
        return escaped(classes[int(target)])

    return lines(repr(dataset)) + cards([f"{dataset.sample_html(place)}<p>{caption(place)}</p>" for place in places])


def several(index: Any) -> bool:
    """Whether a key means several samples: what a sampler of whole batches gives where `batch_size` is None."""
    return isinstance(index, list | tuple) or getattr(index, "ndim", 0) > 0


def _from_list(indices: Sequence[int]) -> Tensor:
    """A stock loader's list of integers, three times faster than through `torch.as_tensor`."""
    try:
        return torch.from_numpy(np.fromiter(indices, dtype=np.int64, count=len(indices)))
    except (TypeError, ValueError, OverflowError):
        return torch.as_tensor(indices, dtype=torch.int64)  # says better what is wrong


def as_index_tensor(indices: Indices, size: int) -> Tensor:
    """Indices of any kind as an int64 tensor [B], negative ones counted from the end, checked against `size`."""
    if isinstance(indices, Tensor):
        whole = not (indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool)
        tensor = indices.long() if whole else indices
    elif isinstance(indices, np.ndarray):
        tensor = torch.as_tensor(indices, dtype=torch.int64)
    else:
        tensor = _from_list(indices)
    if tensor.dtype != torch.int64 or tensor.dim() != 1:
        raise ArgumentError(
            f"indices must be whole numbers in one dimension, not {tensor.dtype} of shape {list(tensor.shape)}"
        )
    if tensor.numel():
        low, high = (int(bound) for bound in torch.aminmax(tensor))
        if low < -size or high >= size:
            raise IndexError(f"index {low if low < -size else high} is out of range for {size} samples")
        if low < 0:
            tensor = torch.where(tensor < 0, tensor + size, tensor)
    return tensor
