"""Results line by line, each batch as it is computed: CSV, or one JSON object a line; on the screen or in a file."""

from __future__ import annotations

import contextlib
import shutil
import sys
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import typer

from dlkit._language import here
from dlkit._showing import Lines, safe
from dlkit.cli._talking import as_json_line

__all__ = ["FIRST", "Written", "check_out", "fitted", "show_first", "write_lines"]

FIRST = 10  # lines that a terminal shows
_WIDEST, _NARROWEST = 40, 8  # columns of a terminal that one cell may take there


class Written:
    """What has been written so far; true also when something stops the rest.

    Attributes:
        lines: How many inputs.
        errors: How many of them could not be used.
        first: Tables that hold the first lines.
    """

    def __init__(self) -> None:
        self.lines = self.errors = 0
        self.first: list[Any] = []


def check_out(out: Path | None, taken: Iterable[Any]) -> None:
    """Refuse a file for the results that is one of the inputs, or cannot be made.

    Args:
        out: The file; None for the screen.
        taken: What is read: names of files, or texts.
    """
    if out is None:
        return
    from dlkit.storage.files import check_writable

    check_writable(out)
    if out.exists() and any(_is_same(out, name) for name in taken):
        raise typer.BadParameter(f"--out: {out} is read in this very call; name another file")


def _is_same(out: Path, name: Any) -> bool:
    try:
        return out.samefile(name)
    except (OSError, ValueError):  # a text, an address, nothing
        return False


def write_lines(tables: Iterable[Any], out: Path | None, written: Written, *, as_json: bool, skipping: bool) -> None:
    """Write tables under each other, and hand over each before the next is computed.

    Args:
        tables: DataFrames with the same columns; rows that no column names get their number.
        out: The file, which is made when the first table comes; None for stdout.
        written: Counts along.
        as_json: One JSON object a line instead of CSV.
        skipping: The last column says what is wrong with inputs.
    """
    with contextlib.ExitStack() as stack:
        file: IO[str] | None = None
        for table in tables:
            text = _as_json(table) if as_json else table.to_csv(index=False, header=file is None)
            if file is None:
                file = sys.stdout if out is None else stack.enter_context(open(out, "w", encoding="utf-8", newline=""))
            if file.isatty():  # a file gets what is there, a screen what cannot act on it
                text = safe(Lines(text), most=0)
            file.write(_writable(text, getattr(file, "encoding", None) or "utf-8"))
            file.flush()
            if written.lines <= FIRST:
                written.first.append(table)
            written.lines += len(table)
            written.errors += int((table.iloc[:, -1] != "").sum()) if skipping else 0


def show_first(tables: Iterable[Any]) -> bool:
    """Show the first rows on the terminal, in columns, cut at its edge; say whether there are more.

    Args:
        tables: DataFrames with the same columns, of which no more are taken than are shown.
    """
    rows, names = list[Any](), list[str]()
    for table in tables:
        names = list(table.columns)
        rows += table.head(FIRST + 1 - len(rows)).itertuples(index=False, name=None)
        if len(rows) > FIRST:
            break
    cells = [names, *([_cell(value) for value in row] for row in rows[:FIRST])]
    widths = [min(_WIDEST, max(map(_width, column))) for column in zip(*cells, strict=True)]
    edge = shutil.get_terminal_size().columns
    while sum(widths) + 2 * len(widths) > edge + 2 and max(widths) > _NARROWEST:
        widths[widths.index(max(widths))] -= 1
    lines = ["  ".join(fitted(cell, width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    typer.echo("\n".join(fitted(line, min(edge, _width(line.rstrip()))) for line in lines))
    return len(rows) > FIRST


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.4g}"
    return "" if value is None else safe(str(value), most=0)


def fitted(text: str, width: int, *, right: bool = False) -> str:
    """A text that takes exactly so many columns of a terminal, cut if need be.

    Args:
        text: What is shown; a message in the language of this process.
        width: Columns.
        right: Put it to the right end.
    """
    text = here(text)
    if _width(text) > width:
        while _width(text) >= width and text:
            text = text[:-1]
        text += "…"
    rest = " " * (width - _width(text))
    return rest + text if right else text + rest


def _width(text: str) -> int:
    """Columns of a terminal; letters of Chinese, Japanese and Korean take two."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(unicodedata.combining(letter) > 0 for letter in text)


def _writable(text: str, encoding: str) -> str:
    """Half characters and those that a terminal lacks as escapes, which JSON reads as well."""
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _as_json(table: Any) -> str:
    return "".join(f"{as_json_line(record)}\n" for record in table.to_dict("records"))
