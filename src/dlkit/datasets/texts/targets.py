"""Targets as text to tensors: class numbers in a stated order, or numbers; what they are is `reading.targets`' rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dlkit.errors import ArgumentError, DataError
from dlkit.reading.cells import Strings
from dlkit.reading.parsing import mostly_numbers, number_format, parse_number
from dlkit.reading.targets import ClassNumbers, check_count, class_names, task_of

__all__ = ["Task", "classes_of", "target_tensor"]

Task = Literal["auto", "classification", "regression"]


def classes_of(values: Strings, task: Task, given: Sequence[str] | None) -> tuple[str, ...] | None:
    """The classes in their order; None for a regression.

    Args:
        values: The targets.
        task: What the caller says; "auto" for what a table's target of the same cells would be.
        given: The classes, where they are known.

    Raises:
        DataError: nearly every row is a class of its own.
        ArgumentError: there is no such task.
    """
    if task not in ("auto", "classification", "regression"):
        raise ArgumentError(f"task must be 'auto', 'classification' or 'regression', not {task!r}")
    counts = _counts(values)
    if task == "auto" and given is None:
        task = task_of(list(counts), list(counts.values()))[0]
    if task == "regression":
        return None
    names = class_names(counts) if given is None else tuple(given)
    if given is None:
        check_count("target", len(names), len(values))
    return names


def target_tensor(values: Strings, classes: Sequence[str] | None) -> Tensor:
    """int64 [N] class numbers; float32 [N] where there are no classes.

    Args:
        values: The targets.
        classes: In order; None for a regression.

    Raises:
        DataError: a word where there should be a number.
    """
    if classes is not None:
        places = ClassNumbers(classes)
        return torch.from_numpy(values.mapped([places.get(text) for text in values.pool.tolist()], -1, np.int64))
    counts = _counts(values)
    form = number_format(list(counts)) or mostly_numbers(counts) or "plain"
    numbers = {text: parse_number(text, form) for text in counts}
    if odd := [text for text, number in numbers.items() if number is None]:
        raise DataError(f"task='regression' needs numbers as targets, not {odd[0]!r}")
    return torch.from_numpy(values.mapped([numbers.get(text) or 0.0 for text in values.pool], np.nan, np.float32))


def _counts(values: Strings) -> dict[str, int]:
    """How often each target occurs; those of rows that were left out are not there."""
    every = zip(values.pool.tolist(), values.counts().tolist(), strict=True)
    return {text: count for text, count in every if count}
