"""Values of any kind as arrays, and numbers mixed until nothing is left of their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Ints = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]
Values = Tensor | npt.NDArray[Any] | Sequence[Any]


def mixed(values: Keys) -> Keys:
    """Numbers without an order (Steele, Lea and Flood 2014, "Fast splittable pseudorandom numbers")."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def as_array(values: Any) -> npt.NDArray[Any]:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return np.asarray(values.float() if values.dtype == torch.bfloat16 else values)
    if isinstance(values, np.ndarray) or not isinstance(values, Sequence):
        array = np.asarray(values)
        return array if array.dtype.kind in "biufcSUmMO" else array.astype(object)
    if all(type(value) in (int, bool) for value in values):
        return np.asarray(values)
    array = np.empty(len(values), dtype=object)  # np.asarray would turn [1, None, "1"] into strings
    array[:] = values
    return array
