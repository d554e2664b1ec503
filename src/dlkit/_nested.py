"""Nested batches, outputs and states: tuples, lists and dicts, iterated over and changed in one way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_flatten

__all__ = ["leaves", "map_leaves", "same", "tensors_in"]


def leaves(value: Any) -> Iterator[Any]:
    """What is in nested mappings, tuples and lists, in order; a `PackedSequence` is one thing.

    Args:
        value: Anything.

    >>> list(leaves({"a": (1, [2]), "b": "c"}))
    [1, 2, 'c']
    """
    if isinstance(value, Mapping):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, tuple | list) and not isinstance(value, PackedSequence):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def map_leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    """The same structure with each of its leaves changed; mappings become dicts, named tuples stay what they are.

    Args:
        value: Anything.
        change: Called with each leaf.

    >>> map_leaves({"a": (1, [2])}, lambda leaf: leaf * 10)
    {'a': (10, [20])}
    """
    if isinstance(value, Mapping):
        return {name: map_leaves(item, change) for name, item in value.items()}
    if isinstance(value, tuple | list) and not isinstance(value, PackedSequence):
        items = [map_leaves(item, change) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return change(value)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists, dicts and dataclasses, in order.

    Args:
        value: A batch, or arguments or outputs of a model.
    """
    for leaf in leaves(value):
        if isinstance(leaf, Tensor):
            yield leaf
        elif isinstance(leaf, PackedSequence):
            yield from (part for part in leaf if isinstance(part, Tensor))
        elif dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            for field in dataclasses.fields(leaf):
                yield from tensors_in(getattr(leaf, field.name))


def same(left: Any, right: Any) -> bool:
    """Whether two batches are equal, NaN included, in nested containers of anything; what cannot be compared is not.

    Args:
        left: One.
        right: The other.
    """
    (mine, shape), (theirs, other) = tree_flatten(left), tree_flatten(right)
    return shape == other and all(map(_equal, mine, theirs))


def _equal(left: Any, right: Any) -> bool:
    if left is right:
        return True
    if type(left) is not type(right):
        return False
    if isinstance(left, Tensor) and left.layout is torch.strided:
        left, right = left.detach().cpu(), right.detach().cpu()
        return left.dtype == right.dtype and torch.allclose(left, right, rtol=0, atol=0, equal_nan=True)
    try:
        if isinstance(left, np.ndarray):
            return left.dtype == right.dtype and np.array_equal(left, right, equal_nan=left.dtype.kind in "fc")
        return bool(left == right)
    except Exception:  # noqa: BLE001  (an object may refuse in any way)
        return False
