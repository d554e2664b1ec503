"""Makes the golden files of a release: `python tests/golden/make.py VERSION`. Earlier files are never made again."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dlkit import Trainer, load, save
from dlkit.callbacks import EMA, Callback, Checkpoint, EarlyStopping, LearningRate
from dlkit.models import TextClassifier
from dlkit.specs import TextSpec
from dlkit.tokens import Vocabulary

HERE = Path(__file__).parent


class Stop(Callback):
    """Leaves the run in the middle of its second epoch."""

    def on_step_end(self, run) -> None:
        if run.step == 20:
            run.request_stop("golden")


class Losses(Callback):
    """Every step's loss to full precision."""

    def __init__(self) -> None:
        self.values: list[str] = []

    def on_fit_start(self, run) -> None:
        run.losses.watchers.append(lambda first, read: self.values.extend(value.hex() for value in read["loss"]))


def trainer(folder: Path, *extra: Callback) -> Trainer:
    """A run that uses everything a checkpoint holds."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    schedule = LearningRate(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 45), every="step", warmup=5)
    callbacks = [EMA(0.9), EarlyStopping(patience=9), Checkpoint(folder, every="10 steps"), *extra]
    return Trainer(
        model, nn.CrossEntropyLoss(), optimizer, metrics=["accuracy"], callbacks=callbacks, scheduler=schedule,
        progress=False, device="cpu",
    )  # fmt: skip


def loaders() -> tuple[DataLoader, DataLoader]:
    """Data from arithmetic, so that no generator's version matters."""
    grid = torch.arange(120 * 6, dtype=torch.float64).reshape(120, 6)
    data = TensorDataset(torch.sin(grid * 1.7).float(), torch.arange(120) % 3)
    return DataLoader(data, 8, shuffle=True), DataLoader(data, 32)


def model_file(version: str) -> None:
    """A classifier of texts: the smallest model that brings a vocabulary."""
    torch.manual_seed(0)
    texts = ["a ladder and an anchor", "a boat by the bay", "cats and cups, cold coffee"]
    spec = TextSpec(encoder=Vocabulary.fit(texts, min_freq=1), classes=("A", "B", "C"))
    model = TextClassifier(len(spec.encoder), 3, width=8)
    path = save(model, HERE / f"model-{version}.safetensors", preprocessing=spec, metrics={"val_accuracy": 0.5})
    found = load(path).probabilities(texts)
    path.with_suffix(".json").write_text(json.dumps({"texts": texts, "probabilities": found.tolist()}, indent=1) + "\n")


def main(version: str) -> None:
    torch.set_num_threads(1)
    model_file(version)
    with tempfile.TemporaryDirectory() as folder:
        trainer(Path(folder), Stop()).fit(*loaders(), epochs=3)
        newest = sorted(Path(folder).glob("*.pt"))[-1]
        shutil.copyfile(newest, HERE / f"checkpoint-{version}.pt")
    with tempfile.TemporaryDirectory() as folder:
        losses = Losses()
        trainer(Path(folder), losses).fit(*loaders(), epochs=2)
        content = {"torch": str(torch.__version__), "losses": losses.values[:30]}
        (HERE / f"losses-{version}.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
