"""ImageTable: classes, numbers and several labels from a CSV file, with errors that name row and column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from dlkit.datasets import ImageTable
from dlkit.errors import ArgumentError, DataError, DataNotFoundError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(6):
        Image.new("RGB", (20, 16), (40 * number, 0, 0)).save(tmp_path / f"{number}.png")
    return tmp_path


def table(root: Path, **columns: list[Any]) -> Path:
    frame = pd.DataFrame({"file": [f"{number}.png" for number in range(6)], **columns})
    frame.to_csv(root / "table.csv", index=False)
    return root / "table.csv"


def test_classes(root: Path) -> None:
    ds = ImageTable(table(root, label=["10", "9", "10", "2", "9", "9"]), size=8)
    assert (ds.task, ds.classes) == ("classification", ["2", "9", "10"])
    assert ds.targets is not None
    assert ds.targets.tolist() == [2, 1, 2, 0, 1, 1]
    images, targets = next(iter(DataLoader(ds, 6)))
    assert images.shape == (6, 3, 8, 8)
    assert targets.dtype == torch.int64
    assert [float(x[0].mean()) for x in images] == sorted(float(x[0].mean()) for x in images)
    given = ImageTable(table(root, label=list("aabbab")), classes=["b", "a", "c"])
    assert given.targets is not None
    assert given.targets.tolist() == [1, 1, 0, 0, 1, 0]
    assert [len(part) for part in given.split(0.5, dedupe=False)] == [3, 3]


def test_numbers(root: Path) -> None:
    ds = ImageTable(table(root, label=[0.5, 1, 2, 3, 4, -1e3]), size=8, scale_target=False)
    assert (ds.task, ds.classes) == ("regression", [])
    assert ds[5][1] == torch.tensor(-1000.0)
    whole = ImageTable(table(root, label=[1, 2, 3, 4, 5, 6]), task="regression")
    assert whole.targets is not None
    assert whole.targets.dtype == torch.float32
    several = ImageTable(table(root, x=[1, 2, 3, 4, 5, 6], y=[0.5] * 6), target=["x", "y"], size=8, scale_target=False)
    assert several.task == "regression"
    assert several[2][1].tolist() == [3.0, 0.5]
    assert [len(part) for part in several.split(0.5, dedupe=False)] == [3, 3]


def test_several_labels(root: Path) -> None:
    ds = ImageTable(table(root, label=["cat|dog", "dog", "cat", " bird | cat", "dog|dog", "bird"]), label_separator="|")
    assert (ds.task, ds.classes) == ("multilabel", ["bird", "cat", "dog"])
    assert ds.targets is not None
    assert ds.targets.tolist() == [[0, 1, 1], [0, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1], [1, 0, 0]]
    columns = ImageTable(table(root, cat=[0, 1, 0, 1, 0, 1], dog=[1, 1, 1, 0, 0, 0]), target=["cat", "dog"], size=8)
    assert (columns.task, columns.classes) == ("multilabel", ["cat", "dog"])
    assert columns[1][1].tolist() == [1.0, 1.0]


def test_frames_suffixes_and_no_target(root: Path) -> None:
    frame = pd.DataFrame({"id": range(6), "kind": list("xyxyxy")})
    ds = ImageTable(frame, "id", "kind", root=root, suffix=".png", size=8)
    assert ds.path(3) == root / "3.png"
    alone = ImageTable(frame, "id", None, root=root, suffix=".png", size=8)
    assert alone[0].shape == (3, 8, 8)
    assert next(iter(DataLoader(alone, 3))).shape == (3, 3, 8, 8)


def test_names_are_taken_as_they_are_written(tmp_path: Path) -> None:
    for name in ("007", "NA", "1e3"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    (tmp_path / "t.csv").write_text("\ufefffile,label\n007,null\nNA,NA\n1e3,01\n", encoding="utf-8")
    ds = ImageTable(tmp_path / "t.csv", suffix=".png", size=8, missing=[])
    assert ds.classes == ["01", "NA", "null"]
    with pytest.raises(DataError, match=r"line 2 of t\.csv has no target: 'null'.*missing=\[\] keeps it"):
        ImageTable(tmp_path / "t.csv", suffix=".png", size=8)
    assert ds[2][0].shape == (3, 8, 8)


def test_errors_name_row_and_column(root: Path) -> None:
    with pytest.raises(DataError, match="has no column 'class'; its columns are 'file', 'label'"):
        ImageTable(table(root, label=list("abcdef")), target="class")
    with pytest.raises(DataError, match=r"line 4 of table\.csv has no target \(2 such rows in all\)"):
        ImageTable(table(root, label=["a", "b", "", "d", None, "f"]))
    with pytest.raises(DataError, match=r"line 3 of table\.csv has the target 'much', which is not a number"):
        ImageTable(table(root, label=["1", "much", "2", "3", "4", "5"]), task="regression")
    with pytest.raises(DataError, match=r"line 7 of table\.csv has the target '2' in column 'b', which is not 0 or 1"):
        ImageTable(table(root, a=[0] * 6, b=[1, 0, 1, 0, 1, 2]), target=["a", "b"], task="multilabel")
    with pytest.raises(DataError, match=r"line 4 .*'c', which is not among the classes a, b"):
        ImageTable(table(root, label=list("abcabc")), classes=["a", "b"])
    with pytest.raises(DataNotFoundError, match=r"none of the first 6 files in column 'file'.*give root="):
        ImageTable(table(root, label=list("abcdef")), root=root.parent)
    with pytest.raises(DataNotFoundError, match="is not a folder"):
        ImageTable(table(root, label=list("abcdef")), root=root / "nothing")
    with pytest.raises(DataNotFoundError, match="there is no file"):
        ImageTable(root / "other.csv")
    (root / "bad.csv").write_bytes(b"file,label\n0.png,a\n1.png\n")
    with pytest.raises(DataError, match=r"line 3 of bad\.csv has 1 cells where the header has 2"):
        ImageTable(root / "bad.csv")
    (root / "none.csv").write_text("file,label\n")
    with pytest.raises(DataError, match="no rows"):
        ImageTable(root / "none.csv")
    with pytest.raises(ArgumentError, match="task must be"):
        ImageTable(table(root, label=list("abcdef")), task="ranking")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="takes one target column"):
        ImageTable(table(root, a=[0] * 6, b=[1] * 6), target=["a", "b"], task="classification")


def test_a_missing_file_is_an_error_by_policy(root: Path) -> None:
    path = table(root, label=list("aabbab"))
    (root / "3.png").unlink()
    with pytest.raises(DataError, match=r"there is no file .*3\.png"):
        ImageTable(path, size=8)[3]
    ds = ImageTable(path, size=8, on_error="skip", max_errors=0.2)
    with pytest.warns(UserWarning, match="left out"):
        assert len(next(iter(DataLoader(ds, 6)))[0]) == 5
