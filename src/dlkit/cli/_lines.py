"""Results line by line, each batch as it is computed: CSV, or one JSON object a line; on the screen or in a file."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import typer

from dlkit._showing import Lines, safe
from dlkit.cli._talking import as_json_line

__all__ = ["Written", "check_out", "write_lines"]


class Written:
    """What has been written so far; true also when something stops the rest.

    Attributes:
        lines: How many inputs.
        errors: How many of them could not be used.
    """

    def __init__(self) -> None:
        self.lines = self.errors = 0


def check_out(out: Path | None, taken: Iterable[Any]) -> None:
    """Refuse a file for the results that is one of the inputs, or cannot be made.

    Args:
        out: The file; None for the screen.
        taken: What is read: names of files, or texts.
    """
    if out is None:
        return
    if not out.parent.is_dir():
        raise typer.BadParameter(f"--out: there is no folder {out.parent}")
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
            written.lines += len(table)
            written.errors += int((table.iloc[:, -1] != "").sum()) if skipping else 0


def _writable(text: str, encoding: str) -> str:
    """Half characters and those that a terminal lacks as escapes, which JSON reads as well."""
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _as_json(table: Any) -> str:
    return "".join(f"{as_json_line(record)}\n" for record in table.to_dict("records"))
