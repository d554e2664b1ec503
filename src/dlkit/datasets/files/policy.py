"""Files that cannot be read: what is known of them, what is said, and when there are too many."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dlkit._showing import Lines
from dlkit.datasets.files.journal import ErrorJournal
from dlkit.errors import DataError, TooManyErrorsError

__all__ = ["ImageError", "check_share", "handle", "share_by_class"]


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


def share_by_class(errors: Sequence[ImageError], sizes: Mapping[str, int], size: int) -> dict[str, tuple[int, int]]:
    """Class to (left out, of how many), for the classes that lost something.

    Args:
        errors: What was left out.
        sizes: How many samples each class has; empty where there are no classes.
        size: How many samples there are.
    """
    found: dict[str, int] = {}
    for error in errors:
        found[error.class_name] = found.get(error.class_name, 0) + 1
    return {name: (count, sizes.get(name, size)) for name, count in sorted(found.items())}


def check_share(errors: Sequence[ImageError], sizes: Mapping[str, int], size: int, most: float) -> None:
    """Stop when more files than agreed cannot be read.

    Args:
        errors: What was left out.
        sizes: How many samples each class has.
        size: How many samples there are.
        most: The largest share that is accepted.

    Raises:
        TooManyErrorsError: with the share of each class and the first reasons.
    """
    if len(errors) <= most * size:
        return
    by_class = share_by_class(errors, sizes, size)
    share = ", ".join(f"{name} {bad} of {all_}" for name, (bad, all_) in by_class.items() if name)
    raise TooManyErrorsError(
        Lines.of(
            f"{len(errors)} of {size} images cannot be read, more than max_errors={most:g} allows"
            f"{f' (by class: {share})' if share else ''}:",
            *(f"  {error.reason}" for error in errors[:5]),
        )
    )
