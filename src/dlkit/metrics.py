"""Metrics by name or as objects: torchmetrics does the counting, and says in which direction better lies.

Names are resolved when the first batch shows what the model gives: `"accuracy"` is the multiclass one for logits
[B, C], the binary one for logits [B] or [B, 1], the multilabel one when targets have the shape of the logits.
torchmetrics guesses from each batch anew whether scores are logits or probabilities; here they are what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from dlkit.errors import ArgumentError, TrainingError

__all__ = ["Mean", "Metrics", "names"]

# name: (torchmetrics class for classification tasks, or a regression class; higher is better; extra arguments)
_CLASSIFICATION = {
    "accuracy": ("Accuracy", {"average": "micro"}),
    "auroc": ("AUROC", {}),
    "average_precision": ("AveragePrecision", {}),
    "balanced_accuracy": ("Accuracy", {"average": "macro"}),
    "f1": ("F1Score", {"average": "macro"}),
    "precision": ("Precision", {"average": "macro"}),
    "recall": ("Recall", {"average": "macro"}),
}
_REGRESSION = {
    "mae": ("MeanAbsoluteError", False),
    "mse": ("MeanSquaredError", False),
    "r2": ("R2Score", True),
    "rmse": ("MeanSquaredError", False),
}


def names() -> list[str]:
    """The metrics that can be asked for by name.

    >>> "accuracy" in names()
    True
    """
    return sorted([*_CLASSIFICATION, *_REGRESSION])


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


class Metrics:
    """Several metrics under their names, built when the first batch is seen.

    Args:
        metrics: Names (see `names()`), torchmetrics metrics, `Mean` objects, or a mapping from names to those.
        probabilities: The predictions that the named binary and multilabel metrics get are probabilities, not logits.

    Raises:
        ArgumentError: an unknown name, listing the known ones, or an object that is no metric.

    >>> metrics = Metrics(["accuracy"])
    >>> metrics.update(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 0]))
    >>> metrics.compute()
    {'accuracy': 0.5}
    >>> metrics.higher_is_better("accuracy")
    True
    """

    def __init__(self, metrics: Iterable[Any] | Mapping[str, Any] = (), *, probabilities: bool = False) -> None:
        if isinstance(metrics, str):
            metrics = [metrics]
        pairs = metrics.items() if isinstance(metrics, Mapping) else [(_name(metric), metric) for metric in metrics]
        self._wanted = {name: _checked(metric) for name, metric in pairs}
        self._probabilities = probabilities
        self._built: dict[str, Any] | None = None

    def __len__(self) -> int:
        return len(self._wanted)

    def __iter__(self) -> Any:
        return iter(self._wanted)

    def higher_is_better(self, name: str) -> bool | None:
        """Whether more is better for the metric `name`; None where the metric does not say.

        Args:
            name: One of the names in this collection.
        """
        metric = self._wanted[name]
        if metric in _CLASSIFICATION:
            return True
        if isinstance(metric, str):
            return _REGRESSION[metric][1]
        return getattr(metric, "higher_is_better", None)

    def update(self, preds: Any, target: Any) -> None:
        """Take in a batch.

        Args:
            preds: The model's output, batch first: logits for the named classification metrics.
            target: Class indices [B], or of the shape of `preds`.
        """
        if not self._wanted:
            return
        if self._built is None:
            self._built = {name: _build(metric, preds, target) for name, metric in self._wanted.items()}
        for name, metric in self._built.items():
            try:
                metric.update(*_fitted(metric, preds, target, self._probabilities))
            except (ValueError, RuntimeError, TypeError) as error:
                raise TrainingError(
                    f"metric {name!r} could not take a batch: "
                    f"predictions {_shape(preds)}, targets {_shape(target)}: {error}"
                ) from error

    def compute(self) -> dict[str, float]:
        """The values over all batches since `reset`, as plain numbers."""
        if self._built is None:
            return {}
        return {name: _number(name, metric.compute()) for name, metric in self._built.items()}

    def reset(self) -> None:
        """Forget all batches."""
        for metric in (self._built or {}).values():
            metric.reset()


def _number(name: str, value: Any) -> float:
    if isinstance(value, Tensor) and value.numel() != 1:
        raise TrainingError(
            f"metric {name!r} gave {list(value.shape)} values instead of one number; the history has one per row: "
            "let it take an average, such as average='macro', or measure each class with a metric of its own"
        )
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TrainingError(f"metric {name!r} gave {type(value).__name__} instead of one number: {error}") from error


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
        if metric not in _CLASSIFICATION and metric not in _REGRESSION:
            raise ArgumentError(
                f"unknown metric {metric!r}; known by name: {', '.join(names())}; "
                "any torchmetrics object or dlkit.metrics.Mean(function, higher_is_better=...) works too"
            )
        return metric
    if all(callable(getattr(metric, method, None)) for method in ("update", "compute", "reset")):
        return metric
    hint = (
        "wrap it: dlkit.metrics.Mean(function, higher_is_better=...)"
        if callable(metric)
        else "give a name or an object"
    )
    raise ArgumentError(f"{metric!r} is no metric: it has no update, compute and reset; {hint}")


def _build(metric: Any, preds: Any, target: Any) -> Any:
    if not isinstance(metric, str):
        return metric.to(preds.device) if hasattr(metric, "to") and isinstance(preds, Tensor) else metric
    if not isinstance(preds, Tensor) or not isinstance(target, Tensor):
        raise TrainingError(
            f"metric {metric!r} needs one tensor of predictions and one of targets, not {type(preds).__name__} and "
            f"{type(target).__name__}; pass a torchmetrics object, or Mean(function)"
        )
    import torchmetrics

    if metric in _REGRESSION:
        squared = {"squared": False} if metric == "rmse" else {}
        return getattr(torchmetrics, _REGRESSION[metric][0])(**squared).to(preds.device)
    kind, extra = _CLASSIFICATION[metric]
    task = _task(preds, target)
    prefix = {"multiclass": "Multiclass", "multilabel": "Multilabel", "binary": "Binary"}[task]
    sizes = {"multiclass": {"num_classes": preds.shape[1]} if preds.dim() > 1 else {}, "binary": {}}
    sizes["multilabel"] = {"num_labels": preds.shape[1]} if preds.dim() > 1 else {}
    arguments = {**sizes[task], **(extra if task != "binary" else {})}
    built = getattr(torchmetrics.classification, prefix + kind)(**arguments).to(preds.device)
    built.dlkit_task = task
    return built


def _task(preds: Tensor, target: Tensor) -> str:
    if preds.dim() == 1 or (preds.dim() == 2 and preds.shape[1] == 1):
        return "binary"
    return "multilabel" if preds.shape == target.shape and preds.is_floating_point() else "multiclass"


def _fitted(metric: Any, preds: Any, target: Any, probabilities: bool) -> tuple[Any, Any]:
    """Predictions and targets in the form the metric wants; half precision becomes full, so that sums are exact."""
    if isinstance(preds, Tensor) and preds.dtype in (torch.float16, torch.bfloat16):
        preds = preds.float()
    task = getattr(metric, "dlkit_task", None)
    if task in ("binary", "multilabel"):
        # A batch whose logits all lie between 0 and 1 would be taken for probabilities, and 0.3 for class 0.
        scores = preds if probabilities or not preds.is_floating_point() else preds.sigmoid()
        return (scores, target.long()) if task == "multilabel" else (scores.reshape(-1), target.reshape(-1).long())
    if task == "multiclass" and hasattr(metric, "thresholds"):  # the curves compare scores over batches
        return preds.softmax(1), target
    if task is None and type(metric).__module__.startswith("torchmetrics.regression"):
        return preds.reshape(target.shape) if preds.numel() == target.numel() else preds, target
    return preds, target


def _shape(value: Any) -> str:
    return f"{list(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
