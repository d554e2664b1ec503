"""The text of a table to cells: through Arrow where that is exact, elsewhere cell by cell through the csv module."""

from __future__ import annotations

import csv
import io
import itertools
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dlkit._cores import default_threads, for_each
from dlkit._encodings import Buffer, first_bad_byte
from dlkit._language import Message
from dlkit._progress import Bar
from dlkit._textfiles import control_in, csv_problem, has_controls
from dlkit.reading._bytes import damage
from dlkit.reading._delimited import Dialect, audit_quotes, records
from dlkit.reading.cells import Array, Cells, Numbers, Skipped, Strings
from dlkit.reading.dates import settled
from dlkit.reading.frames import arrow_columns
from dlkit.reading.parsing import CODE, exceeds_float, is_code
from dlkit.reading.policy import ReadOptions
from dlkit.storage.strings import PackedStrings

__all__ = ["Parsed", "cell_by_cell", "distinct_texts", "fitting_dialect", "lines_of", "parse_text", "through_arrow"]

_SOME_ROWS = 1000  # in which codes with leading zeros are looked for, as Arrow would read those as numbers
_LOOK, _SHARE = 1 << 17, 1 << 23  # bytes looked at at once, which stay in the processor's cache, and by one thread
_MOST_CATEGORIES = 1000
_LONG = 16 << 20  # bytes whose reading may take long enough for a bar


@dataclass
class Parsed:
    """What was read from a text.

    Attributes:
        columns: Cells by column name.
        lines: The line of each row, where rows were read cell by cell.
        bad: Records that are not rows of this table.
        bad_at: How many rows stand before each of these.
    """

    columns: dict[str, Cells]
    lines: Array | None = None
    bad: list[Skipped] = field(default_factory=list)
    bad_at: list[int] = field(default_factory=list)


def parse_text(
    data: Buffer,
    dialect: Dialect,
    options: ReadOptions,
    as_text: Collection[str],
    origin: str,
    *,
    first_line: int = 1,
    threads: bool = True,
) -> Parsed:
    """Read the rows of a UTF-8 text.

    Args:
        data: The text; its rows begin at `dialect.start`.
        dialect: How it is written.
        options: How to read.
        as_text: Columns to keep as the text that stands there.
        origin: The file, for the places of bad records.
        first_line: The line of the file that the text begins with.
        threads: Whether Arrow may use several.
    """
    parsed = through_arrow(data, dialect, options, as_text, origin, first_line, threads=threads)
    return parsed or cell_by_cell(data, dialect, options, as_text, origin, first_line)


def cell_by_cell(
    data: Buffer, dialect: Dialect, options: ReadOptions, as_text: Collection[str], origin: str, first_line: int = 1
) -> Parsed:
    """The rows as Python's csv module reads them, strictly, with the line of each and of each record that is not a
    row."""
    bad: list[Skipped] = []
    bad_at: list[int] = []
    lines: list[int] = []
    good = _good_records(data, dialect, origin, bad, bad_at, lines, first_line - 1)
    strings = _columns_of(good, len(dialect.names))
    cells: dict[str, Cells] = {
        name: column if name in as_text else settled(column, options.missing, dialect.decimal.sign)
        for name, column in zip(dialect.names, strings, strict=True)
        if name in dialect.read
    }
    return Parsed(cells, np.array(lines, dtype=np.int64), bad, bad_at)


def lines_of(data: Buffer, dialect: Dialect) -> Iterator[int]:
    """The line in which each row begins."""
    width = len(dialect.names)
    return (line for line, record in records(data, dialect) if isinstance(record, list) and len(record) == width)


def through_arrow(
    data: Buffer,
    dialect: Dialect,
    options: ReadOptions,
    as_text: Collection[str],
    origin: str,
    first_line: int = 1,
    *,
    threads: bool = True,
) -> Parsed | None:
    """The rows as Arrow's reader gives them, or None where only reading cell by cell is exact."""
    import pyarrow as arrow

    rows = memoryview(data)[dialect.start :]
    if not dialect.separator.isascii():
        return None
    # Arrow takes no cell with a control character for anything but text, so only texts are looked at; unless some cells
    # do not become columns.
    unread = dialect.read != dialect.names or has_controls("".join(options.missing).encode())
    if unread and has_controls(rows):
        return None
    quotes = dialect.audit or audit_quotes(data, dialect, origin)
    if not quotes.regular:
        return None
    wanted, odd = {*as_text, *_code_columns(data, dialect)} & set(dialect.read), list[tuple[int, int]]()
    multiline = quotes.multiline and dialect.quoted
    try:
        table = _arrow_table(rows, dialect, options, wanted, multiline=multiline, threads=threads)
    except arrow.ArrowInvalid:
        try:  # once more, in one thread: only then rows of another width have numbers
            table = _arrow_table(rows, dialect, options, wanted, multiline=multiline, odd=odd)
        except arrow.ArrowInvalid:
            return None
    if any(arrow.types.is_binary(getattr(field.type, "value_type", field.type)) for field in table.schema):
        return None
    columns = arrow_columns(table, origin, threads=threads)
    if not unread and any(has_controls(texts) for texts in distinct_texts(columns)):
        return None
    numbers = {name: cells.values for name, cells in columns.items() if isinstance(cells, Numbers)}
    wrong = {name for name, values in numbers.items() if exceeds_float(values)}
    wrong |= _later_codes(rows, dialect, options, set(numbers) - wrong, multiline=multiline, threads=threads)
    if wrong:
        return through_arrow(data, dialect, options, wanted | wrong, origin, first_line, threads=threads)
    parsed = Parsed(columns)
    if odd:
        before = bytes(memoryview(data)[: dialect.start])
        line = first_line + (before.count(b"\n") or before.count(b"\r"))
        lines = _record_lines(bytes(rows), quoted=dialect.quoted) + line
        for number, (record, width) in enumerate((record, width) for record, width in odd if width):
            parsed.bad.append(Skipped(origin, int(lines[record - 1]), _of_width(width, dialect), "line"))
            parsed.bad_at.append(record - 1 - number - sum(1 for other, width in odd if not width and other < record))
    return parsed


def distinct_texts(columns: Mapping[str, Cells]) -> Iterator[Array]:
    """The bytes of the texts of each column that holds text, each text once."""
    return (cells.pool.arrays()[0] for cells in columns.values() if isinstance(cells, Strings))


def _of_width(width: int, dialect: Dialect) -> str:
    what = "the header has" if dialect.headed else "there are names for"
    return f"has {width} cells where {what} {len(dialect.names)}"


def _record_lines(rows: bytes, *, quoted: bool) -> Array:
    """The line that each record begins in, 0 for the first, where quotes are regular; blank lines are not records."""
    array = np.frombuffer(rows, dtype=np.uint8)
    ends = np.flatnonzero(array == (10 if b"\n" in rows else 13))
    starts = np.concatenate([[0], ends + 1])
    inside = np.zeros(len(starts), dtype=bool)
    if quoted:
        inside[1:] = np.searchsorted(np.flatnonzero(array == 34), ends) % 2 == 1
    stops = np.append(ends, len(rows))
    blank = (stops == starts) | ((stops == starts + 1) & (array[np.minimum(starts, len(array) - 1)] == 13))
    return np.flatnonzero(~inside & ~blank)


def _arrow_table(
    data: Buffer,
    dialect: Dialect,
    options: ReadOptions,
    as_text: Collection[str],
    *,
    multiline: bool,
    threads: bool = False,
    odd: list[tuple[int, int]] | None = None,
) -> Any:
    """The rows in `data` as an Arrow table; those of another width go to `odd`, as number and width (0 for a blank).

    Raises:
        pyarrow.ArrowInvalid: rows of different width without `odd`, and the like.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    def note(row: Any) -> str:
        if odd is None:
            return "error"
        blank = row.actual_columns == 1 and not row.text.replace('"', "").strip()
        odd.append((row.number, 0 if blank else row.actual_columns))
        return "skip"

    marks = ["", *options.missing, *(f" {mark}" for mark in options.missing)]
    how = (
        arrow_csv.ReadOptions(column_names=list(dialect.names), block_size=4 << 20, use_threads=threads),
        arrow_csv.ParseOptions(
            delimiter=dialect.separator,
            quote_char='"' if dialect.quoted else False,
            newlines_in_values=multiline,
            invalid_row_handler=note,
        ),
        arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(as_text, pa.string()),
            include_columns=list(dialect.read),
            decimal_point=dialect.decimal.sign or ".",
            null_values=marks,
            strings_can_be_null=False,
            # Equal strings are found while other threads still read; columns of more different ones stay plain text.
            auto_dict_encode=True,
            auto_dict_max_cardinality=_MOST_CATEGORIES,
            # Arrow's own defaults make a column of 1 and "true" boolean.
            true_values=["true", "True", "TRUE"],
            false_values=["false", "False", "FALSE"],
        ),
    )
    if len(data) < _LONG:
        return arrow_csv.read_csv(pa.BufferReader(pa.py_buffer(data)), *how)
    with Bar(len(data), desc=Message("reading"), unit="B", scaled=True) as bar:
        return arrow_csv.read_csv(pa.PythonFile(_Told(data, bar), "r"), *how)


class _Told(io.RawIOBase):
    """The text as a file whose reader is watched."""

    def __init__(self, data: Buffer, bar: Bar) -> None:
        self._data, self._at, self._bar = memoryview(data), 0, bar

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> Any:
        """The next bytes, not copied.

        Args:
            size: How many; all that are left for None and -1.
        """
        stop = len(self._data) if size is None or size < 0 else min(len(self._data), self._at + size)
        part, self._at = self._data[self._at : stop], stop
        self._bar.update(len(part))
        return part


def _code_columns(data: Buffer, dialect: Dialect) -> set[str]:
    found: set[str] = set()
    head = bytes(memoryview(data)[dialect.start : dialect.start + (1 << 18)])
    if not _may_hold_codes(head, ord(dialect.separator)):
        return found
    for _, record in itertools.islice(records(head, replace(dialect, start=0)), _SOME_ROWS):
        if not isinstance(record, csv.Error):
            found.update(name for name, cell in zip(dialect.names, record, strict=False) if is_code(cell.strip()))
    return found


def _later_codes(
    rows: Buffer, dialect: Dialect, options: ReadOptions, numbers: Collection[str], *, multiline: bool, threads: bool
) -> set[str]:
    """Columns that Arrow took for numbers, though a cell in any row is a code: they are looked at as text."""
    import pyarrow.compute as pc

    if not numbers or not _may_hold_codes(rows, ord(dialect.separator), threads=threads):
        return set()
    columns = replace(dialect, read=tuple(name for name in dialect.read if name in numbers))
    table = _arrow_table(rows, columns, options, numbers, multiline=multiline, odd=[])
    pattern = rf"^\s*({CODE})\s*$"
    return {
        name for name in numbers if pc.any(pc.match_substring_regex(table[name], pattern, ignore_case=True)).as_py()
    }


def _may_hold_codes(rows: Buffer, separator: int, *, threads: bool = False) -> bool:
    """Whether a cell begins with 0 and a digit, or with 0x, and does not continue as a date or a time does."""
    follows, goes_on = (np.zeros(256, dtype=bool) for _ in range(2))
    follows[[separator, *b'\r\n "']] = True
    goes_on[[separator, *b'\r\n "0123456789abcdefABCDEF']] = True  # not as in "01.", "01/", "01-", "08:"
    found = list[int]()

    def look(share: int) -> None:
        starts = range(share * _SHARE, min((share + 1) * _SHARE, len(rows)), _LOOK)
        if not found and any(map(codes_from, starts)):
            found.append(share)

    def codes_from(start: int) -> bool:
        text = np.frombuffer(memoryview(rows)[max(0, start - 4) : start + _LOOK], dtype=np.uint8)
        zero, before = text[:-2] == 48, text[:-3]
        zero &= text[1:-1] > 47  # digits and x, besides other letters
        begins = before < 46  # most of what is before a cell or its sign, and no digit
        if separator >= 46:
            begins |= before == separator
        zero[1:] &= begins
        zero[: 2 * (start > 0)] = False  # seen with the bytes before
        places = np.flatnonzero(zero)
        signed = np.isin(text[places - 1], (43, 45)) & (places > 0)  # but not the exponent of "1e-05"
        codes = (follows[text[places - 1]] | signed | (places == 0)) & goes_on[text[places + 2]]
        codes &= (text[places + 1] < 58) | (text[places + 1] & np.uint8(223) == 88)
        return bool((codes & (~signed | (places == 1) | follows[text[places - 2]])).any())

    for_each(look, -(-len(rows) // _SHARE), default_threads() if threads else 1)
    return bool(found)


def fitting_dialect(data: Buffer, dialect: Dialect, origin: str = "the text") -> Dialect:
    """The reading of quotes that leaves the fewest bad rows: as quotes, after blanks too, or as plain characters."""
    audit = audit_quotes(data, dialect, origin)
    if audit.regular and dialect.quoted:
        return replace(dialect, audit=audit)
    best, fewest = dialect, _bad_rows(data, dialect, 100)
    for other in (replace(dialect, blanks=True), replace(dialect, quoted=False)):
        count = _bad_rows(data, other, fewest) if fewest else 0
        # A few damaged quotes in a quoted file are damage; a file full of them does not quote at all. Files with tabs
        # seldom do, and their texts may begin with a quote that is never closed.
        if count < fewest and (other.quoted or count <= fewest // 5 or dialect.separator == "\t"):
            best, fewest = other, count
    return best


def _bad_rows(data: Buffer, dialect: Dialect, enough: int) -> int:
    width = len(dialect.names)
    bad = (1 for _, record in records(data, dialect) if isinstance(record, csv.Error) or len(record) != width)
    return sum(itertools.islice(bad, enough))


def _good_records(
    data: Buffer, dialect: Dialect, name: str, bad: list[Skipped], bad_at: list[int], lines: list[int], before: int
) -> Iterator[list[str]]:
    width, controls = len(dialect.names), has_controls(data)
    damaged = first_bad_byte(data) is not None
    for number, record in records(data, dialect):
        line = number + before
        if isinstance(record, csv.Error):
            why = f"has {csv_problem(record)}"
        elif len(record) != width:
            why = _of_width(len(record), dialect)
        elif controls and (problem := control_in("".join(record), dialect.separator)) is not None:
            why = problem
        elif damaged and (found := next(filter(None, map(damage, record)), None)) is not None:
            why = f"has {found}"
        else:
            lines.append(line)
            yield record
            continue
        bad.append(Skipped(name, line, why, "line"))
        bad_at.append(len(lines))


def _columns_of(rows: Iterator[list[str]], width: int) -> list[Strings]:
    indexes: list[defaultdict[str, int]] = []
    for _ in range(width):
        index: defaultdict[str, int] = defaultdict()
        index.default_factory = index.__len__
        indexes.append(index)
    codes: list[list[np.ndarray[Any, Any]]] = [[] for _ in range(width)]
    while batch := list(itertools.islice(rows, 10_000)):
        for place, column in enumerate(zip(*batch, strict=True)):
            index = indexes[place]
            codes[place].append(np.fromiter((index[cell] for cell in column), dtype=np.int32, count=len(column)))
    return [
        Strings(np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32), PackedStrings.of(index))
        for parts, index in zip(codes, indexes, strict=True)
    ]
