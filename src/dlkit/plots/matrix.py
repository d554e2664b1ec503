"""Which class was taken for which."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlkit._optional import require
from dlkit.plots._canvas import BLUE, INK, ORANGE, new_figure, saved, shortened, to_indices

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["confusion_matrix"]


def confusion_matrix(
    targets: Any,
    predictions: Any,
    classes: Sequence[str],
    *,
    path: str | os.PathLike[str] | None = None,
    normalize: bool = True,
) -> Figure:
    """Draw which class (row) was taken for which (column): hits in blue, mistakes in orange, each with an own scale.

    With one scale for both, the few mistakes beside hundreds of hits would all look white.

    Args:
        targets: N true classes, as indices into `classes`.
        predictions: N predicted classes, as indices; for logits `[N, C]` pass `logits.argmax(1)`.
        classes: The classes' names, in the order of the indices.
        path: Where to save the picture, for example `confusion.png`.
        normalize: Show each cell as a percentage of its row, so that rare classes count as much as frequent ones; False
            shows the counts.

    Raises:
        ArgumentError: Lengths or indices that do not fit, or an unknown file ending.

    >>> figure = confusion_matrix([0, 0, 1, 1], [0, 0, 1, 0], ["cat", "dog"])
    >>> print(figure.axes[0].get_title(loc="left"))
    75.0 % of 4 samples are right
    shown: % of each row
    """
    truth = to_indices("targets", targets, None, len(classes))
    guesses = to_indices("predictions", predictions, len(truth), len(classes))
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(counts, (truth, guesses), 1)
    totals = counts.sum(axis=1, keepdims=True)
    shown = counts / np.maximum(totals, 1) * 100 if normalize else counts.astype(float)
    side = min(max(0.52 * len(classes) + 1.8, 4.2), 16.0)
    figure = new_figure(side + 0.6, side)
    axes = figure.add_subplot()
    colors = _two_scales(shown)
    axes.imshow(colors, interpolation="nearest")
    if len(classes) <= 25:
        _write_cells(axes, shown, counts, colors, percent=normalize)
    _dress_matrix(axes, classes, totals.ravel(), size=min(9.0, 0.6 * 72 * (side - 1.8) / len(classes)))
    hits = f"{100 * np.trace(counts) / len(truth):.1f} % of {len(truth):,} samples are right"
    cells = "% of each row" if normalize else "samples"
    axes.set_title(f"{hits}\nshown: {cells}", color=INK, fontsize=10, loc="left")
    return saved(figure, path)


def _two_scales(shown: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Colours `[C, C, 3]`: the diagonal from white to blue, the rest from white to orange, each to its own maximum."""
    colors = require("matplotlib.colors", extra="plots").to_rgb
    diagonal = np.eye(len(shown), dtype=bool)
    strength = np.zeros_like(shown)
    for part in (diagonal, ~diagonal):
        if part.any():
            strength[part] = shown[part] / (shown[part].max() or 1)
    ends = np.where(diagonal[..., None], colors(BLUE), colors(ORANGE))
    return np.asarray(1 + (ends - 1) * (strength[..., None] ** 0.8))


def _write_cells(axes: Axes, shown: Any, counts: Any, colors: Any, *, percent: bool) -> None:
    for row, column in zip(*np.nonzero(counts), strict=True):
        value = shown[row, column]
        text = f"{value:.0f}" if not percent or value >= 9.95 else f"{value:.1f}"
        dark = float(np.dot(colors[row, column], (0.299, 0.587, 0.114))) < 0.52
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if dark else INK)


def _dress_matrix(axes: Axes, classes: Sequence[str], totals: Any, *, size: float) -> None:
    names = [shortened(str(name)) for name in classes]
    rows = [f"{name}  ({total:,})" for name, total in zip(names, totals, strict=True)]
    turned = 0 if max(map(len, names)) <= 3 and len(names) <= 25 else 90
    axes.set_xticks(range(len(names)), names, rotation=turned, fontsize=size, parse_math=False)
    axes.set_yticks(range(len(names)), rows, fontsize=size, parse_math=False)
    axes.set(xlabel="predicted class", ylabel="true class (samples)")
    axes.tick_params(length=0, colors=INK)
    axes.spines[:].set_color("#CCCCCC")
