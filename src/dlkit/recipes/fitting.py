"""A choice to a Trainer and its loaders, and what the weights reach on a part."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from dlkit._arguments import whole_number
from dlkit.callbacks import (
    BackToBest,
    Callback,
    EarlyStopping,
    LearningRate,
)
from dlkit.errors import ArgumentError
from dlkit.loader import DataLoader
from dlkit.metrics import Metrics
from dlkit.recipes.choices import Choice, balanced_by
from dlkit.recipes.reading import Data
from dlkit.runs.state import Run
from dlkit.samplers.order import Balanced
from dlkit.training.forward import Forward
from dlkit.training.judging import Judge
from dlkit.training.trainer import Trainer

__all__ = ["judged", "loaders_of", "of_part", "trainer_of", "validation_loss", "with_numbers"]


def with_numbers(choice: Choice, **given: float | None) -> Choice:
    """A choice with numbers of the caller's, which are checked.

    Args:
        choice: What was chosen.
        **given: By the names of its attributes; None leaves one as it is.
    """
    said: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for name, value in said.items():
        if name in ("batch_size", "epochs", "image_size", "patience"):
            said[name] = whole_number(name, value, least=1)
        elif not (isinstance(value, int | float) and 0 < value < math.inf):
            raise ArgumentError(f"{name} must be a number above 0, not {value!r}")
    return dataclasses.replace(choice, **said)


def loaders_of(
    data: Data, choice: Choice, num_workers: int, accumulate: int, sampler: str | None = None
) -> dict[str, DataLoader]:
    """A loader for each part of the data, by the name of the part.

    Args:
        data: In parts.
        choice: Says how samples are prepared, and how many make a step.
        num_workers: Processes that prepare batches.
        accumulate: Batches of a step.
        sampler: "balanced" shows all classes equally often in training; None shuffles.

    Raises:
        ArgumentError: a step has fewer samples than batches.
    """
    train, others = data.train, {"val": data.val} | ({"test": data.test} if data.test is not None else {})
    filed = data.kind in ("images", "sounds")
    if filed:
        train = train.with_transform(choice.training)
        others = {name: part.with_transform(choice.preprocessing) for name, part in others.items()}
    if choice.batch_size < accumulate:
        raise ArgumentError(
            f"a step of batch_size={choice.batch_size} samples cannot be taken in {accumulate} batches, one for each "
            "process; use fewer processes, or a larger batch_size="
        )
    size = choice.batch_size // accumulate
    if sampler is None:
        loaders = {"train": DataLoader(train, size, shuffle=True, num_workers=num_workers)}
    else:
        planner = Balanced(balanced_by(data), size)
        loaders = {"train": DataLoader(train, batch_sampler=planner, num_workers=num_workers)}
    # Larger batches where no gradients are kept; photos stay at the size of training, for the memory's sake.
    size = choice.batch_size if filed else max(choice.batch_size, 256)
    return loaders | {name: DataLoader(part, size, num_workers=num_workers) for name, part in others.items()}


def trainer_of(choice: Choice, steps: int, **settings: Any) -> Trainer:
    """The Trainer that a choice is trained by.

    Args:
        choice: Of `choose`.
        steps: Optimizer steps of an epoch.
        **settings: More for the Trainer.
    """
    learning = [parameter for parameter in choice.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(choice.groups(choice.lr) if choice.groups else learning, choice.lr, weight_decay=1e-2)
    steps *= choice.epochs
    schedule = None
    if not choice.plateau:  # half a cosine from the full rate to nothing, after a short warm-up
        schedule = LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))
    return Trainer(
        choice.model,
        choice.loss,
        optimizer,
        metrics=choice.metrics,
        scheduler=LearningRate(schedule, every="step", warmup=min(30 if choice.plateau else 20, steps // 10)),
        **settings,
    )


def judged(run: Run, model: nn.Module, data: Data, choice: Choice, part: str, num_workers: int) -> dict[str, float]:
    """The figures of a part, by names that begin with its own.

    Args:
        run: On whose device, and by whose settings, is measured.
        model: What is measured.
        data: In parts.
        choice: Says loss and metrics.
        part: "val" or "test".
        num_workers: Processes that prepare batches.
    """
    run.model = run.eval_model = model.eval()
    forward = Forward(model, choice.loss, precision="fp32", device=run.device)
    judge = Judge(run, forward, Metrics(choice.metrics, loss=choice.loss), channels_last=False)
    found = judge.evaluate(loaders_of(data, choice, num_workers, 1)[part])
    return {f"{part}_{name}": value for name, value in found.items()}


def of_part(part: str, figures: Mapping[str, float]) -> dict[str, float]:
    """Figures of one part by their own names.

    Args:
        part: "val" or "test".
        figures: By names that begin with that of a part.

    >>> of_part("val", {"val_loss": 0.5, "test_loss": 0.7})
    {'loss': 0.5}
    """
    return {name.removeprefix(f"{part}_"): value for name, value in figures.items() if name.startswith(f"{part}_")}


def validation_loss(
    data: Data, choice: Choice, watching: Callback, *, seed: int, device: str, num_workers: int
) -> float:
    """The least loss on the validation part that a training comes to, of which nothing is kept.

    Args:
        data: What to train on.
        choice: What to train, and how.
        watching: Sees each row of the history, and may stop the training.
        seed: See `train`.
        device: See `train`.
        num_workers: See `train`.

    Raises:
        KeyboardInterrupt: Ctrl-C ended it.
    """
    if choice.fit is not None:
        run = Run(choice.model, {}, device=torch.device("cpu"), seed=seed, verbose=False)
        fitted = choice.fit()
        return judged(run, fitted.model, fitted.data, choice, "val", num_workers)["val_loss"]
    data = choice.data or data
    loaders = loaders_of(data, choice, num_workers, 1)
    patient = BackToBest if choice.plateau else EarlyStopping
    how: dict[str, Any] = {"seed": seed, "device": device, "progress": False}
    callbacks = [patient(patience=choice.patience), watching]
    trainer = trainer_of(choice, len(loaders["train"]), accumulate=1, callbacks=callbacks, **how)
    history = trainer.fit(loaders["train"], loaders["val"], epochs=choice.epochs)
    if trainer.run.stop_reason == "interrupted":
        raise KeyboardInterrupt
    return min((row["val_loss"] for row in history.rows if "val_loss" in row), default=math.nan)
