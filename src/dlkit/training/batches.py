"""What a batch is: its inputs, its target, its size; how it reaches the model and the device."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from dlkit._shapes import shape_of
from dlkit.errors import TrainingError
from dlkit.transfer.features import Features

__all__ = ["ahead", "as_input", "call", "groups", "on_device", "pieces", "rows_of", "split", "takes", "to_device"]

_SEQUENCES = (tuple, list)  # `tuple | list` is made anew each time, which a step would notice
_TARGETS = ("target", "targets", "label", "labels", "y")


def split(batch: Any) -> tuple[Any, Any]:
    """A batch as `(inputs, target)`: of a tuple or list the last is the target, of a dict what is called one.

    Args:
        batch: `(inputs, target)`, `(a, b, target)`, `{"image": ..., "label": ...}`, or inputs alone (target None).

    >>> split((1, 2, 3)), split({"x": 1, "label": 2}), split([5])
    (((1, 2), 3), ({'x': 1}, 2), (5, None))
    """
    if isinstance(batch, _SEQUENCES) and not isinstance(batch, PackedSequence):
        if len(batch) == 2:
            return batch[0], batch[1]
        if len(batch) == 1:  # one dict in a list: what NVIDIA's DALI gives for one device
            return split(batch[0]) if isinstance(batch[0], Mapping) else (batch[0], None)
        return tuple(batch[:-1]), batch[-1]
    if isinstance(batch, Mapping):
        for name in _TARGETS:
            if name in batch:
                return {key: value for key, value in batch.items() if key != name}, batch[name]
    return batch, None


def call(model: nn.Module, inputs: Any) -> Any:
    """`model(x)` for a tensor or any other object, `model(**x)` for a dict, `model(*x)` for a tuple or list of inputs.

    For stored features the second half of the model is called.

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
    several = isinstance(inputs, tuple | list) and not isinstance(inputs, PackedSequence)
    return model(*inputs) if several else model(inputs)


def as_input(model: nn.Module, inputs: Any, target: Any) -> Any:
    """Inputs as `call` takes them: a list with one object for each sample (images, texts) becomes one input.

    A list of several inputs is known by its rows, which are those of the target, and by the places of `forward`.

    Args:
        model: The module that will be called.
        inputs: What `split` gave.
        target: The same.

    >>> images = [torch.zeros(3, 8, 9), torch.zeros(3, 5, 5)]
    >>> len(as_input(nn.Identity(), images, torch.zeros(2)))
    1
    """
    if type(inputs) is not list or not takes(model, [inputs]):
        return inputs
    rows = rows_of(inputs)
    several = rows is not None and rows == rows_of(target) and takes(model, inputs)
    return inputs if several else (inputs,)


def takes(model: nn.Module, inputs: list[Any]) -> bool:
    """Whether a model's `forward` has places for these inputs.

    Args:
        model: Any module.
        inputs: What it would be called with.

    >>> takes(nn.Linear(2, 2), [1]), takes(nn.Bilinear(2, 2, 2), [1])
    (True, False)
    """
    try:
        inspect.signature(model.forward).bind(*inputs)
    except TypeError:
        return False
    except ValueError:  # a signature that cannot be read
        pass
    return True


def rows_of(batch: Any) -> int | None:
    """The length of the first dimension, if a batch can be cut along it: all its tensors have the same.

    Args:
        batch: Nested tuples, lists and dicts; numbers and texts in it hold for all rows.

    >>> rows_of({"x": torch.zeros(4, 2), "y": torch.zeros(4)}), rows_of((torch.zeros(7, 4, 2), torch.zeros(4)))
    (4, None)
    """
    rows: set[int | None] = set()
    _note_rows(batch, rows)
    return rows.pop() if len(rows) == 1 else None


def _note_rows(value: Any, rows: set[int | None]) -> None:
    if isinstance(value, Tensor):
        rows.update({value.shape[0]} if value.dim() else ())
    elif isinstance(value, Features):
        rows.add(len(value.values))
    elif isinstance(value, Mapping):
        for item in value.values():
            _note_rows(item, rows)
    elif isinstance(value, tuple | list) and not isinstance(value, PackedSequence):
        for item in value:
            _note_rows(item, rows)
    elif value is not None and not isinstance(value, int | float | str):
        rows.add(None)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)


def _map(batch: Any, change: Any, other: Any = lambda value: value) -> Any:
    """A batch with all tensors changed, and with what is neither a tensor nor a container put through `other`."""
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, PackedSequence):
        return other(batch)
    if isinstance(batch, Mapping):
        return {name: _map(item, change, other) for name, item in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_map(item, change, other) for item in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(_map(item, change, other) for item in batch)
    return other(batch)


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
            f"the batch cannot be worked on in parts: {shape_of(batch)} have no first dimension of the same length; "
            "use smaller batches"
        )
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

    def move(tensor: Tensor) -> Tensor:
        if channels_last and tensor.dim() == 4:
            return tensor.to(device, non_blocking=True, memory_format=torch.channels_last)
        return tensor.to(device, non_blocking=True)

    def move_object(value: Any) -> Any:
        return value.to(device) if callable(getattr(value, "to", None)) else value

    return _map(batch, move, move_object)


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
