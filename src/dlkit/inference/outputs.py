"""From a model's numbers to what they mean: names with probabilities, labels, or values in their own units."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dlkit._html import lines, table
from dlkit._showing import safe
from dlkit.artifact.inputs import Meaning
from dlkit.errors import ArgumentError

__all__ = [
    "Prediction",
    "Values",
    "best_of",
    "check_top_k",
    "columns_of",
    "free",
    "output_names",
    "predictions_of",
    "probabilities_of",
    "weighed",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model says of one input.

    Attributes:
        label: The most probable class; for several labels those above one half, joined by "|"; None for regression.
        probability: Of `label`; NaN for regression and several labels.
        top: The most probable classes with their probabilities, best first; for several labels all that are above
            one half.
        values: By name: for a regression the outputs, in the units of the data; for several labels the probability of
            each.
        error: Why there is no prediction, where bad inputs are skipped; else empty.

    >>> Prediction(label="bee", probability=0.9, top=(("bee", 0.9), ("ant", 0.1)))
    Prediction(bee 0.900, ant 0.100)
    """

    label: str | None = None
    probability: float = float("nan")
    top: tuple[tuple[str, float], ...] = ()
    values: dict[str, float] = dataclasses.field(default_factory=dict)
    error: str = ""

    def __repr__(self) -> str:
        if self.error:
            return f"Prediction(error: {self.error})"
        named = [f"{k} {v:.6g}" for k, v in self.values.items()] if self.label is None else []
        shown = [f"{name} {value:.3f}" for name, value in self.top] or named
        return safe(f"Prediction({', '.join(shown) or 'no label'})")

    def _repr_html_(self) -> str:
        if self.error:
            return lines(repr(self))
        ranked = self.label is not None and self.top
        return table(("answer", "probability") if ranked else ("", ""), list(self.top or self.values.items()))


def probabilities_of(meaning: Meaning, logits: Tensor) -> Tensor:
    """Probabilities [B, classes], or for regression the values [B, outputs] in the units of the data.

    Args:
        meaning: What the outputs are.
        logits: As the model gives them.
    """
    logits = logits.float()
    if meaning.task == "regression":
        target = meaning.target
        values = logits.exp() if meaning.outputs == "logarithms" else logits
        return _wide(values if target is None else target.unscale(values))
    ready = meaning.outputs == "probabilities"
    if meaning.task == "binary":
        second = logits.reshape(len(logits)) if ready else logits.reshape(len(logits)).sigmoid()
        return torch.stack([1 - second, second], 1)
    if meaning.task == "multilabel":
        return _wide(logits if ready else logits.sigmoid())
    return logits if ready else logits.softmax(1)


def weighed(meaning: Meaning, probabilities: Tensor) -> Tensor:
    """Probabilities as they decide: those in which each threshold has become one half.

    Args:
        meaning: What the outputs are, and its thresholds.
        probabilities: From `probabilities_of`; the values of a regression stay as they are.

    Returns:
        As many; of classes the largest is the answer, labels above one half are there.
    """
    if not meaning.thresholds:
        return probabilities
    limits = torch.tensor(meaning.thresholds, dtype=probabilities.dtype)
    if meaning.task == "multilabel":
        yes, no = probabilities * (1 - limits), (1 - probabilities) * limits
        return yes / (yes + no).clamp_min(1e-30)
    found = probabilities / torch.cat([1 - limits, limits])
    return found / found.sum(1, keepdim=True)


def _wide(values: Tensor) -> Tensor:
    return values[:, None] if values.dim() == 1 else values.flatten(1)


def predictions_of(meaning: Meaning, probabilities: Tensor, top_k: int) -> list[Prediction]:
    """One prediction per row.

    Args:
        meaning: What the outputs are.
        probabilities: From `probabilities_of`.
        top_k: How many classes to list.
    """
    check_top_k(top_k)
    if meaning.task in ("regression", "multilabel"):
        names = output_names(meaning, probabilities.shape[1])
        named = [dict(zip(names, row, strict=True)) for row in probabilities.tolist()]
        if meaning.task == "regression":
            return [Prediction(values=each) for each in named]
        there = (weighed(meaning, probabilities) > 0.5).tolist()
        return [_labels(each, row) for each, row in zip(named, there, strict=True)]
    shares, names_of = _ranked(meaning, probabilities, top_k)
    tops = [tuple(zip(names, row, strict=True)) for names, row in zip(names_of, shares, strict=True)]
    return [Prediction(label=top[0][0], probability=top[0][1], top=top) for top in tops]


def _labels(values: dict[str, float], there: list[bool]) -> Prediction:
    found = sorted(itertools.compress(values.items(), there), key=lambda pair: -pair[1])
    return Prediction(label=_joined(values, there), top=tuple(found), values=values)


def _joined(names: Iterable[str], there: list[bool]) -> str:
    """The labels that are there, in the classes' order."""
    return "|".join(itertools.compress(names, there))


def _ranked(meaning: Meaning, probabilities: Tensor, top_k: int) -> tuple[list[list[float]], list[list[str]]]:
    """The probabilities of the best classes of each row, best first, and their names."""
    shares, places = best_of(meaning, probabilities, top_k)
    return shares, [[meaning.classes[place] for place in row] for row in places]


def best_of(meaning: Meaning, probabilities: Tensor, top_k: int) -> tuple[list[list[float]], list[list[int]]]:
    """The probabilities of the best classes of each row, best first, and the numbers of the classes.

    Args:
        meaning: What the outputs are.
        probabilities: Of classes, from `probabilities_of`.
        top_k: How many classes to list.
    """
    best = weighed(meaning, probabilities).sort(dim=1, descending=True, stable=True).indices[:, :top_k]
    return probabilities.gather(1, best).tolist(), best.tolist()


def check_top_k(top_k: int) -> None:
    """Refuse a `top_k` that is not a number of classes."""
    if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
        raise ArgumentError(f"top_k must be a whole number of at least 1, not {top_k!r}")


def output_names(meaning: Meaning, count: int) -> list[str]:
    """The names of the outputs of a regression, or of several labels.

    Args:
        meaning: What the outputs are.
        count: How many there are.
    """
    if len(meaning.classes) == count:
        return list(meaning.classes)
    return ["prediction"] if count == 1 else [f"prediction_{number}" for number in range(count)]


#: One column of a table of predictions: names, or float64 numbers.
Values = list[Any] | npt.NDArray[np.float64]


def columns_of(meaning: Meaning, probabilities: Tensor, top_k: int, *, every: bool = False) -> dict[str, Values]:
    """Predictions as the columns of a table.

    Args:
        meaning: What the outputs are.
        probabilities: From `probabilities_of`.
        top_k: How many classes to list.
        every: A column `p_NAME` for each class, too.

    Returns:
        For classes `prediction` and `probability` (and `_2`, `_3` ... up to `top_k`); for several labels `prediction`,
        those above one half, and a probability per label; for a regression a value per output.
    """
    if meaning.task in ("regression", "multilabel"):
        names = output_names(meaning, probabilities.shape[1])
        values: dict[str, Values] = dict(zip(names, probabilities.double().T.numpy(), strict=True))
        if meaning.task == "regression":
            return values
        there = (weighed(meaning, probabilities) > 0.5).tolist()
        return {free("prediction", names): [_joined(names, row) for row in there]} | values
    shares, names_of = _ranked(meaning, probabilities, top_k)
    columns: dict[str, Values] = {}
    for place in range(min(top_k, len(meaning.classes))):
        ending = f"_{place + 1}" if place else ""
        columns[f"prediction{ending}"] = [names[place] for names in names_of]
        columns[f"probability{ending}"] = np.array([row[place] for row in shares])
    if every:
        columns |= zip((f"p_{name}" for name in meaning.classes), probabilities.double().T.numpy(), strict=True)
    return columns


def free(heading: str, taken: Collection[str]) -> str:
    """A heading that is not the name of an output: with underscores at the end, if need be.

    Args:
        heading: The usual one.
        taken: Names that are in use.

    >>> free("error", ["price"]), free("error", ["error"])
    ('error', 'error_')
    """
    while heading in taken:
        heading += "_"
    return heading
