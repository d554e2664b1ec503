"""Windows of a time series: so many rows in, the rows that follow out, and no row in two parts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dlkit._arguments import whole_number
from dlkit._frames import as_pandas
from dlkit._near import hint
from dlkit.datasets.base import InMemoryDataset
from dlkit.errors import ArgumentError, DataError
from dlkit.specs.series import WindowSpec
from dlkit.specs.table import Target
from dlkit.splits import Fractions, shares_of

__all__ = ["WindowDataset", "windows"]

Rows = npt.NDArray[np.float64]


def windows(
    series: Any,
    length: int,
    horizon: int = 1,
    *,
    target: str | Sequence[str] | None = None,
    time: str | None = None,
    step: int = 1,
    scale: bool = True,
) -> WindowDataset:
    """Cut a time series into samples: `length` rows in a row are the input, the `horizon` rows after them the target.

    `windows(...).split(0.8)` cuts by time: the past is trained on, the future is the test set, and no row is in two
    parts.

    Args:
        series: [T] or [T, columns] numbers (array, tensor or list), a DataFrame, or a mapping from names to columns;
            one row per moment, the earliest first.
        length: Rows that the model sees.
        horizon: Rows after them that it predicts.
        target: The column or columns to predict; None for all.
        time: A column of moments to sort by; it is not an input.
        step: Rows from the beginning of one window to that of the next.
        scale: Whether columns are scaled to mean 0 and deviation 1, as the rows of the first part have them. Metrics
            and predictions are in the series' own units all the same.

    Raises:
        ArgumentError: an invalid argument, such as a column that is not there.
        DataError: a gap or a value that is not a number, by its row; or too few rows for one window.

    >>> data = windows(range(10), length=3, horizon=2, scale=False)
    >>> len(data), data[0][0].flatten(), data[0][1]
    (6, tensor([0., 1., 2.]), tensor([3., 4.]))
    >>> train, val = data.split(0.5)
    >>> len(train), len(val), val[0][1]
    (1, 1, tensor([8., 9.]))
    """
    length, horizon = whole_number("length", length, least=1), whole_number("horizon", horizon, least=1)
    names, rows = _numbers(series, time)
    wanted = list(names) if target is None else [target] if isinstance(target, str) else list(target)
    for name in wanted:
        if name not in names:
            raise ArgumentError(
                f"target: the series has no column {name!r}; {hint(name, names, has='its columns are')}"
            )
    if len(rows) < length + horizon:
        raise DataError(f"the series has {len(rows)} rows, and one window takes {length} + {horizon}")
    return WindowDataset(
        rows,
        names,
        [names.index(name) for name in wanted],
        length=length,
        horizon=horizon,
        step=whole_number("step", step, least=1),
        scale=scale,
    )


class WindowDataset(InMemoryDataset):
    """Windows of a time series, made by `windows`. Samples are `(inputs, target)`.

    Inputs are float32 [length, columns]; the target is float32 [horizon], or [horizon, columns] for several.

    Args:
        rows: float64 [T, columns].
        names: Of the columns.
        wanted: The places of the target columns.
        length: See `windows`.
        horizon: See `windows`.
        step: See `windows`.
        scale: See `windows`.

    Attributes:
        spec: Columns, lengths and scales, for the model file.
        starts: int64 [N], the row of the series that each window begins with.
    """

    def __init__(
        self,
        rows: Rows,
        names: Sequence[str],
        wanted: Sequence[int],
        *,
        length: int,
        horizon: int,
        step: int,
        scale: bool,
    ) -> None:
        self._table, self._names, self._wanted = rows, tuple(names), list(wanted)
        self._length, self._horizon, self._step, self._scale = length, horizon, step, scale
        self._take_span(0, len(rows), fitted_on=(0, len(rows)))

    def _take_span(self, begin: int, end: int, *, fitted_on: tuple[int, int]) -> None:
        """Make this the windows that lie between two rows."""
        self._span = begin, end
        self.starts = torch.arange(begin, end - self._length - self._horizon + 1, self._step)
        self.spec = self._fitted(self._table[slice(*fitted_on)])
        self._values = self.spec.scaled(self._table)

    def _fitted(self, rows: Rows) -> WindowSpec:
        center, spread = rows.mean(0), rows.std(0)
        if not self._scale:
            center, spread = np.zeros_like(center), np.ones_like(spread)
        spread[spread == 0] = 1.0
        chosen = [
            (f"{self._names[column]} +{ahead}", column)
            for ahead in range(1, self._horizon + 1)
            for column in self._wanted
        ]
        return WindowSpec(
            columns=self._names,
            length=self._length,
            horizon=self._horizon,
            center=tuple(center.tolist()),
            scale=tuple(spread.tolist()),
            target=Target(
                columns=tuple(name for name, _ in chosen),
                task="regression",
                why=f"the {self._horizon} rows after each window",
                center=tuple(float(center[column]) for _, column in chosen),
                scale=tuple(float(spread[column]) for _, column in chosen),
            ),
        )

    @property
    def target_columns(self) -> tuple[str, ...]:
        """The names of what is predicted, row by row of the horizon."""
        return self.spec.target.columns

    @property
    def targets(self) -> Tensor:
        """All targets, scaled as samples hold them."""
        return self.take(torch.arange(len(self)))[1]

    def __len__(self) -> int:
        return len(self.starts)

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The windows at `indices` as inputs [B, length, columns] and targets.

        Args:
            indices: Each in range.
        """
        starts = self.starts.index_select(0, indices)
        inputs = self._values.index_select(0, (starts[:, None] + torch.arange(self._length)).flatten())
        ahead = (starts[:, None] + torch.arange(self._length, self._length + self._horizon)).flatten()
        found = self._values.index_select(0, ahead)[:, self._wanted]
        shape = (len(starts), self._horizon) if len(self._wanted) == 1 else (len(starts), self._horizon, -1)
        return inputs.view(len(starts), self._length, -1), found.reshape(shape)

    def split(self, fractions: Fractions = None, *, gap: int = 0) -> tuple[Self, ...]:
        """Cut the series by time into parts; a window lies wholly in one of them, with all that it predicts.

        So the windows that reach over a border are left out, no row is in two parts, and what is scaled is scaled as
        the rows of the first part are.

        Args:
            fractions: The share of rows of the first part, the second one getting the rest; or all shares, which sum to
                1; None for 0.8, 0.1 and 0.1.
            gap: Rows left out after each border besides, where what is near in time is alike.

        Raises:
            ArgumentError: a part has no room for a window.
        """
        shares, gap = shares_of(fractions), whole_number("gap", gap, least=0)
        begin, end = self._span
        borders = [begin + round((end - begin) * share) for share in np.cumsum((0.0, *shares)).tolist()]
        spans = [
            (first + (gap if place else 0), last) for place, (first, last) in enumerate(itertools.pairwise(borders))
        ]
        parts = []
        for place, (first, last) in enumerate(spans):
            if last - first < self._length + self._horizon:
                raise ArgumentError(
                    f"part {place} would have {max(0, last - first)} rows, and one window takes {self._length} + "
                    f"{self._horizon}; give it a larger share, or take shorter windows"
                )
            part = object.__new__(type(self))
            part.__dict__.update(self.__dict__)
            part._take_span(first, last, fitted_on=spans[0])
            parts.append(part)
        return tuple(parts)

    def __repr__(self) -> str:
        begin, end = self._span
        return (
            f"WindowDataset({len(self):,} windows of {self._length} rows, {self._horizon} ahead; rows {begin:,} to "
            f"{end:,} of {', '.join(self._names[:5])}{', ...' if len(self._names) > 5 else ''})"
        )


def _numbers(series: Any, time: str | None) -> tuple[list[str], Rows]:
    """The names of the columns, and the rows, in order of time; each is a number."""
    import pandas as pd

    given = as_pandas(series)
    if isinstance(given, pd.DataFrame | pd.Series | Mapping):
        frame = given.to_frame() if isinstance(given, pd.Series) else pd.DataFrame(given)
    else:
        array = (
            given.detach().cpu().numpy()
            if isinstance(given, Tensor)
            else np.asarray(list(given) if isinstance(given, range) else given)
        )
        if array.ndim not in (1, 2) or not array.size:
            raise ArgumentError(f"series must be [T] or [T, columns] numbers, not {array.dtype} {list(array.shape)}")
        frame = pd.DataFrame(
            array, columns=["value"] if array.ndim == 1 else [f"value_{n}" for n in range(array.shape[1])]
        )
    if time is not None:
        if time not in frame:
            raise ArgumentError(f"time: the series has no column {time!r}; {hint(time, map(str, frame.columns))}")
        frame = frame.sort_values(time, kind="stable").drop(columns=time)
    for name, column in frame.items():
        if column.dtype.kind not in "iufb":
            raise DataError(f"column {name!r} of the series holds {column.dtype}, not numbers; drop it, or say time=")
    rows = frame.to_numpy(dtype=np.float64)
    if len(bad := np.argwhere(~np.isfinite(rows))):
        row, column = bad[0].tolist()
        raise DataError(
            f"row {row} of the series has no number in column {frame.columns[column]!r} ({len(bad)} such in all); fill "
            "gaps first, for example by frame.interpolate()"
        )
    return [str(name) for name in frame.columns], rows
