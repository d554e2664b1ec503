"""What a batch is: its inputs, its target, its size; how it reaches the model and the device."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dlkit.errors import TrainingError
from dlkit.transfer.features import Features

__all__ = ["ahead", "call", "groups", "pieces", "size_of", "split", "to_device"]

_SEQUENCES = (tuple, list)  # `tuple | list` is made anew each time, which a step would notice
_TARGETS = ("target", "targets", "label", "labels", "y")


def split(batch: Any) -> tuple[Any, Any]:
    """A batch as `(inputs, target)`: of a tuple or list the last is the target, of a dict what is called one.

    Args:
        batch: `(inputs, target)`, `(a, b, target)`, `{"image": ..., "label": ...}`, or inputs alone (target None).

    >>> split((1, 2, 3)), split({"x": 1, "label": 2}), split([5])
    (((1, 2), 3), ({'x': 1}, 2), (5, None))
    """
    if isinstance(batch, _SEQUENCES):
        if len(batch) == 2:
            return batch[0], batch[1]
        if len(batch) == 1:
            return batch[0], None
        return tuple(batch[:-1]), batch[-1]
    if isinstance(batch, Mapping):
        for name in _TARGETS:
            if name in batch:
                return {key: value for key, value in batch.items() if key != name}, batch[name]
    return batch, None


def call(model: nn.Module, inputs: Any) -> Any:
    """`model(x)` for a tensor, `model(**x)` for a dict, `model(*x)` for a tuple; its second half for stored features.

    Args:
        model: Any module or compiled module.
        inputs: What `split` gave.
    """
    if isinstance(inputs, Tensor):
        return model(inputs)
    if isinstance(inputs, Features):
        return inputs.half(model)(inputs.values)
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


def size_of(batch: Any) -> int:
    """The number of samples: the first dimension of the first tensor in a batch, 1 if there is none.

    Args:
        batch: Nested tuples, lists and dicts.

    >>> size_of({"x": torch.zeros(4, 2)})
    4
    """
    first = batch[0] if isinstance(batch, _SEQUENCES) and batch else None
    if not isinstance(first, Tensor):  # the generator costs a microsecond, which the usual batch need not pay
        first = next(_tensors(batch), None)
    return 1 if first is None or first.dim() == 0 else first.shape[0]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)


def _map(batch: Any, change: Any) -> Any:
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, Mapping):
        return {name: _map(item, change) for name, item in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_map(item, change) for item in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(_map(item, change) for item in batch)
    return batch


def pieces(batch: Any, count: int) -> list[Any]:
    """Cut a batch along its first dimension into `count` parts, as equal as possible.

    Args:
        batch: Nested tuples, lists and dicts of tensors with the same first dimension.
        count: How many.

    >>> [part[0].tolist() for part in pieces((torch.arange(3), torch.arange(3)), 2)]
    [[0, 1], [2]]
    """
    size = size_of(batch)
    bounds = [size * number // count + (1 if size * number % count else 0) for number in range(count + 1)]
    spans = [(start, end) for start, end in itertools.pairwise(bounds) if end > start]
    return [_map(batch, lambda tensor, a=a, b=b: tensor[a:b] if tensor.dim() else tensor) for a, b in spans]


def groups(batches: Iterable[Any], count: int) -> Iterator[list[Any]]:
    """Batches in lists of `count`, the last one possibly shorter; nothing is read ahead of the list that is asked for.

    Args:
        batches: Any iterable.
        count: Batches per list.

    >>> list(groups("abc", 2))
    [['a', 'b'], ['c']]
    """
    if count == 1:
        for batch in batches:
            yield [batch]
        return
    iterator = iter(batches)
    while group := list(itertools.islice(iterator, count)):
        yield group


def to_device(batch: Any, device: torch.device, *, channels_last: bool = False) -> Any:
    """A batch on a device; images [B, C, H, W] in the memory format of the model. Objects with `.to` are moved too.

    Args:
        batch: Nested tuples, lists and dicts.
        device: Where to.
        channels_last: Put tensors of four dimensions into channels-last order.
    """
    if not isinstance(batch, Tensor | Mapping | tuple | list):
        return batch.to(device) if callable(getattr(batch, "to", None)) else batch

    def move(tensor: Tensor) -> Tensor:
        if channels_last and tensor.dim() == 4:
            return tensor.to(device, non_blocking=True, memory_format=torch.channels_last)
        return tensor.to(device, non_blocking=True)

    return _map(batch, move)


def ahead(batches: Iterable[Any], device: torch.device, *, channels_last: bool = False) -> Iterator[Any]:
    """Copy the next batch to the GPU on a side stream while the current one is worked on.

    Args:
        batches: In page-locked memory, else the copies wait.
        device: A CUDA device.
        channels_last: See `to_device`.
    """
    side = torch.cuda.Stream(device)
    waiting: Any = None
    empty = True
    for batch in batches:
        with torch.cuda.stream(side):
            moved = to_device(batch, device, channels_last=channels_last)
        if not empty:
            yield waiting
        _hand_over(moved, side, device)
        waiting, empty = moved, False
    if not empty:
        yield waiting


def _hand_over(batch: Any, side: Any, device: torch.device) -> None:
    """Let the main stream wait for the copy, and keep the memory until the main stream has used it."""
    main = torch.cuda.current_stream(device)
    main.wait_stream(side)
    for tensor in _tensors(batch):
        if tensor.is_cuda:
            tensor.record_stream(main)


def check_scalar(loss: Any) -> Tensor:
    """The loss, if it is one number.

    Args:
        loss: What the loss function returned.

    Raises:
        TrainingError: it is something else; says what to do.
    """
    if not isinstance(loss, Tensor):
        raise TrainingError(f"the loss must be a tensor with one number, not {type(loss).__name__}")
    if loss.dim() == 0:
        return loss
    if loss.numel() == 1:
        return loss.reshape(())
    raise TrainingError(
        f"the loss returned {list(loss.shape)} values instead of one number; "
        "use reduction='mean', or return loss.mean() from a loss of your own"
    )
