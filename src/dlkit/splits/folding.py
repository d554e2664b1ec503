"""`folds`: the parts of every fold of any dataset, for a plain loop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import Subset

from dlkit.errors import ArgumentError
from dlkit.splits._values import Values
from dlkit.splits.cutting import split_indices
from dlkit.splits.fold import Fold

__all__ = ["folds"]


def folds(
    dataset: Any,
    of: int = 5,
    *,
    val: float = 0.0,
    stratify: bool | Values | None = None,
    group: Any = None,
    dedupe: Any = None,
    time: Any = None,
    seed: int = 0,
) -> Iterator[tuple[Any, ...]]:
    """The parts of each fold in turn: `for train, test in folds(dataset, 5, group="user"):`.

    Each sample is in the test part of one fold. In time (`time=`) each fold trains on all that lies before what it
    tests on, and the earliest samples are never tested on (scikit-learn's `TimeSeriesSplit`). A `CSVDataset` or
    `TextDataset` is read again for each fold, so that scales, categories and vocabularies are those of the fold's
    training rows. Any `split` gives one fold alone: `CSVDataset.split("users.csv", Fold(2, of=5), ...)`.

    Args:
        dataset: One of dlkit's, or a part of one; or any map-style dataset, whose parts are `Subset` objects of torch.
        of: How many folds.
        val: The share of the samples that are not tested on which becomes a validation part, for early stopping; the
            loop then is `for train, val, test in folds(..., val=0.1)`. Cut by the same rules.
        stratify: Keep the shares of the classes in every part. None is True for data of dlkit that has classes; for
            other datasets labels, one for each sample, or True for its `targets`.
        group: What never is in two parts, as the dataset's `split` takes it: a column, or one key for each sample.
        dedupe: Whether equal samples are a group, as `split` takes it; for other datasets one key for each sample.
        time: What says which sample comes first, as for `group`.
        seed: Another seed gives other folds.

    Raises:
        ArgumentError: a class or a group is in fewer samples than there are folds (it is named); or the dataset is
            streamed, or laid out in parts.

    >>> import torch
    >>> from torch.utils.data import TensorDataset
    >>> labels = torch.tensor([0, 1] * 6)
    >>> for train, test in folds(TensorDataset(torch.rand(12, 2), labels), 3, stratify=labels):
    ...     print(len(train), len(test), int(labels[test.indices].sum()))
    8 4 2
    8 4 2
    8 4 2
    """
    said = {"stratify": stratify, "group": group, "dedupe": dedupe, "time": time, "seed": seed or None}
    said = {name: value for name, value in said.items() if value is not None}
    each = [Fold(number, of=of, val=val) for number in range(1, Fold(1, of=of, val=val).of + 1)]
    cut = getattr(type(dataset), "split", None) or _subsets
    return (cut(dataset, fold, **said) for fold in each)


def _subsets(dataset: Any, fold: Fold, **by: Any) -> tuple[Subset[Any], ...]:
    if by.get("stratify") is True:
        if getattr(dataset, "targets", None) is None:
            raise ArgumentError(f"stratify=True: {type(dataset).__name__} has no targets; give a label for each sample")
        by["stratify"] = dataset.targets
    elif by.get("stratify") is False:
        del by["stratify"]
    parts = split_indices(len(dataset), fold, **by)
    return tuple(Subset(dataset, part.tolist()) for part in parts)
