"""What becomes of rows and files that cannot be used, and how to read, as the caller of a dataset says it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypedDict

from dlkit._near import hint
from dlkit.errors import ArgumentError, DataError, TooManyErrorsError
from dlkit.reading.cells import Skipped
from dlkit.reading.parsing import DEFAULT_MISSING

__all__ = ["OF_TEXT_FILES", "ReadArguments", "ReadOptions", "RowPolicy", "TableArguments", "check_known"]

#: Arguments that say how the text of a table is to be read, and mean nothing where there is none.
OF_TEXT_FILES = ("encoding", "separator", "header", "skip_rows", "comment", "sheet")

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


class TableArguments(TypedDict, total=False):
    """How a table is read: the keyword arguments that `CSVDataset`, `ImageTable` and the command line share.

    Attributes:
        encoding: Of text files; "auto" finds UTF-8, UTF-16, cp949 (euc-kr), Shift-JIS and EUC-JP; any other is
            guessed, with a warning that names it and the next ones.
        separator: Between cells; "auto" finds comma, tab, semicolon and bar.
        header: Whether the first row names the columns; a list of names where it does not and they are known. None
            finds out, and says so in a warning where there is no such row. Columns without names are called "0", "1",
            ...; the model file remembers it.
        columns: The columns to read, by name or by number from 0; None for all.
        skip_rows: Lines (in Excel rows) above the table to skip.
        comment: What lines begin with that are not rows, such as "#". Above the header, `#` does anyway.
        decimal: The decimal mark of the file, "." or ","; "auto" goes by the cells that leave no doubt, such as "0,5":
            "1.234" beside them is a thousand.
        thousands: What groups the digits of the file's numbers: ",", ".", " " or "'"; "auto" finds out.
        sheet: Of an Excel file, by name or by number from 0; None for the first.
        missing: Cells that mean "nothing here"; an empty cell always does.
    """

    encoding: str
    separator: str
    header: bool | Sequence[str] | None
    columns: Sequence[str | int] | None
    skip_rows: int
    comment: str | None
    decimal: Literal["auto", ".", ","]
    thousands: Literal["auto", ",", ".", " ", "'"]
    sheet: str | int | None
    missing: Sequence[str]


class ReadArguments(TableArguments, total=False):
    """The same with the policy for rows that cannot be used.

    Attributes:
        on_error: "raise" stops at a row that cannot be used; "skip" leaves it out and lists it in `skipped`.
        max_errors: The share of unusable rows (ten are always allowed) at which "skip" stops too.
    """

    on_error: Literal["raise", "skip"]
    max_errors: float


@dataclass(frozen=True, kw_only=True)
class ReadOptions(RowPolicy):
    """How to read, checked: see `ReadArguments` for what the first fields mean.

    Attributes:
        encoding, separator, header, columns, skip_rows: See `TableArguments`.
        comment, decimal, thousands, sheet, missing: See `TableArguments`.
        usual_header: The names of the columns of data without a header row, where the training data had none.
        optional: Of these names those that a file may lack, all together: targets, in new data.
        usual_decimal: The decimal mark of a file whose own cells leave it open; "" for a point.
        wordy: Columns whose cells are not numbers, whatever they look like.
        numeric: The only columns that hold numbers, where that is known.
    """

    encoding: str = "auto"
    separator: str = "auto"
    header: bool | tuple[str, ...] | None = None
    columns: tuple[str | int, ...] | None = None
    skip_rows: int = 0
    comment: str | None = None
    decimal: str = "auto"
    thousands: str = "auto"
    sheet: str | int | None = None
    missing: tuple[str, ...] = DEFAULT_MISSING
    usual_header: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    usual_decimal: str = ""
    wordy: frozenset[str] = frozenset()
    numeric: frozenset[str] | None = None

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Self:
        """The options among a dataset's keyword arguments.

        Args:
            arguments: Any; those of `ReadArguments` are taken.

        Raises:
            ArgumentError: an invalid argument.
        """
        given = {name: arguments[name] for name in ReadArguments.__annotations__ if name in arguments}
        if not isinstance(given.get("header"), bool | None):
            given["header"] = _listed("header", given["header"], (str,))
        if given.get("columns") is not None:
            given["columns"] = _listed("columns", given["columns"], (str, int))
        if "missing" in given:
            given["missing"] = _listed("missing", given["missing"], (str,))
        return cls(**given)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.missing, str):
            raise ArgumentError(f"missing must be a list of marks, not the string {self.missing!r}: [{self.missing!r}]")
        if self.separator != "auto" and len(self.separator) != 1:
            raise ArgumentError(f"separator must be one character or 'auto', not {self.separator!r}")
        if not isinstance(self.skip_rows, int) or self.skip_rows < 0:
            raise ArgumentError(f"skip_rows must be a number of lines from 0 on, not {self.skip_rows!r}")
        if self.comment is not None and (not isinstance(self.comment, str) or not self.comment.strip()):
            raise ArgumentError(f"comment must be the prefix of comment lines, such as '#', not {self.comment!r}")
        if self.decimal not in ("auto", ".", ","):
            raise ArgumentError(f"decimal must be '.', ',' or 'auto', not {self.decimal!r}")
        if self.thousands not in ("auto", ",", ".", " ", "'"):
            raise ArgumentError(f"thousands must be ',', '.', ' ', \"'\" or 'auto', not {self.thousands!r}")
        if self.decimal == self.thousands != "auto":
            raise ArgumentError(f"decimal and thousands cannot both be {self.decimal!r}")

    @property
    def heading(self) -> bool | tuple[str, ...] | None:
        """Whether the first row names the columns, or their names: what the caller says, else as in the training."""
        return self.usual_header if self.usual_header and self.header in (None, False) else self.header

    def refuse(self, names: Collection[str], source: str, way: str) -> None:
        """Refuse what the caller says in vain of such a source.

        Args:
            names: Arguments that have no effect on it.
            source: What it is.
            way: What to do instead.

        Raises:
            ArgumentError: one of them was given.
        """
        usual = type(self)()
        for name in names:
            value = getattr(self, name)
            if value != getattr(usual, name) and not (name == "header" and value is True):
                raise ArgumentError(f"{name}={value!r} has no effect on {source}; {way}")

    def may_hold_numbers(self, column: str) -> bool:
        """Whether a column may hold numbers, whose decimal mark is that of the file.

        Args:
            column: Its name.
        """
        return column not in self.wordy and (self.numeric is None or column in self.numeric)

    @property
    def said_decimal(self) -> str:
        """The decimal mark that the caller said, or that follows from what groups the digits; "" for none."""
        return self.decimal if self.decimal != "auto" else {",": ".", ".": ","}.get(self.thousands, "")


def check_known(name: str, given: Mapping[str, Any], *arguments: type) -> None:
    """Refuse keyword arguments that there are not.

    Args:
        name: Of what was called.
        given: The arguments.
        arguments: The `TypedDict`s of those that there are.

    Raises:
        ArgumentError: names the one that comes closest.
    """
    known = sorted({argument for each in arguments for argument in each.__annotations__})
    if unknown := sorted(set(given) - set(known)):
        raise ArgumentError(f"{name} has no argument {unknown[0]!r}; {hint(unknown[0], known)}")


def _listed(argument: str, value: Any, kinds: tuple[type, ...]) -> tuple[Any, ...]:
    listed = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else None
    if listed is None or not all(isinstance(name, kinds) and not isinstance(name, bool) for name in listed):
        words = "strings" if kinds == (str,) else "names and numbers"
        raise ArgumentError(f"{argument} must be a list of {words}, not {value!r:.200}")
    return listed
