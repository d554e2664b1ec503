"""Batches in groups and in pieces, and on their way to the device."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dlkit._calling import rows_of
from dlkit._nested import map_leaves, tensors_in
from dlkit._shapes import shape_of
from dlkit.errors import TrainingError

__all__ = ["ahead", "check_scalar", "groups", "is_channels_last", "on_device", "pieces", "to_device"]


def pieces(batch: Any, count: int) -> list[Any]:
    """Cut a batch along its first dimension into `count` parts, as equal as possible.

    Args:
        batch: See `rows_of`.
        count: How many.

    Raises:
        TrainingError: it cannot be cut, because its tensors differ in the first dimension.

    >>> [part[0].tolist() for part in pieces((torch.arange(3), torch.arange(3)), 2)]
    [[0, 1], [2]]
    """
    size = rows_of(batch)
    if size is None:
        raise TrainingError(
            f"the batch cannot be processed in parts: {shape_of(batch)} have no first dimension of the same length; "
            "use smaller batches"
        )
    bounds = [size * number // count + (1 if size * number % count else 0) for number in range(count + 1)]
    spans = [(start, end) for start, end in itertools.pairwise(bounds) if end > start]
    return [map_leaves(batch, functools.partial(_rows, start=start, end=end)) for start, end in spans]


def _rows(leaf: Any, *, start: int, end: int) -> Any:
    return leaf[start:end] if isinstance(leaf, Tensor) and leaf.dim() else leaf


def groups(batches: Iterable[Any], count: int) -> Generator[list[Any], None, None]:
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


def is_channels_last(model: nn.Module) -> bool:
    """Whether the convolutions' kernels are in channels-last order.

    Args:
        model: The bare model.
    """
    kernels = [parameter for parameter in model.parameters() if parameter.dim() == 4 and parameter.shape[1] > 1]
    return any(
        kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels if max(kernel.shape[2:]) > 1
    )


def to_device(batch: Any, device: torch.device, *, channels_last: bool = False) -> Any:
    """A batch on a device; images [B, C, H, W] in the memory format of the model. Objects with `.to` are moved too.

    Args:
        batch: Nested tuples, lists and dicts.
        device: Where to.
        channels_last: Put tensors of four dimensions into channels-last order.
    """

    def moved(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf.to(device) if callable(getattr(leaf, "to", None)) else leaf
        if channels_last and leaf.dim() == 4:
            return leaf.to(device, non_blocking=True, memory_format=torch.channels_last)
        return leaf.to(device, non_blocking=True)

    return map_leaves(batch, moved)


def on_device(batches: Iterable[Any], device: torch.device, *, channels_last: bool) -> Iterable[Any]:
    """Batches on a device, ahead of their use where that helps; as they are where nothing is to be done.

    Args:
        batches: As the loader gave them.
        device: Where to.
        channels_last: See `to_device`.
    """
    if device.type == "cuda":
        return ahead(batches, device, channels_last=channels_last)
    if device.type == "cpu" and not channels_last:
        return batches
    return (to_device(batch, device, channels_last=channels_last) for batch in batches)


def ahead(batches: Iterable[Any], device: torch.device, *, channels_last: bool = False) -> Iterator[Any]:
    """Copy the next batch to the GPU on a side stream while the current one is processed.

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
    for tensor in tensors_in(batch):
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
        "use reduction='mean', or return loss.mean() from a custom loss"
    )
