"""Few small photographs: a backbone that enlarges them, where its weights are here; else from scratch, and why."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dlkit.models import SmallConvNet
from dlkit.recipes import for_pictures, read_data, train
from dlkit.recipes.choices import Wish
from dlkit.transfer import load_weights
from dlkit.transfer.weights import is_here


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, drawn = tmp_path_factory.mktemp("small"), np.random.default_rng(0)
    for name, shade in (("ants", 60), ("bees", 190)):
        (root / name).mkdir()
        for number in range(15):
            pixels = drawn.integers(shade - 50, shade + 50, (32, 32, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def test_without_weights_it_says_what_would_be_better(photographs: Path, tmp_path: Path) -> None:
    data = read_data(photographs)
    choice = for_pictures.for_images(data, Wish())
    assert isinstance(choice.model, SmallConvNet)
    assert any("dlkit download torchvision/resnet18 fetches one" in line for line in choice.why)
    assert len(for_pictures.for_images(data, Wish(arch="small")).why) == 1  # asked for
    trained = train(data, out=tmp_path, epochs=1, device="cpu", progress=False)
    assert trained.path is not None


def test_with_weights_it_is_a_backbone_and_a_run_goes_on_with_its_model(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, options = read_data(photographs), {"epochs": 1, "device": "cpu", "progress": False}
    first = train(data, out=tmp_path, **options)
    monkeypatch.setattr(for_pictures, "has_weights", lambda name: True)
    created = for_pictures.create_model

    def random(*args: Any, **settings: Any) -> Any:
        return created(*args, **{**settings, "pretrained": False})

    monkeypatch.setattr(for_pictures, "create_model", functools.partial(random))
    choice = for_pictures.for_images(data, Wish())
    assert (choice.arch, choice.frozen) == ("torchvision/resnet18", True)
    assert train(data, out=tmp_path, **options).metrics == first.metrics  # begun with the small one


def test_weights_are_known_to_be_here_once_they_were_fetched(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 1).state_dict(), tmp_path / "weights.pth")
    url = (tmp_path / "weights.pth").as_uri()
    assert not is_here(url)
    load_weights(torch.nn.Linear(2, 1), url)
    assert is_here(url)
