"""`Fold`: one of several cuts of the same samples, each of which tests on others."""

from __future__ import annotations

from dataclasses import dataclass

from dlkit._arguments import whole_number
from dlkit.errors import ArgumentError

__all__ = ["Fold"]


@dataclass(frozen=True)
class Fold:
    """One fold of a cross-validation; it stands wherever a split takes `fractions`, and gives its parts.

    Over all folds each sample is tested on once. In time (`time=`) a fold trains on all that lies before what it tests
    on, so that the earliest samples are never tested on.

    Args:
        number: Which fold it is, from 1 on.
        of: How many there are, at least 2.
        val: The share of the samples that are not tested on which becomes a validation part: the parts are then
            training, validation and test. 0 for training and test alone.

    Raises:
        ArgumentError: there is no such fold, or no such share.

    >>> from dlkit.splits import split_indices
    >>> [part.tolist() for part in split_indices(6, Fold(2, of=3), seed=0)]
    [[0, 1, 2, 5], [3, 4]]
    """

    number: int
    of: int
    val: float = 0.0

    def __post_init__(self) -> None:
        whole_number("of", self.of, least=2)
        whole_number("number", self.number, least=1)
        if self.number > self.of:
            raise ArgumentError(f"number={self.number}: the folds are 1 to {self.of}")
        if not 0 <= self.val < 1:
            raise ArgumentError(f"val must be a share from 0 to below 1, not {self.val!r}")

    @property
    def num_parts(self) -> int:
        """How many parts a fold has: training and test, and between them validation where `val` says so."""
        return 3 if self.val else 2
