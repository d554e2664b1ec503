"""What a loss says of a model's output and of the target: the one place where that is derived.

Known from the loss, from types and shapes, or said by the user (`Metrics(names, loss=...)`); never guessed from values.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from dlkit._shapes import shape_of
from dlkit.errors import TrainingError

__all__ = ["Classified", "Objective", "classified", "logits_in", "numbers", "objective_of", "unwrapped"]

Kind = Literal["classes", "labels", "numbers"]
Form = Literal["logits", "log-probabilities", "probabilities", "scores", "values", "logarithms"]

#: The `ignore_index` of torch's class losses unless another one is given; no class has this number.
IGNORED = -100


@dataclass(frozen=True, kw_only=True)
class Objective:
    """How output and target are to be read.

    Attributes:
        kind: "classes": one class per place, output [B, C, ...], target int64 [B, ...] or probabilities like the
            output. "labels": each number of the output is its own binary answer, target like the output. "numbers":
            a regression. None: the loss does not say.
        form: What the output's numbers are: "logits"; "log-probabilities", "probabilities" or "scores" (ordered, of no
            fixed scale); for numbers "values", or "logarithms" of them. None: the loss does not say.
        ignore_index: The class number of targets that do not count.

    >>> objective_of(nn.CrossEntropyLoss(ignore_index=0))
    Objective(kind='classes', form='logits', ignore_index=0)
    """

    kind: Kind | None = None
    form: Form | None = None
    ignore_index: int = IGNORED

    @property
    def outputs(self) -> Literal["logits", "probabilities", "logarithms"] | None:
        """What a model file has to know of the output; None where the loss does not say."""
        if self.form == "probabilities" or self.form == "logarithms":
            return self.form
        return None if self.form is None else "logits"  # log-probabilities are logits whose softmax changes nothing


# The losses of torch, as module and as function.
_KNOWN: list[tuple[type[nn.Module], Any, Kind, Form]] = [
    (nn.CrossEntropyLoss, F.cross_entropy, "classes", "logits"),
    (nn.NLLLoss, F.nll_loss, "classes", "log-probabilities"),
    (nn.MultiMarginLoss, F.multi_margin_loss, "classes", "scores"),
    (nn.BCEWithLogitsLoss, F.binary_cross_entropy_with_logits, "labels", "logits"),
    (nn.BCELoss, F.binary_cross_entropy, "labels", "probabilities"),
    (nn.MultiLabelSoftMarginLoss, F.multilabel_soft_margin_loss, "labels", "logits"),
    (nn.SoftMarginLoss, F.soft_margin_loss, "labels", "logits"),
    (nn.HuberLoss, F.huber_loss, "numbers", "values"),
    (nn.L1Loss, F.l1_loss, "numbers", "values"),
    (nn.MSELoss, F.mse_loss, "numbers", "values"),
    (nn.SmoothL1Loss, F.smooth_l1_loss, "numbers", "values"),
    (nn.PoissonNLLLoss, F.poisson_nll_loss, "numbers", "logarithms"),
]


def objective_of(loss: Any) -> Objective:
    """What a loss says.

    Args:
        loss: A loss of torch (module, subclass, function, `functools.partial` of one, compiled); anything else says
            nothing.

    >>> objective_of(functools.partial(F.nll_loss, ignore_index=3)).ignore_index, objective_of(lambda o, t: 0).kind
    (3, None)
    """
    loss, given = unwrapped(loss)
    for module, function, kind, form in _KNOWN:
        if isinstance(loss, module) or loss is function:
            ignored = given.get("ignore_index", getattr(loss, "ignore_index", IGNORED))
            if form == "logarithms" and not given.get("log_input", getattr(loss, "log_input", True)):
                form = "values"
            return Objective(kind=kind, form=form, ignore_index=ignored)
    return Objective()


def unwrapped(loss: Any) -> tuple[Any, dict[str, Any]]:
    """The loss inside `torch.compile` and `functools.partial`, and the arguments that were given with it.

    Args:
        loss: Any loss.
    """
    loss, given = getattr(loss, "_orig_mod", loss), dict[str, Any]()
    while isinstance(loss, functools.partial):
        given, loss = {**loss.keywords, **given}, loss.func
    return loss, given


def logits_in(output: Any) -> Any:
    """What an output of several parts names its logits; None for a tensor, and where nothing is named so.

    Args:
        output: An object with `.logits`, or a mapping with "logits".

    >>> logits_in({"loss": 1, "logits": 2})
    2
    """
    if isinstance(output, Tensor):
        return None
    return output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)


@dataclass(frozen=True, kw_only=True)
class Classified:
    """Output and target of a batch with one row per decision; ignored targets are left out.

    Attributes:
        scores: [M, C] for classes, [M, L] for labels (L = 1 for a binary task).
        target: int64 [M] class numbers, or bool [M, L].
        form: What the scores are; None where nothing says it.
        unclear: Which dimension holds the labels is not known, so that only counts over all of them are right.
    """

    scores: Tensor
    target: Tensor
    form: Form | None
    unclear: bool = False

    @property
    def one_of_many(self) -> bool:
        """Whether each row is one class, not one yes or no per label."""
        return self.target.dim() == 1


def classified(output: Tensor, target: Tensor, objective: Objective) -> Classified:
    """Read output and target of a classification.

    Dimension 1 of the output holds the classes or labels, as for torch's losses; for an own loss with integer targets
    also the last one, if only that fits. A target of class probabilities (one-hot, smoothed, mixed) counts as its most
    probable class, the first of equal ones, and not at all where no class has a share; the target of a label is a yes
    above one half.

    Args:
        output: [B, C] or [B, C, ...]; for labels also [B].
        target: int64 [B] or [B, ...], or of the output's shape.
        objective: What the loss says.

    Raises:
        TrainingError: the two do not fit, or it is not known how to read them; says what to do.
    """
    if objective.kind == "labels" or (objective.kind is None and _elementwise(output, target)):
        return _labels(output, target, objective)
    return _classes(output, target, objective)


#: How the user says what the loss does not say.
WAY = (
    "say how output and target are to be read by naming the loss of torch that reads them so: "
    "metrics=dlkit.metrics.Metrics([...], loss=torch.nn.CrossEntropyLoss()) (of BCEWithLogitsLoss: logits, of BCELoss: "
    "probabilities, of NLLLoss: log-probabilities), or pass dlkit.metrics.Mean(function, higher_is_better=...)"
)


def _elementwise(output: Tensor, target: Tensor) -> bool:
    """Whether an unknown loss compares number with number: by type and shape alone."""
    single = output.numel() == target.numel() and (output.dim() == 1 or output.shape[1:].numel() == 1)
    if single or (target.shape == output.shape and not target.is_floating_point()):
        return True
    if target.is_floating_point():
        raise TrainingError(
            f"output {shape_of(output)} and target {shape_of(target)} may be class probabilities, several labels or "
            f"numbers, and a custom loss does not say which; {WAY}"
        )
    return False


def _classes(output: Tensor, target: Tensor, objective: Objective) -> Classified:
    if output.dim() == 1:
        output, target = output[None], target[None]
    if target.is_floating_point() and target.shape == output.shape:
        target = target.argmax(1).where(target.sum(1) > 0, objective.ignore_index)  # no share: counts in no loss either
    scores = output.movedim(_class_dim(output, target, objective), -1).flatten(0, -2)
    flat = target.reshape(-1).long()
    kept = flat != objective.ignore_index
    if not bool(kept.all()):
        scores, flat = scores[kept], flat[kept]
    if len(flat) and not 0 <= int(flat.min()) <= int(flat.max()) < scores.shape[1]:
        wrong = int(flat[(flat < 0) | (flat >= scores.shape[1])][0])
        raise TrainingError(
            f"target {wrong} is not one of the {scores.shape[1]} classes of the output, and not the ignored one "
            f"({objective.ignore_index}); {WAY}"
        )
    return Classified(scores=scores, target=flat, form=objective.form)


def _class_dim(output: Tensor, target: Tensor, objective: Objective) -> int:
    second = output.dim() > 1 and output.shape[:1] + output.shape[2:] == target.shape
    last = output.dim() > 2 and output.shape[:-1] == target.shape
    if target.is_floating_point() or not (second or (last and objective.kind is None)):
        raise TrainingError(
            f"output {shape_of(output)} and target {shape_of(target)} do not fit: with an output [B, C, ...] the "
            "target is int64 [B, ...], or class probabilities of the output's shape"
        )
    if second and last and objective.kind is None:
        raise TrainingError(f"output {shape_of(output)}: dimension 1 or the last one may hold the classes; {WAY}")
    return 1 if second else -1


def _labels(output: Tensor, target: Tensor, objective: Objective) -> Classified:
    if output.numel() != target.numel() or (objective.kind == "labels" and output.shape != target.shape):
        raise TrainingError(f"output {shape_of(output)} and target {shape_of(target)} must have one shape")
    if target.numel() and not -1 <= float(target.min()) <= float(target.max()) <= 1:
        raise TrainingError(f"a binary target must lie between 0 and 1, and here it is {float(target.max()):g}")
    target, unclear = target.reshape(output.shape) > 0.5, False
    if output.dim() <= 1 or output.shape[1:].numel() == 1 or output.shape[1] == 1:
        scores, target = output.reshape(-1, 1), target.reshape(-1, 1)
    else:
        unclear = output.dim() == 3  # [B, labels, T], or [B, H, W] without a dimension for labels?
        scores, target = (each.movedim(1, -1).flatten(0, -2) for each in (output, target))
    return Classified(scores=scores, target=target, form=objective.form, unclear=unclear)


def numbers(output: Tensor, target: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
    """Predictions and targets of a regression, in one shape.

    Args:
        output: What the model gives; logarithms of it where the loss says so.
        target: Of the same shape; dimensions of size 1 may differ.
        objective: What the loss says.

    Raises:
        TrainingError: the shapes differ.
    """
    if [size for size in output.shape if size != 1] != [size for size in target.shape if size != 1]:
        raise TrainingError(f"output {shape_of(output)} and target {shape_of(target)} must have one shape")
    values = output.exp() if objective.form == "logarithms" else output
    return values.reshape(target.shape), target
