"""What a look at every file of a dataset finds, whatever kind of files they are."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from dlkit._cores import default_threads, for_each
from dlkit._html import Shown
from dlkit._language import Message
from dlkit._progress import Bar
from dlkit._showing import Lines, few
from dlkit.datasets.files.dataset import FileDataset
from dlkit.errors import DataError

__all__ = ["FileInspection", "Seen", "listed", "look", "span"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FileInspection(Shown):
    """What `inspect` found. Printed, it is a table; `to_dict` gives plain data.

    Attributes:
        root: The folder.
        classes: Part (empty without parts) to class to number of files.
        readable: How many files can be decoded.
        unreadable: `(path, reason)` of each file that cannot be decoded.
        left_out: What is not counted as such a file: a kind to how many and the first of them.
        duplicates: Groups of files with equal content.
        across: Groups of files whose content is the same or nearly so, and that are in different parts, or carry
            different classes.
    """

    root: Path
    classes: Mapping[str, Mapping[str, int]]
    readable: int
    unreadable: Sequence[tuple[Path, str]]
    left_out: Mapping[str, tuple[int, tuple[str, ...]]]
    duplicates: Sequence[tuple[Path, ...]]
    across: Sequence[tuple[Path, ...]]

    #: What such data is.
    kind: ClassVar[str] = "files"
    #: What messages call one such file.
    noun: ClassVar[str] = Message("file")
    #: What is equal in `duplicates`.
    equal: ClassVar[str] = Message("equal files")

    def _measured(self) -> list[str]:
        """Lines on what was measured of the readable files."""
        return []

    def _groups(self) -> Mapping[str, Sequence[Sequence[Path]]]:
        """More groups of files to tell, by title."""
        return {}

    def _plain(self) -> dict[str, Any]:
        """What was measured, as plain data."""
        return {}

    def __str__(self) -> str:
        readable = {"place": self.root, "count": self.readable, "bad": len(self.unreadable)}
        told: list[str] = [
            Message("{place}: {count:,} readable {noun}s, {bad:,} unreadable", noun=self.noun, **readable)
        ]
        for part, sizes in self.classes.items():
            names = few([f"{n} {c:,}" for n, c in sizes.items()], 12)
            title = part or Message("classes")
            told.append(Message("{title} ({count}): {names}", title=title, count=len(sizes), names=names))
        told += self._measured()
        for kind, (count, first) in self.left_out.items():
            told.append(Message("left out: {count:,} {what} ({names})", count=count, what=kind, names=few(first, 3)))
        told += listed(Message("unreadable"), [reason for _, reason in self.unreadable])
        across = Message("of these in different parts or classes")
        groups = {self.equal: self.duplicates, **self._groups(), across: self.across}
        for title, found in groups.items():
            told += listed(title, [" = ".join(self._below(path) for path in group) for group in found])
        return Lines.of(*told).plain()

    def __repr__(self) -> str:
        return str(self)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data that JSON can hold; files are named as seen from the folder."""
        return {
            "root": str(self.root),
            "readable": self.readable,
            "classes": {part: dict(sizes) for part, sizes in self.classes.items()},
            **self._plain(),
            "unreadable": [{"file": self._below(path), "reason": reason} for path, reason in self.unreadable],
            "left_out": {
                kind: {"count": count, "first": list(first)} for kind, (count, first) in self.left_out.items()
            },
            "duplicates": self._names(self.duplicates),
            "across": self._names(self.across),
        }

    def _names(self, groups: Iterable[Iterable[Path]]) -> list[list[str]]:
        return [[self._below(path) for path in group] for group in groups]

    def _below(self, path: Path) -> str:
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)


Inspected = TypeVar("Inspected", bound=FileInspection)


@dataclass(frozen=True, eq=False)
class Seen:
    """What was measured of each file of a dataset; made by `look`.

    Attributes:
        dataset: The dataset.
        paths: Its files.
        facts: Place in `paths` to what was measured, of readable files, in order.
        labels: Part and class of each file, empty where there are none.
        bad: Place to what is wrong with the file.
    """

    dataset: FileDataset
    paths: list[Path]
    facts: dict[int, Any]
    labels: list[tuple[str, str]]
    bad: dict[int, str]

    def equal(self, content: Callable[[Any], Hashable]) -> list[list[int]]:
        """Groups of places whose files have equal `content`, which is found from what was measured."""
        groups = defaultdict[Hashable, list[int]](list)
        for place, facts in self.facts.items():
            groups[content(facts)].append(place)
        return [places for places in groups.values() if len(places) > 1]

    def files(self, places: Iterable[int]) -> tuple[Path, ...]:
        """The files at some `places`."""
        return tuple(self.paths[place] for place in places)

    def told(self, kind: type[Inspected], groups: list[list[int]], near: list[list[int]], **own: Any) -> Inspected:
        """All of it as an inspection.

        Args:
            kind: Of inspection.
            groups: Places of files with equal content.
            near: Places of files whose content is nearly the same.
            own: The fields that this kind adds.
        """
        counted = Counter(self.labels)
        classes: dict[str, dict[str, int]] = {part: {} for part in dict.fromkeys(part for part, _ in sorted(counted))}
        for part, name in self.labels:
            if name:
                classes[part].setdefault(name, counted[(part, name)])
        across = [group for group in [*groups, *near] if len({self.labels[place] for place in group}) > 1]
        return kind(
            root=self.dataset.root,
            classes=classes,
            readable=len(self.facts),
            unreadable=[(self.paths[place], reason) for place, reason in sorted(self.bad.items())],
            left_out=getattr(self.dataset, "left_out", {}),
            duplicates=[self.files(group) for group in groups],
            across=[self.files(group) for group in across],
            **own,
        )


def look(dataset: FileDataset, measure: Callable[[Path], Any], *, threads: int | None, progress: bool) -> Seen:
    """Measure every file of a dataset, in threads.

    Args:
        dataset: The dataset.
        measure: What is measured of a file; raises a `DataError` where it cannot be read.
        threads: How many; None for all cores.
        progress: Show a bar when it takes longer than two seconds.
    """
    rows = dataset.indices.tolist()
    paths = [dataset._path(row) for row in rows]
    found: list[Any] = [None] * len(paths)
    bad: dict[int, str] = {}
    bar = Bar(len(paths), desc=Message("inspecting"), unit=Message("files"), enabled=progress)

    def work(place: int) -> None:
        try:
            found[place] = measure(paths[place])
        except DataError as error:
            bad[place] = str(error)
        bar.update()

    for_each(work, len(paths), threads or default_threads())
    bar.close()
    facts = {place: each for place, each in enumerate(found) if each is not None}
    return Seen(dataset, paths, facts, _labels(dataset, rows), bad)


def _labels(dataset: FileDataset, rows: list[int]) -> list[tuple[str, str]]:
    """Part and class of each sample, empty where there are none."""
    listing, parts = dataset._listing, [""] * len(rows)
    if listing is not None and listing.part_names:
        parts = [listing.part_names[int(listing.parts[row])] for row in rows]
    return [(part, dataset._class_of(row)) for part, row in zip(parts, rows, strict=True)]


def span(values: npt.NDArray[Any]) -> dict[str, Any] | None:
    """The smallest, middle and largest of some `values`, None where there are none."""
    if not len(values):
        return None
    kind = int if values.dtype.kind in "iu" else float
    return {"min": kind(values.min()), "median": kind(np.median(values)), "max": kind(values.max())}


def listed(title: str, items: Sequence[str]) -> list[str]:
    """Lines of the first `items` under a `title`; no line where there are none."""
    if not items:
        return []
    more = [Message("  and {count:,} more", count=len(items) - 10)] if len(items) > 10 else []
    return [Message("{title}: {count:,}", title=title, count=len(items)), *(f"  {item}" for item in items[:10]), *more]
