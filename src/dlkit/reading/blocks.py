"""A big file as blocks that can be read one by one: byte ranges of text that end with a record, or row groups."""

from __future__ import annotations

import codecs
import csv
import mmap
from bisect import bisect_right
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from dlkit._encodings import Buffer
from dlkit._language import Message
from dlkit._opening import open_regular
from dlkit._progress import Bar
from dlkit._showing import safe
from dlkit._textfiles import LONGEST_LINE, rare_control_in, rare_controls
from dlkit.errors import DataError
from dlkit.reading._bytes import byte_stream
from dlkit.reading._columnar import ColumnarFile
from dlkit.reading._delimited import Dialect, audit_quotes, find_dialect, records
from dlkit.reading._headers import sample_rows
from dlkit.reading._plain import PlainText, plain_copy, plain_text
from dlkit.reading._text_rows import distinct_texts, fitting_dialect, lines_of, parse_text
from dlkit.reading.cells import Block, Numbered, Place, Table
from dlkit.reading.policy import ReadOptions

__all__ = ["Block", "BlockFile", "block_file", "watched", "whole_text"]

BLOCK_BYTES = 2 << 20
_BUFFER = 1 << 20


class BlockFile(Protocol):
    """A file that is read block by block."""

    @property
    def source(self) -> Path:
        """Where it lies."""

    @property
    def note(self) -> str:
        """How it was read."""

    @property
    def names(self) -> list[str]:
        """The names of its columns."""

    def blocks(self) -> Iterator[tuple[Block, Any]]:
        """All blocks in order, each with its content where that is at hand."""

    def tables(
        self, block: Block, as_text: Collection[str], *, needed: Collection[str] | None = None, threads: bool = False
    ) -> Iterator[Table]:
        """The rows of a block in pieces.

        Args:
            block: One of `blocks`.
            as_text: Columns to keep as the text that stands there.
            needed: The columns to read at least; None for all.
            threads: Whether Arrow may use several.
        """


def block_file(path: Path, options: ReadOptions, *, again: bool = True, quotes: bool | None = None) -> BlockFile:
    """A file to read in blocks, once from its beginning to its end, or again and again.

    Args:
        path: The file.
        options: How to read.
        again: Write what is not plain UTF-8 text to the cache folder as such; else it stays in memory while it is read.
        quotes: Whether `"` quotes; None finds out.

    Raises:
        DataError: it is empty, damaged, or of another kind.
    """
    if (columnar := ColumnarFile.of(path, options)) is not None:
        return columnar
    plain, text = plain_copy(path, options) if again else (path, plain_text(path, options, str(path)))
    file = _text_file(path, text, options, quotes)
    file.note += rare_controls(text.data, path.name)
    if again or _is_mapped(text):
        file.rest_on(plain)
    return file


def whole_text(source: Path | bytes, options: ReadOptions, as_text: Collection[str] | None, origin: str) -> Table:
    """A whole file of text as one block.

    Args:
        source: The file, or its content.
        options: How to read.
        as_text: Columns to keep as the text that stands there; None for all.
        origin: What errors call it.
    """
    path, text = source if isinstance(source, Path) else Path(origin), plain_text(source, options, origin)
    file = _text_file(path, text, options)
    rows = memoryview(text.data)[file.start :]
    if isinstance(source, Path):
        file.text = None
        if _is_mapped(text):
            file.rest_on(path)
    block = Block(file.start, file.start + len(rows), file.line)
    table = file.table(block, file.dialect.read if as_text is None else as_text, rows, threads=True)
    table.notes = [file.note + rare_controls(text.data, path.name) if _may_hold_rare(file, table, text) else file.note]
    table.folder = path.parent if isinstance(source, Path) else None
    return table


def _may_hold_rare(file: TextFile, table: Table, text: PlainText) -> bool:
    """Whether the text is to be looked through for rare control characters, which no cell of a number or a date has."""
    head = bytes(text.data[: file.start]), "".join(file.options.missing).encode()
    unread = table.skipped or file.dialect.read != file.dialect.names
    return bool(unread) or any(rare_control_in(each) is not None for each in (*head, *distinct_texts(table.columns)))


def _text_file(path: Path, text: PlainText, options: ReadOptions, quotes: bool | None = None) -> TextFile:
    dialect = find_dialect(text.data, str(path), text.options)
    dialect = fitting_dialect(text.data, dialect, str(path)) if quotes is None else replace(dialect, quoted=quotes)
    note, line = f"{path.name}: {text.how}, {dialect}", 1 + _line_ends(bytes(text.data[: dialect.start]))
    known = replace(text.options, encoding=text.how) if text.noun == "line" else options  # a guess is said once
    return TextFile(
        path, path, replace(dialect, start=0), known, dialect.start, line, note, text.noun, text.starts, True, text
    )


def _is_mapped(text: PlainText) -> bool:
    """Whether it is the bytes of its file, plain UTF-8, which are read where they lie."""
    return isinstance(getattr(text.data, "obj", text.data), mmap.mmap)


def _line_ends(data: bytes, stop: int | None = None) -> int:
    return data.count(b"\n", 0, stop) or data.count(b"\r", 0, stop)


@dataclass
class TextFile:
    """Text in blocks of some megabytes, each ending with a record, also where cells hold line breaks.

    Attributes:
        path: The plain UTF-8 text: the file itself, or a copy in the cache folder.
        source: The file that the caller named.
        dialect: How it is written.
        options: How to read.
        start: The byte at which the rows begin.
        line: The line in which they begin.
        note: How it was read.
        noun: What its rows are in: "line", or "row" of a sheet.
        starts: The line that each row of a sheet begins in; None where lines count.
        decoded: Whether `path` is packed or in another encoding, and the text is in memory while it is read.
        text: That text.
    """

    path: Path
    source: Path
    dialect: Dialect
    options: ReadOptions
    start: int
    line: int
    note: str
    noun: str = "line"
    starts: list[int] | None = None
    decoded: bool = False
    text: PlainText | None = None

    @property
    def origin(self) -> str:
        """The file, as errors name it."""
        return self.source.name

    def rest_on(self, path: Path) -> None:
        """Let go of the text: it is read from a file of plain UTF-8.

        Args:
            path: That file.
        """
        self.path, self.decoded, self.text = path, False, None
        with open_regular(path) as file:
            mark = file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
        self.start += len(codecs.BOM_UTF8) if mark else 0

    def first_rows(self) -> list[list[str]]:
        """Some rows of the beginning, the header left out."""
        with self._open() as file:
            file.seek(self.start)
            return sample_rows(file.read(_BUFFER), 0, self.dialect.separator)

    @property
    def names(self) -> list[str]:
        """See `BlockFile`."""
        return list(self.dialect.read)

    @property
    def size(self) -> int:
        """The bytes of all rows."""
        return (len(self.text.data) if self.text is not None else self.path.stat().st_size) - self.start

    def blocks(self) -> Iterator[tuple[Block, bytes]]:
        """See `BlockFile`."""
        position, line, rest = self.start, self.line, b""
        with self._open() as file:
            file.seek(self.start)
            while piece := file.read(_next_size(len(rest))):
                data = rest + piece
                end = last_record_end(data, self.dialect)
                if not end and len(data) >= LONGEST_LINE:
                    raise DataError(
                        f"the record that begins in line {line} of {self.origin} does not end within "
                        f"{LONGEST_LINE >> 20} MB; is a quote in it never closed?"
                    )
                if end:
                    yield Block(position, position + end, line), data[:end]
                    position, line = position + end, line + _line_ends(data, end)
                rest = data[end:]
        if rest.strip():
            yield Block(position, position + len(rest), line), rest
        self.text = None

    def tables(
        self, block: Block, as_text: Collection[str], *, needed: Collection[str] | None = None, threads: bool = False
    ) -> Iterator[Table]:
        """See `BlockFile`; a block of text is one piece."""
        yield self.table(block, as_text, needed=needed, threads=threads)

    def table(
        self,
        block: Block,
        as_text: Collection[str],
        content: Buffer | None = None,
        *,
        needed: Collection[str] | None = None,
        threads: bool = False,
    ) -> Table:
        """The rows of a block, whose content may be at hand."""
        data = self._read(block) if content is None else content
        read = self.dialect.read if needed is None else tuple(name for name in self.dialect.read if name in needed)
        dialect = replace(self.dialect, read=read)
        parsed = parse_text(data, dialect, self.options, as_text, self.origin, first_line=block.line, threads=threads)
        place = _BlockLines(self, block) if parsed.lines is None else Numbered(parsed.lines, self.origin)
        return Table(
            parsed.columns,
            self.origin,
            place,
            skipped=parsed.bad,
            skipped_at=parsed.bad_at,
            folder=self.source.parent,
            header=() if self.dialect.headed else self.dialect.names,
            decimal=self.dialect.decimal,
        )

    def _open(self) -> IO[bytes]:
        if not self.decoded:
            return open_regular(self.path)
        if self.text is None:
            self.text = plain_text(self.path, self.options, str(self.path))
        return byte_stream(self.text.data)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"text": None, "starts": None}

    def _read(self, block: Block) -> bytes:
        with self._open() as file:
            file.seek(block.start)
            data = file.read(block.stop - block.start)
        if len(data) < block.stop - block.start:
            raise DataError(f"{self.source} has become shorter since it was first read")
        return data


def watched(file: BlockFile) -> Iterator[tuple[Block, Any]]:
    """The blocks of a file that is read to its end, with a bar: of bytes, and of a columnar file of its row groups.

    Args:
        file: Text, or columnar.
    """
    total, unit = (file.size, "B") if isinstance(file, TextFile) else (None, Message("row groups"))
    desc = Message("reading {file}", file=safe(file.source.name, most=60))
    with Bar(total, desc=desc, unit=unit, scaled=total is not None) as bar:
        for block, content in file.blocks():
            yield block, content
            bar.update(block.stop - block.start)


@dataclass
class _BlockLines:
    """Names the lines of rows by reading their block again, once."""

    file: TextFile
    block: Block
    lines: list[int] | None = None

    def __call__(self, row: int) -> Place:
        if self.lines is None:
            self.lines = list(lines_of(self.file._read(self.block), self.file.dialect))
        line, starts = self.lines[row] + self.block.line - 1, self.file.starts
        return Place(self.file.origin, line if starts is None else bisect_right(starts, line), self.file.noun)


def _next_size(rest: int) -> int:
    """How many bytes to read behind a record that has not ended yet: twice as many, up to the longest record."""
    return min(max(BLOCK_BYTES, rest), LONGEST_LINE - rest)


def last_record_end(data: bytes, dialect: Dialect) -> int:
    """The byte after the last record that surely ends in `data`; 0 where none does."""
    mark = b"\n" if b"\n" in data else b"\r"
    end = data.rfind(mark) + 1
    if not dialect.quoted or b'"' not in data:
        return end
    end = _last_outside(data, mark)
    return (
        end if dialect.audit is not None or audit_quotes(data[:end], dialect).regular else _counted_end(data, dialect)
    )


def _last_outside(data: bytes, mark: bytes) -> int:
    """The byte after the last line end that is in no quotes, looked for from the end; 0 where there is none."""
    array, before = np.frombuffer(data, dtype=np.uint8), data.count(b'"')
    for stop in range(len(data), 0, -_BUFFER):
        piece = array[max(0, stop - _BUFFER) : stop]
        quotes, breaks = np.flatnonzero(piece == ord('"')), np.flatnonzero(piece == ord(mark))
        before -= len(quotes)
        outside = breaks[(np.searchsorted(quotes, breaks) + before) % 2 == 0]
        if len(outside):
            return max(0, stop - _BUFFER) + int(outside[-1]) + 1
    return 0


def _cut_character(data: bytes) -> int:
    """How many bytes at the end are the beginning of a character whose rest is in the next block."""
    for count, byte in enumerate(data[: -4 if len(data) > 3 else None : -1], 1):
        if byte >= 0xC0:
            return count if count < (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4) else 0
        if byte < 0x80:
            break
    return 0


def _counted_end(data: bytes, dialect: Dialect) -> int:
    """The same where quotes do not alternate, by reading the records: the start of the last, or of one that is cut."""
    last = 1
    for line, record in records(data[: len(data) - _cut_character(data)], dialect):
        last = line
        if isinstance(record, csv.Error) and "end of data" in str(record):
            break
    return sum(len(line) for line in data.splitlines(keepends=True)[: last - 1])
