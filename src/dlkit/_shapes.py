"""Shapes and types of nested values, in words for messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["shape_of"]


def shape_of(value: Any) -> str:
    """Shape and type of a tensor, or of the parts of a tuple, list or dict.

    Args:
        value: Anything.

    >>> import torch; shape_of({"x": torch.zeros(4, 2)})
    '{x: [4, 2] float32}'
    """
    if isinstance(value, Tensor):
        return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {shape_of(item)}" for name, item in value.items()) + "}"
    if isinstance(value, tuple | list):
        more = [] if len(value) <= 4 else ["..."]
        return f"{type(value).__name__} of " + ", ".join([*(shape_of(item) for item in value[:4]), *more])
    return type(value).__name__
