"""Encoded rows in memory: any set of samples by one indexing operation per part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlkit.datasets.tables._images import ImageCells
from dlkit.errors import EmptyBatchError
from dlkit.reading.cells import Array, Strings
from dlkit.reading.frames import joined_texts

__all__ = ["Memory", "nothing_decoded"]


@dataclass(frozen=True)
class Memory:
    """The arrays of some rows.

    Attributes:
        numeric: float32 [N, numbers] or None.
        categorical: int32 [N, codes] or None: half the memory of the int64 that samples hold.
        texts: Text by the name of its part in a sample.
        images: Image paths by the name of their part in a sample.
        targets: [N] or [N, outputs], or None.
        rows: int64 [N], which row of the source each sample is.
        options: How images are loaded.
    """

    numeric: Tensor | None
    categorical: Tensor | None
    texts: dict[str, Strings]
    images: dict[str, Strings]
    targets: Tensor | None
    rows: Tensor
    options: ImageCells

    def select(self, rows: Array | None) -> Memory:
        """Some of the rows; all of them for None."""
        if rows is None:
            return self
        chosen = torch.from_numpy(rows)

        def some(values: Tensor | None) -> Tensor | None:
            return None if values is None else values.index_select(0, chosen)

        return replace(
            self,
            numeric=some(self.numeric),
            categorical=some(self.categorical),
            texts={name: cells.take(rows) for name, cells in self.texts.items()},
            images={name: cells.take(rows) for name, cells in self.images.items()},
            targets=some(self.targets),
            rows=self.rows.index_select(0, chosen),
        )

    @classmethod
    def joined(cls, parts: Sequence[Memory]) -> Memory:
        """Parts of one spec under each other."""
        if len(parts) == 1:
            return parts[0]

        def tensor(tensors: list[Tensor | None]) -> Tensor | None:
            there = [each for each in tensors if each is not None]
            return torch.cat(there) if there else None

        def strings(columns: list[dict[str, Strings]]) -> dict[str, Strings]:
            return {name: joined_texts([column[name] for column in columns]) for name in columns[0]}

        return cls(
            tensor([part.numeric for part in parts]),
            tensor([part.categorical for part in parts]),
            strings([part.texts for part in parts]),
            strings([part.images for part in parts]),
            tensor([part.targets for part in parts]),
            torch.cat([part.rows for part in parts]),
            parts[0].options,
        )

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: Tensor) -> tuple[Any, Tensor | None]:
        """Inputs and targets of the samples at `indices` (int64 [B], each in range).

        Raises:
            EmptyBatchError: the images of none of them can be decoded, and such rows are left out.
        """
        images, kept = self.load(indices)
        if kept is not None and not len(kept):
            raise nothing_decoded(len(indices), self.why(indices))
        return self.gather(indices if kept is None else indices.index_select(0, kept), images)

    def load(self, indices: Tensor) -> tuple[dict[str, Any], Tensor | None]:
        """The images of samples, and the places of those that could be decoded; None for all of them."""
        if not self.images:
            return {}, None
        chosen, images, bad = indices.numpy(), dict[str, Any](), set[int]()
        for name, cells in self.images.items():
            images[name], lost = self.options.load(_strings(cells, chosen))
            bad.update(lost)
        if not bad:
            return images, None
        kept = torch.tensor([place for place in range(len(chosen)) if place not in bad], dtype=torch.int64)
        return {name: each.index_select(0, kept) for name, each in images.items() if each is not None}, kept

    def why(self, indices: Tensor) -> str:
        """Why the first of some samples was left out."""
        chosen, lenient = indices[:1].numpy(), self.options.lenient
        paths = [self.options.path(cell) for cells in self.images.values() for cell in _strings(cells, chosen)]
        return "" if lenient is None else next(iter(lenient.known(paths).values()), "")

    def gather(self, indices: Tensor, images: dict[str, Any]) -> tuple[Any, Tensor | None]:
        """Inputs and targets of samples whose images are already there."""
        # index_select and not x[indices], which waits for other threads for milliseconds when the cores are busy.
        targets = None if self.targets is None else self.targets.index_select(0, indices)
        if self.categorical is None and self.numeric is not None and not self.texts and not self.images:
            return self.numeric.index_select(0, indices), targets
        inputs: dict[str, Any] = {}
        if self.numeric is not None:
            inputs["numeric"] = self.numeric.index_select(0, indices)
        if self.categorical is not None:
            codes = self.categorical.index_select(0, indices)
            # Widened by numpy, in this thread: torch would wake its OpenMP threads for a few microseconds of work.
            inputs["categorical"] = torch.from_numpy(codes.numpy().astype(np.int64))
        if self.texts or self.images:
            chosen = indices.numpy()
            inputs |= {name: _strings(cells, chosen) for name, cells in self.texts.items()}
            inputs |= images
        return inputs, targets


def nothing_decoded(count: int, first: str) -> EmptyBatchError:
    """The error for a batch that nothing is left of."""
    return EmptyBatchError(
        f"the images of all {count} rows of a batch cannot be decoded, so nothing is left of it; dlkit.DataLoader and "
        f"the Trainer leave such a batch out. The first: {first}"
    )


def _strings(cells: Strings, chosen: Array) -> list[str]:
    return [cells.pool[code] if code >= 0 else "" for code in cells.codes[chosen].tolist()]
