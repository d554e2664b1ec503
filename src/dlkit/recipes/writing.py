"""What a training leaves: the model file, and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from dlkit._language import Message
from dlkit.artifact import save
from dlkit.inference.predictor import load
from dlkit.recipes.choices import Choice
from dlkit.recipes.held_out import keep_keys
from dlkit.recipes.outcome import outcome_of
from dlkit.recipes.reading import Data
from dlkit.recipes.reporting import write_report
from dlkit.recipes.standing import Standing
from dlkit.recipes.thresholds import best_thresholds

__all__ = ["REPORT_FILE", "reported", "save_model", "write"]

REPORT_FILE = "report.html"


def save_model(
    model: nn.Module, path: Path, data: Data, choice: Choice, metrics: Mapping[str, float]
) -> dict[str, float]:
    """Write the model file, and give its figures; once more with thresholds, which are chosen by what it says.

    Args:
        model: As trained.
        path: The file.
        data: In parts.
        choice: What was chosen; where it asks for thresholds, the reason for those is added.
        metrics: The figures so far.
    """
    write(model, path, data, choice, metrics, ())
    if choice.thresholds is None:
        return dict(metrics)
    rare = 0 if data.task == "multilabel" else int(torch.bincount(data.train.targets.long()).argmin())
    found = best_thresholds(outcome_of(load(path), data, data.val), rare)
    told = ", ".join(f"{threshold:.4g}" for threshold in found)
    choice.why.append(Message("thresholds with the best F1 on the validation part: {thresholds}", thresholds=told))
    write(model, path, data, choice, metrics, found)
    judged_on = "val" if data.test is None else "test"
    measured = load(path).evaluate(getattr(data, judged_on))
    changed = {name: measured.get(name.removeprefix(f"{judged_on}_"), value) for name, value in metrics.items()}
    write(model, path, data, choice, changed, found)
    return changed


def write(
    model: nn.Module,
    path: Path,
    data: Data,
    choice: Choice,
    metrics: Mapping[str, float],
    thresholds: Sequence[float],
) -> None:
    """Write the model file, and beside it which samples each part has.

    Args:
        model: As trained.
        path: The file.
        data: In parts.
        choice: Says how inputs are prepared.
        metrics: Figures that the file keeps.
        thresholds: Of the classes or labels; empty for the usual ones.
    """
    preprocessing, task = choice.preprocessing, cast(Any, data.task)
    if data.kind in ("table", "text"):
        preprocessing = data.train
    elif hasattr(data.train, "target_columns"):  # files in a table, whose columns a file of the model names
        preprocessing = data.train.with_transform(preprocessing)
    if data.folds is not None:  # what says how good this model is
        metrics = {**metrics, **{f"folds_{name}": value for name, value in data.folds.mean.items()}}
    keep_keys(path.parent, data)
    save(
        model.cpu(),
        path,
        classes=data.classes or None,
        preprocessing=preprocessing,
        metrics=dict(metrics),
        task=task,
        thresholds=thresholds,
    )


def reported(
    path: Path,
    data: Data,
    choice: Choice,
    judged_on: str,
    rows: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> Standing:
    """Write the report of a model file, and say what its score is worth.

    Args:
        path: The model file; the report is written beside it.
        data: In parts.
        choice: What was chosen, and why.
        judged_on: "test", or "val" where there is no test part.
        rows: The history.
        settings: Of the training.
    """
    predictor = load(path)
    outcome = outcome_of(predictor, data, getattr(data, judged_on))
    write_report(
        path.with_name(REPORT_FILE),
        outcome=outcome,
        predictor=predictor,
        data=data,
        judged_on=judged_on,
        history=rows,
        choices=choice.why,
        settings=settings,
    )
    return outcome.standing
