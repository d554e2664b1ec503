"""A file of text, packed or in any encoding, or a sheet of Excel, to UTF-8 text with the places of its rows."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dlkit._encodings import Buffer
from dlkit._opening import open_regular, regular
from dlkit._textfiles import check_text
from dlkit.errors import DataError
from dlkit.reading._bytes import contents, encoding_of, is_packed, to_utf8, unpacked, utf8_pieces, without_mark
from dlkit.reading._excel import is_workbook, read_sheet
from dlkit.reading.policy import ReadOptions
from dlkit.storage.files import kept_file

__all__ = ["PlainText", "plain_copy", "plain_text"]


@dataclass(frozen=True)
class PlainText:
    """Text to read, and how it came to be.

    Attributes:
        data: The text as UTF-8.
        how: The encoding it had, or which sheet it was.
        options: How to read this text.
        noun: What its rows are in: "line", or "row" of a sheet.
        starts: The line that each row of a sheet begins in; None where lines count.
    """

    data: Buffer
    how: str
    options: ReadOptions
    noun: str = "line"
    starts: list[int] | None = None


def plain_text(source: Path | bytes, options: ReadOptions, origin: str) -> PlainText:
    """A whole text in memory."""
    if (sheet := _sheet(source, options, origin)) is not None:
        return sheet
    raw, lenient = source if isinstance(source, bytes) else contents(source), options.on_error == "skip"
    data, encoding = to_utf8(raw, options.encoding, origin, lenient=lenient)
    if isinstance(source, bytes):
        check_text(source, origin, "a table")
    if options.comment is not None:
        data = b"".join(_without_remarks(bytes(data).splitlines(keepends=True), options))
    return PlainText(data, encoding, options)


def _sheet(source: Path | bytes, options: ReadOptions, origin: str) -> PlainText | None:
    """The sheet of a workbook; None for any other file."""
    with io.BytesIO(source) if isinstance(source, bytes) else open_regular(source) as file:
        if file.read(4) != b"PK\x03\x04" or not is_workbook(file):
            options.refuse(("sheet",), f"{origin} (text)", "only workbooks of Excel have sheets: leave it out")
            return None
        options.refuse(("encoding", "separator"), f"{origin} (Excel)", "its cells are not text: leave it out")
        sheet = read_sheet(file, origin, options.sheet, options.skip_rows)
    if sheet.fraction:  # whatever is trained on or written beside it, this number has a point
        if options.said_decimal == ",":
            way = f"the sheet holds numbers such as {sheet.fraction}, which have types: leave it out"
            options.refuse(("decimal", "thousands"), f"{origin} (Excel)", way)
        options = replace(options, decimal=".")
    options = replace(options, separator=",", encoding="utf-8")
    data = sheet.content
    if options.comment is not None:
        data = b"".join(_without_remarks(data.splitlines(keepends=True), options))
    return PlainText(data, sheet.note, options, "row", sheet.starts)


def _without_remarks(lines: Iterable[bytes], options: ReadOptions) -> Iterator[bytes]:
    """The lines, blank ones instead of those that begin with the mark of remarks and are in no quoted cell."""
    inside, sign = False, (options.comment or "").encode()
    for number, line in enumerate(lines):
        if number >= options.skip_rows and not inside and line.startswith(sign):
            yield line[len(line.rstrip(b"\r\n")) :]
        else:
            inside ^= number >= options.skip_rows and line.count(b'"') % 2 == 1
            yield line


def plain_copy(path: Path, options: ReadOptions) -> tuple[Path, PlainText]:
    """A file with the same text in UTF-8, itself or a copy in the cache folder where it is not plain; and that text."""
    if regular(path).st_size == 0:
        raise DataError(f"{path} is empty (0 bytes)")
    if (sheet := _sheet(path, options, str(path))) is not None:
        how = ("excel", options.sheet, options.skip_rows, options.comment)
        return _kept(path, how, lambda: [sheet.data]), sheet
    with open_regular(path) as file:
        plain = _kept(path, ("unpacked",), lambda: unpacked(path)) if is_packed(file) else path
    lenient = options.on_error == "skip"
    data = contents(path, copy=plain)
    name, is_plain = encoding_of(data, options.encoding, str(path), lenient=lenient)
    if not is_plain or options.comment is not None:
        pieces = utf8_pieces(data, name, str(path), lenient=lenient)
        remarks = (options.comment, options.comment and options.skip_rows)
        plain = _kept(
            path,
            (name, lenient, *remarks),
            lambda: pieces if options.comment is None else _without_remarks(_lines(pieces), options),
        )
        data = contents(path, copy=plain)
    data = without_mark(data)
    return plain, PlainText(data, name, options)


def _kept(path: Path, how: tuple[object, ...], pieces: Callable[[], Iterable[bytes]]) -> Path:
    """A copy in the cache folder, found again while the file is the same."""
    about = path.stat()
    words = "|".join(map(str, (path.absolute(), about.st_size, about.st_mtime_ns, *how)))
    return kept_file("tables", f"{hashlib.sha256(words.encode()).hexdigest()[:24]}.txt", pieces)


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).splitlines(keepends=True) or [b""]
        yield from whole
    yield rest
