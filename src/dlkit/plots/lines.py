"""Losses and metrics over the epochs, and the loss over a rising learning rate."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlkit._optional import require
from dlkit.errors import ArgumentError
from dlkit.plots._canvas import BLUE, FAINT, GREEN, INK, ORANGE, PINK, SKY, new_figure, saved

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["curves", "lr_curve"]

_Curve = tuple[list[float], list[float]]  # the places on the axis and the values


def curves(history: Any, *, path: str | os.PathLike[str] | None = None) -> Figure:
    """Draw losses and metrics over the epochs, or over the steps where an epoch has several validations.

    Training and validation values of one quantity share a panel, metrics between 0 and 1 share another, and a learning
    rate that changes gets its own. A dotted line in each panel marks where the validation loss was lowest, and the
    titles say what was measured there.

    Args:
        history: What `Trainer.fit` returned, any object with `rows` (dicts with `epoch`, `step`, `train_loss`,
            `val_loss` and so on), or a mapping from such names to lists of numbers.
        path: Where to save the picture, for example `curves.png`.

    Raises:
        ArgumentError: There is nothing to draw, a value is not a number, or the file ending is unknown.

    >>> figure = curves({"train_loss": [0.9, 0.4], "val_loss": [0.8, 0.5], "val_accuracy": [0.7, 0.8]})
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['loss', 'accuracy']
    """
    unit, series = _series(history)
    panels = _panels(series)
    columns = min(len(panels), 3 if len(panels) in (3, 5, 6) else 2)
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(4.4 * columns, 3.2 * rows)
    lowest = _lowest(series.get("val_loss"))
    for number, (label, names) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, columns, number)
        for name in names:
            _draw_curve(axes, name, series[name], [other for other in names if _side(other) == _side(name)].index(name))
        _dress(axes, label, unit)
        axes.xaxis.set_major_locator(require("matplotlib.ticker", extra="plots").MaxNLocator(integer=True))
        if label != "learning rate":
            axes.legend(fontsize=8, frameon=False)
        if lowest is not None:
            axes.axvline(lowest, color=FAINT, linestyle=":", linewidth=1.2, zorder=0)
            title = _finding(label, {name: series[name] for name in names}, unit, lowest)
            axes.set_title(title, fontsize=9, color=INK, loc="left")
    return saved(figure, path)


def lr_curve(
    rates: Sequence[float],
    losses: Sequence[float],
    suggestion: float | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draw what a rising learning rate did to the loss (Smith 2017, arXiv:1506.01186); see `Trainer.lr_find`.

    The picture is cut a little above the first loss: where the loss explodes, it would flatten everything else.

    Args:
        rates: The learning rates, rising; drawn on a logarithmic axis.
        losses: The loss at each.
        suggestion: A rate to mark with a dotted line and name in the title.
        path: Where to save the picture, for example `lr.png`.

    Raises:
        ArgumentError: Nothing to draw, lengths that differ, a rate of 0 or less, or an unknown file ending.

    >>> figure = lr_curve([0.01, 0.1, 1.0], [2.0, 1.2, 5.0], 0.1)
    >>> figure.axes[0].get_title(loc="left")
    'suggested learning rate: 0.1'
    """
    if len(rates) != len(losses) or not len(rates):
        raise ArgumentError(f"rates and losses have one length, at least 1; got {len(rates)} and {len(losses)}")
    if min(rates) <= 0:
        raise ArgumentError(f"learning rates are larger than 0; got {min(rates)}")
    figure = new_figure(5.2, 3.4)
    axes = figure.add_subplot()
    axes.plot(rates, losses, color=BLUE, linewidth=1.8, marker="o" if len(rates) <= 40 else None, markersize=4)
    _dress(axes, "loss", "learning rate")
    axes.set_xscale("log")
    finite = [loss for loss in losses if math.isfinite(loss)]
    if finite and (fall := finite[0] - min(finite)) > 0:
        axes.set_ylim(min(finite) - 0.1 * fall, finite[0] + 0.3 * fall)
    if suggestion is not None:
        axes.axvline(suggestion, color=FAINT, linestyle=":", linewidth=1.2, zorder=0)
        axes.set_title(f"suggested learning rate: {suggestion:.3g}", fontsize=9, color=INK, loc="left")
    return saved(figure, path)


def _series(history: Any) -> tuple[str, dict[str, _Curve]]:
    """The unit of the horizontal axis and each quantity's curve, without those that place a row."""
    rows = getattr(history, "rows", None)
    if rows is None:
        rows = _rows(history)
    epochs = [row.get("epoch", number) for number, row in enumerate(rows, start=1)]
    by_step = len(set(epochs)) < len(epochs) and all("step" in row for row in rows)
    places = [row["step"] for row in rows] if by_step else epochs
    series: dict[str, _Curve] = {}
    for place, row in zip(places, rows, strict=True):
        for name, value in row.items():
            if name not in ("epoch", "step", "samples"):
                across, up = series.setdefault(name, ([], []))
                across.append(float(place))
                up.append(_number(name, value))
    if not series:
        raise ArgumentError("the history has no values yet: there is nothing to draw")
    return ("step" if by_step else "epoch"), series


def _rows(history: Any) -> list[dict[str, Any]]:
    if not isinstance(history, Mapping):
        raise ArgumentError(
            f"history is a mapping from names to lists of numbers, or an object with rows; got {type(history).__name__}"
        )
    columns = {name: list(values) for name, values in history.items()}
    longest = max(map(len, columns.values()), default=0)
    return [{name: column[n] for name, column in columns.items() if n < len(column)} for n in range(longest)]


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{name!r} in the history is {value!r}, which is not a number") from error


def _panels(series: Mapping[str, _Curve]) -> dict[str, list[str]]:
    """What is drawn together: the label of each panel and the names of its curves."""
    groups: dict[str, list[str]] = {}
    for name in series:
        if name != "lr" or len(set(series["lr"][1])) > 1:
            groups.setdefault(_quantity(name), []).append(name)
    shares = [q for q, names in groups.items() if q not in ("loss", "lr") and _all_shares(series, names)]
    panels = {"loss": groups.pop("loss")} if "loss" in groups else {}
    if len(shares) > 1:
        panels["metric"] = [name for quantity in shares for name in groups.pop(quantity)]
    learning_rate = groups.pop("lr", None)
    panels.update(groups)
    return panels | ({"learning rate": learning_rate} if learning_rate else {})


def _quantity(name: str) -> str:
    # A "$" would start a formula, and somebody's own metric may be called anything.
    return name.removeprefix("train_").removeprefix("val_").replace("$", r"\$")


def _all_shares(series: Mapping[str, _Curve], names: Iterable[str]) -> bool:
    return all(0 <= value <= 1 for name in names for value in series[name][1])


def _side(name: str) -> str:
    return "training" if name.startswith("train_") else "validation" if name.startswith("val_") else ""


def _draw_curve(axes: Axes, name: str, curve: _Curve, number: int) -> None:
    training = _side(name) == "training"
    axes.plot(
        *curve,
        color=ORANGE if training else (BLUE, GREEN, PINK, SKY)[number % 4],
        linestyle="--" if training else "-",
        marker=("o", "s", "^", "D")[number % 4] if len(curve[0]) <= 40 else None,
        markersize=4,
        linewidth=1.8,
        label=f"{_side(name)} {_quantity(name)}".strip(),
    )


def _lowest(curve: _Curve | None) -> float | None:
    if curve is None or not any(map(math.isfinite, curve[1])):
        return None
    return curve[0][int(np.nanargmin([value if math.isfinite(value) else math.nan for value in curve[1]]))]


def _finding(label: str, shown: Mapping[str, _Curve], unit: str, lowest: float) -> str:
    """What a reader looks for in the panel, as its title."""
    values = {name: up[across.index(lowest)] for name, (across, up) in shown.items() if lowest in across}
    if label == "loss":
        return f"lowest validation loss: {values['val_loss']:.4g} at {unit} {lowest:g}"
    validated = [f"{_quantity(name)} {value:.4g}" for name, value in values.items() if _side(name) == "validation"]
    return f"at {unit} {lowest:g}: {', '.join(validated)}" if validated else ""


def _dress(axes: Axes, label: str, unit: str) -> None:
    axes.set(xlabel=unit, ylabel=label)
    axes.grid(color="#E3E3E3", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=8)
