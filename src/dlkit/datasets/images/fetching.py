"""From rows to a batch of images: threads decode, crop, resize and normalise, each image into its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from dlkit._cores import default_threads, for_each
from dlkit.datasets.files.decoder import Array, read_with_status
from dlkit.datasets.files.fetching import DecodedRows, Fetch
from dlkit.datasets.files.handover import sendable
from dlkit.datasets.images.decoding import OpenImage
from dlkit.datasets.images.targets import TargetImages
from dlkit.errors import DataError
from dlkit.transforms import Preprocessing

__all__ = ["ImageFetch", "prepared"]


@dataclass(frozen=True, kw_only=True)
class ImageFetch(Fetch):
    """As `Fetch`; with a `Preprocessing` an image is decoded no larger than needed, and written into its place.

    Attributes:
        targets: Images that are targets, which are moved as the samples are; None for none.
    """

    targets: TargetImages | None = None

    def read(self, rows: list[int]) -> DecodedRows:
        transform = self.settings.transform
        if not isinstance(transform, Preprocessing):
            return super().read(rows)
        table = transform.draw(len(rows))
        batch = self.memory.take((len(rows), *transform.shape))
        out = batch.numpy()
        beside = None if self.targets is None else self.targets.empty(len(rows), transform)
        wanted = None if beside is None else beside.numpy()

        def work(place: int) -> None:
            numbers = None if table is None else table[place]
            pixels, plan, reduce, size = self._planned(rows[place], transform, numbers)
            transform.write(pixels, plan, out[place], reduce=reduce)
            if self.targets is not None and wanted is not None:
                self.targets.write(rows[place], size, transform, plan, wanted[place])

        bad = self.in_threads(work, rows)
        return DecodedRows(sendable(transform.finish(batch), batch), bad, whole=True, targets=beside)

    def _planned(self, row: int, transform: Preprocessing, numbers: Any) -> tuple[Array, Any, int, tuple[int, int]]:
        """As `_planned` below, with the size of the image that the plan is for."""
        if self.cache is not None:
            pixels = self.array(row)
            size = pixels.shape[0], pixels.shape[1]
            return pixels, transform.plan(*size, numbers), 1, size
        path = self.path_of(row)
        image = self.settings.open(read_with_status(path)[0], str(path))
        return *_planned(image, transform, numbers), (image.height, image.width)


def prepared(
    transform: Preprocessing, count: int, opened: Callable[[int], OpenImage]
) -> tuple[torch.Tensor, dict[int, str]]:
    """Images from anywhere as one batch, prepared in threads as those of a dataset are; nothing is kept of them.

    Args:
        transform: What becomes of each.
        count: How many there are.
        opened: Gives the image at a place, or raises a `DataError` that says what is wrong with it.

    Returns:
        float32 [count, C, H, W], in which the places of bad images hold nothing of use, and what is wrong with those.
    """
    bad = dict[int, str]()
    table = transform.draw(count)  # here, as threads never draw
    batch = torch.empty((count, *transform.shape))
    out = batch.numpy()

    def work(place: int) -> None:
        try:
            pixels, plan, reduce = _planned(opened(place), transform, None if table is None else table[place])
        except DataError as error:
            bad[place] = str(error)
            return
        transform.write(pixels, plan, out[place], reduce=reduce)

    for_each(work, count, default_threads())
    return transform.finish(batch), bad


def _planned(image: OpenImage, transform: Preprocessing, numbers: Any) -> tuple[Array, Any, int]:
    """An image's pixels, decoded no larger than needed, what to do with them, and how much smaller they are."""
    plan = transform.plan(image.height, image.width, numbers)
    reduce = plan.reduce if image.reducible else 1
    return image.pixels(reduce, color=transform.color), plan, reduce
