"""The commands about data: `inspect`, `download`; and `new`, which starts a project for it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dlkit._language import Message
from dlkit._showing import Lines
from dlkit.cli._options import DATA, DebugFlag, JsonFlag, Source, takes
from dlkit.cli._talking import guarded, show
from dlkit.cli.projects import create

__all__ = ["download", "inspect", "new"]


@guarded
@takes(options=DATA)
def inspect(data: Source, options: Any = None, json: JsonFlag = False, debug: DebugFlag = False) -> None:
    """Describe DATA.

    Of images and sounds: classes, sizes or lengths, broken files, duplicates, leaks between the parts. Of a table:
    kinds, gaps, columns that know too much about the target. Of texts: lengths, classes, vocabulary.

    \b
    Examples:
      dlkit inspect photos
      dlkit inspect titanic.csv --target survived
      dlkit inspect messages.csv --text message --target label
    """
    from dlkit import recipes

    found = recipes.look_at(data, **options)
    show(Lines.said_by(found), _document(found), as_json=json)


def _document(found: Any) -> dict[str, Any]:
    """What was found as plain data: of images or sounds, of a table, or of anything else that `look_at` reads."""
    if hasattr(found, "findings"):
        columns = found.columns.reset_index(names="column").to_dict("records")
        return {"kind": "table", "columns": columns, "findings": found.findings}
    if hasattr(found, "to_dict"):
        return {"kind": found.kind, **found.to_dict()}
    return {"kind": found.kind, "source": found.source, "classes": found.classes, "how": found.how}


@guarded
def download(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="notmnist, notmnist-large, titanic, penguins, or a model.")
    ],
    to: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Where to put data; the cache folder if not given.")
    ] = None,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Download data or weights now, for later use offline.

    \b
    Examples:
      dlkit download notmnist
      dlkit download titanic --to titanic.csv
      dlkit download torchvision/resnet18
    """
    from dlkit import recipes

    found = recipes.download(name, to)
    show(found, {"name": name, "found": found}, as_json=json)


@guarded
def new(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the project; created if needed.")],
    task: Annotated[Literal["audio", "image", "mixed", "tabular", "text"], typer.Option(help="Kind of project.")],
    here: Annotated[bool, typer.Option("--here", help="DIR may hold files already; none is overwritten.")] = False,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Create a small project in DIR.

    Data, model, trainer, dataloader, train, predict, settings in one file, tests. It runs at once, on a made-up sample,
    until you name data of your own in config.toml; training writes history, curves and a report beside the model.

    \b
    Example:
      dlkit new flowers --task image
      cd flowers
      python train.py --epochs 2 --device cpu
    """
    files = create(folder, task, here=here)
    listed = (f"  {file.relative_to(folder)}" for file in files)
    text = Lines.of(
        f"{folder}:",
        *listed,
        Message("next: cd {folder}; python train.py; pytest; and read README.md", folder=shlex.quote(str(folder))),
    )
    show(text, {"folder": folder, "files": files}, as_json=json)
