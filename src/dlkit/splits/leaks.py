"""`check_leaks`: the proof that no sample is on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from dlkit._html import Shown
from dlkit.errors import ArgumentError
from dlkit.splits._values import Ints, as_array
from dlkit.splits.keys import columns_of, content_keys

__all__ = ["LeakReport", "check_leaks"]


@dataclass(frozen=True, eq=False, repr=False)
class LeakReport(Shown):
    """What `check_leaks` found. True when something leaks; `repr` says how much and where.

    Attributes:
        train: int64, the positions in the training data that also are in the test data.
        test: int64, the positions in the test data that also are in the training data.
        num_train: How many training samples were compared.
        num_test: How many test samples were compared.
        matches: For each sample that is on both sides its positions, `(in train, in test)`, in the order of the test.
    """

    train: Ints
    test: Ints
    num_train: int
    num_test: int
    matches: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]

    def __bool__(self) -> bool:
        return len(self.test) > 0

    def __len__(self) -> int:
        return len(self.test)

    def __repr__(self) -> str:
        if not self:
            return f"LeakReport: none of {self.num_test:,} test samples lies in the {self.num_train:,} training samples"
        share = 100 * len(self.test) / max(1, self.num_test)
        lines = [
            f"LeakReport: {len(self.test):,} of {self.num_test:,} test samples ({share:.3g} %) "
            f"equal one of {len(self.train):,} training samples",
            *(f"  test {_places(test)} = train {_places(train)}" for train, test in self.matches[:5]),
        ]
        return "\n".join([*lines, f"  and {len(self.matches) - 5:,} more"] if len(self.matches) > 5 else lines)


def _places(positions: Sequence[int]) -> str:
    shown = ", ".join(str(position) for position in positions[:4])
    return shown if len(positions) <= 4 else f"{shown} and {len(positions) - 4:,} more"


def check_leaks(train: Any, test: Any) -> LeakReport:
    """Find the samples of `test` that are, value for value, also in `train`.

    Give the inputs without the labels: the same text with another label is a leak too.

    Args:
        train: Samples as `content_keys` takes them: a tensor or array [N, ...], a DataFrame or dict of columns, or a
            sequence of strings or tuples. Or keys: `check_leaks(train_patients, test_patients)`.
        test: The same kind, with the same columns or the same shape and dtype of a sample.

    Returns:
        A report that is true when something leaks, with the positions on both sides.

    Raises:
        ArgumentError: the two cannot be compared.

    >>> report = check_leaks(["spam", "ham", "eggs"], ["toast", "eggs"])
    >>> bool(report), report.test.tolist(), report.matches
    (True, [1], (((2,), (1,)),))
    >>> check_leaks(np.zeros((4, 2)), np.ones((3, 2)))
    LeakReport: none of 3 test samples lies in the 4 training samples
    """
    train, test = _comparable(train, test)
    train_keys, test_keys = content_keys(train), content_keys(test)
    in_train = np.flatnonzero(np.isin(train_keys, test_keys))
    in_test = np.flatnonzero(np.isin(test_keys, train_keys))
    found: dict[int, tuple[list[int], list[int]]] = {}
    for side, positions, keys in ((1, in_test, test_keys), (0, in_train, train_keys)):
        for position, key in zip(positions.tolist(), keys[positions].tolist(), strict=True):
            found.setdefault(key, ([], []))[side].append(position)
    matches = tuple((tuple(first), tuple(second)) for first, second in found.values())
    return LeakReport(in_train, in_test, len(train_keys), len(test_keys), matches)


def _comparable(train: Any, test: Any) -> tuple[Any, Any]:
    first, second = columns_of(train), columns_of(test)
    if first is not None and second is not None:
        if odd := sorted(set(first) ^ set(second)):
            raise ArgumentError(f"train and test must have the same columns; only one of them has {', '.join(odd)}")
        return first, {name: second[name] for name in first}
    kinds = [isinstance(part, Tensor | np.ndarray) for part in (train, test)]
    if (first is None) != (second is None) or kinds[0] != kinds[1]:
        raise ArgumentError(f"train and test must be of one kind, not {type(train).__name__} and {type(test).__name__}")
    if kinds[0]:
        train, test = as_array(train), as_array(test)
        if train.dtype != test.dtype and not {train.dtype.kind, test.dtype.kind} <= set("SUO"):
            raise ArgumentError(f"train is {train.dtype} and test {test.dtype}: convert one to the other's dtype")
        if train.shape[1:] != test.shape[1:]:
            raise ArgumentError(f"samples differ in shape: train {list(train.shape[1:])}, test {list(test.shape[1:])}")
    return train, test
