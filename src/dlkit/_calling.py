"""A model and a batch: what is input and what target, how the model is called, and what of its output counts."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from dlkit._modes import in_mode
from dlkit._nested import leaves, map_leaves
from dlkit.errors import ArgumentError

__all__ = ["as_input", "bare", "call", "cast", "evaluating", "main_part", "output_of", "rows_of", "split", "takes"]

_SEQUENCES = (tuple, list)  # `tuple | list` is made again each time, which a step would notice
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

    Args:
        model: Any module or compiled module.
        inputs: What `split` gave; stored features, which have a method `through`, run the second half of the model.
    """
    if isinstance(inputs, Tensor):
        return model(inputs)
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if not isinstance(inputs, _SEQUENCES) or isinstance(inputs, PackedSequence):
        return model(inputs)
    through = getattr(inputs, "through", None)
    return model(*inputs) if through is None else through(model)


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
    for leaf in leaves(batch):
        if isinstance(leaf, Tensor):
            rows.update({leaf.shape[0]} if leaf.dim() else ())
        elif leaf is not None and not isinstance(leaf, int | float | str) and not callable(leaf):
            rows.add(None)
    return rows.pop() if len(rows) == 1 else None


def bare(model: nn.Module) -> nn.Module:
    """The module without the wrappers of `torch.compile` and `DataParallel`, which would dirty the keys.

    Args:
        model: Any module.
    """
    while isinstance(inner := getattr(model, "_orig_mod", None) or _parallel(model), nn.Module):
        model = inner
    return model


def _parallel(model: nn.Module) -> Any:
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    return model.module if isinstance(model, wrappers) else None


def main_part(result: Any) -> Any:
    """The prediction in what a model returned: its `logits` (an attribute or a key), the "out" of a segmentation.

    Args:
        result: What the model gave; without such a part it is the prediction itself.
    """
    if isinstance(result, Tensor):
        return result
    if (logits := getattr(result, "logits", None)) is not None:
        return logits
    if isinstance(result, Mapping):
        return next((result[name] for name in ("logits", "out") if name in result), result)
    return result


def output_of(result: Any) -> Tensor:
    """The tensor among what a model returned, see `main_part`.

    Args:
        result: What the model gave.

    Raises:
        ArgumentError: there is none.
    """
    found = main_part(result)
    if not isinstance(found, Tensor):
        raise ArgumentError(f"the model must return a tensor, or an object with .logits, not {type(result).__name__}")
    return found


def cast(inputs: Any, like: Tensor | None) -> Any:
    """Inputs on the device of a parameter, and floating ones in its type.

    Args:
        inputs: A tensor, or a dict or tuple of inputs.
        like: A parameter of the model; None for a model without any.
    """
    if like is None:
        return inputs
    return map_leaves(inputs, lambda leaf: _like(leaf, like))


def _like(leaf: Any, like: Tensor) -> Any:
    return (
        leaf.to(like.device, like.dtype if leaf.is_floating_point() else leaf.dtype)
        if isinstance(leaf, Tensor)
        else leaf
    )


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, and every part back in its own mode afterwards.

    Args:
        model: Any module.
    """
    with in_mode(model, training=False), torch.inference_mode():
        yield
