"""`FoldScores`: what the folds of a cross-validation came to, and how sure their mean is."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dlkit._html import Shown
from dlkit._language import Message
from dlkit._showing import Lines
from dlkit.storage.files import atomic_write

__all__ = ["FoldScores"]

_COUNTS = ("fold", "train", "val", "test")
_SHARES = ("accuracy", "f1")  # figures of the recipes that lie between 0 and 1


@dataclass(frozen=True, kw_only=True)
class FoldScores(Shown):
    """The figures of each fold's test part; `print` it for the means.

    The mean says how good the model is that is trained on all of the data, in the same way; the deviation how much that
    depends on the rows it happens to see.

    Attributes:
        rows: For each fold its number (`fold`), the samples of its parts (`train`, `val`, `test`) and its figures.

    >>> scores = FoldScores(rows=tuple({"fold": n, "train": 72, "val": 8, "test": 20, "accuracy": 0.5 + n / 10}
    ...                                for n in (1, 2, 3)))
    >>> print(scores)
    3 folds: accuracy 0.7 +- 0.1 (95 %: 0.3714 to 1)
    """

    rows: tuple[Mapping[str, float], ...]

    @property
    def names(self) -> list[str]:
        """Of the figures, the main one first."""
        known = [name for name in self.rows[0] if name not in _COUNTS]
        return sorted(known, key=lambda name: name == "loss")

    @property
    def mean(self) -> dict[str, float]:
        """Of each figure, over the folds."""
        return {name: statistics.fmean(self._of(name)) for name in self.names}

    @property
    def std(self) -> dict[str, float]:
        """The standard deviation of each figure between folds."""
        return {name: statistics.stdev(self._of(name)) for name in self.names}

    def interval(self, name: str) -> tuple[float, float]:
        """The interval of 95 % of the mean.

        The folds share most of their training samples, so their mean is less sure than one of independent runs: the
        variance is that of Nadeau and Bengio (2003, "Inference for the generalization error"), s² (1/k + test/train).

        Args:
            name: Of a figure.
        """
        trained = sum(row["train"] + row["val"] for row in self.rows)
        wide = 1 / len(self.rows) + sum(row["test"] for row in self.rows) / trained
        half = _student(len(self.rows) - 1) * self.std[name] * math.sqrt(wide)
        low, high = self.mean[name] - half, self.mean[name] + half
        return (max(0.0, low), min(1.0, high)) if name in _SHARES else (low, high)

    def write(self, path: Path) -> None:
        """Write the rows as CSV to `path`."""
        text = io.StringIO()
        writer = csv.DictWriter(text, [*_COUNTS, *self.names], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        with atomic_write(path) as file:
            file.write(text.getvalue().encode())

    def _of(self, name: str) -> list[float]:
        return [float(row[name]) for row in self.rows]

    def told(self) -> Message:
        """The means in one sentence."""
        mean, std = self.mean, self.std
        first, *others = [f"{name} {mean[name]:.4g} +- {std[name]:.4g}" for name in self.names]
        low, high = self.interval(self.names[0])
        return Message(
            "{folds} folds: {first} (95 %: {low:.4g} to {high:.4g}){others}",
            folds=len(self.rows),
            first=first,
            low=low,
            high=high,
            others="".join(f", {figure}" for figure in others),
        )

    def __str__(self) -> str:
        return Lines.of(self.told()).plain()


def _student(freedom: int) -> float:
    """The 97.5 % point of Student's t: exact for 1 and 2, by the expansion of Cornish and Fisher (Hill 1970) above."""
    if freedom == 1:
        return 12.7062
    if freedom == 2:
        return 4.30265
    z, n = statistics.NormalDist().inv_cdf(0.975), float(freedom)
    first = (z**3 + z) / (4 * n)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    fourth = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * n**4)
    return z + first + second + third + fourth
