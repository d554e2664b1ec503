"""What a training step costs above a bare loop: dlkit beside skorch, ignite and Lightning where they are installed.

Small MLP, batch 32, CPU, one thread. In each round every contender trains one epoch of the same batches, in turn, in
this process, and notes when each step has ended. Reported are the median over all steps, and the median over rounds of
the ratio of a round's median step to the bare loop's in the same round. dlkit runs with everything on: progress bar,
history, accuracy on validation data, early stopping, and a checkpoint per epoch written in the background.

Usage: python bench/trainer_overhead.py [--rounds 21] [--steps 300]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import itertools
import logging
import os
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from dlkit import Trainer
from dlkit.callbacks import Callback, Checkpoint, EarlyStopping

BATCH = 32


class Rows(Dataset):
    """A user's own dataset: one sample at a time."""

    def __init__(self, features: torch.Tensor, targets: torch.Tensor) -> None:
        self.features, self.targets = features, targets

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int):
        return self.features[index], self.targets[index]


def make() -> tuple[nn.Module, nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    return model, nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), lr=1e-3)


def bare(loader, val) -> list[float]:
    model, loss_fn, optimizer = make()
    model.train()
    times: list[float] = []
    for x, y in loader:
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter())
    return times


class Clock(Callback):
    """Notes when each step has ended."""

    order = -1

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, run) -> None:
        self.times.append(time.perf_counter())


def dlkit(loader, val) -> list[float]:
    folder = tempfile.mkdtemp()
    clock = Clock()
    callbacks = [clock, EarlyStopping(patience=3), Checkpoint(Path(folder) / "run")]
    with contextlib.redirect_stderr(io.StringIO()):
        Trainer(*make(), metrics=["accuracy"], callbacks=callbacks, device="cpu").fit(loader, val, epochs=1)
    shutil.rmtree(folder)
    return clock.times


def ignite(loader, val) -> list[float]:
    from ignite.contrib.handlers import ProgressBar
    from ignite.engine import Events, create_supervised_trainer

    model, loss_fn, optimizer = make()
    trainer = create_supervised_trainer(model, optimizer, loss_fn)
    times: list[float] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: times.append(time.perf_counter()))
    ProgressBar(file=io.StringIO()).attach(trainer, output_transform=lambda loss: {"loss": loss})
    trainer.run(loader, max_epochs=1)
    return times


def skorch(loader, val) -> list[float]:
    from skorch import NeuralNetClassifier
    from skorch.callbacks import Callback as SkorchCallback

    times: list[float] = []

    class Times(SkorchCallback):
        def on_batch_end(self, net, training=False, **_):
            if training:
                times.append(time.perf_counter())

    model, _, _ = make()
    net = NeuralNetClassifier(
        model, criterion=nn.CrossEntropyLoss, optimizer=torch.optim.Adam, lr=1e-3, max_epochs=1, verbose=0,
        train_split=None, iterator_train=lambda dataset, **_: loader, callbacks=[("times", Times())],
    )  # fmt: skip
    net.fit(loader.dataset if hasattr(loader, "dataset") else val.dataset, None)
    return times


class Iterable:
    """Lightning takes a list for several loaders."""

    def __init__(self, batches: list) -> None:
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def lightning(loader, val) -> list[float]:
    import lightning as pl

    loader = Iterable(loader) if isinstance(loader, list) else loader

    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    times: list[float] = []

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.loss, _ = make()

        def training_step(self, batch, _):
            x, y = batch
            return self.loss(self.net(x), y)

        def on_train_batch_end(self, *_):
            times.append(time.perf_counter())

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        trainer = pl.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False
        )
        trainer.fit(Module(), loader)
    return times


def contenders() -> dict[str, Callable[..., list[float]]]:
    found = {"bare": bare, "dlkit": dlkit}
    for name, function in (("ignite", ignite), ("skorch", skorch), ("lightning", lightning)):
        if importlib.util.find_spec(name) is not None:
            found[name] = function
    return found


def measure(loader, val, rounds: int) -> None:
    steps: dict[str, list[list[float]]] = {name: [] for name in contenders()}
    for number in range(rounds + 1):
        for name, function in contenders().items():
            times = function(loader, val)
            if number:  # the first round warms up
                steps[name].append([after - before for before, after in itertools.pairwise(times)])
    for name, each in steps.items():
        ratio = statistics.median(median(one) / median(base) for one, base in zip(each, steps["bare"], strict=True))
        print(f"| {name} | {median(itertools.chain.from_iterable(each)) * 1e6:.0f} µs | {100 * (ratio - 1):+.1f} % |")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    size = BATCH * arguments.steps
    x, y = torch.randn(size, 20), torch.randint(0, 2, (size,))
    val = DataLoader(TensorDataset(x[:3200], y[:3200]), 256)
    batches = [(x[i : i + BATCH], y[i : i + BATCH]) for i in range(0, size, BATCH)]
    loaders = {
        "batches that lie ready in a list": batches,
        "DataLoader over a dataset of one's own": DataLoader(Rows(x, y), BATCH, shuffle=True),
        "DataLoader over a TensorDataset": DataLoader(TensorDataset(x, y), BATCH, shuffle=True),
    }
    print(
        f"torch {torch.__version__}, {os.cpu_count()} cores, one thread, "
        f"{arguments.rounds} rounds of {arguments.steps} steps"
    )
    for title, loader in loaders.items():
        print(f"\n{title}\n\n| | median step | above bare |\n|---|---|---|")
        measure(loader, val, arguments.rounds)


if __name__ == "__main__":
    main()
