"""Nested batches, outputs and states: tuples, lists and dicts, gone through and changed in one way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

__all__ = ["leaves", "map_leaves", "tensors_in"]


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
