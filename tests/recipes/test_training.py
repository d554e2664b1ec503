"""`train`: from data to a model file that is judged, kept apart from other runs, and resumes where it was stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import dlkit
from dlkit.errors import ArgumentError, DownloadError, ResumeError
from dlkit.recipes import Trained, read_data, train

QUIET: dict[str, Any] = {"device": "cpu", "progress": False}


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table whose target two columns decide."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("tables") / "members.csv"
    visits, plan = rng.integers(0, 30, 400), rng.choice(["month", "year"], 400)
    left = np.where(visits + 8 * (plan == "year") < 14, "yes", "no")
    pd.DataFrame({"visits": visits, "plan": plan, "price": 3.0 * visits + 100.5, "left": left}).to_csv(
        path, index=False
    )
    return path


@pytest.fixture(scope="module")
def trained(members: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    out = tmp_path_factory.mktemp("runs") / "members"
    return train(members, target="left", drop=["price"], epochs=12, out=out, **QUIET)


def test_a_table_becomes_a_judged_model_file(trained: Trained) -> None:
    assert trained.judged_on == "test"
    assert trained.metrics["accuracy"] >= 0.9
    assert trained.path == trained.folder / "model.safetensors"
    assert trained.path.is_file()
    assert not trained.interrupted
    assert len(trained.history["val_loss"]) == 12
    assert (trained.folder / "history.csv").read_text().count("\n") == 13


def test_the_model_file_is_as_good_as_what_was_trained(trained: Trained, members: Path) -> None:
    predictor = dlkit.load(trained.path)
    assert predictor.classes == ["no", "yes"]
    assert predictor.evaluate(trained.data.test)["accuracy"] == pytest.approx(trained.metrics["accuracy"])


def test_a_finished_run_trains_nothing_and_says_the_same(trained: Trained, members: Path) -> None:
    files = {path.name for path in trained.folder.glob("checkpoint-*")}
    again = train(members, target="left", drop=["price"], epochs=12, out=trained.folder, **QUIET)
    assert again.stopped.startswith("completed")
    assert again.metrics == trained.metrics
    assert {path.name for path in trained.folder.glob("checkpoint-*")} == files


def test_another_run_never_goes_on_in_the_folder(trained: Trained, members: Path) -> None:
    with pytest.raises(ResumeError, match=r"holds another run:\n  target: there 'left', now 'plan'"):
        train(members, target="plan", drop=["price"], out=trained.folder, **QUIET)
    kept = json.loads((trained.folder / "recipe.json").read_text())
    assert (kept["target"], kept["arch"]) == ("left", "ensemble")


def test_beginning_anew_moves_the_earlier_run_aside(members: Path, tmp_path: Path) -> None:
    train(members, target="left", epochs=1, out=tmp_path, **QUIET)
    train(members, target="plan", epochs=1, out=tmp_path, resume=False, **QUIET)
    assert json.loads((tmp_path / "recipe.json").read_text())["target"] == "plan"
    assert json.loads((tmp_path / "earlier-1" / "recipe.json").read_text())["target"] == "left"
    assert (tmp_path / "earlier-1" / "model.safetensors").is_file()


def test_more_epochs_go_on_with_the_run(members: Path, tmp_path: Path) -> None:
    train(members, target="left", epochs=1, out=tmp_path, **QUIET)
    more = train(members, target="left", epochs=3, out=tmp_path, **QUIET)
    assert more.history["epoch"] == [1, 2, 3]


def test_a_damaged_note_is_told(members: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text("{")
    with pytest.raises(ResumeError, match=r"recipe\.json cannot be read"):
        train(members, target="left", out=tmp_path, **QUIET)


def test_errors_of_a_regression_come_in_the_units_of_the_file(members: Path, tmp_path: Path) -> None:
    trained = train(members, target="price", drop=["left", "plan"], epochs=8, lr=1e-2, out=tmp_path, **QUIET)
    prices = pd.read_csv(members)["price"]
    test = trained.data.test
    with torch.no_grad():
        scaled = trained.model(numeric=test.numeric)  # in eval mode already
    errors = test.unscale_target(scaled) - test.unscale_target(test.targets)
    assert trained.metrics["mae"] == pytest.approx(float(errors.abs().mean()), rel=1e-4)
    assert trained.metrics["mae"] < prices.std()


@pytest.fixture(scope="module")
def imbalanced() -> pd.DataFrame:
    """Of some hundred rows a few are "yes", which no column tells for sure."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=600)
    return pd.DataFrame({"x": x, "rare": np.where(x + 0.7 * rng.normal(size=600) > 2.1, "yes", "no")})


@pytest.mark.parametrize("arch", ["mlp", "boosting"])
def test_weights_make_the_model_answer_with_a_rare_class(imbalanced: pd.DataFrame, tmp_path: Path, arch: str) -> None:
    options: dict[str, Any] = {"target": "rare", "arch": arch} | ({"epochs": 8} if arch == "mlp" else {}) | QUIET
    plain = train(imbalanced, out=tmp_path / "plain", **options)
    weighed = train(imbalanced, out=tmp_path / "weighed", class_weights="balanced", **options)
    found = [run.standing.classes[1].predicted for run in (plain, weighed) if run.standing is not None]
    assert found[1] > found[0] or (arch == "boosting" and weighed.metrics["loss"] != plain.metrics["loss"])
    with pytest.raises(ResumeError, match="class_weights: there 'balanced', now None"):
        train(imbalanced, out=tmp_path / "weighed", **options)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("even", "class_weights must be 'balanced' or a weight for each class, not 'even'"),
        ({"yes": 2.0}, r"must have a weight for each class \(no, yes\), and has them for yes"),
        ({"yes": 2.0, "no": 0.0}, "must be numbers above 0"),
    ],
)
def test_weights_that_are_not_those_of_the_classes_are_refused(
    imbalanced: pd.DataFrame, tmp_path: Path, weights: Any, message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        train(imbalanced, target="rare", class_weights=weights, out=tmp_path, **QUIET)


def test_a_regression_has_no_classes_to_weigh(members: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="this is a regression, which has no classes"):
        train(members, target="price", class_weights="balanced", out=tmp_path, **QUIET)


def test_texts_become_a_model_file(tmp_path: Path) -> None:
    rows = [
        (f"number {n}: {word}", verdict) for n in range(60) for word, verdict in (("great", "good"), ("dull", "bad"))
    ]
    pd.DataFrame(rows, columns=["review", "verdict"]).to_csv(tmp_path / "films.csv", index=False)
    trained = train(tmp_path / "films.csv", text="review", target="verdict", out=tmp_path / "run", **QUIET)
    assert trained.metrics["accuracy"] == 1
    assert dlkit.load(trained.path).predict_one("so dull").label == "bad"


def test_small_images_learn_from_scratch_and_photos_do_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for place, (name, shade) in enumerate((("dark", 60), ("light", 200))):
        (tmp_path / "all" / name).mkdir(parents=True)
        for number in range(30):
            pixels = np.clip(rng.normal(shade, 20, (20, 20)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "all" / name / f"{place}-{number}.png")
    trained = train(tmp_path / "all", epochs=3, out=tmp_path / "run", **QUIET)
    assert trained.metrics["accuracy"] == 1
    assert dlkit.load(trained.path).predict_one(tmp_path / "all" / "dark" / "0-1.png").label == "dark"


@pytest.fixture
def photos(tmp_path: Path, shared_data: Path) -> Path:
    """Some ants and bees, in the layout of the real folder."""
    for part, number in (("train", 6), ("val", 3)):
        for name in ("ants", "bees"):
            folder = tmp_path / "photos" / part / name
            folder.mkdir(parents=True)
            for path in sorted((shared_data / "images/hymenoptera" / part / name).glob("*.jpg"))[:number]:
                (folder / path.name).symlink_to(path)
    return tmp_path / "photos"


def test_a_frozen_backbone_with_weights_from_a_file(photos: Path, shared_data: Path, tmp_path: Path) -> None:
    weights = shared_data / "weights/mobilenet_v2_imagenet.pth"
    options: dict[str, Any] = {"arch": "torchvision/mobilenet_v2", "weights": weights, "epochs": 2} | QUIET
    trained = train(photos, views=2, image_size=96, batch_size=4, out=tmp_path / "run", **options)
    own = torch.load(weights, weights_only=True)["features.0.0.weight"]
    assert torch.equal(trained.model.state_dict()["features.0.0.weight"], own)
    assert trained.judged_on == "val"
    predictor = dlkit.load(trained.path)
    assert predictor.classes == ["ants", "bees"]
    assert list(predictor.preprocessing.size) == [96, 96]
    assert predictor.evaluate(trained.data.val)["accuracy"] == pytest.approx(trained.metrics["accuracy"])


def test_a_whole_backbone_learns_where_that_is_asked_for(photos: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"arch": "torchvision/squeezenet1_1", "pretrained": False, "image_size": 96, "epochs": 1}
    trained = train(photos, out=tmp_path / "run", **options, **QUIET)
    assert all(parameter.requires_grad for parameter in trained.model.parameters())


def test_pretrained_weights_are_never_left_out_silently(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLKIT_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        DownloadError, match=r"Without a network: weights= takes a file.*arch='small'.*pretrained=False"
    ):
        train(photos, out=tmp_path / "run", **QUIET)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arch": "mpl"}, "arch='mpl': do you mean 'mlp'"),
        ({"views": 4}, "views=4: this is for images, and the data is a table"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1, not 0"),
        ({"lr": -1.0}, "lr must be a number above 0, not -1.0"),
    ],
)
def test_what_cannot_be_meant_for_a_table_is_refused(
    members: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        train(members, target="left", out=tmp_path / "run", **options, **QUIET)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arch": "resnet81"}, "no model 'resnet81'.*did you mean"),
        ({"pretrained": False, "freeze": True}, "would train a head on random features"),
        ({"pretrained": False, "views": 2}, "views=2 are stored features of a frozen backbone"),
        ({"arch": "small", "freeze": True}, "freeze=True: the small network learns from scratch"),
    ],
)
def test_what_cannot_be_meant_for_photos_is_refused(
    photos: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        train(photos, out=tmp_path / "run", **options, **QUIET)


def test_data_that_was_read_takes_no_reading_options(members: Path, tmp_path: Path) -> None:
    data = read_data(members, target="left")
    with pytest.raises(ArgumentError, match="drop: say this to read_data"):
        train(data, drop=["price"], out=tmp_path, **QUIET)
