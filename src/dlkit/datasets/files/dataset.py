"""Many files, decoded by threads straight into the batch; what `FileFolder` and `ImageFolder` are made of."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from dlkit._cores import default_threads, for_each
from dlkit._html import escaped
from dlkit.datasets.base import Indices, Samples, as_index_tensor, several, shown
from dlkit.datasets.files.cache import ArrayCache, open_cache
from dlkit.datasets.files.content import content_keys
from dlkit.datasets.files.fetching import Fetch, Uneven
from dlkit.datasets.files.journal import ErrorJournal, skipped_file
from dlkit.datasets.files.listing import Listing
from dlkit.datasets.files.memory import BatchMemory
from dlkit.datasets.files.settings import FileSettings
from dlkit.errors import ArgumentError, DataError, EmptyBatchError
from dlkit.reading.cells import Skipped
from dlkit.reading.targets import check_same_classes
from dlkit.splits import Fractions, split_indices
from dlkit.storage.identity import of_files, of_parts, of_tensor, of_transform
from dlkit.storage.strings import PackedStrings

__all__ = ["FileDataset"]

Transform = Callable[[Any], Any]


class FileDataset(Dataset[Any]):
    """Files of one kind, with or without targets; made by `FileFolder`, and by the datasets of images.

    Works in any `DataLoader`, which gets whole batches: with 0 workers they are decoded by threads of this process,
    with 1 worker by threads of that one. Batches are the same for any number of threads and workers.

    Args:
        root: The folder that the names lead from.
        names: The files' paths below it.
        targets: int64 [N], float32 [N] or [N, K]; None for unlabelled files.
        classes: The class names in the order of the targets; empty for regression and unlabelled files.
        settings: What to do with the files.

    Raises:
        MissingExtraError: there are files that need a package which is not installed.
    """

    #: `dlkit.DataLoader` hands over index tensors instead of lists of Python integers.
    takes_index_tensors = True
    #: How a batch is fetched.
    fetch: ClassVar[type[Fetch]] = Fetch
    #: What can be said of the files.
    SETTINGS: ClassVar[type[FileSettings]] = FileSettings

    def __init__(
        self, root: Path, names: PackedStrings, targets: Tensor | None, classes: Sequence[str], settings: Any
    ) -> None:
        settings.check_names(names)
        self.root, self.settings = root, settings
        self.classes = list(classes)
        self.class_to_idx = {name: label for label, name in enumerate(self.classes)}
        self._names, self._targets = names, targets
        self._rows: Tensor | None = None
        self._journal = ErrorJournal() if settings.on_error == "skip" else None
        self._memory = BatchMemory()
        self._cache = self._open_cache()

    _cache: ArrayCache | None
    #: The scan of a folder that names and targets were read from, where there is one.
    _listing: Listing | None = None
    #: Those of "train", "val", "test" that the folder is laid out in.
    parts: Sequence[str] = ()

    def __getstate__(self) -> dict[str, Any]:
        """For a worker that is spawned: a kept listing travels as its path, and its names and targets with it."""
        if self._listing is None:
            return self.__dict__
        left_out = {"_names", "_targets"} if self._targets is self._listing.targets else {"_names"}
        return {name: value for name, value in self.__dict__.items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if (listing := state.get("_listing")) is not None:
            self._names, self._targets = listing.names, listing.targets
        self.__dict__.update(state)

    def _open_cache(self) -> ArrayCache | None:
        settings = self.settings
        return open_cache(settings.cache, size=len(self._names), rule=settings.rule or "", budget=settings.cache_bytes)

    @property
    def transform(self) -> Transform | None:
        """What makes a sample of a file's array; its `spec_of` goes into the model file."""
        transform: Transform | None = self.settings.transform
        return transform

    @property
    def draws_random(self) -> bool:
        """Whether fetching draws random numbers: `dlkit.DataLoader` then seeds every batch."""
        transform = self.settings.transform
        random: bool = getattr(transform, "draws_random", transform is not None)
        return random or self.settings.batch_transform is not None

    @property
    def draws_seeded(self) -> bool:
        """Whether all that is drawn comes from the streams that dlkit seeds; not known of a custom transform."""
        ours = (self.settings.transform, self.settings.batch_transform)
        return all(each is None or type(each).__module__.startswith("dlkit.transforms") for each in ours)

    @property
    def leaves_out(self) -> bool:
        """Whether a batch may have fewer samples than asked for, because unreadable files are left out."""
        return self._journal is not None

    @property
    def needs_no_worker(self) -> bool:
        """Whether `dlkit.DataLoader` may fetch a first batch in the main process while spawned workers start.

        Not with a custom transform, which may count on being in a worker.
        """
        return not self.settings.own_transform

    @property
    def targets(self) -> Tensor | None:
        """The targets of the samples, in order; None for unlabelled files."""
        return (
            self._targets if self._rows is None or self._targets is None else self._targets.index_select(0, self._rows)
        )

    @property
    def indices(self) -> Tensor:
        """int64 [N], where the samples are in the whole dataset."""
        return torch.arange(len(self._names)) if self._rows is None else self._rows

    @property
    def identity(self) -> str | None:
        """One name for these samples prepared this way, by which stored features are found again in the next run.

        Files count with path, size and time. None where it cannot be known, as with a transform made in place.
        """
        settings = self.settings
        told = [of_transform(settings.transform), of_transform(settings.batch_transform), settings.rule]
        files = of_files(map(self._path, self.indices.tolist()))
        return None if files is None or None in told else of_parts(files, of_tensor(self.targets), told)

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

    def __getitem__(self, index: Any) -> Any:
        """One sample: `(inputs, target)`, the inputs alone where there are no targets; a batch for several indices."""
        if several(index):
            return default_collate(self.__getitems__(index))
        inputs, targets, _ = self._fetch_some([index])
        return inputs[0] if targets is None else (inputs[0], targets[0])

    def __getitems__(self, indices: Indices) -> list[Any]:
        """The samples at `indices` as a list that `default_collate` takes whole; bad files left out by policy."""
        inputs, targets, _ = self._fetch_some(indices)
        settings = self.settings
        if isinstance(inputs, list) and len(inputs):
            uneven = Uneven(inputs, targets, settings.kind.noun, settings.evened)
            return uneven if settings.batch_transform is None else uneven.whole()
        if settings.batch_transform is not None:
            if targets is None:
                raise ArgumentError(
                    f"batch_transform needs targets, which unlabelled {settings.kind.noun}s do not have"
                )
            inputs, targets = settings.batch_transform(inputs, targets)
            inputs = self._memory.sendable(inputs)
        return Samples(inputs, targets)

    def _fetch_some(self, indices: Indices) -> tuple[Any, Tensor | None, int]:
        """As `_fetch`, of indices in this dataset, and never nothing."""
        rows = self._row_tensor(indices)
        inputs, targets, count = self._fetch(rows)
        if len(rows) and not count:
            raise EmptyBatchError(
                f"all {len(rows)} samples of a batch cannot be read, so nothing is left of it; dlkit.DataLoader and "
                "the Trainer leave such a batch out, and ds.without_errors() (after ds.verify()) has only readable "
                f"ones. The first: {self._known()[int(rows[0])]}"
            )
        return inputs, targets, count

    def _fetch(self, rows: Tensor) -> tuple[Any, Tensor | None, int]:
        """Inputs, targets and how many there are."""
        listed = rows.tolist()
        inputs, bad, whole, targets = self._fetching().read(listed)
        if targets is None and self._targets is not None:
            targets = self._targets.index_select(0, rows)
        if not bad:
            return inputs, targets, len(listed)
        self._leave_out(listed, bad)
        good = torch.tensor([place for place in range(len(listed)) if place not in bad], dtype=torch.int64)
        if whole:
            inputs = inputs.index_select(0, good)
        return inputs, None if targets is None else targets.index_select(0, good), len(good)

    def _fetching(self) -> Fetch:
        return self.fetch(
            path_of=self._path,
            settings=self.settings,
            cache=self._cache,
            memory=self._memory,
            threads=self._threads(),
            known=self._known(),
        )

    def _leave_out(self, rows: list[int], bad: dict[int, str]) -> None:
        """Raise, or write down what is left out and say so, once per file."""
        if self._journal is None:
            raise DataError(f"{bad[min(bad)]} (on_error='skip' leaves unreadable files out)")
        self._journal.leave_out(rows, bad, self._check_share)

    # What cannot be read

    @property
    def skipped(self) -> list[Skipped]:
        """The files of this dataset that could not be read and were left out, in any worker, so far."""
        return [skipped_file(self._path(row), told) for row, told in sorted(self._own(self._known()).items())]

    def skipped_by_class(self) -> dict[str, tuple[int, int]]:
        """Class to (left out, of how many), for the classes that lost something: is the balance still fair?"""
        found = Counter(self._class_of(row) for row in self._own(self._known()))
        return {name: (count, self.counts.get(name, len(self))) for name, count in sorted(found.items())}

    def verify(self) -> list[Skipped]:
        """Decode every file once, in threads, and return what cannot be read; with `on_error="skip"` it is left out.

        Raises:
            TooManyErrorsError: with `on_error="skip"`, more than `max_errors` cannot be read.
        """
        _, bad = self._of_all(self.settings.check)
        if self._journal is not None:
            self._journal.add(bad)
            self._check_share()
        return [skipped_file(self._path(row), told) for row, told in bad.items()]

    def shapes(self) -> list[tuple[int, ...]]:
        """The shape of each sample's array before the transform, read in threads; for samplers that sort by length.

        Raises:
            DataError: a file cannot be read; `without_errors` leaves such files out.
        """
        found, bad = self._of_all(self.settings.measure)
        if bad:
            raise DataError(bad[min(bad)])
        return found

    def _of_all(self, read: Callable[[Path], Any]) -> tuple[list[Any], dict[int, str]]:
        """Read every file in threads: what came of it, and what is wrong with which rows."""
        rows = self.indices.tolist()
        found, bad = [None] * len(rows), dict[int, str]()

        def work(place: int) -> None:
            try:
                found[place] = read(self._path(rows[place]))
            except DataError as error:
                bad[rows[place]] = str(error)

        for_each(work, len(rows), self._threads())
        return found, dict(sorted(bad.items()))

    def without_errors(self) -> Self:
        """The same dataset without the files that are known to be unreadable (`verify` finds them all)."""
        known = self._known()
        rows = self.indices
        good = torch.tensor([row not in known for row in rows.tolist()], dtype=torch.bool)
        return self._with(_rows=rows[good])

    def _known(self) -> Mapping[int, str]:
        return self._journal.read() if self._journal is not None else {}

    def _own(self, known: Mapping[int, str]) -> Mapping[int, str]:
        if self._rows is None or not known:
            return known
        places = torch.tensor(list(known))
        own = torch.isin(places, self._rows)
        return {row: known[row] for row in places[own].tolist()}

    def _check_share(self) -> None:
        settings, known = self.settings, self._known()
        most = settings.max_errors * len(self)
        if len(known) <= most or len(self._own(known)) <= most:
            return
        lost = ", ".join(f"{name} {bad} of {all_}" for name, (bad, all_) in self.skipped_by_class().items() if name)
        detail = f"by class: {lost}" if lost else ""
        settings.check_share(self.skipped, len(self), str(self.root), f"{settings.kind.noun}s", detail=detail)

    def _class_of(self, row: int) -> str:
        if not self.classes or self._targets is None or self._targets.is_floating_point():
            return ""
        return self.classes[int(self._targets[row])]

    # Parts

    def split(
        self,
        fractions: Fractions = None,
        *,
        stratify: bool = True,
        group: Any = None,
        dedupe: bool | None = None,
        time: Any = None,
        seed: int = 0,
        transform: Sequence[Transform | None] | None = None,
    ) -> tuple[Self, ...]:
        """Cut the dataset into parts; only the first one, meant for training, keeps the augmentation.

        Args:
            fractions: The share of the first part, the second one getting the rest; or all shares, which sum to 1;
                None for the parts of a train/val/test layout, and without one for 0.8, 0.1 and 0.1. Or a
                `dlkit.splits.Fold`.
            stratify: Every part has each class in the same share. Without classes it does nothing.
            group: One key per sample (a patient, a camera), a function of its path, or the column of a table that names
                the files: samples with equal keys never fall into different parts.
            dedupe: Files of equal content never fall into different parts. Only files of equal size are read for it.
                None is True for files.
            time: One date or number per sample, a function of its path, or a column as for `group`: the first part has
                the earliest samples, the last one the latest.
            seed: Another seed gives another split of the same sizes.
            transform: One transform (or None) for each part. By default all have this dataset's, without `augment` and
                `batch_transform` from the second part on.

        Raises:
            ArgumentError: shares for a folder that is laid out in parts; and see `dlkit.splits.split_indices`.
        """
        if self._listing is not None and self.parts:
            self._listing.refuse_shares(fractions)
            laid_out = self._parts([self._listing.rows_of(part) for part in self.parts], transform)
            for part in laid_out:
                part.parts = []
            return laid_out
        parts = split_indices(
            len(self),
            fractions,
            stratify=self.targets if stratify and self.counts else None,
            class_names=self.classes,
            group=self._one_each("group", group),
            dedupe=content_keys(self._paths(), self._threads()) if dedupe is None or dedupe else None,
            time=self._one_each("time", time),
            seed=seed,
        )
        chosen = [self.indices.index_select(0, torch.from_numpy(part)) for part in parts]
        return self._parts(chosen, transform)

    def _one_each(self, name: str, given: Any) -> Any:
        if isinstance(given, str):
            raise ArgumentError(f"{name} must be one key for each file, or a function of its path, not {given!r}")
        return [given(path) for path in self._paths()] if callable(given) else given

    def _parts(self, chosen: Sequence[Tensor], transform: Sequence[Transform | None] | None) -> tuple[Self, ...]:
        settings = self.settings.of_parts(len(chosen), transform)
        return tuple(self._with(_rows=rows, settings=own) for rows, own in zip(chosen, settings, strict=True))

    def with_transform(self, transform: Transform | None) -> Self:
        """The same samples with another transform.

        Args:
            transform: See the options of the dataset.
        """
        return self._with(settings=dataclasses.replace(self.settings, transform=transform))

    def check_classes(self, model: Any) -> None:
        """Make sure that a model's outputs mean what the targets here mean.

        Args:
            model: Something with `classes`, or the class names in the order of the outputs.

        Raises:
            DataError: another order, or other classes; each difference is named.
        """
        check_same_classes(getattr(model, "classes", model), self.classes)

    # Inner matters

    def _threads(self) -> int:
        return self.settings.threads or default_threads()

    def _path(self, row: int) -> Path:
        path: Path = self.root / self._names[row]
        return path

    def _paths(self) -> list[Path]:
        return [self._path(row) for row in self.indices.tolist()]

    def _row_tensor(self, indices: Indices) -> Tensor:
        tensor = as_index_tensor(indices, len(self))
        return tensor if self._rows is None else self._rows.index_select(0, tensor)

    def sample_html(self, index: int) -> str:
        """One sample as a person would want to see it, for notebooks and reports.

        Args:
            index: The sample's position in this dataset.
        """
        return escaped(self.path(index).name)

    def _repr_html_(self) -> str:
        return shown(self)

    def _with(self, **changes: Any) -> Self:
        changed = object.__new__(type(self))
        changed.__dict__.update(self.__dict__ | {"_memory": BatchMemory()} | changes)
        if self._cache is not None and changed.settings.rule != self.settings.rule:
            changed._cache = changed._open_cache()  # other arrays are kept for another size
        return changed

    def __repr__(self) -> str:
        part = "" if self._rows is None else f" of {len(self._names):,}"
        kind = f", {len(self.classes)} classes" if self.classes else ""
        bad = f", {len(self._own(self._known()))} left out" if self._known() else ""
        kinds = getattr(self, "left_out", {})  # of the scan, where there was one
        told = f"; not taken: {', '.join(f'{count:,} {kind}' for kind, (count, _) in kinds.items())}" if kinds else ""
        noun = self.settings.kind.noun
        return f"{type(self).__name__}({len(self):,}{part} {noun}s{kind}{bad}{told}; {self.root})"
