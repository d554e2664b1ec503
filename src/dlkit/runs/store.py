"""The checkpoints of a run in a folder: an older good one goes only when a newer one is safe.

A file is written under a temporary name in the same folder, synced, renamed, and the folder synced; then the index is
written the same way; only then may a file that nobody needs any more go. Which file is the last and which the best is
written in the index, never in a copy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dlkit._language import Message
from dlkit._opening import open_regular
from dlkit.errors import (
    CheckpointError,
    DataError,
    DataNotFoundError,
    RunLockedError,
)
from dlkit.runs.checkpointfile import CheckpointWarning, load_checkpoint, save_checkpoint
from dlkit.storage.files import FileLock, sync_folder, write_json

__all__ = ["CheckpointStore", "StoredCheckpoint", "move_aside"]

FORMAT = 1
_NAME = re.compile(r"checkpoint-(\d+)-step-(\d+)\.pt")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredCheckpoint:
    """One checkpoint in the index.

    Attributes:
        file: Its name inside the folder.
        number: Counts the saves of the folder; the highest is the last.
        step: Optimizer steps.
        epoch: Finished epochs.
        value: The monitored value where this file belongs to a validation, else None.
        regular: Saved on schedule or at the end, and so counted by `keep_last`.
    """

    file: str
    number: int
    step: int
    epoch: int
    value: float | None = None
    regular: bool = True


class CheckpointStore:
    """The checkpoints of one run in one folder.

    Args:
        folder: Made when the first file is written.
        keep_last: How many of the newest to keep, at least 1. Two by default, so that a damaged one has a forerunner.
        keep_best: How many of the best to keep.
        higher_is_better: The direction of the value that decides which is best.

    >>> import tempfile
    >>> store = CheckpointStore(tempfile.mkdtemp(), keep_last=1)
    >>> store.save({"step": 1}, step=1, epoch=0, value=0.5).name
    'checkpoint-000001-step-00000001.pt'
    >>> store.last == store.best
    True
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        keep_last: int = 2,
        keep_best: int = 1,
        higher_is_better: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.keep_last, self.keep_best, self.higher_is_better = keep_last, keep_best, higher_is_better
        self._lock = FileLock(self.folder / ".lock")
        self.entries: list[StoredCheckpoint] = self._read_index()

    @property
    def last(self) -> Path | None:
        """The newest checkpoint, or None."""
        return self.folder / max(self.entries, key=_number).file if self.entries else None

    @property
    def best(self) -> Path | None:
        """The checkpoint with the best monitored value (the earliest of equals), or None."""
        best = self.best_entries(1)
        return self.folder / best[0].file if best else None

    def best_entries(self, count: int) -> list[StoredCheckpoint]:
        """The best `count` checkpoints, best first; those without a value, or with NaN, are never among them.

        Args:
            count: At most so many.
        """
        sign = -1.0 if self.higher_is_better else 1.0
        judged = [entry for entry in self.entries if entry.value is not None and not math.isnan(entry.value)]
        return sorted(judged, key=lambda entry: (sign * (entry.value or 0.0), entry.number))[:count]

    def lock(self) -> None:
        """Keep other processes out of the folder until `unlock` or the end of this process, however it ends.

        Raises:
            RunLockedError: another process trains in this folder.
            CheckpointError: the folder cannot be made or written to.
        """
        with self._usable():
            self.folder.mkdir(parents=True, exist_ok=True)
            free = self._lock.held or self._lock.acquire(timeout=0)
        if not free:
            raise RunLockedError(
                f"another process is training in {self.folder}; wait for it, stop it, or use another folder"
            )
        self.entries = self._read_index()
        with self._usable():
            self._clean()

    def follow(self) -> None:
        """Read again what is there, in a process that leaves the writing to another one of the same run."""
        self.entries = self._read_index()

    def unlock(self) -> None:
        """Let others in again."""
        self._lock.release()

    def save(
        self, state: Mapping[str, Any], *, step: int, epoch: int, value: float | None = None, regular: bool = True
    ) -> Path:
        """Write a checkpoint, then the index, then remove what is no longer needed.

        Args:
            state: See `save_checkpoint`.
            step: Optimizer steps.
            epoch: Finished epochs.
            value: The monitored value, if this is the state that was validated.
            regular: False for one that is kept only as long as it is among the best.

        Raises:
            OSError: it could not be written; all older files are still there.
        """
        number, name = self._next(step)
        self.folder.mkdir(parents=True, exist_ok=True)
        save_checkpoint(state, self.folder / name)
        entry = StoredCheckpoint(file=name, number=number, step=step, epoch=epoch, value=value, regular=regular)
        before, self.entries = self.entries, [*self.entries, entry]
        kept, gone = self._sorted_out()
        try:
            self._write_index(kept)
        except OSError:
            self.entries = before
            self._forget(name)
            raise
        self.entries = kept
        for old in gone:
            self._remove(old.file)
        return self.folder / name

    def next_stem(self, step: int) -> str:
        """The name of the next checkpoint without its ending, for files that are written before it.

        Args:
            step: Optimizer steps.
        """
        return Path(self._next(step)[1]).stem

    def loadable(self) -> Iterator[tuple[StoredCheckpoint, dict[str, Any]]]:
        """The good checkpoints, newest first; a damaged or missing one is named in a warning and passed over."""
        for entry in sorted(self.entries, key=_number, reverse=True):
            try:
                yield entry, load_checkpoint(self.folder / entry.file)
            except CheckpointError as error:
                told = Message("{error}; trying the previous one", error=error)
                warnings.warn(told, CheckpointWarning, stacklevel=3)

    def archive(self) -> Path | None:
        """Move what is here into a folder `earlier-N` beside it, so that nothing is lost; None if it is empty."""
        target = move_aside(self.folder) if self.entries else None
        self.entries = []
        return target

    def _next(self, step: int) -> tuple[int, str]:
        number = 1 + max((entry.number for entry in self.entries), default=0)
        return number, f"checkpoint-{number:06d}-step-{step:08d}.pt"

    def _remove(self, name: str) -> None:
        """A checkpoint, then what is beside it in rows."""
        (self.folder / name).unlink(missing_ok=True)
        for path in self.folder.glob(f"{Path(name).stem}.rows-*.safetensors"):
            path.unlink(missing_ok=True)

    def _sorted_out(self) -> tuple[list[StoredCheckpoint], list[StoredCheckpoint]]:
        newest = sorted((entry for entry in self.entries if entry.regular), key=_number)[-self.keep_last :]
        keep = {entry.number for entry in newest} | {entry.number for entry in self.best_entries(self.keep_best)}
        kept = [entry for entry in self.entries if entry.number in keep]
        return kept, [entry for entry in self.entries if entry.number not in keep]

    def _write_index(self, entries: list[StoredCheckpoint]) -> None:
        rows = [dataclasses.asdict(entry) for entry in entries]
        for row in rows:  # JSON has no NaN, and no infinity either
            row["value"] = None if row["value"] is None or math.isnan(row["value"]) else repr(float(row["value"]))
        write_json(self.folder / "index.json", {"format": FORMAT, "checkpoints": rows})

    def _forget(self, name: str) -> None:
        """Remove a file that the index could not take in, or a full disk would fill with more of them."""
        with contextlib.suppress(OSError):  # the caller raises what came first
            index = self.folder / "index.json"
            if not index.is_file() or name.encode() not in index.read_bytes():
                self._remove(name)

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CheckpointError(
                f"a run cannot be stored in {self.folder}: {error}; use a folder that you may write to"
            ) from error

    def _read_index(self) -> list[StoredCheckpoint]:
        path = self.folder / "index.json"
        try:
            with open_regular(path) as file:
                return [_entry(row) for row in json.loads(file.read())["checkpoints"]]
        except DataNotFoundError:
            return self._from_names()
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            if isinstance(error, DataError) and path.is_file():  # the names would not tell which is the best
                raise CheckpointError(str(error)) from error
            warnings.warn(
                f"{path} cannot be read ({error}); using the file names instead", CheckpointWarning, stacklevel=3
            )
            return self._from_names()

    def _from_names(self) -> list[StoredCheckpoint]:
        files = [path.name for path in self.folder.glob("checkpoint-*.pt") if path.is_file()]
        matches = [match for name in files if (match := _NAME.fullmatch(name))]
        entries = [
            StoredCheckpoint(file=match[0], number=int(match[1]), step=int(match[2]), epoch=0) for match in matches
        ]
        return sorted(entries, key=_number)

    def _clean(self) -> None:
        """Remove what a killed process left: temporary files, and files beside the index that it does not know.

        Such a file was either already replaced or not yet acknowledged, and a resume makes the same one again.
        """
        if (self.folder / "index.json").is_file():
            known = {entry.file for entry in self.entries}
            for entry in self._from_names():
                if entry.file not in known:
                    self._remove(entry.file)
            for path in self.folder.glob("checkpoint-*.rows-*.safetensors"):
                if f"{path.name.partition('.')[0]}.pt" not in known:
                    path.unlink(missing_ok=True)
        for pattern in (".checkpoint-*.tmp", ".index.json.*.tmp"):
            for path in self.folder.glob(pattern):
                path.unlink()


def _entry(row: dict[str, Any]) -> StoredCheckpoint:
    """A row of the index, which may have been written by anybody: a file name must not lead out of the folder."""
    if not _NAME.fullmatch(row["file"]):
        raise ValueError(f"{row['file']!r} is not a checkpoint's name")
    for name in ("number", "step", "epoch"):
        if type(row[name]) is not int or row[name] < 0:
            raise ValueError(f"{name} of {row['file']} is {row[name]!r}, not a whole number from 0 on")
    if type(row["regular"]) is not bool:
        raise ValueError(f"regular of {row['file']} is {row['regular']!r}, not true or false")
    return StoredCheckpoint(**{**row, "value": None if row["value"] is None else float(row["value"])})


def _number(entry: StoredCheckpoint) -> int:
    return entry.number


def move_aside(folder: Path) -> Path | None:
    """Move the files of a run's folder into a folder `earlier-N` in it; None if there are none.

    Args:
        folder: Of the run; it need not exist.
    """
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    files = [path for path in paths if path.is_file() and path.name != ".lock"]
    if not files:
        return None
    number = 1
    while (target := folder / f"earlier-{number}").exists():
        number += 1
    target.mkdir()
    for path in files:
        shutil.move(path, target / path.name)
    sync_folder(folder)
    return target
