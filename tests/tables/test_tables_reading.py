"""Files as they are: encodings, separators, quotes, archives, ragged rows; and both readers give the same."""

from __future__ import annotations

import bz2
import csv
import functools
import gzip
import http.server
import io
import json
import lzma
import threading
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlkit._encodings import detect_encoding
from dlkit.datasets import CSVDataset
from dlkit.errors import ArgumentError, DataError, DataNotFoundError, TooManyErrorsError
from dlkit.reading._delimited import Dialect, audit_quotes, find_dialect
from dlkit.reading._text_rows import cell_by_cell, through_arrow
from dlkit.reading.cells import Cells, Dates, Numbers, Skipped, Strings, Table
from dlkit.reading.policy import ReadOptions
from dlkit.reading.reader import read_table

PLAIN = "a,b\n1,x\n2,y\n"


def text_table(source: Any, names: list[str], **options: Any) -> list[dict[str, str | None]]:
    table = read_table(source, ReadOptions(**options), as_text=names)
    return [
        dict(zip(table.columns, row, strict=True)) for row in zip(*map(listed, table.columns.values()), strict=True)
    ]


def listed(cells: Cells) -> list[Any]:
    return cells.tolist() if isinstance(cells, Strings) else cells.values.tolist()


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def notes(table: Table) -> str:
    return " ".join(table.notes)


@pytest.mark.parametrize(
    "name",
    [
        "comma_in_quotes",
        "empty",
        "empty_crlf",
        "escaped_quotes",
        "json",
        "newlines",
        "newlines_crlf",
        "quotes_and_newlines",
        "simple",
        "simple_crlf",
        "utf8",
    ],
)
def test_csv_spectrum(shared_data: Path, tmp_path: Path, name: str) -> None:
    folder = shared_data / "nasty" / "csv" / "csv-spectrum"
    expected = json.loads((folder / "json" / f"{name}.json").read_bytes())
    data = (folder / "csvs" / f"{name}.csv").read_bytes()
    if name.endswith("_crlf"):  # the stored copies have lost the line ends that they are named after
        data = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    assert text_table(write(tmp_path / f"{name}.csv", data), list(expected[0])) == expected


def test_real_files(shared_data: Path) -> None:
    folder = shared_data / "csv"
    shapes = {"titanic.csv": (891, 15), "penguins.csv": (344, 7), "adult.data": (32561, 15), "adult.test": (16281, 15)}
    for name, (rows, columns) in shapes.items():
        table = read_table(folder / name, ReadOptions())
        assert (len(table), len(table.columns)) == (rows, columns)
    titanic = read_table(folder / "titanic.csv", ReadOptions())
    assert titanic.columns["age"].missing().sum() == 177  # type: ignore[union-attr]
    reviews = read_table(folder / "reviews_cp949.csv", ReadOptions())
    assert list(reviews.columns) == ["번호", "리뷰", "감성"]
    assert len(reviews) == 1000
    assert "cp949" in notes(reviews)


def test_stray_quotes_make_a_file_whose_quotes_are_plain(shared_data: Path) -> None:
    path = shared_data / "text" / "SMSSpamCollection"
    with pytest.warns(UserWarning, match=r"line 20 holds the control character '\\x92' \(in cp1252 '’'\)"):
        table = read_table(path, ReadOptions(header=("label", "text"), on_error="skip"))
    assert (len(table), len(table.skipped)) == (5574, 1)
    assert "ordinary" in notes(table)
    texts = listed(table.columns["text"])
    assert any(text.startswith('"') and text.count('"') == 1 for text in texts if text)
    with (
        pytest.warns(UserWarning, match="line 20 holds the control character"),
        pytest.raises(DataError, match="line 6 of SMSSpamCollection has 1 cells where there are names for 2"),
    ):
        read_table(path, ReadOptions(header=("label", "text")))


@pytest.mark.parametrize(
    ("codec", "said", "text"),
    [
        ("utf-8", "utf-8", "name,wert\nÄpfel,1\nΩß,2\n"),
        ("utf-8-sig", "utf-8-sig", "name,wert\nÄpfel,1\n가,2\n"),
        ("utf-16", "utf-16", "name,wert\nÄpfel,1\n가,2\n"),
        ("utf-16-le", "utf-16-le", "name,wert\nApfel,1\nBirne,2\n"),
        ("utf-16-be", "utf-16-be", "name,wert\nApfel,1\nBirne,2\n"),
        ("utf-32", "utf-32", "name,wert\nÄpfel,1\n가,2\n"),
        ("cp949", "cp949", "name,wert\n가나다라,1\n뷁,2\n"),
        ("euc-kr", "cp949", "name,wert\n안녕하세요,1\n하늘,2\n"),
        ("shift_jis", "cp932", "name,wert\nひらがなとカナ,1\n漢字,2\n"),
        ("euc_jp", "euc_jp", "name,wert\nひらがなとカナ,1\n漢字,2\n"),
    ],
)
def test_encodings_are_found_and_said(tmp_path: Path, codec: str, said: str, text: str) -> None:
    path = write(tmp_path / "t.csv", text.encode(codec))
    table = read_table(path, ReadOptions())
    assert list(table.columns) == ["name", "wert"]
    assert listed(table.columns["name"]) == [line.split(",")[0] for line in text.splitlines()[1:]]
    assert listed(table.columns["wert"]) == [1, 2]
    assert said in notes(table)
    assert listed(read_table(path, ReadOptions(encoding=codec)).columns["name"]) == listed(table.columns["name"])


def test_a_damaged_byte_in_utf8_is_named_and_not_read_as_another_encoding(tmp_path: Path) -> None:
    good = "".join(f"가나다{i},1\n" for i in range(100)).encode()
    path = write(tmp_path / "t.csv", b"name,x\n" + good + b"\xff,1\n")
    with pytest.raises(DataError, match=r"t\.csv is UTF-8 but for some damaged bytes, the first in line 102"):
        read_table(path, ReadOptions())
    with pytest.raises(DataError, match=r"line 102: byte 0xff is not utf-8"):
        read_table(path, ReadOptions(encoding="utf-8"))
    with pytest.warns(UserWarning, match=r"line 2 holds the control character '\\x80' \(in cp1252 '€'\)"):
        assert len(read_table(path, ReadOptions(encoding="latin-1"))) == 101


def test_a_wrong_or_unknown_encoding_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", PLAIN)
    with pytest.raises(ArgumentError, match="encoding='klingon'"):
        read_table(path, ReadOptions(encoding="klingon"))
    with pytest.raises(DataError, match="is not utf-16"):
        read_table(write(tmp_path / "odd.csv", "a,b\n1,22\n"), ReadOptions(encoding="utf-16"))
    with pytest.raises(DataError, match="zero bytes"):
        detect_encoding(b"a,b\n\xff\x00\xfe,1\n", "x")


@pytest.mark.parametrize(("separator", "said"), [(",", "','"), (";", "';'"), ("\t", "tab"), ("|", r"'\|'")])
def test_separators_are_found_and_said(tmp_path: Path, separator: str, said: str) -> None:
    rows = [["name", "value", "note"], ["a", "1,5", "x, y; z"], ["b", "2,25", 'say "hi"'], ["c", "3", "-"]]
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=separator).writerows(rows)
    table = read_table(write(tmp_path / "t.csv", text.getvalue()), ReadOptions(), as_text=["value"])
    assert list(table.columns) == rows[0]
    assert [list(row) for row in zip(*map(listed, table.columns.values()), strict=True)] == rows[1:]
    assert pd.Series(table.notes).str.contains(said).all()


def test_one_column_has_no_separator(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "review\nGood, very good\nBad; and long, and bad\n")
    assert text_table(path, ["review"]) == [{"review": "Good, very good"}, {"review": "Bad; and long, and bad"}]


def test_rows_without_a_fitting_header_are_no_column_of_sentences(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "title\n" + "1,2\n" * 20)
    with pytest.raises(DataError, match=r"line 2 of t\.csv has 2 cells where the header has 1, and 19 more"):
        read_table(path, ReadOptions())


def test_rows_that_all_differ_from_the_header_are_ragged(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "a,b,c\n1,x,no,\n2,y,yes,\n")
    with pytest.raises(DataError, match=r"line 2 of t\.csv has 4 cells where the header has 3, and 1 more such rows"):
        read_table(path, ReadOptions())


def test_archives(tmp_path: Path) -> None:
    packed = {"t.csv.gz": gzip.compress, "t.csv.bz2": bz2.compress, "t.csv.xz": lzma.compress}
    for name, compress in packed.items():
        assert text_table(write(tmp_path / name, compress(PLAIN.encode())), ["a"])[0] == {"a": "1", "b": "x"}
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("folder/t.csv", PLAIN)
        archive.writestr("__MACOSX/folder/._t.csv", "litter")
    assert len(read_table(tmp_path / "t.zip", ReadOptions())) == 2
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("one.csv", PLAIN)
        archive.writestr("two.csv", PLAIN)
    with zipfile.ZipFile(tmp_path / "book.xlsx", "w") as archive:
        archive.writestr("[Content_Types].xml", "")
        archive.writestr("xl/workbook.xml", "")
    with pytest.raises(DataError, match=r"book\.xlsx is a damaged Excel workbook"):
        read_table(tmp_path / "book.xlsx", ReadOptions())
    with pytest.raises(DataError, match=r"two\.zip holds 2 files, not one: one\.csv, two\.csv"):
        read_table(tmp_path / "two.zip", ReadOptions())
    broken = write(tmp_path / "broken.csv.gz", gzip.compress(PLAIN.encode() * 100)[:-12])
    with pytest.raises(DataError, match=r"broken\.csv\.gz cannot be unpacked"):
        read_table(broken, ReadOptions())


def test_an_archive_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlkit.reading._bytes._ALWAYS_ALLOWED", 1 << 20)
    bomb = write(tmp_path / "bomb.csv.bz2", bz2.compress(b"0" * (100 << 20)))
    with pytest.raises(DataError, match=r"bomb\.csv\.bz2 .* unpacks to more than .* bytes, which is not a table"):
        read_table(bomb, ReadOptions())


def test_parquet(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "i": [1, 2, 3],
            "gaps": pd.array([1, None, 3], dtype="Int64"),
            "s": ["x", None, "z"],
            "c": pd.Categorical(["u", "v", "u"]),
            "b": pd.array([True, None, False], dtype="boolean"),
            "t": pd.to_datetime(["2020-01-01", None, "2020-01-03"]).tz_localize("Asia/Seoul"),
            "big": [2**60, 2**60 + 1, 2**60 + 2],
        }
    )
    frame.to_parquet(tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet", ReadOptions())
    assert listed(table.columns["i"]) == [1, 2, 3]
    assert table.columns["gaps"].missing().tolist() == [False, True, False]  # type: ignore[union-attr]
    assert listed(table.columns["s"]) == ["x", None, "z"]
    assert listed(table.columns["c"]) == ["u", "v", "u"]
    assert listed(table.columns["b"]) == ["True", None, "False"]
    assert str(table.columns["t"].values[0]).startswith("2019-12-31T15:00")  # type: ignore[union-attr]
    assert listed(table.columns["big"]) == [2**60, 2**60 + 1, 2**60 + 2]
    assert [listed(cells) for cells in read_table(frame, ReadOptions()).columns.values()][:3] == [
        listed(table.columns[name]) if name != "gaps" else pytest.approx([1, np.nan, 3], nan_ok=True)
        for name in ("i", "gaps", "s")
    ]
    pd.DataFrame({"l": [[1], [2]]}).to_parquet(tmp_path / "lists.parquet")
    with pytest.raises(DataError, match=r"column 'l' of lists\.parquet holds list"):
        read_table(tmp_path / "lists.parquet", ReadOptions())
    write(tmp_path / "cut.parquet", (tmp_path / "t.parquet").read_bytes()[:200])
    with pytest.raises(DataError, match=r"cut\.parquet is a damaged Parquet file"):
        read_table(tmp_path / "cut.parquet", ReadOptions())


def test_a_url_is_fetched_once(tmp_path: Path) -> None:
    write(tmp_path / "data set.csv", PLAIN)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/data%20set.csv?v=1"
        try:
            assert len(read_table(url, ReadOptions())) == 2
        finally:
            server.shutdown()
            thread.join()
    again = read_table(url, ReadOptions())
    assert (len(again), again.origin) == (2, "data set.csv")


def test_several_files_are_one_table(tmp_path: Path) -> None:
    first = write(tmp_path / "1.csv", "a,b,when,gap\n1,x,2020-01-01,\n2,y,2020-01-02,\n")
    second = write(tmp_path / "2.csv", "gap,when,b,a\nz,2020-01-03,10,3.5\n")
    table = read_table([first, str(second)], ReadOptions())
    assert listed(table.columns["a"]) == [1, 2, 3.5]
    assert listed(table.columns["b"]) == ["x", "y", "10"]
    assert listed(table.columns["gap"]) == [None, None, "z"]
    assert isinstance(table.columns["when"], Dates)
    assert [str(table.places(row)) for row in (0, 1, 2)] == ["line 2 of 1.csv", "line 3 of 1.csv", "line 2 of 2.csv"]
    third = write(tmp_path / "3.csv", "a,b,when,c\n1,x,2020-01-01,9\n")
    with pytest.raises(DataError, match=r"3\.csv lacks 'gap' and has 'c' besides; the columns of 1\.csv"):
        read_table([first, third], ReadOptions())


def test_ragged_rows_are_an_error_with_file_and_line_or_skipped_and_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", 'a,b,c\n1,"two\nlines",3\n4,5\n6,7,8\n9,10,11,12\n')
    with pytest.raises(DataError, match=r"line 4 of t\.csv has 2 cells where the header has 3, and 1 more such rows"):
        read_table(path, ReadOptions())
    table = read_table(path, ReadOptions(on_error="skip"))
    assert [listed(cells) for cells in table.columns.values()] == [[1, 6], ["two\nlines", "7"], [3, 8]]
    assert table.skipped == [
        Skipped("t.csv", 4, "has 2 cells where the header has 3", "line"),
        Skipped("t.csv", 6, "has 4 cells where the header has 3", "line"),
    ]
    assert [str(table.places(row)) for row in (0, 1)] == ["line 2 of t.csv", "line 5 of t.csv"]


def test_skipping_ends_where_too_much_is_skipped(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "a,b\n" + "1,2\n" * 100 + "3\n" * 20)
    assert len(read_table(path, ReadOptions(on_error="skip", max_errors=0.2))) == 100
    with pytest.raises(TooManyErrorsError, match=r"20 of 120 rows cannot be read, more than max_errors=0\.1 allows"):
        read_table(path, ReadOptions(on_error="skip"))


def test_a_quote_that_is_never_closed_does_not_swallow_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", 'a,b\n1,"x, y"\n2,"never closed\n3,"z, z"\n4,"w, w"\n' + '5,"u, u"\n' * 30)
    with pytest.raises(DataError, match=r"line 3 of t\.csv has a broken quote"):
        read_table(path, ReadOptions())
    table = read_table(path, ReadOptions(on_error="skip"))
    assert listed(table.columns["a"])[:3] == [1, 3, 4]
    assert len(table) == 33


def test_quotes_after_blanks(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", 'a, b, c\n1, "x, y", 2\n3, "z", 4\n')
    assert text_table(path, ["b"]) == [{"a": 1, "b": "x, y", "c": 2}, {"a": 3, "b": "z", "c": 4}]


def test_column_names(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "\n\n a ,a,,나이,a.1,a,\n1,2,3,4,5,6,7\n")
    assert list(read_table(path, ReadOptions()).columns) == [
        "a",
        "a.2",
        "Unnamed: 2",
        "나이",
        "a.1",
        "a.3",
        "Unnamed: 6",
    ]
    frame = pd.DataFrame([[1, 2, 3]], columns=["x", "x", 7])
    assert list(read_table(frame, ReadOptions()).columns) == ["x", "x.1", "7"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends(tmp_path: Path, end: str) -> None:
    path = write(tmp_path / "t.csv", end.join(["a,b", "1,x", "", "2,y"]))
    assert text_table(path, ["b"]) == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]


def test_codes_with_leading_zeros_and_long_numbers_stay_text(tmp_path: Path) -> None:
    text = "zip,long,x,hex\n01234,12345678901234567890,1,0x1F\n99999,12345678901234567891,2,0x20\n"
    table = read_table(write(tmp_path / "t.csv", text), ReadOptions())
    assert listed(table.columns["zip"]) == ["01234", "99999"]
    assert listed(table.columns["long"]) == ["12345678901234567890", "12345678901234567891"]
    assert listed(table.columns["x"]) == [1, 2]
    assert listed(table.columns["hex"]) == ["0x1F", "0x20"]


def test_ones_and_trues_are_not_one_column_of_booleans(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "a,b\n1,true\ntrue,FALSE\n")
    assert [listed(cells) for cells in read_table(path, ReadOptions()).columns.values()] == [
        ["1", "true"],
        ["True", "False"],
    ]


def test_missing_marks_with_blanks(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "a, b\n1, ?\n -, 2\nNA, 3\n")
    table = read_table(path, ReadOptions())
    assert listed(table.columns["a"]) == pytest.approx([1, np.nan, np.nan], nan_ok=True)
    assert listed(table.columns["b"]) == pytest.approx([np.nan, 2, 3], nan_ok=True)
    assert listed(read_table(path, ReadOptions(missing=("?", "-"))).columns["a"]) == ["1", " -", "NA"]


def test_what_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"no file .*nothing\.csv \(looked for /"):
        read_table(tmp_path / "nothing.csv", ReadOptions())
    with pytest.raises(ArgumentError, match="is a folder"):
        read_table(tmp_path, ReadOptions())
    with pytest.raises(DataError, match=r"empty\.csv is empty"):
        read_table(write(tmp_path / "empty.csv", ""), ReadOptions())
    with pytest.raises(DataError, match="nothing but blank lines"):
        read_table(write(tmp_path / "blank.csv", "\n  \n"), ReadOptions())
    with pytest.raises(DataError, match="has a header with 2 columns but no rows"):
        read_table(write(tmp_path / "header.csv", "a,b\n"), ReadOptions())
    for source in (7, [], [1, 2], {"a": [1]}, b"a,b"):
        with pytest.raises(ArgumentError, match="source must be a path"):
            read_table(source, ReadOptions())
    with pytest.raises(ArgumentError, match="separator must be one character"):
        read_table(write(tmp_path / "t.csv", PLAIN), ReadOptions(separator="::"))
    for wrong in ({"on_error": "ignore"}, {"max_errors": 2}, {"missing": "NA"}):
        with pytest.raises(ArgumentError, match=next(iter(wrong))):
            ReadOptions(**wrong)  # type: ignore[arg-type]


def test_cells_of_frames() -> None:
    frame = pd.DataFrame(
        {
            "mixed": [1, "a", None],
            "numbers": pd.Series([1, 2.5, None], dtype=object),
            "flags": pd.Series([True, None, False], dtype=object),
            "span": pd.to_timedelta(["1 day", "2 days", None]),
        }
    )
    table = read_table(frame.set_axis(["r1", "r2", "r3"]), ReadOptions())
    assert listed(table.columns["mixed"]) == ["1", "a", None]
    assert listed(table.columns["numbers"]) == pytest.approx([1, 2.5, np.nan], nan_ok=True)
    assert listed(table.columns["flags"]) == ["True", None, "False"]
    assert listed(table.columns["span"])[:2] == [86400, 172800]
    assert str(table.places(1)) == "row 'r2' of the DataFrame"
    with pytest.raises(DataError, match="column 'x' of the DataFrame holds cells of type list"):
        read_table(pd.DataFrame({"x": [[1], 2]}), ReadOptions())


# --- both readers, whatever stands in the cells -----------------------------------------------------------------------

anything = st.text(
    st.one_of(st.sampled_from(",;\t|\"\n\r' 0a-.가é"), st.characters(blacklist_categories=("Cs", "Cc"))), max_size=8
)
usual = st.one_of(
    st.integers(-(10**12), 10**12).map(str),
    st.floats(allow_nan=False, allow_infinity=False, width=32).map(repr),
    st.sampled_from(
        ["", "?", "NA", "-", "true", "False", "x", "2020-01-01", "2021-02-28 10:30", "0x1F", "1e5", ".5", "5."]
    ),
)


@given(st.lists(st.lists(anything, min_size=2, max_size=2), min_size=1, max_size=12), st.sampled_from(",;\t|"))
def test_any_cells_survive_both_readers(rows: list[list[str]], separator: str) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=separator).writerows([["first", "second"], *rows])
    data = text.getvalue().encode()
    dialect = find_dialect(data, "x", ReadOptions(separator=separator))
    assert audit_quotes(data, dialect).regular or any('"' in cell for row in rows for cell in row)
    exact = cell_by_cell(data, dialect, ReadOptions(), ["first", "second"], "x")
    assert rows_of(exact.columns) == rows
    fast = through_arrow(data, dialect, ReadOptions(), ["first", "second"], "x")
    assert fast is None or rows_of(fast.columns) == rows


@given(
    st.lists(st.lists(st.sampled_from(["1", "", "two\nlines", 'a "b"', "c,d"]), min_size=1, max_size=5), max_size=12),
    st.sampled_from(["\n", "\r\n"]),
    st.lists(st.integers(0, 12), max_size=3),
)
def test_rows_of_another_width_are_the_same_to_both_readers(rows: list[list[str]], end: str, blank: list[int]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=end)
    writer.writerow(["a", "b", "c"])
    for number, row in enumerate([["1", "y", "2"], *rows]):
        text.write(("  " + end if number % 2 else end) * (number in blank))
        writer.writerow(row)
    data = text.getvalue().encode()
    dialect = find_dialect(data, "x", ReadOptions(separator=",", header=True))
    fast = through_arrow(data, dialect, ReadOptions(), ["a", "b", "c"], "x", 1)
    exact = cell_by_cell(data, dialect, ReadOptions(), ["a", "b", "c"], "x", 1)
    if fast is None:
        return
    assert rows_of(fast.columns) == rows_of(exact.columns)
    assert (fast.bad, fast.bad_at) == (exact.bad, exact.bad_at)


@given(st.lists(st.lists(usual, min_size=3, max_size=3), min_size=1, max_size=10))
def test_both_readers_give_the_same_columns(rows: list[list[str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["a", "b", "c"], *rows])
    data = text.getvalue().encode()
    dialect = find_dialect(data, "x", ReadOptions(separator=","))
    fast = through_arrow(data, dialect, ReadOptions(), [], "x")
    exact = cell_by_cell(data, dialect, ReadOptions(), [], "x").columns
    assert fast is not None
    for name, cells in exact.items():
        other = fast.columns[name]
        assert type(cells) is type(other), (cells, other)
        if isinstance(cells, Strings) and isinstance(other, Strings):
            assert [boolean(cell) for cell in cells.tolist()] == [boolean(cell) for cell in other.tolist()]
        else:
            np.testing.assert_array_equal(cells.values, other.values)  # type: ignore[union-attr]


def boolean(cell: str | None) -> str | None:
    """Arrow gives truth values in one spelling and without missing marks."""
    stripped = (cell or "").strip()
    return (
        None
        if stripped in ("", "?", "NA", "-")
        else stripped.capitalize()
        if stripped.lower() in ("true", "false")
        else cell
    )


def rows_of(columns: dict[str, Cells]) -> list[list[Any]]:
    return [list(row) for row in zip(*map(listed, columns.values()), strict=True)]


@given(st.text(st.sampled_from('",\nab'), max_size=30))
def test_the_quote_audit_agrees_with_the_csv_module(body: str) -> None:
    data = ("x,y\n" + body).encode()
    audit = audit_quotes(data, Dialect(",", ("x", "y"), 4))
    if audit.regular:
        rows = list(csv.reader(io.StringIO(body, newline=""), strict=True))  # raises at a broken quote
        assert audit.multiline == any("\n" in cell for row in rows for cell in row)


@given(st.text(max_size=60), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_unicode_files_are_recognised(text: str, codec: str) -> None:
    text = "".join(character for character in text if not "\ud800" <= character <= "\udfff" and character != "\x00")
    data = ("name,x\n" + text).encode(codec)
    assert data.decode(detect_encoding(data, "x")).removeprefix("\ufeff") == ("name,x\n" + text).removeprefix("\ufeff")


def test_numbers_missing_and_dates_are_typed(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "i,f,d,t,n\n1,1.5,2020-01-01,10:30,\n2,,2020-01-02,11:30,\n")
    columns = read_table(path, ReadOptions()).columns
    assert [type(cells) for cells in columns.values()] == [Numbers, Numbers, Dates, Dates, Numbers]
    assert columns["i"].values.dtype == np.int64  # type: ignore[union-attr]
    assert columns["n"].missing().all()  # type: ignore[union-attr]


# --- whole files ------------------------------------------------------------------------------------------------------

word = st.text(st.sampled_from("가나다라마바사 \"\n',;|ab"), max_size=7).map(lambda text: text.strip() or None)
amount = st.one_of(st.none(), st.integers(-(10**9), 10**9).map(float), st.floats(-1e9, 1e9))


def packed(data: bytes, how: str) -> bytes:
    if how == "zip":
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("t.csv", data)
        return archive.getvalue()
    return {"gzip": gzip.compress, "bz2": bz2.compress, "plain": bytes}[how](data)


@given(
    rows=st.lists(st.tuples(amount, word, st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1))), min_size=1),
    codec=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp949"]),
    separator=st.sampled_from(",;\t|"),
    how=st.sampled_from(["plain", "gzip", "bz2", "zip"]),
    streaming=st.booleans(),
)
@settings(max_examples=30)
def test_made_files_come_back(
    rows: list[Any], codec: str, separator: str, how: str, streaming: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Numbers, words and dates, written by pandas in any encoding and packing, are the same when read."""
    frame = pd.DataFrame(rows, columns=["amount", "word", "when"]).astype({"when": "datetime64[us]"})
    path = tmp_path_factory.mktemp("made") / "t.csv"
    path.write_bytes(packed(frame.to_csv(index=False, sep=separator).encode(codec), how))
    numeric = [] if frame.amount.isna().all() else ["amount"]
    back = CSVDataset(path, text="word", numeric=numeric, dates="when")
    read = back.to_pandas()
    words = [text or "" for _, text, _ in rows]
    np.testing.assert_array_equal(read.amount.astype(float), frame.amount.astype(float))
    assert [text if isinstance(text, str) else "" for text in read.word] == words
    assert read.when.tolist() == frame.when.tolist()
    if streaming:
        stream = CSVDataset(path, spec=back.spec, streaming=True)
        assert [stream[row]["text"] for row in range(len(rows))] == words


@pytest.mark.parametrize("rows", [3, 9, 10, 199, 200, 250, 2000])
def test_decimal_commas_between_semicolons_are_no_separators_whatever_the_length(tmp_path: Path, rows: int) -> None:
    lines = "".join(f"{i},{i % 10};{i * i},5;{'blue' if i % 3 else 'red'}\n" for i in range(rows))
    table = read_table(write(tmp_path / "t.csv", "x;y;label\n" + lines), ReadOptions())
    assert list(table.columns) == ["x", "y", "label"]
    assert len(table) == rows


def test_the_long_semicolon_file_of_the_report(shared_data: Path) -> None:
    path = shared_data.parent / "cases" / "semicolon_250_rows.csv"
    if not path.exists():
        pytest.skip("the small inputs that were read wrong are not there")
    data = CSVDataset(path, target="label", scale="none", task="classification")
    expected = pd.read_csv(path, sep=";", decimal=",")
    assert [column.name for column in data.spec.columns] == ["x", "y"]
    assert np.allclose(torch.stack([data[i][0] for i in range(len(data))]).numpy(), expected[["x", "y"]].to_numpy())
