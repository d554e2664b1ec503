"""Stored features: whole or not there, whatever is killed; and which datasets can be told apart."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

import warm
from dlkit import Trainer, transforms
from dlkit.datasets import Glyphs, ImageFolder
from dlkit.errors import DataError
from dlkit.transfer import freeze
from dlkit.transfer._cut import find_cut, in_best_layout
from dlkit.transfer.features import FeatureStore, identity_of


def batches(calls: list[Any], samples: int = 6) -> Any:
    """Maps of one number, which are taken in turn."""

    def give(view: int, start: int) -> Any:
        for first in range(start, samples, 2):
            calls.append((view, first))
            index = torch.arange(first, min(first + 2, samples))
            yield (index + 100 * view).float().view(-1, 1, 1), index

    return give


@pytest.mark.parametrize("memory_bytes", [0, 1 << 20])
@pytest.mark.parametrize("kept", [False, True])
def test_rows_come_back_from_memory_and_from_a_file(tmp_path: Path, memory_bytes: int, kept: bool) -> None:
    store = FeatureStore(6, 2, tmp_path / "key" if kept else None, memory_bytes=memory_bytes)
    store.fill(batches([]))
    for epoch in range(3):
        values, targets = store.rows([5, 0, 2], epoch, seed=0)
        assert values[:, 0, 0].tolist() == [5 + 100 * ((epoch + 5) % 2), 100 * (epoch % 2), 2 + 100 * (epoch % 2)]
        assert targets.tolist() == [5, 0, 2]
    again = FeatureStore(6, 2, tmp_path / "key" if kept else None, memory_bytes=memory_bytes)
    assert again.open() == kept


def corners(views: int = 3, samples: int = 4, dtype: torch.dtype = torch.float32, targets: Any = None) -> FeatureStore:
    """View k of sample i is 10 i, and one more in its place k: so a mixture tells its own weights."""
    store = FeatureStore(samples, views, None, memory_bytes=1 << 20)
    targets = targets or (lambda view: torch.arange(samples))

    def give(view: int, start: int) -> Any:
        values = 10 * torch.arange(samples, dtype=dtype).unsqueeze(1).repeat(1, views)
        values[:, view] += 1
        return [(values, targets(view))]

    store.fill(give)
    return store


def test_views_are_mixed_anew_in_every_epoch() -> None:
    store, seen = corners(), []
    for epoch in range(50):
        values, targets = store.rows([3, 1], epoch, seed=5)
        weights = values - 10 * targets.unsqueeze(1)
        assert targets.tolist() == [3, 1]
        assert weights.min() >= -1e-5
        torch.testing.assert_close(weights.sum(1), torch.ones(2), atol=1e-5, rtol=0)
        seen.append(weights)
    weights = torch.cat(seen)
    assert len(weights.unique(dim=0)) == 100
    # Evenly over the triangle of all mixtures: each weight is 1/3 in the mean, with a variance of 1/18.
    torch.testing.assert_close(weights.mean(0), torch.full((3,), 1 / 3), atol=0.1, rtol=0)
    torch.testing.assert_close(weights.var(0), torch.full((3,), 1 / 18), atol=0.025, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_mixture_hangs_on_seed_epoch_and_sample_alone(dtype: torch.dtype) -> None:
    store = corners(dtype=dtype)
    whole = store.rows([0, 1, 2, 3], 7, seed=2)[0]
    assert whole.dtype == dtype
    assert torch.equal(whole[[3, 0]], corners(dtype=dtype).rows([3, 0], 7, seed=2)[0])
    assert torch.equal(whole[[2]], store.rows([2], 7, seed=2)[0])
    assert not torch.equal(whole, store.rows([0, 1, 2, 3], 8, seed=2)[0])
    assert not torch.equal(whole, store.rows([0, 1, 2, 3], 7, seed=3)[0])
    assert torch.equal(whole, store.rows([0, 1, 2, 3], 7, seed=2)[0])


def test_views_with_targets_of_their_own_are_taken_in_turn() -> None:
    store = corners(targets=lambda view: {"both": torch.arange(4), "own": torch.full((4,), view)})
    assert not store.mixes
    values, targets = store.rows([1, 2], 0, seed=0)
    assert targets["own"].tolist() == [1, 2]
    assert (values - 10 * targets["both"].unsqueeze(1)).tolist() == [[0, 1, 0], [0, 0, 1]]
    assert corners(targets=lambda view: {"both": torch.arange(4)}).mixes
    assert not corners(views=1).mixes


def test_a_kept_store_mixes_as_the_one_that_computed_it(tmp_path: Path) -> None:
    def give(view: int, start: int) -> Any:
        return [(torch.arange(8.0).view(4, 2) + 100 * view, torch.arange(4))]

    made, opened = (FeatureStore(4, 2, tmp_path / "key", memory_bytes=size) for size in (1 << 20, 0))
    made.fill(give)
    assert opened.open()
    assert opened.mixes
    assert torch.equal(made.rows([2, 1], 3, seed=0)[0], opened.rows([2, 1], 3, seed=0)[0])


def test_targets_of_several_parts_and_none(tmp_path: Path) -> None:
    for name, target in (("dict", {"a": torch.arange(3), "b": torch.ones(3, 2)}), ("none", None)):
        FeatureStore(3, 1, tmp_path / name, memory_bytes=99).fill(lambda view, start, t=target: [(torch.eye(3), t)])
        store = FeatureStore(3, 1, tmp_path / name, memory_bytes=99)
        assert store.open()
        found = store.rows([1], 0, seed=0)[1]
        assert found is None if target is None else found["a"].tolist() == [1]


def test_too_few_rows_or_other_shapes_are_refused() -> None:
    with pytest.raises(DataError, match="4 of 5 samples"):
        FeatureStore(5, 1, None, memory_bytes=99).fill(lambda view, start: [(torch.zeros(4, 1), torch.zeros(4))])
    shapes = [(torch.zeros(2, 1), torch.zeros(2)), (torch.zeros(2, 3), torch.zeros(2))]
    with pytest.raises(DataError, match=r"\[2, 3\] among those of \[4, 1\]"):
        FeatureStore(4, 1, None, memory_bytes=99).fill(lambda view, start: shapes)


KILLED = """
import os, pathlib, signal, sys, torch
from dlkit.transfer import features
features._SAVE_EVERY = 0.0
def give(view, start):
    for first in range(start, 6, 2):
        if (view, first) == (1, 2):
            os.kill(os.getpid(), signal.SIGKILL)
        index = torch.arange(first, first + 2)
        yield (index + 100 * view).float().view(-1, 1, 1), index
features.FeatureStore(6, 2, pathlib.Path(sys.argv[1]), memory_bytes=1 << 20).fill(give)
"""


def test_a_killed_computation_goes_on_where_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "key"
    process = warm.run(["-c", KILLED, folder])
    assert process.returncode == -signal.SIGKILL
    store, calls = FeatureStore(6, 2, folder, memory_bytes=1 << 20), []
    assert not store.open()
    store.fill(batches(calls))
    assert calls == [(1, 2), (1, 4)]
    assert store.rows([0, 1, 5], 0, seed=0)[0][:, 0, 0].tolist() == [0, 101, 105]
    assert store.rows([0, 1, 5], 1, seed=0)[0][:, 0, 0].tolist() == [100, 1, 5]
    assert FeatureStore(6, 2, folder, memory_bytes=0).open()


@pytest.mark.parametrize("name", ["features.bin", "targets"])
def test_damaged_files_are_computed_anew(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "key"
    FeatureStore(6, 1, folder, memory_bytes=1 << 20).fill(batches([]))
    (folder / name).write_bytes((folder / name).read_bytes()[:-3])
    store = FeatureStore(6, 1, folder, memory_bytes=1 << 20)
    assert not store.open()
    store.fill(batches([]))
    assert store.rows([3], 0, seed=0)[0].item() == 3


def test_identities(tmp_path: Path) -> None:
    one, other = TensorDataset(torch.zeros(4)), TensorDataset(torch.ones(4))
    assert identity_of(one) == identity_of(TensorDataset(torch.zeros(4))) != identity_of(other)
    assert identity_of(Subset(one, [0, 1])) != identity_of(Subset(one, [1, 0]))
    assert identity_of([1, 2]) is None
    (tmp_path / "a").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "a" / "0.png")
    resize, folder = torchvision.transforms.Resize, torchvision.datasets.ImageFolder
    first = identity_of(folder(str(tmp_path), resize(4)))
    assert first == identity_of(folder(str(tmp_path), resize(4))) != identity_of(folder(str(tmp_path), resize(5)))
    assert identity_of(folder(str(tmp_path), lambda image: image)) is None
    assert identity_of(folder(str(tmp_path), torchvision.transforms.Lambda(abs))) is None
    Image.new("RGB", (5, 5), "red").save(tmp_path / "a" / "0.png")
    assert identity_of(folder(str(tmp_path), resize(4))) != first


class Scaled(torch.nn.Module):
    """A transform that does not print what it does."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image * self.factor


def test_letters_are_known_by_their_pixels_labels_and_transform() -> None:
    whole = Glyphs(60)
    first = identity_of(whole)
    assert first is not None
    assert first == identity_of(Glyphs(60)) != identity_of(Glyphs(60, seed=1))
    train, val = whole.split(0.5, group=None)
    assert len({first, identity_of(train), identity_of(val)}) == 3
    assert identity_of(whole.with_transform(Scaled(1))) == identity_of(whole.with_transform(Scaled(1)))
    assert identity_of(whole.with_transform(Scaled(1))) != identity_of(whole.with_transform(Scaled(2)))
    assert identity_of(whole.with_transform(lambda image: image)) is None
    whole.targets[0] = 9
    assert identity_of(whole) != first


def test_photos_are_known_by_their_files_and_preparation(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.new("RGB", (40, 40), (number, 0, 0)).save(tmp_path / name / f"{number}.png")
    first = identity_of(ImageFolder(tmp_path, size=16))
    assert first is not None
    assert first == identity_of(ImageFolder(tmp_path, size=16))
    changed = [
        ImageFolder(tmp_path, size=20),
        ImageFolder(tmp_path, transform=transforms.for_training(16)),
        ImageFolder(tmp_path, size=16, cache="memory"),
        *ImageFolder(tmp_path, size=16).split(0.5),
    ]
    assert len({first, *map(identity_of, changed)}) == 6
    assert identity_of(ImageFolder(tmp_path, transform=lambda image: torch.zeros(1))) is None
    Image.new("RGB", (40, 40), "red").save(tmp_path / "b" / "2.png")
    assert identity_of(ImageFolder(tmp_path, size=16)) != first


IDENTITIES = """
import sys, torchvision
from torchvision import transforms as tv
from dlkit import Trainer, transforms
from dlkit.datasets import Glyphs, ImageFolder
from dlkit.transfer import freeze
from dlkit.transfer._cut import find_cut, in_best_layout
from dlkit.transfer.features import identity_of

compose = tv.Compose([tv.RandomResizedCrop(16), tv.ColorJitter(0.1), tv.ToTensor(), tv.Normalize([0.5] * 3, [0.2] * 3)])
print(identity_of(ImageFolder(sys.argv[1], transform=transforms.for_training(16))))
print(identity_of(ImageFolder(sys.argv[1], transform=compose)))
print(identity_of(torchvision.datasets.ImageFolder(sys.argv[1], compose)))
print(identity_of(Glyphs(20, transform=tv.RandomErasing())))
"""


def test_identities_are_the_same_in_every_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (40, 40)).save(tmp_path / name / "0.png")
    first = warm.run(["-c", IDENTITIES, tmp_path], check=True).stdout
    monkeypatch.setattr(sys, "argv", ["-c", str(tmp_path)])
    exec(IDENTITIES, {})
    assert capsys.readouterr().out == first
    assert "None" not in first
    assert len(set(first.split())) == 4


def test_a_subclass_that_gives_other_samples_is_not_taken_for_its_parent() -> None:
    class Inverted(Glyphs):
        def take(self, indices: torch.Tensor) -> Any:
            images, targets = super().take(indices)
            return 1 - images, targets

    class Named(Inverted):
        @property
        def identity(self) -> str | None:
            return "inverted"

    assert identity_of(Inverted(20)) is None
    assert identity_of(Named(20)) == "Named:inverted"


class Viewed(nn.Module):
    """Flattens as it was written in old days, which only the usual layout allows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(len(x), -1)


@pytest.mark.parametrize("flat", [nn.Flatten(), Viewed()])
def test_images_lie_channels_last_where_the_model_takes_them_so(flat: nn.Module) -> None:
    torch.manual_seed(0)
    seen: list[bool] = []
    model = nn.Sequential(
        nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.ReLU(), flat, nn.Linear(8 * 64, 16), nn.ReLU(), nn.Linear(16, 2)
    )
    freeze(model)[0].register_forward_pre_hook(
        lambda module, args: seen.append(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    images = torch.randn(4, 3, 32, 32)
    cut = find_cut(model, images)
    best = in_best_layout(cut, images)
    seen.clear()
    assert torch.allclose(best.features(images), cut.features(images), atol=1e-6)
    assert seen == [not isinstance(flat, Viewed), False]
    assert in_best_layout(cut, (images, images)) is cut
    messages: list[str] = []
    optim = torch.optim.SGD(model[6].parameters(), 0.1)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim, device="cpu", progress=False)
    trainer.run.say = messages.append  # type: ignore[method-assign]
    trainer.fit(DataLoader(TensorDataset(images, torch.arange(4) % 2), 2), epochs=3)
    assert "the frozen backbone runs once over 4 training samples" in messages[0]
