"""Kinds are found and told, each can be overridden, and everything comes from the training rows alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dlkit.datasets import CSVDataset
from dlkit.errors import ArgumentError, DataError, DataNotFoundError
from dlkit.reading.cells import ranks_of, strings_of
from dlkit.reading.dates import date_format
from dlkit.reading.parsing import number_format, parse_number
from dlkit.specs import TableSpec
from dlkit.specs.columns import CategoryColumn, NumberColumn
from dlkit.storage.strings import PackedStrings

ROWS = 60


def frame(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"filler": np.arange(ROWS) % 7 + 0.5, **columns})


def kind(values: Any, **options: Any) -> str:
    return CSVDataset(frame(x=values), **options).spec["x"].kind


WORDS = ["red", "green", "blue"] * 20


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.linspace(0, 1, ROWS), "number"),
        (np.arange(ROWS) % 5, "number"),
        (["1,234.5", "12", "3,000"] * 20, "number"),
        (["0,5", "1,25", "1.000,5"] * 20, "number"),
        (["1 234", "5", "6"] * 20, "number"),
        (WORDS, "category"),
        (["01", "02", "10"] * 20, "category"),
        ([True, False, True] * 20, "boolean"),
        (["yes", "No", "yes"] * 20, "boolean"),
        (["31.12.2020", "01.02.2021", "15.03.2021"] * 20, "date"),
        (["2020-01-01 10:00", "2020-01-02", "2020-01-03"] * 20, "date"),
        (["Jan 5, 2020", "Feb 6, 2021", "Mar 7, 2022"] * 20, "date"),
        (["10:30", "11:45", "23:59"] * 20, "date"),
        ([f"The {i}th sentence has several words" for i in range(ROWS)], "free text"),
        ([f"u-{i:05}" for i in range(ROWS)], "identifier"),
        (np.arange(100, 100 + ROWS), "identifier"),
        (np.random.default_rng(0).permutation(ROWS), "identifier"),
        (["same"] * ROWS, "constant"),
        ([3] * ROWS, "constant"),
        ([None] * ROWS, "constant"),
        (["?"] * ROWS, "constant"),
        (["2020-01-01"] * ROWS, "constant"),
    ],
)
def test_kinds_are_inferred(values: Any, expected: str) -> None:
    assert kind(values) == expected


def test_numbers_named_like_identifiers_are_identifiers_where_they_all_differ() -> None:
    values = np.arange(ROWS) ** 2
    for name in ("id", "user_id", "PassengerId", "번호", "row_number"):
        assert CSVDataset(frame(**{name: values})).spec[name].kind == "identifier"
    for name in ("paid", "grid", "humid"):
        assert CSVDataset(frame(**{name: values})).spec[name].kind == "number"


def test_every_kind_can_be_overridden() -> None:
    values = np.arange(ROWS) % 5
    assert kind(values, categorical="x") == "category"
    assert kind(values, drop=["x"]) == "dropped"
    assert kind(np.arange(ROWS), numeric=["x"]) == "number"
    assert kind(WORDS, text="x") == "text"
    assert kind([f"u-{i}" for i in range(ROWS)], categorical=["x"]) == "category"
    assert kind(["01", "02", "10"] * 20, numeric="x") == "number"
    assert kind(["2020-01-01", "2020-02-01", "2020-03-01"] * 20, categorical="x") == "category"


def test_an_override_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(
        ArgumentError, match=r"'x' is named in numeric, but its cells are not numbers, for example 'blue'"
    ):
        kind(WORDS, numeric="x")
    with pytest.raises(ArgumentError, match="'x' is named in dates, but its cells are not dates"):
        kind(np.arange(ROWS), dates="x")
    with pytest.raises(ArgumentError, match="has no column 'fller'; do you mean 'filler'"):
        kind(WORDS, numeric="fller")
    with pytest.raises(ArgumentError, match="'x' is named both in numeric and in drop"):
        kind(WORDS, numeric="x", drop="x")
    with pytest.raises(ArgumentError, match="numeric must be a list of strings"):
        kind(WORDS, numeric=[3])


def test_a_categorical_column_of_a_frame_is_a_category() -> None:
    ds = CSVDataset(frame(x=pd.Categorical(np.arange(ROWS) % 3)))
    assert ds.spec["x"].vocabulary == ("0", "1", "2")  # type: ignore[attr-defined]


def test_nothing_left_to_learn_from_is_an_error() -> None:
    with pytest.raises(DataError, match=r"leaves nothing to learn from: x: constant \(always 1\)"):
        CSVDataset(pd.DataFrame({"x": [1] * 30, "y": [0, 1] * 15}), target="y")


def test_codes() -> None:
    values = ["b", "a", "b", None, "c", "b", "a", "?"]
    ds = CSVDataset(pd.DataFrame({"x": values}))
    column = ds.spec["x"]
    assert isinstance(column, CategoryColumn)
    assert column.vocabulary == ("b", "a", "c")  # by frequency, ties by name
    assert ds.categorical is not None
    assert ds.categorical[:, 0].tolist() == [3, 4, 3, 1, 5, 3, 4, 1]
    new = CSVDataset(pd.DataFrame({"x": ["z", " a ", None]}), spec=ds.spec)
    assert new.categorical is not None
    assert new.categorical[:, 0].tolist() == [2, 4, 1]
    rare = CSVDataset(pd.DataFrame({"x": values}), min_freq=2)
    assert rare.spec["x"].vocabulary == ("b", "a")  # type: ignore[attr-defined]
    assert rare.categorical is not None
    assert rare.categorical[4, 0] == 2
    assert rare.embedding_sizes() == [(5, 2)]
    with pytest.raises(ArgumentError, match="min_freq"):
        CSVDataset(pd.DataFrame({"x": values}), min_freq=0)


@pytest.mark.parametrize("scale", ["standard", "robust", "none"])
def test_scaling_and_filling(scale: Any) -> None:
    values = np.array([1.0, 2.0, np.nan, 4.0, 100.0, 3.0])
    ds = CSVDataset(pd.DataFrame({"x": values}), scale=scale)
    there = values[~np.isnan(values)]
    center, spread = {
        "standard": (there.mean(), there.std()),
        "robust": (np.median(there), np.subtract(*np.percentile(there, [75, 25]))),
        "none": (0, 1),
    }[scale]
    assert ds.numeric is not None
    filled = np.where(np.isnan(values), np.median(there), values)
    np.testing.assert_allclose(ds.numeric[:, 0].numpy(), (filled - center) / spread, rtol=1e-6)
    assert ds.numeric[:, 1].tolist() == [0, 0, 1, 0, 0, 0]
    assert ds.spec.numeric_features == ["x", "x is missing"]
    with pytest.raises(ArgumentError, match="scale must be"):
        CSVDataset(pd.DataFrame({"x": values}), scale="max")  # type: ignore[arg-type]


def test_gaps_first_seen_in_new_data_are_filled_without_an_indicator() -> None:
    train = CSVDataset(pd.DataFrame({"x": [1.0, 2.0, 6.0]}))
    new = CSVDataset(pd.DataFrame({"x": [np.nan, 1.0, np.inf]}), spec=train.spec)
    assert train.numeric is not None
    assert new.numeric is not None
    assert new.numeric.shape == (3, 1)
    assert new.numeric[0] == new.numeric[2] == train.numeric[1]


def test_dates_become_parts() -> None:
    dates = pd.Series(pd.date_range("2019-12-30", periods=ROWS, freq="31h"))
    column = CSVDataset(frame(x=dates), scale="none").spec["x"]
    assert isinstance(column, NumberColumn)
    names = [part.name for part in column.parts]
    assert names == ["year", "month", "day", "weekday", "day of year", "hour", "days"]  # all minutes are 0
    numeric = CSVDataset(frame(x=dates), scale="none").numeric
    assert numeric is not None
    for name, expected in {
        "year": dates.dt.year,
        "month": dates.dt.month,
        "day": dates.dt.day,
        "weekday": dates.dt.day_of_week,
        "day of year": dates.dt.day_of_year,
        "hour": dates.dt.hour,
    }.items():
        assert numeric[:, 1 + names.index(name)].tolist() == expected.tolist()
    assert [column.missing for column in CSVDataset(frame(x=[None, *dates[1:]])).spec.numbers] == [0, 1]


@given(st.lists(st.datetimes(), min_size=2, max_size=9))
def test_date_parts_are_those_of_pandas(moments: list[Any]) -> None:
    index = pd.DatetimeIndex(np.array(moments, dtype="datetime64[us]"))
    ds = CSVDataset(pd.DataFrame({"x": index, "filler": np.arange(len(index)) + 0.5}), scale="none")
    assert ds.numeric is not None
    numbers = dict(zip(ds.spec.numeric_features, ds.numeric.T.tolist(), strict=True))
    parts = {"year": index.year, "day": index.day, "weekday": index.day_of_week, "day of year": index.day_of_year}
    for name, expected in (parts | {"hour": index.hour, "minute": index.minute}).items():
        if expected.nunique() > 1:  # parts that are always the same are left out
            assert numbers[f"x {name}"] == expected.tolist()


@given(hnp.arrays(np.float64, st.integers(2, 40), elements=st.one_of(st.just(np.nan), st.floats(-1e6, 1e6))))
@example(np.full(35, 119837.36118437))  # numpy's deviation of equal values is 1.5e-11
def test_statistics_are_those_of_numpy(values: Any) -> None:
    there = values[np.isfinite(values)]
    frame = pd.DataFrame({"x": values, "filler": np.arange(len(values)) + 0.5})
    for scale in ("standard", "robust"):
        column = CSVDataset(frame, scale=scale, numeric="x").spec["x"]
        assert (column.rows, column.missing) == (len(values), len(values) - len(there))
        if isinstance(column, NumberColumn):
            part, quartiles = column.parts[0], np.quantile(there, [0.25, 0.5, 0.75])
            assert part.fill == pytest.approx(quartiles[1], abs=1e-6)
            assert part.center == pytest.approx(there.mean() if scale == "standard" else quartiles[1], abs=1e-6)
            deviation = there.std() if np.ptp(there) else 0.0
            spread = deviation if scale == "standard" else quartiles[2] - quartiles[0]
            assert part.scale == pytest.approx(spread or deviation or 1.0, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("make", [np.sort, lambda v: v, lambda v: v.round(1), lambda v: np.where(v > 0, 1.0, v)])
def test_statistics_of_long_columns(make: Any) -> None:
    values = make(np.random.default_rng(0).normal(size=150_001))
    part = CSVDataset(pd.DataFrame({"x": values}), scale="robust").spec.numbers[0].parts[0]
    first, middle, third = np.quantile(values, [0.25, 0.5, 0.75])
    assert (part.center, part.scale, part.fill) == (middle, third - first, middle)


def test_medians_of_longer_columns_come_from_rows_all_over_it() -> None:
    values = np.arange(450_000) / 7
    part = CSVDataset(pd.DataFrame({"x": values}), scale="robust").spec.numbers[0].parts[0]
    assert part.center == pytest.approx(np.median(values), rel=0.01)
    assert part.scale == pytest.approx(np.subtract(*np.quantile(values, [0.75, 0.25])), rel=0.01)


@given(hnp.arrays(np.int64, st.integers(0, 50), elements=st.integers(-100, 10**12)))
def test_ranked_is_unique(values: Any) -> None:
    distinct, codes = ranks_of(values)
    expected, inverse = np.unique(values, return_inverse=True)
    assert distinct.tolist() == expected.tolist()
    assert codes.tolist() == inverse.tolist()


@given(st.lists(st.text(max_size=5)))
def test_pools_keep_any_text(strings: list[str]) -> None:
    pool = PackedStrings.of(strings)
    assert pool.tolist() == strings == [pool[i] for i in range(len(pool))] == pool[:]
    cells = strings_of([*strings, None])
    assert cells.tolist() == [*strings, None]
    assert cells.counts().sum() == len(strings)


def test_long_columns_whose_values_differ_are_not_counted_one_by_one(tmp_path: Path) -> None:
    rows = 60_000
    ids, notes = [f"user {i:07}" for i in range(rows)], [f"some remark about customer {i} here" for i in range(rows)]
    twice = [f"{i // 2}-a" for i in range(rows)]
    columns = {
        "id": ids,
        "note": notes,
        "twice": twice,
        "number": np.arange(rows) % 977,
        "day": [f"1.1.{i}" for i in range(rows)],
    }
    path = tmp_path / "t.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    ds = CSVDataset(path, text="note", categorical="twice")
    assert [(c.name, c.kind) for c in ds.spec.columns] == [
        ("id", "identifier"),
        ("note", "text"),
        ("twice", "category"),
        ("number", "number"),
        ("day", "identifier"),
    ]
    assert ds.spec["id"].why == "60000 values in 60000 rows"
    assert len(ds.spec["twice"].vocabulary) == rows // 2  # type: ignore[attr-defined]
    assert ds[777]["text"] == notes[777]
    assert CSVDataset(path).spec["note"].kind == "free text"


def test_equal_strings_of_a_long_column_are_one_group() -> None:
    groups = [f"group {i}" for i in range(60_000)]
    groups[-1] = groups[0]
    data = pd.DataFrame({"g": groups, "x": np.arange(60_000) % 977})
    parts = CSVDataset.split(data, fractions=0.5, group="g")
    assert sum({0, 59_999} <= set(part.rows.tolist()) for part in parts) == 1


@pytest.mark.parametrize(
    ("values", "form", "numbers"),
    [
        (["1", "-2.5", "+3e2", ".5"], "plain", [1, -2.5, 300, 0.5]),
        (["1,234", "1,234,567.5", "7"], "thousands ,", [1234, 1234567.5, 7]),
        (["1.234,5", "0,25", "7"], "decimal ,", [1234.5, 0.25, 7]),
        (["1\u202f234", "12\u00a0345,0"], "decimal ,", [1234, 12345.0]),
        (["12 345", "1 000 000.5"], "thousands blank", [12345, 1000000.5]),
        (["1'234", "5"], "thousands '", [1234, 5]),
        (["1,5", "2.5"], None, []),
        (["12", "x"], None, []),
        (["\uff11\uff12"], None, []),  # digits of another script
        (["007"], None, []),
    ],
)
def test_number_forms(values: list[str], form: str | None, numbers: list[float]) -> None:
    assert number_format(values) == form
    if form is not None:
        assert [parse_number(value, form) for value in values] == numbers


@given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=5))
def test_grouped_numbers_read_back(values: list[float]) -> None:
    texts = [f"{value:,.3f}" for value in values]
    form = number_format(texts)
    assert form in ("plain", "thousands ,")
    assert [parse_number(text, form) for text in texts] == [round(value, 3) for value in values]


def test_ambiguous_dates_are_told() -> None:
    assert date_format(["01/02/2020", "03/04/2021"]) == "%m/%d/%Y"
    assert date_format(["01/02/2020", "13/04/2021"]) == "%d/%m/%Y"
    assert date_format(["2020-01-02T10:00:00+02:00"]) == "ISO8601"
    assert date_format(["A-12", "B-13"]) is None
    days = [f"{day:02}/{month:02}/2020" for day in (1, 2, 3) for month in (4, 5)] * 10
    with pytest.warns(UserWarning, match="the month or the day first, and are read as %m/%d/%Y"):
        assert "%m/%d/%Y" in str(CSVDataset(frame(x=days)).spec)


# --- the spec as a thing of its own ---------------------------------------------------------------------------------


@pytest.fixture
def spec() -> TableSpec:
    data = frame(
        age=[20.5, None, 31.25] * 20,
        색=WORDS,
        born=pd.date_range("2000-01-01", periods=ROWS, freq="40h").astype(str),
        id=range(ROWS),
        y=[1.1, 2.2, 3.3] * 20,
    )
    return CSVDataset(data, target="y").spec


def test_json_round_trip_to_the_last_bit(spec: TableSpec, tmp_path: Path) -> None:
    assert TableSpec.from_json(spec.to_json()) == spec
    spec.save(tmp_path / "spec.json")
    loaded = TableSpec.load(tmp_path / "spec.json")
    assert loaded == spec
    assert str(loaded) == str(spec)
    assert "색" in (tmp_path / "spec.json").read_text(encoding="utf-8")
    with pytest.raises(DataNotFoundError, match="no spec file"):
        TableSpec.load(tmp_path / "none.json")


def test_it_prints_as_a_table(spec: TableSpec) -> None:
    lines = str(spec).splitlines()
    assert lines[0].split() == ["column", "kind", "missing", "becomes", "why"]
    assert any(line.startswith("age ") and "20 (33%)" in line and "a flag" in line for line in lines)
    assert any(
        line.startswith("id ") and "identifier" in line and "numbers the rows from 0 to 59" in line for line in lines
    )
    assert lines[-1].startswith("target y: regression, (y - 2.2) / 0.898")
    assert spec["age"].missing == 20
    with pytest.raises(KeyError, match="no column 'nothing'; it has 'filler', 'age'"):
        spec["nothing"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format="x"), "format of the table spec must be"),
        (lambda d: d.update(version=9), "version of the table spec must be 1, not 9"),
        (lambda d: d.update(columns={}), "must be a list"),
        (lambda d: d["columns"][0].update(kind="spell"), "unknown kind 'spell'"),
        (lambda d: d["columns"][0].update(type="Evil"), r"columns\['filler'\].type of .* must be 'Column' or"),
        (
            lambda d: d["columns"][0].update(rows="many"),
            r"columns\['filler'\].rows of the table spec must be a whole number",
        ),
        (lambda d: d["columns"][0].pop("parts"), "lacks parts"),
        (lambda d: d["columns"][0].update(extra=1), "has no field 'extra'"),
        (lambda d: d["columns"][0]["parts"][0].update(scale=0), "scale of column .* from 2.3e-308 to"),
        (lambda d: d["columns"][0]["parts"][0].update(scale=math.nan), "must be JSON: NaN"),
        (lambda d: d["columns"].append(d["columns"][0]), "names a column twice"),
        (lambda d: d["target"].update(task="magic"), "task of the table spec must be one of classification"),
        (lambda d: d["target"].update(scale=[]), "center and a scale per column"),
        (lambda d: d["target"].update(forms=["plain", "plain"]), "needs a form per column, or none"),
        (lambda d: d["target"].update(task="classification"), "needs classes, and each of them once"),
        (lambda d: d["target"].update(task="multilabel", classes=["a", "a"]), "needs classes, and each of them once"),
        (lambda d: d["target"].update(task="binary", classes=["a", "b", "c"]), "needs 2 classes, not 3"),
        (lambda d: d["columns"][0]["parts"][0].update(center=10**400), "0.center must be a whole number from"),
        (lambda d: d.update(marks="NA"), "marks of the table spec must be a list"),
    ],
)
def test_json_from_anywhere_is_checked(spec: TableSpec, change: Any, message: str, tmp_path: Path) -> None:
    document = json.loads(spec.to_json())
    change(document)
    with pytest.raises(ArgumentError, match=message):
        TableSpec.from_json(json.dumps(document))
    (tmp_path / "s.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"s\.json: "):
        TableSpec.load(tmp_path / "s.json")


def test_no_json_at_all() -> None:
    with pytest.raises(ArgumentError, match="must be JSON"):
        TableSpec.from_json("{")
    with pytest.raises(ArgumentError, match="the table spec must be an object"):
        TableSpec.from_json("[]")
    with pytest.raises(ArgumentError, match="must be JSON"):
        TableSpec.from_json("[" * 100_000)
