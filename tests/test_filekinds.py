"""What lies in the place of a table, a text, an image, weights, a model or an archive is said by its name."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import dlkit
from dlkit._filekinds import kind_of
from dlkit.datasets import CSVDataset, ImageFiles, ImageTable, TextDataset
from dlkit.download.archives import extract
from dlkit.errors import DlkitError
from dlkit.transfer import load_weights


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "x" * 100)
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("a.csv", "b.csv"):
            info = tarfile.TarInfo(name)
            info.size = 4
            archive.addfile(info, io.BytesIO(b"a,b\n"))
    return file.getvalue()


def saved(save: Callable[[Any], Any]) -> bytes:
    file = io.BytesIO()
    save(file)
    return file.getvalue()


HTML = b"\n<!-- made by a proxy -->\n<!DOCTYPE HTML><html><head><title>Sign in</title></head></html>"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1000)
PIXELS = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))

KINDS = {
    "a PDF document": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj",
    "an HTML page": HTML,
    "a Git LFS pointer": LFS,
    "a git-annex pointer": b"/annex/objects/MD5E-s12--ab.csv\n",
    "an Office document of the old kind": OLE,
    "an Excel workbook": zipped("[Content_Types].xml", "_rels/.rels", "xl/workbook.xml"),
    "a Word document": zipped("[Content_Types].xml", "word/document.xml"),
    "an OpenDocument spreadsheet": zipped("mimetype").replace(b"x" * 24, b"opendocument.spreadsheet", 1),
    "an RTF document": b"{\\rtf1\\ansi hello}",
    "a PNG image": saved(lambda file: PIXELS.save(file, "PNG")),
    "a JPEG image": saved(lambda file: PIXELS.save(file, "JPEG")),
    "an SQLite database": b"SQLite format 3\x00" + bytes(100),
    "a NumPy array": saved(lambda file: np.save(file, np.zeros(9))),
    "a Python pickle": pickle.dumps({"a": [1, 2]}),
    "a file of PyTorch": saved(lambda file: torch.save({"w": torch.ones(2)}, file)),
    "an XML document": b'<?xml version="1.0"?>\n<rows><row/></rows>',
    "a tar archive": tarred(),
    "a 7-Zip archive": b"7z\xbc\xaf\x27\x1c" + bytes(40),
}


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_is_known_by_its_first_bytes(name: str) -> None:
    kind = kind_of(KINDS[name])
    assert kind is not None
    assert kind.name.startswith(name)


@given(st.text(min_size=1).filter(lambda text: not text.lstrip().startswith(("<", "{", "%", "/", "v", "PK"))))
def test_no_text_is_taken_for_anything_else(text: str) -> None:
    assert kind_of(text.replace("\0", "").encode("utf-8", "replace")) is None


@pytest.mark.parametrize(
    "text",
    ["BM,MZ\n1\n", "PAR1,PAR2\n", "BZhang,Li\n", "nameftyp,x\n", "ID3,x\n", "id,<html>\n", "PK,x\n", "<b>,x\n"],
)
def test_words_that_begin_like_a_mark_are_text(text: str) -> None:
    assert kind_of(text.encode()) is None


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("packed", ["", "gz"])
def test_a_table_that_is_none_is_named(name: str, packed: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.csv{packed and '.gz'}"
    path.write_bytes(gzip.compress(KINDS[name]) if packed else KINDS[name])
    for opened in (
        lambda: CSVDataset(path),
        lambda: CSVDataset(path, streaming=True),
        lambda: TextDataset(path, text=0),
        *([] if packed else [lambda: ImageTable(path)]),
    ):
        with pytest.raises(DlkitError, match=rf"x\.csv(\.gz)? is {name}.*, not a (table|file of texts)"):
            opened()


def test_the_way_is_said(tmp_path: Path) -> None:
    for name, way in (
        ("a Git LFS pointer", "'git lfs pull' fetches the file"),
        ("an Excel workbook", "save it again in Excel"),
        ("an Office document of the old kind", "save it as .xlsx or CSV"),
        ("a PDF document", "export the table"),
        ("an HTML page", "open it in a browser"),
        ("a tar archive", "unpack it first"),
    ):
        (tmp_path / "x.csv").write_bytes(KINDS[name])
        with pytest.raises(DlkitError, match=way):
            CSVDataset(tmp_path / "x.csv")


def test_a_packed_table_is_read_as_before(tmp_path: Path) -> None:
    table = b"a,b\n" + b"1,2.5\n2,3.5\n" * 9
    for name, pack in (("x.gz", gzip.compress), ("x.bz2", bz2.compress), ("x.xz", lzma.compress)):
        (tmp_path / name).write_bytes(pack(table))
        assert len(CSVDataset(tmp_path / name, target="b")) == 18
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside.csv", table)
        archive.writestr("__MACOSX/._inside.csv", b"\0")
    assert len(CSVDataset(tmp_path / "x.zip", target="b")) == 18


def test_pages_may_be_texts_of_a_folder_but_documents_not(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(4):
            (tmp_path / name / f"{number}.txt").write_bytes(HTML + b"%d" % number)
    assert len(TextDataset(tmp_path)) == 8
    (tmp_path / "a" / "9.txt").write_bytes(KINDS["a PDF document"])
    with pytest.raises(DlkitError, match=r"9\.txt is a PDF document, not a text"):
        TextDataset(tmp_path)


@pytest.mark.parametrize("name", [name for name in KINDS if "image" not in name])
def test_an_image_that_is_none_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(KINDS[name])
    with pytest.raises(DlkitError, match=rf"x\.jpg: is not an image .*, but {name}"):
        ImageFiles([tmp_path / "x.jpg"], size=8)[0]


@pytest.mark.parametrize("name", ["a PDF document", "an HTML page", "a Git LFS pointer", "a Word document"])
def test_weights_models_and_archives_that_are_none_are_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(KINDS[name])
    with pytest.raises(DlkitError, match=f"is {name}.*, not a file of weights"):
        load_weights(torch.nn.Linear(2, 1), path)
    with pytest.raises(DlkitError, match=f"is {name}.*, not a model file"):
        dlkit.load(path)
    if "Word" not in name:
        with pytest.raises(DlkitError, match=f"was not unpacked: .*, but {name}"):
            extract(path, tmp_path / "out")


def test_archives_that_claim_too_much_are_refused_by_their_claim(tmp_path: Path) -> None:
    table = b"a,b\n" + b"1,2\n" * 40_000_000  # 160 MB, of which gzip leaves less than one
    content = gzip.compress(table, 6)
    del table
    (tmp_path / "x.csv.gz").write_bytes(content)
    for opened in (CSVDataset, lambda path: CSVDataset(path, streaming=True), lambda path: TextDataset(path, text=0)):
        with pytest.raises(DlkitError, match=r"says it unpacks to 160,000,004 bytes: not a"):
            opened(tmp_path / "x.csv.gz")
    (tmp_path / "x.csv.gz").write_bytes(content[:-4] + b"\1\0\0\0")  # a claim that lies is found out on the way
    with pytest.raises(DlkitError, match=r"unpacks to more than [0-9,]+ bytes"):
        CSVDataset(tmp_path / "x.csv.gz")
