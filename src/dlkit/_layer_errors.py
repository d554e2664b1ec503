"""Why a layer of torch refused its input, in words that say what to change.

The traceback of an error holds the layer that failed and the tensor it was given, so the reason is read off, not
guessed from torch's message. Where no rule below is broken, the cause is not known, and the error stays what it was.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from dlkit._shapes import shape_of
from dlkit.errors import DlkitError, TrainingError

__all__ = ["explain", "locate"]

_TORCH = os.path.dirname(torch.__file__) + os.sep


def explain(error: Exception, model: nn.Module, inputs: Any) -> None:
    """Raise a `TrainingError` instead of what a layer of torch raised, where the reason is known.

    Else the error gets a note with the shapes of the inputs, and the caller raises it again.

    Args:
        error: What came out of calling the model.
        model: The model, for the layer's name.
        inputs: What it was called with.

    Raises:
        TrainingError: names the layer, its input, the inputs of the model, and the remedy.
    """
    if isinstance(error, DlkitError | torch.OutOfMemoryError):
        return
    found = _failed(error)
    reason = None if found is None else _reason(*found, error)
    if found is None or reason is None:
        error.add_note(f"while calling {type(model).__name__} with {shape_of(inputs)}")
        return
    name = next((name for name, module in model.named_modules() if module is found[0]), "")
    layer = f"{type(found[0]).__name__} {name!r}" if name else type(found[0]).__name__
    raise TrainingError(f"{layer} {reason}. The model was called with {shape_of(inputs)}") from error


def locate(error: Exception, place: str) -> None:
    """Add to an error where it happened: to the message of a `TrainingError`, as a note to any other.

    Args:
        error: To be raised again by the caller.
        place: Such as "step 3, epoch 1, batch 3".
    """
    if isinstance(error, TrainingError):
        error.args = (f"{error} ({place})",)
    else:
        error.add_note(f"in {place}")


def _failed(error: Exception) -> tuple[nn.Module, Tensor] | None:
    """The innermost layer of torch in whose forward the error arose, and its input; None if a user's code raised it."""
    found = None
    for code, names in _frames(error):
        module, value = names.get("self"), names.get("input")
        if isinstance(module, nn.Module) and code.co_name == "forward":
            of_torch = type(module).__module__.startswith("torch.nn.modules.")
            found = (module, value) if of_torch and isinstance(value, Tensor) else None
        elif not code.co_filename.startswith(_TORCH):
            found = None  # a function of the user's own, such as a hook
    return found


def _frames(error: Exception) -> Iterator[tuple[Any, dict[str, Any]]]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame.f_code, trace.tb_frame.f_locals
        trace = trace.tb_next


def _reason(layer: nn.Module, value: Tensor, error: Exception) -> str | None:
    """Which rule of the layer its input breaks, and what to do; None where it breaks none that is known."""
    if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
        return _of_embedding(layer, value)
    return _of_shape(layer, list(value.shape), error) or _of_type(layer, value, error)


def _of_shape(layer: nn.Module, shape: list[int], error: Exception) -> str | None:
    if isinstance(layer, nn.Linear):
        return _of_linear(layer, shape)
    if isinstance(layer, _ConvNd):
        return _of_convolution(layer, shape, error)
    if isinstance(layer, _BatchNorm | _InstanceNorm):
        return _of_norm(layer, shape)
    if isinstance(layer, nn.LayerNorm) and tuple(shape[-len(layer.normalized_shape) :]) != layer.normalized_shape:
        return f"normalises the last dimensions {list(layer.normalized_shape)}, but its input is {shape}"
    if isinstance(layer, nn.GroupNorm) and len(shape) > 1 and shape[1] != layer.num_channels:
        return f"takes {layer.num_channels} channels, but its input [batch, channels, ...] is {shape}"
    if isinstance(layer, nn.RNNBase) and shape[-1] != layer.input_size:
        return f"takes {layer.input_size} features per step, but its input is {shape}"
    return None


def _of_type(layer: nn.Module, value: Tensor, error: Exception) -> str | None:
    weight = getattr(layer, "weight_ih_l0" if isinstance(layer, nn.RNNBase) else "weight", None)
    # Autocast lets types differ, and torch's messages of types all say so.
    told = "type" in str(error) or "not implemented for" in str(error)
    if not isinstance(weight, Tensor) or value.dtype == weight.dtype or not told:
        return None
    return f"has {_name(weight.dtype)} weights, but its input is {shape_of(value)}: {_cast(value.dtype, weight)}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _cast(dtype: torch.dtype, weight: Tensor) -> str:
    wanted = f".to(torch.{_name(weight.dtype)})"
    if dtype == torch.float64:
        return f"convert the data once, x{wanted} (numpy and pandas make float64)"
    if dtype == torch.uint8:
        return f"pixels become numbers by x{wanted} / 255, in the dataset or its transform"
    return f"convert the data once, x{wanted}"


def _of_embedding(layer: nn.Embedding | nn.EmbeddingBag, value: Tensor) -> str | None:
    if value.dtype not in (torch.int32, torch.int64):
        return f"takes indices (int64), but its input is {shape_of(value)}: convert the data once, x.long()"
    if value.device.type != "cpu" or not value.numel():  # after such an error a GPU cannot be asked any more
        return None
    low, high = int(value.min()), int(value.max())
    if low >= 0 and high < layer.num_embeddings:
        return None
    return (
        f"has {layer.num_embeddings} rows, so its indices are 0 to {layer.num_embeddings - 1}, but its input "
        f"{shape_of(value)} holds {low if low < 0 else high}: make it larger, or map unknown values to one of its rows"
    )


def _of_linear(layer: nn.Linear, shape: list[int]) -> str | None:
    if shape and shape[-1] == layer.in_features:
        return None
    told = f"takes {layer.in_features} features in the last dimension, but its input is {shape}"
    if len(shape) > 2 and math.prod(shape[1:]) == layer.in_features:
        return f"{told}: put nn.Flatten() before it"
    width = math.prod(shape[1:]) if len(shape) > 2 else shape[-1] if shape else 1
    return f"{told}: make it nn.Linear({width}, {layer.out_features}), or give it {layer.in_features} features"


def _of_convolution(layer: _ConvNd, shape: list[int], error: Exception) -> str | None:
    spatial, channels = len(layer.kernel_size), layer.in_channels
    order = "batch, channels, " + {1: "length", 2: "height, width"}.get(spatial, "depth, height, width")
    told = f"takes {channels} channel{'s' * (channels != 1)} as [{order}], but its input is {shape}"
    if len(shape) == spatial + 2:
        if shape[1] == channels:
            small = "Kernel size can't be greater" in str(error)
            kernel = list(layer.kernel_size)
            return f"has a kernel of {kernel}, larger than its input {shape}: give larger inputs" if small else None
        if shape[-1] == channels:
            moved = ", ".join(map(str, [0, spatial + 1, *range(1, spatial + 1)]))
            return (
                f"{told}, with the channels last: move them, x.permute({moved}), or end a transform with v2.ToImage()"
            )
        return f"{told}: make it for {shape[1]} channels, or give inputs of {channels}"
    if len(shape) == spatial + 1:
        if shape[0] == channels:
            return None  # one image without a batch dimension is allowed
        alone = f": without a channel dimension; add it, x.unsqueeze(1) gives [{shape[0]}, 1, ...]"
        return told + (alone if channels == 1 else "")
    return f"{told}: {len(shape)} dimensions"


def _of_norm(layer: Any, shape: list[int]) -> str | None:
    name, values = type(layer).__name__, math.prod(shape[:1] + shape[2:])
    features = layer.num_features
    allowed = {"1d": (2, 3), "2d": (4,), "3d": (5,)}.get(name[-2:])
    if allowed is not None and isinstance(layer, _BatchNorm) and len(shape) not in allowed:
        return f"takes {' or '.join(map(str, allowed))} dimensions, but its input is {shape}"
    if isinstance(layer, _BatchNorm) and layer.training and values == 1:
        return (
            f"takes mean and variance over a batch, but its input {shape} has one value per channel: the batch has one "
            "sample. DataLoader(..., drop_last=True) leaves out a last batch that is not full; or choose a batch size "
            "that does not leave a remainder of 1"
        )
    if len(shape) > 1 and shape[1] != features:
        return f"takes {features} channels, but its input [batch, channels, ...] is {shape}"
    return None
