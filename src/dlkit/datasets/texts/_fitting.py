"""From the arguments of `TextDataset` to the rows that can be used, their targets, and the spec fitted to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal, Self, get_args

from torch import Tensor

from dlkit.collate import PadCollate
from dlkit.datasets.targets import TargetColumn, TargetOptions, find_target, target_tensor
from dlkit.datasets.texts.items import ColumnName
from dlkit.datasets.texts.opening import TextArguments, TextReading
from dlkit.datasets.texts.rows import TextRoles, TextRows, read_rows
from dlkit.errors import ArgumentError
from dlkit.specs.table import Target
from dlkit.specs.text import TextSpec
from dlkit.storage.strings import PackedStrings
from dlkit.tokens._encoded import Encoder
from dlkit.tokens.cleaning import Cleaning
from dlkit.tokens.pretrained import PretrainedTokenizer, is_pretrained, train_bpe
from dlkit.tokens.tokenizers import TOKENIZERS
from dlkit.tokens.vocabulary import Vocabulary

__all__ = ["Opened", "TextOptions", "TextTask", "fitted_spec", "read_source", "targets_of"]

TextTask = Literal["auto", "classification", "regression"]


class TextOptions(TextArguments, total=False):
    """The keyword arguments of `TextDataset` that `TextDataset.split` takes too."""

    text: ColumnName | Sequence[ColumnName]
    pair: ColumnName | Sequence[ColumnName] | None
    target: Any
    tokenizer: Any
    cleaning: Cleaning | None
    min_freq: int
    max_size: int | None
    add_start_end: bool
    max_length: int | None
    task: TextTask
    classes: Mapping[str, int] | Sequence[str] | None
    collate: PadCollate | None
    cache: str | PathLike[str] | None
    memory_bytes: int


def read_source(
    source: Any, options: TextOptions, group: ColumnName | None = None, time: ColumnName | None = None
) -> tuple[TextRows, Target | None]:
    """The rows that can be used, and what their targets are, which all rows together say."""
    texts = [_columns("text", options.get("text", 0))]
    if options.get("pair") is not None:
        texts.append(_columns("pair", options["pair"]))
    reading = TextReading.of(options)
    task = options.get("task", "auto")
    if task not in get_args(TextTask):
        raise ArgumentError(f"task must be one of {', '.join(get_args(TextTask))}, not {task!r}")
    wanted = TargetOptions(task=task, classes=options.get("classes"))
    roles = TextRoles(texts=tuple(texts), target=options.get("target"), group=group, time=time)
    rows = read_rows(source, roles, reading, wanted, budget=options.get("memory_bytes", 1 << 30))
    if "target" not in rows.others:
        return rows, None
    columns = [TargetColumn.of(name, cells, rows.decimal) for name, cells in rows.target_cells().items()]
    target = find_target(columns, wanted)
    return rows.without(target_tensor(target, rows.target_cells())[1], reading), target


@dataclass(frozen=True)
class Opened:
    """How texts were read, so that they can be split again; a list of objects is not kept alive for it.

    Attributes:
        source: A path, an address or a DataFrame; None for others, of which no other columns can be asked for.
        options: The caller's.
        goal: What the targets are.
    """

    source: Any
    options: TextOptions
    goal: Target | None

    @classmethod
    def of(cls, source: Any, options: TextOptions, goal: Target | None) -> Self:
        """What to keep of a source.

        Args:
            source: See `TextDataset`.
            options: The caller's.
            goal: What the targets are.
        """
        if isinstance(options.get("target"), int | str | None):
            return cls(source if isinstance(source, str | PathLike) or hasattr(source, "iloc") else None, options, goal)
        return cls(None, {**options, "target": None}, goal)

    def read(self, group: ColumnName | None, time: ColumnName | None) -> tuple[TextRows, Target | None]:
        """Read the source once more, with columns to split it by.

        Args:
            group: See `TextDataset.split`.
            time: See there.

        Raises:
            ArgumentError: nothing has such columns.
        """
        if self.source is None:
            raise ArgumentError("group= and time= are columns, and these texts came from a list: split the list itself")
        return read_source(self.source, self.options, group, time)


def targets_of(rows: TextRows, target: Target | None) -> Tensor | None:
    return None if target is None else target_tensor(target, rows.target_cells())[0]


def _columns(argument: str, given: Any) -> tuple[ColumnName, ...]:
    columns = tuple(given) if isinstance(given, list | tuple) else (given,)
    if not columns or not all(isinstance(column, int | str) for column in columns):
        raise ArgumentError(f"{argument} must be a column, by name or number from 0, or several, not {given!r:.80}")
    return columns


def fitted_spec(rows: TextRows, target: Target | None, options: TextOptions) -> TextSpec:
    """The spec of a dataset that is the training data."""
    text, *pair = rows.columns or ((),)
    return TextSpec(
        encoder=_encoder(rows.texts, options),
        max_length=options.get("max_length"),
        classes=None if target is None else target.classes or None,
        text=text,
        pair=pair[0] if pair else (),
    )


def _encoder(texts: Sequence[PackedStrings], options: TextOptions) -> Encoder:
    tokenizer, cleaning = options.get("tokenizer", "words"), options.get("cleaning")
    if isinstance(tokenizer, Vocabulary | PretrainedTokenizer):
        return tokenizer
    if is_pretrained(tokenizer):
        return PretrainedTokenizer(tokenizer, cleaning=cleaning)
    fitting: dict[str, Any] = {
        "min_freq": options.get("min_freq", 2),
        "add_start_end": options.get("add_start_end", False),
    }
    everything = (text for each in texts for text in each)
    if tokenizer == "bpe":
        clean = cleaning or Cleaning()
        trained = train_bpe(map(clean, everything), vocab_size=options.get("max_size") or 8000, **fitting)
        return PretrainedTokenizer(trained, cleaning=clean)
    if isinstance(tokenizer, str) and tokenizer not in TOKENIZERS:
        raise ArgumentError(f"tokenizer must be one of {sorted([*TOKENIZERS, 'bpe'])} or an object, not {tokenizer!r}")
    return Vocabulary.fit(
        everything, tokenizer=tokenizer, cleaning=cleaning, max_size=options.get("max_size"), **fitting
    )
