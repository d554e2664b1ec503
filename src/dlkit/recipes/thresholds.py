"""Above which probability a rare class, or a label, is the answer: chosen on the validation part."""

from __future__ import annotations

import torch
from torch import Tensor

from dlkit.errors import ArgumentError
from dlkit.recipes.outcome import Outcome
from dlkit.recipes.reading import Data

__all__ = ["best_thresholds", "check_thresholds"]


def check_thresholds(data: Data, given: str | None) -> None:
    """Refuse an invalid argument.

    Args:
        data: From `read_data`.
        given: See `train`.

    Raises:
        ArgumentError: another measure than F1, or data of neither two classes nor labels.
    """
    if given not in (None, "f1"):
        raise ArgumentError(f"thresholds must be 'f1', or None for one half, not {given!r}")
    if given is not None and data.task != "multilabel" and len(data.classes) != 2:
        raise ArgumentError(
            f"thresholds='f1' are for two classes or several labels; this is a {data.task} with {len(data.classes)} "
            "classes"
        )


def best_thresholds(outcome: Outcome, rare: int) -> tuple[float, ...]:
    """Those with the best F1: of the rarer of two classes, or of each label.

    Args:
        outcome: What the model says of the validation part.
        rare: Of two classes, the one that F1 is of.

    Returns:
        See `dlkit.save`.
    """
    if outcome.task == "multilabel":
        return tuple(_best(p, there > 0.5) for p, there in zip(outcome.said.T, outcome.true.T, strict=True))
    found = _best(outcome.said[:, rare], outcome.true == rare)
    return (found if rare == 1 else 1 - found,)


def _best(probabilities: Tensor, there: Tensor) -> float:
    """Half way between the last probability that is still an answer and the next; one half where nothing is there."""
    p, order = probabilities.double().sort(descending=True)
    hits = there[order].cumsum(0).double()
    if not len(p) or not hits[-1]:
        return 0.5
    taken = torch.arange(1, len(p) + 1, dtype=torch.float64)
    below = torch.cat([p[1:], torch.zeros(1, dtype=torch.float64)])
    f1 = torch.where(p > below, 2 * hits / (taken + hits[-1]), 0.0)  # equal ones are answered alike
    place = int(f1.argmax())
    return min(max(float(p[place] + below[place]) / 2, 1e-6), 1 - 1e-6)
