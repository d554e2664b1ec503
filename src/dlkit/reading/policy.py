"""What becomes of rows and files that cannot be used, and how to read, as the caller of a dataset says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dlkit.errors import ArgumentError, DataError, TooManyErrorsError
from dlkit.reading.cells import Skipped
from dlkit.reading.parsing import DEFAULT_MISSING

__all__ = ["ReadOptions", "RowPolicy"]

_ALWAYS_SKIPPED = 10  # bad rows that a small source may have whatever share of it they are


@dataclass(frozen=True, kw_only=True)
class RowPolicy:
    """What becomes of rows and files that cannot be used; the same for tables, texts, images and sounds.

    Attributes:
        on_error: "raise" stops at the first; "skip" leaves them out and lists them in `.skipped`.
        max_errors: The share of them at which "skip" stops too; ten are always allowed.
    """

    on_error: Literal["raise", "skip"] = "raise"
    max_errors: float = 0.1

    def __post_init__(self) -> None:
        if self.on_error not in ("raise", "skip"):
            raise ArgumentError(f"on_error must be 'raise' or 'skip', not {self.on_error!r}")
        if not isinstance(self.max_errors, int | float) or not 0 <= self.max_errors <= 1:
            raise ArgumentError(f"max_errors is a share of the rows, from 0 to 1, not {self.max_errors!r}")

    def judge(self, bad: Sequence[Skipped], total: int, origin: str, noun: str = "rows") -> None:
        """Apply the policy to what could not be read.

        Args:
            bad: The rows or files.
            total: How many there are in all, good and bad.
            origin: Where they come from, for errors.
            noun: What they are.

        Raises:
            DataError: there are some, and `on_error` is "raise".
            TooManyErrorsError: there are more than `max_errors` allows.
        """
        self.stop_at(bad, noun)
        self.check_share(bad, total, origin, noun)

    def stop_at(self, bad: Sequence[Skipped], noun: str = "rows") -> None:
        """Stop at the first, unless such are to be skipped.

        Args:
            bad: What could not be read.
            noun: What they are.

        Raises:
            DataError: there are some, and `on_error` is "raise".
        """
        if bad and self.on_error == "raise":
            more = f", and {len(bad) - 1} more such {noun}" if len(bad) > 1 else ""
            raise DataError(
                f"{bad[0]}{more}; repair the file, or on_error='skip' leaves such {noun} out and lists them in .skipped"
            )

    def check_share(
        self, bad: Sequence[Skipped], total: int, origin: str, noun: str = "rows", *, detail: str = ""
    ) -> None:
        """Stop when more could not be read than `max_errors` allows.

        Args:
            bad: What could not be read.
            total: How many there are in all, good and bad.
            origin: Where they come from, for errors.
            noun: What they are.
            detail: More to say about them, in brackets.

        Raises:
            TooManyErrorsError: there are more.
        """
        if len(bad) > max(_ALWAYS_SKIPPED, self.max_errors * total):
            raise TooManyErrorsError(
                f"{origin}: {len(bad)} of {total} {noun} cannot be read, more than max_errors={self.max_errors:g} "
                f"allows{detail and f' ({detail})'}; the first: {'; '.join(map(str, bad[:3]))}"
            )


@dataclass(frozen=True, kw_only=True)
class ReadOptions(RowPolicy):
    """How to read; the arguments of `CSVDataset` of the same names.

    Attributes:
        encoding: Of text files, or "auto".
        separator: Between cells, or "auto".
        names: The columns' names where there is no header row.
        missing: Cells that mean "nothing here".
    """

    encoding: str = "auto"
    separator: str = "auto"
    names: tuple[str, ...] | None = None
    missing: tuple[str, ...] = DEFAULT_MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.missing, str):
            raise ArgumentError(f"missing must be a list of marks, not the string {self.missing!r}: [{self.missing!r}]")
