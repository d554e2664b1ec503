"""Targets as text to tensors: class numbers in a stated order, or numbers; what they are is `reading.targets`' rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dlkit.datasets.texts._rows import Values
from dlkit.errors import ArgumentError, DataError
from dlkit.reading.parsing import mostly_numbers, number_format, parse_number
from dlkit.reading.targets import ClassNumbers, check_count, class_names, task_of

__all__ = ["Task", "classes_of", "find_task", "target_tensor"]

Task = Literal["auto", "classification", "regression"]


def find_task(values: Values, task: Task, classes: Sequence[str] | None) -> Literal["classification", "regression"]:
    """What the caller says, else what a table's target of the same cells would be."""
    if task not in ("auto", "classification", "regression"):
        raise ArgumentError(f"task must be 'auto', 'classification' or 'regression', not {task!r}")
    if task != "auto":
        return task
    return "classification" if classes is not None else task_of(values.distinct, _counts(values))[0]


def classes_of(values: Values) -> tuple[str, ...]:
    """The classes' names in order."""
    names = class_names(values.distinct)
    check_count("target", len(names), len(values.codes))
    return names


def target_tensor(values: Values, classes: Sequence[str] | None) -> Tensor:
    """int64 [N] class numbers; float32 [N] where there are no classes."""
    if classes is None:
        counts = dict(zip(values.distinct, _counts(values), strict=True))
        form = number_format(values.distinct) or mostly_numbers(counts) or "plain"
        numbers = [parse_number(text, form) for text in values.distinct]
        if None in numbers:
            raise DataError(f"task='regression' needs numbers as targets, not {values.distinct[numbers.index(None)]!r}")
        return torch.from_numpy(np.array(numbers, dtype=np.float32)[values.codes])
    places = ClassNumbers(classes)
    codes = np.array([places.get(text) for text in values.distinct], dtype=np.int64)
    return torch.from_numpy(codes[values.codes])


def _counts(values: Values) -> list[int]:
    return [int(count) for count in np.bincount(values.codes, minlength=len(values.distinct))]
