"""`TextDataset`: texts from files or memory, encoded once, batched with next to no padding."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from multiprocessing.context import get_spawning_popen
from os import PathLike
from typing import Any, Self, Unpack

import numpy as np
from torch import Tensor

from dlkit._html import escaped
from dlkit._language import Message
from dlkit._showing import Lines
from dlkit.collate import PadCollate
from dlkit.datasets.base import shown
from dlkit.datasets.texts._encoding import Storage, pack_texts
from dlkit.datasets.texts._fitting import Opened, TextOptions, TextTask, fitted_spec, read_source, targets_of
from dlkit.datasets.texts.items import ColumnName
from dlkit.datasets.texts.opening import TextArguments
from dlkit.datasets.texts.packed import PackedTextDataset
from dlkit.datasets.texts.rows import TextRows
from dlkit.errors import ArgumentError
from dlkit.reading.dates import moments
from dlkit.reading.parsing import DEFAULT_MISSING
from dlkit.reading.policy import check_known
from dlkit.specs.table import Target
from dlkit.specs.text import TextSpec
from dlkit.splits import Fractions, content_keys, split_indices
from dlkit.storage.files import folder_for
from dlkit.storage.identity import of_parts, of_tensor
from dlkit.storage.strings import PackedStrings
from dlkit.tokens._encoded import Encoder
from dlkit.tokens.cleaning import Cleaning

__all__ = ["TextDataset", "TextOptions"]

_SHOWN = 400  # characters of a text in a notebook or a report


class TextDataset(PackedTextDataset):
    """Texts, with or without targets, as numbers for any `DataLoader`.

    `ds[i]` gives `(ids, target)`, ids int64 [L]; unlabelled texts give the ids alone, pairs of texts a dict of
    `input_ids` and `token_type_ids`. `dlkit.DataLoader(ds, 64, shuffle=True)` makes batches of texts of like length,
    `({"input_ids": int64 [B, L], "attention_mask": bool [B, L]}, targets)`; a stock
    `DataLoader(ds, 64, shuffle=True, collate_fn=ds.collate)` works too.

    To train, use `TextDataset.split`, which fits the vocabulary on the training texts alone. Then
    `TextDataset("new.csv", text=..., spec=train.spec)` reads any other source the same way.

    Args:
        source: A file: CSV, TSV, Excel, Parquet, Feather, JSON lines or a JSON array, or any file of lines; also
            packed by gzip, bzip2, xz or zip, or a URL. A folder whose files are texts, in folders named after their
            class. A list of texts, of pairs of texts, of dicts; a DataFrame.
        text: The column of the texts: its name, or its number from 0. Several, such as `["title", "body"]`, are joined
            to one text, each in its own line (so a blank between them, unless `cleaning` keeps line ends); empty
            ones are skipped.
        pair: The column of a second text for each, such as the question to a text; several are joined as well. Both are
            encoded as one row of numbers: a `Vocabulary` puts its end token between them, a tokenizer object what its
            model was trained with; `token_type_ids` tell the two apart.
        target: The column of the targets; or one value per text; None for unlabelled texts. The folders of a folder
            of class folders are its targets by themselves.
        spec: How to encode, from a dataset that was fitted: `train.spec`. Instead of all up to `classes`.
        tokenizer: "words", "whitespace", "characters", "jamo", "ngrams", "bytes" (see `dlkit.tokens`); "bpe" trains a
            byte pair encoding (extra `text`); a function from a text to a list of strings; a tokenizer object of
            `tokenizers` or `transformers`; a `Vocabulary`.
        cleaning: What is done to a text before that; None for `Cleaning()`, and for nothing with a tokenizer object.
        min_freq: Tokens that are rarer in these texts fall to unknown. Not 1, because a model that has never seen an
            unknown token while it trained does not know what to do with one.
        max_size: At most so many numbers; None for no limit, for "bpe" 8,000.
        add_start_end: Put start and end around each text.
        max_length: Cut texts to so many numbers, keeping the beginning.
        classes: The classes' names in the order of their numbers; in natural order if not given.
        task: "auto" takes words, truth values and few different whole numbers for classes, other numbers for a
            regression, as in tables.
        collate: How batches are laid out, instead of the default: `PadCollate(..., input_name="input_ids")`.
        cache: Keeps what took long to encode, found again by the texts and the tokenizer: "auto" in `DLKIT_HOME`, or in
            a folder; None does not.
        memory_bytes: Bytes of texts, and of their numbers, to hold in memory; beyond it they are read from a file.
        **reading: How to read: `format` ("delimited", "lines", "jsonl", "parquet", "folder"), `quotes` and `pattern`,
            as `TextArguments` describes them, and `encoding`, `separator`, `header` (None: yes, if columns are asked
            for by name, or a word is above numbers), `columns`, `skip_rows`, `comment`, `decimal`, `thousands`,
            `sheet`, `missing` (cells that mean "no target"; `[]` where one of them, such as "NA", is a class),
            `on_error` and `max_errors`, as `ReadArguments` describes them for tables.

    Attributes:
        spec: Everything that turns a text into numbers, for the next dataset and the model file.
        texts: The texts as they were read, a sequence of strings; for pairs the first ones.
        pairs: The second texts, or None.
        targets: int64 [N] class numbers or float32 [N]; None for unlabelled texts.
        skipped: `(place, reason)` of each row that was left out.
        notes: How the source was understood.
        input_columns: The names of the columns of the texts, for the model file; empty where they have none.
        target_columns: The same of the targets.

    Raises:
        DataError: The data is wrong; the message names file and line.
        ArgumentError: An invalid argument.

    >>> ds = TextDataset(["good film", "bad film", "good"], target=["pos", "neg", "pos"], min_freq=1)
    >>> ds[0], ds.classes
    ((tensor([5, 4]), tensor(1)), ['neg', 'pos'])
    >>> ds.vocabulary.decode(ds[1][0])
    'bad film'
    """

    def __init__(
        self,
        source: Any,
        *,
        text: ColumnName | Sequence[ColumnName] = 0,
        pair: ColumnName | Sequence[ColumnName] | None = None,
        target: Any = None,
        spec: TextSpec | None = None,
        tokenizer: Any = "words",
        cleaning: Cleaning | None = None,
        min_freq: int = 2,
        max_size: int | None = None,
        add_start_end: bool = False,
        max_length: int | None = None,
        classes: Mapping[str, int] | Sequence[str] | None = None,
        task: TextTask = "auto",
        collate: PadCollate | None = None,
        cache: str | PathLike[str] | None = "auto",
        memory_bytes: int = 1 << 30,
        **reading: Unpack[TextArguments],
    ) -> None:
        check_known("TextDataset", reading, TextArguments)
        options: Any = {name: value for name, value in locals().items() if name in TextOptions.__annotations__}
        options |= reading
        if spec is not None:
            options |= {"classes": spec.classes, "task": "regression" if spec.classes is None else "classification"}
        rows, goal = read_source(source, options)
        self._build(rows, spec or fitted_spec(rows, goal, options), goal, options)
        self._opened = None if spec is not None else Opened.of(source, options, goal)

    @classmethod
    def split(
        cls,
        source: Any,
        fractions: Fractions = None,
        *,
        stratify: bool = True,
        group: ColumnName | None = None,
        dedupe: bool | None = None,
        time: ColumnName | None = None,
        seed: int = 0,
        **options: Unpack[TextOptions],
    ) -> tuple[Self, ...]:
        """Cut the texts into parts, the first of which alone is looked at to fit the vocabulary of all.

        Args:
            source: As for the class; or a dataset of this class, whose texts are split again and read as they were.
            fractions: The share of the first part, the second one getting the rest; or all shares, which sum to 1;
                None for 0.8, 0.1 and 0.1; or a `dlkit.splits.Fold`.
            stratify: Keep the shares of the classes in every part.
            group: A column whose equal values never fall into different parts (an author, a conversation).
            dedupe: Equal texts never fall into different parts. None is True for texts.
            time: A column of dates or numbers: the first part has the earliest texts, the last one the latest.
            seed: Another seed gives another split.
            **options: The arguments of the class, without `spec`.

        Returns:
            One dataset per part.

        >>> texts = ["to be", "or not", "to be", "that is", "the question"] * 4
        >>> train, test = TextDataset.split([f"{text} {i}" for i, text in enumerate(texts)], fractions=0.75)
        >>> len(train), len(test), train.spec is test.spec
        (15, 5, True)
        """
        check_known("TextDataset.split", options, TextOptions)
        if isinstance(source, TextDataset):
            opened, within = source._to_be_cut(options), source._rows_read()
            source, options = opened.source, opened.options
            rows, goal = (within, opened.goal) if group is None and time is None else opened.read(group, time)
            if rows is not within:
                rows = rows.select(np.flatnonzero(np.isin(rows.numbers, within.numbers)))
        else:
            rows, goal = read_source(source, options, group, time)
        classes = goal.classes if goal is not None else ()
        parts = split_indices(
            len(rows),
            fractions,
            stratify=targets_of(rows, goal) if stratify and classes else None,
            class_names=classes or None,
            group=rows.others["group"].codes if "group" in rows.others else None,
            dedupe=content_keys(rows.texts[0] if len(rows.texts) == 1 else list(zip(*rows.texts, strict=True)))
            if dedupe is None or dedupe
            else None,
            time=moments(rows.others["time"], options.get("missing", DEFAULT_MISSING))
            if "time" in rows.others
            else None,
            seed=seed,
        )
        chosen = [rows.select(part) for part in parts]
        spec = fitted_spec(chosen[0], goal, options)
        found = tuple(cls._of(part, spec, goal, options) for part in chosen)
        for each in found:
            each._opened = Opened.of(source, options, goal)
        return found

    _opened: Opened | None = None  # to be split again

    def _to_be_cut(self, options: Mapping[str, Any]) -> Opened:
        """How these texts were read."""
        if options:
            raise ArgumentError(f"{', '.join(options)}: a dataset that is split again keeps its options; leave it out")
        if self._opened is None:
            raise ArgumentError("this dataset has the spec of other data, or came from another process: split its file")
        return self._opened

    @classmethod
    def _of(cls, rows: TextRows, spec: TextSpec, goal: Target | None, options: TextOptions) -> Self:
        dataset = cls.__new__(cls)
        dataset._build(rows, spec, goal, options)
        return dataset

    def _build(self, rows: TextRows, spec: TextSpec, goal: Target | None, options: TextOptions) -> None:
        folder = folder_for(options.get("cache", "auto"), "text")
        storage = Storage(folder=folder, budget=options.get("memory_bytes", 1 << 30))
        self._encode(rows, spec, storage, targets_of(rows, goal), options.get("collate"))
        self.skipped, self.notes = list(rows.skipped), list(rows.notes)
        self.input_columns = tuple(name for columns in rows.columns for name in columns)
        self.target_columns = () if rows.target_column is None else (rows.target_column,)
        self._source: TextRows | None = rows

    def _encode(
        self, rows: TextRows, spec: TextSpec, storage: Storage, targets: Tensor | None, collate: PadCollate | None
    ) -> None:
        packed, encoder = pack_texts(spec.encoder, rows.texts, spec.max_length, storage), spec.encoder
        padding: Any = {"pad_id": encoder.pad_id, "padding_side": encoder.padding_side, "collate": collate}
        super().__init__(packed.ids, packed.lengths, targets, types=packed.types, **padding)
        self.spec = spec

    def with_spec(self, spec: TextSpec) -> Self:
        """The same texts and targets, turned into numbers by another spec.

        Args:
            spec: Of the same classes: `dataclasses.replace(ds.spec, encoder=...)`.

        Raises:
            ArgumentError: it has other classes.
        """
        if spec.classes != self.spec.classes:
            raise ArgumentError(f"the spec has the classes {spec.classes!r:.200}, the texts {self.spec.classes!r:.200}")
        made = copy.copy(self)
        made._encode(self._rows_read(), spec, Storage(folder=folder_for("auto", "text")), self.targets, None)
        return made

    @property
    def identity(self) -> str | None:
        """What tells these samples from others; None where a custom function cuts the texts."""
        encoder, rows = self.spec.encoder.fingerprint(), self._rows_read()
        if encoder is None:
            return None
        targets = None if self.targets is None else of_tensor(self.targets)
        return of_parts("texts", encoder, self.spec.max_length, [each.digest() for each in rows.texts], targets)

    @property
    def vocabulary(self) -> Encoder:
        """The tokenizer of these texts, a `Vocabulary` or a `PretrainedTokenizer`. Its length is what a model's
        embedding needs."""
        return self.spec.encoder

    @property
    def classes(self) -> list[str]:
        """The class names in the order of their numbers; empty for numbers as targets and for unlabelled texts."""
        return list(self.spec.classes or ()) if self.targets is not None else []

    @property
    def texts(self) -> PackedStrings:
        """The texts as they were read; for pairs the first ones."""
        return self._rows_read().texts[0]

    @property
    def pairs(self) -> PackedStrings | None:
        """The second texts of pairs."""
        return self._rows_read().texts[1] if len(self._rows_read().texts) > 1 else None

    def where(self, index: int) -> str:
        """The file and line that a sample came from.

        Args:
            index: The sample's number.
        """
        return self._rows_read().where(self._checked(index))

    def _rows_read(self) -> TextRows:
        if self._source is None:
            raise ArgumentError("a worker process has the encoded texts alone; ask the dataset in the main process")
        return self._source

    def __getstate__(self) -> dict[str, Any]:
        # A spawned worker fetches encoded samples: the texts stay where they are.
        return self.__dict__ | {"_opened": None} | ({"_source": None} if get_spawning_popen() is not None else {})

    def sample_html(self, index: int) -> str:
        """One sample as a person would want to see it, for notebooks and reports.

        Args:
            index: The sample's position in this dataset.
        """
        text = self.texts[index]
        return f"<blockquote>{escaped(text[:_SHOWN] + ('…' if len(text) > _SHOWN else ''))}</blockquote>"

    def _repr_html_(self) -> str:
        return shown(self)

    def _told(self) -> list[str]:
        """What this is, in lines."""
        size = Message(
            "{texts:,} texts of {mean:.1f} tokens on average, {least} to {most}",
            texts=len(self),
            mean=int(self.lengths.sum()) / len(self),
            least=int(self.lengths.min()),
            most=int(self.lengths.max()),
        )
        return [
            size,
            *self.notes,
            repr(self.vocabulary),
            *([Message("classes: {names}", names=", ".join(self.classes)[:290])] if self.classes else []),
            *([Message("skipped: {count} rows", count=len(self.skipped))] if self.skipped else []),
        ]

    def __repr__(self) -> str:
        first, *others = self._told()
        return Lines.of(f"TextDataset: {first}", *(f"  {line}" for line in others)).plain()
