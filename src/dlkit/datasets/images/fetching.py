"""From rows to a batch of images: threads decode, crop, resize and normalise, each image into its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dlkit._cores import default_threads, for_each
from dlkit.datasets.files.decoder import Array, read_with_status
from dlkit.datasets.files.fetching import DecodedRows, Fetch
from dlkit.datasets.files.handover import sendable
from dlkit.datasets.images.decoding import OpenImage
from dlkit.errors import DataError
from dlkit.transforms import Preprocessing

__all__ = ["ImageFetch", "prepared"]


class ImageFetch(Fetch):
    """As `Fetch`; with a `Preprocessing` an image is decoded no larger than needed, and written into its place."""

    def read(self, rows: list[int]) -> DecodedRows:
        transform = self.settings.transform
        if not isinstance(transform, Preprocessing):
            return super().read(rows)
        table = transform.draw(len(rows))
        batch = self.memory.take((len(rows), *transform.shape))
        out = batch.numpy()

        def work(place: int) -> None:
            numbers = None if table is None else table[place]
            pixels, plan, reduce = self._planned(rows[place], transform, numbers)
            transform.write(pixels, plan, out[place], reduce=reduce)

        bad = self.in_threads(work, rows)
        return DecodedRows(sendable(transform.finish(batch), batch), bad, whole=True)

    def _planned(self, row: int, transform: Preprocessing, numbers: Any) -> tuple[Array, Any, int]:
        if self.cache is not None:
            pixels = self.array(row)
            return pixels, transform.plan(pixels.shape[0], pixels.shape[1], numbers), 1
        path = self.path_of(row)
        return _planned(self.settings.open(read_with_status(path)[0], str(path)), transform, numbers)


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
