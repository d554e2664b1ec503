"""Metrics by name or as objects.

A name is computed here, from what the loss says of output and target (`dlkit.objective`): which dimension holds the
classes, which targets are ignored, whether outputs are logits or probabilities. Objects (torchmetrics', or any with
`update`, `compute` and `reset`) get output and target as they are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlkit._measures import MEASURES, Tally
from dlkit._near import hint
from dlkit._shapes import shape_of
from dlkit.errors import ArgumentError, TrainingError
from dlkit.objective import WAY, Objective, logits_in, objective_of, unwrapped

__all__ = ["Mean", "Metrics", "Told", "names"]


def names() -> list[str]:
    """The metrics that can be asked for by name.

    >>> "accuracy" in names()
    True
    """
    return sorted(MEASURES)


class Mean:
    """A function of one batch as a metric: its mean over samples. For measures that are means of per-sample values.

    Args:
        function: Called with `(preds, target)` of a batch; returns one number.
        higher_is_better: The direction, which no name can tell.

    >>> error = Mean(lambda preds, target: (preds - target).abs().mean(), higher_is_better=False)
    >>> error.update(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0])); error.compute()
    1.0
    """

    def __init__(self, function: Callable[[Tensor, Tensor], Any], *, higher_is_better: bool) -> None:
        self.function, self.higher_is_better = function, higher_is_better
        self.reset()

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take in a batch.

        Args:
            preds: The model's output, batch first.
            target: What it should have been.
        """
        self._sum += float(self.function(preds, target)) * len(preds)
        self._count += len(preds)

    def compute(self) -> float:
        """The mean over all samples since `reset`; NaN when there were none."""
        return self._sum / self._count if self._count else float("nan")

    def reset(self) -> None:
        """Forget everything."""
        self._sum, self._count = 0.0, 0


class Told(NamedTuple):
    """What metrics have to know of a batch.

    Attributes:
        tallies: Of those by name.
        preds: What those that are objects get.
        target: What it should have been.
    """

    tallies: dict[type[Tally], Tally]
    preds: Any
    target: Any


class Metrics:
    """Several metrics under their names, over all batches since `reset`.

    By name, of classes: "accuracy" (the share of right decisions; of several labels, over all of them),
    "balanced_accuracy" (the mean recall of the classes that there are), "f1", "precision" and "recall" (of the positive
    class where there are two by one output, else the mean over classes or labels), "auroc" and "average_precision"
    (classes against the rest; those without a positive or a negative are left out of the mean). Of numbers: "mae",
    "mse", "rmse", "r2". A metric of nothing is NaN, and so is one of outputs that are NaN.

    Targets may be class numbers or class probabilities (one-hot, smoothed, mixed), which count as their most probable
    class, the first of equal ones: of an input mixed of two, the accuracy asks for the larger part. Ignored targets do
    not count. Outputs [B, C, ...] of sequences and maps count place by place. Weights and `reduction` of the loss
    change no metric.

    Args:
        metrics: Names (see `names()`), torchmetrics metrics, `Mean` objects, or a mapping from names to those.
        loss: The loss whose output and target are measured; for a custom loss the one of torch that reads output
            and target in the same way. The Trainer gives its own where it is None.

    Raises:
        ArgumentError: an unknown name, listing the known ones; an object that is not a metric; a metric of classes for
            a loss of numbers, or the other way round.

    >>> metrics = Metrics(["accuracy"])
    >>> metrics.update(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 0]))
    >>> metrics.compute()
    {'accuracy': 0.5}
    >>> metrics.higher_is_better("accuracy")
    True
    >>> yes_or_no = Metrics(["f1"], loss=torch.nn.BCELoss())
    >>> yes_or_no.update(torch.tensor([0.9, 0.6, 0.2]), torch.tensor([1.0, 0.0, 0.0])); yes_or_no.compute()
    {'f1': 0.6666666666666666}
    """

    def __init__(self, metrics: Iterable[Any] | Mapping[str, Any] = (), *, loss: Any = None) -> None:
        if isinstance(metrics, str):
            metrics = [metrics]
        if isinstance(metrics, Metrics):
            loss = metrics._loss if metrics._loss is not None else loss
            metrics = metrics._wanted
        if not isinstance(metrics, Iterable):
            raise ArgumentError(f"metrics must be a list of names and objects, or a mapping to them, not {metrics!r}")
        pairs = metrics.items() if isinstance(metrics, Mapping) else [(_name(metric), metric) for metric in metrics]
        self._wanted: dict[str, Any] = {name: _checked(metric) for name, metric in pairs}
        self._loss: Any = loss
        self._objective = objective_of(loss)
        for name, metric in self._wanted.items():
            if isinstance(metric, str) and not MEASURES[metric].tally.reads(self._objective):
                raise ArgumentError(f"metric {name!r} cannot be told of what {_loss_name(loss)} compares; {WAY}")
        self.reset()

    def __len__(self) -> int:
        return len(self._wanted)

    def __iter__(self) -> Iterator[str]:
        return iter(self._wanted)

    @property
    def objective(self) -> Objective:
        """How output and target are read."""
        return self._objective

    @property
    def objects(self) -> dict[str, Any]:
        """The metrics that were handed over as objects, by what the history calls them."""
        return {f"metric {name}": metric for name, metric in self._wanted.items() if not isinstance(metric, str)}

    def higher_is_better(self, name: str) -> bool | None:
        """Whether more is better for the metric `name`; None where the metric does not say.

        Args:
            name: One of the names in this collection.
        """
        metric = self._wanted[name]
        if isinstance(metric, str):
            return MEASURES[metric].higher_is_better
        return getattr(metric, "higher_is_better", None)

    def update(self, preds: Any, target: Any) -> None:
        """Take in a batch.

        Args:
            preds: The model's output, batch first; or an object or a dict that has it as "logits".
            target: Class numbers [B], or of the shape of `preds`.

        Raises:
            TrainingError: a metric cannot take them, or how to read them is not known.
        """
        told = self.told(preds, target)
        self.take(told)
        self.show(told)

    def told(self, preds: Any, target: Any) -> Told:
        """What these metrics have to know of a batch, so that another process may take it in.

        Args:
            preds: See `update`.
            target: See `update`.

        Raises:
            TrainingError: how to read them is not known.
        """
        objective, logits = self._objective, logits_in(preds)
        if logits is not None:
            preds = logits
            if objective.form is None:
                objective = Objective(form="logits")
        tallies: dict[type[Tally], Tally] = {}
        for name, metric in self._wanted.items():
            if isinstance(metric, str) and (kind := MEASURES[metric].tally) not in tallies:
                with _explained(name, preds, target):
                    tallies[kind] = kind()
                    tallies[kind].count(*_tensors(preds, target), objective)
        return Told(tallies, preds, target)

    def take(self, told: Told) -> None:
        """Take in the tallies of the next batch.

        Args:
            told: What `told` gave, in this process or another.

        Raises:
            TrainingError: they do not fit those before.
        """
        self._begun = True
        for name, metric in self._wanted.items():
            if isinstance(metric, str) and (kind := MEASURES[metric].tally) in told.tallies:
                with _explained(name, told.preds, told.target):
                    self._tallies.setdefault(kind, kind()).join(told.tallies.pop(kind))

    def show(self, told: Told) -> None:
        """Show output and target of a batch to the metrics that were handed over as objects.

        Args:
            told: What `told` gave, in this process or another.

        Raises:
            TrainingError: one cannot take them.
        """
        for name, metric in self._wanted.items():
            if not isinstance(metric, str):
                with _explained(name, told.preds, told.target):
                    _moved(metric, told.preds).update(*_fitted(metric, told.preds, told.target))

    def compute(self, *, put_together: bool = False) -> dict[str, float]:
        """The values over all batches since `reset`, as plain numbers; nothing where there was no batch.

        Args:
            put_together: Each process has shown other batches to torchmetrics' objects: let them sum their states up.
                Else they are kept from it, as each has seen all.
        """
        if not self._begun:
            return {}
        with contextlib.nullcontext() if put_together else _by_themselves(self.objects.values()):
            return {name: self._value(name, metric) for name, metric in self._wanted.items()}

    @property
    def sum_up(self) -> bool:
        """Whether all objects among the metrics can put the states of several processes together themselves."""
        return all(hasattr(metric, "distributed_available_fn") for metric in self.objects.values())

    def _value(self, name: str, metric: Any) -> float:
        if not isinstance(metric, str):
            return _number(name, metric.compute())
        measure = MEASURES[metric]
        try:
            return measure.value(self._tallies[measure.tally])
        except TrainingError as error:
            raise TrainingError(f"metric {name!r} could not be computed: {error}") from error

    def reset(self) -> None:
        """Forget all batches."""
        self._tallies: dict[type[Tally], Tally] = {}
        self._begun = False
        for metric in self._wanted.values():
            if not isinstance(metric, str):
                metric.reset()


@contextlib.contextmanager
def _explained(name: str, preds: Any, target: Any) -> Iterator[None]:
    """Say which metric could not take which batch."""
    try:
        yield
    except (ValueError, RuntimeError, TypeError, TrainingError) as error:
        raise TrainingError(
            f"metric {name!r} could not take a batch: "
            f"predictions {shape_of(preds)}, targets {shape_of(target)}: {error}"
        ) from error


@contextlib.contextmanager
def _by_themselves(metrics: Iterable[Any]) -> Iterator[None]:
    """Keep torchmetrics from summing over the processes of a run: it would count each batch as often as there are."""
    parts: list[Any] = [part for metric in metrics if isinstance(metric, torch.nn.Module) for part in metric.modules()]
    asked = [(part, part.distributed_available_fn) for part in parts if hasattr(part, "distributed_available_fn")]
    try:
        for part, _ in asked:
            part.distributed_available_fn = _never
        yield
    finally:
        for part, function in asked:
            part.distributed_available_fn = function


def _never() -> bool:
    return False


def _number(name: str, value: Any) -> float:
    if isinstance(value, Tensor) and value.numel() != 1:
        raise TrainingError(
            f"metric {name!r} gave {list(value.shape)} values instead of one number; the history has one per row: "
            "let it take an average, such as average='macro', or measure each class with its own metric"
        )
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TrainingError(f"metric {name!r} gave {type(value).__name__} instead of one number: {error}") from error


def _loss_name(loss: Any) -> str:
    loss = unwrapped(loss)[0]
    return str(getattr(loss, "__name__", type(loss).__name__))


def _name(metric: Any) -> str:
    return metric if isinstance(metric, str) else _snake(type(metric).__name__)


def _snake(name: str) -> str:
    for task in ("Multiclass", "Multilabel", "Binary"):
        name = name.removeprefix(task)
    return "".join(
        f"_{c.lower()}" if c.isupper() and i and not name[i - 1].isupper() else c.lower() for i, c in enumerate(name)
    )


def _checked(metric: Any) -> Any:
    if isinstance(metric, str):
        if metric not in MEASURES:
            raise ArgumentError(
                f"unknown metric {metric!r}; {hint(metric, names(), has='known by name:')}; "
                "any torchmetrics object or dlkit.metrics.Mean(function, higher_is_better=...) works too"
            )
        return metric
    if all(callable(getattr(metric, method, None)) for method in ("update", "compute", "reset")):
        if isinstance(metric, type):
            raise ArgumentError(
                f"a metric is the class {metric.__name__}; make an object of it: {metric.__name__}(...)"
            )
        return metric
    remedy = (
        "wrap it: dlkit.metrics.Mean(function, higher_is_better=...)"
        if callable(metric)
        else "give a name or an object"
    )
    raise ArgumentError(f"{metric!r} is not a metric: it lacks update, compute and reset; {remedy}")


def _tensors(preds: Any, target: Any) -> tuple[Tensor, Tensor]:
    if not isinstance(preds, Tensor) or not isinstance(target, Tensor):
        raise TrainingError(
            f"it needs one tensor of predictions and one of targets, not {type(preds).__name__} and "
            f"{type(target).__name__}; pass a torchmetrics object, or Mean(function)"
        )
    return preds.detach(), target


def _moved(metric: Any, preds: Any) -> Any:
    return metric.to(preds.device) if hasattr(metric, "to") and isinstance(preds, Tensor) else metric


def _fitted(metric: Any, preds: Any, target: Any) -> tuple[Any, Any]:
    """What an object gets; half precision becomes full, so that sums are exact."""
    if isinstance(preds, Tensor) and preds.dtype in (torch.float16, torch.bfloat16):
        preds = preds.float()
    if type(metric).__module__.startswith("torchmetrics.regression") and isinstance(preds, Tensor):
        return preds.reshape(target.shape) if preds.numel() == target.numel() else preds, target
    return preds, target
