"""Separator, quoting and header of a text table, found and said."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from mmap import mmap
from typing import TextIO

import numpy as np

from dlkit._encodings import Buffer
from dlkit._language import Message
from dlkit._near import hint
from dlkit._textfiles import LONGEST_LINE, control_in, csv_reader, csv_records, first_lines, line_at
from dlkit.errors import DataError
from dlkit.reading._bytes import text_stream
from dlkit.reading._decimals import decimal_of
from dlkit.reading._headers import (
    after_remarks,
    column_names,
    first_row,
    is_row_of_data,
    sample_rows,
    start_of_table,
)
from dlkit.reading.cells import DecimalMark
from dlkit.reading.policy import ReadOptions

__all__ = ["Dialect", "QuoteAudit", "ROW_NAMES", "audit_quotes", "chosen_columns", "find_dialect", "records"]

ROW_NAMES = "Unnamed: 0"  # what a first column without a name is called, as by pandas
_SEPARATORS = (",", "\t", ";", "|")
_NONE = "\x1f"  # ASCII's own unit separator: is in no text, so every line is one cell
_SAMPLE = 1 << 18
_FEW_ROWS = 10  # in which sentences may have as many commas each at random
_PIECE = 1 << 24
_JUST_ENOUGH = 0.51  # of the rows must be as wide as the header
_QUOTE, _LF, _CR = 34, 10, 13


@dataclass(frozen=True)
class QuoteAudit:
    """What a pass over all quotes found.

    Attributes:
        regular: Every quote opens a cell, closes one, or is doubled inside one, and all are closed.
        multiline: Some quoted cell holds a line break.
    """

    regular: bool
    multiline: bool


@dataclass(frozen=True)
class Dialect:
    """How a text table is written.

    Attributes:
        separator: One character between cells.
        names: The columns' names, unique and not empty.
        start: The byte at which the rows begin.
        quoted: Whether `"` quotes; otherwise it is a character like any other.
        blanks: Whether blanks between a separator and a quote are to be passed over.
        headed: Whether the first row names the columns.
        read: The columns to read.
        decimal: The decimal mark of its numbers.
        comment: What lines begin with that are not rows.
        audit: Of the quotes in the whole text, where they are known to be regular.
    """

    separator: str
    names: tuple[str, ...]
    start: int
    quoted: bool = True
    blanks: bool = False
    headed: bool = True
    read: tuple[str, ...] = ()
    decimal: DecimalMark = field(default_factory=DecimalMark)
    comment: str | None = None
    audit: QuoteAudit | None = None

    def __post_init__(self) -> None:
        if not self.read:
            object.__setattr__(self, "read", self.names)

    def records(self, text: TextIO) -> Iterator[tuple[int, list[str] | csv.Error]]:
        """The records of a text, as Python's csv module reads them strictly; see `csv_records`."""
        return csv_records(
            text,
            delimiter=self.separator,
            quoting=csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE,
            skipinitialspace=self.blanks,
            strict=True,
        )

    def __str__(self) -> str:
        shown = {_NONE: "none (one column)", "\t": "tab"}.get(self.separator, repr(self.separator))
        return (
            f"separator {shown}"
            + ("" if self.headed else ", no header row")
            + (", decimal comma" if self.decimal.sign == "," else "")
            + ("" if self.quoted else ", quotes taken as ordinary characters")
        )


def find_dialect(data: Buffer, origin: str, options: ReadOptions) -> Dialect:
    """The dialect of UTF-8 bytes, with quotes taken as quotes; `audit_quotes` says whether that is right.

    Warns:
        UserWarning: the file has no header row, and the caller did not say so.
    """
    top, said = start_of_table(data, options)
    separator = options.separator if options.separator != "auto" else said
    if separator is None:
        behind = after_remarks(data, top, options.comment or "#")
        separator = _sniff(memoryview(data)[behind:])
    first = first_row(data, top, separator, options, origin)
    if (problem := control_in("".join(first.cells), separator)) is not None:
        raise DataError(f"{origin}: its first row {problem}; write the file again without it, as from pandas")
    if not first.cells:
        raise DataError(f"{origin} has no header row: it holds nothing but blank lines")
    below = sample_rows(data, first.stop, separator)
    headed = options.heading is True or (options.heading is None and not _is_data(first.cells, below, options, origin))
    if headed:
        names, rows = column_names(first.cells), below
    else:
        names, rows = _names_of(first.cells, options, origin), [first.cells, *below]
    read = chosen_columns(names, options.columns, origin)
    return Dialect(
        separator,
        names,
        first.stop if headed else first.start,
        headed=headed,
        read=read,
        decimal=decimal_of(rows, names, read, options, origin),
        comment=options.comment,
    )


def chosen_columns(names: Sequence[str], columns: Sequence[str | int] | None, origin: str) -> tuple[str, ...]:
    """The names of the columns to read, in the table's order.

    Args:
        names: Of all columns.
        columns: Some by name or number from 0; None for all.
        origin: The file, for errors.

    Raises:
        DataError: there is no such column.
    """
    if columns is None:
        return tuple(names)
    chosen = set()
    for column in columns:
        place = int(column) if column not in names and str(column).lstrip("-").isdecimal() else None
        if (column not in names) if place is None else not -len(names) <= place < len(names):
            raise DataError(f"{origin} has no column {column!r}; {hint(column, names, has='its columns are')}")
        chosen.add(str(column) if place is None else names[place])
    return tuple(name for name in names if name in chosen)


def _is_data(first: Sequence[str], below: Sequence[Sequence[str]], options: ReadOptions, origin: str) -> bool:
    if not is_row_of_data(first, below, options.missing):
        return False
    last = len(first) - 1
    warnings.warn(
        Message(
            "{origin} seems to have no header row: its first row {first} is like the rows below. Its columns are "
            "called '0' to '{last}'; say header=False, header=[...] to name them, or header=True if these are their "
            "names",
            origin=origin,
            first=", ".join(first)[:80],
            last=last,
        ),
        UserWarning,
        stacklevel=2,
    )
    return True


def _names_of(first: Sequence[str], options: ReadOptions, origin: str) -> tuple[str, ...]:
    """The names of the columns of a file without a header row: as given, or their numbers."""
    if not isinstance(options.heading, tuple):
        return tuple(map(str, range(len(first))))
    names = column_names(options.heading)
    unlabelled = tuple(name for name in names if name not in options.optional)
    if len(first) == len(unlabelled) < len(names):
        return unlabelled
    return names


def _sniff(data: Buffer) -> str:
    """The separator under which the most records have as many cells as the first one, and more than one."""
    sample = first_lines(data, _SAMPLE)
    text = sample.decode("utf-8", "ignore")
    scores = {separator: _score(_widths(text, separator, cut=len(data) > len(sample))) for separator in _SEPARATORS}
    best = max(_SEPARATORS, key=scores.__getitem__)
    return best if scores[best][1] >= _JUST_ENOUGH else _NONE


def _score(widths: list[int]) -> tuple[bool, float, int]:
    """Whether the header is cut as well, the share of records as wide as it, and that width; the larger the better."""
    if not widths:
        return False, 0.0, 0
    width, headed = widths[0], widths[0] > 1
    if not headed:  # a header of one cell over rows of several: a broken table, not a column of sentences
        width = max(set(widths), key=widths.count)
        if len(widths) < _FEW_ROWS or widths.count(width) < 0.9 * (len(widths) - 1):
            return False, 0.0, 0
    if width == 1:
        return False, 0.0, 0
    share = round(widths.count(width) / len(widths), 2)
    # Rows that agree with each other but not with the header are a damaged table, and still one with this separator.
    share = max(share, _JUST_ENOUGH) if _agree(widths[1:]) else share
    return headed and share >= _JUST_ENOUGH, share, width


def _agree(widths: list[int]) -> bool:
    usual = max(set(widths), key=widths.count, default=1)
    return usual > 1 and widths.count(usual) >= 0.9 * len(widths)


def _widths(text: str, separator: str, *, cut: bool) -> list[int]:
    if separator not in text:
        return []
    try:
        widths = [len(record) for record in csv_reader(io.StringIO(text, newline=""), delimiter=separator) if record]
    except csv.Error:
        return []
    return widths[:-1] if cut and len(widths) > 1 else widths


def audit_quotes(data: Buffer, dialect: Dialect, origin: str = "the text") -> QuoteAudit:
    """Check every quote of the rows against the rules of RFC 4180, with a few numpy passes per piece.

    Quotes alternate between opening and closing (a doubled one closes and opens again), so each needs only a look at
    its neighbours: an opening one follows a separator, a line end or a closing quote; a closing one precedes one.

    Raises:
        DataError: a cell does not end within `LONGEST_LINE`.
    """
    if isinstance(data, bytes | bytearray | mmap) and data.find(b'"') < 0:
        return QuoteAudit(regular=True, multiline=False)
    array = np.frombuffer(data, dtype=np.uint8)[dialect.start :]
    beside = np.zeros(256, dtype=bool)
    beside[[ord(dialect.separator) if dialect.separator.isascii() else _LF, _LF, _CR, _QUOTE]] = True
    opened, multiline, last = 0, False, 0
    for start in range(0, len(array), _PIECE):
        piece = array[start : start + _PIECE]
        places = np.flatnonzero(piece == _QUOTE)
        if opened and start + int(places[0] if len(places) else len(piece)) - last > LONGEST_LINE:
            raise DataError(
                f"{origin}: the cell that begins in line {line_at(data, dialect.start + last)} does not end within "
                f"{LONGEST_LINE >> 20} MB; is a quote in it never closed?"
            )
        if not len(places):
            multiline = multiline or (opened == 1 and bool((piece == _LF).any() or (piece == _CR).any()))
            continue
        opening = (np.arange(len(places)) + opened) % 2 == 0
        neighbours = places + start + np.where(opening, -1, 1)
        inside = (neighbours >= 0) & (neighbours < len(array))
        if not beside[array[neighbours[inside]]].all():
            return QuoteAudit(regular=False, multiline=True)
        if not multiline:
            breaks = np.flatnonzero((piece == _LF) | (piece == _CR))
            multiline = bool(((np.searchsorted(places, breaks) + opened) % 2).any())
        opened, last = (opened + len(places)) % 2, start + int(places[-1])
    return QuoteAudit(regular=opened == 0, multiline=multiline)


def records(data: Buffer, dialect: Dialect) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """The rows cell by cell, each with the line it begins in (1 for the file's first); blank lines are not rows.

    A broken one has the error in its place; see `csv_records`.
    """
    header = bytes(data[: dialect.start])
    before = header.count(b"\n") or header.count(b"\r")
    for line, record in dialect.records(text_stream(memoryview(data)[dialect.start :])):
        if isinstance(record, csv.Error) or len(record) > 1 or len(dialect.names) == 1 or record[0].strip():
            yield line + before, record
