"""The first rows of a text table: remarks, titles, the header or none."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dlkit._encodings import Buffer
from dlkit._textfiles import check_width, csv_problem, csv_reader, first_lines
from dlkit.errors import DataError
from dlkit.reading._bytes import text_stream
from dlkit.reading.dates import date_format
from dlkit.reading.parsing import looks_like_number
from dlkit.reading.policy import ReadOptions

__all__ = [
    "FirstRow",
    "column_names",
    "first_row",
    "is_row_of_data",
    "plainly_names",
    "sample_rows",
    "start_of_table",
]

_SAMPLE = 1 << 18
_SAMPLE_ROWS = 1000
_LOOKED_AT = 200  # rows that tell whether the first one is like them
_LONG = 60  # characters that no name of a column has


@dataclass(frozen=True)
class FirstRow:
    """The first row of a table, be it its header or not.

    Attributes:
        cells: Its cells; empty where there is none.
        start: The byte it begins at.
        stop: The byte after it.
    """

    cells: list[str]
    start: int
    stop: int


def start_of_table(data: Buffer, options: ReadOptions) -> tuple[int, str | None]:
    """The byte after the lines that the caller skips and Excel's `sep=;`, and the separator that this line names."""
    start = 0
    searched = data if hasattr(data, "find") or not options.skip_rows else bytes(data)  # a memoryview cannot search
    for _ in range(options.skip_rows):
        end = searched.find(b"\n", start)
        start = len(data) if end < 0 else end + 1
    said = re.match(rb"sep=(.)\r?\n", bytes(data[start : start + 8]), re.I)
    return (start + said.end(), said[1].decode("latin-1")) if said else (start, None)


def after_remarks(data: Buffer, start: int, mark: str) -> int:
    """Where the first line begins that is not a remark."""
    place, head, sign = 0, bytes(data[start : start + _SAMPLE]), mark.encode()
    while head.startswith(sign, place) and (end := head.find(b"\n", place)) >= 0:
        place = end + 1
    return start + place


def first_row(data: Buffer, start: int, separator: str, options: ReadOptions, origin: str) -> FirstRow:
    """The first row behind remarks and titles; a last remark that is as wide as the row that follows is the header."""
    behind = after_remarks(data, start, options.comment or "#")
    row = _behind_titles(data, behind, separator, origin)
    if behind > start and options.comment is None and len(row.cells) > 1:
        head = bytes(data[start:behind])
        last = start + head.rfind(b"\n", 0, -1) + 1
        remark = _behind_titles(bytes(data[:behind]), last, separator, origin)
        return remark if len(remark.cells) == len(row.cells) else row
    return row


def _behind_titles(data: Buffer, start: int, separator: str, origin: str) -> FirstRow:
    end = start

    def lines() -> Iterator[str]:
        nonlocal end
        for line in text_stream(memoryview(data)[start:]):
            end += len(line.encode("utf-8", "surrogatepass"))
            check_width(line.count(separator) + 1, origin)
            yield line

    title, begin = FirstRow([], start, start), start
    try:
        for record in csv_reader(lines(), delimiter=separator):
            row, begin = FirstRow(record, begin, end), end
            if not any(cell.strip() for cell in record):
                continue
            if not title.cells and _is_title(record):
                title = row
            elif title.cells and (len(record) != len(title.cells) or not all(cell.strip() for cell in record)):
                return title  # it is not a title: a row of data with gaps follows
            else:
                return row
    except csv.Error as error:
        raise DataError(f"{origin}: the header row has {csv_problem(error)}") from error
    return title


def _is_title(record: list[str]) -> bool:
    """Whether all cells but the first are empty, as in a line above the header of a spreadsheet."""
    return len(record) > 1 and bool(record[0].strip()) and not any(cell.strip() for cell in record[1:])


def sample_rows(data: Buffer, start: int, separator: str) -> list[list[str]]:
    """The first rows from a byte on, at most a thousand; without what is broken."""
    rest = memoryview(data)[start:]
    sample = first_lines(rest, _SAMPLE)
    text = io.StringIO(sample.decode("utf-8", "ignore"), newline="")
    rows: list[list[str]] = []
    try:
        rows.extend(row for row in itertools.islice(csv_reader(text, delimiter=separator), _SAMPLE_ROWS) if row)
    except csv.Error:
        return rows
    return rows[:-1] if len(sample) < len(rest) and len(rows) < _SAMPLE_ROWS else rows


def column_names(header: Sequence[Any]) -> tuple[str, ...]:
    """Unique names, as pandas makes them: `a`, `a.1` for a second `a`, `Unnamed: 2` for an empty third one."""
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


def is_row_of_data(first: Sequence[str], rows: Sequence[Sequence[str]], missing: Sequence[str]) -> bool:
    """Whether the first row is one like those below, so that the table has no header.

    It has none of words above numbers or dates, and something that names do not have: a fraction, a date, or a cell
    that comes again in its column. Numbers that count upwards are names, of years or as pandas numbers columns. Where
    all is text, every cell must come again, or one beside a long sentence.

    >>> is_row_of_data(["5.1", "setosa"], [["4.9", "setosa"], ["7.0", "virginica"]], [])
    True
    >>> is_row_of_data(["name", "2010"], [["Kim", "1"], ["Lee", "2"]], [])
    False
    """
    names = [cell.strip() for cell in first]
    rows = [row for row in rows[:_LOOKED_AT] if len(row) == len(names)]
    if len(rows) < 2:
        return False
    again, above = [], []
    for name, cells in zip(names, zip(*rows, strict=True), strict=True):
        there = [text for cell in cells if (text := cell.strip()) and text not in missing]
        again.append(name in there)
        if there and name and name not in missing and (_numbers(there) or _dates(there)):
            if not looks_like_number(name) and not _dates([name]):
                return False  # a word above numbers
            above.append(name)
    if not above:
        return len(names) > 1 and (all(again) or (any(again) and any(len(name) > _LONG for name in names)))
    if len(above) > 1 and _counts_upwards(above):
        return False
    return any(again) or any(not name.lstrip("+-").isdecimal() for name in above)


def plainly_names(first: Sequence[str], rows: Sequence[Sequence[str]], missing: Sequence[str]) -> bool:
    """Whether a first row surely names the columns: it has a word above numbers.

    >>> plainly_names(["class", "text"], [["1", "a"], ["2", "b"]], [])
    True
    >>> plainly_names(["spam", "text"], [["ham", "a"], ["ham", "b"]], [])
    False
    """
    columns = zip(*(row for row in rows if len(row) == len(first)), strict=True)
    for name, cells in zip(first, columns, strict=False):
        there = [text for cell in cells if (text := cell.strip()) and text not in missing]
        if len(there) > 1 and _numbers(there) and name.strip() not in missing and not looks_like_number(name.strip()):
            return True
    return False


def _numbers(cells: Sequence[str]) -> bool:
    return all(map(looks_like_number, cells))


def _dates(cells: Sequence[str]) -> bool:
    return date_format(cells[:20]) is not None


def _counts_upwards(names: Sequence[str]) -> bool:
    if not all(name.isdecimal() for name in names):
        return False
    numbers = [int(name) for name in names]
    return len({after - before for before, after in itertools.pairwise(numbers)}) == 1 and numbers[0] < numbers[1]
