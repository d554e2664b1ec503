"""What a score is worth: how sure it is, what answering always the same would reach, and which classes pay for it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dlkit._answers import auroc
from dlkit._html import Shown
from dlkit._language import Message
from dlkit._showing import Lines

__all__ = [
    "ClassStanding",
    "Standing",
    "r2",
    "standing_of_classes",
    "standing_of_labels",
    "standing_of_values",
    "wilson",
]

_Z = 1.959964  # of the normal distribution: 95 % are within
_DRAWS = 1000  # of the bootstrap
_UNSURE = 0.1  # a score that may be so much higher and lower says little


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassStanding:
    """How one class, or one label of several, comes off.

    Attributes:
        name: Of the class.
        samples: Of it, among those that were evaluated.
        predicted: How often it was the answer.
        precision: The share of these answers that was right; NaN where there was none.
        recall: The share of its samples that was found; NaN where there was none.
        f1: The harmonic mean of both; NaN without samples and answers.
        auroc: The probability that a sample of it gets a higher score for it than another one; NaN without both.
    """

    name: str
    samples: int
    predicted: int
    precision: float
    recall: float
    f1: float
    auroc: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Standing(Shown):
    """A score beside its baseline, with an interval; `print` it for the sentences.

    Attributes:
        measure: "accuracy" (for several labels per label), or "r2".
        score: Reached.
        low: The lower end of its interval of 95 %: Wilson's (1927) for shares, of a bootstrap for r2.
        high: The upper end.
        samples: That were judged.
        baseline: What `baseline_says` reaches on the same samples.
        baseline_says: The answer that needs no model, in words.
        others: More measures by name.
        classes: Each class; empty for a regression.
        warnings: What should be looked at, in sentences.

    >>> answers = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    >>> found = standing_of_classes(answers, torch.tensor([0, 0, 0, 1]), ["no", "yes"], usual=0)
    >>> print(str(found).splitlines()[0])
    accuracy 0.75 (95 %: 0.3006 to 0.9544) on 4 samples; always answering 'no' gives 0.75
    """

    measure: str
    score: float
    low: float
    high: float
    samples: int
    baseline: float
    baseline_says: str
    others: dict[str, float] = dataclasses.field(default_factory=dict)
    classes: tuple[ClassStanding, ...] = ()
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = Message(
            "{measure} {score:.4g} (95 %: {low:.4g} to {high:.4g}) on {samples:,} samples; {says} gives {baseline:.4g}",
            says=self.baseline_says,
            **{name: getattr(self, name) for name in ("measure", "score", "low", "high", "samples", "baseline")},
        )
        return Lines.of(said, *self.warnings).plain()


def standing_of_classes(
    probabilities: Tensor, targets: Tensor, classes: Sequence[str], *, usual: int, weighed: Tensor | None = None
) -> Standing:
    """Of a classification.

    Args:
        probabilities: float [N, classes].
        targets: int64 [N].
        classes: Their names.
        usual: The most frequent class of the training data.
        weighed: As the probabilities, of which the largest is the answer, where they themselves do not decide.
    """
    answers, size = (probabilities if weighed is None else weighed).argmax(1), len(targets)
    each = tuple(_of_class(name, answers == n, targets == n, probabilities[:, n]) for n, name in enumerate(classes))
    score, baseline = float((answers == targets).double().mean()), float((targets == usual).double().mean())
    present = [row for row in each if row.samples]
    others: dict[str, float] = {
        Message("balanced accuracy"): _mean([row.recall for row in present]),
        Message("f1 (mean of the classes)"): _mean([row.f1 for row in each]),
        Message("auroc (mean of the classes)"): _mean([row.auroc for row in each]),
    }
    says = Message("always answering {name!r}", name=classes[usual])
    return _weighed(Message("accuracy"), score, wilson(score, size), size, baseline, says, others, each)


def standing_of_labels(
    probabilities: Tensor, targets: Tensor, names: Sequence[str], *, shares: Tensor, weighed: Tensor | None = None
) -> Standing:
    """Of several labels, each of which is there or not.

    Args:
        probabilities: float [N, labels].
        targets: 0 and 1, [N, labels].
        names: Of the labels.
        shares: float [labels], how often each is there in the training data.
        weighed: As the probabilities, of which those above one half are there, where they themselves do not decide.
    """
    answers, there, size = (probabilities if weighed is None else weighed) > 0.5, targets > 0.5, len(targets)
    each = tuple(_of_class(name, answers[:, n], there[:, n], probabilities[:, n]) for n, name in enumerate(names))
    score = float((answers == there).double().mean())
    baseline = float((there == (shares > 0.5)).double().mean())
    says = Message("answering each label as it usually is")
    others: dict[str, float] = {Message("f1 (mean of the labels)"): _mean([row.f1 for row in each])}
    return _weighed(Message("accuracy"), score, wilson(score, size), size, baseline, says, others, each)


def standing_of_values(predicted: Tensor, wanted: Tensor, names: Sequence[str], *, usual: Tensor) -> Standing:
    """Of a regression.

    Args:
        predicted: [N, outputs], in the units of the data.
        wanted: [N, outputs], in the same.
        names: Of the outputs.
        usual: [outputs], the mean of the training data.
    """
    predicted, wanted, usual = predicted.double(), wanted.double(), usual.double()
    wrong, spread = (predicted - wanted) ** 2, (wanted - wanted.mean(0)) ** 2
    by_mean, size = (wanted - usual) ** 2, len(wanted)
    score, baseline = _r2(wrong.sum(0), spread.sum(0)), _r2(by_mean.sum(0), spread.sum(0))
    others: dict[str, float] = {}
    for n, name in enumerate(names):
        of = Message(" of {name}", name=name) if len(names) > 1 else ""
        others[Message("rmse{of}", of=of)], others[Message("rmse{of}, answering the mean", of=of)] = (
            float(part[:, n].mean().sqrt()) for part in (wrong, by_mean)
        )
        others[Message("mae{of}", of=of)] = float((predicted - wanted)[:, n].abs().mean())
    interval = _bootstrap(wrong, wanted)
    return _weighed("r2", score, interval, size, baseline, Message("always answering the mean"), others)


def _weighed(
    measure: str,
    score: float,
    interval: tuple[float, float],
    size: int,
    baseline: float,
    says: str,
    others: dict[str, float],
    each: tuple[ClassStanding, ...] = (),
) -> Standing:
    """A score with its interval beside its baseline, and what should be looked at."""
    low, high = interval
    return Standing(
        measure=measure,
        score=score,
        low=low,
        high=high,
        samples=size,
        baseline=baseline,
        baseline_says=says,
        others=others,
        classes=each,
        warnings=(*_never(each), *_unsure(measure, low, high, size), *_no_better(low, baseline)),
    )


def wilson(share: float, size: int) -> tuple[float, float]:
    """The interval of 95 % of a share (Wilson 1927, "Probable inference").

    Args:
        share: Seen.
        size: Among so many.

    >>> tuple(round(end, 3) for end in wilson(0.5, 100))
    (0.404, 0.596)
    """
    if not size:
        return 0.0, 1.0
    middle = (share + _Z**2 / (2 * size)) / (1 + _Z**2 / size)
    half = _Z / (1 + _Z**2 / size) * math.sqrt(share * (1 - share) / size + _Z**2 / (4 * size**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def _of_class(name: str, answered: Tensor, there: Tensor, scores: Tensor) -> ClassStanding:
    hits, samples, predicted = (int(part.sum()) for part in (answered & there, there, answered))
    return ClassStanding(
        name=name,
        samples=samples,
        predicted=predicted,
        precision=hits / predicted if predicted else math.nan,
        recall=hits / samples if samples else math.nan,
        f1=2 * hits / (samples + predicted) if samples + predicted else math.nan,
        auroc=auroc(scores, there),
    )


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def r2(predicted: Tensor, wanted: Tensor) -> float:
    """The mean over outputs of the share of the variance that is explained; NaN where nothing varies.

    Args:
        predicted: [N, outputs].
        wanted: [N, outputs].
    """
    predicted, wanted = predicted.double(), wanted.double()
    return _r2(((predicted - wanted) ** 2).sum(0), ((wanted - wanted.mean(0)) ** 2).sum(0))


def _r2(wrong: Tensor, spread: Tensor) -> float:
    """The mean over outputs, as `dlkit.metrics` has it; NaN where nothing varies."""
    return float((1 - wrong / spread).mean()) if bool((spread > 0).all()) else math.nan


def _bootstrap(wrong: Tensor, wanted: Tensor) -> tuple[float, float]:
    """The interval of 95 % of r2 over samples drawn again (Efron 1979), the same for the same data."""
    size, generator = len(wanted), torch.Generator().manual_seed(0)
    found = []
    for _ in range(max(100, min(_DRAWS, 20_000_000 // max(size, 1)))):
        drawn = torch.randint(size, (size,), generator=generator)
        values = wanted[drawn]
        found.append(_r2(wrong[drawn].sum(0), ((values - values.mean(0)) ** 2).sum(0)))
    known = torch.tensor([value for value in found if not math.isnan(value)], dtype=torch.float64)
    if not len(known):
        return math.nan, math.nan
    low, high = torch.quantile(known, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def _never(each: Sequence[ClassStanding]) -> Sequence[str]:
    return [
        Message(
            "{name!r} is never the answer, though {samples:,} samples are it: "
            "give rare classes more weight, or look for what tells them apart",
            name=row.name,
            samples=row.samples,
        )
        for row in each
        if row.samples and not row.predicted
    ][:5]


def _unsure(measure: str, low: float, high: float, size: int) -> Sequence[str]:
    if not high - low > 2 * _UNSURE:
        return []
    return [
        Message(
            "{size:,} samples are few: the {measure} may lie anywhere from {low:.2f} to {high:.2f}",
            size=size,
            measure=measure,
            low=low,
            high=high,
        )
    ]


def _no_better(low: float, baseline: float) -> Sequence[str]:
    return [Message("this is not significantly better than the baseline without a model")] if low <= baseline else []
