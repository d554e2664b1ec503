"""Forms that tables really have: each is read right, or refused with the cell, the cause and the way named."""

from __future__ import annotations

import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from dlkit.datasets import CSVDataset
from dlkit.errors import ArgumentError, DataError

both = pytest.mark.parametrize("streaming", [False, True], ids=["memory", "streaming"])


@pytest.fixture(scope="module")
def cases() -> Path:
    folder = Path(__file__).resolve().parents[2].parent / "shared" / "cases"
    if not folder.is_dir():
        pytest.skip(f"the small inputs that were read wrong are not at {folder}")
    return folder


def numbers(data: CSVDataset, name: str) -> np.ndarray:
    """A number's values in the file's own units, row by row."""
    samples = [sample[0] if isinstance(sample, tuple) else sample for sample in data]
    rows = torch.stack([inputs["numeric"] if isinstance(inputs, dict) else inputs for inputs in samples])
    return rows[:, data.spec.numeric_features.index(name)].numpy()


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def amounts(odd: dict[int, str], form: str = "{}", rows: int = 100) -> str:
    lines = [f"{odd.get(i) or form.format(i / 4)},{'big' if i > 50 else 'small'}\n" for i in range(rows)]
    return "amount,label\n" + "".join(lines)


# --- numbers ----------------------------------------------------------------------------------------------------------


@both
def test_a_comma_before_three_digits_is_decimal_where_nobody_would_group(cases, streaming):
    data = CSVDataset(cases / "decimal_comma_three_places.csv", streaming=streaming, scale="none")
    expected = pd.read_csv(cases / "decimal_comma_three_places.csv", sep=";", decimal=",")["weight"]
    assert sorted(numbers(data, "weight")) == pytest.approx(sorted(expected))
    assert expected.max() < 20


@pytest.mark.parametrize("texts", [["1,234", "12,345"], ["1,234.5", "2"], ["12", "1,000,000"]])
def test_grouped_thousands_still_are(tmp_path, texts):
    lines = "".join(f'"{text}",{i % 2}\n' for i, text in enumerate(texts * 12))
    data = CSVDataset(write(tmp_path / "t.csv", "x,y\n" + lines), target="y", scale="none")
    assert numbers(data, "x").tolist() == [float(text.replace(",", "")) for text in texts * 12]


@both
@pytest.mark.parametrize("form", ["€{}", "{} €", "${}", "₩{}", "{}%", "{} %", "£ {}"])
def test_a_sign_at_every_number_is_part_of_how_it_is_written(tmp_path, form, streaming):
    path = write(tmp_path / "t.csv", amounts({}, form))
    data = CSVDataset(path, target="label", scale="none", streaming=streaming)
    assert sorted(numbers(data, "amount")) == [i / 4 for i in range(100)]
    again = type(data.spec).from_json(data.spec.to_json())
    assert sorted(numbers(CSVDataset(path, spec=again), "amount")) == [i / 4 for i in range(100)]


def test_a_sign_in_a_new_file_only_is_another_unit(tmp_path):
    train = CSVDataset(write(tmp_path / "a.csv", amounts({})), target="label")
    with pytest.raises(DataError, match=r"'amount' of b\.csv is of another kind: .* a number there, .* '0\.0 %'"):
        CSVDataset(write(tmp_path / "b.csv", amounts({}, "{} %")), spec=train.spec)
    percent = CSVDataset(write(tmp_path / "c.csv", amounts({}, "{} %")), target="label")
    with pytest.raises(DataError, match="amount"):
        CSVDataset(write(tmp_path / "d.csv", amounts({1: "x"}, "{}").replace("x", "0.5 $")), spec=percent.spec)


@both
@pytest.mark.parametrize("odd", ["unknown", "#DIV/0!", "12 kg", "1.2.3", "about 5", "€5"])
def test_a_few_odd_cells_among_numbers_are_named_and_never_make_the_column_go(tmp_path, odd, streaming):
    path = write(tmp_path / "t.csv", amounts({30: odd, 71: odd}))
    with pytest.raises(DataError) as caught:
        CSVDataset(path, target="label", streaming=streaming)
    message = str(caught.value)
    assert "line 32 of t.csv has no number in column 'amount' but " + repr(odd) in message
    assert all(way in message for way in ("missing=", "on_error='skip'", "categorical="))

    skipped = CSVDataset(path, target="label", streaming=streaming, on_error="skip", scale="none")
    assert [row.reason for row in skipped.skipped] == ["has no number in column 'amount'"] * 2
    right = [i / 4 for i in range(100) if i not in (30, 71)]
    assert sorted(numbers(skipped, "amount")) == right
    filled = CSVDataset(path, target="label", streaming=streaming, missing=[odd], scale="none")
    assert filled.spec["amount"].missing == 2
    assert CSVDataset(path, target="label", streaming=streaming, categorical="amount").spec["amount"].kind == "category"


@pytest.mark.parametrize("name", ["unknown", "unit", "excel_error"])
def test_the_odd_cells_of_the_report_are_named(cases, name):
    with pytest.raises(DataError, match=r"line 52 of .* as have 1 more \(rows 170"):
        CSVDataset(cases / f"numbers_with_{name}.csv", target="label")


@pytest.mark.parametrize("name", ["percent", "euro"])
def test_the_signs_of_the_report_are_read(cases, name):
    data = CSVDataset(cases / f"numbers_with_{name}.csv", target="label", scale="none")
    assert data.spec["amount"].kind == "number"
    assert (numbers(data, "amount").min(), numbers(data, "amount").max()) == (0, 24.75)


def test_a_few_numbers_that_are_names_stay_names(tmp_path):
    lines = "".join(f"{['0', '1', '2', '3+'][i % 40 // 13]},{i % 2}\n" for i in range(200))
    data = CSVDataset(write(tmp_path / "t.csv", "dependents,y\n" + lines), target="y")
    assert set(data.spec["dependents"].vocabulary) == {"0", "1", "2", "3+"}


def test_a_target_of_numbers_with_odd_cells_is_a_regression_that_names_them(tmp_path):
    lines = "".join(f"{i % 7},{'?!' if i == 40 else i / 4}\n" for i in range(200))
    path = write(tmp_path / "t.csv", "x,y\n" + lines)
    with pytest.raises(DataError, match=r"line 42 of t\.csv has an unknown target 'y', '\?!'.*it must be a number"):
        CSVDataset(path, target="y")


@pytest.mark.parametrize("dtype", ["int64", "Int64", "uint64", "UInt64", "object"])
@pytest.mark.parametrize("gap", [False, True])
def test_identifiers_of_64_bits_stay_apart_in_frames(dtype, gap):
    ids = [(1 << 60) + number % 5 for number in range(60)]
    assert len({float(number) for number in ids}) == 1, "a float64 cannot tell them apart"
    if gap and dtype in ("int64", "uint64"):
        pytest.skip("has no missing values")
    frame = pd.DataFrame({"id": pd.Series([None, *ids[1:]] if gap else ids, dtype=dtype), "y": [0, 1] * 30})
    column = CSVDataset(frame, target="y", categorical="id").spec["id"]
    assert set(column.vocabulary) == {str(number) for number in ids}
    assert column.missing == int(gap)
    assert CSVDataset(frame, target="id", task="classification", on_error="skip").classes == sorted(map(str, set(ids)))


# --- dates ------------------------------------------------------------------------------------------------------------


@both
def test_dates_that_may_be_read_either_way_are_said_to_be_and_can_be_settled(cases, streaming):
    path = cases / "day_first_ambiguous.csv"
    with pytest.warns(UserWarning, match=r"may have the month or the day first.*dates=\{'when': '%d/%m/%Y'\}"):
        CSVDataset(path, target="y", streaming=streaming)
    for form in ("%d/%m/%Y", "%m/%d/%Y"):
        data = CSVDataset(path, target="y", dates={"when": form}, scale="none", streaming=streaming)
        expected = pd.to_datetime(pd.read_csv(path)["when"], format=form).dt.month
        assert sorted(numbers(data, "when month")) == sorted(expected)


def test_a_date_that_does_not_fit_is_the_mistake_of_its_row_alone(tmp_path):
    days = [f"{1 + i % 12:02}/{1 + i % 28:02}/2024" for i in range(60)]
    train = CSVDataset(write(tmp_path / "a.csv", "when,y\n" + "".join(f"{d},{i % 2}\n" for i, d in enumerate(days))),
                       target="y", dates={"when": "%m/%d/%Y"}, scale="none")  # fmt: skip
    few = ["05/06/2024", "31/12/2024", "02/03/2024"]
    path = write(tmp_path / "b.csv", "when,y\n" + "".join(f"{d},0\n" for d in few))
    with pytest.raises(DataError, match=r"line 3 of b\.csv has no date in column 'when' but '31/12/2024'"):
        CSVDataset(path, spec=train.spec)
    left = CSVDataset(path, spec=train.spec, on_error="skip")
    assert numbers(left, "when month").tolist() == [5, 2], "the other rows mean what they meant"
    turned = write(tmp_path / "c.csv", "when,y\n31/12/2024,0\n30/11/2024,1\n")
    with pytest.raises(DataError, match=r"'when' of c\.csv is of another kind"):
        CSVDataset(turned, spec=train.spec)
    iso = write(tmp_path / "d.csv", "when,y\n2024-12-31,0\n2024-11-30,1\n")
    assert numbers(CSVDataset(iso, spec=train.spec), "when month").tolist() == [12, 11]


@pytest.mark.parametrize(
    ("form", "first"),
    [("{y}. {m}. {d}.", "2016. 1. 1."), ("{s}. {m}. {d}.", "16. 1. 1."), ("{y}년 {m}월 {d}일", "2016년 1월 1일")],
)
def test_korean_dates_are_dates(tmp_path, form, first):
    texts = [form.format(y=2016, s=16, m=1 + i % 12, d=1 + i % 28) for i in range(60)]
    assert texts[0] == first
    data = CSVDataset(write(tmp_path / "t.csv", "when,y\n" + "".join(f"{t},{i % 2}\n" for i, t in enumerate(texts))),
                      target="y", scale="none")  # fmt: skip
    assert data.spec["when"].kind == "date"
    assert numbers(data, "when month").tolist() == [1 + i % 12 for i in range(60)]


@pytest.mark.parametrize("dates", [{"when": "day first"}, {"when": 3}])
def test_a_form_of_dates_that_is_none_is_refused(tmp_path, dates):
    with pytest.raises(ArgumentError, match=r"needs a strptime format such as '%d/%m/%Y'"):
        CSVDataset(write(tmp_path / "t.csv", "when,y\n1,2\n"), dates=dates)


# --- what stands above and beside the table ---------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("name", "columns"),
    [("sep_line.csv", ["a", "b"]), ("remarks_above.csv", ["a", "b"]), ("title_above.csv", ["field", "weight", "sort"])],
)
def test_lines_above_the_header_are_passed_over(cases, name, columns, streaming):
    data = CSVDataset(cases / name, streaming=streaming, numeric=[n for n in columns if n in "ab"])
    assert [column.name for column in data.spec.columns] == columns


def test_a_line_after_a_number_sign_may_be_the_header(tmp_path):
    rows = "".join(f"{i / 7},{i % 3}\n" for i in range(30))
    data = CSVDataset(write(tmp_path / "t.csv", "# made by a probe\n#size,kind\n" + rows), target="kind")
    assert [column.name for column in data.spec.columns] == ["#size"]
    assert len(data) == 30


def test_errors_below_remarks_name_the_line_of_the_file(tmp_path):
    path = write(tmp_path / "t.csv", "# one\n# two\nx,y\n1,2\n1,2,3\n")
    with pytest.raises(DataError, match=r"line 5 of t\.csv has 3 cells where the header has 2"):
        CSVDataset(path)


def test_a_row_with_gaps_below_a_header_with_gaps_is_no_title(tmp_path):
    path = write(tmp_path / "t.csv", "x,,\n1.5,,\n2.5,a,b\n" + "3.5,c,d\n" * 20)
    assert [c.name for c in CSVDataset(path).spec.columns] == ["x", "Unnamed: 1", "Unnamed: 2"]


@both
def test_a_first_column_without_a_name_is_no_feature(tmp_path, streaming):
    order = np.random.default_rng(0).permutation(1000)[:60]
    frame = pd.DataFrame({"len": np.arange(60) / 7, "sort": list("ab") * 30}, index=order)
    frame.to_csv(tmp_path / "t.csv")
    spec = CSVDataset(tmp_path / "t.csv", target="sort", streaming=streaming).spec
    assert spec.numeric_features == ["len"]
    assert "row names" in spec["Unnamed: 0"].why
    named = CSVDataset(tmp_path / "t.csv", target="sort", numeric="Unnamed: 0", streaming=streaming).spec
    assert named.numeric_features == ["Unnamed: 0", "len"]


def test_columns_by_blanks_name_the_way(cases):
    with pytest.raises(ArgumentError, match=r"are separated by whitespace: .*pandas\.read_csv"):
        CSVDataset(cases / "blanks_between.txt", target="label")


# --- classes ----------------------------------------------------------------------------------------------------------


def test_a_class_called_na_names_the_way(cases):
    with pytest.raises(DataError, match=r"has no target 'region'.*missing=\[\] keeps it"):
        CSVDataset(cases / "class_called_NA.csv", target="region", numeric="size")
    data = CSVDataset(cases / "class_called_NA.csv", target="region", numeric="size", missing=[])
    assert sorted(data.classes) == sorted(
        pd.read_csv(cases / "class_called_NA.csv", keep_default_na=False).region.unique()
    )


@both
def test_one_name_in_two_spellings_is_one_class_and_one_category(cases, tmp_path, streaming):
    path = cases / "one_name_two_spellings.csv"
    assert len(pd.read_csv(path).label.unique()) > 2
    data = CSVDataset(path, target="label", numeric="size", streaming=streaming)
    assert data.classes == ["cat", unicodedata.normalize("NFC", "강아지")]
    turned = CSVDataset(path, numeric="size", streaming=streaming).spec["label"]
    assert set(turned.vocabulary) == set(data.classes)


def test_nothing_here_warns_but_what_says_so(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CSVDataset(write(tmp_path / "t.csv", amounts({})), target="label")
