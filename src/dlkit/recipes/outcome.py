"""What a trained model says of the samples that judge it, beside what is true of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from dlkit.inference.outputs import output_names, probabilities_of, weighed
from dlkit.inference.predictor import Predictor
from dlkit.inference.scoring import labelled
from dlkit.recipes.reading import Data
from dlkit.recipes.standing import Standing, standing_of_classes, standing_of_labels, standing_of_values

__all__ = ["Outcome", "outcome_of"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """Answers and truth of a part of the data, sample by sample.

    Attributes:
        part: The samples, prepared the model's way; those that cannot be read are left out.
        task: "classification", "binary", "multilabel" or "regression".
        names: Of the classes, labels or outputs.
        said: Probabilities [N, classes], or for a regression values [N, outputs] in the units of the data.
        true: Class numbers [N]; 0 and 1 [N, labels]; or values [N, outputs].
        weighed: As `said`, but so that the largest class is the answer, and labels above one half are there, where the
            model has thresholds.
        standing: What this is worth.
    """

    part: Any
    task: str
    names: list[str]
    said: Tensor
    true: Tensor
    weighed: Tensor
    standing: Standing


def outcome_of(predictor: Predictor, data: Data, part: Any, *, batch_size: int = 256) -> Outcome:
    """Let a model answer for a part of the data it was trained on.

    Args:
        predictor: The model.
        data: What it was trained on, for what is usual there.
        part: Of it, that judges.
        batch_size: Samples per forward pass.
    """
    meaning = predictor.meaning
    part = labelled(meaning, part.without_errors() if hasattr(part, "without_errors") else part, {})
    said, true = (torch.cat(found) for found in zip(*predictor.run(part, batch_size), strict=True))
    said, usual = probabilities_of(meaning, said), data.train.targets
    decides = weighed(meaning, said)
    if meaning.task == "regression":
        target = meaning.target
        names = output_names(meaning, said.shape[1])
        true, usual = (_wide(each if target is None else target.unscale(each)) for each in (true, usual))
        standing = standing_of_values(said, true, names, usual=usual.double().mean(0))
    elif meaning.task == "multilabel":
        names = list(meaning.classes)
        standing = standing_of_labels(said, true, names, shares=usual.float().mean(0), weighed=decides)
    else:
        names, true = list(meaning.classes), true.long().reshape(-1)
        most = int(torch.bincount(usual.long().reshape(-1), minlength=len(names)).argmax())
        standing = standing_of_classes(said, true, names, usual=most, weighed=decides)
    return Outcome(part=part, task=meaning.task, names=names, said=said, true=true, weighed=decides, standing=standing)


def _wide(values: Tensor) -> Tensor:
    return values.reshape(len(values), -1)
