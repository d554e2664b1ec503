"""Separator, quoting and header of a text table, found and said."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from mmap import mmap
from typing import Any, TextIO

import numpy as np

from dlkit._textfiles import LONGEST_LINE, check_width, csv_problem, csv_reader, csv_records, first_lines, line_at
from dlkit.errors import ArgumentError, DataError
from dlkit.reading.bytes import text_stream
from dlkit.reading.encodings import Buffer

__all__ = ["Dialect", "QuoteAudit", "ROW_NAMES", "audit_quotes", "column_names", "find_dialect", "records"]

ROW_NAMES = "Unnamed: 0"  # what a first column without a name is called, as by pandas
_SEPARATORS = (",", "\t", ";", "|")
_NONE = "\x1f"  # ASCII's own unit separator: stands in no text, so every line is one cell
_SAMPLE = 1 << 18
_FEW_ROWS = 10  # in which sentences may have as many commas each by chance
_PIECE = 1 << 24
_JUST_ENOUGH = 0.51  # of the rows must be as wide as the header
_QUOTE, _LF, _CR = 34, 10, 13


@dataclass(frozen=True)
class Dialect:
    """How a text table is written.

    Attributes:
        separator: One character between cells.
        names: The columns' names, unique and not empty.
        start: The byte at which the rows begin.
        quoted: Whether `"` quotes; otherwise it is a character like any other.
        blanks: Whether blanks between a separator and a quote are to be passed over.
    """

    separator: str
    names: tuple[str, ...]
    start: int
    quoted: bool = True
    blanks: bool = False

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
        return f"separator {shown}" + ("" if self.quoted else ", quotes taken as ordinary characters")


def find_dialect(data: Buffer, origin: str, separator: str, names: Sequence[str] | None) -> Dialect:
    """The dialect of UTF-8 bytes, with quotes taken as quotes; `audit_quotes` says whether that is right.

    Args:
        data: The whole text.
        origin: The file, for errors.
        separator: One character, or "auto".
        names: The columns' names where the text has no header row.
    """
    if separator != "auto" and len(separator) != 1:
        raise ArgumentError(f"separator must be one character or 'auto', not {separator!r}")
    said, above = _said_separator(data)
    remarks = above or _remarks(data)
    rest = memoryview(data)[remarks:]
    found = separator if separator != "auto" else said or _sniff(rest)
    if names is not None:
        return Dialect(found, column_names(names), above)
    if remarks > above:
        remarks = _above_header(data, remarks, found, origin)
    header, start = _header(memoryview(data)[remarks:], found, origin)
    if not header:
        raise DataError(f"{origin} has no header row: it holds nothing but blank lines")
    return Dialect(found, column_names(header), remarks + start)


def _said_separator(data: Buffer) -> tuple[str | None, int]:
    """The separator that Excel's first line `sep=;` names, and where the table then begins."""
    said = re.match(rb"sep=(.)\r?\n", bytes(data[:8]), re.I)
    return (said[1].decode("latin-1"), said.end()) if said else (None, 0)


def _remarks(data: Buffer) -> int:
    """Where the first line begins that is no remark after `#`."""
    place, head = 0, bytes(data[:_SAMPLE])
    while head.startswith(b"#", place) and (end := head.find(b"\n", place)) >= 0:
        place = end + 1
    return place


def _above_header(data: Buffer, remarks: int, separator: str, origin: str) -> int:
    """Where the header begins: below the remarks, unless the last of them is as wide as the row that follows."""
    head = bytes(data[:remarks])
    last = head.rfind(b"\n", 0, -1) + 1
    width = len(_header(memoryview(data)[remarks:], separator, origin)[0])
    return last if width > 1 and len(_header(head[last:], separator, origin)[0]) == width else remarks


def column_names(header: Sequence[Any]) -> tuple[str, ...]:
    """Unique names, as pandas makes them: `a`, `a.1` for a second `a`, `Unnamed: 2` for an empty third one.

    Args:
        header: The cells of the first row.
    """
    names: dict[str, None] = {}
    stripped = [str(name).strip() or f"Unnamed: {place}" for place, name in enumerate(header)]
    given = set(stripped)
    for name in stripped:
        unique, count = name, 0
        while unique in names or (count and unique in given):
            count += 1
            unique = f"{name}.{count}"
        names[unique] = None
    return tuple(names)


def _header(data: Buffer, separator: str, origin: str) -> tuple[list[str], int]:
    consumed, title = 0, 0

    def lines() -> Iterator[str]:
        nonlocal consumed
        for line in text_stream(data):
            consumed += len(line.encode("utf-8", "surrogatepass"))
            check_width(line.count(separator) + 1, origin)
            yield line

    first: list[str] = []
    try:
        for record in csv_reader(lines(), delimiter=separator):
            if not any(cell.strip() for cell in record):
                continue
            if not first and _is_title(record):
                first, title = record, consumed
            elif first and (len(record) != len(first) or not all(cell.strip() for cell in record)):
                return first, title  # not a title: a row of data with gaps follows
            else:
                return record, consumed
    except csv.Error as error:
        raise DataError(f"{origin}: the header row has {csv_problem(error)}") from error
    return first, title


def _is_title(record: list[str]) -> bool:
    """Whether all cells but the first are empty, as in a line above the header of a spreadsheet."""
    return len(record) > 1 and bool(record[0].strip()) and not any(cell.strip() for cell in record[1:])


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
    try:
        widths = [len(record) for record in csv_reader(io.StringIO(text, newline=""), delimiter=separator) if record]
    except csv.Error:
        return []
    return widths[:-1] if cut and len(widths) > 1 else widths


@dataclass(frozen=True)
class QuoteAudit:
    """What a pass over all quotes found.

    Attributes:
        regular: Every quote opens a cell, closes one, or is doubled inside one, and all are closed.
        multiline: Some quoted cell holds a line break.
    """

    regular: bool
    multiline: bool


def audit_quotes(data: Buffer, dialect: Dialect, origin: str = "the text") -> QuoteAudit:
    """Check every quote of the rows against the rules of RFC 4180, with a few numpy passes per piece.

    Quotes alternate between opening and closing (a doubled one closes and opens again), so each needs only a look at
    its neighbours: an opening one follows a separator, a line end or a closing quote; a closing one precedes one.

    Args:
        data: The whole text.
        dialect: How it is written.
        origin: The file, for errors.

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
    """The rows cell by cell, each with the line it begins in (1 for the file's first); blank lines are no rows.

    A broken one has the error in its place; see `csv_records`.

    Args:
        data: The whole text.
        dialect: How it is written.
    """
    header = bytes(data[: dialect.start])
    before = header.count(b"\n") or header.count(b"\r")
    for line, record in dialect.records(text_stream(memoryview(data)[dialect.start :])):
        if isinstance(record, csv.Error) or len(record) > 1 or len(dialect.names) == 1 or record[0].strip():
            yield line + before, record
