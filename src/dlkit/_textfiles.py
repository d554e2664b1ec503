"""What text files of records may hold: how long a line, how large a cell, how many columns; and the csv module's part.

The limits are far above what tables and texts have, and far below what fills a memory. Every reader of text asks here.
"""

from __future__ import annotations

import csv
import re
import warnings
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from typing import Any, TextIO

import numpy as np

from dlkit._filekinds import HEAD, kind_of, told
from dlkit.errors import DataError

__all__ = [
    "LONGEST_LINE",
    "MOST_COLUMNS",
    "check_lines",
    "check_text",
    "check_width",
    "control_in",
    "csv_problem",
    "csv_reader",
    "csv_records",
    "first_lines",
    "has_controls",
    "line_at",
    "rare_control_in",
    "rare_controls",
]

#: Bytes of one line, and of one record or cell that spans several.
LONGEST_LINE = 64 << 20
#: Columns of one table: some times more than there are genes.
MOST_COLUMNS = 100_000

_PIECE = 1 << 20
_MOST_LINES = 1_000_000  # that one record may span

Buffer = Any  # bytes, bytearray or mmap


def check_text(head: bytes, origin: Any, wanted: str, allowed: Collection[str] = ()) -> None:
    """Refuse what is unmistakably something else than text.

    Args:
        head: The first bytes, unpacked.
        origin: The file, for the error.
        wanted: What was expected, such as "a table".
        allowed: Families of `FileKind` that are text enough.

    Raises:
        DataError: it is a PDF, an image, an archive, ...; the message says what, and what to do.
    """
    head = bytes(head[:HEAD])
    kind = kind_of(head)
    if kind is not None and kind.family not in allowed:
        raise DataError(f"{origin} {told(head, wanted)}")


def check_lines(data: Buffer, origin: Any) -> None:
    """Refuse a text with a line of more than `LONGEST_LINE` bytes, before any reader takes it into memory.

    Args:
        data: The whole text.
        origin: The file, for the error.

    Raises:
        DataError: the message names the line.
    """
    begin = 0
    while len(data) - begin > LONGEST_LINE:
        stop = begin + LONGEST_LINE
        end = data.rfind(b"\n", begin, stop)
        end = data.rfind(b"\r", begin, stop) if end < 0 else end
        if end < 0:
            raise DataError(
                f"{origin}, line {line_at(data, begin)}: longer than {LONGEST_LINE >> 20} MB; records are expected in "
                "lines of their own. If it is one JSON array, write one object a line (.jsonl)"
            )
        begin = end + 1


_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f]")  # not tabs and line ends; U+0080 on are in texts that people have


def control_in(text: str, allowed: str = "") -> str | None:
    """What is wrong with a text that holds a control character, such as an escape or a zero byte; None without any.

    Args:
        text: A cell, or a text.
        allowed: A character that is none here, such as the separator.

    >>> control_in("a\\x1b[31m")
    "holds the control character '\\\\x1b', which is not text"
    """
    found = next((sign for sign in _CONTROL.findall(text) if sign != allowed), None)
    return None if found is None else f"holds the control character {found!r}, which is not text"


_RARE = re.compile(rb"[\x0b\x0c]|\xc2[\x80-\x9f]")  # in UTF-8


def rare_controls(data: Buffer, name: str) -> str:
    """Say where a text holds a control character that texts of the web and of office programs have now and then.

    Those are tabs and breaks of another kind, and U+0080 to U+009F, which nearly always were letters of Windows that
    were read as latin-1. Well-known data sets have them, so they are read unchanged; but it is said.

    Args:
        data: The whole text as UTF-8.
        name: Of the file.

    Returns:
        The first, and its line, to follow what else is said of the file; "" where there is none.

    Warns:
        UserWarning: there is one.
    """
    if (found := rare_control_in(data)) is None:
        return ""
    place, sign = found
    letter = bytes([ord(sign)]).decode("cp1252", "ignore") if sign > "\x7f" else ""
    meant = f" (in cp1252 {letter!r})" if letter else ""
    where = f"line {line_at(data, place)} holds the control character {sign!r}{meant}, read as it stands"
    way = ": letters of cp1252 were once read as latin-1, so look at them and repair the file" if letter else ""
    warnings.warn(f"{name}: {where}{way or '; if it is not meant, write the file again without it'}", stacklevel=2)
    return f", {where}"


def rare_control_in(data: Buffer) -> tuple[int, str] | None:
    """The first of the control characters of `rare_controls`, and the byte at which it stands.

    Args:
        data: UTF-8.
    """
    for start in range(0, len(data), _PIECE):
        piece = bytes(memoryview(data)[start : start + _PIECE + 1])
        hints = any(sign in piece for sign in (b"\x0b", b"\x0c", b"\xc2"))
        if hints and (found := _RARE.search(piece)) is not None:
            return start + found.start(), found[0].decode()
    return None


def has_controls(data: Buffer) -> bool:
    """Whether UTF-8 bytes hold a control character, see `control_in`; at the speed of memory.

    Args:
        data: The bytes.
    """
    array = np.frombuffer(data, dtype=np.uint8)
    for start in range(0, len(array), _PIECE):
        piece = array[start : start + _PIECE]
        small = int(np.count_nonzero(piece < 32)) - int(np.count_nonzero(piece == 10))
        if (small and small != sum(int(np.count_nonzero(piece == sign)) for sign in (9, 11, 12, 13))) or (
            piece == 127
        ).any():
            return True
    return False


def first_lines(data: Buffer, size: int) -> bytes:
    """The first bytes of a text: at least its first line, if that is longer than `size`.

    Args:
        data: The whole text.
        size: Bytes.
    """
    sample = bytes(data[:size])
    while b"\n" not in sample and size < min(len(data), LONGEST_LINE):
        size *= 4
        sample = bytes(data[:size])
    return sample


def line_at(data: Buffer, place: int) -> int:
    """The line that a byte is in, 1 for the first.

    Args:
        data: The whole text.
        place: The byte.
    """
    steps = range(0, place, _PIECE)
    return 1 + sum(bytes(data[start : min(start + _PIECE, place)]).count(b"\n") for start in steps)


def check_width(count: int, origin: Any) -> None:
    """Refuse a table with more columns than `MOST_COLUMNS`.

    Args:
        count: How many it has.
        origin: The file, for the error.

    Raises:
        DataError: there are more.
    """
    if count > MOST_COLUMNS:
        raise DataError(
            f"{origin} has {count:,} columns, more than the {MOST_COLUMNS:,} that a table may have; "
            "is it turned on its side, or is the separator another one? Otherwise choose some and give a DataFrame"
        )


def csv_reader(lines: Iterable[str], **dialect: Any) -> Any:
    """Python's csv reader for cells of up to `LONGEST_LINE` characters.

    The module has one limit for the whole process (128 KB). It is only ever raised, and never put back: two readers
    that are open at once would take it from each other.

    Args:
        lines: The text.
        **dialect: As for `csv.reader`.
    """
    if csv.field_size_limit() < LONGEST_LINE:
        csv.field_size_limit(LONGEST_LINE)
    return csv.reader(lines, **dialect)


def csv_records(text: TextIO, **dialect: Any) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """The records of a text, each with the line it begins in (1 for the first); blank lines are none.

    Where a quote neither opens nor closes a cell, or is never closed, the error comes in the record's place, and
    reading continues in the next line, so that one bad quote never swallows the rest of the file.

    Args:
        text: Opened with `newline=""`.
        **dialect: As for `csv.reader`.
    """
    begin, taken, again = 1, list[str](), deque[str]()  # the lines of this record, and those to be read once more

    def feed() -> Iterator[str]:
        while line := again.popleft() if again else text.readline():
            if len(taken) >= _MOST_LINES:
                raise csv.Error("more lines than the field limit")
            taken.append(line)
            yield line

    while True:
        try:
            for record in csv_reader(feed(), **dialect):
                if record:
                    yield begin, record
                begin += len(taken)
                taken.clear()
            return
        except csv.Error as error:
            yield begin, error
            again.extendleft(reversed(taken[1:]))
            begin += 1
            taken.clear()


def csv_problem(error: csv.Error) -> str:
    """What is wrong with a record that `csv_reader` refuses.

    Args:
        error: As it came.
    """
    if "field limit" in str(error):
        most = f"{LONGEST_LINE >> 20} MB or {_MOST_LINES:,} lines"
        return f"a cell of more than {most}; is a quote in it never closed?"
    return f"a broken quote ({error})"
