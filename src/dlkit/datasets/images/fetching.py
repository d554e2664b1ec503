"""From rows to a batch: threads decode, crop, resize and normalise, each image into its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from dlkit.datasets.files.cache import PixelCache
from dlkit.datasets.files.handover import sendable
from dlkit.datasets.files.parallel import BatchMemory, default_threads, for_each
from dlkit.datasets.images.decoding import Color, OpenImage, open_image, read_with_status
from dlkit.datasets.images.settings import ImageSettings, Transform
from dlkit.errors import DataError
from dlkit.transforms import Preprocessing
from dlkit.transforms.geometry import reduction, resized_part, short_side_to

__all__ = ["Fetch", "Fetched", "kept_rule", "prepared", "transformed"]

Pixels = npt.NDArray[np.uint8]

#: Raised by one whenever the pixels that are kept for a file would change.
_RULE = "2"


class Fetched(NamedTuple):
    """What was read.

    Attributes:
        images: The samples; with a `Preprocessing` one place for each row, else the good ones only.
        bad: Position in the batch to what is wrong with the file there.
    """

    images: Any
    bad: dict[int, str]


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """One fetch of a dataset: what it needs to know, and nothing that it could change.

    Attributes:
        path_of: A row's file.
        settings: What to do with the files.
        cache: Where decoded pixels are kept, if anywhere.
        memory: Where the batch is put.
        threads: How many work.
        known: Rows that are known to be unreadable, and why.
    """

    path_of: Callable[[int], Path]
    settings: ImageSettings
    cache: PixelCache | None
    memory: BatchMemory
    threads: int
    known: Mapping[int, str]

    def read(self, rows: list[int]) -> Fetched:
        """The images of these rows, in this order.

        Args:
            rows: Places in the whole dataset.
        """
        transform = self.settings.transform
        if isinstance(transform, Preprocessing):
            return self._prepared(rows, transform)
        return self._one_by_one(rows)

    def _prepared(self, rows: list[int], transform: Preprocessing) -> Fetched:
        """Decode, crop, resize and normalise in threads, each image into its place in the batch."""
        bad = {place: self.known[row] for place, row in enumerate(rows) if row in self.known} if self.known else {}
        table = transform.draw(len(rows))
        batch = self.memory.take((len(rows), *transform.shape))
        out = batch.numpy()

        def work(place: int) -> None:
            if place in bad:
                return
            try:
                pixels, plan, reduce = self._planned(rows[place], transform, None if table is None else table[place])
            except DataError as error:
                bad[place] = str(error)
                return
            transform.write(pixels, plan, out[place], reduce=reduce)

        self._in_threads(work, len(rows))
        return Fetched(sendable(transform.finish(batch), batch), bad)

    def _planned(self, row: int, transform: Preprocessing, numbers: Any) -> tuple[Pixels, Any, int]:
        if self.cache is not None:
            pixels = self._kept(row, self.cache)
            return pixels, transform.plan(pixels.shape[0], pixels.shape[1], numbers), 1
        return _planned(open_image(self.path_of(row)), transform, numbers)

    def _kept(self, row: int, cache: PixelCache) -> Pixels:
        """From the cache; else decoded by the cache's rule, so that the first epoch sees what later ones will see."""
        pixels = cache.get(row, self.path_of)
        if pixels is None:
            path = self.path_of(row)
            data, status = read_with_status(path)
            pixels = decode_for_cache(data, path, self.settings.kept_side, self.settings.decoded_color)
            cache.put(path, cache.key(path, status), pixels)
        return pixels

    def _in_threads(self, work: Callable[[int], None], count: int) -> None:
        """Run `work` for each place of a batch, with the cache open for reading, and write what it has to keep."""
        if self.cache is not None:
            self.cache.begin()
        for_each(work, count, self.threads)
        if self.cache is not None:
            self.cache.flush()

    def _one_by_one(self, rows: list[int]) -> Fetched:
        """Decode in threads; run the user's transform here, in order, because it may draw random numbers."""
        bad = dict[int, str]()
        decoded: list[Any] = [None] * len(rows)

        def work(place: int) -> None:
            row = rows[place]
            try:
                if row in self.known:
                    raise DataError(self.known[row])
                if self.cache is not None:
                    decoded[place] = self._kept(row, self.cache)
                else:
                    decoded[place] = open_image(self.path_of(row)).pixels(color=self.settings.color)
            except DataError as error:
                bad[place] = str(error)

        self._in_threads(work, len(rows))
        samples = [
            transformed(self.settings.transform, pixels, self.path_of(row))
            for pixels, row in zip(decoded, rows, strict=True)
            if pixels is not None
        ]
        return Fetched(_stacked(samples), bad)


def prepared(transform: Preprocessing, count: int, opened: Callable[[int], OpenImage]) -> Fetched:
    """Images from anywhere as one batch, prepared in threads as those of a dataset are; nothing is kept of them.

    Args:
        transform: What becomes of each.
        count: How many there are.
        opened: Gives the image at a place, or raises a `DataError` that says what is wrong with it.

    Returns:
        float32 [count, C, H, W], in which the places of bad images hold nothing of use.
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
    return Fetched(transform.finish(batch), bad)


def _planned(image: OpenImage, transform: Preprocessing, numbers: Any) -> tuple[Pixels, Any, int]:
    """An image's pixels, decoded no larger than needed, what to do with them, and how much smaller they are."""
    plan = transform.plan(image.height, image.width, numbers)
    reduce = plan.reduce if image.reducible else 1
    return image.pixels(reduce, color=transform.color), plan, reduce


def _stacked(samples: list[Tensor]) -> Tensor:
    if len({sample.shape for sample in samples}) > 1:
        shapes = sorted({tuple(sample.shape) for sample in samples})
        raise DataError(
            f"the images of a batch have different shapes ({', '.join(map(str, shapes[:4]))}); give size=224 or a "
            "transform that makes them equal (batch_size=1 works without)"
        )
    return torch.stack(samples) if samples else torch.empty(0)


def kept_rule(settings: ImageSettings) -> str:
    """By what rule kept pixels are made; another rule needs other pixels.

    Args:
        settings: Those of the dataset.
    """
    return f"{_RULE} {settings.kept_side} {settings.decoded_color}"


def decode_for_cache(data: bytes, path: Path, side: int | None, color: Color) -> Pixels:
    """The pixels that are kept of an image: its shorter side made `side` if it is more than a quarter longer.

    Args:
        data: The file's content.
        path: What errors call it.
        side: The shorter side in pixels; None keeps the image as it is.
        color: "RGB" or "L".
    """
    image = open_image(data, name=str(path))
    if side is None or min(image.height, image.width) <= 1.25 * side:
        return image.pixels(color=color)
    height, width = short_side_to(image.height, image.width, side)
    reduce = reduction(image.height, image.width, height, width) if image.reducible else 1
    part = image.height / reduce, image.width / reduce
    planes = resized_part(image.pixels(reduce, color=color), *part, height, width, "bilinear")
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def transformed(transform: Transform | None, pixels: Pixels, path: Path) -> Tensor:
    """One image through a transform of the user's own, which is given a PIL image and must return a tensor.

    Args:
        transform: None gives the pixels as a tensor [C, H, W].
        pixels: uint8 [H, W, C].
        path: What errors call it.
    """
    if transform is None:  # a copy, because the pixels may be the cache's
        return torch.from_numpy(pixels).permute(2, 0, 1).clone(memory_format=torch.contiguous_format)
    picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    try:
        result = transform(picture)
    except Exception as error:
        error.add_note(f"in the transform of {path}; it is given a PIL image (v2.ToImage() makes a tensor)")
        raise
    if not isinstance(result, Tensor):
        raise DataError(
            f"the transform must return a tensor, but returned {type(result).__name__} for {path}; "
            "end it with v2.ToImage() and v2.ToDtype(torch.float32, scale=True)"
        )
    return result.as_subclass(Tensor)
