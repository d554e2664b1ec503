"""What to look at before training: kinds, gaps, cardinality, and columns that know too much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlkit._html import Shown
from dlkit._language import Message, language
from dlkit._showing import Lines
from dlkit.datasets.tables._encoding import shown_cell
from dlkit.datasets.tables._facts import Facts
from dlkit.datasets.tables._tally import NumberFacts
from dlkit.datasets.targets import encode_target
from dlkit.errors import ArgumentError
from dlkit.reading.cells import Array, Cells, Strings, Table
from dlkit.reading.dates import as_dates
from dlkit.reading.parsing import as_numbers, without_marks
from dlkit.reading.typed import TextFacts
from dlkit.specs.columns import Column, NumberColumn
from dlkit.specs.table import TableSpec
from dlkit.splits import check_leaks

__all__ = ["Description", "describe_facts", "describe_rows", "frame_of_rows"]

_BINS = 64
_KNOWS_ALL, _KNOWS_TOO_MUCH = 0.95, 0.3  # shares of the target's variance
_RARE = 0.05  # of the rows, below which a class is told of
_MOMENTS = 10  # different ones, from which on rows in the order of a date are no chance


@dataclass(frozen=True)
class Description(Shown):
    """What `CSVDataset.describe` found; `print` it.

    Attributes:
        columns: A pandas DataFrame with a row per column: kind, missing, distinct, and an example.
        findings: What to look at, in sentences; empty where nothing is suspicious.
    """

    columns: Any
    findings: list[str]

    def __str__(self) -> str:
        findings: list[str] = [Message("- {finding}", finding=finding) for finding in self.findings]
        findings = findings or [Message("nothing suspicious found")]
        return Lines.of(*_shown(self.columns).split("\n"), *findings).plain()


#: What stands in a description, besides values of the table.
_WORDS = (
    *(Message("kind"), Message("missing"), Message("distinct"), Message("example")),
    *(Message("number"), Message("date"), Message("boolean"), Message("category"), Message("identifier")),
    *(Message("constant"), Message("text"), Message("free text"), Message("image"), Message("target")),
    *(Message("dropped"), Message("not in the spec")),
)


def _shown(columns: Any) -> str:
    """The columns as a table of text, in the language of the process."""
    if language() == "en":
        return str(columns.to_string())
    import pandas as pd

    words: dict[str, str] = {word: word.here() for word in _WORDS}
    shown = columns.rename(columns=words).assign(**{words["kind"]: columns["kind"].replace(words)})
    with pd.option_context("display.unicode.east_asian_width", True):
        return str(shown.to_string())


def frame_of_rows(table: Table, spec: TableSpec, rows: Array, *, only_used: bool = False) -> Any:
    """Rows as a pandas DataFrame of what was read: typed, with gaps as missing, not scaled and not encoded."""
    import pandas as pd

    columns = {column.name: column for column in spec.columns}
    names = [name for name in table.columns if not only_used or (name in columns and columns[name].used)]
    data = {name: _series(table.columns[name].take(rows), columns.get(name), spec.marks) for name in names}
    return pd.DataFrame(data, index=pd.Index(rows, name="row"))


def _series(cells: Cells, column: Column | None, marks: Sequence[str]) -> Any:
    if not isinstance(cells, Strings):
        return cells.values
    if isinstance(column, NumberColumn):
        if column.kind == "date":
            return as_dates(cells, column.form, marks)[0].values
        if column.kind == "boolean":
            numbers = as_numbers(cells, "boolean", marks)[0].values
            return np.where(np.isnan(numbers), None, numbers == 1) if np.isnan(numbers).any() else numbers == 1
        return as_numbers(cells, column.form, marks)[0].values
    texts = cells.pool.tolist()
    kept = (
        [text or None for text in texts]
        if column is not None and column.kind in ("text", "image")
        else without_marks(texts, marks)
    )
    return cells.mapped(np.array([*kept, None], dtype=object)[:-1], None, object)


def describe_rows(table: Table, spec: TableSpec, rows: Array, other: Any = None) -> Description:
    """Look at every column of some rows, used or not.

    Args:
        table: The table.
        spec: Its spec.
        rows: Which rows.
        other: Rows of other data (from `frame_of_rows` with `only_used`) that should have nothing in common with these.
    """
    import pandas as pd

    kinds = {column.name: column.kind for column in spec.columns}
    targets = spec.target.columns if spec.target is not None else ()
    codes = {name: _codes(cells.take(rows), name, spec) for name, cells in table.columns.items()}
    lines = {
        name: {
            "kind": "target" if name in targets else kinds.get(name, "not in the spec"),
            "missing": int((codes[name] < 0).sum()),
            "distinct": len(np.unique(codes[name][codes[name] >= 0])),
            "example": _example(table.columns[name], rows, codes[name]),
        }
        for name in table.columns
    }
    frame = frame_of_rows(table, spec, rows, only_used=True)
    findings = [
        *_constants(lines),
        *_rare(table, spec, rows),
        *_knowing(table, spec, rows, codes, kinds),
        *_in_time(codes, kinds),
        *_repeated(frame),
    ]
    if other is not None:
        findings += _shared(frame, other)
    return Description(pd.DataFrame.from_dict(lines, orient="index"), findings)


def describe_facts(spec: TableSpec, facts: Mapping[str, Facts]) -> Description:
    """What counting alone tells, of data that is never in memory as a whole."""
    import pandas as pd

    lines = {}
    for column in spec.columns:
        seen = facts.get(column.name)
        counts = seen.counts if isinstance(seen, TextFacts) else {}
        more = "+" if isinstance(seen, TextFacts) and seen.more else ""
        lines[column.name] = {
            "kind": column.kind,
            "missing": column.missing,
            "distinct": f"{len(counts)}{more}" if counts else "",
            "example": next(iter(counts), "")[:30] if counts else _range(seen),
        }
    constants: list[str] = [
        Message("{name!r} is constant: {why}", name=column.name, why=column.why) for column in spec.of_kind("constant")
    ]
    return Description(pd.DataFrame.from_dict(lines, orient="index"), constants)


def _range(facts: Facts | None) -> str:
    return f"{facts.low:g} to {facts.high:g}" if isinstance(facts, NumberFacts) and facts.rows > facts.missing else ""


def _codes(cells: Cells, name: str, spec: TableSpec) -> Array:
    """Values as ranks, int64 [N], -1 where missing; numbers and dates that stand there as text by their size."""
    import pandas as pd

    column = next((column for column in spec.columns if column.name == name), None)
    if isinstance(cells, Strings) and not isinstance(column, NumberColumn):
        texts = np.array([*without_marks(cells.pool.tolist(), spec.marks), None], dtype=object)
        return cells.mapped(pd.factorize(texts, sort=True)[0][:-1], -1, np.int64)
    values = _series(cells, column, spec.marks)
    values = np.where(np.isfinite(values), values, np.nan) if values.dtype.kind == "f" else values
    return pd.factorize(values, sort=True)[0].astype(np.int64)


def _example(cells: Cells, rows: Array, codes: Array) -> str:
    there = np.flatnonzero(codes >= 0)
    return shown_cell(cells, int(rows[there[0]]))[:30] if len(there) else ""


def _constants(lines: dict[str, dict[str, Any]]) -> list[str]:
    return [
        Message("{name!r} is constant", name=name) if line["distinct"] else Message("{name!r} is empty", name=name)
        for name, line in lines.items()
        if line["distinct"] < 2 and (not line["missing"] or not line["distinct"])
    ]


def _knowing(table: Table, spec: TableSpec, rows: Array, codes: dict[str, Array], kinds: dict[str, str]) -> list[str]:
    """Columns that alone tell the target: they were probably written down after it."""
    target = spec.target
    if target is None or not all(name in table.columns for name in target.columns):
        return []
    values, lacking, wrong = encode_target(target, table.columns, spec.marks)
    good = ~(lacking | wrong)[rows]
    wanted = _columns(values[rows][good], len(target.classes) if target.task == "classification" else 0)
    findings = list[str]()
    order = explained(np.arange(len(rows))[good], wanted)
    if order >= _KNOWS_TOO_MUCH:
        findings.append(
            Message(
                "the order of the rows predicts {share:.0%} of the target: the file is sorted, so shuffle it",
                share=order,
            )
        )
    for name, column in codes.items():
        if name in target.columns:
            continue
        share = explained(column[good], wanted)
        if kinds.get(name) == "identifier" and share >= _KNOWS_TOO_MUCH:
            findings.append(
                Message(
                    "the identifier {name!r} predicts {share:.0%} of the target: it was numbered in that order; drop "
                    "it",
                    name=name,
                    share=share,
                )
            )
        elif kinds.get(name) != "identifier" and share >= _KNOWS_ALL:
            findings.append(
                Message(
                    "{name!r} alone predicts {share:.0%} of the target: is it known before the target is? If not, "
                    "drop it",
                    name=name,
                    share=share,
                )
            )
    return findings


def _rare(table: Table, spec: TableSpec, rows: Array) -> list[str]:
    """Classes so rare that a model which never answers with them looks good."""
    import pandas as pd

    target = spec.target
    if target is None or target.task == "regression":
        return []
    findings = list[str]()
    for name in target.columns:
        if name not in table.columns:
            continue
        counts = pd.Series(_series(table.columns[name].take(rows), None, spec.marks)).value_counts()
        if len(counts) > 1 and counts.iloc[-1] < _RARE * counts.sum():
            most, rarest, all_ = counts.index[0], counts.index[-1], int(counts.sum())
            findings.append(
                Message(
                    "{name!r} is {rarest} in {count:,} of {all:,} rows ({share:.1%}); always answering {most} is right "
                    "in {right:.1%}, so accuracy says little: look at balanced accuracy, F1 and AUROC, and give rare "
                    "classes more weight (class weights, a balanced sampler)",
                    name=name,
                    rarest=rarest,
                    count=int(counts.iloc[-1]),
                    all=all_,
                    share=counts.iloc[-1] / all_,
                    most=most,
                    right=counts.iloc[0] / all_,
                )
            )
    return findings


def _in_time(codes: dict[str, Array], kinds: dict[str, str]) -> list[str]:
    """Rows in the order of a date: parts that are drawn at random let a model look at what comes after."""
    for name, column in codes.items():
        known = column[column >= 0]
        steps = np.diff(known)
        if (
            kinds.get(name) == "date"
            and known.size
            and known.max() >= _MOMENTS
            and ((steps >= 0).all() or (steps <= 0).all())
        ):
            return [
                Message(
                    "the rows are in the order of {name!r}: if what comes is to be told from what was, cut them by "
                    "time (time={name!r}); parts drawn at random lie between one another, and flatter",
                    name=name,
                )
            ]
    return []


def _columns(values: Array, classes: int) -> Array:
    if classes:
        return np.eye(classes, dtype=np.float32)[values]
    return values.reshape(len(values), -1).astype(np.float64)


def explained(codes: Array, wanted: Array) -> float:
    """The share of the target's variance that groups of equal or neighbouring values explain in rows not looked at.

    Means per group are taken from one half of the rows and tried on the other, so a column in which every value is
    another explains nothing unless neighbouring values go together.

    Args:
        codes: int64 [N], ranks; -1 is its own group.
        wanted: [N, outputs].
    """
    if len(codes) < 2 * _BINS or not wanted.size:
        return 0.0
    groups = np.unique(codes, return_inverse=True)[1].reshape(-1)
    if groups.max() >= min(4 * _BINS, len(codes) // 8):
        bins = min(_BINS, len(codes) // 4)
        groups = np.argsort(np.argsort(codes, kind="stable"), kind="stable") * bins // len(codes)
    half = np.random.default_rng(0).permutation(len(codes)) % 2 == 0
    count = int(groups.max()) + 1
    sizes = np.bincount(groups[half], minlength=count)[:, None]
    mean = wanted[half].mean(axis=0)
    sums = np.stack([np.bincount(groups[half], weights=column, minlength=count) for column in wanted[half].T], axis=1)
    guesses = np.where(sizes > 0, sums / np.maximum(sizes, 1), mean)[groups[~half]]
    rest = wanted[~half]
    spread = ((rest - mean) ** 2).sum()
    return float(1 - ((rest - guesses) ** 2).sum() / spread) if spread > 0 else 0.0


def _repeated(frame: Any) -> list[str]:
    copies = int(frame.duplicated().sum()) if len(frame.columns) else 0
    if not copies:
        return []
    told = {"copies": copies, "rows": len(frame)}
    return [Message("{copies} of {rows} rows repeat an earlier one in every column that is used", **told)]


def _shared(frame: Any, other: Any) -> list[str]:
    if list(frame.columns) != list(other.columns):
        raise ArgumentError("the other data must have the same spec")
    report = check_leaks(frame, other)
    return (
        [f"{len(report.test)} of {report.num_test} rows of the other data are also in this: {report!r}"]
        if report
        else []
    )
