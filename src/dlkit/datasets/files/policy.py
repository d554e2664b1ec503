"""Files that cannot be read: what is known of them, what is said, and how many are too many."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from dlkit.datasets.files.journal import ErrorJournal
from dlkit.errors import DataError
from dlkit.reading.cells import Skipped

__all__ = ["handle", "skipped_file", "tell"]


def skipped_file(path: Path, told: str) -> Skipped:
    """A file that cannot be read, as the policy for rows and files has it.

    Args:
        path: The file.
        told: The error, with or without the file's name in front.
    """
    return Skipped(str(path), None, told.removeprefix(str(path)).removeprefix(":").strip())


def handle(journal: ErrorJournal | None, rows: Sequence[int], bad: Mapping[int, str]) -> list[str]:
    """Raise, or write down what is left out; returns the reasons that are new.

    Args:
        journal: None where an unreadable file stops the run.
        rows: The rows of a batch.
        bad: Position in the batch to reason.

    Raises:
        DataError: there is no journal.
    """
    if journal is None:
        raise DataError(f"{bad[min(bad)]} (on_error='skip' leaves unreadable files out)")
    return list(journal.add({rows[place]: reason for place, reason in sorted(bad.items())}).values())


def tell(reasons: Sequence[str]) -> None:
    """Say what was left out, once per file.

    Args:
        reasons: From `handle`.
    """
    for reason in reasons:
        warnings.warn(f"left out for good: {reason}", UserWarning, stacklevel=5)
