"""Runs that the exactness tests and the kill matrix train: built from a small description, compared by a digest."""

from __future__ import annotations

import hashlib
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from dlkit import Trainer
from dlkit.callbacks import EMA, Callback, Checkpoint, ClipGradients, CSVLogger, EarlyStopping, LearningRate

SAMPLES = 61


class StopAt(Callback):
    """Asks to stop, or raises, at one step."""

    def __init__(self, step: int, error: Exception | None = None) -> None:
        self.at, self.error = step, error

    def on_step_end(self, run) -> None:
        if run.step == self.at:
            if self.error is not None:
                raise self.error
            run.request_stop("test")


class Augmented(Dataset):
    """Draws from all three global generators and from one of its own, and takes a mean that threads would round."""

    def __init__(self) -> None:
        self.own = np.random.default_rng(5)

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        mean = torch.randn(3, 120, 120).mean()
        draws = [
            random.random(),
            np.random.rand(),
            np.random.randn(),
            random.gauss(0, 1),
            self.own.random(),
            index / 50,
        ]
        return torch.tensor([*draws, float(mean) * 100, float(torch.rand(()))]), index % 3


class Stateful(Sampler[int]):
    """A sampler of the user's own, with a generator of its own."""

    def __init__(self) -> None:
        self.rng = random.Random(3)

    def __iter__(self):
        order = list(range(SAMPLES))
        self.rng.shuffle(order)
        return iter(order)

    def __len__(self) -> int:
        return SAMPLES


def recordings(place: Path) -> tuple[Any, Any]:
    """Parts of recordings at random places, in the middle for validation; what is decoded is kept on the disk."""
    import soundfile

    from dlkit.datasets import AudioFolder

    root = place / "sounds"
    if not root.exists():
        draws, made = np.random.default_rng(0), Path(tempfile.mkdtemp(dir=place))
        for number in range(SAMPLES):
            path = made / "abc"[number % 3] / f"{number}.{('wav', 'flac')[number % 2]}"
            path.parent.mkdir(exist_ok=True)
            soundfile.write(path, draws.uniform(-0.5, 0.5, (1_000 + 20 * number, 2)), (8_000, 11_025)[number // 2 % 2])
        made.rename(root)  # whole or not at all: what writes it may be killed
    sounds = AudioFolder(root, sample_rate=8_000, seconds=0.05, cache=place / "kept")
    train, val = sounds.split(0.8)
    return train, val


def sampler_arguments(name: str, dataset: Dataset) -> dict[str, Any]:
    choices: dict[str, dict[str, Any]] = {
        "shuffle": {"batch_size": 7, "shuffle": True},
        "drop_last": {"batch_size": 7, "shuffle": True, "drop_last": True},
        "replacement": {"batch_size": 7, "sampler": RandomSampler(dataset, replacement=True, num_samples=52)},
        "weighted": {"batch_size": 7, "sampler": WeightedRandomSampler([i % 4 + 1.0 for i in range(SAMPLES)], 52)},
        "subset": {"batch_size": 7, "sampler": SubsetRandomSampler(range(0, SAMPLES, 2))},
        "custom": {"batch_size": 7, "sampler": Stateful()},
        "batch_sampler": {"batch_sampler": BatchSampler(Stateful(), 9, drop_last=False)},
    }
    return choices[name]


def model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.3), nn.Linear(24, 3))


def scheduler(name: str, optimizer: torch.optim.Optimizer) -> LearningRate | None:
    rates = torch.optim.lr_scheduler
    if name == "step":
        return LearningRate(rates.CosineAnnealingLR(optimizer, 40), every="step", warmup=4)
    if name == "epoch":
        return LearningRate(rates.StepLR(optimizer, 1, 0.5))
    return LearningRate(rates.ReduceLROnPlateau(optimizer, patience=0)) if name == "plateau" else None


def build(case: dict[str, Any], folder: str | Path | None) -> tuple[Trainer, DataLoader, DataLoader]:
    """A trainer and its loaders for a case; without a folder nothing is saved."""
    data, net = case.get("data", "augmented"), model()
    dataset: Dataset
    if data == "sounds" and folder is not None:
        dataset, judging = recordings(Path(folder).parent)
        net = nn.Sequential(nn.Flatten(), nn.Linear(400, 8), net)
    else:
        tensors = TensorDataset(torch.randn(SAMPLES, 8), torch.arange(SAMPLES) % 3)
        dataset = judging = Augmented() if data == "augmented" else tensors
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    callbacks: list[Any] = [ClipGradients(1.0), EarlyStopping(patience=30)]
    if case.get("ema"):
        callbacks.append(EMA(0.9))
    if folder is not None:
        every, background = case.get("every", "3 steps"), case.get("background", True)
        callbacks.append(Checkpoint(folder, every=every, background=background, restore_best=False))
        callbacks.append(CSVLogger(Path(folder) / "history.csv"))
    workers = case.get("num_workers", 0)
    settings: dict[str, Any] = {"num_workers": workers}
    if workers:
        settings |= {"persistent_workers": case.get("persistent", False), "prefetch_factor": case.get("prefetch", 2)}
    trainer = Trainer(
        net,
        nn.CrossEntropyLoss(),
        optimizer,
        metrics=["accuracy"],
        callbacks=callbacks,
        scheduler=scheduler(case.get("scheduler", "none"), optimizer),
        accumulate=case.get("accumulate", 1),
        device="cpu",
        progress=case.get("progress", False),
    )
    train = DataLoader(dataset, **sampler_arguments(case.get("sampler", "shuffle"), dataset), **settings)
    return trainer, train, DataLoader(judging, 16)


def fit(case: dict[str, Any], folder: str | Path | None, extra: Any = (), workers: int | None = None) -> Trainer:
    """Train a case to its end, or to whatever `extra` callbacks do to it."""
    torch.manual_seed(2)  # the data of the tensor case
    trainer, train, val = build(case if workers is None else {**case, "num_workers": workers}, folder)
    trainer.callbacks += list(extra)
    trainer.fit(train, val, epochs=case.get("epochs", 2), validate_every=case.get("validate_every", "epoch"))
    return trainer


def digest(trainer: Trainer) -> str:
    """All bits of a run's end: weights, moving average, optimizer, history."""
    sha = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            sha.update(
                value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"empty"
            )
        elif isinstance(value, dict):
            for name in value:
                sha.update(str(name).encode())
                add(value[name])
        elif isinstance(value, list | tuple):
            for item in value:
                add(item)
        else:
            sha.update(json.dumps(value).encode())

    add(dict(trainer.model.state_dict()))
    add(dict(trainer.run.eval_model.state_dict()))
    add(trainer.run.optimizer.state_dict())
    add([{name: float(value).hex() for name, value in row.items()} for row in trainer.history.rows])
    return sha.hexdigest()
