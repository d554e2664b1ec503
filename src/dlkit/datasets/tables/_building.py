"""From a source and the caller's wishes to a schema and encoded rows: what `CSVDataset` does when it is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from dlkit.datasets.tables._encoding import Encoded, Problem, encode, target_problems
from dlkit.datasets.tables._fitting import FitOptions, Roles, fit_columns
from dlkit.datasets.tables._images import ImageOptions, Leniency, missing_files
from dlkit.datasets.tables._memory import Memory
from dlkit.datasets.tables._targets import TargetOptions, encode_target, find_target, scaled_target, unscaled_target
from dlkit.errors import ArgumentError, DataError
from dlkit.reading.cells import Array, Skipped, Strings, Table, ranked, text_of
from dlkit.reading.classes import stated_order
from dlkit.reading.policy import ReadOptions
from dlkit.reading.reader import read_table
from dlkit.specs.table import Schema, Target
from dlkit.splits import Fractions, content_keys, shares_of, split_indices
from dlkit.storage.strings import PackedStrings

__all__ = ["Settings", "build", "build_split", "row_keys", "settings_of"]

_ROLE_NAMES = ("numeric", "categorical", "dates", "text", "image", "drop", "target")
_WORDY = ("categorical", "text", "image", "drop", "dates")  # no decimal mark is looked for in them
_STRATA = 10  # a regression's target is cut into tenths to be stratified


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that a caller may say, by what it is about."""

    read: ReadOptions
    roles: Roles
    fit: FitOptions
    target: TargetOptions
    images: ImageOptions
    aliases: Mapping[str, str]


@dataclass
class Built:
    """Rows ready to be used, with the table they come from."""

    table: Table
    schema: Schema
    memory: Memory
    skipped: list[Skipped]


def settings_of(options: Mapping[str, Any]) -> Settings:
    """`CSVDataset`'s arguments, grouped and checked."""
    roles = {name: _names(name, options[name]) for name in _ROLE_NAMES if options.get(name) is not None}

    forms = options.get("dates") if isinstance(options.get("dates"), Mapping) else {}

    def pick(*names: str) -> dict[str, Any]:
        return {name: options[name] for name in names if name in options}

    target = pick("task", "label_separator", "scale_target")
    if options.get("classes") is not None:
        target["classes"] = tuple(stated_order(options["classes"]))
    images = {name.removeprefix("image_"): value for name, value in options.items() if name.startswith("image_")}
    return Settings(
        read=replace(ReadOptions.of(options), wordy=frozenset(name for role in _WORDY for name in roles.get(role, ()))),
        roles=Roles(**roles, group=options.get("group"), date_forms=tuple(_date_forms(forms).items())),
        fit=FitOptions(**pick("scale", "min_freq")),
        target=TargetOptions(**target),
        images=ImageOptions(**images),
        aliases=dict(options.get("aliases") or {}),
    )


def _names(argument: str, value: Any) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else value
    listed = tuple(names) if isinstance(names, Iterable) and not isinstance(names, str) else None
    if listed is None or not all(isinstance(name, str) for name in listed):
        raise ArgumentError(f"{argument} must be a list of strings, not {value!r:.200}")
    return listed


def _date_forms(forms: Any) -> dict[str, str]:
    for name, form in (forms or {}).items():
        if not isinstance(form, str) or "%" not in form:
            raise ArgumentError(f"dates={{{name!r}: ...}} needs a strptime format such as '%d/%m/%Y', not {form!r}")
    return dict(forms or {})


def build(source: Any, settings: Settings, schema: Schema | None) -> Built:
    """Read and encode a source, with a schema fitted on all of its rows, or with the one given."""
    if schema is not None:
        return _apply(source, settings, schema)
    raw = _read_for_fitting(source, settings)
    schema = _fit(raw, settings, raw.kept)
    return _finish(raw.table, settings, encode(raw.table, schema, raw.reusable()), schema, raw.kept, raw.skipped)


def build_split(
    source: Any, settings: Settings, fractions: Fractions, *, stratify: bool, dedupe: bool, seed: int
) -> list[Built]:
    """Read a source, cut its rows, fit on the first part alone, and encode each."""
    raw = _read_for_fitting(source, settings)
    rows = np.arange(len(raw.table)) if raw.kept is None else raw.kept
    group, target = settings.roles.group, raw.target
    class_names = target.classes if target is not None and target.task in ("classification", "binary") else None
    parts = split_indices(
        len(rows),
        fractions,
        stratify=_strata(raw, rows, len(shares_of(fractions))) if stratify else None,
        class_names=class_names,
        group=None if group is None else _keys(raw.table, group)[rows],
        dedupe=row_keys(raw.table)[rows] if dedupe else None,
        seed=seed,
    )
    schema = _fit(raw, settings, rows[parts[0]])
    encoded = encode(raw.table, schema, raw.reusable())
    return [_finish(raw.table, settings, encoded, schema, rows[part], raw.skipped) for part in parts]


@dataclass
class _Raw:
    """A table before fitting.

    Attributes:
        table: All rows.
        skipped: Rows left out so far.
        target: Without the scale of a regression.
        values: What `encode_target` gave for it.
        kept: The rows that have a target; None for all.
    """

    table: Table
    skipped: list[Skipped]
    target: Target | None = None
    values: tuple[Array, Array, Array] | None = None
    kept: Array | None = None

    def reusable(self) -> tuple[Array, Array, Array] | None:
        """The encoded target, unless fitting still changes it."""
        return None if self.target is None or self.target.task == "regression" else self.values


def row_keys(table: Table) -> Array:
    """A number per row, the same for rows that are equal in every column, in whichever block they lie."""
    cells = {name: text_of(column) for name, column in table.columns.items()}
    return content_keys({name: content_keys([*each.pool.tolist(), ""])[each.codes] for name, each in cells.items()})


def _keys(table: Table, column: str) -> Array:
    cells = table.columns[column]
    if not isinstance(cells, Strings):
        return ranked(cells.values)[1]
    index: dict[str, int] = {}
    return cells.mapped([index.setdefault(text, len(index)) for text in cells.pool.tolist()], -1, np.int64)


def _strata(raw: _Raw, rows: Array, parts: int) -> Array | None:
    """What to keep the shares of: classes, combinations of labels, or tenths of a regression's first target."""
    target = raw.target
    if target is None or raw.values is None:
        return None
    values = raw.values[0][rows]
    if target.task in ("classification", "binary"):
        return values
    if target.task == "regression":
        first = values if values.ndim == 1 else values[:, 0]
        strata = min(_STRATA, len(rows) // (5 * parts))
        return np.argsort(np.argsort(first, kind="stable")) * strata // len(rows) if strata > 1 else None
    combinations = np.unique(values, axis=0, return_inverse=True)[1].reshape(-1)
    counts = np.bincount(combinations)
    # Combinations too rare to lie in every part count as the most frequent one.
    return np.where(counts[combinations] < parts, counts.argmax(), combinations) if counts.max() >= parts else None


def _read_for_fitting(source: Any, settings: Settings) -> _Raw:
    table = read_table(source, settings.read, settings.roles.as_text())
    settings.roles.check(list(table.columns), table.origin)
    if not settings.roles.target:
        return _Raw(table, list(table.skipped))
    missing = settings.read.missing
    rename_classes(table, settings.roles.target, settings.aliases)
    target = find_target(table, settings.roles.target, settings.target, missing)
    target = unscaled_target(target)
    values = encode_target(target, table, missing)
    problems = target_problems(table, Schema(columns=(), target=target), values[1], values[2])
    kept, skipped = usable(table, problems, settings.read, None)
    return _Raw(table, [*table.skipped, *skipped], target, values, kept)


def rename_classes(table: Table, columns: Iterable[str], aliases: Mapping[str, str]) -> None:
    """Put the usual spelling for others in the columns of classes."""
    for name in columns if aliases else ():
        if name not in table.columns:
            continue
        cells = text_of(table.columns[name])
        renamed = [aliases.get(text.strip(), text) for text in cells.pool.tolist()]
        index: dict[str, int] = {}
        codes = [index.setdefault(text, len(index)) for text in renamed]
        table.columns[name] = Strings(cells.mapped(codes, -1, np.int32), PackedStrings.of(index))


def _fit(raw: _Raw, settings: Settings, rows: Array | None) -> Schema:
    missing, target = settings.read.missing, raw.target
    columns = fit_columns(raw.table, rows, settings.roles, settings.fit, missing)
    if target is not None and settings.target.scale_target:
        target = scaled_target(target, raw.table, rows, missing)
    table = raw.table
    return Schema(columns=columns, target=target, marks=tuple(missing), header=table.header, decimal=table.decimal)


def class_column(target: Target | None) -> tuple[str, ...]:
    """The target's column where it holds names of classes or labels."""
    return () if target is None or target.task == "regression" or len(target.columns) > 1 else target.columns


def text_columns(schema: Schema) -> set[str]:
    """The columns that a file's text is needed of, as numbers would lose how they are written."""
    kept = schema.of_kind("category", "boolean", "text", "image")
    # Where commas are decimals, "1.234" is a thousand, whatever a reader that has never seen the others makes of it.
    odd = [column for column in schema.numbers if column.kind == "number" and column.form != "plain"]
    return {*(column.name for column in (*kept, *odd)), *class_column(schema.target)}


def under_schema(settings: Settings, schema: Schema) -> tuple[ReadOptions, Schema]:
    """How to read a file that an older schema describes, and the schema with the marks that only this file has.

    Raises:
        ArgumentError: the caller says again what the schema says.
    """
    if not isinstance(schema, Schema):
        raise ArgumentError(
            f"schema must be a fitted one, train.schema or Schema.load(path), not {type(schema).__name__}"
        )
    _check_nothing_said_twice(settings, schema)
    own = () if settings.read.missing == ReadOptions().missing else settings.read.missing
    schema = replace(schema, marks=(*schema.marks, *(mark for mark in own if mark not in schema.marks)))
    known = {column.name for column in schema.columns}
    numeric = {column.name for column in schema.columns if column.kind in ("number", "boolean")}
    if schema.target is not None and schema.target.task == "regression":
        numeric |= set(schema.target.columns)
    read = replace(
        settings.read,
        missing=schema.marks,
        optional=tuple(name for name in schema.header if name not in known),
        usual_decimal=schema.decimal,
        numeric=frozenset(numeric),
    )
    return (replace(read, header=schema.header) if schema.header and read.header in (None, False) else read), schema


def _check_nothing_said_twice(settings: Settings, schema: Schema) -> None:
    if wanted := settings.roles.target:
        has = () if schema.target is None else schema.target.columns
        if wanted != has:
            raise ArgumentError(f"target={list(wanted)} and the schema's target {list(has)} differ; leave target out")
    if settings.roles != Roles(target=settings.roles.target):
        raise ArgumentError(
            "schema= says what the columns are; leave out numeric, categorical, dates, text, image, drop"
        )
    said = [
        field.name
        for given, default in ((settings.fit, FitOptions()), (settings.target, TargetOptions()))
        for field in fields(given)
        if getattr(given, field.name) != getattr(default, field.name)
    ]
    if said:
        raise ArgumentError(f"schema= says what becomes of columns and target; leave out {', '.join(said)}")


def _apply(source: Any, settings: Settings, schema: Schema) -> Built:
    read, schema = under_schema(settings, schema)
    table = read_table(source, read, text_columns(schema))
    rename_classes(table, class_column(schema.target), settings.aliases)
    return _finish(table, settings, encode(table, schema), schema, None, list(table.skipped))


def _finish(
    table: Table, settings: Settings, encoded: Encoded, schema: Schema, rows: Array | None, skipped: list[Skipped]
) -> Built:
    problems = [*encoded.problems, *lost_images(encoded.images, settings.images, table)]
    kept, more = usable(table, problems, settings.read, rows)
    images = rooted(settings.images, table)
    if encoded.images:
        images = lenient(images, settings.read, len(table), table.origin)
    return Built(table, schema, Memory.of(encoded, schema, images, kept, len(table)), [*skipped, *more])


def lost_images(columns: Mapping[str, Strings], options: ImageOptions, table: Table) -> list[Problem]:
    """Rows of columns of image paths whose file is not there."""
    found = [missing_files(name, cells, rooted(options, table)) for name, cells in columns.items()]
    return [problem for problem in found if problem is not None]


def rooted(images: ImageOptions, table: Table) -> ImageOptions:
    """Paths are relative to the table's folder unless the caller says otherwise."""
    if images.root is not None or table.folder is None:
        return images
    return replace(images, root=table.folder)


def lenient(images: ImageOptions, read: ReadOptions, total: int, origin: str) -> ImageOptions:
    """Files that cannot be decoded are found when they are asked for, and left out where rows are."""
    return images if read.on_error == "raise" else replace(images, lenient=Leniency(read, total, origin))


def usable(
    table: Table,
    problems: Sequence[Problem],
    read: ReadOptions,
    rows: Array | None,
    *,
    empty: bool = False,
    start: int = 0,
) -> tuple[Array | None, list[Skipped]]:
    """The rows of `rows` (None: all) that can be used, and those left out by policy; with `empty` none may be left.

    Where the table is a piece of a file, `start` rows of that are before it.

    Raises:
        DataError: some cannot, and `on_error` is "raise".
        TooManyErrorsError: more cannot than `max_errors` allows.
    """
    hit = [(problem, problem.rows if rows is None else np.intersect1d(problem.rows, rows)) for problem in problems]
    hit = [(problem, bad) for problem, bad in hit if len(bad)]
    if not hit:
        return rows, []
    if read.on_error == "raise":
        raise DataError("; ".join(_told(table, problem, bad, start) for problem, bad in hit))
    everything = np.arange(len(table)) if rows is None else rows
    mistakes = [_skip(table, row + start, problem) for problem, bad in hit if problem.mistake for row in bad.tolist()]
    read.check_share(mistakes, len(everything), table.origin)
    skipped = [_skip(table, row + start, problem) for problem, bad in hit for row in bad.tolist()]
    left = np.setdiff1d(everything, np.concatenate([bad for _, bad in hit]))
    if not len(left) and not empty:
        raise DataError(f"no row of {table.origin} can be used; the first: {skipped[0]}")
    return left, skipped


def _skip(table: Table, row: int, problem: Problem) -> Skipped:
    return Skipped(table.origin, row, problem.reason)


def _told(table: Table, problem: Problem, bad: Array, start: int) -> str:
    example = problem.example(int(bad[0]))
    more = f", as have {len(bad) - 1} more (rows {_listed(bad[1:] + start)}, counted from 0)" if len(bad) > 1 else ""
    return f"{table.places(int(bad[0]))} {problem.reason}{example}{more}: {problem.remedy}"


def _listed(rows: Array) -> str:
    return ", ".join(map(str, rows[:8].tolist())) + (", ..." if len(rows) > 8 else "")
