"""`inspect`: what is in a folder of images, before a night is spent on it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dlkit._language import Message
from dlkit._showing import few
from dlkit.datasets.files.decoder import read_with_status
from dlkit.datasets.files.inspecting import FileInspection, look, span
from dlkit.datasets.files.listing import scan
from dlkit.datasets.images.dataset import ImageDataset
from dlkit.datasets.images.decoding import IMAGES, open_image
from dlkit.datasets.images.settings import ImageSettings
from dlkit.errors import DataError
from dlkit.transforms.geometry import reduction, resized

__all__ = ["ImageInspection", "inspect_images"]

#: Two images are near duplicates if their 64-bit difference hashes differ in at most so many bits.
NEAR_BITS = 3
_SIDE = 64  # images are measured at this size


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ImageInspection(FileInspection):
    """What `inspect` found in images; `picture` draws some of them. The other attributes are those of all files.

    Attributes:
        sizes: int64 [N, 2], upright height and width of every readable image.
        modes: Pixel type and format, such as "RGB JPEG", to number of files.
        near_duplicates: Pairs of images that look the same but are different files.
        mean: Per channel, of pixels in [0, 1], every image counted equally.
        std: Per channel.
    """

    kind, noun = "images", Message("image")

    sizes: npt.NDArray[np.int64]
    modes: Mapping[str, int]
    near_duplicates: Sequence[tuple[Path, Path]]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def _measured(self) -> list[str]:
        told = list[str]()
        if len(self.sizes):
            told += [_measures(Message("height"), self.sizes[:, 0]), _measures(Message("width"), self.sizes[:, 1])]
        kinds = few([f"{mode} {count:,}" for mode, count in self.modes.items()], 8)
        mean, std = (f"({', '.join(f'{value:.3f}' for value in values)})" for values in (self.mean, self.std))
        return [*told, Message("kinds: {kinds}", kinds=kinds), Message("mean {mean} std {std}", mean=mean, std=std)]

    def _groups(self) -> Mapping[str, Sequence[Sequence[Path]]]:
        return {Message("near duplicates"): self.near_duplicates}

    def _plain(self) -> dict[str, Any]:
        return {
            "height": span(self.sizes[:, 0]),
            "width": span(self.sizes[:, 1]),
            "modes": dict(self.modes),
            "mean": list(self.mean),
            "std": list(self.std),
            "near_duplicates": self._names(self.near_duplicates),
        }

    def picture(self, path: str | os.PathLike[str] | None = None, *, columns: int = 8) -> Any:
        """Up to four images of every class (twelve classes at most) in one figure of matplotlib.

        Args:
            path: Where to save it; None only returns the figure.
            columns: Images per row.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        from dlkit.plots import sample_grid

        dataset = scan(self.root, IMAGES, labelled=bool(next(iter(self.classes.values()), {})), progress=False)
        images, labels = list[Any](), list[int]()
        bad = {path for path, _ in self.unreadable}
        for label in range(max(1, len(dataset.classes)))[:12]:
            rows = torch.nonzero(dataset.targets == (label if dataset.classes else -1)).flatten()
            chosen = rows[torch.linspace(0, len(rows) - 1, min(8, len(rows))).long()].tolist()
            readable = [row for row in chosen if self.root / dataset.names[row] not in bad][:4]
            images += [_thumbnail(self.root / dataset.names[row]) for row in readable]
            labels += [label] * len(readable)
        if not images:
            raise DataError(f"{self.root} has no readable image to show")
        return sample_grid(
            images, labels if dataset.classes else None, classes=dataset.classes or None, columns=columns, path=path
        )


def inspect_images(dataset: ImageDataset, *, threads: int | None = None, progress: bool = True) -> ImageInspection:
    """Read every image once; see `dlkit.datasets.inspect`.

    Near duplicates are pairs whose difference hashes (8x9 grey pixels, compared with their right neighbours: Krawetz
    2013) differ in at most 3 of 64 bits; flat images, whose hashes say little, are left out of that.

    Args:
        dataset: The images.
        threads: How many threads decode; None for all cores.
        progress: Show a bar when it takes longer than two seconds.
    """
    seen = look(dataset, lambda path: _Facts(path, dataset.settings), threads=threads, progress=progress)
    groups = seen.equal(lambda facts: facts.content)
    copies = {place for group in groups for place in group[1:]}
    pairs = _near_pairs([(place, facts) for place, facts in seen.facts.items() if place not in copies])
    good = list(seen.facts.values())
    mean = np.mean([facts.mean for facts in good], axis=0) if good else np.zeros(3)
    square = np.mean([facts.square for facts in good], axis=0) if good else np.zeros(3)
    return seen.told(
        ImageInspection,
        groups,
        [list(pair) for pair in pairs],
        sizes=np.array([facts.size for facts in good], np.int64).reshape(-1, 2),
        modes=dict(Counter(facts.mode for facts in good).most_common()),
        near_duplicates=[(seen.paths[first], seen.paths[second]) for first, second in pairs],
        mean=tuple(float(value) for value in mean),
        std=tuple(float(value) for value in np.sqrt(np.maximum(0, square - mean**2))),
    )


class _Facts:
    """What is measured of one image."""

    __slots__ = ("content", "difference", "mean", "mode", "size", "square")

    def __init__(self, path: Path, settings: ImageSettings) -> None:
        data, _ = read_with_status(path)
        image = settings.open(data, str(path))
        self.content = hashlib.blake2b(data, digest_size=16).digest()
        self.size, self.mode = (image.height, image.width), f"{image.mode} {image.format}"
        reduce = reduction(image.height, image.width, _SIDE, _SIDE) if image.reducible else 1
        pixels = image.pixels(reduce)
        small = resized(pixels, min(_SIDE, pixels.shape[0]), min(_SIDE, pixels.shape[1]), "bilinear")
        # The deviation is that of the pixels themselves: a small copy is smoother than its image.
        values = pixels.reshape(-1, 3)[:: max(1, pixels.size // 3 // 20_000)].astype(np.float64) / 255
        self.mean, self.square = values.mean(0), (values**2).mean(0)
        self.difference = _difference_hash(small)


def _difference_hash(planes: npt.NDArray[np.uint8]) -> int | None:
    """64 bits: whether each of 8x8 grey fields is brighter than its right neighbour; None for a flat image."""
    grey = np.ascontiguousarray(planes.astype(np.float32).mean(0).round().astype(np.uint8)[:, :, None])
    fields = resized(grey, 8, 9, "bilinear")[0].astype(int)
    bits = (fields[:, :-1] > fields[:, 1:]).flatten()
    if fields.max() - fields.min() < 16 or not 4 <= int(bits.sum()) <= 60:
        return None
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _near_pairs(images: Sequence[tuple[int, _Facts]]) -> list[tuple[int, int]]:
    """Pairs at most `NEAR_BITS` apart: two hashes that differ in 3 bits agree in one of their four quarters."""
    hashes = {place: facts.difference for place, facts in images if facts.difference is not None}
    buckets = defaultdict[tuple[int, int], list[int]](list)
    pairs: set[tuple[int, int]] = set()
    for place, bits in hashes.items():
        for quarter in range(NEAR_BITS + 1):
            bucket = buckets[(quarter, bits >> (16 * quarter) & 0xFFFF)]
            pairs.update((other, place) for other in bucket[-200:] if (hashes[other] ^ bits).bit_count() <= NEAR_BITS)
            bucket.append(place)
    return sorted(pairs)


def _thumbnail(path: Path, side: int = 160) -> npt.NDArray[np.uint8]:
    image = open_image(path)
    share = side / max(image.height, image.width)
    height, width = max(1, round(image.height * share)), max(1, round(image.width * share))
    reduce = reduction(image.height, image.width, height, width) if image.reducible else 1
    return resized(image.pixels(reduce), height, width, "bilinear")


def _measures(name: str, values: npt.NDArray[np.int64]) -> str:
    least, most, middle = int(values.min()), int(values.max()), int(np.median(values))
    return Message(
        "{name}: {least:,} to {most:,} px, {middle:,} in the middle", name=name, least=least, most=most, middle=middle
    )
