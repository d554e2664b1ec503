"""Everything that the caller of `CSVDataset` may say, grouped and checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from dlkit.datasets.tables._fitting import ColumnRoles, FitOptions
from dlkit.datasets.tables._images import ImageCells
from dlkit.datasets.targets import TargetOptions
from dlkit.errors import ArgumentError
from dlkit.reading.policy import ReadOptions
from dlkit.specs.table import TableSpec, Target

__all__ = ["TableSettings", "class_column", "table_settings", "text_columns", "under_spec"]

_ROLE_NAMES = ("numeric", "categorical", "dates", "text", "image", "drop", "target")
_WORDY = ("categorical", "text", "image", "drop", "dates")  # no decimal mark is looked for in them


@dataclass(frozen=True, kw_only=True)
class TableSettings:
    """Everything that a caller may say, by what it is about."""

    read: ReadOptions
    roles: ColumnRoles
    fit: FitOptions
    target: TargetOptions
    images: ImageCells
    aliases: Mapping[str, str]


def table_settings(options: Mapping[str, Any]) -> TableSettings:
    """`CSVDataset`'s arguments, grouped and checked."""
    roles = {name: _names(name, options[name]) for name in _ROLE_NAMES if options.get(name) is not None}

    forms = options.get("dates") if isinstance(options.get("dates"), Mapping) else {}

    def pick(*names: str) -> dict[str, Any]:
        return {name: options[name] for name in names if name in options}

    images = {name.removeprefix("image_"): value for name, value in options.items() if name.startswith("image_")}
    return TableSettings(
        read=replace(ReadOptions.of(options), wordy=frozenset(name for role in _WORDY for name in roles.get(role, ()))),
        roles=ColumnRoles(**roles, group=options.get("group"), date_forms=tuple(_date_forms(forms).items())),
        fit=FitOptions(**pick("scale", "min_freq")),
        target=TargetOptions(**pick("task", "classes", "label_separator", "scale_target")),
        images=ImageCells(**images),
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


def class_column(target: Target | None) -> tuple[str, ...]:
    """The target's column where it holds names of classes or labels."""
    return () if target is None or target.task == "regression" or len(target.columns) > 1 else target.columns


def text_columns(spec: TableSpec) -> set[str]:
    """The columns that a file's text is needed of, as numbers would lose how they are written."""
    kept = spec.of_kind("category", "boolean", "text", "image")
    # Where commas are decimals, "1.234" is a thousand, whatever a reader that has never seen the others makes of it.
    odd = [column for column in spec.numbers if column.kind == "number" and column.form != "plain"]
    return {*(column.name for column in (*kept, *odd)), *class_column(spec.target)}


def under_spec(settings: TableSettings, spec: TableSpec) -> tuple[TableSettings, TableSpec]:
    """How to read a file that an older spec describes, and the spec with the marks that only this file has.

    Raises:
        ArgumentError: the caller says again what the spec says.
    """
    if not isinstance(spec, TableSpec):
        raise ArgumentError(f"spec must be a fitted one, train.spec or TableSpec.load(path), not {type(spec).__name__}")
    _check_nothing_said_twice(settings, spec)
    own = () if settings.read.missing == ReadOptions().missing else settings.read.missing
    spec = replace(spec, marks=(*spec.marks, *(mark for mark in own if mark not in spec.marks)))
    known = {column.name for column in spec.columns}
    numeric = {column.name for column in spec.columns if column.kind in ("number", "boolean")}
    if spec.target is not None and spec.target.task == "regression":
        numeric |= set(spec.target.columns)
    read = replace(
        settings.read,
        missing=spec.marks,
        usual_header=spec.header,
        optional=tuple(name for name in spec.header if name not in known),
        usual_decimal=spec.decimal,
        numeric=frozenset(numeric),
    )
    return replace(settings, read=read, images=settings.images.under(spec.images)), spec


def _check_nothing_said_twice(settings: TableSettings, spec: TableSpec) -> None:
    if wanted := settings.roles.target:
        has = () if spec.target is None else spec.target.columns
        if wanted != has:
            raise ArgumentError(f"target={list(wanted)} and the spec's target {list(has)} differ; leave target out")
    if settings.roles != ColumnRoles(target=settings.roles.target):
        raise ArgumentError("spec= says what the columns are; leave out numeric, categorical, dates, text, image, drop")
    said = [
        field.name
        for given, default in ((settings.fit, FitOptions()), (settings.target, TargetOptions()))
        for field in fields(given)
        if getattr(given, field.name) != getattr(default, field.name)
    ]
    if said:
        raise ArgumentError(f"spec= says what becomes of columns and target; leave out {', '.join(said)}")
