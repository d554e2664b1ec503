"""`ImageTable(target_image=...)`: masks and pictures as targets, moved as their images; plain lists; scaled numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

import dlkit
from dlkit.datasets import ImageTable
from dlkit.errors import ArgumentError, DataError
from dlkit.transforms import Augment, Preprocessing

PLAIN = {"color": "L", "mean": (0.0,), "std": (1.0,)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images whose grey tells the class of each pixel: 0, 100 or 200 for 0, 1 or 2; masks with those numbers."""
    root = tmp_path_factory.mktemp("masks")
    drawn = np.random.default_rng(0)
    for name in range(8):
        labels = np.kron(drawn.integers(0, 3, (6, 8)), np.ones((8, 8))).astype(np.uint8)
        Image.fromarray(labels * 100).save(root / f"{name}.png")
        mask = Image.fromarray(labels, "P")
        mask.putpalette([0, 0, 0, 200, 0, 0, 9, 200, 0])
        mask.save(root / f"{name}_mask.png")
        Image.fromarray(labels * 127).save(root / f"{name}_values.png")
    Image.new("L", (9, 9)).save(root / "small.png")
    Image.new("RGB", (64, 48)).save(root / "colours.png")
    return root


def pairs(end: str = "_mask") -> list[tuple[str, str]]:
    return [(f"{n}.png", f"{n}{end}.png") for n in range(8)]


def opened(folder: Path, source: Any = None, **options: Any) -> ImageTable:
    given = {"transform": Preprocessing(size=(48, 64), **PLAIN), "target_image": "mask", "root": folder, **options}
    return ImageTable(pairs() if source is None else source, **given)


@pytest.mark.parametrize(
    "settings",
    [
        {"fit": "stretch"},
        {"fit": "stretch", "size": (24, 32)},
        {"resize": 96},
        {"augment": Augment(flip=0.5, flip_vertical=0.5, scale=None)},
        {"augment": Augment(scale=(0.3, 0.9), flip=0.5)},
        {"fit": "pad", "size": (64, 64)},
    ],
    ids=["whole", "half", "crop", "flips", "random", "pad"],
)
def test_a_mask_moves_as_its_image(folder: Path, settings: dict[str, Any]) -> None:
    transform = Preprocessing(**{"size": (48, 64), **PLAIN, **settings})
    images, masks = next(iter(dlkit.DataLoader(opened(folder, transform=transform), 8)))
    assert masks.dtype == torch.int64
    assert masks.shape == (8, *transform.size)
    inside = masks != -100
    grey = images[:, 0] * 255 / 100
    pure = inside & ((grey - grey.round()).abs() < 1e-4)  # between two classes a resized image has both of them
    assert float(pure.float().mean()) > 0.4
    assert float((masks == grey.round())[pure].float().mean()) > 0.99  # halfway between 0 and 2 lies 1
    assert bool(inside.all()) == (settings.get("fit") != "pad")
    assert set(masks[inside].unique().tolist()) <= {0, 1, 2}


def test_the_same_for_any_workers_and_in_parts(folder: Path) -> None:
    data = opened(folder, augment=Augment())
    alone = [batch[1] for batch in dlkit.DataLoader(data, 4, shuffle=True, seed=3)]
    workers = [batch[1] for batch in dlkit.DataLoader(data, 4, shuffle=True, seed=3, num_workers=1)]
    assert all(torch.equal(one, two) for one, two in zip(alone, workers, strict=True))
    train, val = data.split(0.5)
    assert train.draws_random
    assert not val.draws_random
    assert val[0][1].shape == (48, 64)


def test_values_are_given_a_meaning(folder: Path) -> None:
    means = {0: 0, 127: 1, 254: -100}
    mask = opened(folder, pairs("_values"), mask_values=means, classes=["ground", "thing"])[0][1]
    assert set(mask.unique().tolist()) == {-100, 0, 1}


def test_a_net_of_torch_learns_them(folder: Path) -> None:
    data = opened(folder, size=None, classes=["a", "b", "c"])
    model = nn.Sequential(nn.Conv2d(1, 8, 1), nn.ReLU(), nn.Conv2d(8, 3, 1))
    optim = torch.optim.Adam(model.parameters(), 0.05)
    trainer = dlkit.Trainer(model, nn.CrossEntropyLoss(), optim, metrics=["accuracy"], device="cpu", progress=False)
    loader = dlkit.DataLoader(data, 4, shuffle=True)
    assert trainer.fit(loader, loader, epochs=40)["val_accuracy"][-1] > 0.95


def test_pictures_are_targets_too(folder: Path) -> None:
    data = opened(folder, {"file": [Path("0.png")], "mask": [Path("0_values.png")]}, target_as="pixels", augment=True)
    image, target = data[0]
    assert target.dtype == torch.float32
    assert target.shape == image.shape == (1, 48, 64)
    assert float((target * 255 / 127 - image * 255 / 100).abs().mean()) < 0.05


@pytest.mark.parametrize(
    ("source", "options", "error", "message"),
    [
        ([("0.png", "small.png")], {}, DataError, "the target has 9 x 9 pixels, and its image 48 x 64"),
        ([("0.png", "colours.png")], {}, DataError, "this is RGB; for a picture as target say target_as='pixels'"),
        (pairs("_values"), {"classes": ["a", "b"]}, DataError, "the pixel value 127 is not a class; .*mask_values="),
        (pairs("_values"), {"mask_values": {0: 0}}, DataError, "the pixel value 127 is not a class"),
        (
            None,
            {"mask_values": {0: 5}, "classes": ["a", "b"]},
            ArgumentError,
            "0 means 5, which is not a class number from 0",
        ),
        (None, {"target_as": "boxes"}, ArgumentError, "target_as must be 'classes' or 'pixels'"),
        (None, {"transform": None}, ArgumentError, "which takes size="),
        (None, {"cache": "memory"}, ArgumentError, "cache= keeps images smaller than they are"),
        ([("0.png", "none.png")], {}, DataError, "none of the first 1 files in column 'mask'"),
        (pairs(), {"target_image": None, "target_as": "pixels"}, ArgumentError, "are for target_image="),
    ],
    ids=["size", "mode", "value", "unknown", "number", "kind", "transform", "cache", "missing", "alone"],
)
def test_what_cannot_be_meant(folder: Path, source: Any, options: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        opened(folder, source, **options)[0]


def test_an_unreadable_mask_leaves_its_sample_out(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"nothing")
    data = opened(folder, [*pairs(), ("0.png", str(tmp_path / "bad.png"))], on_error="skip")
    with pytest.warns(UserWarning, match=r"bad\.png"):
        images, masks = next(iter(dlkit.DataLoader(data, 9)))
    assert len(images) == len(masks) == 8


# ------------------------------------------------------------------------------------------------------- landmarks


@pytest.fixture(scope="module")
def landmarks(tmp_path_factory: pytest.TempPathFactory) -> ImageTable:
    """A bright square somewhere, and 68 points around it, in pixels of a large photograph."""
    root, rows = tmp_path_factory.mktemp("landmarks"), list[dict[str, Any]]()
    drawn = np.random.default_rng(0)
    shape = drawn.uniform(-2, 2, (68, 2))
    for number in range(160):
        top, left = drawn.integers(0, 12, 2)
        pixels = np.zeros((16, 16), np.uint8)
        pixels[top : top + 4, left : left + 4] = 255
        Image.fromarray(pixels).save(root / f"{number}.png")
        points = 1000 + 50 * (shape + np.array([top, left]))
        rows.append({"file": f"{number}.png"} | {f"p{n}": float(v) for n, v in enumerate(points.flatten())})
    names = [f"p{n}" for n in range(136)]
    return ImageTable(pd.DataFrame(rows), target=names, root=root, transform=Preprocessing(size=(16, 16), **PLAIN))


def test_many_numbers_are_scaled_on_the_first_part_and_keep_their_names(landmarks: ImageTable) -> None:
    train, val = landmarks.split(0.75)
    assert train.targets.shape == (120, 136)
    assert float(train.targets.mean(0).abs().max()) < 1e-4
    assert float((train.targets.std(0, correction=0) - 1).abs().max()) < 1e-4
    assert val.target == train.target
    assert float(val.targets.mean().abs()) > 1e-3
    raw = train.target.unscale(train.targets)
    assert torch.allclose(raw, landmarks._unscaled[train.indices], atol=1e-2)
    assert train.target_columns[135] == "p135"


def test_a_net_learns_landmarks_and_answers_in_pixels(landmarks: ImageTable, tmp_path: Path) -> None:
    torch.manual_seed(0)
    train, val = landmarks.split(0.75)
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 136))
    optim = torch.optim.Adam(model.parameters(), 3e-3)
    trainer = dlkit.Trainer(model, nn.MSELoss(), optim, metrics=["mae", "r2"], device="cpu", progress=False)
    history = trainer.fit(dlkit.DataLoader(train, 16, shuffle=True), dlkit.DataLoader(val, 40), epochs=25)
    assert history["val_r2"][-1] > 0.9
    assert history["val_mae"][-1] < 60  # pixels; a guess of the mean is off by 140
    predictor = dlkit.load(trainer.save(tmp_path / "m"))
    table = predictor.predict([val.path(0)])
    assert list(table.columns)[-1] == "p135"
    assert abs(table["p0"][0] - float(val.target.unscale(val.targets)[0, 0])) < 150
    measured = predictor.evaluate(val)
    assert measured["mae"] == pytest.approx(history["val_mae"][-1], rel=1e-3)
    assert predictor.evaluate(landmarks)["samples"] == 160


def test_other_scales_are_refused(landmarks: ImageTable) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 136))
    trainer = dlkit.Trainer(model, nn.MSELoss(), torch.optim.SGD(model.parameters(), 0.1), progress=False)
    with pytest.raises(DataError, match=r"the target's center is .* scale both alike"):
        trainer.fit(dlkit.DataLoader(landmarks.split(0.5)[0], 8), dlkit.DataLoader(landmarks, 8))
    with pytest.raises(ArgumentError, match="the targets are scaled for"):
        landmarks.with_target(dlkit.datasets.windows(range(9), 2).spec.target)
