"""How far a classifier can be believed: ROC, calibration, and what it was surest of and wrong."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlkit._answers import Points, auroc, calibration, mistaken, ranked
from dlkit.errors import ArgumentError
from dlkit.plots._canvas import BLUE, FAINT, GREEN, INK, ORANGE, PINK, SKY, class_name, new_figure, saved, to_indices
from dlkit.plots.grid import sample_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["calibration_curve", "mistakes", "roc_curve"]

_LINES = ((BLUE, "-"), (ORANGE, "--"), (GREEN, "-."), (PINK, ":"), (SKY, "-"), (FAINT, "--"))


def roc_curve(
    targets: Any,
    probabilities: Any,
    classes: Sequence[str] | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draw for each class how much of it is found against how many others are treated as it, with the area below.

    Of two classes the second is drawn, as the first one's curve is the same.

    Args:
        targets: N true classes, as indices.
        probabilities: `[N, C]`, as `Predictor.probabilities` gives them; scores that rise with them do as well.
        classes: The classes' names, in the order of the indices.
        path: Where to save the picture, for example `roc.png`.

    Raises:
        ArgumentError: shapes or indices that do not fit, or no class of which there are samples and others.

    >>> figure = roc_curve([0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], ["ham", "spam"])
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    ['spam (area 1.000)']
    """
    truth, said = _checked(targets, probabilities)
    curves = dict[str, Points]()
    for place in range(1 if said.shape[1] == 2 else 0, said.shape[1]):
        there = truth == place
        if 0 < int(there.sum()) < len(there):
            curve, _ = ranked(said[:, place], there)
            curves[f"{class_name(place, classes)} (area {auroc(said[:, place], there):.3f})"] = curve
    if not curves:
        raise ArgumentError("a ROC curve needs samples of a class and of others; all targets here are one class")
    return _squares(curves, "false positive rate", "share of it found", path)


def calibration_curve(targets: Any, probabilities: Any, *, path: str | os.PathLike[str] | None = None) -> Figure:
    """Draw how often answers are right against how sure they were; a model to be believed is on the diagonal.

    Args:
        targets: N true classes, as indices.
        probabilities: `[N, C]`, as `Predictor.probabilities` gives them.
        path: Where to save the picture, for example `calibration.png`.

    Raises:
        ArgumentError: shapes or indices that do not fit, or numbers that are not probabilities.

    >>> figure = calibration_curve([0, 1], [[0.75, 0.25], [0.25, 0.75]])
    >>> figure.axes[0].lines[1].get_xydata().tolist()
    [[0.75, 1.0]]
    """
    truth, said = _checked(targets, probabilities)
    if bool((said < 0).any()) or bool((said > 1 + 1e-4).any()):
        raise ArgumentError(
            f"probabilities lie between 0 and 1, these between {float(said.min()):.4g} and {float(said.max()):.4g}: "
            "pass logits.softmax(1)"
        )
    surest, answers = said.max(1)
    points = calibration(surest, answers == truth)
    return _squares({f"{len(truth):,} samples": points}, "probability of the answer", "share that is right", path)


def mistakes(
    images: Any,
    targets: Any,
    probabilities: Any,
    *,
    classes: Sequence[str] | None = None,
    most: int = 24,
    columns: int = 8,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draw the images whose answer was wrong, those the model was surest of first; a sentence where none was.

    Args:
        images: N images, see `sample_grid`; a dataset's own, before they are normalised, look best.
        targets: N true classes, as indices.
        probabilities: `[N, C]`, as `Predictor.probabilities` gives them.
        classes: The classes' names, in the order of the indices.
        most: Images that are drawn.
        columns: Images per row.
        path: Where to save the picture, for example `mistakes.png`.

    Raises:
        ArgumentError: shapes or indices that do not fit.

    >>> figure = mistakes(torch.rand(2, 9, 9), [0, 1], [[0.2, 0.8], [0.1, 0.9]], classes=["cat", "dog"])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['dog (is cat)']
    """
    truth, said = _checked(targets, probabilities)
    if len(images) != len(truth):
        raise ArgumentError(f"there are {len(images)} images and {len(truth)} targets")
    wrong = mistaken(said, truth)
    worst = [place for place in wrong.argsort(descending=True, stable=True)[:most].tolist() if wrong[place] > 0]
    if not worst:
        return _sentence(f"no mistakes: all {len(truth):,} answers are right", path)
    shown = [images[place] for place in worst]
    return sample_grid(shown, truth[worst], said[worst].argmax(1), classes=classes, columns=columns, path=path)


def _sentence(text: str, path: str | os.PathLike[str] | None) -> Figure:
    figure = new_figure(4.8, 1.2)
    axes = figure.add_subplot()
    axes.axis("off")
    axes.text(0.5, 0.5, text, ha="center", va="center", color=INK)
    return saved(figure, path)


def _checked(targets: Any, probabilities: Any) -> tuple[Tensor, Tensor]:
    said = torch.as_tensor(probabilities).detach().cpu().double()
    if said.dim() != 2 or not said.numel() or not bool(said.isfinite().all()):
        raise ArgumentError(f"probabilities must be finite numbers [N, classes]; got shape {list(said.shape)}")
    return torch.as_tensor(to_indices("targets", targets, len(said), said.shape[1])).long(), said


def _squares(curves: dict[str, Points], across: str, up: str, path: str | os.PathLike[str] | None) -> Figure:
    figure = new_figure(4.8, 4.6)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=FAINT, linestyle=":", linewidth=1)
    for number, (name, curve) in enumerate(curves.items()):
        color, style = _LINES[number % len(_LINES)]
        marker = "o" if len(curve) <= 40 else None
        axes.plot(*zip(*curve, strict=True), color=color, linestyle=style, marker=marker, markersize=3, label=name)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xlabel=across, ylabel=up)
    axes.tick_params(colors=INK)
    for text in axes.legend(fontsize=8, frameon=False, loc="lower right").get_texts():
        text.set_parse_math(False)
    return saved(figure, path)
