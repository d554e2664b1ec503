"""What a caller may say about how a table is read, and what the spec and the model file remember of it."""

from __future__ import annotations

import warnings
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import dlkit
from dlkit.datasets import CSVDataset, ImageTable
from dlkit.errors import ArgumentError, DataError
from dlkit.models import TabularMLP

both = pytest.mark.parametrize("streaming", [False, True], ids=["memory", "streaming"])
IRIS = "".join(f"5.{i % 9},3.{i % 7},{('setosa', 'virginica')[i % 2]}\n" for i in range(40))


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def column(data: CSVDataset, name: str) -> list[float]:
    """A number's values in the file's own units."""
    samples = [sample[0] if isinstance(sample, tuple) else sample for sample in data]
    rows = torch.stack([inputs["numeric"] if isinstance(inputs, dict) else inputs for inputs in samples])
    return rows[:, data.spec.numeric_features.index(name)].tolist()


# --- header -----------------------------------------------------------------------------------------------------------


@both
def test_a_file_without_a_header_is_found_and_said(tmp_path, streaming):
    path = write(tmp_path / "iris.data", IRIS)
    with pytest.warns(UserWarning, match=r"iris\.data seems to have no header row: its first row 5\.0, 3\.0, setosa"):
        data = CSVDataset(path, target="2", streaming=streaming)
    assert (len(data), data.classes) == (40, ["setosa", "virginica"])
    assert data.spec.header == ("0", "1", "2")
    assert "no header row" in data.notes[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        said = CSVDataset(path, target="2", header=False, streaming=streaming)
        named = CSVDataset(path, target="kind", header=["a", "b", "kind"], streaming=streaming)
    assert said.spec == data.spec
    assert (len(named), named.spec.numeric_features) == (40, ["a", "b"])
    with pytest.raises(DataError, match=r"line 1 of iris\.data has 3 cells where there are names for 2"):
        CSVDataset(path, header=["a", "b"], streaming=streaming)


@pytest.mark.parametrize(
    "text",
    [
        "country,2010,2011,2012\nKorea,1,2,3\nJapan,2,3,4\nPeru,5,6,7\n",
        "0,1,2\n0.5,1,2\n0.25,2,2\n1.5,3,1\n",
        "age,sex\n30,m\n31,f\n32,m\n",
        "name,city\nKim,Seoul\nLee,Busan\nPark,Seoul\n",
        "when,what\n2020-01-01,a\n2020-01-02,b\n",
        "text\nhello\nhello\n",
        "a,b\n1,2\n",
    ],
)
def test_a_header_is_not_taken_for_a_row(tmp_path, text):
    path = write(tmp_path / "t.csv", text)
    assert not CSVDataset(path, categorical=text.split("\n")[0].split(",")).spec.header


@pytest.mark.parametrize(
    "text",
    [
        "1001,Kim,M\n1002,Lee,F\n1003,Park,M\n",
        '3,"Wall St. bears","Reuters"\n3,"Carlyle looks"," again"\n4,"Oil and economy","x"\n',
        "p,x,s\ne,x,y\np,b,s\ne,b,y\np,x,y\ne,x,s\n",
        "2020-01-01,1\n2020-01-02,2\n2020-01-03,1\n",
        f"ham,{'Go until jurong point, ' * 4}\nspam,win\nham,ok\n".replace("point, ", "point "),
        "5,0,0,0,12\n0,0,3,0,1\n4,0,0,9,2\n5,0,0,9,3\n",
    ],
)
def test_a_row_is_not_taken_for_a_header(tmp_path, text):
    width = len(text.split("\n")[1].split(","))
    with pytest.warns(UserWarning, match="seems to have no header row"):
        data = CSVDataset(write(tmp_path / "t.csv", text), categorical=[str(i) for i in range(width)])
    assert len(data) == text.count("\n")
    assert len(CSVDataset(tmp_path / "t.csv", header=True, drop=[])) == text.count("\n") - 1


def test_new_data_without_a_header_is_read_as_the_training_data_was(tmp_path):
    first = "".join(f"{'ab'[i % 2]},5.{i % 9},3.{i % 7}\n" for i in range(40))  # the target comes first
    train = CSVDataset(write(tmp_path / "train.csv", first), target="0", header=False)
    model = TabularMLP(train.spec)
    dlkit.save(model, tmp_path / "m.safetensors", preprocessing=train.spec, task="classification")
    predictor = dlkit.load(tmp_path / "m.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = predictor.predict(write(tmp_path / "new.csv", first))
        alone = predictor.predict(write(tmp_path / "inputs.csv", "".join(line[2:] + "\n" for line in first.split())))
        frame = predictor.predict(pd.DataFrame({"1": [5.0], "2": [3.0]}))
    assert len(whole) == 40
    assert whole.equals(alone)
    assert frame.iloc[0, 0] == whole.iloc[0, 0]


# --- columns, lines ---------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("columns", [["x", "y"], [0, "y"], ["0", 2]])
def test_only_the_asked_columns_are_read(tmp_path, columns, streaming):
    path = write(tmp_path / "t.csv", "x,secret,y\n" + "".join(f"{i},s{i},{'ab'[i % 2]}\n" for i in range(30)))
    data = CSVDataset(path, target="y", columns=columns, numeric="x", streaming=streaming)
    assert [column.name for column in data.spec.columns] == ["x"]
    pd.read_csv(path).to_parquet(tmp_path / "t.parquet")
    assert CSVDataset(tmp_path / "t.parquet", target="y", columns=columns, numeric="x").spec == data.spec
    assert CSVDataset(pd.read_csv(path), target="y", columns=columns, numeric="x").spec == data.spec
    with pytest.raises(DataError, match="has no column 'z'; its columns are 'x', 'secret', 'y'"):
        CSVDataset(path, columns=["z"], streaming=streaming)


def test_lines_are_skipped_in_front_of_a_byte_order_mark_too(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("title\nx,y\n1,a\n3,b\n", "utf-8-sig")
    assert column(CSVDataset(path, skip_rows=1, scale="none", numeric="x", categorical="y"), "x") == [1, 3]


@both
def test_lines_above_the_table_and_remarks_in_it_are_no_rows(tmp_path, streaming):
    text = 'made by, a machine,1\n"odd\nx,y\n1,a\n%2,b\n3,"two\n% lines"\n% the end'
    path = write(tmp_path / "t.csv", text)
    options = {"skip_rows": 2, "comment": "%", "numeric": "x", "categorical": "y", "scale": "none"}
    data = CSVDataset(path, streaming=streaming, **options)
    assert column(data, "x") == [1, 3]
    assert data.spec["y"].vocabulary == ("a", "two\n% lines")
    broken = write(tmp_path / "t.csv", text.replace("1,a", "1,a\n7"))
    with pytest.raises(DataError, match=r"line 5 of t\.csv has 1 cells"):
        CSVDataset(broken, streaming=streaming, **options)


# --- decimal marks ----------------------------------------------------------------------------------------------------


def priced(first: str, second: str) -> str:
    return "a;b;y\n" + "".join(f"{first};{second};{i % 2}\n" for i in range(6))


@both
def test_one_column_tells_the_decimal_mark_of_all(tmp_path, streaming):
    options = {"target": "y", "scale": "none", "streaming": streaming, "numeric": ["a", "b"]}
    path = write(tmp_path / "t.csv", "a;b;y\n" + "".join(f"{i},5;1.23{i};{i % 2}\n" for i in range(6)))
    data = CSVDataset(path, **options)
    assert column(data, "a") == [i + 0.5 for i in range(6)]
    assert column(data, "b") == [1230 + i for i in range(6)]
    new = write(tmp_path / "new.csv", "a;b\n7;1.234\n")  # which leaves it open
    assert column(CSVDataset(new, spec=type(data.spec).from_json(data.spec.to_json())), "b") == [1234]
    english = write(tmp_path / "english.csv", "a,b\n7.5,1.234\n")  # which does not
    assert column(CSVDataset(english, spec=data.spec), "b") == pytest.approx([1.234])


@both
def test_two_decimal_marks_are_an_error_that_names_both_cells(tmp_path, streaming):
    path = write(tmp_path / "t.csv", priced("0,5", "1.5") + "7,5;3.5;1\n")
    with pytest.raises(DataError, match=r"two decimal marks: '0,5' in column 'a' contradicts '1\.5' in column 'b'"):
        CSVDataset(path, target="y", streaming=streaming)
    for way in ({"categorical": "b"}, {"drop": "b"}, {"columns": ["a", "y"]}):
        assert CSVDataset(path, target="y", streaming=streaming, **way)
    late = write(tmp_path / "t.csv", "a;b;y\n" + "1;1.5;0\n" * 2000 + "0,5;1.5;1\n" * 3)
    with pytest.raises(DataError, match=r"'0,5' in column 'a'"):
        CSVDataset(late, target="y", streaming=streaming)
    with pytest.raises(DataError, match=r"'1\.5' in column 'b' contradicts decimal=','"):
        CSVDataset(path, target="y", streaming=streaming, decimal=",")
    one, other = write(tmp_path / "one.csv", "a;b\n0,5;1\n2,5;2\n"), write(tmp_path / "other.csv", "a;b\n0.5;1\n")
    with pytest.raises(DataError, match=r"other\.csv: two decimal marks: '0\.5' in column 'a' contradicts '0,5'"):
        CSVDataset([one, other], streaming=streaming)


@both
@pytest.mark.parametrize(
    ("said", "value"),
    [
        ({}, 1.234),
        ({"decimal": ","}, 1234),
        ({"thousands": "."}, 1234),
        ({"decimal": "."}, 1.234),
        ({"thousands": " "}, 1.234),
    ],
    ids=str,
)
def test_the_caller_can_say_the_decimal_mark(tmp_path, said, value, streaming):
    path = write(tmp_path / "t.csv", "a;y\n" + "1.234;0\n1.334;1\n" * 3)
    data = CSVDataset(path, target="y", scale="none", streaming=streaming, **said)
    assert column(data, "a")[0] == pytest.approx(value)


@pytest.mark.parametrize("form", ["frame", "parquet"])
def test_what_is_said_counts_for_texts_in_frames_too(tmp_path, form):
    frame = pd.DataFrame({"a": ["1.234", "1.334"] * 6, "y": [0, 1] * 6})
    frame.to_parquet(tmp_path / "t.parquet")
    source = frame if form == "frame" else tmp_path / "t.parquet"
    options = {"target": "y", "scale": "none"}
    assert column(CSVDataset(source, **options), "a")[0] == pytest.approx(1.234)
    assert column(CSVDataset(source, decimal=",", **options), "a")[0] == 1234
    if form == "parquet":
        assert column(CSVDataset(source, decimal=",", streaming=True, **options), "a")[0] == 1234
    with pytest.raises(DataError, match=r"'1,5' in column 'a' contradicts decimal='\.'"):
        CSVDataset(frame.assign(a=["1,5", "2,5"] * 6), decimal=".", **options)


@given(cells=st.lists(st.tuples(st.integers(-99999, 99999), st.booleans()), min_size=1, max_size=20))
def test_a_number_beside_texts_with_decimal_commas_is_that_number(cells):
    """1.234 beside "2,5" in a DataFrame was read as the text "1.234", a thousand."""
    numbers = [*(cell / 1000 for cell, _ in cells), 2.5, 0.75]
    texts = [*(text for _, text in cells), True, True]
    written = [f"{n:.3f}".replace(".", ",") if text else n for n, text in zip(numbers, texts, strict=True)]
    frame = pd.DataFrame({"a": pd.Series(written, dtype=object)})
    data = CSVDataset(frame, numeric="a", scale="none")
    assert column(data, "a") == pytest.approx(numbers)
    assert column(CSVDataset(frame, spec=data.spec), "a") == pytest.approx(numbers)


def test_numbers_of_a_sheet_have_a_point_whatever_was_trained_on(tmp_path):
    path = write(tmp_path / "t.csv", "a;y\n" + "".join(f"{i % 50},{i % 9 + 1}5;{i % 2}\n" for i in range(60)))
    train = CSVDataset(path, target="y", scale="none")
    pd.DataFrame({"a": [1.234, 2.345]}).to_excel(tmp_path / "t.xlsx", index=False)
    assert column(CSVDataset(tmp_path / "t.xlsx", spec=train.spec), "a") == pytest.approx([1.234, 2.345])
    with pytest.raises(ArgumentError, match=r"decimal=',' has no effect on .*numbers such as 1\.234"):
        CSVDataset(tmp_path / "t.xlsx", decimal=",")
    pd.DataFrame({"a": [1.234, "2,5"]}).to_excel(tmp_path / "t.xlsx", index=False)
    with pytest.raises(DataError, match="two decimal marks"):
        CSVDataset(tmp_path / "t.xlsx", numeric="a", scale="none")


@both
def test_exponents_behind_a_decimal_comma(tmp_path, streaming):
    path = write(tmp_path / "t.csv", "a;y\n" + "1,5e3;0\n2,5E-1;1\n,5;0\n" * 3)
    assert column(CSVDataset(path, target="y", scale="none", streaming=streaming), "a")[:3] == [1500, 0.25, 0.5]


def test_french_numbers(tmp_path):
    path = write(tmp_path / "t.csv", "a;y\n" + "1 234,5;0\n12\u202f345,25;1\n" * 3)
    assert column(CSVDataset(path, target="y", scale="none"), "a")[:2] == [1234.5, 12345.25]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"decimal": ";"}, "decimal must be"),
        ({"thousands": "_"}, "thousands must be"),
        ({"decimal": ",", "thousands": ","}, "cannot both be ','"),
        ({"skip_rows": -1}, "skip_rows must be"),
        ({"comment": ""}, "comment must be"),
        ({"header": "a"}, "header must be a list"),
        ({"encoding": "klingon"}, "encoding='klingon' is not an encoding"),
        ({"encoding": "klingon", "streaming": True}, "encoding='klingon' is not an encoding"),
        ({"columns": "a"}, "columns must be a list"),
        ({"separater": ";"}, "has no argument 'separater'; do you mean 'separator'"),
    ],
    ids=str,
)
def test_arguments_that_cannot_be_meant(tmp_path, wrong, words):
    with pytest.raises(ArgumentError, match=words):
        CSVDataset(write(tmp_path / "t.csv", priced("1", "2")), **wrong)


TEXT_ONLY = {
    "encoding": "cp949",
    "separator": ";",
    "header": False,
    "skip_rows": 1,
    "comment": "#",
    "sheet": "a",
    "decimal": ",",
    "thousands": ",",
}


@pytest.mark.parametrize("option", sorted(TEXT_ONLY))
@pytest.mark.parametrize("kind", ["frame", "parquet", "feather", "excel", "text"])
def test_what_has_no_effect_is_refused(tmp_path, kind, option):
    works = {
        "excel": {"header", "skip_rows", "comment", "sheet", "decimal", "thousands"},
        "text": set(TEXT_ONLY) - {"sheet"},
    }
    if option in works.get(kind, ()):
        return
    frame = pd.DataFrame({"a": [0.5, 1, 2] * 4, "y": [0, 1, 2] * 4})
    path = tmp_path / f"t.{kind}"
    writers = {"parquet": frame.to_parquet, "feather": frame.to_feather, "text": frame.to_csv}
    writers.get(kind, lambda path: frame.to_excel(path, engine="openpyxl") if kind == "excel" else None)(
        path if kind != "excel" else (path := tmp_path / "t.xlsx")
    )
    for streaming in (False, True) if kind != "frame" else (False,):
        with pytest.raises(ArgumentError, match=rf"{option}=.* has no effect on .*"):
            CSVDataset(
                frame if kind == "frame" else path, target="y", streaming=streaming, **{option: TEXT_ONLY[option]}
            )


def test_a_schema_without_header_reads_frames(tmp_path):
    """Its header counts for files of text, and must not be taken for what the caller says of a DataFrame."""
    path = write(tmp_path / "t.csv", "".join(f"{i}.5,{i % 3}\n" for i in range(12)))
    data = CSVDataset(path, target="y", header=["a", "y"])
    assert len(CSVDataset(pd.DataFrame({"a": [1.5], "y": [0]}), spec=data.spec)) == 1
    assert len(CSVDataset(path, spec=data.spec)) == 12


@both
@pytest.mark.parametrize(("sign", "meant"), [("\x0b", ""), ("\x0c", ""), ("\x96", " (in cp1252 '–')")])
def test_rare_control_characters_are_said(tmp_path, sign, meant, streaming):
    path = write(tmp_path / "t.csv", "a,b\n" + "".join(f"{i}.5,n{i % 3}{sign if i == 7 else ''}\n" for i in range(40)))
    with pytest.warns(UserWarning, match=r"t\.csv: line 9 holds the control character .*, read as it stands"):
        data = CSVDataset(path, streaming=streaming)
    assert len(data) == 40
    assert f"line 9 holds the control character {sign!r}{meant}, read as it stands" in repr(data)


# --- control characters -----------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("sign", ["\x00", "\x1b[31m", "\x08", "\x7f"], ids=repr)
def test_control_characters_refuse_with_place_and_way(tmp_path, sign, streaming):
    rows = [f"{i},n{i % 3},{i % 2}\n" for i in range(40)]
    rows[7] = f"7,n{sign},1\n"
    path = write(tmp_path / "t.csv", "a,b,y\n" + "".join(rows))
    with pytest.raises(DataError, match=r"line 9 of t\.csv holds the control character .*on_error='skip'"):
        CSVDataset(path, target="y", streaming=streaming)
    data = CSVDataset(path, target="y", streaming=streaming, on_error="skip", numeric="a")
    assert (len(data), [row.row for row in data.skipped]) == (39, [9])
    with pytest.raises(DataError, match="its first row holds the control character"):
        CSVDataset(write(tmp_path / "t.csv", f"a{sign},y\n1,0\n2,1\n"), target="y", streaming=streaming)


# --- image tables -----------------------------------------------------------------------------------------------------


def test_image_tables_take_the_same_arguments(tmp_path):
    for name in "abc":
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    path = write(tmp_path / "t.csv", "made today\na.png;0,5;x\n%b.png;9;x\nb.png;1.250;x\nc.png;2,25;x\n")
    options = {"skip_rows": 1, "comment": "%", "decimal": ",", "separator": ";", "columns": [0, 1]}
    data = ImageTable(path, "0", "1", header=False, size=8, scale_target=False, **options)
    assert [float(data[i][1]) for i in range(3)] == [0.5, 1250, 2.25]
    with pytest.raises(ArgumentError, match="ImageTable has no argument 'names'"):
        ImageTable(path, names=["a"])
