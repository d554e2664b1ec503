"""Facts to a spec: which kind a column is, and the parameters that come from the training rows alone."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dlkit._language import Message
from dlkit._near import hint, nearest
from dlkit.datasets.tables._facts import DateFacts, Facts
from dlkit.datasets.tables._tally import NumberFacts
from dlkit.errors import ArgumentError, DataError
from dlkit.reading._delimited import ROW_NAMES
from dlkit.reading.dates import day_first, fits
from dlkit.reading.typed import MOST_VALUES, TextFacts
from dlkit.specs.columns import CategoryColumn, Column, NumberColumn, Part

__all__ = [
    "FitOptions",
    "ColumnRoles",
    "category",
    "check_any_used",
    "decide",
    "fixed_column",
    "forced_kind",
    "warn_of_ambiguous_dates",
]

Scaling = Literal["standard", "robust", "none"]
# The names of columns that identify rows.
_LIKE_ID = re.compile(r"(^|[_\W])(?i:id|uid|uuid|guid|key|index|idx|rowid|row_?num(ber)?)$|[a-z](Id|ID)$|번호$")
_BLANKS = re.compile(r"\S {2,}\S")
_FEW_ROWS = 20  # below, differing values say nothing about a column's kind


@dataclass(frozen=True, kw_only=True)
class ColumnRoles:
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

    def date_form(self, name: str | None) -> str | None:
        """How the caller says that a column's dates are written."""
        return dict(self.date_forms).get(name or "")

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
        """Columns whose text must be kept unchanged."""
        return {*self.categorical, *self.text, *self.image}

    def _given(self) -> Iterable[tuple[str, tuple[str, ...]]]:
        for role in ("numeric", "categorical", "dates", "text", "image", "drop", "target"):
            yield role, getattr(self, role)
        yield "group", () if self.group is None else (self.group,)


def _near(name: str, names: Sequence[str]) -> str:
    if nearest(name, names) or len(names) != 1:
        return hint(name, names)
    if _BLANKS.search(names[0]):
        return (
            f"it has only {names[0]!r:.200}, whose columns are separated by whitespace: "
            "give the DataFrame that pandas.read_csv(path, sep=r'\\s+') reads"
        )
    return f"it has only {names[0]!r:.200}; if that is a row, see separator= and names="


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


def check_any_used(columns: Iterable[Column], origin: str) -> None:
    """A model needs something to look at."""
    if not any(column.used for column in columns):
        shown = "; ".join(f"{column.name}: {column.kind} ({column.why})" for column in columns) or "no other columns"
        raise DataError(f"{origin} leaves nothing to learn from: {shown}; name columns in numeric= or categorical=")


def fixed_column(name: str, roles: ColumnRoles, rows: int, missing: int) -> Column | None:
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


def forced_kind(name: str, roles: ColumnRoles) -> str | None:
    """What the caller says that a column's cells are."""
    return "number" if name in roles.numeric else "date" if name in roles.dates else None


def warn_of_ambiguous_dates(name: str, form: str, text: TextFacts) -> None:
    """Say that dates fit with the day first as well as with the month first.

    Warns:
        UserWarning: they do.
    """
    other = day_first(form)
    if other is not None and text.counts and fits(list(text.counts), other):
        warnings.warn(
            Message(
                "the dates of column {name!r} may have the month or the day first, and are read as {form}; "
                "say which: dates={{{name!r}: {form!r}}} or dates={{{name!r}: {other!r}}}",
                name=name,
                form=form,
                other=other,
            ),
            UserWarning,
            stacklevel=2,
        )


def decide(name: str, facts: Facts, form: str, options: FitOptions, *, forced: str | None = None) -> Column:
    """The column that facts describe.

    Args:
        name: The column's name.
        facts: Of the training rows.
        form: How its text is written, see `Reading`.
        options: How to fit.
        forced: "number" or "date" where the caller says so.

    Raises:
        ArgumentError: the caller's kind does not fit the cells.
    """
    if forced == "date" and not isinstance(facts, DateFacts):
        raise ArgumentError(f"column {name!r} is named in dates, but its cells are not dates{_example(facts)}")
    if forced == "number" and not isinstance(facts, NumberFacts):
        raise ArgumentError(
            f"column {name!r} is named in numeric, but its cells are not numbers{_example(facts)}; "
            "if such a cell means that there is no number, add it to missing="
        )
    if facts.rows == facts.missing:
        return _left_out(name, "constant", "no row has a value", facts)
    if isinstance(facts, NumberFacts):
        return _number(name, facts, form, options, forced=forced is not None)
    return _date(name, facts, form, options) if isinstance(facts, DateFacts) else _text(name, facts, options)


def _example(facts: Facts) -> str:
    if not isinstance(facts, TextFacts) or not facts.counts:
        return ""
    return f", for example {min(facts.counts, key=lambda text: (-facts.counts[text], text))!r}"


def _left_out(name: str, kind: str, why: str, facts: Facts) -> Column:
    return Column(name=name, kind=kind, why=why, rows=facts.rows, missing=facts.missing)


def _number(name: str, facts: NumberFacts, form: str, options: FitOptions, *, forced: bool) -> Column:
    if facts.low == facts.high and not facts.missing:
        return _left_out(name, "constant", f"always {facts.low:g}", facts)
    many = facts.rows >= _FEW_ROWS and not facts.missing and not forced
    if many and facts.distinct and facts.whole and facts.high - facts.low + 1 == facts.rows:
        return _left_out(name, "identifier", f"numbers the rows from {facts.low:.0f} to {facts.high:.0f}", facts)
    if many and facts.distinct and facts.whole and _LIKE_ID.search(name):
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
    there, distinct = facts.rows - facts.missing, len(facts.counts)
    if distinct == 1 and not facts.missing:
        return _left_out(name, "constant", f"always {next(iter(facts.counts))!r:.40}", facts)
    words, length = _shape(facts.counts)
    sentences = words >= 3 or length > 60
    share = 1.0 if facts.more else distinct / there
    told = f"more than {MOST_VALUES:,} values" if facts.more else f"{distinct} values in {there} rows"
    if sentences and there >= _FEW_ROWS and (share > 0.5 or (distinct > 100 and share > 0.1)):
        return _left_out(name, "free text", f"{words:.0f} words on average; name it in text= to use it", facts)
    if there >= _FEW_ROWS and (share > 0.95 or (share > 0.5 and there >= 100)):
        return _left_out(name, "identifier", told, facts)
    return category(name, facts, options, told)


def _shape(counts: Mapping[str, int]) -> tuple[float, float]:
    """Words and characters per value, over at most a thousand of them."""
    values = list(counts)[:: max(1, len(counts) // 1000)]
    return sum(len(value.split()) for value in values) / len(values), sum(map(len, values)) / len(values)


def category(name: str, facts: TextFacts, options: FitOptions, why: str) -> Column:
    """A category with the values seen often enough, the most frequent first and equally frequent ones by name."""
    ranked = sorted(facts.counts.items(), key=lambda item: (-item[1], item[0]))
    vocabulary = tuple(value for value, count in ranked if count >= options.min_freq)
    if rare := len(ranked) - len(vocabulary):
        why += f", {rare} of them rarer than {options.min_freq}"
    return CategoryColumn(
        name=name, kind="category", why=why, rows=facts.rows, missing=facts.missing, vocabulary=vocabulary
    )
