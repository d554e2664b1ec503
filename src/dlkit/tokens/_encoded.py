"""Texts as numbers: what every encoder gives for a list of texts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from dlkit._documents import Document

__all__ = ["EncodedTexts", "Encoder"]

Array = np.ndarray[Any, Any]


class EncodedTexts(NamedTuple):
    """Encoded texts, one after the other.

    Attributes:
        ids: int32 [all tokens].
        lengths: int64 [number of texts].
        types: int8 [all tokens], 0 for tokens of the first text of a pair and 1 for the second; None without pairs.
    """

    ids: Array
    lengths: Array
    types: Array | None = None

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], heads: Sequence[int] | None = None) -> EncodedTexts:
        """Rows of numbers; `heads` says how many of each belong to the first text of a pair."""
        ids = np.fromiter(itertools.chain.from_iterable(rows), dtype=np.int32)
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        if heads is None:
            return cls(ids, lengths)
        first = np.asarray(heads, dtype=np.int64)
        counts = np.stack([first, lengths - first], axis=1).ravel()
        return cls(ids, lengths, np.repeat(np.tile(np.array([0, 1], dtype=np.int8), len(first)), counts))


def cut_longest(first: list[int], second: list[int], budget: int | None) -> tuple[list[int], list[int]]:
    """Cut the longer of two rows until both fit into `budget`; equally long ones share."""
    if budget is None or len(first) + len(second) <= budget:
        return first, second
    kept = max(budget - len(second), min(len(first), (budget + 1) // 2))
    return first[:kept], second[: budget - kept]


class Encoder(Document):
    """What a dataset needs of a vocabulary or a tokenizer from elsewhere.

    Attributes:
        pad_id: The number that fills up short rows.
        padding_side: Where padding goes: "right", or "left" for models that continue a text.
    """

    pad_id: int
    padding_side: str

    def __len__(self) -> int:
        """How many numbers there are: the rows of the model's embedding."""
        raise NotImplementedError

    def encode_batch(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, max_length: int | None = None
    ) -> EncodedTexts:
        """Each text, or each text with its pair, as numbers; never none at all, so that no row of a batch is empty."""
        raise NotImplementedError

    def decode(self, ids: Sequence[int] | Tensor) -> str:
        """Numbers as a text."""
        raise NotImplementedError

    def fingerprint(self) -> str | None:
        """The same for encoders that give the same numbers, in every process; None where that cannot be known."""
        raise NotImplementedError
