"""A model, called with whatever its inputs come as."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dlkit._modes import in_mode
from dlkit.errors import ArgumentError

__all__ = ["call", "cast", "evaluating", "main_part", "output_of"]


def call(model: nn.Module, inputs: Any) -> Any:
    """`model(x)` for a tensor, `model(**x)` for a dict, `model(*x)` for a tuple.

    Args:
        model: Any module.
        inputs: A batch of inputs.
    """
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


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
    if isinstance(inputs, Mapping):
        return {name: cast(value, like) for name, value in inputs.items()}
    if isinstance(inputs, tuple | list):
        return tuple(cast(value, like) for value in inputs)
    if like is None or not isinstance(inputs, Tensor):
        return inputs
    return inputs.to(like.device, like.dtype if inputs.is_floating_point() else inputs.dtype)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, and every part back in its own mode afterwards.

    Args:
        model: Any module.
    """
    with in_mode(model, training=False), torch.inference_mode():
        yield
