"""Image files that the rows of a table point to, decoded when a batch asks for them, as `ImageFolder` decodes them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlkit._cores import default_threads
from dlkit.datasets.files.journal import ErrorJournal
from dlkit.datasets.files.memory import BatchMemory
from dlkit.datasets.images.fetching import ImageFetch
from dlkit.datasets.images.settings import ImageSettings
from dlkit.datasets.tables._problems import Problem
from dlkit.errors import ArgumentError, DataError
from dlkit.reading.cells import Skipped, Strings, Table
from dlkit.reading.policy import ReadOptions
from dlkit.transforms import Preprocessing, for_evaluation

__all__ = ["ImageCells", "Leniency", "missing_files"]


@dataclass(frozen=True, kw_only=True)
class ImageCells:
    """Where image files lie and what becomes of them; the arguments of `CSVDataset` with the prefix `image_`.

    Attributes:
        root: The folder that paths are relative to.
        size: Short for `transform=transforms.for_evaluation(size)`.
        transform: A `Preprocessing`, or any callable on a PIL image that returns a tensor.
        lenient: What is done about files that cannot be decoded; None stops at one.
        memory: Where batches are put.
    """

    root: str | os.PathLike[str] | None = None
    size: int = 224
    transform: Callable[[Any], Any] | None = None
    lenient: Leniency | None = None
    memory: BatchMemory = field(default_factory=BatchMemory, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or self.size < 1:
            raise ArgumentError(f"image_size must be a number of pixels from 1 on, not {self.size!r}")

    @property
    def prepared(self) -> str:
        """How images are prepared for evaluation, for the spec; empty with a transform of the user's own."""
        transform = for_evaluation(self.size) if self.transform is None else self.transform
        return transform.for_evaluation().to_json() if isinstance(transform, Preprocessing) else ""

    def under(self, prepared: str) -> ImageCells:
        """The same as a spec says, where the caller says nothing.

        Raises:
            ArgumentError: the spec holds no such thing.
        """
        if not prepared or self.transform is not None or self.size != ImageCells().size:
            return self
        return replace(self, transform=Preprocessing.from_json(prepared))

    def beside(self, table: Table) -> ImageCells:
        """The same with paths relative to a table's folder, unless the caller says otherwise."""
        return self if self.root is not None or table.folder is None else replace(self, root=table.folder)

    def policed(self, read: ReadOptions, total: int, origin: str) -> ImageCells:
        """The same, where rows are left out, without files that cannot be decoded, which are found when asked for."""
        return self if read.on_error == "raise" else replace(self, lenient=Leniency(read, total, origin))

    @property
    def draws_random(self) -> bool:
        """Whether loading may draw random numbers."""
        return getattr(self.transform, "draws_random", self.transform is not None)

    def path(self, cell: str) -> Path:
        """The file that a cell names."""
        return Path(self.root or ".").expanduser() / cell.strip()

    def load(self, cells: Sequence[str]) -> tuple[Tensor | None, dict[int, str]]:
        """The images of some cells, [B, C, H, W], and the place of each that cannot be decoded with the reason.

        What is in those places means nothing; there are no images at all where none can be decoded.
        """
        paths = [self.path(cell) for cell in cells]
        transform = for_evaluation(self.size) if self.transform is None else self.transform
        fetch = ImageFetch(
            path_of=paths.__getitem__,
            settings=ImageSettings(transform=transform),
            cache=None,
            memory=self.memory,
            threads=default_threads(),
            known={} if self.lenient is None else self.lenient.known(paths),
        )
        images, bad, whole, _ = fetch.read(list(range(len(paths))))
        if isinstance(images, list):
            raise DataError(
                f"image_transform gives different shapes, {list(images[0].shape)} for {paths[0]} among them; "
                "end it with a resize"
            )
        if bad and self.lenient is None:
            raise DataError(bad[min(bad)])
        if bad and self.lenient is not None:
            self.lenient.leave_out(paths, bad)
        if len(bad) == len(paths):
            return None, bad
        if bad and not whole:
            good = torch.tensor([place for place in range(len(paths)) if place not in bad])
            images = images.new_zeros((len(paths), *images.shape[1:])).index_copy_(0, good, images)
        return images, bad


@dataclass(frozen=True)
class Leniency:
    """Image files that cannot be decoded are left out and written down, while there are not too many.

    Attributes:
        read: The policy for rows.
        total: How many rows there are.
        origin: The table, for messages.
        journal: What every process that has the dataset knows of such files.
    """

    read: ReadOptions
    total: int
    origin: str
    journal: ErrorJournal = field(default_factory=ErrorJournal)

    def known(self, paths: Sequence[Path]) -> dict[int, str]:
        """Places of paths that are known to be unreadable, with the reason."""
        found = self.journal.read()
        return {place: found[_key(path)] for place, path in enumerate(paths) if _key(path) in found} if found else {}

    def leave_out(self, paths: Sequence[Path], bad: Mapping[int, str]) -> None:
        """Write down what is new, say so, and stop when there are too many."""
        self.journal.leave_out([_key(path) for path in paths], bad, self._check_share)

    def _check_share(self) -> None:
        reasons = [Skipped("", None, reason) for reason in self.journal.read().values()]
        self.read.check_share(reasons, self.total, self.origin)


def _key(path: Path) -> int:
    return int.from_bytes(hashlib.blake2b(os.fsencode(path), digest_size=8).digest(), "big")


def missing_files(column: str, cells: Strings, options: ImageCells) -> Problem | None:
    """Rows whose image file is not there."""
    names = cells.pool.tolist()
    used = cells.counts() > 0
    lost = [
        not (name.strip() and os.path.isfile(options.path(name))) if use else False
        for name, use in zip(names, used, strict=True)
    ]
    rows = np.flatnonzero(cells.mapped(lost, True, bool))
    if not len(rows):
        return None

    def has(row: int) -> str:
        code = int(cells.codes[row])
        return f": {options.path(names[code])}" if code >= 0 and names[code].strip() else ": the cell is empty"

    remedy = "image_root= is the folder that paths are relative to; on_error='skip' leaves such rows out"
    return Problem(rows, f"names no image file in column {column!r}", remedy, has)
