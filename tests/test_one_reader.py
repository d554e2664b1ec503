"""One file is read by one reader: tables, image tables and texts see the same rows, and leave out the same ones."""

from __future__ import annotations

import codecs
import gzip
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dlkit.datasets import CSVDataset, ImageTable, TextDataset
from dlkit.errors import DataError

ROWS = [
    (f"{number}.png", note, "ab"[number % 2]) for number, note in enumerate(['say "hi", you', "둘", "", "x\ny"] * 5)
]


def written(separator: str) -> str:
    lines = [separator.join(("file", "note", "label"))]
    return "\n".join(lines + [separator.join((f, '"' + n.replace('"', '""') + '"', k)) for f, n, k in ROWS]) + "\n"


FORMS: dict[str, tuple[str, bytes]] = {
    "commas": ("t.csv", written(",").encode()),
    "semicolons": ("t.csv", written(";").encode()),
    "tabs": ("t.tsv", written("\t").encode()),
    "said": ("t.csv", b"sep=;\r\n" + written(";").encode()),
    "remarks": ("t.csv", b"# made by hand\n" + written(",").encode()),
    "mark": ("t.csv", codecs.BOM_UTF8 + written(",").encode()),
    "cp949": ("t.csv", written(";").encode("cp949")),
    "utf-16": ("t.csv", written(",").encode("utf-16")),
    "packed": ("t.csv.gz", gzip.compress(written(",").encode())),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for name, _, _ in ROWS:
        Image.new("L", (8, 8)).save(folder / name)
    return folder


@pytest.mark.parametrize("form", FORMS)
def test_one_file_gives_the_same_rows_to_all(tmp_path: Path, images: Path, form: str) -> None:
    name, content = FORMS[form]
    (tmp_path / name).write_bytes(content)
    table = CSVDataset(tmp_path / name, target="label", categorical="file", text="note")
    pictures = ImageTable(tmp_path / name, target="label", root=images, size=8, color="L")
    texts = TextDataset(tmp_path / name, text="note", target="label")
    assert len(table) == len(pictures) == len(texts) == len(ROWS)
    assert [sample[0]["text"] for sample in table] == list(texts.texts) == [note for _, note, _ in ROWS]
    data: Any
    for data in (table, pictures, texts):
        assert [data.classes[int(sample[1])] for sample in data] == [kind for _, _, kind in ROWS]
    assert texts.where(4).startswith("line ")


def test_tables_and_texts_leave_out_the_same_rows_with_the_same_words(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = ["file,note,label", "1,good,a", "2,short", "3,b\xff,a", "4,x\x1by,a", "5,good,b", "6,a,b,c", "7,good,a"]
    path.write_bytes("\n".join(rows).encode("latin-1"))
    read = [
        CSVDataset(path, target="label", categorical="file", text="note", encoding="utf-8", on_error="skip"),
        TextDataset(path, text="note", target="label", encoding="utf-8", on_error="skip"),
    ]
    skipped = [[(each.file, each.row, each.reason) for each in data.skipped] for data in read]
    assert skipped[0] == skipped[1]
    assert [row for _, row, _ in skipped[0]] == [3, 4, 5, 7]
    assert [len(data) for data in read] == [3, 3]
    for made in (CSVDataset, TextDataset):
        with pytest.raises(DataError, match=r"line 4: byte 0xff is not utf-8"):
            made(path, target="label", text="note", encoding="utf-8")
