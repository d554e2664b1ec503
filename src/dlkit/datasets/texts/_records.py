"""From a file's bytes to lines and records: decoded, divided, and every broken one named instead of read wrong."""

from __future__ import annotations

import codecs
import csv
import io
import re
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from dlkit._showing import safe
from dlkit._textfiles import csv_problem, csv_records, first_lines
from dlkit.errors import DataError
from dlkit.reading.bytes import contents, to_utf8
from dlkit.reading.encodings import Buffer, find_encoding

__all__ = ["decoded", "find_separator", "is_quoted", "plain_records", "quoted_records", "text_lines"]

#: A record's first line, 1 for the file's first, and its fields or, as a string, what is wrong with it.
Record = tuple[int, list[str] | str]

_SEPARATORS = ("\t", ",", ";", "|")
_SAMPLE = 1 << 18
_OPENS_WITH_QUOTE = re.compile(rb'(?:^|(?<=[\t\n]))"[^\t\n]*')
_WELL_QUOTED = re.compile(rb'"(?:[^"]|"")*"')


def decoded(
    path: Path, encoding: str, wanted: str = "a file of texts", allowed: Collection[str] = ()
) -> tuple[Buffer, str]:
    """The file as UTF-8, and the encoding it had. Damaged bytes of a UTF-8 file stay, for their rows to be refused."""
    data = contents(path, wanted, allowed)
    if encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig"):
        return (memoryview(data)[3:] if bytes(data[:3]) == codecs.BOM_UTF8 else data), "utf-8"
    if encoding != "auto":
        return to_utf8(data, encoding, str(path))
    name, doubt = find_encoding(data, str(path))
    if not name.startswith("utf"):
        _refuse_mixture(bytes(data), name, path)
    if doubt is not None:
        warnings.warn(safe(doubt), UserWarning, stacklevel=2)
    return to_utf8(data, name, str(path))


def _refuse_mixture(data: bytes, name: str, path: Path) -> None:
    """A file whose lines are in several encodings can be read as latin-1, like any bytes, but would be garbage."""
    foreign = [(number, line) for number, line in enumerate(data.split(b"\n"), 1) if not line.isascii()]
    for other, share in (("utf-8", 0.2 if name == "cp949" else 0.01), ("cp949", 0.5)):
        strangers = [number for number, line in foreign if not _is_of(line, other)]
        if other != name and len(foreign) - len(strangers) > share * len(foreign) and strangers:
            raise DataError(
                f"{path}, line {strangers[0]}: not {other}, while {len(foreign) - len(strangers)} other lines are; "
                f"the file mixes encodings. Repair it, or read it with encoding={other!r} and on_error='skip'"
            )


def _is_of(line: bytes, encoding: str) -> bool:
    try:
        text = line.decode(encoding)
    except UnicodeDecodeError:
        return False
    # Two bytes of another encoding may look like one odd character of this one; a word of them is no accident.
    foreign = [character for character in text if character > "\x7f"]
    return encoding != "cp949" or sum("가" <= character <= "힣" for character in foreign) > 0.7 * len(foreign)


class _Bytes(io.RawIOBase):
    """Bytes that lie in memory or in a mapped file as a stream, without a copy of the whole."""

    def __init__(self, data: Buffer) -> None:
        self._data, self._at = memoryview(data), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._data[self._at : self._at + len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


def text_lines(data: Buffer, newline: str) -> io.TextIOWrapper:
    """The lines of UTF-8 bytes; `newline` as for `open`."""
    # Bytes that are no UTF-8 become lone surrogates, which are found, with their line, when a text is stored.
    stream = io.BufferedReader(_Bytes(data), 1 << 20)
    return io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline=newline)


def plain_records(data: Buffer, separator: str) -> Iterator[Record]:
    """Lines divided at each separator; quotes are characters like any other, and empty lines no records."""
    for line, text in enumerate(text_lines(data, "\n"), 1):
        if stripped := text.rstrip("\r\n"):
            yield line, stripped.split(separator)


def quoted_records(data: Buffer, separator: str) -> Iterator[Record]:
    """Records with quotes. A broken one is reported, and reading goes on in the line after the one it began in."""
    for line, record in csv_records(text_lines(data, ""), delimiter=separator, strict=True):
        yield line, csv_problem(record) if isinstance(record, csv.Error) else record


def find_separator(path: Path, data: Buffer) -> str:
    """By the file's name, else the character that most evenly divides the first lines."""
    if {".tsv", ".tab"} & {suffix.lower() for suffix in path.suffixes}:
        return "\t"
    sample = first_lines(data, _SAMPLE)
    lines = sample.decode("utf-8", "replace").splitlines()[:200]
    lines = lines[:-1] if len(lines) > 1 and len(data) > len(sample) else lines
    scores = {separator: _evenness([line.count(separator) for line in lines if line]) for separator in _SEPARATORS}
    return max(_SEPARATORS, key=scores.__getitem__) if any(scores.values()) else ","


def _evenness(counts: list[int]) -> float:
    """The share of lines that have as many separators as the first one, 0 where that has none."""
    return counts.count(counts[0]) / len(counts) if counts and counts[0] else 0.0


def is_quoted(data: Buffer) -> bool:
    """Whether a file with tabs quotes: each field that begins with a quote must end with one, in the same line.

    The tab-separated files of linguists quote nothing, and their texts may begin with a quote that is never closed.
    """
    found = False
    for field in _OPENS_WITH_QUOTE.finditer(memoryview(data)):
        if not _WELL_QUOTED.fullmatch(field[0].rstrip(b"\r")):
            return False
        found = True
    return found
