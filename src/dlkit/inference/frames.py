"""Predictions as tables: one row for each input, in its place."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dlkit.artifact.inputs import Meaning
from dlkit.inference.batches import Batch, Inputs
from dlkit.inference.outputs import Values, columns_of, free

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Layout", "frame_of", "joined"]

_MOST_COLUMNS = 1 << 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """The columns of a prediction, the same for every batch, also for one without a good input.

    Attributes:
        meaning: What the outputs are.
        shape: Of one output, as the model file says.
        headings: Of the columns that name inputs.
        top_k: How many classes are listed.
        skipping: Whether there is a column for errors.
        every: Whether there is a column with the probability of each class.
    """

    meaning: Meaning
    shape: tuple[int, ...]
    headings: Sequence[str]
    top_k: int
    skipping: bool
    every: bool = False

    def empty(self) -> dict[str, Values]:
        """All columns, without a row."""
        nothing = Batch(size=0, inputs=None, good=(), errors={}, named=dict.fromkeys(self.headings, ()), told=str)
        return self.columns(nothing, None)

    def columns(self, batch: Batch, probabilities: Tensor | None) -> dict[str, Values]:
        """A batch as columns, bad inputs in their places.

        Args:
            batch: What was asked for.
            probabilities: Of its good inputs; None if there are none.
        """
        if probabilities is None:
            probabilities = torch.zeros(0, self._num_outputs())
        outputs = columns_of(self.meaning, probabilities, self.top_k, every=self.every)
        if len(batch.good) < batch.size:
            outputs = {heading: _spread(values, batch.good, batch.size) for heading, values in outputs.items()}
        named: dict[str, Values] = {free(heading, outputs): list(batch.named[heading]) for heading in self.headings}
        errors: list[Any] = [batch.errors.get(place, "") for place in range(batch.size)]
        return named | outputs | ({free("error", {*named, *outputs}): errors} if self.skipping else {})

    def _num_outputs(self) -> int:
        if self.meaning.task == "regression":
            return min(max(1, math.prod(self.shape)), _MOST_COLUMNS)
        return max(1, len(self.meaning.classes))


def _spread(values: Values, places: Sequence[int], size: int) -> Values:
    """Values at their places, nothing elsewhere."""
    if isinstance(values, np.ndarray):
        numbers = np.full(size, np.nan)
        numbers[np.array(places, dtype=np.int64)] = values
        return numbers
    names: list[Any] = [None] * size
    for place, value in zip(places, values, strict=True):
        names[place] = value
    return names


def joined(parts: Sequence[dict[str, Values]]) -> dict[str, Values]:
    """The columns of all batches, `parts` with the same headings."""
    return {heading: _one_column([part[heading] for part in parts]) for heading in parts[0]}


def _one_column(parts: Sequence[Values]) -> Values:
    numbers = [part for part in parts if isinstance(part, np.ndarray)]
    return np.concatenate(numbers) if numbers else list(itertools.chain.from_iterable(parts))


def frame_of(columns: dict[str, Values], start: int, size: int, asked: Inputs) -> pd.DataFrame:
    """Columns as a DataFrame.

    Args:
        columns: From `Layout`.
        start: The number of the first row.
        size: How many there are.
        asked: What was asked for, whose own labels of rows are kept.
    """
    import pandas as pd

    rows = pd.RangeIndex(start, start + size) if asked.index is None else asked.index[start : start + size]
    return pd.DataFrame(columns, index=rows)
