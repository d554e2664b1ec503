"""A sheet of an Excel workbook as the CSV text of the same table, so that one reader reads both."""

from __future__ import annotations

import contextlib
import csv
import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import IO, Any

from dlkit._optional import require
from dlkit._textfiles import check_width
from dlkit.errors import DataError, DlkitError
from dlkit.reading._bytes import most_bytes

__all__ = ["Sheet", "is_workbook", "read_sheet"]

_PROLOG = 1 << 16  # bytes of an XML part within which its first element begins
_ROOT = re.compile(rb"<[A-Za-z]")
_PIECE = 1 << 20
# Written by programs that do not compute: a formula, and no value that it once had.
_UNCOMPUTED = re.compile(rb'<c r="([A-Z]+\d+)"[^>]*><f[^>]*>[^<]*</f>(?:<v\s*/>|<v></v>)?</c>')


@dataclass
class Sheet:
    """A sheet as CSV text in UTF-8.

    Attributes:
        note: What was read.
        content: The text; a row of the sheet is a record of it, an empty one a blank line.
        starts: The line of the text that each row of the sheet begins in.
        fraction: The first number with a fraction, which has a point in the text; "" where all are whole.
    """

    note: str
    content: bytes = b""
    starts: list[int] = field(default_factory=list)
    fraction: str = ""


def is_workbook(file: IO[bytes]) -> bool:
    """Whether a file is a workbook of Excel (.xlsx, .xlsm)."""
    try:
        with zipfile.ZipFile(file) as archive:
            return "xl/workbook.xml" in archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False
    finally:
        file.seek(0)


def read_sheet(file: IO[bytes], origin: str, sheet: str | int | None, skip_rows: int) -> Sheet:
    """A sheet of a workbook, with the values that its formulas had when it was saved.

    Args:
        file: The workbook.
        origin: What errors call it.
        sheet: Its name, or number from 0; None for the first.
        skip_rows: Rows at the top to leave empty.

    Raises:
        DataError: it is damaged, would fill the memory, has no such sheet, or formulas without values.
        MissingExtraError: openpyxl is not installed.
    """
    openpyxl = require("openpyxl", extra="excel")
    _check_parts(file, origin)
    with _parsing(origin):
        book = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
    with contextlib.closing(book):
        names = [each.title for each in book.worksheets]
        place = _place(names, sheet, origin)
        more = f", of {len(names)} sheets ({', '.join(names)}); sheet= names another" if len(names) > 1 else ""
        found = Sheet(f"Excel, sheet {names[place]!r}{more if sheet is None else ''}")
        with _parsing(origin):
            _check_computed(file, book.worksheets[place], origin)
            _write(book.worksheets[place], found, skip_rows, origin)
    return found


def _place(names: list[str], sheet: str | int | None, origin: str) -> int:
    if not names:
        raise DataError(f"{origin} has no sheet with cells")
    if sheet is None:
        return 0
    if sheet in names:
        return names.index(str(sheet))
    if str(sheet).isdecimal() and int(sheet) < len(names):
        return int(sheet)
    raise DataError(f"{origin} has no sheet {sheet!r}; its sheets are {', '.join(map(repr, names))}")


@contextlib.contextmanager
def _parsing(origin: str) -> Iterator[None]:
    """Parsers of hostile bytes raise whatever they like."""
    try:
        yield
    except DlkitError:
        raise
    except Exception as error:
        raise DataError(f"{origin} is a damaged Excel workbook: {type(error).__name__}: {error}") from error


def _check_parts(file: IO[bytes], origin: str) -> None:
    """Refuse a workbook that unpacks to more than a table has, or whose XML declares entities, before it is parsed."""
    with _parsing(origin), zipfile.ZipFile(file) as archive:
        size, claimed = file.seek(0, io.SEEK_END), sum(info.file_size for info in archive.infolist())
        if claimed > most_bytes(size):
            raise DataError(
                f"{origin} ({size:,} bytes) says it unpacks to {claimed:,} bytes: it is made to fill memory"
            )
        for info in archive.infolist():
            with archive.open(info) as part:
                head = part.read(_PROLOG)
            # A part of any name may be given to the parser of XML; none needs a declaration, or other than UTF-8.
            named = info.filename.endswith((".xml", ".rels"))
            wide = head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0<" in head[:64] or b"<\0" in head[:64]
            if wide or b"<!DOCTYPE" in head or b"<!ENTITY" in head or (named and head and not _ROOT.search(head)):
                raise DataError(
                    f"{origin} is an Excel workbook whose part {info.filename!r} is not plain XML or declares a "
                    "document type, not a table; save it again in Excel or LibreOffice"
                )
    file.seek(0)


def _check_computed(file: IO[bytes], sheet: Any, origin: str) -> None:
    """A formula without a value would be read as an empty cell."""
    with zipfile.ZipFile(file) as archive, archive.open(sheet._worksheet_path.lstrip("/")) as part:
        rest = b""
        while piece := part.read(_PIECE):
            text = rest + piece
            if found := _UNCOMPUTED.search(text):
                raise DataError(
                    f"{origin}, sheet {sheet.title!r}, cell {found[1].decode()}: a formula without a value, as the "
                    "program that wrote the file does not compute; open it in Excel or LibreOffice and save it again"
                )
            rest = text[max(0, text.rfind(b"<c ")) :][-_PROLOG:]


def _write(sheet: Any, found: Sheet, skip_rows: int, origin: str) -> None:
    sheet.reset_dimensions()  # what the file says of its own size may be a million rows of nothing
    rows: list[tuple[Any, ...]] = []
    width = 0
    for number, row in enumerate(sheet.iter_rows(values_only=True)):
        filled = [place for place, cell in enumerate(row, 1) if cell is not None] if number >= skip_rows else []
        cells = row[: max(filled, default=0)]
        check_width(len(cells), origin)
        width = max(width, len(cells))
        rows.append(cells)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    line = 1
    for cells in rows:
        found.starts.append(line)
        if cells:
            fractions = (str(cell) for cell in cells if isinstance(cell, float) and not cell.is_integer())
            found.fraction = found.fraction or next(fractions, "")
            shown = [_text(cell) for cell in cells]
            writer.writerow([*shown, *[""] * (width - len(cells))])
            line += sum(cell.count("\n") for cell in shown)
        else:
            text.write("\n")
        line += 1
    found.content = text.getvalue().encode("utf-8", "surrogatepass")


def _text(cell: Any) -> str:
    """A cell as a CSV file has it."""
    if cell is None:
        return ""
    if isinstance(cell, datetime):
        return cell.date().isoformat() if cell.time() == time() else cell.isoformat(" ", "auto")
    if isinstance(cell, date | time):
        return cell.isoformat()
    if isinstance(cell, timedelta):
        return repr(cell.total_seconds())
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 1 << 53:
        return str(int(cell))
    return str(cell).replace("\r\n", "\n").replace("\r", "\n")
