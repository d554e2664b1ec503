"""What files of a kind a folder holds: scanned once, told what was left out, kept for the next time.

A million paths are one blob of bytes and one array of ends, mapped from the kept file, so that workers share them and
a process that is spawned gets a path instead of a list. A kept scan is used again as long as no folder in it has
changed: adding, removing or renaming a file changes the time stamp of the folder it is in.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dlkit._language import Message
from dlkit._progress import Bar
from dlkit._showing import safe
from dlkit.datasets.files.decoder import Decoder
from dlkit.errors import ArgumentError, DataError, DataNotFoundError
from dlkit.reading.parsing import spelled
from dlkit.reading.targets import natural, numbered, stated_order
from dlkit.splits import Fold, Fractions
from dlkit.storage.arrays import Arrays, Kind, keep_arrays, kept_arrays
from dlkit.storage.files import home_of
from dlkit.storage.strings import PackedStrings

__all__ = ["Listing", "scan"]

#: Its version is raised by one whenever a scan would find something else in the same folder.
_KIND = Kind("scan of a folder", 4)
#: Scans of fewer files are not kept: repeating them takes a fraction of a second.
KEEP_FROM = 20_000
# A folder that changed this shortly before its scan could change again within one tick of its time stamp.
_TICK_NS = 50_000_000

_PARTS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_PART_OF = {alias: part for part, aliases in _PARTS.items() for alias in aliases}
_HIDDEN = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir", "lost+found", "$RECYCLE.BIN"})


@dataclass(frozen=True, eq=False)
class Listing:
    """The files of a folder. Pickled (for a worker that is spawned), a kept one travels as its path.

    Attributes:
        root: The folder.
        names: The files' paths below `root`, with `/`.
        targets: int64 [N], each file's class; all -1 where the folder has no classes.
        parts: uint8 [N], the place of each file's part in `part_names`.
        classes: The class names, in the order of the targets.
        part_names: Those of "train", "val", "test" that the folder is laid out in; empty for one without.
        left_out: What was not taken: a kind ("hidden", "not an image", ...) to how many and the first of them.
        kept: What this was read from, None for a scan that was not kept.
    """

    root: Path
    names: PackedStrings
    targets: Tensor
    parts: Tensor
    classes: tuple[str, ...] = ()
    part_names: tuple[str, ...] = ()
    left_out: Mapping[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    kept: Arrays | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __reduce__(self) -> Any:
        if self.kept is not None:
            return _listing, (self.kept, self.root)
        return Listing, (self.root, self.names, self.targets, self.parts, self.classes, self.part_names, self.left_out)

    def rows_of(self, part: str) -> Tensor:
        """int64, the places of the files in one of `part_names`.

        Args:
            part: Its name.

        Raises:
            ArgumentError: there is no such part.
        """
        if part not in self.part_names:
            have = f"has {', '.join(self.part_names)}" if self.part_names else "has no train, val and test folders"
            raise ArgumentError(f"part={part!r}: {self.root} {have}")
        return torch.nonzero(self.parts == self.part_names.index(part)).flatten()

    def refuse_shares(self, fractions: Fractions) -> None:
        """Refuse other `fractions` than those that the folder is laid out in."""
        laid_out = f"{self.root} is laid out in {', '.join(self.part_names)}"
        if isinstance(fractions, Fold):
            raise ArgumentError(
                f"{laid_out}, which folds would mix: cut the folder {self.root / self.part_names[0]} alone, and keep "
                "the rest for the end"
            )
        if fractions is not None:
            raise ArgumentError(
                f"{laid_out}: split() gives these parts, and each can be split further; other shares would mix them"
            )

    def told(self) -> str:
        """What was left out in one line, empty if nothing was."""
        return "; ".join(
            f"{count:,} {kind} ({', '.join(first)}{', ...' if count > len(first) else ''})"
            for kind, (count, first) in self.left_out.items()
        )


def scan(
    root: str | os.PathLike[str], kind: Decoder, *, labelled: bool = True, progress: bool = True, keep: bool = True
) -> Listing:
    """Find the files of a kind below a folder.

    Args:
        root: The folder. With `labelled`, each folder directly in it is a class, and what is in folders below belongs
            to that class; or it holds `train`, `val` and `test`, which hold the classes.
        kind: What files to take, by the endings of their names.
        labelled: False takes every such file below `root`, in natural order, without classes.
        progress: Show a bar when it takes longer than two seconds.
        keep: Keep the scan of a large folder in the cache folder, and use a kept one whose folders have not changed.

    Raises:
        DataNotFoundError: there is no such folder.
        DataError: it holds no such files, or folders beside train, val and test; the message says what was found.
    """
    folder = Path(os.path.abspath(root))
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise DataNotFoundError(f"{folder} {what}; give the folder that holds the {kind.noun}s")
    kept = _kept_path(folder, kind, labelled)
    if keep and (listing := _open_if_unchanged(kept, folder)) is not None:
        return listing
    start = time.time_ns()
    walk = _Walk(folder, kind, progress=progress)
    listing = walk.labelled() if labelled else walk.unlabelled()
    fresh = all(stamp < start - _TICK_NS for stamp in walk.stamps.values())
    if keep and fresh and len(listing) >= KEEP_FROM:
        return _keep(listing, kept, walk.stamps)
    return listing


class _Walk:
    """One pass over a folder; symbolic links are followed, each real folder is entered once."""

    def __init__(self, root: Path, kind: Decoder, *, progress: bool) -> None:
        self.root, self.kind, self.stamps, self._entered = root, kind, dict[str, int](), set[tuple[int, int]]()
        self._left_out: dict[str, tuple[int, tuple[str, ...]]] = {}
        self._bar = Bar(
            None,
            desc=Message("scanning {folder}", folder=safe(root.name, most=60)),
            unit=Message("files"),
            enabled=progress,
        )

    def unlabelled(self) -> Listing:
        names = sorted(self._files(""), key=natural)
        self._bar.close()
        if not names:
            raise DataError(f"{self.root} holds no {self.kind.noun}s{self._and_found()}")
        nothing = torch.full((len(names),), -1)
        parts = torch.zeros(len(names), dtype=torch.uint8)
        return Listing(self.root, PackedStrings.of(names), nothing, parts, left_out=self._left_out)

    def labelled(self) -> Listing:
        layout = self._layout()
        found = [self._classes(f"{folder}/") for folder in layout.values()] or [self._classes("")]
        self._bar.close()
        names = [name for part in found for own in part.values() for name in own]
        if not names:
            raise DataError(self._no_classes())
        filled = {name for part in found for name, own in part.items() if own}
        self._leave_out(empty(self.kind), [name for part in found for name in part if name not in filled])
        classes = sorted(filled, key=natural)
        labels = {name: label for label, name in enumerate(classes)}
        pairs = [(labels[name], part, len(own)) for part, by in enumerate(found) for name, own in by.items() if own]
        counts = torch.tensor([count for _, _, count in pairs])
        targets = torch.repeat_interleave(torch.tensor([label for label, _, _ in pairs]), counts)
        parts = torch.repeat_interleave(torch.tensor([part for _, part, _ in pairs], dtype=torch.uint8), counts)
        return Listing(
            self.root, PackedStrings.of(names), targets, parts, tuple(classes), tuple(layout), self._left_out
        )

    def _classes(self, prefix: str) -> dict[str, list[str]]:
        """The class folders below `prefix` in natural order, each with its files' names; NFC and NFD are one name."""
        folders, files = self._list(prefix)
        self._leave_out("outside of any class folder", [name for name in files if self.kind.fits(name)])
        self._leave_out(self._stranger, [name for name in files if not self.kind.fits(name)])
        found: dict[str, list[str]] = {}
        for folder in sorted(folders, key=natural):
            found.setdefault(spelled(folder), []).extend(sorted(self._files(f"{prefix}{folder}/")))
        return found

    def _layout(self) -> dict[str, str]:
        """The folders of a train/val/test layout by part, in this order; empty where the folders are classes."""
        folders, files = _entries(self.root)
        parts = {_PART_OF[folder.lower()]: folder for folder in sorted(folders) if folder.lower() in _PART_OF}
        if "train" not in parts or not _entries(self.root / parts["train"])[0]:
            return {}
        if beside := sorted(set(folders) - set(parts.values())):
            if len(parts) == 1:
                return {}  # a class called train, whose files are in folders
            raise DataError(
                f"{self.root} has the folders {', '.join(parts.values())} and beside them {', '.join(beside)}: "
                "are they parts, or all of them classes? Move what does not belong there, or open the parts one by one"
            )
        self.stamps[""] = os.stat(self.root).st_mtime_ns
        self._leave_out("outside of train, val and test", files)
        return {part: parts[part] for part in _PARTS if part in parts}

    def _files(self, prefix: str) -> Iterator[str]:
        """The files of the kind in a folder and in those below it, as names from the root."""
        waiting = [prefix]
        while waiting:
            prefix = waiting.pop()
            folders, files = self._list(prefix)
            waiting.extend(f"{prefix}{folder}/" for folder in folders)
            found = [f"{prefix}{name}" for name in files if self.kind.fits(name)]
            self._bar.update(len(found))
            if len(found) < len(files):
                self._leave_out(self._stranger, [f"{prefix}{name}" for name in files if not self.kind.fits(name)])
            yield from found

    def _list(self, prefix: str) -> tuple[list[str], list[str]]:
        """The names of the folders and of the regular files in a folder; links count as what they lead to."""
        folders, files = list[str](), list[str]()
        path = self.root / prefix if prefix else self.root
        status = _readable(path)
        if (status.st_dev, status.st_ino) in self._entered:
            self._leave_out("folder linked twice", [prefix])
            return folders, files
        self._entered.add((status.st_dev, status.st_ino))
        self.stamps[prefix] = status.st_mtime_ns
        hidden, odd = list[str](), list[str]()
        with os.scandir(path) as entries:
            for entry in entries:
                kind = hidden if _is_hidden(entry.name) else {"folder": folders, "file": files}.get(_kind(entry), odd)
                kind.append(entry.name)
        self._leave_out("hidden", [f"{prefix}{name}" for name in hidden])
        self._leave_out("broken link or special file", [f"{prefix}{name}" for name in odd])
        return sorted(folders), files

    @property
    def _stranger(self) -> str:
        return f"not {_a(self.kind.noun)}"

    def _leave_out(self, kind: str, names: Sequence[str]) -> None:
        if names:
            count, first = self._left_out.get(kind, (0, ()))
            self._left_out[kind] = (count + len(names), (*first, *sorted(names))[:3])

    def _and_found(self) -> str:
        found = "; ".join(f"{count:,} {kind} ({', '.join(first)})" for kind, (count, first) in self._left_out.items())
        return f" (left out: {found})" if found else ""

    def _no_classes(self) -> str:
        outside = "outside of any class folder" in self._left_out
        hint = (outside and self.kind.advice) or "one folder per class is expected"
        return f"{self.root} holds no class folders with {self.kind.noun}s: {hint}{self._and_found()}"


def _readable(folder: Path) -> os.stat_result:
    try:
        os.scandir(folder).close()
        return os.stat(folder)
    except OSError as error:
        raise DataError(
            f"the folder {folder} cannot be read: {error.strerror}; grant read permission, or leave it out"
        ) from error


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """The visible folders and the visible files in a folder."""
    _readable(folder)
    with os.scandir(folder) as found:
        entries = [entry for entry in found if not _is_hidden(entry.name)]
    folders = [entry.name for entry in entries if _kind(entry) == "folder"]
    return folders, [entry.name for entry in entries if _kind(entry) != "folder"]


def _kind(entry: os.DirEntry[str]) -> Literal["folder", "file", "other"]:
    """What an entry is or leads to."""
    try:
        return "folder" if entry.is_dir() else "file" if entry.is_file() else "other"
    except OSError:  # a link that leads to itself
        return "other"


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _HIDDEN


def empty(kind: Decoder) -> str:
    """What is told of class folders in which no file of a `kind` was found."""
    return f"class folder without any {kind.noun}"


def _a(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def _kept_path(folder: Path, kind: Decoder, labelled: bool) -> Path:
    text = f"{labelled} {kind.noun} {sorted(kind.suffixes)} {os.fsencode(folder)!r}"
    key = hashlib.sha256(text.encode()).hexdigest()[:24]
    return home_of("scans") / f"{key}.safetensors"


def _keep(listing: Listing, path: Path, stamps: Mapping[str, int]) -> Listing:
    """Write a scan for the next time and map it; where that fails the scan in memory does as well."""
    (names, offsets), (folders, folder_offsets) = listing.names.arrays(), PackedStrings.of(stamps).arrays()
    tensors = {
        "targets": listing.targets,
        "parts": listing.parts,
        "stamps": torch.tensor(list(stamps.values()), dtype=torch.int64),
        "names": torch.from_numpy(names),
        "offsets": torch.from_numpy(offsets),
        "folders": torch.from_numpy(folders),
        "folder_offsets": torch.from_numpy(folder_offsets),
    }
    about = {"classes": listing.classes, "part_names": listing.part_names, "left_out": listing.left_out}
    kept = keep_arrays(path, _KIND, tensors, {"root": os.fsencode(listing.root).hex(), **about})
    return listing if kept is None else _listing(kept, listing.root)


def _listing(kept: Arrays, root: Path) -> Listing:
    about = kept.about
    return Listing(
        root,
        PackedStrings(kept["names"].numpy(), kept["offsets"].numpy()),
        kept["targets"],
        kept["parts"],
        tuple(about["classes"]),
        tuple(about["part_names"]),
        {kind: (count, tuple(first)) for kind, (count, first) in about["left_out"].items()},
        kept,
    )


def _open_if_unchanged(path: Path, root: Path) -> Listing | None:
    """A kept scan whose folders have their time stamps still; None for one that is damaged or of another version."""
    if (kept := kept_arrays(path, _KIND)) is None:
        return None
    try:
        folders = PackedStrings(kept["folders"].numpy(), kept["folder_offsets"].numpy())
        stamps = zip(folders, kept["stamps"].tolist(), strict=True)
        if kept.about["root"] != os.fsencode(root).hex():
            return None
        if any(os.stat(root / folder).st_mtime_ns != stamp for folder, stamp in stamps):
            return None
        return _listing(kept, root)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def with_classes(listing: Listing, given: Mapping[str, int] | Sequence[str]) -> tuple[tuple[str, ...], Tensor]:
    """Classes and targets in an order that was stated: the listing's classes must all be in it.

    Args:
        listing: A labelled one.
        given: The argument `classes`, see `stated_order`.

    Raises:
        ArgumentError: numbers that are no such order, or names given twice.
        DataError: the folder has classes that are not in it.
    """
    names, places = stated_order(given), numbered(listing.classes, given, str(listing.root))
    renumbered = torch.tensor([places[name] for name in listing.classes], dtype=torch.int64)
    return tuple(names), renumbered.index_select(0, listing.targets)
