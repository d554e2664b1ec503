"""A batch none of whose samples can be read is left out; the numbers of batches, steps and samples stay exact."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader as StockLoader
from torch.utils.data import Subset

import dlkit
from dlkit import Trainer
from dlkit.callbacks import Callback, Checkpoint, StopOnNaN
from dlkit.datasets import AudioFolder, ImageFiles, ImageFolder, ImageTable
from dlkit.errors import DataError, EmptyBatchError, TooManyErrorsError

BAD = range(4, 8)  # of 16: with batches of 4 in order the second one is bad as a whole
KINDS = ["folder", "table", "transform", "sounds"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    lines = ["file,label"]
    for number in range(16):
        path = folder / "ab"[number // 8] / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (6, 6), (16 * number, 3, 200)).save(path)
        if number in BAD:
            path.write_bytes(path.read_bytes()[:40])
        sound = folder.with_name("sounds") / "ab"[number // 8] / f"{number:02}.wav"
        sound.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(sound, np.full(80, number / 20), 8_000)
        if number in BAD:
            sound.write_bytes(b"no sound")
        lines.append(f"{path.relative_to(folder)},{'ab'[number // 8]}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder


def tensor(image: Any) -> torch.Tensor:
    return torch.tensor([float(image.getpixel((0, 0))[0])])


def dataset(root: Path, kind: str, **settings: Any) -> Any:
    settings = {"on_error": "skip", "max_errors": 0.5, **settings}
    if kind == "table":
        return ImageTable(root / "table.csv", image="file", target="label", size=6, **settings)
    if kind == "transform":
        return ImageFolder(root, transform=tensor, **settings)
    if kind == "sounds":
        return AudioFolder(root.with_name("sounds"), sample_rate=8_000, seconds=0.01, **settings)
    return ImageFolder(root, size=6, **settings)


def quietly(call: Any) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="left out permanently")
        return call()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_of_ones_own(root, kind, workers):
    loader = dlkit.DataLoader(dataset(root, kind), 4, num_workers=workers)
    good = dataset(root, kind)
    expected = [torch.stack([good[index][0] for index in range(start, start + 4)]) for start in (0, 8, 12)]
    for batches in (quietly(lambda: list(loader)), quietly(lambda: list(loader.batches(0)))):
        assert len(batches) == 3
        assert all(torch.equal(images, wanted) for (images, _), wanted in zip(batches, expected, strict=True))
    assert loader.indices(0, 2) == [8, 9, 10, 11]


def test_a_restart_in_a_loop_of_ones_own(root):
    """The position counts what was planned, so that nothing is seen twice."""
    loader = dlkit.DataLoader(dataset(root, "folder"), 4)
    stream = iter(loader)
    quietly(lambda: (next(stream), next(stream)))
    assert loader.state_dict() == {"epoch": 0, "batch": 3}
    other = dlkit.DataLoader(dataset(root, "folder"), 4)
    other.load_state_dict(loader.state_dict())
    assert len(list(other)) == 1


def test_an_unlabelled_batch(root):
    files = ImageFiles(sorted(root.rglob("*.png")), size=6, on_error="skip", max_errors=0.5)
    assert [len(images) for images in quietly(lambda: list(dlkit.DataLoader(files, 4)))] == [4, 4, 4]


def test_a_single_sample(root):
    """An IndexError would end a loop over the dataset without a word."""
    with pytest.raises(EmptyBatchError, match=r"all 1 samples .* The first: .*04\.png"):
        quietly(lambda: dataset(root, "folder")[4])
    with pytest.raises(EmptyBatchError):
        quietly(lambda: list(dataset(root, "folder")))
    loader = dlkit.DataLoader(dataset(root, "folder"), None)
    assert len(quietly(lambda: list(loader))) == 12


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stock_loader_in_a_loop_of_ones_own_names_the_way(root, workers):
    """torch has no way to leave a batch out."""
    with pytest.raises(
        DataError, match=r"all 4 samples of a batch cannot be read.*dlkit.DataLoader and the Trainer le"
    ):
        quietly(lambda: list(StockLoader(dataset(root, "folder"), 4, num_workers=workers)))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 2)

    def forward(self, x):
        return self.layer(x.flatten(1).mean(1, keepdim=True))


def trainer(*callbacks: Callback, **settings: Any) -> Trainer:
    torch.manual_seed(0)
    model = Net()
    loss = settings.pop("loss", nn.CrossEntropyLoss())
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    return Trainer(model, loss, optimizer, callbacks=callbacks, **{"device": "cpu", "progress": False, **settings})


def weights(made: Trainer) -> torch.Tensor:
    return nn.utils.parameters_to_vector(made.model.parameters()).detach()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_training_is_that_on_the_other_batches(root, kind, workers):
    made, other = trainer(), trainer()
    quietly(lambda: made.fit(StockLoader(dataset(root, kind), 4, num_workers=workers), epochs=2))
    good = dataset(root, kind)
    batches = [(torch.stack([good[i][0] for i in rows]), good.targets[rows]) for rows in ([0, 1, 2, 3], [8, 9, 10, 11])]
    batches.append((torch.stack([good[i][0] for i in range(12, 16)]), good.targets[12:]))
    other.fit(batches, epochs=2)
    assert torch.equal(weights(made), weights(other))
    assert (made.run.step, made.run.cursor.samples) == (6, 24)
    assert made.history["train_loss"] == other.history["train_loss"]


def test_an_accumulated_step_is_made_of_what_is_left(root):
    made, other = trainer(accumulate=2), trainer()
    quietly(lambda: made.fit(StockLoader(dataset(root, "transform"), 4)))
    good = dataset(root, "transform")
    rows = [[0, 1, 2, 3], list(range(8, 16))]
    other.fit([(torch.stack([good[i][0] for i in each]), good.targets[each]) for each in rows])
    assert made.run.step == 2
    torch.testing.assert_close(weights(made), weights(other), rtol=1e-4, atol=1e-4)


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.at = step

    def on_step_end(self, run) -> None:
        if run.step == self.at:
            run.request_stop("later")


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_a_resumed_run_is_the_same(root, tmp_path, stop):
    def loader():
        return StockLoader(dataset(root, "folder"), 2, shuffle=True)

    whole = trainer()
    quietly(lambda: whole.fit(loader(), epochs=3))
    quietly(lambda: trainer(Checkpoint(tmp_path, restore_best=False), StopAt(stop)).fit(loader(), epochs=3))
    resumed = trainer(Checkpoint(tmp_path, restore_best=False))
    history = quietly(lambda: resumed.fit(loader(), epochs=3))
    assert torch.equal(weights(resumed), weights(whole))
    assert history.rows == whole.history.rows
    assert resumed.run.cursor == whole.run.cursor


def test_what_is_said_of_a_later_batch_names_it(root):
    """Steps and batches no longer go together one to one."""

    def loss(output, target):
        return output.mean() * (
            float("nan") if target.sum() == 4 and not loss.seen.append(0) and len(loss.seen) == 2 else 1
        )

    loss.seen = []
    made = trainer(StopOnNaN(), loss=loss)
    quietly(lambda: made.fit(StockLoader(dataset(root, "folder"), 4)))
    assert made.run.stop_reason.startswith("the loss became nan at step 3, epoch 1, batch 4 (samples 12, 13, 14, 15)")


def test_validation_evaluation_prediction_rehearsals(root):
    loader = StockLoader(dataset(root, "transform"), 4)
    good = dataset(root, "transform")
    rows = [0, 1, 2, 3, *range(8, 16)]
    inputs = torch.stack([good[i][0] for i in rows])
    made = trainer(metrics=["accuracy"])
    quietly(lambda: made.fit([(inputs[:4], good.targets[:4])], loader))
    expected = nn.functional.cross_entropy(made.model(inputs), good.targets[rows]).detach()
    assert made.history["val_loss"] == [pytest.approx(float(expected), rel=1e-5)]
    assert made.evaluate(loader)["loss"] == pytest.approx(float(expected), rel=1e-5)
    with pytest.warns(UserWarning, match=r"samples that cannot be read have no prediction, in batch 2: there are"):
        assert torch.equal(made.predict(loader), made.model(inputs).detach())
    assert trainer().overfit(loader, 2, epochs=1)["step"] == [2]
    trainer().dry_run(loader, loader)
    trainer().lr_find(loader, steps=7)


def test_predictions_that_are_fewer_than_samples_are_told_each_time(root):
    """The files are said once for good; which prediction belongs to which sample matters each time."""
    files = dataset(root, "transform")
    made = trainer()
    quietly(lambda: list(dlkit.DataLoader(files, 8)))
    for loader in (StockLoader(files, 8), dlkit.DataLoader(files, 8), StockLoader(Subset(files, range(12)), 8)):
        with pytest.warns(UserWarning, match=r"no prediction, in batch 1: there are fewer predictions than samples"):
            made.predict(loader)
    assert len(made.predict(StockLoader(files.without_errors(), 8))) == 12


def test_the_share_that_is_allowed_still_counts(tmp_path):
    for number in range(24):  # of which 11 are broken, one more than are always allowed
        path = tmp_path / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (6, 6)).save(path)
        if number < 11:
            path.write_bytes(path.read_bytes()[:40])
    for run in (
        lambda: list(dlkit.DataLoader(dataset(tmp_path, "folder", max_errors=0.1), 4)),
        lambda: trainer().fit(StockLoader(dataset(tmp_path, "folder", max_errors=0.1), 4)),
    ):
        with pytest.raises(TooManyErrorsError, match=r"11 of 24 images cannot be read, more than max_errors=0.1"):
            quietly(run)


def test_an_epoch_of_which_nothing_is_left(root):
    files = ImageFolder(root, size=6, on_error="skip", max_errors=1.0)
    loader = StockLoader(files, batch_sampler=[[4, 5], [6, 7]])
    with pytest.raises(DataError, match=r"all 2 batches of epoch 1 were left out, because none of their samples can"):
        quietly(lambda: trainer().fit(loader))


class Subclassed(StockLoader):
    """A loader that cannot be rebuilt, and is a stream."""


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_that_is_taken_as_it_is(root, workers):
    made = trainer()
    quietly(lambda: made.fit(Subclassed(dataset(root, "folder"), 4, num_workers=workers)))
    assert (made.run.step, made.run.cursor.samples) == (3, 12)
