"""`fine_tune` and `compare` on data that a small network separates."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from dlkit import compare, fine_tune
from dlkit.errors import ArgumentError, DataError
from dlkit.recipes.tuning import _Best
from dlkit.transfer import is_frozen


def loader(seed: int, samples: int = 48) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.arange(samples) % 2
    images = torch.randn(samples, 3, 8, 8, generator=generator) + target.view(-1, 1, 1, 1) * 1.5
    return DataLoader(TensorDataset(images, target), 16, shuffle=seed == 0)


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    )


def test_fine_tune_chooses_trains_and_returns_the_best() -> None:
    found = fine_tune(network(), loader(0), loader(1), epochs=3, head_epochs=6, progress=False, device="cpu")
    assert len(found.tried) == 6
    assert found.tried[found.lr, found.weight_decay] == max(found.tried.values())
    model, right = found.model, 0
    assert not is_frozen(model)
    assert not model.training
    with torch.no_grad():
        for images, target in loader(1):
            right += int((model(images).argmax(1) == target).sum())
    assert right / 48 == pytest.approx(found.score)
    assert found.score >= max(found.tried.values())
    assert found.score > 0.7


def test_fine_tune_of_the_head_alone_leaves_the_backbone() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = fine_tune(
        model, loader(0), loader(1), epochs=0, head_epochs=2, lr=0.01, weight_decay=0.0, progress=False, device="cpu"
    )
    assert found.kept == "head"
    assert found.whole is None
    after = model.state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["5.weight", "5.bias"]
    for wrong in (-1, 2.5, True):
        with pytest.raises(ArgumentError, match=r"^epochs must be a whole number of at least 0, not"):
            fine_tune(network(), loader(0), loader(1), epochs=wrong)


class Nameless(Dataset[Any]):
    """Samples that nothing tells apart in the next run, perhaps with random crops; counts how often they are read."""

    def __init__(self, seed: int, *, noise: float = 0.0) -> None:
        self.base, self.noise, self.fetched = loader(seed).dataset, noise, 0

    def __len__(self) -> int:
        return len(self.base)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        self.fetched += 1
        image, target = self.base[index]
        return image + self.noise * torch.randn_like(image) if self.noise else image, target


@pytest.mark.parametrize(("noise", "views"), [(0.0, 1), (0.1, 4)])
def test_all_settings_of_the_head_share_the_features_of_one_pass(noise: float, views: int, capsys: Any) -> None:
    train, val = Nameless(0, noise=noise), Nameless(1)
    found = fine_tune(network(), DataLoader(train, 16), DataLoader(val, 16), epochs=0, head_epochs=8)
    assert len(found.tried) == 6
    looks = 6 * 16  # of each training at its first batch, to see whether anything is random
    assert train.fetched <= 2 * (views * 48 + looks) + 16  # twice, because nobody says that nothing is drawn
    assert val.fetched <= 2 * (48 + looks)
    message = capsys.readouterr().err
    assert message.count("the frozen backbone runs once over 48 training samples") == 1
    assert ("(4 views of each, mixed again in every epoch)" in message) == (views == 4)


def test_without_stored_features_only_the_usual_setting_is_tried(capsys: Any) -> None:
    train, val = DataLoader(Nameless(0, noise=0.1), 16), DataLoader(Nameless(1), 16)
    found = fine_tune(network(), train, val, epochs=0, head_epochs=2, reuse_features=False)
    assert list(found.tried) == [(1e-3, 1e-4)]
    assert "features are not stored, so only lr 0.001, weight decay 0.0001 was tried" in capsys.readouterr().err


def test_equal_accuracies_are_told_apart_by_the_loss() -> None:
    rows = [(0.5, 0.7), (0.75, 0.6), (0.75, 0.4), (0.75, 0.5), (0.5, 0.1)]
    best = _Best("val_accuracy", 0.1, 0.0)
    layer = nn.Linear(1, 1, bias=False)
    run = types.SimpleNamespace(model=layer)
    for number, (accuracy, loss) in enumerate(rows):
        nn.init.constant_(layer.weight, number)
        best.on_log(run, {"val_accuracy": accuracy, "val_loss": loss})
    assert (best.value, best.loss, best.weights["weight"].item()) == (0.75, 0.4, 2.0)


def test_compare_ranks_backbones_by_their_features() -> None:
    class Blind(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 0

    rows = compare(
        {"blind": nn.Sequential(Blind(), *network()), "seeing": network()}, loader(0), loader(1), progress=False
    )
    assert [row.name for row in rows] == ["seeing", "blind"]
    assert rows[0].linear > 0.9
    assert rows[0].knn > 0.8
    assert rows[1].linear == pytest.approx(0.5)
    assert rows[0].features == 8
    assert rows[0].parameters == pytest.approx(sum(each.numel() for each in network().parameters()) / 1e6)


def test_compare_makes_backbones_for_grey_images_and_leaves_given_ones_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "hubconf.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "def small(pretrained=False):\n"
        "    torch.manual_seed(0)\n"
        "    pooled = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
        "    return nn.Sequential(*pooled, nn.Linear(8, 9))\n"
    )
    images, target = loader(0).dataset.tensors  # type: ignore[attr-defined]
    grey = DataLoader(TensorDataset(images[:, :1], target), 16)
    (row,) = compare([f"hub/{tmp_path}:small"], grey, grey, progress=False)
    assert row.linear > 0.8
    model = network()
    compare({"mine": model}, loader(0), loader(1), progress=False)
    assert not is_frozen(model)
    assert next(model.parameters()).device.type == "cpu"
    with pytest.raises(DataError, match="the validation data give no batch"):
        compare({"mine": model}, loader(0), [], progress=False)
