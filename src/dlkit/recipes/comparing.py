"""`compare`: which backbone suits the data, judged by its features, before anything is trained."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlkit import rng
from dlkit._calling import split
from dlkit._devices import pick_device
from dlkit._language import Message
from dlkit._progress import Bar
from dlkit._showing import safe
from dlkit.errors import DataError
from dlkit.training.batches import to_device
from dlkit.training.meaning import agreed
from dlkit.training.sources import present, source_of
from dlkit.transfer._cut import find_cut, in_best_layout
from dlkit.transfer.freezing import freeze
from dlkit.transfer.models import create_model

__all__ = ["Comparison", "compare"]


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
        models: Names for `create_model` (with pretrained weights, for images of as many channels as yours have), or
            modules by name, which stay as they are.
        train: Batches of (inputs, target), labels as integers; prepared the same way for all.
        val: The same.
        classes: Their number or names; None takes the largest label in `train`.
        neighbours: Of the k-NN accuracy (cosine distance).
        device: "auto", or where to compute.
        progress: Print the rows as they are done.

    Raises:
        DataError: there is no batch, or training and validation data mean different things.

    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> data = DataLoader(TensorDataset(torch.randn(12, 4), torch.arange(12) % 2), 4)
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> [row.name for row in compare({"mine": model}, data, data, progress=False)]
    ['mine']
    """
    agreed(nn.Identity(), train, val)
    rows = []
    for name in models:
        model = models[name] if isinstance(models, Mapping) else None
        rows.append(_compared(str(name), model, train, val, classes, neighbours, device, progress=progress))
        if progress:
            sys.stderr.write(f"{safe(_line(rows[-1]))}\n")
    return sorted(rows, key=lambda row: row.linear, reverse=True)


def _compared(
    name: str,
    model: nn.Module | None,
    train: Any,
    val: Any,
    classes: Any,
    neighbours: int,
    device: Any,
    *,
    progress: bool,
) -> Comparison:
    began, where, batches = time.monotonic(), pick_device(device), _batches(train)
    if (first := next(batches, None)) is None:
        raise DataError("there is nothing to compare on: the training data give no batch")
    made = copy.deepcopy(model) if model is not None else _created(name, first, classes)
    model = freeze(made).to(where)
    total = sum(len(part) for part in (train, val)) if all(hasattr(part, "__len__") for part in (train, val)) else None
    with Bar(total, desc=safe(name), unit=Message("batches"), enabled=progress) as bar:
        x, y, seconds = _features(model, itertools.chain([first], batches), where, bar)
        vx, vy, more = _features(model, _batches(val), where, bar)
    return Comparison(
        name=name,
        knn=_knn(x, y, vx, vy, neighbours),
        linear=_linear(x, y, vx, vy),
        parameters=sum(each.numel() for each in model.parameters()) / 1e6,
        features=x.shape[1],
        milliseconds=1000 * (seconds + more) / (len(x) + len(vx)),
        seconds=time.monotonic() - began,
    )


def _batches(data: Any) -> Iterator[Any]:
    return present(source_of(data, rng.derive(0, rng.EVALUATE)).batches(0))


def _created(name: str, batch: Any, classes: Any) -> nn.Module:
    shape = list(getattr(split(batch)[0], "shape", []))
    return create_model(name, classes=classes or 1000, in_chans=shape[1] if len(shape) == 4 else 3)


def _features(model: nn.Module, batches: Iterable[Any], device: torch.device, bar: Bar) -> tuple[Tensor, Tensor, float]:
    kept, labels, seconds, cut = [], [], 0.0, None
    for batch in batches:
        inputs, target = split(to_device(batch, device))
        cut = cut or in_best_layout(find_cut(model, inputs), inputs)
        began = time.perf_counter()
        kept.append(_pooled(cut.features(inputs)).cpu())
        seconds += time.perf_counter() - began
        labels.append(target.cpu())
        bar.update()
    if not kept:
        raise DataError("there is nothing to compare on: the validation data give no batch")
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
    return Message(
        "{name}: k-NN {knn:.3f}, linear {linear:.3f}; {parameters:.1f} M parameters, "
        "{features} features, {milliseconds:.1f} ms per image",
        **dataclasses.asdict(row),
    )
