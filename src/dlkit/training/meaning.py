"""What the samples of a run mean: training, validation and every later data must mean the same."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import nn

from dlkit.declared import check_same, target_in
from dlkit.runs.state import Run
from dlkit.wrappers import unwrap

__all__ = ["agreed", "check", "data_of", "target_of"]


_MODEL = (
    "make the model for the data (create_model(name, classes=train.classes), TabularMLP(train.spec), "
    "AudioClassifier(len(train.classes), train.spec.sample_rate)), or read the "
    "data as the model's was (classes=model.classes, spec=model.spec)"
)


def agreed(model: nn.Module, train: Any, val: Any) -> tuple[Any, Any]:
    """The training and the validation data, unless they say different things of classes, columns, texts or pixels.

    Args:
        model: What it says of its outputs counts as well.
        train: A loader, or anything else that `Trainer.fit` takes.
        val: The same, or None.

    Returns:
        The datasets without the wrappers of torch, None where there is none.

    Raises:
        DataError: they differ; the first difference is named, and the way.
    """
    data, val_data = data_of(train), data_of(val)
    claims = _claims(model)
    check_same(claims, data, there="the model", here="the training data", way=_MODEL)
    check_same(data, val_data, there="the training data", here="the validation data")
    check_same(claims, val_data, there="the model", here="the validation data", way=_MODEL)
    return data, val_data


def check(run: Run, loader: Any) -> None:
    """Refuse data that mean something else than those of the training, or than the model says.

    Args:
        run: The run.
        loader: Anything that `evaluate` takes.

    Raises:
        DataError: they differ; the first difference is named, and the way.
    """
    data = data_of(loader)
    check_same(run.data, data, there="the training data", here="this data")
    check_same(_claims(run.model), data, there="the model", here="this data", way=_MODEL)


def target_of(run: Run, loader: Any = None) -> Any:
    """What a table's spec says of the target: of the training, of the model, or of this data; None if none does.

    Args:
        run: The run.
        loader: Anything that `evaluate` takes.
    """
    said = (target_in(each) for each in (run.data, run.val_data, _claims(run.model), data_of(loader)))
    return next((target for target in said if target is not None), None)


def _claims(model: nn.Module) -> Any:
    """What a model says of its outputs; its `preprocessing` is that of its first weights, which training may change."""
    said = {name: getattr(model, name, None) for name in ("classes", "spec")}  # the last of one that listens
    return SimpleNamespace(**said)


def data_of(loader: Any) -> Any:
    """The data behind a loader that says what the samples mean; None where there is none.

    Args:
        loader: As given to the Trainer.
    """
    return unwrap(getattr(loader, "dataset", None))
