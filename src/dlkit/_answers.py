"""How far answers can be believed: ranks and curves of the scores, calibration, the worst mistakes."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Points", "auroc", "calibration", "mistaken", "ranked"]

Points = list[tuple[float, float]]

_POINTS = 200  # of a curve: what can be seen


def auroc(scores: Tensor, hits: Tensor) -> float:
    """The share of (positive, negative) pairs in order, ties counting half (Mann and Whitney 1947).

    Args:
        scores: [N], higher where it is more probable.
        hits: bool [N], whether it is so.

    Returns:
        NaN where there are none of one kind.

    >>> auroc(torch.tensor([0.9, 0.8, 0.3]), torch.tensor([True, False, True]))
    0.5
    """
    positives, negatives = int(hits.sum()), int((~hits).sum())
    if not positives or not negatives:
        return float("nan")
    _, places, sizes = scores.unique(return_inverse=True, return_counts=True)
    middle = sizes.cumsum(0).double() - (sizes.double() - 1) / 2
    return float((middle[places][hits].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def ranked(scores: Tensor, there: Tensor) -> tuple[Points, Points]:
    """The ROC and the precision-recall curve, at every score that occurs, thinned to what can be seen.

    Args:
        scores: [N], higher where it is more probable.
        there: bool [N], whether it is so; both kinds must occur.

    Returns:
        (false positive rate, share of it found) from (0, 0) on; (share of it found, share that is right).

    >>> roc, _ = ranked(torch.tensor([0.9, 0.8, 0.3]), torch.tensor([True, False, True]))
    >>> roc
    [(0.0, 0.0), (0.0, 0.5), (1.0, 0.5), (1.0, 1.0)]
    """
    order = scores.argsort(descending=True, stable=True)
    scores, hits = scores[order], there[order].double()
    last = torch.cat([scores[1:] != scores[:-1], torch.ones(1, dtype=torch.bool)])
    right, taken = hits.cumsum(0)[last], torch.arange(1, len(hits) + 1)[last]
    found, wrong = right / hits.sum(), (taken - right) / (1 - hits).sum()
    some = torch.linspace(0, len(found) - 1, min(_POINTS, len(found))).round().long()
    roc = [(0.0, 0.0), *zip(wrong[some].tolist(), found[some].tolist(), strict=True)]
    return roc, list(zip(found[some].tolist(), (right / taken)[some].tolist(), strict=True))


def calibration(said: Tensor, hits: Tensor) -> Points:
    """Mean probability and share of hits of ten parts of equal size (Niculescu-Mizil and Caruana 2005).

    Args:
        said: [N], the probability of what was answered.
        hits: bool [N], whether it was so.
    """
    order = said.argsort(stable=True)
    parts = [part for part in torch.tensor_split(order, min(10, max(1, len(order) // 10))) if len(part)]
    return [(float(said[part].mean()), float(hits[part].double().mean())) for part in parts]


def mistaken(probabilities: Tensor, targets: Tensor) -> Tensor:
    """How sure each wrong answer was; 0 for those that are right.

    Args:
        probabilities: [N, classes].
        targets: int64 [N].

    >>> mistaken(torch.tensor([[0.75, 0.25], [0.5, 0.5]]), torch.tensor([1, 0]))
    tensor([0.7500, 0.0000])
    """
    sure, answer = probabilities.max(1)
    return torch.where(answer != targets, sure, 0.0)
