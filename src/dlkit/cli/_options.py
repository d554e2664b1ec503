"""The options that several commands share, and what they become."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

__all__ = [
    "DebugFlag",
    "Device",
    "Drop",
    "JsonFlag",
    "Model",
    "OnError",
    "Seed",
    "Source",
    "Target",
    "Text",
    "Workers",
    "column",
    "reading",
]

Source = Annotated[str, typer.Argument(metavar="DATA", help="A folder, a table, or a name such as notmnist.")]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A model file, such as runs/x/model.safetensors.")]
Target = Annotated[list[str] | None, typer.Option(help="Column to predict; give it again for several.")]
Text = Annotated[str | None, typer.Option(help="Column of the texts, by name or number from 0.")]
Drop = Annotated[list[str] | None, typer.Option(help="Column to leave out; give it again for several.")]
OnError = Annotated[Literal["raise", "skip"], typer.Option(help="What to do about rows and files that are broken.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Workers = Annotated[int, typer.Option(help="Processes that prepare batches.", min=0)]
Seed = Annotated[int, typer.Option(help="Of everything random.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")]
DebugFlag = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def reading(
    target: list[str] | None,
    text: str | None,
    drop: list[str] | None,
    on_error: str,
    *,
    fractions: str | None = None,
    tokenizer: str | None = None,
) -> dict[str, Any]:
    """The options of `dlkit.recipes.read_data`; where texts are meant, a column that is all digits is a number.

    Args:
        target: Of `--target`.
        text: Of `--text`.
        drop: Of `--drop`.
        on_error: Of `--on-error`.
        fractions: Of `--fractions`.
        tokenizer: Of `--tokenizer`.
    """
    found: dict[str, Any] = {"on_error": on_error}
    if target:
        first = column(target[0]) if text is not None else target[0]
        found["target"] = first if len(target) == 1 else list(target)
    if text is not None:
        found["text"] = column(text)
    if drop:
        found["drop"] = list(drop)
    if tokenizer is not None:
        found["tokenizer"] = tokenizer
    if fractions is not None:
        found["fractions"] = _shares(fractions)
    return found


def column(name: str) -> str | int:
    """A column of texts, by its name, or by its number from 0.

    Args:
        name: Of `--text` or `--target`.
    """
    return int(name) if name.isdecimal() else name


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(share) for share in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"--fractions: {text!r} are no shares such as 0.8,0.1,0.1") from None
