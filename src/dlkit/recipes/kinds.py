"""What a source of data is, by its name and what lies in it; and which options mean something for it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from dlkit._near import nearest
from dlkit.datasets.audio.decoding import EXTENSIONS as SOUNDS
from dlkit.datasets.images.decoding import EXTENSIONS
from dlkit.datasets.inspecting import kind_of_files
from dlkit.datasets.texts.dataset import TextOptions
from dlkit.download.urls import known_as
from dlkit.errors import ArgumentError, DataError, DataNotFoundError
from dlkit.reading.policy import ReadArguments
from dlkit.recipes.filed import FileColumn, column_of_files
from dlkit.recipes.samples import SAMPLES, sampled
from dlkit.splits import Fold

__all__ = [
    "CUTS",
    "DataOptions",
    "Kind",
    "LETTERS",
    "NAMES",
    "is_mixed",
    "kind_of",
    "name_of",
    "place_of",
    "refuse_senseless",
    "understood",
]

Kind = Literal["letters", "images", "sounds", "table", "text"]

#: Letters that are known by name, to what they are.
LETTERS = {
    "notmnist": "letters A to J in 18,724 small grey images; downloaded once (8 MB)",
    "notmnist-large": "529,114 of them; downloaded once (247 MB)",
    "glyphs": "letters A to J drawn from the fonts of this machine; no download",
}
#: All data that is known by name.
NAMES = {**LETTERS, **{name: sample.about for name, sample in SAMPLES.items()}}
#: The options that name a column which says what stays together, or what comes first.
CUTS = ("group", "time")
_OF_TEXTS = ("pair", "tokenizer", "strip_html", "lower")
_SAID = {
    "letters": "letters in images",
    "images": "a folder of images, whose classes are its folders",
    "sounds": "a folder of sounds, whose classes are its folders",
    "table": "a table",
    "text": "texts",
}
_IN_TABLE = {"images": "images that a table names", "sounds": "sounds that a table names"}


class DataOptions(ReadArguments, total=False):
    """The keyword arguments of `read_data`, which `train` takes too; see `ReadArguments` for how rows are read."""

    target: str | int | Sequence[str] | None
    text: str | int | Sequence[str | int] | None
    pair: str | int | Sequence[str | int] | None
    image: str | None
    audio: str | None
    label_separator: str | None
    mixed: bool
    task: Literal["auto", "classification", "binary", "regression", "multilabel"]
    drop: Sequence[str]
    fractions: Sequence[float] | Fold
    group: str | None
    time: str | None
    tokenizer: str
    strip_html: bool
    lower: bool


def understood(source: Any, options: Mapping[str, Any]) -> tuple[Kind, FileColumn | None]:
    """What a source is; and of a table that names images or sounds the column.

    Args:
        source: See `read_data`.
        options: See `read_data`.

    Raises:
        DlkitError: see `kind_of`.
    """
    if is_mixed(options):
        return kind_of(source), None
    kind = kind_of(source, text=options.get("text"))
    column = column_of_files(source, options) if kind == "table" else None
    return (kind, None) if column is None else (column.kind, column)


def is_mixed(options: Mapping[str, Any]) -> bool:
    """Whether `options` take texts and images of a table as columns beside the others."""
    return bool(options.get("mixed")) or (options.get("text") is not None and options.get("image") is not None)


def kind_of(source: Any, *, text: Any = None) -> Kind:
    """What a source is, by its name and the files in it; nothing of it is decoded.

    Args:
        source: See `read_data`.
        text: See `read_data`.

    Raises:
        DataNotFoundError: there is no such file or folder.
        DataError: a folder without images, sounds and texts.
        ArgumentError: a file that is not data.
    """
    if not isinstance(source, str | os.PathLike):
        return "table" if text is None else "text"
    path = Path(source).expanduser()
    if str(source).lower() in NAMES and not path.exists():
        return "letters" if str(source).lower() in LETTERS else "table"
    if path.is_dir():
        return _kind_of_folder(path)
    if not path.exists() and "://" not in str(source):
        raise _not_found(path)
    if path.suffix.lower() in EXTENSIONS:
        raise ArgumentError(f"{path} is one image; give the folder that has a folder of images for each class")
    if path.suffix.lower() in SOUNDS:
        raise ArgumentError(f"{path} is one sound; give the folder that has a folder of sounds for each class")
    if path.suffix.lower() == ".safetensors":
        raise ArgumentError(f"{path} is a model file; give data: a folder, a table or one of {', '.join(NAMES)}")
    return "table" if text is None else "text"


def _kind_of_folder(folder: Path) -> Kind:
    if (found := kind_of_files(folder)) is not None:
        return found
    if any(Path(name).suffix.lower() == ".txt" for _, _, files in os.walk(folder) for name in files):
        return "text"
    raise DataError(f"the folder {folder} holds neither images nor sounds nor .txt files, in it or below it")


def _not_found(path: Path) -> DataNotFoundError:
    beside = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
    close = nearest(path.name, beside) or nearest(path.name, NAMES, most=1)
    hint = f"; is it {' or '.join(close)}?" if close else f"; data by name: {', '.join(NAMES)}"
    return DataNotFoundError(f"there is no file or folder {path} (in {Path.cwd()}){hint}")


def refuse_senseless(kind: Kind, options: DataOptions, column: FileColumn | None) -> None:
    """Refuse options that mean nothing for data of a kind.

    Args:
        kind: See `understood`.
        options: Of `read_data`.
        column: See `understood`.

    Raises:
        ArgumentError: names the option.
    """
    of_tables = {"target", "drop", "label_separator", "task", *CUTS, *ReadArguments.__annotations__}
    if column is not None:
        fitting = of_tables | {"image", "audio"}
    elif kind == "table":
        fitting = of_tables | ({"text", "image", "mixed"} if is_mixed(options) else set())
    else:
        of_texts = {"strip_html", "lower", *CUTS, *TextOptions.__annotations__}
        fitting = {"text": of_texts, "letters": {"group"}}.get(kind, set())
    for name in options.keys() - {"fractions", "on_error"}:
        if options.get(name) not in (None, (), []) and name not in fitting:
            hint = "; name the column of the texts: text=" if name in _OF_TEXTS and kind == "table" else ""
            raise ArgumentError(
                f"{name}={options.get(name)!r}: this data is {_SAID[kind] if column is None else _IN_TABLE[kind]}, "
                f"to which it does not apply{hint}"
            )


def name_of(source: Any) -> str:
    """A short name of a `source`, for folders and messages."""
    if not isinstance(source, str | os.PathLike):
        return type(source).__name__.lower()
    path = Path(urlsplit(str(source)).path if "://" in str(source) else place_of(source))
    return path.name if path.is_dir() else path.stem


def place_of(source: Any) -> str:
    """Where a `source` is, as `Data.source` says it: a full path, an address or a known name."""
    if str(source).lower() in LETTERS and not Path(source).expanduser().exists():
        return str(source).lower()
    source = sampled(source, {})[0]
    if not isinstance(source, str | os.PathLike):
        return f"a {type(source).__name__}"
    return known_as(str(source)) if "://" in str(source) else os.path.abspath(Path(source).expanduser())
