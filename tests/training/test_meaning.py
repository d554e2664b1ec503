"""Training, validation and later data that mean different things are refused, with the first difference and the way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset, random_split

import dlkit
from dlkit import Trainer, compare, fine_tune
from dlkit.datasets import CSVDataset, ImageFolder, TextDataset
from dlkit.declared import classes_in, difference
from dlkit.errors import DataError, DlkitError
from dlkit.models import SmallConvNet, TabularMLP, TextClassifier
from dlkit.transfer import replace_head
from dlkit.transforms import Augment, for_evaluation, for_training


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Folders of four small images for any list of classes."""

    def folder(*classes: str) -> Any:
        root = tmp_path_factory.mktemp("photos")
        for number, name in enumerate(classes):
            (root / name).mkdir()
            for i in range(4):
                pixels = np.full((20, 20, 3), 40 * number + i, np.uint8)
                Image.fromarray(pixels).save(root / name / f"{i}.png")
        return root

    return folder


def table(labels: str = "ab", *, times: float = 1.0, rows: int = 24) -> pd.DataFrame:
    numbers = [(i % 7 + 0.5) * times for i in range(rows)]
    words = [("red", "green")[i % 2] for i in range(rows)]
    return pd.DataFrame({"x": numbers, "colour": words, "y": [labels[i % len(labels)] for i in range(rows)]})


def texts(words: str, labels: str = "ab", **settings: Any) -> TextDataset:
    each = words.split() * 4
    return TextDataset(each, target=[labels[i % 2] for i in range(len(each))], min_freq=1, **settings)


def trainer_of(model: nn.Module, loss: Any = None, **settings: Any) -> Trainer:
    optim = torch.optim.SGD(model.parameters(), 0.01)
    return Trainer(model, loss or nn.CrossEntropyLoss(), optim, progress=False, device="cpu", **settings)


def loader(data: Any) -> DataLoader[Any]:
    collate = data.collate if isinstance(data, TextDataset) else None
    return DataLoader(data, 4, collate_fn=collate)


def refused(model: nn.Module, train_data: Any, other: Any, message: str, *, loss: Any = None) -> None:
    """By fit before the first step, and by evaluate and predict after a fit of the training data."""
    trainer = trainer_of(model, loss)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(DataError, match=message) as caught:
        trainer.fit(loader(train_data), loader(other))
    assert isinstance(caught.value, DlkitError)
    assert trainer.run.step == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    trainer.fit(loader(train_data), loader(train_data))
    for call in (trainer.evaluate, trainer.predict):
        with pytest.raises(DataError, match=message.replace("the validation data", "this data")):
            call(loader(other))
    assert "loss" in trainer.evaluate(loader(train_data))


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (
            ("ants", "wasps"),
            "the training data and the validation data .*: class 1 is 'bees' .* 'wasps' in the validation data",
        ),
        (
            ("bees", "wasps"),
            "class 0 is 'ants' in the training data and 'bees' in the validation data; .*classes=",
        ),
        (("ants",), "class 1 is 'bees' in the training data and missing in the validation data"),
        (("ants", "bees", "wasps"), "class 2 is missing in the training data and 'wasps' in the validation data"),
    ],
)
def test_folders_with_other_classes(photos, classes, message):
    pair = ImageFolder(photos("ants", "bees"), size=8), ImageFolder(photos(*classes), size=8)
    refused(SmallConvNet(3, in_chans=3), *pair, message)


def test_the_way_of_folders(photos):
    first = ImageFolder(photos("ants", "bees"), size=8)
    other = ImageFolder(photos("bees"), size=8, classes=first.classes)
    trainer_of(SmallConvNet(2, in_chans=3)).fit(loader(first), loader(other))


@pytest.mark.parametrize(
    ("target", "other", "message"),
    [
        ("y", table("ac"), "class 1 is 'b' in the training data and 'c' in the validation data; .*spec=train.spec"),
        ("y", table("abc"), "class 2 is missing in the training data and 'c' in the validation data; .*spec="),
        (
            "y",
            table(times=9),
            "column 'x': parts 0 center is 3.25 in the training data and 29.25 in the validation data",
        ),
        ("x", table(times=9), "target center 0 is 3.25 in the training data and 29.25 in the validation data"),
        (
            "y",
            table().assign(colour="blue"),
            "columns 1 is 'colour' in the training data and missing in the validation data",
        ),
        ("y", table().replace("red", "blue"), r"column 'colour': vocabulary 0 is 'red' .* and 'blue'|vocabulary"),
        (
            "y",
            table().rename(columns={"x": "z"}),
            "columns 0 is 'x' in the training data and 'z' in the validation data",
        ),
    ],
)
def test_tables_that_were_fitted_apart(target, other, message):
    first = CSVDataset(table(), target=target)
    regression = first.spec.target.task == "regression"
    model = TabularMLP(first.spec, hidden=[4])
    loss: Any = nn.MSELoss() if regression else nn.CrossEntropyLoss()
    plain = nn.Sequential()  # says nothing of a spec
    plain.add_module("inner", model)
    plain.forward = lambda **parts: model(**parts)  # type: ignore[method-assign]
    refused(plain, first, CSVDataset(other, target=target), message, loss=loss)


def test_the_way_of_tables():
    first = CSVDataset(table(), target="y")
    for other in (table(times=9), table().drop(columns="y")):
        data = CSVDataset(other, target="y" if "y" in other else None, spec=first.spec)
        trainer = trainer_of(TabularMLP(first.spec, hidden=[4]))
        trainer.fit(loader(first), loader(data) if data.targets is not None else None)
        assert trainer.predict(loader(data)).shape == (24, 2)
    again = CSVDataset(table(), target="y")  # the same numbers, found again
    assert again.spec is not first.spec
    assert difference(first, again) is None
    parts = CSVDataset.split(table(), target="y", fractions=0.5)
    trainer_of(TabularMLP(parts[0].spec, hidden=[4])).fit(*map(loader, parts))


def test_a_model_made_for_another_table():
    first, other = CSVDataset(table(), target="y"), CSVDataset(table(times=9), target="y")
    trainer = trainer_of(TabularMLP(first.spec, hidden=[4]))
    for call in (trainer.fit, trainer.evaluate, trainer.predict, trainer.lr_find):
        with pytest.raises(
            DataError, match=r"the model and th.* data mean different things: column 'x': parts 0 center"
        ):
            call(loader(other))
    named = SmallConvNet(2, in_chans=3)
    named.classes = ["b", "a"]
    message = (
        r"the model and the training data .*: class 0 is 'b' in the model and 'a' in the training data; make the mod"
    )
    with pytest.raises(DataError, match=message):
        trainer_of(named).fit(loader(first))
    assert replace_head(named, 2).classes is None  # the new head's outputs have no names yet


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            texts("a good bad film"),
            r"encoder tokens \d is '.*' in the training data and '.*' in the validation data; .*spec=",
        ),
        (
            texts("good bad film", "ac"),
            "class 1 is 'b' in the training data and 'c' in the validation data; .*train.spec",
        ),
        (
            texts("good bad film", max_length=3),
            "max_length is missing in the training data and 3 in the validation data",
        ),
        (texts("good bad film", tokenizer="characters"), "encoder .* in the training data and"),
    ],
)
def test_texts_with_other_vocabularies(other, message):
    first = texts("good bad film")
    refused(TextClassifier(40, 2, encoder="bag"), first, other, message)


def test_the_way_of_texts():
    first = texts("good bad film")
    other = TextDataset(["good", "unknown"], target=["b", "a"], spec=first.spec)
    trainer = trainer_of(TextClassifier(40, 2, encoder="bag"))
    trainer.fit(loader(first), loader(other))
    unlabelled = TextDataset(["film", "good"], spec=first.spec)
    assert trainer.predict(DataLoader(unlabelled, 2, collate_fn=unlabelled.collate)).shape == (2, 2)


@pytest.mark.parametrize(
    ("there", "here", "message"),
    [
        (
            for_training(8),
            for_evaluation(8, mean=0.5, std=0.5),
            r"mean 0 is 0.485 in the training data and 0.5 in the validation data",
        ),
        (for_evaluation(8, std=1.0), for_evaluation(8), r"std 0 is 1.0 in the training data and 0.229"),
        (
            for_evaluation(8, color="L"),
            for_evaluation(8),
            r"color is 'L' in the training data and 'RGB' in the validation data; .*normalisation",
        ),
    ],
)
def test_images_of_another_normalisation(photos, there, here, message):
    root = photos("ants", "bees")
    pair = ImageFolder(root, transform=there), ImageFolder(root, transform=here)
    refused(SmallConvNet(2, in_chans=there.channels), *pair, message)


def test_another_kind_of_data():
    other = texts("good bad film")
    with pytest.raises(DataError, match="the data is a table in the training data and texts in the validation data"):
        trainer_of(TabularMLP(CSVDataset(table(), target="y").spec)).fit(
            loader(CSVDataset(table(), target="y")), loader(other)
        )


# ------------------------------------------------------------------------------------------- what differs on purpose


def test_augmentation_and_size_may_differ_and_the_file_prepares_as_validation_did(photos, tmp_path):
    root = photos("ants", "bees")
    model = SmallConvNet(2, in_chans=3)
    trainer = trainer_of(model)
    whole = ImageFolder(root, transform=for_training(16), augment=Augment(flip=0.5, erase=0.2))
    larger = ImageFolder(root, transform=for_evaluation(24, resize=26))
    trainer.fit(loader(whole), loader(larger))
    predictor = dlkit.load(trainer.save(tmp_path / "model.safetensors"))
    assert predictor.preprocessing == for_evaluation(24, resize=26)
    trainer.fit(loader(whole), epochs=2)
    assert dlkit.load(trainer.save(tmp_path / "model.safetensors")).preprocessing == for_training(16).for_evaluation()


def test_data_that_says_nothing_fits_everything():
    first = CSVDataset(table(), target="y")
    whole = [first[i] for i in range(len(first))]
    trainer = trainer_of(TabularMLP(first.spec, hidden=[4]))
    trainer.fit(loader(first), loader(whole))
    trainer.fit(loader(whole), loader(first), epochs=2)
    assert trainer.run.val_data is first


def test_wrappers_say_what_the_data_behind_them_says():
    first, other = CSVDataset(table(), target="y"), CSVDataset(table("ac"), target="y")
    trainer = trainer_of(TabularMLP(first.spec, hidden=[4]))
    part, rest = random_split(first, [0.5, 0.5], torch.Generator().manual_seed(0))
    trainer.fit(loader(part), loader(ConcatDataset([rest, first])))
    for hidden in (Subset(other, [0, 1]), ConcatDataset([other, other]), Subset(Subset(other, [1, 2]), [0])):
        with pytest.raises(DataError, match="class 1 is 'b' in the training data and 'c' in the validation data"):
            trainer.fit(loader(part), loader(hidden))
        with pytest.raises(DataError, match="class 1 is 'b'"):
            trainer.evaluate(dlkit.DataLoader(hidden, 4))


# ------------------------------------------------------------------------------------------------------ other places


def test_fine_tune_and_compare_refuse_as_well(photos):
    first, other = (ImageFolder(photos("ants", name), size=8) for name in ("bees", "wasps"))
    model = SmallConvNet(2, in_chans=3)
    with pytest.raises(DataError, match="class 1 is 'bees' in the training data and 'wasps' in the validation data"):
        fine_tune(model, loader(first), loader(other), progress=False, device="cpu")
    assert all(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(DataError, match="class 1 is 'bees' in the training data and 'wasps' in the validation data"):
        compare({"small": model}, loader(first), loader(other), progress=False, device="cpu")


def test_the_file_has_the_classes_and_the_scaling_of_the_training_data(tmp_path):
    """Also where the validation data have a spec of their own with the same meaning, or say nothing."""
    first = CSVDataset(table(), target="x")
    model = TabularMLP(first.spec, hidden=[4])
    trainer = trainer_of(model, nn.MSELoss())
    whole = [first[i] for i in range(len(first))]
    for val in (CSVDataset(table(times=9), target="x", spec=first.spec), whole):
        trainer.fit(loader(first), loader(val), epochs=trainer.run.epoch + 1)
        target = dlkit.load(trainer.save(tmp_path / "model.safetensors")).preprocessing.target
        assert (target.center, target.scale) == (first.spec.target.center, first.spec.target.scale)


def test_what_other_libraries_say():
    assert classes_in(SimpleNamespace(classes=["a", "b"], class_to_idx={"a": 0, "b": 1})) == ["a", "b"]
    hugging_face = SimpleNamespace(features={"text": 1, "label": SimpleNamespace(names=["neg", "pos"])})
    assert classes_in(hugging_face) == ["neg", "pos"]
    assert classes_in(SimpleNamespace(classes=np.array(["a", "b"]))) == ["a", "b"]
    for nothing in (None, TensorDataset(torch.zeros(1)), SimpleNamespace(classes=nn.Sequential()), nn.Linear(1, 1)):
        assert classes_in(nothing) is None
    found = difference(hugging_face, SimpleNamespace(classes=["neg", "neutral", "pos"]))
    assert found is not None
    assert found[:3] == ("class 1", "'pos'", "'neutral'")
