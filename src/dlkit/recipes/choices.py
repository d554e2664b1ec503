"""What a caller has said about the model, and what was chosen: a model with all it takes to train it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlkit.errors import ArgumentError
from dlkit.recipes.reading import Data

__all__ = ["Choice", "Fitted", "Wish", "balanced_by", "class_weights", "judged_by", "refuse", "weighed_loss"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wish:
    """What the caller has said about the model; None where dlkit is to choose.

    Attributes:
        arch: See `train`.
        weights: See `train`.
        pretrained: See `train`.
        freeze: See `train`.
        views: See `train`.
        image_size: See `train`.
        sample_rate: See `train`.
        seconds: See `train`.
        class_weights: See `train`.
        sampler: See `train`.
        thresholds: See `train`.
        seed: See `train`.
    """

    arch: str | None = None
    weights: str | Path | None = None
    pretrained: bool = True
    freeze: bool | None = None
    views: int | None = None
    image_size: int | None = None
    sample_rate: int | None = None
    seconds: float | None = None
    class_weights: str | Mapping[str, float] | None = None
    sampler: str | None = None
    thresholds: str | None = None
    seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """What a model that is fitted in one go came to.

    Attributes:
        model: Fitted to the training part, for the validation part to judge.
        data: As this model takes it.
        told: What was chosen, in a sentence; empty where there was no choice.
        again: Fits the same to the training and validation parts together, once the choice is made and judged; gives
            the data as that model takes it, too.
    """

    model: nn.Module
    data: Data
    told: str = ""
    again: Callable[[], tuple[nn.Module, Data]] | None = None


@dataclasses.dataclass(kw_only=True, eq=False)
class Choice:
    """A model and how to train it.

    Attributes:
        arch: Its name.
        model: With fresh or pretrained weights, frozen where that was chosen.
        lr: The learning rate; of the head where there is a backbone.
        epochs: Of a usual training.
        batch_size: Of a usual training.
        patience: Epochs without an improvement after which to stop, or with `plateau` to go back to the best weights.
        loss: For logits.
        metrics: Names.
        plateau: The rate stays until there is no improvement, see `BackToBest`; else it falls along half a cosine.
        frozen: Only the head is trained.
        why: The choices in sentences.
        preprocessing: Of images and sounds: for evaluation, and for the model file.
        training: Of images and sounds: for training.
        groups: The optimizer's groups for a learning rate; None for those parameters that learn.
        fit: Makes the fitted model in one go, instead of a training in steps; rate, epochs and so on then mean nothing.
        thresholds: See `train`.
        data: As this model takes it; None as it was read.
        finish: Makes of the trained model, with its best weights, the one that is judged and written, and says how.
    """

    arch: str
    model: nn.Module
    lr: float
    epochs: int
    batch_size: int
    patience: int
    loss: nn.Module = dataclasses.field(default_factory=nn.CrossEntropyLoss)
    metrics: list[str] = dataclasses.field(default_factory=lambda: ["accuracy"])
    plateau: bool = False
    frozen: bool = False
    why: list[str] = dataclasses.field(default_factory=list)
    preprocessing: Any = None
    training: Any = None
    groups: Callable[[float], Any] | None = None
    fit: Callable[[], Fitted] | None = None
    thresholds: str | None = None
    data: Data | None = None
    finish: Callable[[nn.Module], tuple[nn.Module, str]] | None = None


def judged_by(task: str) -> tuple[nn.Module, list[str]]:
    """The loss and the metrics of a `task`."""
    losses = {"classification": nn.CrossEntropyLoss, "regression": nn.MSELoss}
    metrics = {"regression": ["rmse", "mae", "r2"], "multilabel": ["f1"]}
    return losses.get(task, nn.BCEWithLogitsLoss)(), metrics.get(task, ["accuracy"])


def class_weights(data: Data, given: str | Mapping[str, float]) -> Tensor:
    """What each class counts in the loss; of several labels, what a sample with the label counts beside one without.

    Args:
        data: With classes or labels.
        given: "balanced", so that all classes together count the same, however rare: samples / (classes * samples of
            the class), as scikit-learn has it; of a label samples without / samples with it. Or a weight above 0 for
            each by its name.

    Returns:
        float32 [classes] or [labels].

    Raises:
        ArgumentError: there are no classes, or the weights are not theirs.
    """
    if data.task == "regression":
        raise ArgumentError(f"class_weights={given!r}: this is a regression, which has no classes")
    noun, targets = "label" if data.task == "multilabel" else "class", data.train.targets
    if isinstance(given, str):
        if given != "balanced":
            raise ArgumentError(f"class_weights must be 'balanced' or a weight for each {noun}, not {given!r}")
        if data.task == "multilabel":
            there = (targets > 0.5).sum(0)
            absent = len(targets) - there
            return torch.where((there > 0) & (absent > 0), absent / there.clamp_min(1), 1.0).float()
        counts = torch.bincount(targets.long(), minlength=len(data.classes))
        return (len(targets) / (len(data.classes) * counts.clamp_min(1))).float()
    if set(given) != set(data.classes):
        raise ArgumentError(
            f"class_weights must have a weight for each {noun} ({', '.join(data.classes)[:300]}), and has them for "
            f"{', '.join(map(str, given))[:300]}"
        )
    if not all(0 < float(weight) < math.inf for weight in given.values()):
        raise ArgumentError(f"class_weights must be numbers above 0, not {dict(given)!r:.300}")
    return torch.tensor([float(given[name]) for name in data.classes])


def weighed_loss(task: str, weights: Tensor) -> nn.Module:
    """The loss of `judged_by` for a `task`, with `weights` of `class_weights`."""
    if task == "classification":
        return nn.CrossEntropyLoss(weight=weights)
    return nn.BCEWithLogitsLoss(pos_weight=weights if task == "multilabel" else weights[1] / weights[0])


def balanced_by(data: Data) -> Tensor:
    """What is drawn equally often: the class of each sample; of several labels the rarest that it has, or none.

    Args:
        data: With classes or labels.

    Returns:
        int64 [N].
    """
    targets: Tensor = data.train.targets
    if data.task != "multilabel":
        return targets.long()
    there = targets > 0.5
    rare = torch.where(there, there.sum(0), len(there) + 1)
    return torch.where(there.any(1), rare.argmin(1), there.shape[1])


def refuse(wish: Wish, *names: str, why: str) -> None:
    """Refuse what was said and means nothing for this kind of data or model.

    Args:
        wish: What the caller has said.
        *names: Of the wishes that mean nothing here.
        why: In words.

    Raises:
        ArgumentError: one of them was said.
    """
    for name in names:
        if getattr(wish, name) not in (None, True if name == "pretrained" else None, False):
            raise ArgumentError(f"{name}={getattr(wish, name)!r}: {why}")
