"""Images in files, decoded by threads straight into the batch; what `ImageFolder` and `ImageTable` are made of."""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from dlkit._identity import of_files, of_parts, of_tensor, of_transform
from dlkit.datasets.base import Indices, Rows, as_index_tensor
from dlkit.datasets.images.cache import PixelCache, open_cache
from dlkit.datasets.images.decoding import Color, open_image, read_with_status
from dlkit.datasets.images.journal import ErrorJournal
from dlkit.datasets.images.parallel import BatchMemory, default_threads, for_each
from dlkit.datasets.images.profiling import profile_of
from dlkit.datasets.images.settings import ImageSettings, Transform
from dlkit.datasets.letters.packfile import Names
from dlkit.errors import ArgumentError, DataError, TooManyErrorsError
from dlkit.splits import split_indices
from dlkit.transforms import Preprocessing
from dlkit.transforms.geometry import reduction, resized_part, short_side_to

__all__ = ["ImageDataset", "ImageError"]

Pixels = npt.NDArray[np.uint8]


class ImageError(NamedTuple):
    """A file that could not be read and was left out.

    Attributes:
        path: The file.
        reason: Why, in one sentence.
        class_name: Its class; empty where there are no classes.
    """

    path: Path
    reason: str
    class_name: str


class _Batch(NamedTuple):
    """What was read: the samples, and what could not be (position in the batch to error)."""

    images: Any
    bad: dict[int, str]


class ImageDataset(Dataset[Any]):
    """Images in files, with or without targets; made by `ImageFolder`, `ImageTable` and `ImageFiles`.

    Works in any `DataLoader`, which gets whole batches: with 0 workers they are decoded by threads of this process,
    with 1 worker by threads of that one. Batches are the same for any number of threads and workers.

    Args:
        root: The folder that the names lead from.
        names: The files' paths below it.
        targets: int64 [N], float32 [N] or [N, K]; None for unlabelled images.
        classes: The class names in the order of the targets; empty for regression and unlabelled images.
        settings: What to do with the files.
    """

    #: `dlkit.DataLoader` hands over index tensors instead of lists of Python integers.
    takes_index_tensors = True

    def __init__(
        self, root: Path, names: Names, targets: Tensor | None, classes: Sequence[str], settings: ImageSettings
    ) -> None:
        self.root, self.settings = root, settings
        self.classes = list(classes)
        self.class_to_idx = {name: label for label, name in enumerate(self.classes)}
        self._names, self._targets = names, targets
        self._rows: Tensor | None = None
        self._journal = ErrorJournal() if settings.on_error == "skip" else None
        self._memory = BatchMemory()
        self._cache = self._open_cache()

    _cache: PixelCache | None

    def _open_cache(self) -> PixelCache | None:
        settings = self.settings
        return open_cache(settings.cache, size=len(self._names), rule=self._rule(), budget=settings.cache_bytes)

    @property
    def transform(self) -> Transform | None:
        """What makes a sample of an image; its `spec_of` goes into the model file."""
        return self.settings.transform

    @property
    def draws_random(self) -> bool:
        """Whether fetching draws random numbers: `dlkit.DataLoader` then seeds every batch."""
        transform = self.settings.transform
        random = transform.draws_random if isinstance(transform, Preprocessing) else transform is not None
        return random or self.settings.batch_transform is not None

    @property
    def targets(self) -> Tensor | None:
        """The targets of the samples, in order; None for unlabelled images."""
        return (
            self._targets if self._rows is None or self._targets is None else self._targets.index_select(0, self._rows)
        )

    @property
    def indices(self) -> Tensor:
        """int64 [N], where the samples lie in the whole dataset."""
        return torch.arange(len(self._names)) if self._rows is None else self._rows

    @property
    def identity(self) -> str | None:
        """One name for these samples prepared this way, by which stored features are found again in the next run.

        Files count with path, size and time. None where it cannot be known, as with a transform made in place.
        """
        settings = self.settings
        transforms = [of_transform(settings.transform), of_transform(settings.batch_transform)]
        files = of_files(map(self._path, self.indices.tolist()))
        if files is None or None in transforms:
            return None
        rule = self._rule() if self._cache is not None else settings.color
        return of_parts(files, of_tensor(self.targets), transforms, rule)

    @property
    def counts(self) -> dict[str, int]:
        """How many samples each class has."""
        if not self.classes or self.targets is None or self.targets.is_floating_point():
            return {}
        sizes = torch.bincount(self.targets, minlength=len(self.classes)).tolist()
        return dict(zip(self.classes, sizes, strict=True))

    def path(self, index: int) -> Path:
        """The file of a sample.

        Args:
            index: The sample's position in this dataset.
        """
        return self._path(int(self._row_tensor([index])[0]))

    def __len__(self) -> int:
        return len(self._names) if self._rows is None else len(self._rows)

    def __getitem__(self, index: int) -> Any:
        """One sample: `(image, target)`, or the image alone where there are no targets."""
        images, targets, _ = self._fetch(self._row_tensor([index]))
        return images[0] if targets is None else (images[0], targets[0])

    def __getitems__(self, indices: Indices) -> Rows:
        """The samples at `indices` as a list that `default_collate` takes whole; bad files left out by policy."""
        images, targets, whole = self._fetch(self._row_tensor(indices))
        if not whole:
            raise DataError(
                f"all {len(indices)} samples of a batch cannot be read, so nothing is left of it; "
                f"ds.without_errors() (after ds.verify()) has only readable ones. The first: {self.errors[0].reason}"
            )
        if self.settings.batch_transform is not None:
            if targets is None:
                raise ArgumentError("batch_transform needs targets, which unlabelled images have not")
            images, targets = self.settings.batch_transform(images, targets)
        return Rows(images, targets)

    def _fetch(self, rows: Tensor) -> tuple[Any, Tensor | None, int]:
        """Images, targets and how many there are."""
        listed = rows.tolist()
        transform = self.settings.transform
        read = self._read_prepared if isinstance(transform, Preprocessing) else self._read_one_by_one
        images, bad = read(listed)
        targets = None if self._targets is None else self._targets.index_select(0, rows)
        if not bad:
            return images, targets, len(listed)
        self._handle(listed, bad)
        good = torch.tensor([place for place in range(len(listed)) if place not in bad], dtype=torch.int64)
        images = images.index_select(0, good) if isinstance(transform, Preprocessing) and len(good) else images
        return images, None if targets is None else targets.index_select(0, good), len(good)

    def _read_prepared(self, rows: list[int]) -> _Batch:
        """Decode, crop, resize and normalise in threads, each image into its place in the batch."""
        transform = self.settings.transform
        assert isinstance(transform, Preprocessing)
        known, bad = self._known(), dict[int, str]()
        table = transform.draw(len(rows))
        batch = self._memory.take((len(rows), *transform.shape))
        out = batch.numpy()

        def work(place: int) -> None:
            row = rows[place]
            if row in known:
                bad[place] = known[row]
                return
            numbers = None if table is None else table[place]
            try:
                pixels, plan, reduce = self._planned_pixels(row, transform, numbers)
            except DataError as error:
                bad[place] = str(error)
                return
            transform.write(pixels, plan, out[place], reduce=reduce)

        self._in_threads(work, len(rows))
        return _Batch(transform.finish(batch), bad)

    def _planned_pixels(self, row: int, transform: Preprocessing, numbers: Any) -> tuple[Pixels, Any, int]:
        if self._cache is not None:
            pixels = self._kept_pixels(row)
            return pixels, transform.plan(pixels.shape[0], pixels.shape[1], numbers), 1
        path = self._path(row)
        image = open_image(path)
        plan = transform.plan(image.height, image.width, numbers)
        reduce = plan.reduce if image.reducible else 1
        return image.pixels(reduce, color=transform.color), plan, reduce

    def _kept_pixels(self, row: int) -> Pixels:
        """From the cache; else decoded by the cache's rule, so that the first epoch sees what later ones will see."""
        assert self._cache is not None
        pixels = self._cache.get(row, self._path)
        if pixels is None:
            path = self._path(row)
            data, status = read_with_status(path)
            pixels = decode_for_cache(data, path, self._side(), self._color())
            self._cache.put(row, self._cache.key(path, status), pixels)
        return pixels

    def _in_threads(self, work: Callable[[int], None], count: int) -> None:
        """Run `work` for each place of a batch, with the cache open for reading, and write what it has to keep."""
        if self._cache is not None:
            self._cache.begin()
        for_each(work, count, self._threads())
        if self._cache is not None:
            self._cache.flush()

    def _read_one_by_one(self, rows: list[int]) -> _Batch:
        """Decode in threads; run the user's transform here, in order, because it may draw random numbers."""
        known, bad = self._known(), dict[int, str]()
        decoded: list[Any] = [None] * len(rows)

        def work(place: int) -> None:
            row = rows[place]
            try:
                if row in known:
                    raise DataError(known[row])
                if self._cache is not None:
                    decoded[place] = self._kept_pixels(row)
                else:
                    decoded[place] = open_image(self._path(row)).pixels(color=self.settings.color)
            except DataError as error:
                bad[place] = str(error)

        self._in_threads(work, len(rows))
        samples = [
            self._transformed_alone(pixels, self._path(row))
            for pixels, row in zip(decoded, rows, strict=True)
            if pixels is not None
        ]
        if len({sample.shape for sample in samples}) > 1:
            shapes = sorted({tuple(sample.shape) for sample in samples})
            raise DataError(
                f"the images of a batch have different shapes ({', '.join(map(str, shapes[:4]))}); give size=224 or a "
                "transform that makes them equal (batch_size=1 works without)"
            )
        return _Batch(torch.stack(samples) if samples else torch.empty(0), bad)

    # What cannot be read

    @property
    def errors(self) -> list[ImageError]:
        """The files of this dataset that could not be read and were left out, in any worker, so far."""
        return [
            ImageError(self._path(row), reason, self._class_of(row)) for row, reason in self._own(self._known()).items()
        ]

    def errors_by_class(self) -> dict[str, tuple[int, int]]:
        """Class to (left out, of how many), for the classes that lost something: is the balance still fair?"""
        found: dict[str, int] = {}
        for error in self.errors:
            found[error.class_name] = found.get(error.class_name, 0) + 1
        sizes = self.counts
        return {name: (count, sizes.get(name, len(self))) for name, count in sorted(found.items())}

    def verify(self) -> list[ImageError]:
        """Decode every file once, in threads, and return what cannot be read; with `on_error="skip"` it is left out.

        Raises:
            TooManyErrorsError: with `on_error="skip"`, more than `max_errors` cannot be read.
        """
        bad: dict[int, str] = {}
        rows = self.indices.tolist()

        def work(place: int) -> None:
            try:
                open_image(self._path(rows[place])).pixels()
            except DataError as error:
                bad[rows[place]] = str(error)

        for_each(work, len(rows), self._threads())
        if self._journal is not None:
            for row, reason in sorted(bad.items()):
                self._journal.add(row, reason)
            self._check_share()
        return [ImageError(self._path(row), reason, self._class_of(row)) for row, reason in sorted(bad.items())]

    def without_errors(self) -> Self:
        """The same dataset without the files that are known to be unreadable (`verify` finds them all)."""
        known = self._known()
        rows = self.indices
        good = torch.tensor([row not in known for row in rows.tolist()], dtype=torch.bool)
        return self._with(_rows=rows[good])

    def _known(self) -> dict[int, str]:
        return self._journal.read() if self._journal is not None else {}

    def _own(self, known: dict[int, str]) -> dict[int, str]:
        if self._rows is None or not known:
            return known
        rows = set(self._rows.tolist())
        return {row: reason for row, reason in known.items() if row in rows}

    def _handle(self, rows: list[int], bad: dict[int, str]) -> None:
        """Raise, or write down what is left out and say so, once per file."""
        if self._journal is None:
            place = min(bad)
            raise DataError(f"{bad[place]} (on_error='skip' leaves unreadable files out)")
        known = self._journal.read()
        new = {rows[place]: reason for place, reason in sorted(bad.items()) if rows[place] not in known}
        for row, reason in new.items():
            self._journal.add(row, reason)
        if new:
            self._check_share()
            for reason in new.values():
                warnings.warn(f"left out for good: {reason}", UserWarning, stacklevel=4)

    def _check_share(self) -> None:
        errors = self.errors
        if len(errors) > self.settings.max_errors * len(self):
            shown = "\n  ".join(error.reason for error in errors[:5])
            share = ", ".join(f"{name} {bad} of {all_}" for name, (bad, all_) in self.errors_by_class().items() if name)
            raise TooManyErrorsError(
                f"{len(errors)} of {len(self)} images cannot be read, more than "
                f"max_errors={self.settings.max_errors:g} allows{f' (by class: {share})' if share else ''}:\n  {shown}"
            )

    def _class_of(self, row: int) -> str:
        if not self.classes or self._targets is None or self._targets.is_floating_point():
            return ""
        return self.classes[int(self._targets[row])]

    # Parts

    def split(
        self,
        fraction: float | Sequence[float],
        *,
        stratify: bool = True,
        groups: Any = None,
        dedupe: bool = True,
        seed: int = 0,
        transform: Sequence[Transform | None] | None = None,
    ) -> tuple[Self, ...]:
        """Cut the dataset into parts; only the first one, meant for training, keeps the augmentation.

        Args:
            fraction: The share of the first part, the second one getting the rest; or all shares, which sum to 1.
            stratify: Every part has each class in the same share. Without classes it does nothing.
            groups: One key per sample (a patient, a camera), or a function of its path: samples with equal keys never
                fall into different parts.
            dedupe: Files of equal content never fall into different parts. Only files of equal size are read for it.
            seed: Another seed gives another split of the same sizes.
            transform: One transform (or None) for each part. By default all have this dataset's, without `augment` and
                `batch_transform` from the second part on.

        Raises:
            ArgumentError: see `dlkit.splits.split_indices`.
        """
        if callable(groups):
            groups = [groups(self._path(row)) for row in self.indices.tolist()]
        parts = split_indices(
            len(self),
            fraction,
            stratify=self.targets if stratify and self.counts else None,
            groups=groups,
            dedupe=self._content_keys() if dedupe else None,
            seed=seed,
        )
        chosen = [self.indices.index_select(0, torch.from_numpy(part)) for part in parts]
        return self._parts(chosen, transform)

    def _parts(self, chosen: Sequence[Tensor], transform: Sequence[Transform | None] | None) -> tuple[Self, ...]:
        if transform is None:
            settings = [self.settings, *[self.settings.for_evaluation()] * (len(chosen) - 1)]
        elif not isinstance(transform, Sequence) or len(transform) != len(chosen):
            raise ArgumentError(
                f"transform= of a split takes one transform or None for each of its {len(chosen)} parts"
            )
        else:
            settings = [dataclasses.replace(self.settings, transform=own) for own in transform]
            settings[1:] = [dataclasses.replace(own, batch_transform=None) for own in settings[1:]]
        return tuple(self._with(_rows=rows, settings=own) for rows, own in zip(chosen, settings, strict=True))

    def with_transform(self, transform: Transform | None) -> Self:
        """The same samples with another transform.

        Args:
            transform: See `ImageSettings`.
        """
        return self._with(settings=dataclasses.replace(self.settings, transform=transform))

    def check_classes(self, model: Any) -> None:
        """Make sure that a model's outputs mean what the targets here mean.

        Args:
            model: Something with `classes`, or the class names in the order of the outputs.

        Raises:
            DataError: another order, or other classes; each difference is named.
        """
        theirs = list(getattr(model, "classes", model))
        if theirs == self.classes:
            return
        missing, extra = (
            [name for name in first if name not in second]
            for first, second in ((theirs, self.classes), (self.classes, theirs))
        )
        if not missing and not extra:
            raise DataError(
                f"the model has the same {len(theirs)} classes in another order, so its outputs would be read wrongly; "
                f"open the data with class_to_idx={theirs[:5]!r}{'...' if len(theirs) > 5 else ''}"
            )
        raise DataError(
            f"the model and the data have different classes: only the model has {missing or 'none'}, "
            f"only the data has {extra or 'none'}; class_to_idx=model.classes takes the model's order"
        )

    def _content_keys(self) -> npt.NDArray[np.int64]:
        """Equal numbers for files of equal content; a file whose size no other has need not be read."""
        rows = self.indices.tolist()
        sizes = np.array([_size_of(self._path(row)) for row in rows], dtype=np.int64)
        _, inverse, counts = np.unique(sizes, return_inverse=True, return_counts=True)
        keys: list[Any] = list(range(len(rows)))

        def work(place: int) -> None:
            if counts[inverse[place]] > 1 and sizes[place] >= 0:
                with open(self._path(rows[place]), "rb") as file:
                    keys[place] = hashlib.file_digest(file, "sha256").digest()

        for_each(work, len(rows), self._threads())
        seen: dict[Any, int] = {}
        return np.array([seen.setdefault(key, len(seen)) for key in keys], dtype=np.int64)

    # Where the time goes

    def profile(self, samples: int = 64) -> str:
        """Where the time goes: reading, decoding, resizing, handing over, sample after sample; and what helps.

        Args:
            samples: How many are measured, spread over the dataset; each once, so the files should be as cold or warm
                as they are in training.
        """
        count = min(samples, len(self))
        rows = self.indices[torch.linspace(0, len(self) - 1, count).long()].tolist()
        paths = [self._path(row) for row in rows]
        return profile_of(paths, self.settings.transform, self._transformed_alone, self._threads())

    def _transformed_alone(self, pixels: Pixels, path: Path) -> Tensor:
        return transformed(self.settings.transform, pixels, path)

    # Inner matters

    def _side(self) -> int | None:
        """What the shorter side of a kept image becomes; None keeps all."""
        if self.settings.cache_side is not None:
            return self.settings.cache_side
        transform = self.settings.transform
        if not isinstance(transform, Preprocessing):
            return None
        # A random crop takes half the area on average, so 1.5 times the size still has its pixels.
        return max(transform.resize or 0, round(1.5 * max(transform.size)))

    def _color(self) -> Color:
        transform = self.settings.transform
        return transform.color if isinstance(transform, Preprocessing) else self.settings.color

    def _rule(self) -> str:
        """By what rule kept pixels were made; another rule needs other pixels."""
        return f"{_RULE} {self._side()} {self._color()}"

    def _threads(self) -> int:
        return self.settings.threads or default_threads()

    def _path(self, row: int) -> Path:
        path: Path = self.root / self._names[row]
        return path

    def _row_tensor(self, indices: Indices) -> Tensor:
        tensor = as_index_tensor(indices, len(self))
        return tensor if self._rows is None else self._rows.index_select(0, tensor)

    def _with(self, **changes: Any) -> Self:
        changed = object.__new__(type(self))
        changed.__dict__.update(self.__dict__ | {"_memory": BatchMemory()} | changes)
        if self._cache is not None and changed._rule() != self._rule():
            changed._cache = changed._open_cache()  # other pixels are kept for another size
        return changed

    def __repr__(self) -> str:
        part = "" if self._rows is None else f" of {len(self._names):,}"
        kind = f", {len(self.classes)} classes" if self.classes else ""
        left_out = f", {len(self.errors)} left out" if self.errors else ""
        return f"{type(self).__name__}({len(self):,}{part} images{kind}{left_out}; {self.root})"


#: Raised by one whenever the pixels that are kept for a file would change.
_RULE = "1"


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


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def transformed(transform: Transform | None, pixels: Pixels, path: Path) -> Tensor:
    """One image through a transform of the user's own, which is given a PIL image and must return a tensor.

    Args:
        transform: None gives the pixels as a tensor [C, H, W].
        pixels: uint8 [H, W, C].
        path: What errors call it.
    """
    if transform is None:
        return (
            torch.from_numpy(pixels).permute(2, 0, 1).clone(memory_format=torch.contiguous_format)
        )  # may be the cache's
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
