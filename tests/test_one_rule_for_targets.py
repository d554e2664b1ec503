"""One labelled table means the same to tables, image tables, texts, recipes and the model file.

That is: its task, its classes and their order, and each row's class.
"""

from __future__ import annotations

import csv
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dlkit import load, save
from dlkit.cli import app
from dlkit.datasets import CSVDataset, ImageTable, TextDataset
from dlkit.errors import ArgumentError, DataError
from dlkit.models import SmallConvNet, TabularMLP, TextClassifier
from dlkit.recipes import read_data, train

CASES = Path(__file__).resolve().parents[1].parent / "shared" / "cases"
AGREE = sorted(path.name for path in CASES.glob("agree_*.csv"))
needs_cases = pytest.mark.skipif(not AGREE, reason=f"the small inputs that were read wrong are not at {CASES}")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    (folder / "img").mkdir()
    for number in range(100):
        Image.new("L", (8, 8), number).save(folder / "img" / f"{number}.png")
    return folder


REFUSALS = {"no target": ("missing=[]", "no target", "is empty", "no value"), "too many": ("too many for classes",)}


def refusal(error: Exception) -> str:
    return next((kind for kind, words in REFUSALS.items() if any(w in str(error) for w in words)), str(error))


def meanings(table: Path, root: Path, only: Any = None, **options: Any) -> list[tuple[str, list[str], list[Any]] | str]:
    """What each dataset makes of a table: its task, classes and targets by name, or that it refuses."""
    found: list[tuple[str, list[str], list[Any]] | str] = []
    ways = (
        lambda: CSVDataset(table, target="label", categorical="file", scale_target=False, **options),
        lambda: CSVDataset(table, target="label", categorical="file", scale_target=False, streaming=True, **options),
        lambda: ImageTable(table, root=root, size=8, color="L", scale_target=False, **options),
        lambda: TextDataset(table, text="file", target="label", tokenizer="characters", **options),
    )
    for opened in ways[3:] if only is TextDataset else ways:
        try:
            data: Any = opened()
        except (DataError, ArgumentError) as error:
            found.append(refusal(error))
            continue
        samples = [sample[1] for sample in data]
        classes = list(data.classes)
        targets = [classes[int(t)] if classes else float(t) for t in samples]
        found.append(("classification" if classes else "regression", classes, targets))
    return found


@needs_cases
@pytest.mark.parametrize("name", AGREE)
def test_the_tables_of_the_report(name, images):
    first, *others = meanings(CASES / name, images)
    assert others == [first] * 3
    if name == "agree_na.csv":
        assert first == "no target"
        kept, *others = meanings(CASES / name, images, missing=[])
        assert others == [kept] * 3
        assert "NA" in kept[1]
    if name == "agree_natural_order.csv":
        assert first[1] == ["b2", "b10"]
    if name.startswith("agree_hangul"):
        assert first[1] == ["개", "고양이"]
    if name in ("agree_numbers.csv", "agree_numbers_with_point.csv", "agree_leading_blank.csv"):
        assert first[:2] == ("classification", ["0", "1", "2"])


LABELS = st.one_of(
    st.sampled_from(
        ["0", "1", "2", "1.0", " 1", "-1", "b2", "b10", "B2", "yes", "no", "TRUE", "true", "NA", "None", "-"]
    ),
    st.sampled_from(
        ["0.5", "1,5", "1,234", "€5", "5 %", "é", unicodedata.normalize("NFD", "é"), "강아지", "01", "x y"]
    ),
    st.text("abé01 ", min_size=0, max_size=3),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    labels=st.lists(LABELS, min_size=1, max_size=6).flatmap(
        lambda few: st.lists(st.sampled_from(few), min_size=2, max_size=30)
    )
)
def test_any_labels_mean_the_same_to_all(labels, images, tmp_path):
    path = tmp_path / "t.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([["file", "label"], *[(f"img/{number}.png", label) for number, label in enumerate(labels)]])
    first, *others = meanings(path, images)
    assert others == [first] * 3, labels


def test_another_columns_decimal_mark_counts_for_the_target_of_all(images, tmp_path):
    """Beside "0,5" a "1.234" is a thousand, whoever reads the file."""
    rows = [f"img/{number - 100}.png;{number},5;1.{number}" for number in range(100, 140)]
    (tmp_path / "t.csv").write_text("file;x;label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    first, *others = meanings(tmp_path / "t.csv", images)
    assert first[0] == "regression"
    assert first[2][:2] == [1100.0, 1101.0]
    assert others == [first] * 3


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        ([0, 1, 2] * 10, "classification", ["0", "1", "2"]),
        ([0.0, 1.0, 2.0] * 10, "classification", ["0", "1", "2"]),
        ([True, False] * 10, "classification", ["False", "True"]),
        ([0.5, 1.0] * 10, "regression", []),
        (list(range(100)), "regression", []),
        (["b", "a"] * 10, "classification", ["a", "b"]),
    ],
)
def test_typed_columns_of_a_frame_mean_the_same_to_all(values, task, classes, images):
    frame = pd.DataFrame({"file": [f"img/{number}.png" for number in range(len(values))], "label": values})
    table = CSVDataset(frame, target="label", categorical="file", scale_target=False)
    pictures = ImageTable(frame, root=images, size=8, color="L", scale_target=False)
    texts = TextDataset(frame, text="file", target="label", tokenizer="characters")
    expected = (
        [float(v) for v in values]
        if not classes
        else [classes.index(str(int(v) if isinstance(v, float) else v)) for v in values]
    )
    for data in (table, pictures, texts):
        assert list(data.classes) == classes
        assert np.allclose([float(sample[1]) for sample in data], expected)
        assert data[0][1].dtype == (torch.int64 if classes else torch.float32)
    assert table.spec.target.task == pictures.task == task


def meaning_of_parts(data: Any) -> tuple[str, list[str], list[str]]:
    """Task, classes and all targets by name of what `read_data` found, whichever part they fell into."""
    targets = [sample[1] for part in (data.train, data.val, data.test) for sample in part]
    named = [data.classes[int(target)] if data.classes else f"{float(target):g}" for target in targets]
    return data.task, data.classes, sorted(named)


def with_a_number(table: Path, folder: Path) -> Path:
    """The same table with a column of numbers, in its own encoding and with its own separator."""
    encoding = "cp949" if "cp949" in table.name else "utf-8"
    head, *rows = table.read_text(encoding=encoding).splitlines()
    mark = ";" if ";" in head else ","
    lines = [f"{head}{mark}x", *(f"{row}{mark}{number / 7:.3f}" for number, row in enumerate(rows))]
    path = folder / table.name
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


@needs_cases
@pytest.mark.parametrize("name", AGREE)
def test_recipes_read_the_tables_of_the_report_alike(name, tmp_path):
    known = meanings(CASES / name, tmp_path, only=TextDataset)[0]
    path = with_a_number(CASES / name, tmp_path)
    for options in ({}, {"text": "file", "tokenizer": "characters"}):
        if isinstance(known, str):
            with pytest.raises(DataError) as caught:
                read_data(path, target="label", **options)
            assert refusal(caught.value) == known
            continue
        data = read_data(path, target="label", **options)
        task, classes, targets = known
        if "text" not in options and task == "regression":  # of a table it is scaled; its unit is in the spec
            assert (data.task, data.classes) == (task, classes)
            continue
        assert meaning_of_parts(data) == (task, classes, sorted(t if classes else f"{t:g}" for t in targets))


@needs_cases
@pytest.mark.parametrize("name", AGREE)
def test_the_model_file_keeps_what_the_datasets_said(name, images, tmp_path):
    first = meanings(CASES / name, images, only=TextDataset)[0]
    if isinstance(first, str):
        return  # refused by all, see above
    task, classes, targets = first
    table = with_a_number(CASES / name, tmp_path)
    texts = TextDataset(CASES / name, text="file", target="label", tokenizer="characters", min_freq=1)
    rows = CSVDataset(table, target="label", drop="file")
    pictures = ImageTable(CASES / name, root=images, size=8, color="L", scale_target=False)
    outputs = max(1, len(classes))
    made = {
        "t": (TextClassifier(len(texts.vocabulary), outputs, width=8), texts),
        "r": (TabularMLP(rows.spec, hidden=(8,)), rows),
        "p": (SmallConvNet(outputs), pictures),
    }
    for short, (model, data) in made.items():
        opened = load(save(model, tmp_path / short, preprocessing=data))
        assert (opened.task, list(opened.classes or []) if classes else []) == (task, classes), short
        given = {"t": CASES / name, "r": table, "p": pictures}[short]
        options = {"text": "file", "target": "label"} if short == "t" else {}
        measured = opened.evaluate(given, **options)
        assert measured["samples"] == len(targets)
        assert ("accuracy" in measured) is bool(classes)


@needs_cases
@pytest.mark.parametrize("name", ["agree_numbers_with_point.csv", "agree_natural_order.csv", "agree_many.csv"])
def test_train_and_its_command_write_the_same_meaning(name, tmp_path, capfd):
    task, classes, _ = meanings(CASES / name, tmp_path, only=TextDataset)[0]
    path = with_a_number(CASES / name, tmp_path)
    reading = {"target": "label"} if task == "regression" else {"target": "label", "text": "file", "arch": "bag"}
    done = train(path, epochs=1, out=tmp_path / "a", device="cpu", progress=False, **reading)
    options = [f"--{option}={value}" for option, value in reading.items()]
    with pytest.raises(SystemExit) as left:
        app(["train", str(path), *options, "--epochs=1", "--device=cpu", f"--out={tmp_path / 'b'}"], prog_name="dlkit")
    assert left.value.code in (0, None), capfd.readouterr().err
    by_command = tmp_path / "b" / done.path.name
    for file in (done.path, by_command):
        opened = load(file)
        assert (opened.task, [] if task == "regression" else list(opened.classes)) == (task, classes)


def test_a_models_classes_are_found_in_either_spelling(tmp_path):
    """A model of another library has its class names as a folder of macOS wrote them: decomposed."""
    composed, decomposed = ["café", "thé"], [unicodedata.normalize("NFD", name) for name in ("café", "thé")]
    frame = pd.DataFrame({"text": ["a b", "c d"] * 4, "label": composed * 4})
    data = TextDataset(frame, text="text", target="label", min_freq=1)
    model = TextClassifier(len(data.vocabulary), 2, width=8)
    opened = load(save(model, tmp_path / "m", classes=decomposed, preprocessing=data))
    assert opened.evaluate(data)["samples"] == 8


def test_labels_of_one_cell_are_found_however_their_numbers_are_written(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    frame = pd.DataFrame({"file": ["a.png"] * 4, "x": [0.5, 1.5, 2.5, 3.5], "y": ["1|2", "1.0|2", "2", "1"]})
    said = {"label_separator": "|", "classes": ["1", "2"]}
    table = CSVDataset(frame, target="y", drop="file", **said)
    files = ImageTable(frame, target="y", root=tmp_path, **said)
    assert table.targets.tolist() == files.targets.tolist() == [[1, 1], [1, 1], [0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("labels", "options", "said"),
    [
        ([f"2024-01-{day:02}" for day in range(1, 21)], {}, "holds dates"),
        (["1.5", "high"] * 10, {"task": "regression"}, "line 3 of "),
        (["low", "high"] * 10, {"task": "regression"}, "line 2 of "),
        ([f"id{number}" for number in range(40)], {}, "too many"),
    ],
)
def test_what_a_target_cannot_be_is_refused_by_all(labels, options, said, images, tmp_path):
    rows = "".join(f"img/{number}.png,{label}\n" for number, label in enumerate(labels))
    (tmp_path / "t.csv").write_text(f"file,label\n{rows}", encoding="utf-8")
    refusals = meanings(tmp_path / "t.csv", images, **options)
    assert [said in str(refusal) for refusal in refusals] == [True] * 4, refusals
