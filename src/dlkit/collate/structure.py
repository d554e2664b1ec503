"""The structure of samples: from a list of samples to one list of values for each place of their structure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dlkit.errors import DataError


def inputs_and_targets(samples: Any) -> tuple[Any, Any]:
    """The inputs of all samples and their targets; None for targets where samples are inputs alone."""
    ready = getattr(samples, "columns", None)
    if ready is not None and (columns := ready()) is not None:
        return columns[0], columns[1]
    samples = list(samples)
    if not samples:
        raise DataError("there is no sample to make a batch of: the sampler gave an empty batch")
    if isinstance(samples[0], tuple) and not hasattr(samples[0], "_fields") and len(samples[0]) == 2:
        inputs, targets = by_place(samples, "the sample")
        return inputs, targets
    return samples, None


def is_bare(column: Any) -> bool:
    """Whether this place of the samples holds one value, not a dict or a tuple."""
    return not isinstance(column[0] if isinstance(column, list) else column, Mapping | tuple)


def by_name(samples: list[Any], path: str) -> dict[str, list[Any]]:
    """Dicts with the same names as one dict of lists."""
    names = list(samples[0])
    for number, sample in enumerate(samples):
        if not isinstance(sample, Mapping) or set(sample) != set(names):
            shown = sorted(map(str, sample)) if isinstance(sample, Mapping) else type(sample).__name__
            raise DataError(
                f"{path} has {sorted(map(str, names))} in the batch's first sample, {shown} in no. {number}"
            )
    return {name: [sample[name] for sample in samples] for name in names}


def by_place(samples: list[Any], path: str) -> list[list[Any]]:
    """Tuples of the same length as one list for each place."""
    count = len(samples[0])
    for number, sample in enumerate(samples):
        if not isinstance(sample, tuple) or len(sample) != count:
            shown = f"a tuple of {len(sample)}" if isinstance(sample, tuple) else type(sample).__name__
            raise DataError(f"{path} is a tuple of {count} in the batch's first sample, {shown} in no. {number}")
    return [list(column) for column in zip(*samples, strict=True)]


def read(column: list[Any], path: str) -> tuple[Literal["tensors", "lists", "objects", "batch"], Any]:
    """What one place of the samples holds: tensors, lists of tensors, objects that stay as they are, or numbers.

    Numbers come back as a batch, floats in torch's default type, in which models compute (`default_collate` would
    make them float64).
    """
    kinds = set(map(type, column))
    if kinds <= {int, bool} or kinds <= {float}:
        return "batch", torch.tensor(column)
    if kinds != {Tensor}:
        first = next((value for value in column if not isinstance(value, list) or value), [])
        if isinstance(first, str | bytes | None) or (isinstance(first, list) and first and isinstance(first[0], str)):
            return "objects", column
        if isinstance(first, list) and first and np.ndim(first[0]) > 0:
            return "lists", [[_tensor(item, path) for item in _as_list(value, path)] for value in column]
        column = [_tensor(value, path) for value in column]
    return "tensors", _of_one_type(column, path)


def _of_one_type(tensors: list[Tensor], path: str) -> list[Tensor]:
    """The tensors, whose types and numbers of dimensions must be equal; an empty list of numbers is of any type."""
    if len({tensor.dtype for tensor in tensors}) == len({tensor.dim() for tensor in tensors}) == 1:
        return tensors
    kinds = {(tensor.dtype, tensor.dim()) for tensor in tensors if tensor.numel() or tensor.dim() != 1}
    if len(kinds) > 1:
        shown = ", ".join(sorted(f"{dtype} with {dims} dimensions" for dtype, dims in kinds))
        raise DataError(f"{path} differs in type within the batch: {shown}")
    dtype = next(iter(kinds))[0] if kinds else tensors[0].dtype
    return [tensor.to(dtype) for tensor in tensors]


def _as_list(value: Any, path: str) -> list[Any]:
    if not isinstance(value, list):
        raise DataError(f"{path} is a list of tensors in some samples of the batch, {type(value).__name__} in others")
    return value


def _tensor(value: Any, path: str) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, list) and value and isinstance(value[0], Tensor):
        return torch.stack(value)  # numbers that are tensors already: one sequence
    if isinstance(value, float):
        return torch.tensor(value)
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} is {type(value).__name__}, which cannot become a tensor: {error}") from error


def check_fixed_dims(tensors: list[Tensor], dims: tuple[int, ...], path: str) -> None:
    """Refuse tensors that differ in a dimension other than the padded ones."""
    if tensors[0].dim() == len(dims):
        return
    rests = {tuple(size for dim, size in enumerate(tensor.shape) if dim not in dims) for tensor in tensors}
    if len(rests) > 1:
        shapes = sorted({tuple(tensor.shape) for tensor in tensors})
        shown = ", ".join(str(list(shape)) for shape in shapes[:5])
        raise DataError(f"{path} may differ in dimension {dims} only, but the batch has {shown}; see dim=")
