"""`fine_tune`: the usual recipe with its choices made by measuring; `compare`: which backbone suits the data."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlkit import rng
from dlkit.callbacks.base import Callback
from dlkit.callbacks.checkpoint import Checkpoint
from dlkit.callbacks.early_stopping import EarlyStopping
from dlkit.callbacks.features import ReuseFeatures
from dlkit.errors import ArgumentError
from dlkit.runs.history import History
from dlkit.training.setup import pick_device
from dlkit.training.trainer import Trainer
from dlkit.transfer.freezing import freeze, unfreeze
from dlkit.transfer.groups import param_groups
from dlkit.transfer.models import create_model

__all__ = ["Comparison", "FineTuned", "compare", "fine_tune"]

# Tried for the head; on stored features each costs about a second.
RATES = (3e-3, 1e-3, 3e-4)
DECAYS = (1e-4, 1e-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuned:
    """What `fine_tune` found.

    Attributes:
        model: The model, with its best weights, in eval mode and wholly unfrozen.
        lr: The head's learning rate that was chosen.
        weight_decay: The weight decay that was chosen.
        head: The history of the head's training.
        whole: The history of the whole model's training; None where it was left out.
        score: The validation metric of the returned weights.
        tried: The metric for each (lr, weight_decay).
        kept: Which weights came back: "head" or "whole".
    """

    model: nn.Module
    lr: float
    weight_decay: float
    head: History
    whole: History | None
    score: float
    tried: Mapping[tuple[float, float], float]
    kept: str


def fine_tune(
    model: nn.Module,
    train: Any,
    val: Any,
    *,
    epochs: int = 10,
    head_epochs: int = 25,
    views: int | None = 4,
    metric: str = "accuracy",
    patience: int = 3,
    loss: nn.Module | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    backbone_lr: float = 1e-4,
    layer_decay: float = 0.8,
    seed: int = 0,
    device: str | torch.device = "auto",
    precision: str = "fp32",
    folder: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> FineTuned:
    """Fine-tune a pretrained model: first the head on stored features, then everything with rates by depth.

    The head's learning rate and weight decay are the best of several, which costs next to nothing because all of them
    train on the same stored features. Then the model is unfrozen and trained with a cosine schedule, early stopping,
    and a rate that falls from layer to layer (Howard and Ruder 2018). The weights with the best validation metric come
    back; those with the head alone, if training the backbone did not help.

    Args:
        model: A model of `create_model`, or any module with a head.
        train: A loader, or anything `Trainer.fit` takes.
        val: The same.
        epochs: Of the whole model; 0 trains the head alone.
        head_epochs: Of the head.
        views: Random views of each image to store, see `ReuseFeatures`; None where nothing is random.
        metric: Judges all of it, see `dlkit.metrics.names()`.
        patience: Validations without an improvement after which the whole model's training ends.
        loss: `CrossEntropyLoss` by default.
        lr: The head's rate, instead of choosing.
        weight_decay: Instead of choosing.
        backbone_lr: Rate of the layer next to the head when everything is trained; the head then has this times 10.
        layer_decay: Factor of the rate per layer further down.
        seed: See `Trainer`.
        device: See `Trainer`.
        precision: See `Trainer`.
        folder: Keep the checkpoints of the whole model's training there and resume from them; None for a temporary one.
        callbacks: Further callbacks for the training of the whole model.
        progress: Show bars and lines.

    Raises:
        ArgumentError: a number of epochs that cannot be meant, or a model without a head.

    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> data = DataLoader(TensorDataset(torch.randn(32, 4), torch.arange(32) % 2), 8)
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> fine_tune(model, data, data, epochs=1, head_epochs=2, views=None, progress=False).kept in ("head", "whole")
    True
    """
    if epochs < 0 or head_epochs < 1:
        raise ArgumentError(f"epochs must be at least 0 and head_epochs at least 1, not {epochs}, {head_epochs}")
    common = {"device": device, "precision": precision, "seed": seed}
    loss = loss or nn.CrossEntropyLoss()
    reuse = ReuseFeatures(views=views)
    freeze(model)
    start = _copied(model)
    tried: dict[tuple[float, float], float] = {}
    best: tuple[float, dict[str, Tensor], History] | None = None
    for rate in RATES if lr is None else (lr,):
        for decay in DECAYS if weight_decay is None else (weight_decay,):
            model.load_state_dict(start)
            optim = torch.optim.AdamW(_head(model), rate, weight_decay=decay)
            keep = _Best(f"val_{metric}")
            trainer = Trainer(
                model,
                loss,
                optim,
                metrics=[metric],
                callbacks=[reuse, keep],
                progress=False,
                **common,  # type: ignore[arg-type]
            )
            history = trainer.fit(train, val, epochs=head_epochs)
            tried[rate, decay] = keep.value
            if best is None or keep.better(keep.value, best[0]):
                best = keep.value, keep.weights, history
                chosen, higher = (rate, decay), keep.higher
    assert best is not None
    score, weights, head_history = best
    model.load_state_dict(weights)
    if progress:
        _say(f"head: {metric} {score:.4f} with lr {chosen[0]:g}, weight decay {chosen[1]:g} ({len(tried)} tried)")
    whole = None
    kept = "head"
    unfreeze(model)
    if epochs:
        trainer, whole = _train_whole(
            model, train, val, loss, metric, epochs, patience, backbone_lr, layer_decay, chosen[1], folder, callbacks,
            progress, common,
        )  # fmt: skip
        values = [row[f"val_{metric}"] for row in whole.rows if f"val_{metric}" in row]
        now = (max(values) if higher else min(values)) if values else score
        if (now > score) if higher else (now < score):
            score, kept = now, "whole"
        else:
            model.load_state_dict(weights)
    if progress:
        _say(f"fine-tuned: {metric} {score:.4f}, weights of the training of the {kept}")
    model.eval()
    return FineTuned(
        model=model, lr=chosen[0], weight_decay=chosen[1], head=head_history, whole=whole, score=score, tried=tried,
        kept=kept,
    )  # fmt: skip


def _train_whole(
    model: nn.Module, train: Any, val: Any, loss: nn.Module, metric: str, epochs: int, patience: int, lr: float,
    layer_decay: float, weight_decay: float, folder: str | Path | None, callbacks: Sequence[Callback], progress: bool,
    common: Mapping[str, Any],
) -> tuple[Trainer, History]:  # fmt: skip
    groups = param_groups(model, lr * 10, backbone_lr=lr, layer_decay=layer_decay, weight_decay=weight_decay)
    optim = torch.optim.AdamW(groups)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optim, epochs)
    with tempfile.TemporaryDirectory() as temporary:
        stopping = EarlyStopping(f"val_{metric}", patience=patience)
        store = Checkpoint(folder or temporary, f"val_{metric}")
        trainer = Trainer(
            model, loss, optim, metrics=[metric], scheduler=scheduler, callbacks=[*callbacks, stopping, store],
            progress=progress, **common,
        )  # fmt: skip
        return trainer, trainer.fit(train, val, epochs=epochs)


class _Best(Callback):
    """Keeps the best weights of a short training in memory."""

    order = 100

    def __init__(self, monitor: str) -> None:
        self.monitor, self.value, self.weights = monitor, float("nan"), dict[str, Tensor]()
        self.higher = True

    def on_fit_start(self, run: Any) -> None:
        self.higher = run.higher_is_better(self.monitor)

    def on_row(self, run: Any, row: Mapping[str, Any]) -> None:
        if self.monitor in row and (not self.weights or self.better(float(row[self.monitor]), self.value)):
            self.value, self.weights = float(row[self.monitor]), _copied(run.model)

    def better(self, one: float, other: float) -> bool:
        return one > other if self.higher else one < other


def _head(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _say(message: str) -> None:
    import sys

    sys.stderr.write(f"{message}\n")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """One backbone's row in the table of `compare`.

    Attributes:
        name: The backbone.
        knn: Accuracy of the nearest neighbours.
        linear: Accuracy of a linear head on stored features.
        parameters: Of the model, in millions.
        features: Length of a feature vector.
        milliseconds: For one image through the backbone, measured.
        seconds: That the comparison took.
    """

    name: str
    knn: float
    linear: float
    parameters: float
    features: int
    milliseconds: float
    seconds: float


def compare(
    models: Sequence[str] | Mapping[str, nn.Module],
    train: Any,
    val: Any,
    *,
    classes: int | Sequence[str] | None = None,
    neighbours: int = 5,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> list[Comparison]:
    """How well the features of several backbones separate your classes, and what they cost; the best first.

    Each backbone runs once over the data. No weights of it are trained, so this says which one to fine-tune, not how
    good it will become.

    Args:
        models: Names for `create_model` (with pretrained weights), or modules by name.
        train: Batches of (inputs, target), labels as integers; prepared the same way for all.
        val: The same.
        classes: Their number or names; None takes the largest label in `train`.
        neighbours: Of the k-NN accuracy (cosine distance).
        device: "auto", or where to compute.
        progress: Print the rows as they are done.

    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> data = DataLoader(TensorDataset(torch.randn(12, 4), torch.arange(12) % 2), 4)
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> [row.name for row in compare({"mine": model}, data, data, progress=False)]
    ['mine']
    """
    rows = []
    for name in models:
        model = models[name] if isinstance(models, Mapping) else None
        rows.append(_compared(str(name), model, train, val, classes, neighbours, device))
        if progress:
            _say(_line(rows[-1]))
    return sorted(rows, key=lambda row: row.linear, reverse=True)


def _compared(
    name: str, model: nn.Module | None, train: Any, val: Any, classes: Any, neighbours: int, device: Any
) -> Comparison:
    began, where = time.monotonic(), pick_device(device)
    model = freeze(model if model is not None else create_model(name, classes=classes or 1000)).to(where)
    x, y, seconds = _features(model, train, where)
    vx, vy, more = _features(model, val, where)
    return Comparison(
        name=name,
        knn=_knn(x, y, vx, vy, neighbours),
        linear=_linear(x, y, vx, vy),
        parameters=sum(each.numel() for each in model.parameters()) / 1e6,
        features=x.shape[1],
        milliseconds=1000 * (seconds + more) / (len(x) + len(vx)),
        seconds=time.monotonic() - began,
    )


def _features(model: nn.Module, loader: Any, device: torch.device) -> tuple[Tensor, Tensor, float]:
    from dlkit.sources import source_of
    from dlkit.training.batches import split, to_device
    from dlkit.transfer._cut import find_cut

    kept, labels, seconds, cut = [], [], 0.0, None
    for batch in source_of(loader, rng.derive(0, rng.EVALUATE)).batches(0):
        inputs, target = split(to_device(batch, device))
        cut = cut or find_cut(model, inputs)
        began = time.perf_counter()
        kept.append(_pooled(cut.features(inputs)).cpu())
        seconds += time.perf_counter() - began
        labels.append(target.cpu())
    return torch.cat(kept), torch.cat(labels), seconds


def _pooled(features: Tensor) -> Tensor:
    """Maps are averaged over their places, as the head of a network with a convolution for a head does."""
    return features.mean((2, 3)) if features.dim() == 4 else features.flatten(1)


def _knn(x: Tensor, y: Tensor, vx: Tensor, vy: Tensor, neighbours: int) -> float:
    near = (F.normalize(vx, dim=1) @ F.normalize(x, dim=1).T).topk(min(neighbours, len(x))).indices
    return float((y[near].mode(dim=1).values == vy).float().mean())


def _linear(x: Tensor, y: Tensor, vx: Tensor, vy: Tensor) -> float:
    """Logistic regression with a little weight decay, to convergence."""
    mean, std = x.mean(0), x.std(0, unbiased=False).clamp_min(1e-6)
    x, vx = (x - mean) / std, (vx - mean) / std
    width = int(max(y.max(), vy.max())) + 1
    weight = torch.zeros(width, x.shape[1], requires_grad=True)
    bias = torch.zeros(width, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(x, weight, bias), y) + 1e-2 * weight.square().sum() / 2
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        return float((F.linear(vx, weight, bias).argmax(1) == vy).float().mean())


def _line(row: Comparison) -> str:
    return (
        f"{row.name}: k-NN {row.knn:.3f}, linear {row.linear:.3f}; {row.parameters:.1f} M parameters, "
        f"{row.features} features, {row.milliseconds:.1f} ms per image"
    )
