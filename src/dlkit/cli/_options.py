"""One table of options, from which commands take theirs, and what was said becomes arguments of `dlkit.recipes`.

A command names the options it takes (`@takes(options=DATA, settings=TRAINING)`) and gets what was said as dictionaries
with the names that the functions of `dlkit.recipes` give to the same things.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

__all__ = [
    "DATA",
    "READING",
    "TRAINING",
    "DebugFlag",
    "Device",
    "JsonFlag",
    "Model",
    "OnError",
    "Source",
    "takes",
]

Source = Annotated[str, typer.Argument(metavar="DATA", help="A folder, a table, or a name such as notmnist.")]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A model file, or the folder of the run that wrote it.")]
OnError = Annotated[Literal["raise", "skip"], typer.Option(help="What to do about rows and files that are broken.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")]
Fuse = Annotated[bool, typer.Option("--fuse", help="Compute images on a CPU faster; last bits may differ.")]
DebugFlag = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def _device(said: str) -> str:
    """A device as torch names it; courses say the number of a GPU, and -1 for none."""
    if said.isdecimal():
        return f"cuda:{said}"
    return "cpu" if said == "-1" else said


Device = Annotated[
    str,
    typer.Option("--device", "--gpu", callback=_device, help="auto, cpu, cuda or mps; or the number of a GPU."),
]
_Names = list[str] | None
_Text = str | None
_Count = int | None

# Which columns are what.
_COLUMNS = {
    "target": Annotated[_Names, typer.Option(help="Column to predict; give it again for several.")],
    "text": Annotated[
        _Names, typer.Option(help="Column of the texts, by name or number from 0; again for several, joined to one.")
    ],
    "pair": Annotated[_Names, typer.Option(help="Column of a second text for each; again for several.")],
    "image": Annotated[_Text, typer.Option(metavar="COLUMN", help="Column of a table that names image files.")],
    "audio": Annotated[_Text, typer.Option(metavar="COLUMN", help="Column of a table that names sound files.")],
    "mixed": Annotated[
        bool, typer.Option("--mixed", help="Texts and images of a table are columns beside the others.")
    ],
    "drop": Annotated[_Names, typer.Option(help="Column to leave out; give it again for several.")],
}
# What a target means; how texts are read; how data is cut.
_MEANING = {
    "task": Annotated[
        Literal["classification", "binary", "regression", "multilabel"] | None,
        typer.Option(help="What the target means, if not what its values look like."),
    ],
    "label_separator": Annotated[
        _Text, typer.Option(metavar="TEXT", help='Separator of several labels in one cell of the target, such as "|".')
    ],
    "tokenizer": Annotated[
        _Text,
        typer.Option(
            help="Tokenizer of texts: words, words-and-pairs, whitespace, characters, jamo, ngrams, runs, bytes or bpe."
        ),
    ],
    "strip_html": Annotated[bool, typer.Option("--strip-html", help="Remove HTML tags and entities from texts.")],
    "lower": Annotated[bool, typer.Option("--lower", help="Convert texts to lower case.")],
    "group": Annotated[
        _Text, typer.Option(metavar="COLUMN", help="Rows of equal values, such as a patient's, go into one part.")
    ],
    "time": Annotated[
        _Text,
        typer.Option(
            metavar="COLUMN", help="Dates or numbers: the earliest rows are for training, the latest for the test."
        ),
    ],
    "fractions": Annotated[_Text, typer.Option(help="Fractions for training, validation and test: 0.8,0.1,0.1.")],
    "on_error": OnError,
}
# How a file of rows is read; the names are those of `dlkit.reading.policy.ReadArguments`, and `names` is for `header`.
_READING = {
    "columns": Annotated[_Text, typer.Option(help="Columns to read, by name or number from 0: age,sex,y.")],
    "skip_rows": Annotated[_Count, typer.Option(help="Lines above the table to skip.", min=0)],
    "comment": Annotated[_Text, typer.Option(help='Prefix of comment lines, such as "#".')],
    "header": Annotated[
        bool | None, typer.Option("--header/--no-header", help="Whether the first row names the columns.")
    ],
    "names": Annotated[_Text, typer.Option(help="Column names, if no row has them: age,sex,y.")],
    "decimal": Annotated[_Text, typer.Option(help='The decimal mark, "." or ",".')],
    "thousands": Annotated[_Text, typer.Option(help="Thousands separator: , . ' or a space.")],
    "encoding": Annotated[_Text, typer.Option(help="Text encoding, such as cp949.")],
    "separator": Annotated[_Text, typer.Option(help="Cell separator; tab for a tab.")],
    "missing": Annotated[
        _Names, typer.Option(help='A cell that means "nothing here"; again for several, "" for none.')
    ],
    "sheet": Annotated[_Text, typer.Option(help="Sheet of an Excel file, by name or number from 0.")],
}
# What `dlkit.recipes.train` takes.
_TRAINING = {
    "arch": Annotated[
        _Text,
        typer.Option(
            help="Images, sounds: small, torchvision/NAME, timm/NAME; texts: linear, bag, gru, transformer, hf/NAME; "
            "tables: ensemble, blend, boosting, mlp."
        ),
    ],
    "weights": Annotated[Path | None, typer.Option(metavar="FILE", help="Weights for the backbone.")],
    "pretrained": Annotated[bool, typer.Option(help="Start from pretrained weights.")],
    "freeze": Annotated[
        bool | None,
        typer.Option("--freeze/--no-freeze", help="Train only the head; the default with pretrained weights."),
    ],
    "views": Annotated[_Count, typer.Option(help="Random views of each image, kept as features.", min=1)],
    "epochs": Annotated[_Count, typer.Option(help="Epochs in total; stops earlier when nothing improves.", min=1)],
    "batch_size": Annotated[_Count, typer.Option(help="Samples per step.", min=1)],
    "accumulate": Annotated[
        _Count,
        typer.Option(help="Batches that processes share in a step; as many as processes if not given.", min=1),
    ],
    "lr": Annotated[_Text, typer.Option(metavar="RATE", help="Learning rate; find searches for one first.")],
    "patience": Annotated[_Count, typer.Option(help="Epochs without improvement to wait.", min=1)],
    "image_size": Annotated[_Count, typer.Option(help="Side of the images in pixels.", min=8)],
    "class_weights": Annotated[
        _Text, typer.Option(metavar="WEIGHTS", help="balanced: rare classes count as much; or no=1,yes=20.")
    ],
    "sampler": Annotated[
        Literal["balanced"] | None, typer.Option(help="balanced: a step sees samples of all classes equally often.")
    ],
    "thresholds": Annotated[
        Literal["f1"] | None, typer.Option(help="f1: choose the decision threshold with the best F1.")
    ],
    "folds": Annotated[
        _Count, typer.Option(help="Judge by so many folds; the model is then trained on everything.", min=2)
    ],
    "sample_rate": Annotated[
        _Count, typer.Option(metavar="HERTZ", help="Sample rate of sounds, which are resampled to it.")
    ],
    "seconds": Annotated[float | None, typer.Option(help="Length of sounds in seconds; longer ones are cropped.")],
    "precision": Annotated[Literal["fp32", "bf16", "fp16"], typer.Option(help="Precision of most computations.")],
    "log": Annotated[
        _Names,
        typer.Option(metavar="[tensorboard|mlflow|wandb]", help="Loggers besides history.csv; again for several."),
    ],
    "out": Annotated[Path | None, typer.Option(metavar="DIR", help="The run's folder; runs/<name of the data>.")],
    "resume": Annotated[bool, typer.Option(help="Resume the run in the folder; otherwise it is moved aside.")],
    "seed": Annotated[int, typer.Option(help="Seed of all random numbers.")],
    "device": Device,
    "num_workers": Annotated[int, typer.Option(help="Processes that prepare batches.", min=0)],
}
_TABLE: dict[str, Any] = {**_COLUMNS, **_MEANING, **_TRAINING, **_READING}
_DEFAULTS = {
    "mixed": False,
    "strip_html": False,
    "lower": False,
    "on_error": "raise",
    "pretrained": True,
    "precision": "fp32",
    "resume": True,
    "seed": 0,
    "device": "auto",
    "num_workers": 0,
}
READING = tuple(_READING)
#: What `dlkit.recipes.read_data` takes.
DATA = (*_COLUMNS, *_MEANING, *READING)
#: What `dlkit.recipes.train` takes beside the data.
TRAINING = tuple(_TRAINING)


def takes(**groups: Sequence[str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command options of the table.

    Args:
        **groups: Names of options for a parameter of the command, which gets a dictionary of what was said: as
            `options` without what was not said, else with the usual values.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [parameter for parameter in signature.parameters.values() if parameter.name not in groups]
        added = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=_DEFAULTS.get(name), annotation=_TABLE[name]
            )
            for names in groups.values()
            for name in names
        ]

        @functools.wraps(command)
        def run(*args: Any, **kwargs: Any) -> None:
            given = {group: {name: kwargs.pop(name) for name in names} for group, names in groups.items()}
            command(*args, **{group: _meant(said) for group, said in given.items()}, **kwargs)

        ordered = sorted([*own, *added], key=lambda parameter: (parameter.kind, parameter.name in ("json", "debug")))
        run.__signature__ = signature.replace(parameters=ordered)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in ordered}
        return run

    return decorate


def _meant(said: Mapping[str, Any]) -> dict[str, Any]:
    """What was said as arguments; what was not said is left out, for the function to choose."""
    found = {name: value for name, value in said.items() if value is not None and value != []}
    found = {name: value for name, value in found.items() if value is not False or name in _FLAGS}
    if "names" in found and "header" in found:
        raise typer.BadParameter("--names says that no row has them: leave out --header and --no-header")
    numbered = bool(found.get("text"))  # of texts a column that is all digits is a number
    for name, value in list(found.items()):
        if name in ("text", "pair") or (name == "target" and numbered):
            found[name] = _one_or_several([_column(each) for each in value])
        elif name == "target":
            found[name] = _one_or_several(value)
        elif name in _MEANT:
            found[name] = _MEANT[name](value)
    if "names" in found:
        found["header"] = found.pop("names")
    return found


_FLAGS = ("header", "freeze", "pretrained", "resume")  # of which False is said, too


def _one_or_several(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _column(name: str) -> str | int:
    """A column by its name, or by its number from 0."""
    return int(name) if name.isdecimal() else name


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(share) for share in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"--fractions: {text!r} are no shares such as 0.8,0.1,0.1") from None


def _weights(given: str) -> Any:
    if "=" not in given:
        return given
    try:
        named = [each.rpartition("=") for each in given.split(",")]
        return {name: float(weight) for name, _, weight in named}
    except ValueError as error:
        raise typer.BadParameter(f"--class-weights: {given!r} are no weights; they look like no=1,yes=20") from error


def _rate(given: str) -> Any:
    try:
        return given if given == "find" else float(given)
    except ValueError:
        raise typer.BadParameter(f"--lr: {given!r} is not a learning rate such as 0.001, nor find") from None


_MEANT: dict[str, Callable[[Any], Any]] = {
    "columns": lambda text: text.split(","),
    "names": lambda text: text.split(","),
    "missing": lambda marks: [mark for mark in marks if mark],
    "separator": lambda text: "\t" if text in ("tab", "\\t") else text,
    "fractions": _shares,
    "class_weights": _weights,
    "lr": _rate,
}
