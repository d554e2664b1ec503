"""Files that cannot be read: a list that all workers of a dataset share, and what is said of them."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dlkit._language import Message
from dlkit.reading.cells import Skipped

__all__ = ["ErrorJournal", "skipped_file"]


class ErrorJournal:
    """Which samples could not be read and why, for every process that has the dataset.

    The file lives as long as the journal of the process that made it. Lines are appended in one write each, so that
    processes do not cut into one another's.

    >>> journal = ErrorJournal(); journal.add({3: "broken"}), journal.add({3: "broken"}), journal.read()
    ({3: 'broken'}, {}, {3: 'broken'})
    """

    def __init__(self) -> None:
        descriptor, path = tempfile.mkstemp(prefix="dlkit-errors-", suffix=".jsonl")
        os.close(descriptor)
        self.path = Path(path)
        self._known: dict[int, str] = {}
        self._read = 0
        weakref.finalize(self, _remove, self.path, os.getpid())

    def add(self, found: Mapping[int, str]) -> dict[int, str]:
        """Note which samples cannot be read, in one write, and return those that were not known yet.

        Args:
            found: A sample's place in the whole dataset, to the reason in one sentence.
        """
        known = self.read()
        new = {row: reason for row, reason in found.items() if row not in known}
        if new:
            with open(self.path, "ab", buffering=0) as file:
                file.write(b"".join(json.dumps(pair).encode() + b"\n" for pair in new.items()))
        return new

    def leave_out(self, rows: Sequence[int], bad: Mapping[int, str], check: Callable[[], None]) -> None:
        """Note the bad samples of a batch, and say of each new one, once, that it is left out.

        Args:
            rows: Of the batch.
            bad: Position in the batch to reason.
            check: Called where there are new ones; raises if they are too many.
        """
        new = self.add({rows[place]: reason for place, reason in sorted(bad.items())})
        if new:
            check()
        for reason in new.values():
            warnings.warn(Message("left out permanently: {reason}", reason=reason), UserWarning, stacklevel=5)

    def read(self) -> Mapping[int, str]:
        """All that is known: place to reason, in the order in which it was found."""
        with contextlib.suppress(FileNotFoundError):  # the process that made it has ended
            size = os.stat(self.path).st_size
            if size > self._read:
                with open(self.path, "rb") as file:
                    file.seek(self._read)
                    lines = file.read(size - self._read)
                whole = lines[: lines.rfind(b"\n") + 1]
                for line in whole.splitlines():
                    row, reason = json.loads(line)
                    self._known.setdefault(row, reason)
                self._read += len(whole)
        return self._known


def skipped_file(path: Path, told: str) -> Skipped:
    """A file that cannot be read, as the policy for rows and files has it.

    Args:
        path: The file.
        told: The error, with or without the file's name in front.
    """
    return Skipped(str(path), None, told.removeprefix(str(path)).removeprefix(":").strip())


def _remove(path: Path, process: int) -> None:
    if os.getpid() == process:
        with contextlib.suppress(OSError):
            path.unlink()
