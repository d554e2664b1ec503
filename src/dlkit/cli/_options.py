"""The options that several commands share, and what they become."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

__all__ = [
    "Audio",
    "DebugFlag",
    "Device",
    "Drop",
    "Image",
    "JsonFlag",
    "LabelSeparator",
    "Model",
    "OnError",
    "Pair",
    "Seed",
    "Source",
    "Target",
    "Text",
    "Workers",
    "columns_of_texts",
    "reading",
    "reads_tables",
]

Source = Annotated[str, typer.Argument(metavar="DATA", help="A folder, a table, or a name such as notmnist.")]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A model file, or the folder of the run that wrote it.")]
Target = Annotated[list[str] | None, typer.Option(help="Column to predict; give it again for several.")]
Text = Annotated[
    list[str] | None,
    typer.Option(help="Column of the texts, by name or number from 0; again for several, joined to one."),
]
Pair = Annotated[list[str] | None, typer.Option(help="Column of a second text for each; again for several.")]
Image = Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of a table that names image files.")]
Audio = Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of a table that names sound files.")]
LabelSeparator = Annotated[
    str | None, typer.Option(metavar="TEXT", help='Between the labels of one file in a table, such as "|".')
]
Drop = Annotated[list[str] | None, typer.Option(help="Column to leave out; give it again for several.")]
OnError = Annotated[Literal["raise", "skip"], typer.Option(help="What to do about rows and files that are broken.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Workers = Annotated[int, typer.Option(help="Processes that prepare batches.", min=0)]
Seed = Annotated[int, typer.Option(help="Of everything random.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")]
DebugFlag = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


# How a file of rows is read; the names are those of `dlkit.reading.policy.ReadArguments`, and `names` is for `header`.
_READING = {
    "columns": Annotated[str | None, typer.Option(help="Columns to read, by name or number from 0: age,sex,y.")],
    "skip_rows": Annotated[int | None, typer.Option(help="Lines above the table to pass over.", min=0)],
    "comment": Annotated[str | None, typer.Option(help='What lines of remarks begin with, such as "#".')],
    "header": Annotated[
        bool | None, typer.Option("--header/--no-header", help="Whether the first row names the columns.")
    ],
    "names": Annotated[str | None, typer.Option(help="The columns' names where no row has them: age,sex,y.")],
    "decimal": Annotated[str | None, typer.Option(help='The decimal mark, "." or ",".')],
    "thousands": Annotated[str | None, typer.Option(help="What groups digits: , . ' or a blank.")],
    "encoding": Annotated[str | None, typer.Option(help="Of the text, such as cp949.")],
    "separator": Annotated[str | None, typer.Option(help="Between cells; tab for a tab.")],
    "missing": Annotated[
        list[str] | None, typer.Option(help='A cell that means "nothing here"; again for several, "" for none.')
    ],
    "sheet": Annotated[str | None, typer.Option(help="Of an Excel file, by name or number from 0.")],
}


def reads_tables(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of how a file of rows is read.

    Args:
        command: Gets what was said as keyword arguments of `dlkit.datasets.CSVDataset`, in its parameter `rows`.
    """
    signature = inspect.signature(command, eval_str=True)
    own = [parameter for parameter in signature.parameters.values() if parameter.name != "rows"]
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in _READING.items()
    ]

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        said = {name: kwargs.pop(name, None) for name in _READING}
        command(*args, rows=_rows({name: value for name, value in said.items() if value not in (None, [])}), **kwargs)

    together = sorted([*own, *options], key=lambda parameter: parameter.kind)
    run.__signature__ = signature.replace(parameters=together)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in together}
    return run


def _rows(said: dict[str, Any]) -> dict[str, Any]:
    if "names" in said:
        if said.get("header") is not None:
            raise typer.BadParameter("--names says that no row has them: leave out --header and --no-header")
        said["header"] = said.pop("names").split(",")
    if "columns" in said:
        said["columns"] = said["columns"].split(",")
    if said.get("separator") in ("tab", "\\t"):
        said["separator"] = "\t"
    if "missing" in said:
        said["missing"] = [mark for mark in said["missing"] if mark]
    return said


def reading(
    target: list[str] | None,
    text: list[str] | None,
    drop: list[str] | None,
    on_error: str,
    *,
    pair: list[str] | None = None,
    fractions: str | None = None,
    rows: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """The options of `dlkit.recipes.read_data`; where texts are meant, a column that is all digits is a number.

    Args:
        target: Of `--target`.
        text: Of `--text`.
        drop: Of `--drop`.
        on_error: Of `--on-error`.
        pair: Of `--pair`.
        fractions: Of `--fractions`.
        rows: What `reads_tables` found.
        **more: Other options of `read_data`; those that were not given are None or False.
    """
    found: dict[str, Any] = {"on_error": on_error, **(rows or {}), **columns_of_texts(text, pair)}
    found |= {name: value for name, value in more.items() if value}
    if target:
        first = _column(target[0]) if text else target[0]
        found["target"] = first if len(target) == 1 else list(target)
    if drop:
        found["drop"] = list(drop)
    if fractions is not None:
        found["fractions"] = _shares(fractions)
    return found


def columns_of_texts(text: list[str] | None, pair: list[str] | None) -> dict[str, Any]:
    """The columns of the texts, and of the second texts of pairs, as arguments.

    Args:
        text: Of `--text`.
        pair: Of `--pair`.
    """
    said = {"text": text, "pair": pair}
    return {
        name: _column(given[0]) if len(given) == 1 else [_column(each) for each in given]
        for name, given in said.items()
        if given
    }


def _column(name: str) -> str | int:
    """A column by its name, or by its number from 0."""
    return int(name) if name.isdecimal() else name


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(share) for share in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"--fractions: {text!r} are no shares such as 0.8,0.1,0.1") from None
