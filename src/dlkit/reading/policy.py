"""How to read, as the caller of `CSVDataset` says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dlkit.errors import ArgumentError, DataError, TooManyErrorsError
from dlkit.reading.cells import Skipped
from dlkit.reading.parsing import DEFAULT_MISSING

__all__ = ["ReadOptions"]

_ALWAYS_SKIPPED = 10  # bad rows that a small file may have whatever share of it they are


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How to read; the arguments of `CSVDataset` of the same names.

    Attributes:
        encoding: Of text files, or "auto".
        separator: Between cells, or "auto".
        names: The columns' names where there is no header row.
        missing: Cells that mean "nothing here".
        on_error: "raise" or "skip" for rows that cannot be read.
        max_errors: The share of such rows at which "skip" stops too.
    """

    encoding: str = "auto"
    separator: str = "auto"
    names: tuple[str, ...] | None = None
    missing: tuple[str, ...] = DEFAULT_MISSING
    on_error: Literal["raise", "skip"] = "raise"
    max_errors: float = 0.1

    def __post_init__(self) -> None:
        if self.on_error not in ("raise", "skip"):
            raise ArgumentError(f"on_error must be 'raise' or 'skip', not {self.on_error!r}")
        if not 0 <= self.max_errors <= 1:
            raise ArgumentError(f"max_errors is a share of the rows, from 0 to 1, not {self.max_errors}")
        if isinstance(self.missing, str):
            raise ArgumentError(f"missing must be a list of marks, not the string {self.missing!r}: [{self.missing!r}]")

    def judge(self, bad: Sequence[Skipped], rows: int, origin: str) -> None:
        """Apply the policy to records that could not be read.

        Args:
            bad: Those records.
            rows: How many there are in all.
            origin: The file, for errors.

        Raises:
            DataError: there are some, and `on_error` is "raise".
            TooManyErrorsError: there are more than `max_errors` allows.
        """
        self.stop_at(bad)
        self.check_share(bad, rows, origin)

    def stop_at(self, bad: Sequence[Skipped]) -> None:
        """Stop at the first record that could not be read, unless such are to be skipped.

        Args:
            bad: Those records.
        """
        if bad and self.on_error == "raise":
            more = f", and {len(bad) - 1} more such rows" if len(bad) > 1 else ""
            raise DataError(
                f"{' '.join(bad[0])}{more}; repair the file, or on_error='skip' leaves such rows out and lists them "
                "in .skipped"
            )

    def check_share(self, bad: Sequence[Skipped], rows: int, origin: str) -> None:
        """Stop when more rows were bad than `max_errors` allows.

        Args:
            bad: Those rows.
            rows: How many there are in all.
            origin: The file, for errors.
        """
        if len(bad) > max(_ALWAYS_SKIPPED, self.max_errors * rows):
            first = "; ".join(f"{place} {why}" for place, why in bad[:3])
            raise TooManyErrorsError(
                f"{origin}: {len(bad)} of {rows} rows cannot be read, more than max_errors={self.max_errors:g} allows; "
                f"the first: {first}"
            )
