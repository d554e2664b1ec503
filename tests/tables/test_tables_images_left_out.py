"""Rows whose image file cannot be decoded are left out where `on_error="skip"` is asked for, whole batches included."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader as StockLoader

import dlkit
from dlkit import Trainer
from dlkit.datasets import CSVDataset
from dlkit.errors import DataError, EmptyBatchError, TooManyErrorsError
from dlkit.reading import blocks

BAD = [2, 4, 5, 6, 7]  # of 60: one of the first batch of 4, and all of the second


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table")
    lines = ["photo,x,label"]
    for number in range(60):
        path = folder / f"{number:02}.png"
        Image.new("RGB", (6, 6), (4 * number, 3, 200)).save(path)
        if number in BAD:
            path.write_bytes(path.read_bytes()[:40])
        lines.append(f"{path.name},{number}.5,{'ab'[number % 2]}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder / "table.csv"


def dataset(table: Path, kind: str = "memory", **settings: Any) -> CSVDataset:
    settings = {"on_error": "skip", **settings}
    if kind == "transform":
        settings["image_transform"] = lambda image: torch.tensor([float(image.getpixel((0, 0))[0])])
    else:
        settings["image_size"] = 6
    return CSVDataset(table, target="label", image=["photo"], scale="none", streaming=kind == "streamed", **settings)


def quietly(call: Any) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="left out permanently")
        return call()


def numbers(inputs: dict[str, torch.Tensor]) -> list[int]:
    return [int(value) for value in inputs["numeric"][:, 0]]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["memory", "transform", "streamed"])
def test_rows_and_whole_batches_are_left_out(table, kind, workers):
    context = "fork" if workers else None  # the transform is a lambda
    loader = dlkit.DataLoader(dataset(table, kind), 4, num_workers=workers, multiprocessing_context=context)
    batches = quietly(lambda: list(loader))
    seen = [number for inputs, _ in batches for number in numbers(inputs)]
    assert seen == [number for number in range(60) if number not in BAD]
    assert [len(target) for _, target in batches[:2]] == [3, 4]
    for inputs, target in batches:
        assert target.tolist() == [number % 2 for number in numbers(inputs)]
        red = inputs["image"].reshape(len(target), -1)[:, 0]
        if kind == "transform":
            assert red.tolist() == [4.0 * number for number in numbers(inputs)]
        assert red.diff().gt(0).all()  # each row has its own image


def test_a_batch_of_several_blocks_from_which_some_are_missing(table, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 40)  # two or three rows
    loader = dlkit.DataLoader(dataset(table, "streamed"), 6)
    batches = quietly(lambda: list(loader))
    seen = [number for inputs, _ in batches for number in numbers(inputs)]
    assert seen == [number for number in range(60) if number not in BAD]
    assert all(target.tolist() == [number % 2 for number in numbers(inputs)] for inputs, target in batches)


def test_it_is_said_once_for_each_file(table):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loader = dlkit.DataLoader(dataset(table), 4)
        for _ in range(2):
            list(loader)
    assert len(caught) == len(BAD)
    assert "02.png" in str(caught[0].message)


@pytest.mark.parametrize("kind", ["memory", "transform", "streamed"])
def test_without_the_policy_the_first_one_stops(table, kind):
    with pytest.raises(DataError, match=r"02\.png"):
        list(dlkit.DataLoader(dataset(table, kind, on_error="raise"), 4))


def test_a_single_row_and_a_stock_loader_name_the_way(table):
    with pytest.raises(EmptyBatchError, match="images of all 1 rows of a batch cannot be decoded"):
        quietly(lambda: dataset(table)[2])
    with pytest.raises(EmptyBatchError, match=r"all 4 rows .* dlkit.DataLoader and the Trainer leave such a batch out"):
        quietly(lambda: list(StockLoader(dataset(table), 4)))


def test_the_share_that_is_allowed_still_counts(table, tmp_path):
    lines = table.read_text().splitlines()
    few = table.with_name("bad.csv")
    few.write_text("\n".join([lines[0], *(lines[1 + number] for number in BAD * 3)]) + "\n")
    with pytest.raises(DataError, match="batches"):  # five files are few enough, but nothing is left
        quietly(lambda: fit(dataset(few)))
    for number in range(20):
        (table.parent / f"more{number}.png").write_bytes(b"\x89PNG no more")
    many = table.with_name("many.csv")
    many.write_text("\n".join([lines[0], *(f"more{number}.png,1,{'ab'[number % 2]}" for number in range(20))]) + "\n")
    with pytest.raises(TooManyErrorsError, match=r"of 20 rows cannot be read, more than max_errors=0.1 allows"):
        quietly(lambda: list(dlkit.DataLoader(dataset(many), 4)))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 2)

    def forward(self, numeric, image):
        return self.layer(numeric / 60)


def fit(data: CSVDataset, workers: int = 0) -> Trainer:
    torch.manual_seed(0)
    model = Net()
    optim = torch.optim.SGD(model.parameters(), 0.1)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim, device="cpu", progress=False)
    trainer.fit(StockLoader(data, 4, num_workers=workers))
    return trainer


@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_goes_on(table, workers):
    trainer = quietly(lambda: fit(dataset(table), workers))
    assert (trainer.run.step, trainer.run.cursor.samples) == (14, 55)
