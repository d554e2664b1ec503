"""The named metrics as plain arithmetic over all batches: counts of decisions, ranks of scores, sums of errors.

Sums are whole numbers or float64, so that the batches' sizes change no digit that is shown. Importing torchmetrics
takes seconds, which no name costs; `tests/test_metrics.py` compares with it and with scikit-learn.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlkit._answers import auroc
from dlkit.errors import TrainingError
from dlkit.objective import WAY, Classified, Objective, classified, numbers

__all__ = ["MEASURES", "Measure", "Tally"]

_NAN = float("nan")


class Tally(ABC):
    """What is kept of all batches; several measures may be computed from one tally.

    That of several batches is the tallies of single ones, joined in the order of the batches: wherever each of them was
    counted, the bits are the same.
    """

    @staticmethod
    @abstractmethod
    def reads(objective: Objective) -> bool:
        """Whether output and target, as the loss says they are, can be counted; True where the loss says nothing."""

    @abstractmethod
    def count(self, output: Tensor, target: Tensor, objective: Objective) -> None:
        """Count a batch, in a tally that is empty; see `dlkit.objective` for the shapes."""

    @abstractmethod
    def join(self, batch: Any) -> None:
        """Add the tally of the next batch, which is of the same class."""


class Decisions(Tally):
    """How often each class was meant, predicted, and both; of labels also how often not."""

    def __init__(self) -> None:
        self.hits: Any = 0
        self.predicted: Any = 0
        self.actual: Any = 0
        self.total = 0
        self.labels = False
        self.unclear = False
        self.undefined: Any = False

    @staticmethod
    def reads(objective: Objective) -> bool:
        return objective.kind != "numbers"

    def count(self, output: Tensor, target: Tensor, objective: Objective) -> None:
        read = classified(output, target, objective)
        self.total, self.labels, self.unclear = len(read.target), not read.one_of_many, read.unclear
        self.undefined = read.scores.isnan().any()
        self.hits, self.predicted, self.actual = _counted(read)

    def join(self, batch: Decisions) -> None:
        if isinstance(self.hits, Tensor) and len(self.hits) != len(batch.hits):
            raise TrainingError(f"the output has {len(batch.hits)} classes, that of earlier batches {len(self.hits)}")
        self.total += batch.total
        self.labels, self.unclear = batch.labels, self.unclear or batch.unclear
        self.undefined = batch.undefined | self.undefined
        self.hits, self.predicted = self.hits + batch.hits, self.predicted + batch.predicted
        self.actual = self.actual + batch.actual

    def whole(self) -> _Counts:
        """All counts, as float64 on the CPU."""
        hits, predicted, actual = (each.cpu().double() for each in (self.hits, self.predicted, self.actual))
        return _Counts(hits, predicted, actual, self.total)


class _Counts(NamedTuple):
    hits: Tensor
    predicted: Tensor
    actual: Tensor
    total: int


def _counted(read: Classified) -> tuple[Tensor, Tensor, Tensor]:
    """Per class or label: predicted and meant, predicted, meant."""
    if not read.one_of_many:
        guess = read.scores > _threshold(read)
        return (guess & read.target).sum(0), guess.sum(0), read.target.sum(0)
    guess, size = read.scores.argmax(1), read.scores.shape[1]
    hits = read.target[guess == read.target]
    return tuple(torch.bincount(each, minlength=size) for each in (hits, guess, read.target))  # type: ignore[return-value]


def _threshold(read: Classified) -> float:
    if read.form is None:
        raise TrainingError(
            "whether the outputs are logits (a yes above 0) or probabilities (a yes above one half) is not known from "
            f"a custom loss; {WAY}"
        )
    return 0.5 if read.form == "probabilities" else 0.0


def _accuracy(kept: Decisions) -> float:
    counts = kept.whole()
    right = counts.hits.sum()
    if kept.labels:
        right = right + (counts.total - counts.predicted - counts.actual + counts.hits).sum()
    return float(right / (counts.total * (len(counts.hits) if kept.labels else 1)))


def _balanced(kept: Decisions) -> float:
    counts = kept.whole()
    recall = counts.hits / counts.actual  # NaN for classes without a sample
    if not kept.labels:
        return float(recall.nanmean())
    others = counts.total - counts.actual
    specificity = (others - counts.predicted + counts.hits) / others
    return float(torch.stack([recall, specificity]).nanmean(0).mean())


def _share(above: Tensor, below: Tensor) -> Tensor:
    return torch.where(below > 0, above / below, 0.0)


def _macro(kept: Decisions, share: Callable[[_Counts], Tensor]) -> float:
    """The mean over labels; over those classes that were meant or predicted at all."""
    counts = kept.whole()
    values = share(counts)
    there = counts.predicted + counts.actual > 0
    return float(values.mean() if kept.labels else values[there].mean())


def _of_decisions(compute: Callable[[Decisions], float], *, whole: bool = False) -> Callable[[Any], float]:
    def value(kept: Decisions) -> float:
        if kept.unclear and not whole:
            raise TrainingError(
                "of a yes or no per place of an output [B, D, E] it is not known whether D are labels or places; "
                "give the model's output as [B, labels, H, W], [B, 1, H, W] or [B, labels]"
            )
        return _NAN if not kept.total or bool(kept.undefined) else compute(kept)

    return value


class Ranks(Tally):
    """All scores and targets, for measures that compare every positive with every negative."""

    def __init__(self) -> None:
        self.scores: list[Tensor] = []
        self.targets: list[Tensor] = []
        self.logits = False

    @staticmethod
    def reads(objective: Objective) -> bool:
        return objective.kind != "numbers" and objective.form != "scores"

    def count(self, output: Tensor, target: Tensor, objective: Objective) -> None:
        read = classified(output, target, objective)
        if read.unclear:
            raise TrainingError("whether dimension 1 of the output [B, D, E] holds labels is not known")
        if read.one_of_many and read.form is None:
            raise TrainingError(f"the loss does not say how the outputs become probabilities; {WAY}")
        self.logits = read.one_of_many and read.form == "logits"
        self.scores, self.targets = [read.scores.detach().cpu()], [read.target.cpu()]

    def join(self, batch: Ranks) -> None:
        self.logits = batch.logits
        self.scores += batch.scores
        self.targets += batch.targets

    def mean(self, of_two: Callable[[Tensor, Tensor], float]) -> float:
        """The mean of a binary measure over labels, or classes against the rest; undefined ones are left out."""
        scores, target = torch.cat(self.scores).double(), torch.cat(self.targets)
        if bool(scores.isnan().any()):
            return _NAN
        if self.logits:
            scores = scores.log_softmax(1)  # ordered as probabilities are, and distinct where those round to 1
        columns = range(scores.shape[1])
        hits = [target[:, c] if target.dim() > 1 else target == c for c in columns]
        each = [of_two(scores[:, c], hits[c]) for c in columns]
        return float(torch.tensor(each, dtype=torch.float64).nanmean())


def _average_precision(scores: Tensor, hits: Tensor) -> float:
    """The mean over positives of the precision at their score, without interpolation, as scikit-learn defines it."""
    positives = int(hits.sum())
    if not positives:
        return _NAN
    _, places, sizes = (-scores).unique(return_inverse=True, return_counts=True)
    found = torch.zeros(len(sizes), dtype=torch.float64).index_add_(0, places, hits.double())
    return float((found / positives * (found.cumsum(0) / sizes.cumsum(0))).sum())


class Errors(Tally):
    """Sums over predictions and targets; the spread of the targets per output, merged exactly (Chan et al. 1979)."""

    def __init__(self) -> None:
        self.rows = 0
        self.values = 0
        self.absolute: Any = 0.0
        self.squared: Any = 0.0
        self.center: Any = 0.0
        self.spread: Any = 0.0

    @staticmethod
    def reads(objective: Objective) -> bool:
        return objective.kind in (None, "numbers")

    def count(self, output: Tensor, target: Tensor, objective: Objective) -> None:
        preds, target = (_exact(each) for each in numbers(output, target, objective))
        rows = target.reshape(len(target), -1) if target.dim() else target.reshape(1, 1)
        off = preds.reshape(rows.shape) - rows
        if not len(rows):
            return
        self.rows, self.values = len(rows), rows.numel()
        self.absolute, self.squared = off.abs().sum(), off.square().sum(0)
        self.center = rows.mean(0)
        self.spread = (rows - self.center).square().sum(0)

    def join(self, batch: Errors) -> None:
        if not batch.rows:
            return
        self.absolute = self.absolute + batch.absolute
        self.squared = self.squared + batch.squared
        moved, total = batch.center - self.center, self.rows + batch.rows
        spread = batch.spread + moved.square() * (self.rows * batch.rows / total)
        self.spread, self.center = self.spread + spread, self.center + moved * (batch.rows / total)
        self.rows, self.values = total, self.values + batch.values

    def mean_squared(self) -> float:
        """Over all values."""
        return float(self.squared.sum()) / self.values if self.values else _NAN

    def r2(self) -> float:
        """1 - squared errors / spread, the mean over outputs; where nothing varies 1 without errors, else 0."""
        if self.rows < 2:
            return _NAN
        flat = (self.squared == 0).double() + 0 * self.squared  # NaN where the errors are
        return float(torch.where(self.spread == 0, flat, 1 - self.squared / self.spread).mean())


def _exact(values: Tensor) -> Tensor:
    values = values.detach()
    return (values.cpu() if values.device.type == "mps" else values).double()  # MPS has no float64


class Measure(NamedTuple):
    """A named metric.

    Attributes:
        tally: What it is computed from.
        value: How.
        higher_is_better: The direction.
    """

    tally: type[Tally]
    value: Callable[[Any], float]
    higher_is_better: bool


MEASURES: dict[str, Measure] = {
    "accuracy": Measure(Decisions, _of_decisions(_accuracy, whole=True), True),
    "auroc": Measure(Ranks, lambda kept: kept.mean(auroc), True),
    "average_precision": Measure(Ranks, lambda kept: kept.mean(_average_precision), True),
    "balanced_accuracy": Measure(Decisions, _of_decisions(_balanced), True),
    "f1": Measure(
        Decisions, _of_decisions(lambda kept: _macro(kept, lambda c: _share(2 * c.hits, c.predicted + c.actual))), True
    ),
    "mae": Measure(Errors, lambda kept: float(kept.absolute) / kept.values if kept.values else _NAN, False),
    "mse": Measure(Errors, Errors.mean_squared, False),
    "precision": Measure(
        Decisions, _of_decisions(lambda kept: _macro(kept, lambda c: _share(c.hits, c.predicted))), True
    ),
    "r2": Measure(Errors, Errors.r2, True),
    "recall": Measure(Decisions, _of_decisions(lambda kept: _macro(kept, lambda c: _share(c.hits, c.actual))), True),
    "rmse": Measure(Errors, lambda kept: kept.mean_squared() ** 0.5, False),
}
