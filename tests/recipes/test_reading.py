"""`read_data` finds out what it is given, says so, and refuses with a hint what cannot be meant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dlkit.errors import ArgumentError, DataError, DataNotFoundError
from dlkit.recipes import look_at, read_data


def photos(folder: Path, classes: Sequence[str] = ("ants", "bees"), each: int = 10, *, mode: str = "RGB") -> Path:
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(each):
            pixels = rng.integers(0, 255, (90, 120, 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "shop.csv"
    rows = pd.DataFrame({"age": range(20, 220), "plan": ["a", "b"] * 100, "left": ["no", "yes", "yes", "no"] * 50})
    rows.assign(knows=rows["left"]).to_csv(path, index=False)
    return path


def test_a_folder_of_class_folders_is_images_split_by_chance(tmp_path: Path) -> None:
    data = read_data(photos(tmp_path / "photos", each=20))
    assert (data.kind, data.name, data.classes, data.task) == ("images", "photos", ["ants", "bees"], "classification")
    assert [len(part) for part in (data.train, data.val, data.test)] == [32, 4, 4]
    assert (data.side, data.grey) == (90, False)
    said = str(data)
    assert "40 images in 2 class folders (ants, bees)" in said
    assert "32 training, 4 validation, 4 test samples, split at random" in said
    assert "colour images, the shorter side usually 90 pixels" in said


def test_grey_images_are_known_by_their_files(tmp_path: Path) -> None:
    assert read_data(photos(tmp_path / "letters", mode="L")).grey


def test_parts_that_are_laid_out_are_taken_as_they_are(tmp_path: Path) -> None:
    photos(tmp_path / "all" / "train")
    photos(tmp_path / "all" / "val", each=2)
    data = read_data(tmp_path / "all")
    assert [len(data.train), len(data.val), data.test] == [20, 4, None]
    assert "laid out in train, val" in str(data)
    assert "no test part" in str(data)


def test_a_layout_without_val_keeps_some_of_train_for_watching(tmp_path: Path) -> None:
    photos(tmp_path / "all" / "train", each=27)
    photos(tmp_path / "all" / "test", each=3)
    data = read_data(tmp_path / "all")
    assert [len(data.train), len(data.val), len(data.test)] == [48, 6, 6]
    assert "11% of train are the validation part" in str(data)


def test_a_table_is_told_with_the_column_that_knows_too_much(table: Path) -> None:
    data = read_data(table, target="left")
    assert (data.kind, data.name, data.classes) == ("table", "shop", ["no", "yes"])
    assert "'knows' alone predicts 100% of the target" in str(data)
    assert "alone predicts" not in str(read_data(table, target="left", drop=["knows"]))
    assert [len(data.train), len(data.val), len(data.test)] == [160, 20, 20]
    assert len(read_data(table, target="left", fractions=(0.5, 0.5)).val) == 100


def test_texts_and_images_that_are_not_looked_at_are_told(tmp_path: Path) -> None:
    rows = range(40)
    said = [f"the {'red' if n % 2 else 'blue'} one of the {n} things is here" for n in rows]
    frame = pd.DataFrame({"size": [n % 7 for n in rows], "said": said, "y": ["a", "b"] * 20})
    data = read_data(frame, target="y")
    assert "'said' holds texts and is left out; mixed=True takes it beside the other columns" in str(data)
    assert "holds texts" not in str(read_data(frame, target="y", mixed=True))
    assert "holds texts" not in str(read_data(frame, target="y", drop=["said"]))
    for n in rows:
        Image.new("L", (8, 8), 6 * n).save(tmp_path / f"{n}.png")
    frame.assign(photo=[f"{n}.png" for n in rows]).to_csv(tmp_path / "table.csv", index=False)
    told = str(read_data(tmp_path / "table.csv", target="y"))
    assert "(drop='photo' takes the table without the images, mixed=True all columns together)" in told


def test_a_table_in_memory_is_a_table() -> None:
    data = read_data(pd.DataFrame({"x": range(40), "price": [float(n) + 0.5 for n in range(40)]}), target="price")
    assert (data.name, data.source, data.task, data.classes) == ("dataframe", "a DataFrame", "regression", [])


def test_texts_by_column_names_and_numbers(tmp_path: Path) -> None:
    rows = [f"{label}\tmessage {label} number {n}" for n in range(20) for label in ("ham", "spam")]
    (tmp_path / "sms.tsv").write_text("\n".join(rows) + "\n")
    data = read_data(tmp_path / "sms.tsv", text=1, target=0)
    assert (data.kind, data.classes, len(data.train)) == ("text", ["ham", "spam"], 32)
    assert "32 training" in str(data)
    (tmp_path / "sms.csv").write_text("\n".join(["kind,message", *(row.replace("\t", ",") for row in rows)]))
    assert read_data(tmp_path / "sms.csv", text="message", target="kind").classes == ["ham", "spam"]


def test_a_folder_of_text_files_is_texts(tmp_path: Path) -> None:
    for name in ("good", "bad"):
        (tmp_path / "reviews" / name).mkdir(parents=True)
        for number in range(10):
            (tmp_path / "reviews" / name / f"{number}.txt").write_text(f"a {name} film, number {number}")
    data = read_data(tmp_path / "reviews")
    assert (data.kind, data.classes) == ("text", ["bad", "good"])


def test_letters_by_name() -> None:
    data = read_data("Glyphs")
    assert (data.kind, data.side, data.grey, data.classes[0]) == ("letters", 28, True, "A")


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("shop.csv", {}, "shop is a table: say which column to predict.*age, plan, left, knows"),
        ("shop.csv", {"target": "levt"}, "do you mean 'left'"),
        ("shop.csv", {"target": "left", "fractions": (0.5, 0.4)}, "that sum to 1, not"),
        ("shop.csv", {"target": "left", "tokenizer": "bpe"}, "is a table, .*name the column of the texts: text="),
        ("shop.csv", {"text": "plan"}, "say which column to predict: target="),
        ("photos", {"target": "left"}, "target='left': this data is a folder of images, whose classes are its folders"),
        ("photos/ants/1.png", {}, "is one image; give the folder"),
        ("model.safetensors", {}, "is a model file; give data"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(
    tmp_path: Path, table: Path, source: str, options: dict[str, object], message: str
) -> None:
    photos(tmp_path / "photos", each=3)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ArgumentError, match=message):
        read_data(tmp_path / source, **options)  # type: ignore[arg-type]


def test_what_is_not_there_is_told_with_close_names(table: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"no file or folder .*shop\.cvs .*is it shop\.csv\?"):
        read_data(table.with_suffix(".cvs"))
    with pytest.raises(DataNotFoundError, match="is it notmnist"):
        read_data("notmist")


def test_a_folder_of_nothing_known_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("nothing")
    with pytest.raises(DataError, match=r"holds neither images nor sounds nor \.txt files"):
        read_data(tmp_path)


def test_unknown_options_are_refused(table: Path) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'targt'"):
        read_data(table, targt="left")  # type: ignore[call-arg]


def test_looking_at_each_kind(tmp_path: Path, table: Path) -> None:
    assert "20 readable images" in str(look_at(photos(tmp_path / "photos")))
    assert any("'knows' alone" in finding for finding in look_at(table, target="left").findings)
    assert "left" in str(look_at(table))  # needs no target
