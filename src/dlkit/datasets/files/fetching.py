"""From rows to a batch: threads read and decode, each file into its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlkit._cores import for_each
from dlkit.datasets.base import Row, RowTensor
from dlkit.datasets.files.cache import ArrayCache
from dlkit.datasets.files.decoder import Array
from dlkit.datasets.files.handover import sendable
from dlkit.datasets.files.memory import BatchMemory
from dlkit.datasets.files.settings import FileSettings
from dlkit.errors import DataError

__all__ = ["DecodedRows", "Fetch", "Uneven"]


class DecodedRows(NamedTuple):
    """What was read.

    Attributes:
        samples: A tensor with one place for each row (`whole`) or for each good one; a list of tensors where their
            shapes differ.
        bad: Position in the batch to what is wrong with the file there.
        whole: Whether the places of bad files are in `samples`, and hold nothing of use.
        targets: Those that were read beside, one for each sample; None where the dataset has them already.
    """

    samples: Any
    bad: dict[int, str]
    whole: bool = False
    targets: Any = None


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """One fetch of a dataset: what it needs to know, and nothing that it could change.

    Attributes:
        path_of: A row's file.
        settings: What to do with the files.
        cache: Where decoded arrays are kept, if anywhere.
        memory: Where the batch is put.
        threads: How many work.
        known: Rows that are known to be unreadable, and why.
    """

    path_of: Callable[[int], Path]
    settings: Any  # FileSettings, or those of a room built on this one
    cache: ArrayCache | None
    memory: BatchMemory
    threads: int
    known: Mapping[int, str]

    def read(self, rows: list[int]) -> DecodedRows:
        """The samples of `rows`, places in the whole dataset, in this order."""
        settings: FileSettings = self.settings
        decoded: list[Any] = [None] * len(rows)

        def work(place: int) -> None:
            decoded[place] = self.array(rows[place])

        bad = self.in_threads(work, rows)
        samples = [
            settings.sample(array, self.path_of(row))
            for array, row in zip(decoded, rows, strict=True)
            if array is not None
        ]
        return DecodedRows(self._stacked(samples), bad)

    def in_threads(
        self,
        work: Callable[[int], None],
        rows: Sequence[int],
        *,
        then: Callable[[list[int]], None] | None = None,
        together: int = 1,
    ) -> dict[int, str]:
        """Run `work` for each place of a batch, with the cache open, and return what is wrong with the bad ones.

        Args:
            work: Raises a DataError where a file cannot be read; must not draw random numbers.
            rows: The rows of the batch.
            then: Run in the same thread after so many places, with those that are not bad.
            together: How many.
        """
        bad = dict[int, str]()

        def guarded(place: int) -> None:
            try:
                if (known := self.known.get(rows[place])) is not None:
                    raise DataError(known)
                work(place)
            except DataError as error:
                bad[place] = str(error)

        def some(number: int) -> None:
            places = range(number * together, min((number + 1) * together, len(rows)))
            for place in places:
                guarded(place)
            if then is not None:
                then([place for place in places if place not in bad])

        if self.cache is not None:
            self.cache.begin()
        for_each(some, -(-len(rows) // together), self.threads)
        if self.cache is not None:
            self.cache.flush()
        return bad

    def array(self, row: int) -> Array:
        """A file's array from the cache; else decoded, so that the first epoch sees what later ones will see.

        Args:
            row: Its place in the whole dataset.

        Raises:
            DataError: the file cannot be read.
        """
        kept = None if self.cache is None else self.cache.get(row, self.path_of)
        if kept is not None:
            return kept
        path = self.path_of(row)
        array: Array
        array, status = self.settings.load(path)
        if self.cache is not None:
            self.cache.put(path, self.cache.key(path, status), array)
        return array

    def _stacked(self, samples: list[Tensor]) -> Any:
        """One tensor, in memory that is used again; the list as it is where samples differ."""
        if len({(sample.shape, sample.dtype) for sample in samples}) != 1:
            return samples if samples else torch.empty(0)
        first = samples[0]
        if first.requires_grad or first.device.type != "cpu" or first.layout != torch.strided:
            return torch.stack(samples)
        batch = self.memory.take((len(samples), *first.shape), first.dtype)
        return sendable(torch.stack(samples, out=batch), batch)


class Uneven(list[Any]):
    """Samples whose shapes differ: a list for a `collate_fn` that pads them; torch's own is told what would help.

    Args:
        inputs: One tensor a sample.
        targets: Their targets, None for unlabelled data.
        noun: What errors call a sample.
        advice: What to do about it.
    """

    def __init__(self, inputs: Sequence[Tensor], targets: Tensor | None, noun: str, advice: str) -> None:
        super().__init__(
            [each.as_subclass(RowTensor) for each in inputs]
            if targets is None
            else [Row(pair) for pair in zip(inputs, targets, strict=True)]
        )
        self.noun, self.advice = noun, advice

    def whole(self) -> Any:
        """What `default_collate` asks for.

        Raises:
            DataError: there is more than one sample.
        """
        inputs = [row[0] if isinstance(row, Row) else row for row in self]
        shapes = sorted({tuple(each.shape) for each in inputs})
        raise DataError(
            f"the {self.noun}s of a batch have different shapes ({', '.join(map(str, shapes[:4]))}); {self.advice}"
        )
