"""From a model's numbers to what they mean: names with probabilities, labels, or values in their own units."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dlkit._showing import safe
from dlkit.artifact.inputs import Meaning
from dlkit.errors import ArgumentError

__all__ = ["Prediction", "columns_of", "predictions_of", "probabilities_of"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model says of one input.

    Attributes:
        label: The most probable class; for several labels those above one half, joined by "|"; None for regression.
        probability: Of `label`; NaN for regression and several labels.
        top: The most probable classes with their probabilities, best first; for several labels all that are above
            one half.
        values: For regression the outputs by name, in the units of the data.
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
        shown = [f"{name} {value:.3f}" for name, value in self.top] or [f"{k} {v:.6g}" for k, v in self.values.items()]
        return safe(f"Prediction({', '.join(shown) or 'no label'})")


def probabilities_of(meaning: Meaning, logits: Tensor) -> Tensor:
    """Probabilities [B, classes], or for regression the values [B, outputs] in the units of the data.

    Args:
        meaning: What the outputs are.
        logits: As the model gives them.
    """
    logits = logits.float()
    if meaning.task == "regression":
        target = getattr(meaning.preprocessing, "target", None)
        values = logits if target is None else target.unscale(logits)
        return values.reshape(len(values), -1)
    if meaning.task == "binary":
        second = logits.reshape(len(logits)).sigmoid()
        return torch.stack([1 - second, second], 1)
    return logits.sigmoid() if meaning.task == "multilabel" else logits.softmax(1)


def predictions_of(meaning: Meaning, probabilities: Tensor, top_k: int) -> list[Prediction]:
    """One prediction per row.

    Args:
        meaning: What the outputs are.
        probabilities: From `probabilities_of`.
        top_k: How many classes to list.
    """
    if top_k < 1:
        raise ArgumentError(f"top_k must be at least 1, not {top_k}")
    rows = probabilities.tolist()
    if meaning.task == "regression":
        names = output_names(meaning, probabilities.shape[1])
        return [Prediction(values=dict(zip(names, row, strict=True))) for row in rows]
    if meaning.task == "multilabel":
        return [_labels(meaning.classes, row) for row in rows]
    best = probabilities.sort(dim=1, descending=True, stable=True)
    found = []
    for values, places in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        top = tuple((meaning.classes[place], value) for place, value in zip(places, values, strict=True))[:top_k]
        found.append(Prediction(label=top[0][0], probability=top[0][1], top=top))
    return found


def _labels(classes: Sequence[str], row: list[float]) -> Prediction:
    there = sorted(((name, p) for name, p in zip(classes, row, strict=True) if p > 0.5), key=lambda pair: -pair[1])
    named = {name for name, _ in there}
    return Prediction(label="|".join(name for name in classes if name in named), top=tuple(there))


def output_names(meaning: Meaning, count: int) -> list[str]:
    """The names of a regression's outputs.

    Args:
        meaning: What the outputs are.
        count: How many there are.
    """
    if len(meaning.classes) == count:
        return list(meaning.classes)
    return ["prediction"] if count == 1 else [f"prediction_{number}" for number in range(count)]


def columns_of(meaning: Meaning, predictions: Sequence[Prediction], top_k: int) -> dict[str, list[Any]]:
    """Predictions as the columns of a table.

    Args:
        meaning: What the outputs are.
        predictions: In order; those with an error leave empty cells.
        top_k: How many classes to list.
    """
    columns: dict[str, list[Any]] = {}
    if meaning.task == "regression":
        names = next((list(each.values) for each in predictions if each.values), output_names(meaning, 1))
        columns = {name: [each.values.get(name) for each in predictions] for name in names}
    else:
        columns["prediction"] = [each.label for each in predictions]
    if meaning.task in ("classification", "binary"):
        columns["probability"] = [each.probability for each in predictions]
        for place in range(1, min(top_k, len(meaning.classes))):
            columns[f"prediction_{place + 1}"] = [each.top[place][0] if each.top else None for each in predictions]
            columns[f"probability_{place + 1}"] = [each.top[place][1] if each.top else None for each in predictions]
    if any(each.error for each in predictions):
        columns["error"] = [each.error for each in predictions]
    return columns
