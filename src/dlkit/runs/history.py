"""What a run has measured, as data: one row per validation or end of an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dlkit._html import lines, table
from dlkit._near import hint

__all__ = ["History"]

Row = dict[str, Any]
_SHOWN = 20  # rows in a notebook


class History(Mapping[str, list[Any]]):
    """The values of a run: `history["val_loss"]` is the list of all validation losses so far.

    A row is written at the end of each epoch and at each validation, with `epoch` (1 for the first), `step` (optimizer
    steps so far), `train_loss` (the mean since the last row, weighted by samples), `lr`, `val_loss` and the metrics as
    `val_accuracy` and so on. A row without a validation has no `val_` values.

    Args:
        rows: Earlier rows, when a run is resumed.

    >>> history = History([{"epoch": 1, "val_loss": 0.5}, {"epoch": 2}, {"epoch": 3, "val_loss": 0.25}])
    >>> history["val_loss"], history["epoch"]
    ([0.5, 0.25], [1, 2, 3])
    """

    def __init__(self, rows: list[Row] | None = None) -> None:
        self.rows: list[Row] = list(rows or [])

    def __getitem__(self, name: str) -> list[Any]:
        values = [row[name] for row in self.rows if name in row]
        if not values:
            near = hint(name, self, has="there are") if self.rows else "there are no rows yet"
            raise KeyError(f"{name!r} was never measured; {near}")
        return values

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for row in self.rows for name in row))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {value:.4g}" for name, value in self.rows[-1].items()) if self.rows else "empty"
        return f"History({len(self.rows)} rows; last: {last})"

    def _repr_html_(self) -> str:
        names = list(self)
        shown = self.rows if len(self.rows) <= _SHOWN else [*self.rows[: _SHOWN // 2], {}, *self.rows[-_SHOWN // 2 :]]
        rows = [[row.get(name, "" if row else "…") for name in names] for row in shown]
        return table(names, rows) if names else lines(repr(self))

    def to_frame(self) -> Any:
        """The rows as a `pandas.DataFrame`, NaN where a row has no such value."""
        import pandas as pd

        return pd.DataFrame(self.rows, columns=list(self))

    def plot(self, path: Any = None) -> Any:
        """Draw the losses and metrics over the steps; returns a matplotlib figure (extra `plots`).

        Args:
            path: Where to save the picture, if anywhere.
        """
        from dlkit import plots

        return plots.curves(self, path=path)
