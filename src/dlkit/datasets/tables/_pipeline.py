"""One pass over the blocks of a table, in memory the only one, from which its spec and its unusable rows are known.

A pass must know how columns are written before it can count what they hold, and takes that from the first block. Where
the whole table then tells otherwise (a column of digits ends in letters, a target of few whole numbers has fractions),
it is skipped again with what is known by then; so the first block decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from dlkit.datasets.tables._encoding import check_kind, check_spec_columns, reading_in_file
from dlkit.datasets.tables._facts import ColumnFacts, Facts
from dlkit.datasets.tables._fitting import (
    category,
    check_any_used,
    decide,
    fixed_column,
    forced_kind,
    warn_of_ambiguous_dates,
)
from dlkit.datasets.tables._pass import Known, Pass, RowDealer, rename_classes
from dlkit.datasets.tables._settings import TableSettings, class_column
from dlkit.datasets.targets import find_target, forms_in_file
from dlkit.reading.cells import Skipped, Table
from dlkit.reading.typed import Reading, reading_of
from dlkit.specs.columns import CategoryColumn, Column, NumberColumn
from dlkit.specs.table import TableSpec, Target

__all__ = ["ApplyingPass", "FittingPass"]


class FittingPass(Pass):
    """A pass that finds out what a spec is made of."""

    def _begin(self, piece: Table) -> None:
        roles = self.settings.roles
        roles.check(list(piece.columns), piece.origin)
        declared = [name for name in piece.categories if name not in roles.named()]
        self.roles = replace(roles, categorical=(*roles.categorical, *declared))
        self.names, self.header = list(piece.columns), piece.header
        for name in self.names:
            if name not in roles.target:
                countless = name in self.roles.categorical
                self._look_at(name, text=countless or name in roles.drop, countless=countless)
                self.facts[name].fixed = fixed_column(name, roles, 0, 0) is not None
        options = self.settings.target
        self._classes_given = options.classes is not None or len(roles.target) > 1
        self._classes_wanted = options.task in ("classification", "binary", "multilabel") or bool(
            options.label_separator
        )
        self._look_at_targets(roles.target)

    def _find_target(self) -> tuple[Target | None, tuple[str, ...]]:
        if not self.targets:
            return None, ()
        target = find_target([column.known() for column in self.targets], self.settings.target)
        return target, target.forms

    def _reading(self, facts: ColumnFacts) -> Reading:
        name, roles = facts.name, self.roles
        forced = "text" if name in roles.categorical else forced_kind(name, roles)
        date_form = roles.date_form(name) or ""
        return reading_of(facts.sorts, facts.texts(), decimal=facts.decimal, forced=forced, date_form=date_form)

    def _images(self) -> Iterable[str]:
        return self.settings.roles.image

    def finish(self, origin: str) -> tuple[TableSpec, list[Skipped]]:
        """See `Pass`."""
        self._check_marks(origin)
        skipped = self.unlabelled.judge(self.settings.read, self.rows, origin)
        columns = tuple(self._column(name) for name in self.names if name not in self.roles.target)
        check_any_used(columns, origin)
        target = self.known.target
        if target is not None and target.task == "regression" and self.settings.target.scale_target:
            numbers = [column.numbers() for column in self.targets]
            there = [facts.rows > facts.missing for facts in numbers]
            target = replace(
                target,
                center=tuple(facts.mean if some else 0.0 for facts, some in zip(numbers, there, strict=True)),
                scale=tuple(
                    facts.std if some and facts.std > 0 else 1.0 for facts, some in zip(numbers, there, strict=True)
                ),
            )
        marks, header, decimal = tuple(self.marks), self.header, "," if self.decimal.sign == "," else ""
        images = self.settings.images.prepared if self.roles.image else ""
        spec = TableSpec(columns=columns, target=target, marks=marks, header=header, decimal=decimal, images=images)
        return spec, skipped

    def _column(self, name: str) -> Column:
        facts, roles = self.facts[name], self.roles
        if (fixed := fixed_column(name, roles, facts.rows, facts.empty)) is not None:
            return fixed
        reading = self.known.readings.get(name, Reading("number"))
        if name in roles.categorical:
            return category(name, facts.texts(), self.settings.fit, "named by you")
        if reading.kind == "date" and not roles.date_form(name):
            warn_of_ambiguous_dates(name, reading.form, facts.texts())
        return decide(name, self.facts_of(name), reading.form, self.settings.fit, forced=forced_kind(name, roles))

    def facts_of(self, name: str) -> Facts:
        """What was counted of a column."""
        facts, kind = self.facts[name], self.known.readings.get(name, Reading("number")).kind
        if kind == "text":
            return facts.texts()
        spread = self.settings.fit.scale == "robust"
        return facts.dates(spread=spread) if kind == "date" else facts.numbers(spread=spread)


class ApplyingPass(Pass):
    """A pass over a table that a spec describes: how it is written, and which of its rows can be used."""

    _fits_a_spec = False

    def __init__(self, settings: TableSettings, dealt: RowDealer | None, known: Known, spec: TableSpec) -> None:
        super().__init__(settings, dealt, known)
        self._spec, self.marks = spec, spec.marks
        self.unlabelled = self.problems
        self._columns = {column.name: column for column in (*spec.numbers, *spec.categories)}

    def _begin(self, piece: Table) -> None:
        check_spec_columns(list(piece.columns), self._spec, piece.origin)
        for name, column in self._columns.items():
            self._look_at(name, text=isinstance(column, CategoryColumn))
        target = self._spec.target
        if target is not None and all(name in piece.columns for name in target.columns):
            self._look_at_targets(target.columns)

    def _find_target(self) -> tuple[Target | None, tuple[str, ...]]:
        target = self._spec.target
        return target, () if target is None else forms_in_file(target, [column.known() for column in self.targets])

    def _rename(self, piece: Table) -> None:
        rename_classes(piece, class_column(self._spec.target), self.settings.aliases)

    def _reading(self, facts: ColumnFacts) -> Reading:
        column = self._columns[facts.name]
        if isinstance(column, NumberColumn):
            return reading_in_file(column, facts.texts().written, facts.decimal)
        return Reading("text")

    def _images(self) -> Iterable[str]:
        return [column.name for column in self._spec.of_kind("image")]

    def finish(self, origin: str) -> tuple[TableSpec, list[Skipped]]:
        """See `Pass`."""
        self._check_marks(origin)
        for name, column in self._columns.items():
            check_kind(column, self.facts[name], origin, fits=name in self._fits - self._counts)
        return self._spec, []
