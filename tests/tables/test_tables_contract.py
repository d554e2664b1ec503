"""The same table in every form gives the same dataset; what is hostile or only looks like one is refused by name."""

from __future__ import annotations

import datetime
import io
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from openpyxl import Workbook
from pyarrow import feather, ipc

from dlkit.datasets import CSVDataset
from dlkit.errors import DataError

ROWS = 60
FRAME = pd.DataFrame(
    {
        "size": [i * 0.25 if i % 7 else None for i in range(ROWS)],
        "count": [(i * 37) % 11 for i in range(ROWS)],
        "color": [("red", "blue", "line\nbreak", "가")[i * i % 4] for i in range(ROWS)],
        "member": [bool(i % 3) for i in range(ROWS)],
        "when": [pd.Timestamp(2020, 1, 1) + pd.Timedelta(days=i * i % 50) for i in range(ROWS)],
        "label": [("yes", "no")[i % 2] for i in range(ROWS)],
    }
)


def as_csv(path: Path, **options: Any) -> Path:
    FRAME.to_csv(path, index=False, **options)
    return path


def as_sheet(path: Path) -> Path:
    book = Workbook()
    sheet = book.active
    sheet.append(list(FRAME.columns))
    for row in FRAME.astype(object).itertuples(index=False):
        sheet.append([None if pd.isna(cell) else cell for cell in row])
    book.save(path)
    return path


def as_stream(path: Path) -> Path:
    table = pa.Table.from_pandas(FRAME, preserve_index=False)
    with pa.OSFile(str(path), "wb") as file, ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=17)
    return path


def as_feather(path: Path, **options: Any) -> Path:
    feather.write_feather(FRAME, path, chunksize=17, **options)
    return path


def as_parquet(path: Path) -> Path:
    FRAME.to_parquet(path, row_group_size=17)
    return path


def in_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("t.csv", FRAME.to_csv(index=False))
    return path


FORMS: dict[str, Callable[[Path], Any]] = {
    "frame": lambda folder: FRAME,
    "arrow table": lambda folder: pa.Table.from_pandas(FRAME, preserve_index=False),
    "csv": lambda folder: as_csv(folder / "t.csv"),
    "semicolon": lambda folder: as_csv(folder / "t.csv", sep=";", decimal=","),
    "cp949": lambda folder: as_csv(folder / "t.csv", encoding="cp949"),
    "utf-16": lambda folder: as_csv(folder / "t.tsv", sep="\t", encoding="utf-16"),
    "gzip": lambda folder: as_csv(folder / "t.csv.gz"),
    "zip": lambda folder: in_zip(folder / "t.zip"),
    "parquet": lambda folder: as_parquet(folder / "t.parquet"),
    "feather": lambda folder: as_feather(folder / "t.feather"),
    "feather, packed": lambda folder: as_feather(folder / "t.arrow", compression="zstd"),
    "arrow stream": lambda folder: as_stream(folder / "t.arrow"),
    "excel": lambda folder: as_sheet(folder / "t.xlsx"),
}


def everything(data: CSVDataset) -> list[Any]:
    samples = [data[i] for i in range(len(data))]
    return [
        torch.stack([inputs["numeric"] for inputs, _ in samples]),
        torch.stack([inputs["categorical"] for inputs, _ in samples]),
        torch.stack([target for _, target in samples]),
    ]


@pytest.fixture(scope="module")
def right() -> CSVDataset:
    return CSVDataset(FRAME, target="label")


@pytest.mark.parametrize("streaming", [False, True], ids=["memory", "streaming"])
@pytest.mark.parametrize("form", FORMS)
def test_the_same_table_in_every_form_gives_the_same_dataset(form, streaming, tmp_path, right):
    source = FORMS[form](tmp_path)
    if streaming and not isinstance(source, Path):
        pytest.skip("in memory already")
    data = CSVDataset(source, target="label", streaming=streaming)
    for found, expected in zip(everything(data), everything(right), strict=True):
        assert torch.equal(found, expected)
    assert [c.name for c in data.spec.columns] == [c.name for c in right.spec.columns]
    assert [c.kind for c in data.spec.columns] == [c.kind for c in right.spec.columns]
    assert data.classes == right.classes
    again = CSVDataset(source, spec=right.spec)
    for found, expected in zip(everything(again), everything(right), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("streaming", [False, True], ids=["memory", "streaming"])
@pytest.mark.parametrize("form", ["parquet", "feather"])
def test_the_index_of_a_frame_is_no_feature(form, streaming, tmp_path):
    frame = FRAME.set_index(np.random.default_rng(0).permutation(ROWS))
    path = tmp_path / f"t.{form}"
    frame.to_parquet(path) if form == "parquet" else feather.write_feather(pa.Table.from_pandas(frame), path)
    data = CSVDataset(path, target="label", streaming=streaming)
    assert [c.name for c in data.spec.columns] == list(FRAME.columns[:-1])
    assert "pandas index '__index_level_0__' is left out" in data.notes[0]


# --- Excel ------------------------------------------------------------------------------------------------------------


def book_of(path: Path, rows: list[list[Any]], title: str = "first", **others: list[list[Any]]) -> Path:
    book = Workbook()
    book.active.title = title
    for row in rows:
        book.active.append(row)
    for name, cells in others.items():
        sheet = book.create_sheet(name)
        for row in cells:
            sheet.append(row)
    book.save(path)
    return path


def test_a_sheet_is_chosen_and_said(tmp_path):
    rows = [["x", "y"], *([i, "ab"[i % 2]] for i in range(10))]
    path = book_of(tmp_path / "t.xlsx", rows, second=[["z", "y"], *([i / 2, "ab"[i % 2]] for i in range(30))])
    first = CSVDataset(path, target="y", numeric="x")
    assert len(first) == 10
    assert "sheet 'first', of 2 sheets (first, second); sheet= names another" in first.notes[0]
    for sheet in ("second", 1, "1"):
        assert len(CSVDataset(path, target="y", sheet=sheet, numeric="z")) == 30
    with pytest.raises(DataError, match="has no sheet 'third'; its sheets are 'first', 'second'"):
        CSVDataset(path, sheet="third")


@pytest.mark.parametrize("streaming", [False, True], ids=["memory", "streaming"])
def test_titles_errors_and_odd_cells_of_a_sheet(tmp_path, streaming):
    rows: list[list[Any]] = [[i / 4, datetime.time(i % 24), "ab"[i % 2]] for i in range(100)]
    rows[30][0] = "#DIV/0!"
    path = book_of(tmp_path / "t.xlsx", [["Report of 2024"], [], ["price", "at", "y"], *rows, [None, None], []])
    with pytest.raises(DataError, match=r"row 34 of t\.xlsx has no number in column 'price' but '#DIV/0!'"):
        CSVDataset(path, target="y", streaming=streaming)
    data = CSVDataset(path, target="y", streaming=streaming, missing=["#DIV/0!"])
    assert (len(data), data.spec["price"].missing, data.spec["at"].kind) == (100, 1, "date")


def test_a_formula_has_the_value_it_had_or_is_refused(tmp_path):
    path = book_of(tmp_path / "t.xlsx", [["x", "y"], [1, "=A2+1"], [2, 4], [4, 5]])
    with pytest.raises(DataError, match="cell B2: a formula without a value"):
        CSVDataset(path)
    parts = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            parts[name] = archive.read(name)
    sheet = "xl/worksheets/sheet1.xml"
    parts[sheet] = parts[sheet].replace(b"<f>A2+1</f><v></v>", b"<f>A2+1</f><v>7</v>")
    parts[sheet] = parts[sheet].replace(b"<f>A2+1</f><v />", b"<f>A2+1</f><v>7</v>")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    assert CSVDataset(path, target="y", task="regression", scale_target=False).targets.tolist() == [7, 4, 5]


def hostile(path: Path, change: Callable[[str, bytes], bytes]) -> Path:
    good = io.BytesIO()
    book = Workbook()
    book.active.append(["x"])
    book.save(good)
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in source.namelist():
            archive.writestr(name, change(name, source.read(name)))
    return path


def test_hostile_workbooks_are_refused_before_they_are_parsed(tmp_path):
    entities = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x "y">]>'
    encoded = entities.decode() + "<worksheet/>"
    for part in (entities + b"<worksheet/>", encoded.encode("utf-16")):
        bad = hostile(tmp_path / "e.xlsx", lambda n, c, part=part: part if "sheet1" in n else c)
        with pytest.raises(
            DataError, match=r"part 'xl/worksheets/sheet1\.xml' is not plain XML or declares a document"
        ):
            CSVDataset(bad)
    bomb = hostile(tmp_path / "b.xlsx", lambda n, c: c + b" " * (140 << 20) if "sheet1" in n else c)
    with pytest.raises(DataError, match=r"says it unpacks to .* it is made to fill memory"):
        CSVDataset(bomb)
    cut = hostile(tmp_path / "c.xlsx", lambda n, c: c[: len(c) // 2] if "sheet1" in n else c)
    with pytest.raises(DataError, match=r"c\.xlsx is a damaged Excel workbook"):
        CSVDataset(cut)


@pytest.mark.parametrize("content", [b"ARROW1\0\0", b"\xff\xff\xff\xff"], ids=["file", "stream"])
@pytest.mark.parametrize("streaming", [False, True], ids=["memory", "streaming"])
def test_damaged_arrow_files_are_named(tmp_path, content, streaming):
    (tmp_path / "t.arrow").write_bytes(content + b"x" * 100)
    with pytest.raises(DataError, match=r"t\.arrow is a damaged Arrow file"):
        CSVDataset(tmp_path / "t.arrow", streaming=streaming)
    (tmp_path / "t.feather").write_bytes(b"FEA1" + bytes(100))
    with pytest.raises(DataError, match="Feather file of version 1"):
        CSVDataset(tmp_path / "t.feather", streaming=streaming)


def test_old_and_open_document_sheets_are_refused_by_name(tmp_path):
    (tmp_path / "t.xls").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1000))
    with zipfile.ZipFile(tmp_path / "t.ods", "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
    for name in ("t.xls", "t.ods"):
        with warnings.catch_warnings(), pytest.raises(DataError, match=r"save it as \.xlsx or CSV"):
            CSVDataset(tmp_path / name)
