"""Raw targets to tensors: class numbers in a stated order, or numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dlkit.datasets.texts._rows import Values
from dlkit.errors import ArgumentError, DataError

__all__ = ["Task", "class_names", "find_task", "target_tensor"]

Task = Literal["auto", "classification", "regression"]
_ALWAYS_CLASSES = 20  # so many different whole numbers or words are never too many for classes


def find_task(values: Values, task: Task, classes: Sequence[str] | None) -> Literal["classification", "regression"]:
    """Classes unless the targets are numbers with a fraction, or the caller says."""
    if task not in ("auto", "classification", "regression"):
        raise ArgumentError(f"task must be 'auto', 'classification' or 'regression', not {task!r}")
    if task != "auto":
        return task
    numbers = [_number(value) for value in values.distinct]
    amounts = classes is None and all(number is not None for number in numbers)
    return "regression" if amounts and any(number % 1 for number in numbers if number is not None) else "classification"


def class_names(values: Values) -> tuple[str, ...]:
    """The classes' names in order: by number where all are numbers, else by alphabet."""
    names = sorted({str(value) for value in values.distinct})
    if len(names) > _ALWAYS_CLASSES and 2 * len(names) > len(values.codes):
        raise DataError(
            f"the target has {len(names)} different values in {len(values.codes)} rows, too many for classes; "
            "task='regression' for amounts, classes=[...] if they are right, or another column"
        )
    numbers = {name: _number(name) for name in names}
    if any(number is None for number in numbers.values()):
        return tuple(names)
    return tuple(sorted(names, key=lambda name: (numbers[name] or 0.0, name)))


def target_tensor(values: Values, classes: Sequence[str] | None) -> Tensor:
    """int64 [N] class numbers; float32 [N] where there are no classes."""
    if classes is None:
        numbers = [_number(value) for value in values.distinct]
        if None in numbers:
            raise DataError(f"task='regression' needs numbers as targets, not {values.distinct[numbers.index(None)]!r}")
        return torch.from_numpy(np.array(numbers, dtype=np.float32)[values.codes])
    places = {name: place for place, name in enumerate(classes)}
    codes = np.array([places[str(value)] for value in values.distinct], dtype=np.int64)
    return torch.from_numpy(codes[values.codes])


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if np.isfinite(number) else None
