"""What windows of a time series mean: columns, lengths, and the scales that were fitted on the training rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dlkit import _bounds
from dlkit._kinds import Spec, values
from dlkit.errors import ArgumentError
from dlkit.specs.table import Target

__all__ = ["WindowSpec"]


@dataclass(frozen=True, kw_only=True)
class WindowSpec(Spec):
    """How windows of a time series become tensors.

    Attributes:
        columns: Of the series.
        length: Rows that the model sees.
        horizon: Rows after them that it predicts.
        center: Per column: samples hold `(value - center) / scale`.
        scale: See `center`.
        target: What is predicted: a column per row of the horizon and target column, and their scale.
    """

    kind: ClassVar[str] = "series"
    noun: ClassVar[str] = "time series"
    way: ClassVar[str] = "cut one series into parts: windows(...).split()"
    _title: ClassVar[str] = "the window spec"
    _head: ClassVar[Mapping[str, Any]] = {"kind": "WindowSpec"}

    columns: tuple[str, ...]
    length: int
    horizon: int
    center: tuple[float, ...]
    scale: tuple[float, ...]
    target: Target

    def __post_init__(self) -> None:
        for name in ("length", "horizon"):
            _bounds.whole(getattr(self, name), f"{name} of the window spec", _bounds.LENGTH)
        if not len(self.columns) == len(self.center) == len(self.scale) > 0:
            raise ArgumentError("the window spec needs a center and a scale per column")
        for center, scale in zip(self.center, self.scale, strict=True):
            _bounds.number(center, "center of the window spec", _bounds.CENTER)
            _bounds.number(scale, "scale of the window spec", _bounds.SCALE)

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The columns that the model gets to see."""
        return self.columns

    def example(self, *, small: bool = False) -> Any:
        """Two windows.

        Args:
            small: Makes no difference.
        """
        return values([2, self.length, len(self.columns)], "float32", -2.0, 2.0)

    def scaled(self, rows: npt.NDArray[np.float64]) -> Tensor:
        """Rows as samples hold them.

        Args:
            rows: [T, columns], in the series' own units.

        Returns:
            float32 [T, columns].
        """
        return torch.from_numpy(((rows - np.array(self.center)) / np.array(self.scale)).astype(np.float32))

    def latest(self, rows: Any) -> Tensor:
        """The model's input for what comes after the last row: `predictor.predict(spec.latest(rows))`.

        Args:
            rows: [T] or [T, columns], an array, tensor or list in the series' own units; the last `length` are taken.

        Returns:
            float32 [1, length, columns].

        Raises:
            ArgumentError: too few rows, or other columns.
        """
        found = np.asarray(rows, dtype=np.float64)
        found = found[:, None] if found.ndim == 1 else found
        if found.ndim != 2 or found.shape[1] != len(self.columns) or len(found) < self.length:
            raise ArgumentError(
                f"latest takes at least {self.length} rows of {', '.join(self.columns)}, not {list(found.shape)}"
            )
        return self.scaled(found[-self.length :])[None]
