"""`read_data`: finds out what a source holds, cuts it into parts, and says how it understood it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Unpack

from dlkit._html import Shown
from dlkit._language import Message
from dlkit._showing import Lines, few
from dlkit.datasets.audio.folders import AudioFolder
from dlkit.datasets.images.folders import ImageFolder
from dlkit.datasets.letters.glyphs import Glyphs
from dlkit.datasets.letters.notmnist import NotMNIST
from dlkit.datasets.letters.packed import PackedImages
from dlkit.datasets.tables.dataset import CSVDataset
from dlkit.datasets.texts.dataset import TextDataset
from dlkit.declared import task_in
from dlkit.errors import ArgumentError, DataError
from dlkit.reading.policy import ReadArguments
from dlkit.recipes.filed import FileColumn, column_of_files, filed_table
from dlkit.recipes.fold_scores import FoldScores
from dlkit.recipes.folders import laid_out, root_of, usual_image, usual_sound
from dlkit.recipes.kinds import CUTS, DataOptions, Kind, is_mixed, name_of, place_of, refuse_senseless, understood
from dlkit.recipes.samples import sampled
from dlkit.specs.text import TextSpec
from dlkit.splits import Fold, num_parts, shares_of
from dlkit.tokens.cleaning import Cleaning

__all__ = ["Data", "letters", "read_data"]

#: What is said of data that has no test part.
WITHOUT_TEST = Message(
    "no test part: the figures are those of the validation part, which chose the epoch, so they are slightly optimistic"
)
_MIXED_SIDE = 64  # pixels of images beside other columns
_SUSPICIONS = 200_000  # rows up to which looking for columns that know too much takes a moment only


@dataclass(frozen=True, kw_only=True, eq=False)
class Data(Shown):
    """What `read_data` found: training, validation and test datasets.

    Attributes:
        kind: "images", "letters" (small grey images from a packed file), "sounds", "table" or "text".
        name: Short, for the name of a run's folder.
        source: Where it came from: a full path, an address or a known name.
        how: How it was understood, in sentences.
        train: The part to train on.
        val: The part that chooses the best epoch.
        test: The test part; None where the source is laid out without one.
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
        DataNotFoundError: there is no such file or folder; close names are suggested.
        DataError: it cannot be read as what it looks like.
        ArgumentError: a column that is missing, or an option that does not apply to this kind of data.

    >>> read_data("glyphs").kind
    'letters'
    """
    if unknown := sorted(set(options) - set(DataOptions.__annotations__)):
        raise TypeError(f"read_data() got an unexpected keyword argument {unknown[0]!r}")
    source, options = sampled(source, options)
    kind, column = understood(source, options)
    refuse_senseless(kind, options, column)
    read = {"letters": _letters, "images": _images, "sounds": _sounds, "table": _table, "text": _texts}
    found = read[kind](source, options, seed) if column is None else _filed(column, source, options, seed)
    return Data(kind=kind, name=name_of(source), source=place_of(source), options=dict(options), seed=seed, **found)


def encoded_by(data: Data, spec: TextSpec) -> Data:
    """The same texts as `data`, turned into numbers by another `spec` of the same classes."""
    parts = {"train": data.train, "val": data.val} | ({} if data.test is None else {"test": data.test})
    return replace(data, **{name: part.with_spec(spec) for name, part in parts.items()})


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
    sizes = {name: len(parts[name]) for name in ("train", "val", "test") if parts.get(name) is not None}
    if "test" in sizes:
        return Message("{train:,} training, {val:,} validation, {test:,} test samples", **sizes)
    return Message("{train:,} training, {val:,} validation samples", **sizes)


def _cuts(options: DataOptions) -> dict[str, Any]:
    """The columns that say what stays together and what comes first."""
    return {name: options.get(name) for name in CUTS if options.get(name) is not None}


def _cut_by(options: DataOptions) -> list[str]:
    cuts = _cuts(options)
    told = list[str]()
    if "group" in cuts:
        told.append(Message("rows of equal {name!r} are in one part", name=cuts["group"]))
    if "time" in cuts:
        told.append(Message("cut in the order of {name!r}, the latest last", name=cuts["time"]))
    return told


def _found(
    parts: Mapping[str, Any],
    options: DataOptions,
    told: Iterable[str],
    more: Iterable[str] = (),
    *,
    laid: str = "",
    **facts: Any,
) -> dict[str, Any]:
    """The parts, what they usually are like, and in sentences how the source was understood."""
    counted = _counted(parts)
    counted = Message("{counted}, {laid}", counted=counted, laid=laid) if laid else counted
    without = [WITHOUT_TEST] if parts.get("test") is None else []
    return {"how": (*told, counted, *_cut_by(options), *more, *without), **facts, **parts}


def _lines(dataset: CSVDataset | TextDataset) -> list[str]:
    """What a dataset prints."""
    size, *others = dataset._told()
    if isinstance(dataset, TextDataset):
        return [Message("texts: {told}", told=size), *others]
    return [Message("table: {told}", told=size), *others]


def _letters(source: Any, options: DataOptions, seed: int) -> dict[str, Any]:
    found = letters(str(source))
    parts = _parts(found.split(_fractions(options), seed=seed, **_cuts(options)))
    return _found(parts, options, [f"{str(source).lower()}: {found!r}"], side=28, grey=True)


def letters(name: str, root: Path | None = None) -> PackedImages:
    """Data that is known by name, fetched if need be.

    Args:
        name: One of `LETTERS`.
        root: Where notMNIST is, or is to be; None for the cache folder.
    """
    if name.lower() == "glyphs":
        return Glyphs()
    return NotMNIST(root, subset="large" if name.lower().endswith("large") else "small", download=True)


def _images(source: Any, options: DataOptions, seed: int) -> dict[str, Any]:
    return _of_folder("images", ImageFolder(root_of(source), on_error=options.get("on_error", "raise")), options, seed)


def _sounds(source: Any, options: DataOptions, seed: int) -> dict[str, Any]:
    return _of_folder("sounds", AudioFolder(root_of(source), on_error=options.get("on_error", "raise")), options, seed)


def _of_folder(kind: Kind, found: Any, options: DataOptions, seed: int) -> dict[str, Any]:
    """What was found in a folder with a folder for each class."""
    told = Message(
        "{place}: {count:,} {kind} in {classes} class folders ({names})",
        place=found.root,
        count=len(found),
        kind=_word(kind),
        classes=len(found.classes),
        names=few(found.classes, 8),
    )
    return _of_files(kind, found, told, options, seed)


def _filed(column: FileColumn, source: Any, options: DataOptions, seed: int) -> dict[str, Any]:
    """Images or sounds that a column of a table names."""
    found = filed_table(column, source, options)
    classes = Message(", {count} classes ({names})", count=len(found.classes), names=few(found.classes, 8))
    told = Message(
        "{place}: {count:,} {kind} named in {name!r}, {task} of {targets}{classes}; no other column is used "
        "(drop={name!r} takes the table without the {kind}{beside})",
        place=place_of(source),
        count=len(found),
        kind=_word(column.kind),
        name=column.name,
        beside=Message(", mixed=True all columns together") if column.kind == "images" else "",
        task=found.task,
        targets=", ".join(map(repr, found.target_columns)),
        classes=classes if found.classes else "",
    )
    return _of_files(column.kind, found, told, options, seed)


def _of_files(kind: Kind, found: Any, told: str, options: DataOptions, seed: int) -> dict[str, Any]:
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
    left_out = (
        Message("left out: {count:,} {what} ({names})", count=count, what=what, names=", ".join(first))
        for what, (count, first) in getattr(found, "left_out", {}).items()
    )
    return _found(parts, options, [told], [usual, *left_out], laid=laid, **facts)


def _table(source: Any, options: DataOptions, seed: int) -> dict[str, Any]:
    target = options.get("target")
    if target is None:
        names = [column.name for column in CSVDataset(source, **rows_of(options)).spec.columns]
        raise ArgumentError(
            f"{name_of(source)} is a table: say which column to predict, target=..., or which holds texts, text=...; "
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
    suspicious = _suspicions(parts["train"], in_order=options.get("time") is not None)
    more = [Message("check this: {finding}", finding=finding) for finding in suspicious]
    return _found(parts, options, _lines(parts["train"]), [*_texts_left_out(parts["train"]), *more])


def _beside(source: Any, options: DataOptions, target: Sequence[str]) -> dict[str, Any]:
    """The columns of texts and images that are beside others: those that were said, else those that look like it."""
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
    """Those of `options` that say how rows are read, for the dataset."""
    return {name: value for name, value in options.items() if name in ReadArguments.__annotations__}


def _texts_left_out(train: CSVDataset) -> list[str]:
    """Which columns hold texts that nothing looks at, and how they are used."""
    return [
        Message(
            "look at this: {name!r} holds texts and is left out; mixed=True takes it beside the other columns, "
            "text={name!r} alone",
            name=column.name,
        )
        for column in train.spec.of_kind("free text")
    ]


_TOLD = ("alone predicts", "so accuracy says little")
_ORDERED = "the rows are in the order of"


def _suspicions(train: CSVDataset, *, in_order: bool) -> list[str]:
    """Columns that know too much, rare classes, and an order in time, which a training on shuffled parts destroys."""
    if len(train) > _SUSPICIONS:
        return []
    left_out = [f"{column.name!r} " for column in train.spec.columns if not column.used]
    words = _TOLD if in_order else (*_TOLD, _ORDERED)
    told = [finding for finding in train.describe().findings if any(word in finding for word in words)]
    return [finding for finding in told if not finding.startswith(tuple(left_out))][:5]


def _texts(source: Any, options: DataOptions, seed: int) -> dict[str, Any]:
    target, folder = options.get("target"), isinstance(source, str | os.PathLike) and Path(source).is_dir()
    if target is None and not folder:
        raise ArgumentError(f"{name_of(source)}: say which column to predict: target=... (a name, or a number from 0)")
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
        raise DataError(f"{name_of(source)}: texts without classes; one folder per class is expected")
    return _found(parts, options, [*_lines(train), *map(str, train.skipped[:3])])


def _word(name: str) -> Message:
    """One of dlkit's own words for a kind of data or colour, as it is said."""
    words = (Message("images"), Message("sounds"), Message("grey"), Message("colour"))
    return words[words.index(name)]
