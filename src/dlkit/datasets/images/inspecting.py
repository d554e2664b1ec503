"""`inspect`: what is in a folder of images, before a night is spent on it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from dlkit._showing import Lines
from dlkit.datasets.files.decoder import read_with_status
from dlkit.datasets.files.listing import scan
from dlkit.datasets.files.parallel import default_threads, for_each
from dlkit.datasets.images.dataset import ImageDataset
from dlkit.datasets.images.decoding import IMAGES, open_image
from dlkit.datasets.images.folders import ImageFiles, ImageFolder
from dlkit.datasets.images.settings import ImageSettings
from dlkit.errors import DataError, DataNotFoundError
from dlkit.transforms.geometry import reduction, resized

__all__ = ["Inspection", "inspect"]

#: Two images are near duplicates if their 64-bit difference hashes differ in at most so many bits.
NEAR_BITS = 3
_SIDE = 64  # images are measured at this size


@dataclass(frozen=True, eq=False, repr=False)
class Inspection:
    """What `inspect` found. Printed, it is a table; `picture` draws one, `to_dict` gives plain data.

    Attributes:
        root: The folder.
        classes: Part (empty without parts) to class to number of files.
        sizes: int64 [N, 2], upright height and width of every readable image.
        modes: Pixel type and format, such as "RGB JPEG", to number of files.
        unreadable: `(path, reason)` of each file that cannot be decoded.
        left_out: What is not counted as an image: a kind to how many and the first of them.
        duplicates: Groups of files with equal content.
        near_duplicates: Pairs of images that look the same but are different files.
        across: Those of both kinds whose files lie in different parts, or carry different classes.
        mean: Per channel, of pixels in [0, 1], every image counted equally.
        std: Per channel.
    """

    root: Path
    classes: Mapping[str, Mapping[str, int]]
    sizes: npt.NDArray[np.int64]
    modes: Mapping[str, int]
    unreadable: Sequence[tuple[Path, str]]
    left_out: Mapping[str, tuple[int, tuple[str, ...]]]
    duplicates: Sequence[tuple[Path, ...]]
    near_duplicates: Sequence[tuple[Path, Path]]
    across: Sequence[tuple[Path, ...]]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __str__(self) -> str:
        told = [f"{self.root}: {len(self.sizes):,} readable images, {len(self.unreadable):,} unreadable"]
        for part, sizes in self.classes.items():
            told.append(f"{part or 'classes'} ({len(sizes)}): " + _few([f"{n} {c:,}" for n, c in sizes.items()], 12))
        if len(self.sizes):
            told += [_measures("height", self.sizes[:, 0]), _measures("width", self.sizes[:, 1])]
        told.append("kinds: " + _few([f"{mode} {count:,}" for mode, count in self.modes.items()], 8))
        numbers = (f"({', '.join(f'{value:.3f}' for value in values)})" for values in (self.mean, self.std))
        told.append("mean {} std {}".format(*numbers))
        told += [f"left out: {count:,} {kind} ({_few(first, 3)})" for kind, (count, first) in self.left_out.items()]
        told += _listed("unreadable", [reason for _, reason in self.unreadable])
        told += _listed("equal files", [self._group(group) for group in self.duplicates])
        told += _listed("near duplicates", [self._group(group) for group in self.near_duplicates])
        told += _listed("of these in different parts or classes", [self._group(group) for group in self.across])
        return Lines.of(*told)

    def __repr__(self) -> str:
        return str(self)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data that JSON can hold; files are named as seen from the folder."""

        def names(groups: Iterable[Iterable[Path]]) -> list[list[str]]:
            return [[_below(path, self.root) for path in group] for group in groups]

        return {
            "root": str(self.root),
            "readable": len(self.sizes),
            "classes": {part: dict(sizes) for part, sizes in self.classes.items()},
            "height": _span(self.sizes[:, 0]),
            "width": _span(self.sizes[:, 1]),
            "modes": dict(self.modes),
            "mean": list(self.mean),
            "std": list(self.std),
            "unreadable": [{"file": _below(path, self.root), "reason": reason} for path, reason in self.unreadable],
            "left_out": {
                kind: {"count": count, "first": list(first)} for kind, (count, first) in self.left_out.items()
            },
            "duplicates": names(self.duplicates),
            "near_duplicates": names(self.near_duplicates),
            "across": names(self.across),
        }

    def _group(self, group: Iterable[Path]) -> str:
        return " = ".join(_below(path, self.root) for path in group)

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


def inspect(
    data: str | os.PathLike[str] | ImageDataset, *, threads: int | None = None, progress: bool = True
) -> Inspection:
    """Read every image of a folder once and report classes, sizes, kinds, bad files, duplicates, mean and deviation.

    Near duplicates are pairs whose difference hashes (8x9 grey pixels, compared with their right neighbours: Krawetz
    2013) differ in at most 3 of 64 bits; flat images, whose hashes say little, are left out of that.

    Args:
        data: A folder with classes, with train/val/test, or with images only; or an image dataset.
        threads: How many threads decode; None for all cores.
        progress: Show a bar when it takes longer than two seconds.

    Raises:
        DataNotFoundError: there is no such folder.
        DataError: it holds no images.

    >>> import tempfile; from PIL import Image; folder = Path(tempfile.mkdtemp())
    >>> for name in ("a/1.png", "a/2.png", "b/3.png"):
    ...     (folder / name).parent.mkdir(exist_ok=True); Image.effect_noise((40, 30), 50).save(folder / name)
    >>> report = inspect(folder); report.classes, len(report.duplicates)
    ({'': {'a': 2, 'b': 1}}, 0)
    """
    dataset = data if isinstance(data, ImageDataset) else _opened(data, progress)
    rows = dataset.indices.tolist()
    paths = [dataset._path(row) for row in rows]
    found: list[_Facts | None] = [None] * len(paths)
    bad: dict[int, str] = {}
    bar = tqdm(total=len(paths), desc="inspecting", unit=" images", delay=2.0, disable=not progress, leave=False)

    def work(place: int) -> None:
        try:
            found[place] = _Facts(paths[place], dataset.settings)
        except DataError as error:
            bad[place] = str(error)
        bar.update()

    for_each(work, len(paths), threads or default_threads())
    bar.close()
    return _summed(dataset, rows, paths, found, bad)


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


def _opened(root: str | os.PathLike[str], progress: bool) -> ImageDataset:
    """The folder as whatever it is: with classes, else as plain files."""
    try:
        return ImageFolder(root, progress=progress)
    except DataNotFoundError:
        raise
    except DataError:
        return ImageFiles(root, progress=progress)


def _summed(
    dataset: ImageDataset, rows: list[int], paths: list[Path], found: list[_Facts | None], bad: dict[int, str]
) -> Inspection:
    good = [(place, facts) for place, facts in enumerate(found) if facts is not None]
    labels = _labels(dataset, rows)
    equal = defaultdict[bytes, list[int]](list)
    for place, facts in good:
        equal[facts.content].append(place)
    groups = [places for places in equal.values() if len(places) > 1]
    pairs = _near_pairs([(place, facts) for place, facts in good if equal[facts.content][0] == place])
    across = [group for group in [*groups, *map(list, pairs)] if len({labels[place] for place in group}) > 1]
    mean = np.mean([facts.mean for _, facts in good], axis=0) if good else np.zeros(3)
    square = np.mean([facts.square for _, facts in good], axis=0) if good else np.zeros(3)
    counted = Counter(labels)
    classes: dict[str, dict[str, int]] = {part: {} for part in dict.fromkeys(part for part, _ in sorted(counted))}
    for part, name in labels:
        if name:
            classes[part].setdefault(name, counted[(part, name)])
    return Inspection(
        root=dataset.root,
        classes=classes,
        sizes=np.array([facts.size for _, facts in good], np.int64).reshape(-1, 2),
        modes=dict(Counter(facts.mode for _, facts in good).most_common()),
        unreadable=[(paths[place], reason) for place, reason in sorted(bad.items())],
        left_out=getattr(dataset, "left_out", {}),
        duplicates=[tuple(paths[place] for place in group) for group in groups],
        near_duplicates=[(paths[first], paths[second]) for first, second in pairs],
        across=[tuple(paths[place] for place in group) for group in across],
        mean=tuple(float(value) for value in mean),
        std=tuple(float(value) for value in np.sqrt(np.maximum(0, square - mean**2))),
    )


def _labels(dataset: ImageDataset, rows: list[int]) -> list[tuple[str, str]]:
    """Part and class of each sample, empty where there are none."""
    listing = getattr(dataset, "_listing", None)
    parts = [""] * len(rows)
    if listing is not None and listing.part_names:
        parts = [listing.part_names[int(listing.parts[row])] for row in rows]
    return [(part, dataset._class_of(row)) for part, row in zip(parts, rows, strict=True)]


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
    return f"{name}: {values.min():,} to {values.max():,} px, {int(np.median(values)):,} in the middle"


def _span(values: npt.NDArray[np.int64]) -> dict[str, int] | None:
    if not len(values):
        return None
    return {"min": int(values.min()), "median": int(np.median(values)), "max": int(values.max())}


def _listed(title: str, items: Sequence[str]) -> list[str]:
    if not items:
        return []
    more = [f"  and {len(items) - 10:,} more"] if len(items) > 10 else []
    return [f"{title}: {len(items):,}", *(f"  {item}" for item in items[:10]), *more]


def _few(items: Sequence[str], most: int) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most:,} more" if len(items) > most else "")


def _below(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
