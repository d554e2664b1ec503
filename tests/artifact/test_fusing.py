"""`load(..., fuse=True)`: batch normalisations become part of the convolutions before them, and the numbers stay."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from starlette.testclient import TestClient
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

import dlkit
from dlkit.serving import app


class Blocks(nn.Module):
    """Convolutions with normalisations behind them, in ways that can be fused and in ways that cannot.

    Args:
        way: Which.
    """

    def __init__(self, way: str = "plain") -> None:
        super().__init__()
        self.way = way
        self.first, self.norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.second, self.act_norm = nn.Conv2d(4, 4, 3, padding=1, groups=2), BatchNormAct2d(4, act_layer=nn.ReLU6)
        self.last = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        made = self.first(images)
        if self.way == "changed":
            made = made.relu_()
        found = self.norm(made)
        found = found + made if self.way == "used elsewhere" else found
        found = self.act_norm(self.second(found))
        if self.way == "used twice":
            found = self.act_norm(self.second(found))
        return self.last(found.mean((2, 3)))


dlkit.register("tests.fusing.Blocks")(Blocks)


def saved(folder: Path, way: str) -> Path:
    """A file of such a model, whose normalisations have seen something."""
    torch.manual_seed(0)
    model = Blocks(way).train()
    for _ in range(3):
        model(3 * torch.randn(8, 3, 8, 8) + 1)
    return dlkit.save(model.eval(), folder / "model", classes=["a", "b"], example=torch.randn(2, 3, 8, 8))


@pytest.mark.parametrize(("way", "left"), [("plain", 0), ("used twice", 1), ("changed", 1), ("used elsewhere", 2)])
def test_the_numbers_stay_and_normalisations_go(tmp_path: Path, way: str, left: int) -> None:
    file, images = saved(tmp_path, way), torch.randn(5, 3, 8, 8)
    plain, fused = dlkit.load(file), dlkit.load(file, fuse=True)
    torch.testing.assert_close(fused.logits(images), plain.logits(images), atol=1e-5, rtol=1e-5)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in fused.model.modules()) == left
    assert sum(isinstance(module, nn.BatchNorm2d) for module in plain.model.modules()) == 2


def test_a_server_of_a_fused_model(tmp_path: Path) -> None:
    file, images = saved(tmp_path, "plain"), torch.randn(2, 3, 8, 8)
    wanted = [each.probability for each in dlkit.load(file).predict_each(images)]
    with TestClient(application := app(file, fuse=True, workers=1)) as client:
        answers = client.post("/predict", json=images.tolist()).json()["predictions"]
    assert [each["probability"] for each in answers] == pytest.approx(wanted, abs=1e-5)
    (loaded,) = application.models.values()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in loaded.now.predictor.model.modules())
