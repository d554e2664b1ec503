"""Facts to a schema: which kind a column is, and the parameters that come from the training rows alone."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from dlkit.datasets.tables._facts import DateFacts, Facts, NumberFacts, TextFacts, facts_of, many_texts, text_facts
from dlkit.errors import ArgumentError, DataError
from dlkit.reading.cells import Array, Cells, Numbers, Strings, Table, text_of
from dlkit.reading.delimited import ROW_NAMES
from dlkit.reading.parsing import (
    as_dates,
    as_numbers,
    boolean_words,
    date_format,
    day_first,
    fits,
    mostly_numbers,
    number_format,
)
from dlkit.specs.columns import CategoryColumn, Column, NumberColumn, Part

__all__ = ["FitOptions", "Roles", "decide", "fit_columns"]

Scaling = Literal["standard", "robust", "none"]
_LIKE_ID = re.compile(r"(^|[_\W])(?i:id|uid|uuid|guid|key|index|idx|rowid|row_?num(ber)?)$|[a-z](Id|ID)$|번호$")
_BLANKS = re.compile(r"\S {2,}\S")
_FEW_ROWS = 20  # below, differing values say nothing about a column's kind


@dataclass(frozen=True, kw_only=True)
class Roles:
    """What the caller says about columns; everything else is inferred."""

    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    dates: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    image: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    target: tuple[str, ...] = ()
    group: str | None = None
    date_forms: tuple[tuple[str, str], ...] = ()

    def date_form(self, name: str) -> str | None:
        """How the caller says that a column's dates are written."""
        return dict(self.date_forms).get(name)

    def check(self, names: Sequence[str], origin: str) -> None:
        """Every named column must be there, in one role only."""
        seen: dict[str, str] = {}
        for role, columns in self._given():
            for name in columns:
                if name not in names:
                    raise ArgumentError(f"{role}: {origin} has no column {name!r}; {_near(name, names)}")
                if seen.setdefault(name, role) != role:
                    raise ArgumentError(f"column {name!r} is named both in {seen[name]} and in {role}")

    def named(self) -> set[str]:
        """All columns that the caller says something about."""
        return {name for _, columns in self._given() for name in columns}

    def as_text(self) -> set[str]:
        """Columns whose text must be kept as it stands."""
        return {*self.categorical, *self.text, *self.image}

    def _given(self) -> Iterable[tuple[str, tuple[str, ...]]]:
        for role in ("numeric", "categorical", "dates", "text", "image", "drop", "target"):
            yield role, getattr(self, role)
        yield "group", () if self.group is None else (self.group,)


def _near(name: str, names: Sequence[str]) -> str:
    if close := difflib.get_close_matches(name, names, 3):
        return f"do you mean {', '.join(map(repr, close))}?"
    if len(names) == 1 and _BLANKS.search(names[0]):
        return (
            f"it has only {names[0]!r:.200}, whose columns stand apart by blanks: "
            "give the DataFrame that pandas.read_csv(path, sep=r'\\s+') reads"
        )
    if len(names) == 1:
        return f"it has only {names[0]!r:.200}; if that is a row, see separator= and names="
    return f"it has {', '.join(map(repr, names[:20]))}{', ...' if len(names) > 20 else ''}"


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How to fit; the arguments of `CSVDataset` of the same names."""

    scale: Scaling = "standard"
    min_freq: int = 1

    def __post_init__(self) -> None:
        if self.scale not in ("standard", "robust", "none"):
            raise ArgumentError(f"scale must be 'standard', 'robust' or 'none', not {self.scale!r}")
        if not isinstance(self.min_freq, int) or self.min_freq < 1:
            raise ArgumentError(f"min_freq must be a whole number from 1 on, not {self.min_freq!r}")


def fit_columns(
    table: Table, rows: Array | None, roles: Roles, options: FitOptions, missing: Sequence[str]
) -> tuple[Column, ...]:
    """The schema's columns, from the training rows alone.

    Args:
        table: All rows.
        rows: int64 numbers of the training rows; None for all.
        roles: What the caller says.
        options: How to fit.
        missing: Missing marks.
    """
    roles = replace(roles, categorical=(*roles.categorical, *_declared(table, roles)))
    names = [name for name in table.columns if name not in roles.target]

    def fit(name: str) -> Column:
        cells = table.columns[name]
        return _fit_column(name, cells if rows is None else cells.take(rows), roles, options, missing)

    with ThreadPoolExecutor(max_workers=2) as pool:  # numpy lets go of the interpreter while it sorts and sums
        columns = tuple(pool.map(fit, names))
    check_any_used(columns, table.origin)
    return columns


def check_any_used(columns: Iterable[Column], origin: str) -> None:
    """A model needs something to look at."""
    if not any(column.used for column in columns):
        shown = "; ".join(f"{column.name}: {column.kind} ({column.why})" for column in columns) or "no other columns"
        raise DataError(f"{origin} leaves nothing to learn from: {shown}; name columns in numeric= or categorical=")


def _declared(table: Table, roles: Roles) -> list[str]:
    return [name for name in table.categories if name not in roles.named()]


def _fit_column(name: str, cells: Cells, roles: Roles, options: FitOptions, missing: Sequence[str]) -> Column:
    if name in roles.categorical:
        return category(name, facts_of(text_of(cells), missing), options, "named by you")
    empty = int((cells.codes < 0).sum()) if isinstance(cells, Strings) else int(cells.missing().sum())
    if (fixed := fixed_column(name, roles, len(cells), empty)) is not None:
        return fixed
    forced = forced_kind(name, roles)
    if isinstance(cells, Strings) and (some := many_texts(cells, missing)) is not None and forced is None:
        values = list(some.counts)
        if number_format(values) is None and date_format(values) is None and mostly_numbers(some.counts) is None:
            return decide(name, some, "plain", options)
    text = text_facts(cells, missing) if isinstance(cells, Strings) else None
    cells, form = recognised(cells, missing, forced=forced, text=text, name=name, date_form=roles.date_form(name))
    facts: Facts | None = text if isinstance(cells, Strings) else None
    if facts is None:
        facts = facts_of(cells, missing, unique=like_id(name), spread=options.scale == "robust")
    return decide(name, facts, form, options, forced=forced)


def fixed_column(name: str, roles: Roles, rows: int, missing: int) -> Column | None:
    """A column that is what the caller says, whatever its cells hold."""
    if name == roles.group:
        return Column(name=name, kind="dropped", why="the group of the split", rows=rows)
    if name == ROW_NAMES and name not in roles.named():
        why = "a first column without a name holds row names; name it in numeric= or categorical= if it does not"
        return Column(name=name, kind="identifier", why=why, rows=rows, missing=missing)
    if name in roles.drop:
        return Column(name=name, kind="dropped", why="named in drop", rows=rows)
    for kind, names in (("text", roles.text), ("image", roles.image)):
        if name in names:
            return Column(name=name, kind=kind, why="named by you", rows=rows, missing=missing)
    return None


def forced_kind(name: str, roles: Roles) -> str | None:
    """What the caller says that a column's cells are."""
    return "number" if name in roles.numeric else "date" if name in roles.dates else None


def like_id(name: str) -> bool:
    """Whether a column's name says that it identifies rows."""
    return _LIKE_ID.search(name) is not None


def recognised(
    cells: Cells,
    missing: Sequence[str],
    *,
    forced: str | None = None,
    text: TextFacts | None = None,
    name: str = "",
    date_form: str | None = None,
) -> tuple[Cells, str]:
    """Text that is numbers, booleans or dates as such, with the form in which it is written.

    All rows must be dates or booleans; a few cells among numbers are rows for the policy, not another kind of column.

    Args:
        cells: A column.
        missing: Missing marks.
        forced: "number" or "date" where the caller says so.
        text: The facts of its text, where they are known.
        name: Of the column, for the warning.
        date_form: How dates are written, where the caller says so.

    Warns:
        UserWarning: dates fit with the day first as well as with the month first.
    """
    if not isinstance(cells, Strings):
        return cells, "ISO8601" if not isinstance(cells, Numbers) else "plain"
    text = text or text_facts(cells, missing)
    values = list(text.counts)
    if forced != "date" and boolean_words(values):
        return as_numbers(cells, "boolean", missing)[0], "boolean"
    if forced != "date" and (form := number_format(values)) is not None:
        return as_numbers(cells, form, missing)[0], form
    if date_form is not None:
        return _dates_by(cells, date_form, missing, len(values))
    if forced != "number" and (form := date_format(values)) is not None:
        if (other := day_first(form)) is not None and fits(values, other):
            _warn_of_ambiguous_dates(name, form, other)
        return as_dates(cells, form, missing)[0], form
    if forced == "number" and values:
        # Codes with leading zeros count as numbers only where the caller says so.
        form = number_format([value.lstrip("0") or "0" for value in values]) or "plain"
        numbers, bad = as_numbers(cells, form, missing)
        return (cells if bad.sum() == len(values) else numbers), form  # single bad cells are for the policy
    if forced is None and (form := mostly_numbers(text.counts)) is not None:
        return as_numbers(cells, form, missing)[0], form
    return cells, "plain"


def _dates_by(cells: Strings, form: str, missing: Sequence[str], values: int) -> tuple[Cells, str]:
    dates, bad = as_dates(cells, form, missing)
    return (cells if values and bad.sum() == values else dates), form  # single bad cells are for the policy


def _warn_of_ambiguous_dates(name: str, form: str, other: str) -> None:
    warnings.warn(
        f"the dates of column {name!r} may have the month or the day first, and are read as {form}; "
        f"say which: dates={{{name!r}: {form!r}}} or dates={{{name!r}: {other!r}}}",
        UserWarning,
        stacklevel=2,
    )


def decide(name: str, facts: Facts, form: str, options: FitOptions, *, forced: str | None = None) -> Column:
    """The column that facts describe.

    Args:
        name: The column's name.
        facts: Of the training rows.
        form: How its text is written, see `recognised`.
        options: How to fit.
        forced: "number" or "date" where the caller says so.

    Raises:
        ArgumentError: the caller's kind does not fit the cells.
    """
    if forced == "date" and not isinstance(facts, DateFacts):
        raise ArgumentError(f"column {name!r} is named in dates, but its cells are no dates{_example(facts)}")
    if forced == "number" and not isinstance(facts, NumberFacts):
        raise ArgumentError(
            f"column {name!r} is named in numeric, but its cells are no numbers{_example(facts)}; "
            "if such a cell means that there is no number, add it to missing="
        )
    if facts.rows == facts.missing:
        return _left_out(name, "constant", "no row has a value", facts)
    if isinstance(facts, NumberFacts):
        return _number(name, facts, form, options, forced=forced is not None)
    return _date(name, facts, form, options) if isinstance(facts, DateFacts) else _text(name, facts, options)


def _example(facts: Facts) -> str:
    return f", for example {next(iter(facts.counts))!r}" if isinstance(facts, TextFacts) and facts.counts else ""


def _left_out(name: str, kind: str, why: str, facts: Facts) -> Column:
    return Column(name=name, kind=kind, why=why, rows=facts.rows, missing=facts.missing)


def _number(name: str, facts: NumberFacts, form: str, options: FitOptions, *, forced: bool) -> Column:
    if facts.low == facts.high and not facts.missing:
        return _left_out(name, "constant", f"always {facts.low:g}", facts)
    many = facts.rows >= _FEW_ROWS and not facts.missing and not forced
    if many and facts.consecutive:
        return _left_out(name, "identifier", f"numbers the rows from {facts.low:.0f} to {facts.high:.0f}", facts)
    if many and facts.distinct and facts.whole:
        return _left_out(name, "identifier", "named like one, and all numbers differ", facts)
    boolean = form == "boolean"
    return NumberColumn(
        name=name,
        kind="boolean" if boolean else "number",
        why="named by you" if forced else "false or true" if boolean else "numbers",
        rows=facts.rows,
        missing=facts.missing,
        form=form,
        parts=(_part("", facts, "none" if boolean else options.scale),),
        indicator=facts.missing > 0,
    )


def _part(name: str, facts: NumberFacts, scale: Scaling) -> Part:
    centers = {"standard": (facts.mean, facts.std), "robust": (facts.median, facts.spread), "none": (0.0, 1.0)}
    center, spread = centers[scale]
    spread = spread or facts.std or 1.0  # more than half of the rows equal: no quartiles to scale by
    return Part(name=name, center=center, scale=spread if 0 < 1 / spread < np.inf else 1.0, fill=facts.median)


def _date(name: str, facts: DateFacts, form: str, options: FitOptions) -> Column:
    moving = {part: numbers for part, numbers in facts.parts.items() if numbers.low != numbers.high}
    if not moving and not facts.missing:
        return _left_out(name, "constant", "always the same date", facts)
    moving = moving or {"days": facts.parts["days"]}
    return NumberColumn(
        name=name,
        kind="date",
        why=f"dates, read as {form}",
        rows=facts.rows,
        missing=facts.missing,
        form=form,
        parts=tuple(_part(part, numbers, options.scale) for part, numbers in moving.items()),
        indicator=facts.missing > 0,
    )


def _text(name: str, facts: TextFacts, options: FitOptions) -> Column:
    there, distinct = facts.rows - facts.missing, facts.distinct if facts.distinct >= 0 else len(facts.counts)
    if distinct == 1 and not facts.missing:
        return _left_out(name, "constant", f"always {next(iter(facts.counts))!r:.40}", facts)
    share = 1.0 if facts.more else distinct / there
    words, length = _shape(facts.counts)
    sentences = words >= 3 or length > 60
    if there >= _FEW_ROWS and share > 0.5:
        if sentences:
            return _left_out(name, "free text", f"{words:.0f} words on average; name it in text= to use it", facts)
        if share > 0.95 or there >= 100:
            told = "more values than can be counted" if facts.more else f"{distinct} values in {there} rows"
            return _left_out(name, "identifier", told, facts)
    if sentences and there >= _FEW_ROWS and distinct > 100 and share > 0.1:
        return _left_out(name, "free text", f"{words:.0f} words on average; name it in text= to use it", facts)
    return category(name, facts, options, f"{distinct} values in {there} rows")


def _shape(counts: Mapping[str, int]) -> tuple[float, float]:
    """Words and characters per value, over at most a thousand of them."""
    values = list(counts)[:: max(1, len(counts) // 1000)]
    return sum(len(value.split()) for value in values) / len(values), sum(map(len, values)) / len(values)


def category(name: str, facts: Any, options: FitOptions, why: str) -> Column:
    """A category with the values seen often enough, the most frequent first and equally frequent ones by name."""
    ranked = sorted(facts.counts.items(), key=lambda item: (-item[1], item[0]))
    vocabulary = tuple(value for value, count in ranked if count >= options.min_freq)
    if rare := len(ranked) - len(vocabulary):
        why += f", {rare} of them rarer than {options.min_freq}"
    return CategoryColumn(
        name=name, kind="category", why=why, rows=facts.rows, missing=facts.missing, vocabulary=vocabulary
    )
