"""`read_data`: finds out what a source holds, cuts it into parts, and says how it understood it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Unpack
from urllib.parse import urlsplit

from dlkit._html import Shown
from dlkit._language import Message
from dlkit._near import nearest
from dlkit._showing import Lines
from dlkit.datasets.audio.decoding import EXTENSIONS as SOUNDS
from dlkit.datasets.audio.folders import AudioFolder
from dlkit.datasets.images.decoding import EXTENSIONS
from dlkit.datasets.images.folders import ImageFolder
from dlkit.datasets.inspecting import kind_of_files
from dlkit.datasets.letters.glyphs import Glyphs
from dlkit.datasets.letters.notmnist import NotMNIST
from dlkit.datasets.letters.packed import PackedImages
from dlkit.datasets.tables.dataset import CSVDataset
from dlkit.datasets.texts.dataset import TextDataset, TextOptions
from dlkit.declared import task_in
from dlkit.download.urls import known_as
from dlkit.errors import ArgumentError, DataError, DataNotFoundError
from dlkit.reading.policy import ReadArguments
from dlkit.recipes.filed import FileColumn, column_of_files, filed_table
from dlkit.recipes.fold_scores import FoldScores
from dlkit.recipes.folders import laid_out, root_of, usual_image, usual_sound
from dlkit.recipes.samples import SAMPLES, sampled
from dlkit.specs.text import TextSpec
from dlkit.splits import Fold, num_parts, shares_of
from dlkit.tokens.cleaning import Cleaning

__all__ = ["Data", "DataOptions", "Kind", "LETTERS", "NAMES", "kind_of", "letters", "place_of", "read_data"]

Kind = Literal["letters", "images", "sounds", "table", "text"]

#: Letters that are known by name, to what they are.
LETTERS = {
    "notmnist": "letters A to J in 18,724 small grey images; downloaded once (8 MB)",
    "notmnist-large": "529,114 of them; downloaded once (247 MB)",
    "glyphs": "letters A to J drawn from the fonts of this machine; no download",
}
#: All data that is known by name.
NAMES = {**LETTERS, **{name: sample.about for name, sample in SAMPLES.items()}}
#: What is said of data that has no test part.
WITHOUT_TEST = Message(
    "no part to judge by: the figures will be those of the part that chose the epoch, so a little flattering"
)
_PARTS = ("train", "val", "test")
_MIXED_SIDE = 64  # pixels of images beside other columns
_SUSPICIONS = 200_000  # rows up to which looking for columns that know too much takes a moment only


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Data(Shown):
    """What `read_data` found: datasets to train on, to watch and to judge by.

    Attributes:
        kind: "images", "letters" (small grey images from a packed file), "sounds", "table" or "text".
        name: Short, for the name of a run's folder.
        source: Where it came from: a full path, an address or a known name.
        how: How it was understood, in sentences.
        train: The part to train on.
        val: The part that chooses the best epoch.
        test: The part that judges; None where the source is laid out without one.
        options: What decided how it was read: target, text and so on.
        seed: Of the split.
        side: For images, the shorter side of the usual one, in pixels.
        grey: For images, whether they have no colours.
        rate: For sounds, the usual sample rate in Hz.
        seconds: For sounds, a length that few exceed.
        folds: What the folds of a cross-validation came to, for the model that is trained on all of the data.

    >>> import pandas as pd
    >>> frame = pd.DataFrame({"x": range(40), "y": ["a", "b"] * 20})
    >>> data = read_data(frame, target="y", fractions=(0.5, 0.25, 0.25))
    >>> data.kind, data.classes, len(data.train)
    ('table', ['a', 'b'], 20)
    """

    kind: Kind
    name: str
    source: str
    how: tuple[str, ...]
    train: Any
    val: Any
    test: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    side: int = 0
    grey: bool = False
    rate: int = 0
    seconds: float = 0.0
    folds: FoldScores | None = None

    @property
    def classes(self) -> list[str]:
        """The class names in the order of their numbers; empty for a regression."""
        return list(self.train.classes)

    @property
    def outputs(self) -> int:
        """How many numbers a model of it gives for each sample."""
        return len(self.classes) or len(getattr(self.train, "target_columns", ())) or 1

    @property
    def task(self) -> str:
        """classification, binary, multilabel or regression."""
        return task_in(self.train) or "classification"

    def __str__(self) -> str:
        return Lines.of(*self.how).plain()


def read_data(source: Any, *, seed: int = 0, **options: Unpack[DataOptions]) -> Data:
    """Find out what `source` is, read it, and cut it into parts for training, validation and testing.

    A folder with a folder per class is images (or sounds or texts, if its files are those); `train`, `val` and `test`
    folders are taken as they are. A table (CSV, TSV, Excel, Parquet, Feather, DataFrame, address) is numbers and
    categories, or with `text` a column of texts, or images or sounds where a column names files of those that are
    there. "notmnist", "notmnist-large" and "glyphs" are data by name. What is
    fitted (scales, categories, vocabularies) is fitted on the training part alone; equal files and texts never fall
    into different parts.

    Args:
        source: A path, an address, a DataFrame, or one of `NAMES`.
        seed: Of the split.
        **options: `target`: the column to predict. `text`: the column of the texts, by name or number, or several
            that are joined; `pair`: that of a second text for each (see `dlkit.datasets.TextDataset`). `image` or
            `audio`: the column that names files, seen from the table's folder; `label_separator`: what is between
            several labels in one cell of the target. `task`: "classification", "binary", "regression" or "multilabel",
            where the values of the target look like another one. `mixed`: take texts and images as columns beside the
            others, which naming both means, too. `drop`: columns to leave out. `fractions`: the shares of training,
            validation and test (default 0.8, 0.1, 0.1), where nothing is laid out already; two shares make no test
            part; or a `dlkit.splits.Fold`. `group`: a column (a patient, a household) whose equal values never fall
            into different parts, or "font" for letters; it is not an input of a table. `time`: a column of dates or
            numbers: training has the earliest rows, test the latest, and `seed` means nothing. `tokenizer`: see
            `dlkit.datasets.TextDataset`; `strip_html` and `lower`: whether tags are taken out of texts and whether they
            become lower case, which prediction then does, too.
            `on_error`: "raise" (default) or "skip" for rows and files that cannot be read. `encoding`, `separator`,
            `header`, `columns`, `skip_rows`, `comment`, `decimal`, `thousands`, `sheet`, `missing`, `max_errors`: how
            a table is read, see `dlkit.datasets.CSVDataset`.

    Raises:
        DataNotFoundError: there is no such file or folder; close names are told.
        DataError: it cannot be read as what it looks like.
        ArgumentError: a column that is missing, or an option that cannot be meant for this kind of data.

    >>> read_data("glyphs").kind
    'letters'
    """
    if unknown := sorted(set(options) - set(DataOptions.__annotations__)):
        raise TypeError(f"read_data() got an unexpected keyword argument {unknown[0]!r}")
    source, options = sampled(source, options)
    kind, column = understood(source, options)
    _refuse_senseless(kind, options, column)
    if column is not None:
        return _filed(column, filed_table(column, source, options), options, seed, source)
    read = {"letters": _letters, "images": _images, "sounds": _sounds, "table": _table, "text": _texts}
    return read[kind](source, options, seed)


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
    """Whether texts and images of a table are columns beside the others.

    Args:
        options: Of `read_data`.
    """
    return bool(options.get("mixed")) or (options.get("text") is not None and options.get("image") is not None)


def encoded_by(data: Data, spec: TextSpec) -> Data:
    """The same texts, turned into numbers by another spec.

    Args:
        data: Of texts.
        spec: Of the same classes.
    """
    parts = {"train": data.train, "val": data.val} | ({} if data.test is None else {"test": data.test})
    return replace(data, **{name: part.with_spec(spec) for name, part in parts.items()})


def kind_of(source: Any, *, text: Any = None) -> Kind:
    """What a source is, by its name and the files in it; nothing of it is decoded.

    Args:
        source: See `read_data`.
        text: See `read_data`.

    Raises:
        DataNotFoundError: there is no such file or folder.
        DataError: a folder without images, sounds and texts.
        ArgumentError: a file that is no data.
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


def _refuse_senseless(kind: Kind, options: DataOptions, column: FileColumn | None) -> None:
    if column is not None:
        fitting = {
            "target",
            "drop",
            "image",
            "audio",
            "label_separator",
            "task",
            *_CUTS,
            *ReadArguments.__annotations__,
        }
    else:
        of_tables = {"target", "drop", "label_separator", "task", *_CUTS}
        own = {"table": of_tables, "text": {"strip_html", "lower", *_CUTS}, "letters": {"group"}}
        fitting = own.get(kind, set())
        more = {"table": set(ReadArguments.__annotations__), "text": set(TextOptions.__annotations__)}
        fitting |= {"text", "image", "mixed"} if kind == "table" and is_mixed(options) else set()
        fitting |= more.get(kind, set())
    for name in options.keys() - {"fractions", "on_error"}:
        if options.get(name) not in (None, (), []) and name not in fitting:
            hint = "; name the column of the texts: text=" if name in _OF_TEXTS and kind == "table" else ""
            raise ArgumentError(
                f"{name}={options.get(name)!r}: this data is {_SAID[kind] if column is None else _IN_TABLE[kind]}, "
                f"to which it does not apply{hint}"
            )


_CUTS = ("group", "time")
_OF_TEXTS = ("pair", "tokenizer", "strip_html", "lower")
_SAID = {
    "letters": "letters in images",
    "images": "a folder of images, whose classes are its folders",
    "sounds": "a folder of sounds, whose classes are its folders",
    "table": "a table",
    "text": "texts",
}
_IN_TABLE = {"images": "images that a table names", "sounds": "sounds that a table names"}


def _fractions(options: DataOptions) -> tuple[float, ...] | Fold:
    given = options.get("fractions")
    if isinstance(given, Fold) and not given.val:
        raise ArgumentError(f"{given} has no validation part, which chooses the epoch: Fold(..., val=0.1)")
    if (count := num_parts(given)) not in (2, 3):
        raise ArgumentError(f"fractions must be two or three shares that sum to 1, not {count}")
    return given if isinstance(given, Fold) else shares_of(given)


def _parts(parts: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(("train", "val", "test"), parts, strict=False))


def _counted(parts: Mapping[str, Any]) -> str:
    sizes = {name: len(part) for name, part in parts.items() if part is not None}
    if "test" in sizes:
        return Message("{train:,} to train on, {val:,} to watch, {test:,} to judge by", **sizes)
    return Message("{train:,} to train on, {val:,} to watch", **sizes)


def _cuts(options: DataOptions) -> dict[str, Any]:
    """The columns that say what stays together and what comes first."""
    return {name: options.get(name) for name in _CUTS if options.get(name) is not None}


def _cut_by(options: DataOptions) -> list[str]:
    cuts = _cuts(options)
    told = list[str]()
    if "group" in cuts:
        told.append(Message("rows of equal {name!r} are in one part", name=cuts["group"]))
    if "time" in cuts:
        told.append(Message("cut in the order of {name!r}, the latest last", name=cuts["time"]))
    return told


def _without_test(parts: Mapping[str, Any]) -> list[str]:
    if parts.get("test") is not None:
        return []
    return [WITHOUT_TEST]


def _letters(source: Any, options: DataOptions, seed: int) -> Data:
    name, found = str(source).lower(), letters(str(source))
    parts = _parts(found.split(_fractions(options), seed=seed, **_cuts(options)))
    how = (f"{name}: {found!r}", _counted(parts), *_cut_by(options), *_without_test(parts))
    return Data(
        kind="letters", name=name, source=name, how=how, options=dict(options), seed=seed, side=28, grey=True, **parts
    )


def letters(name: str, root: Path | None = None) -> PackedImages:
    """Data that is known by name, fetched if need be.

    Args:
        name: One of `LETTERS`.
        root: Where notMNIST is, or is to be; None for the cache folder.
    """
    if name.lower() == "glyphs":
        return Glyphs()
    return NotMNIST(root, subset="large" if name.lower().endswith("large") else "small", download=True)


def _images(source: Any, options: DataOptions, seed: int) -> Data:
    return _of_folder("images", ImageFolder(root_of(source), on_error=options.get("on_error", "raise")), options, seed)


def _sounds(source: Any, options: DataOptions, seed: int) -> Data:
    return _of_folder("sounds", AudioFolder(root_of(source), on_error=options.get("on_error", "raise")), options, seed)


def _of_folder(kind: Kind, found: Any, options: DataOptions, seed: int) -> Data:
    """What was found in a folder with a folder for each class."""
    told = Message(
        "{place}: {count:,} {kind} in {classes} class folders ({names})",
        place=found.root,
        count=len(found),
        kind=_word(kind),
        classes=len(found.classes),
        names=_few(found.classes),
    )
    return _of_files(kind, found, found.root.name, str(found.root), told, options, seed)


def _filed(column: FileColumn, found: Any, options: DataOptions, seed: int, source: Any) -> Data:
    """Images or sounds that a column of a table names."""
    classes = Message(", {count} classes ({names})", count=len(found.classes), names=_few(found.classes))
    told = Message(
        "{place}: {count:,} {kind} named in {name!r}, {task} of {targets}{classes}; no other column is used "
        "(drop={name!r} takes the table without the {kind})",
        place=place_of(source),
        count=len(found),
        kind=_word(column.kind),
        name=column.name,
        task=found.task,
        targets=", ".join(map(repr, found.target_columns)),
        classes=classes if found.classes else "",
    )
    return _of_files(column.kind, found, _name(source), place_of(source), told, options, seed)


def _of_files(kind: Kind, found: Any, name: str, source: str, told: str, options: DataOptions, seed: int) -> Data:
    """Images or sounds, cut into parts, and what they usually are like."""
    parts, laid = laid_out(found, _fractions(options), seed, **_cuts(options))
    facts: dict[str, Any]
    if kind == "images":
        side, grey = usual_image(parts["train"])
        color = "grey" if grey else "colour"
        facts = {"side": side, "grey": grey}
        usual = Message("{color} images, the shorter side usually {side} pixels", side=side, color=_word(color))
    else:
        rate, seconds = usual_sound(parts["train"])
        facts = {"rate": rate, "seconds": seconds}
        usual = Message(
            "sounds at {rate:,} Hz, 19 in 20 no longer than {seconds:g} seconds", rate=rate, seconds=seconds
        )
    how = (
        told,
        Message("{counted}, {laid}", counted=_counted({name: parts.get(name) for name in _PARTS}), laid=laid),
        *_cut_by(options),
        usual,
        *(
            Message("left out: {count:,} {what} ({names})", count=count, what=what, names=", ".join(first))
            for what, (count, first) in getattr(found, "left_out", {}).items()
        ),
        *_without_test(parts),
    )
    return Data(kind=kind, name=name, source=source, how=how, options=dict(options), seed=seed, **facts, **parts)


def _table(source: Any, options: DataOptions, seed: int) -> Data:
    target = options.get("target")
    if target is None:
        names = [column.name for column in CSVDataset(source, **rows_of(options)).spec.columns]
        raise ArgumentError(
            f"{_name(source)} is a table: say which column to predict, target=..., or which holds texts, text=...; "
            f"its columns are {', '.join(names)}"
        )
    columns = [target] if isinstance(target, str | int) else target
    parts = _parts(
        CSVDataset.split(
            source,
            target=[str(name) for name in columns] if len(columns) > 1 else str(columns[0]),
            drop=tuple(options.get("drop", ())),
            fractions=_fractions(options),
            seed=seed,
            task=options.get("task", "auto"),
            label_separator=options.get("label_separator"),
            **_cuts(options),
            **rows_of(options),
            **(_beside(source, options, [str(name) for name in columns]) if is_mixed(options) else {}),
        )
    )
    train = parts["train"]
    how = (
        *(line.strip() for line in repr(train).replace("CSVDataset: ", "table: ").splitlines()),
        _counted(parts),
        *_cut_by(options),
        *(
            Message("look at this: {finding}", finding=finding)
            for finding in _suspicions(train, in_order=options.get("time") is not None)
        ),
        *_without_test(parts),
    )
    return Data(
        kind="table", name=_name(source), source=place_of(source), how=how, options=dict(options), seed=seed, **parts
    )


def _beside(source: Any, options: DataOptions, target: Sequence[str]) -> dict[str, Any]:
    """The columns of texts and images that stand beside others: those that were said, else those that look like it."""
    files, texts = options.get("image"), options.get("text")
    if files is None:
        found = column_of_files(source, options)
        files = None if found is None or found.kind != "images" else found.name
    if texts is None:
        looked = CSVDataset(source, drop=(*options.get("drop", ()), *target), **rows_of(options)).spec
        texts = [column.name for column in looked.of_kind("free text")]
    listed = [texts] if isinstance(texts, str | int) else texts
    return {
        "text": [str(name) for name in listed],
        "image": [] if files is None else [files],
        "image_size": _MIXED_SIDE,
    }


def rows_of(options: DataOptions) -> dict[str, Any]:
    """The options of how rows are read, for the dataset.

    Args:
        options: Of `read_data`.
    """
    return {name: value for name, value in options.items() if name in ReadArguments.__annotations__}


_TOLD = ("alone tells", "so accuracy says little")
_ORDERED = "the rows are in the order of"


def _suspicions(train: CSVDataset, *, in_order: bool) -> list[str]:
    """Columns that know too much, rare classes, and an order in time, which a training on shuffled parts destroys."""
    if len(train) > _SUSPICIONS:
        return []
    left_out = [f"{column.name!r} " for column in train.spec.columns if not column.used]
    words = _TOLD if in_order else (*_TOLD, _ORDERED)
    told = [finding for finding in train.describe().findings if any(word in finding for word in words)]
    return [finding for finding in told if not finding.startswith(tuple(left_out))][:5]


def _texts(source: Any, options: DataOptions, seed: int) -> Data:
    target, folder = options.get("target"), isinstance(source, str | os.PathLike) and Path(source).is_dir()
    if target is None and not folder:
        raise ArgumentError(f"{_name(source)}: say which column to predict: target=... (a name, or a number from 0)")
    reading: dict[str, Any] = {} if folder else {"text": options.get("text", 0), "target": target}
    reading |= {name: options[name] for name in ("pair", "task") if name in options}
    cleaning = Cleaning(html=options.get("strip_html", False), lower=options.get("lower", False))
    parts = _parts(
        TextDataset.split(
            source,
            tokenizer=options.get("tokenizer", "words"),
            cleaning=cleaning,
            fractions=_fractions(options),
            seed=seed,
            **_cuts(options),
            **rows_of(options),
            **reading,
        )
    )
    train = parts["train"]
    if train.targets is None:
        raise DataError(f"{_name(source)}: texts without classes; one folder per class is expected")
    lines = (line.strip() for line in repr(train).replace("TextDataset: ", "texts: ").splitlines())
    how = (*lines, *map(str, train.skipped[:3]), _counted(parts), *_cut_by(options), *_without_test(parts))
    return Data(
        kind="text", name=_name(source), source=place_of(source), how=how, options=dict(options), seed=seed, **parts
    )


def _name(source: Any) -> str:
    if not isinstance(source, str | os.PathLike):
        return type(source).__name__.lower()
    return Path(urlsplit(str(source)).path if "://" in str(source) else source).stem


def place_of(source: Any) -> str:
    """Where a source is, as `Data.source` says it: a full path, an address or a known name.

    Args:
        source: See `read_data`.
    """
    if str(source).lower() in LETTERS and not Path(source).expanduser().exists():
        return str(source).lower()
    source = sampled(source, {})[0]
    if not isinstance(source, str | os.PathLike):
        return f"a {type(source).__name__}"
    return known_as(str(source)) if "://" in str(source) else os.path.abspath(Path(source).expanduser())


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:8])
    return Message("{names} and {more} more", names=shown, more=len(names) - 8) if len(names) > 8 else shown


def _word(name: str) -> Message:
    """One of dlkit's own words for a kind of data or colour, as it is said."""
    words = (Message("images"), Message("sounds"), Message("grey"), Message("colour"))
    return words[words.index(name)]
