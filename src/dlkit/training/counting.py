"""What a batch counts in a mean over batches: what the loss of the batch was divided by.

Known from the loss where it is one of torch's, said by the user (`count=`), or the number of samples. Where none of
these is known, batches may still be trained on one by one, but neither accumulated nor averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from dlkit._calling import split
from dlkit._nested import tensors_in
from dlkit._shapes import shape_of
from dlkit.errors import ArgumentError, TrainingError
from dlkit.objective import IGNORED, objective_of, unwrapped

__all__ = ["Averaging", "Counting", "samples_of", "told"]

_WAY = (
    "say what the loss of a batch is divided by with Trainer(..., count=function), for example "
    "count=lambda batch: batch[1].numel(), or count=lambda batch: int((batch['labels'] != -100).sum()); or give the "
    "batch a length (__len__)"
)


class Counting:
    """What batches count under a loss.

    Args:
        loss: As given to the Trainer.
        count: `count(batch)`, what the loss of a batch is divided by: a number, or a tensor with one.

    Attributes:
        known: The loss or the user says it; else it is taken from the samples, and looked at before it is used.
        sums: The loss is not divided at all (`reduction="sum"`).

    Raises:
        ArgumentError: `count` cannot be called.

    >>> import torch
    >>> Counting(nn.CrossEntropyLoss())(("x", torch.tensor([[1, -100, 0]])))
    2
    """

    def __init__(self, loss: Any, count: Callable[[Any], Any] | None = None) -> None:
        if count is not None and not callable(count):
            raise ArgumentError(f"count must be a function of a batch, not {count!r}")
        self._count, self._divisor = count, _divisor_of(loss)
        self.said, self.known = count is not None, count is not None or self._divisor is not None
        plain, given = unwrapped(loss)
        self.sums = given.get("reduction", getattr(plain, "reduction", "mean")) == "sum"

    def __call__(self, batch: Any) -> Any:
        """A number above or equal to 0, or a tensor with one that has not been read; 1 where nothing is known.

        Args:
            batch: As the loader gave it.
        """
        if self._count is not None:
            return _checked(self._count(batch))
        target = batch[1] if type(batch) in (tuple, list) and len(batch) == 2 else split(batch)[1]
        if self._divisor is not None and isinstance(target, Tensor):
            return self._divisor(target)
        return samples_of(batch)

    def mean(self, loss: Tensor, count: Any) -> Tensor:
        """The loss of a batch as a mean, also where the loss function gives a sum.

        Args:
            loss: One number.
            count: What the batch counts.
        """
        return loss / count if self.sums and (isinstance(count, Tensor) or count) else loss


def samples_of(batch: Any) -> int:
    """The number of samples: a batch's own length, or the first dimension of its target, of its inputs without one.

    Args:
        batch: As the loader gave it; 1 where it does not say.

    >>> import torch
    >>> samples_of((torch.zeros(7, 4, 2), torch.zeros(4))), samples_of({"x": torch.zeros(3, 2)})
    (4, 3)
    """
    target = batch[1] if type(batch) in (tuple, list) and len(batch) == 2 else None
    if isinstance(target, Tensor):  # the usual batch does not pay for the others
        return target.shape[0] if target.dim() else 1
    return _samples(batch)[0]


class Averaging:
    """What each of several batches counts beside the others; refuses those of which that is not known.

    Args:
        counting: What a batch counts.
    """

    def __init__(self, counting: Counting) -> None:
        self.counting = counting
        self._unread: list[Tensor] = []
        self.restart()

    def restart(self) -> None:
        """Other batches are put together from now on."""
        self._first: tuple[Any, Any] | None = None
        self._several = False

    def __call__(self, batch: Any) -> Any:
        """What the batch counts.

        Args:
            batch: The next one.

        Raises:
            TrainingError: the loss may divide it by something else than those before.
        """
        count, unit = self.seen(batch)
        self.put_beside(unit, batch)
        return count

    def seen(self, batch: Any) -> tuple[Any, Any]:
        """What a batch counts, and what one of its samples is, as far as that matters.

        Args:
            batch: Any.
        """
        if self.counting.known:
            return self.counting(batch), None
        count, unit = _samples(batch)
        return count, _UNKNOWN if self._ignores(batch) else unit

    def put_beside(self, unit: Any, batch: Any) -> None:
        """Refuse the next batch where it may count otherwise than those before.

        Args:
            unit: What `seen` gave, in this process or another.
            batch: The batch, or what `told` gave.

        Raises:
            TrainingError: it does.
        """
        if self.counting.known:
            return
        if self._first is None:
            self._first = unit, batch
            return
        self._several = True
        if unit == _UNKNOWN or unit != self._first[0]:
            raise TrainingError(
                f"the count of a batch is not known: the loss is not one of torch's, and of the batches {told(batch)} "
                f"and {told(self._first[1])} it may be a mean over samples, positions or what is not ignored; {_WAY}"
            )

    def _ignores(self, batch: Any) -> bool:
        """Whether targets are ignored by torch's convention; a GPU is not waited for, `settle` tells."""
        targets = tensors_in(split(batch)[1])
        found = [(target == IGNORED).any() for target in targets if not target.is_floating_point()]
        self._unread += [flag for flag in found if not _waits(flag)]
        if len(self._unread) >= _READ_EVERY and self._several:
            self.settle()
        return any(bool(flag) for flag in found if _waits(flag))

    def settle(self) -> None:
        """Read from the device whether targets of what was put together are ignored.

        Raises:
            TrainingError: some are.
        """
        flags, self._unread = self._unread, []
        if flags and self._several and bool(torch.stack(flags).any()):
            raise TrainingError(
                f"the count of a batch is not known: the loss is not one of torch's, and of the last {len(flags)} "
                f"batches some have ignored targets ({IGNORED}); {_WAY}"
            )


_UNKNOWN = "unknown"  # what else a sample can be is not text
_READ_EVERY = 64


def _waits(flag: Tensor) -> bool:
    """Whether a number can be read at no cost."""
    return flag.is_cpu


def told(batch: Any) -> str:
    """What an error says of a batch.

    Args:
        batch: Any; one of which it is said already stays as it is.
    """
    if isinstance(batch, str):
        return batch
    ignored = any(bool((tensor == IGNORED).any()) for tensor in tensors_in(split(batch)[1]))
    return f"({shape_of(batch)}{f', with ignored targets ({IGNORED})' if ignored else ''})"


def _samples(batch: Any) -> tuple[int, Any]:
    """How many samples there are, and what one is: batches that agree in that have losses that can be averaged."""
    if (length := _own_length(batch)) is not None:
        return length, None
    inputs, target = split(batch)
    part = inputs if target is None else target
    count, unit = _rows(part)
    if unit is not _UNKNOWN and isinstance(inputs, tuple | list) and len(inputs) != count:
        unit = unit, len(inputs)  # so many inputs; one object for each sample is no more than its samples
    return count, unit


def _rows(part: Any) -> tuple[int, Any]:
    if isinstance(part, Tensor):
        return (part.shape[0], part.shape[1:]) if part.dim() else (1, ())
    if (length := _own_length(part)) is not None:
        return length, None
    parts = list(part.values()) if isinstance(part, Mapping) else part
    if isinstance(parts, tuple | list) and parts and all(isinstance(each, Tensor) and each.dim() for each in parts):
        if len({len(each) for each in parts}) == 1:
            return len(parts[0]), tuple(each.shape[1:] for each in parts)
    elif isinstance(part, tuple | list) and part:  # one object for each sample, such as the boxes of an image
        return len(part), None
    return 1, tuple(tensor.shape for tensor in tensors_in(part)) or _UNKNOWN


def _own_length(value: Any) -> int | None:
    """Of a graph batch, and of any batch class with a length; not of containers, which hold parts."""
    if isinstance(value, Tensor | Mapping | tuple | list | str):
        return int(value.batch_sizes[0]) if isinstance(value, PackedSequence) else None
    if (graphs := getattr(value, "num_graphs", None)) is not None:
        return int(graphs)
    return len(value) if hasattr(value, "__len__") else None


def _checked(count: Any) -> Any:
    right = count.numel() == 1 if isinstance(count, Tensor) else isinstance(count, int | float) and count >= 0
    if not right:
        raise TrainingError(f"count(batch) must give a number above or equal to 0, not {shape_of(count)} {count!r}")
    return count


# Losses whose mean is over all numbers of the target, or over its rows of one length.
_BY_NUMBERS = (
    (nn.MultiMarginLoss, F.multi_margin_loss),
    (nn.BCEWithLogitsLoss, F.binary_cross_entropy_with_logits),
    (nn.BCELoss, F.binary_cross_entropy),
    (nn.MultiLabelSoftMarginLoss, F.multilabel_soft_margin_loss),
    (nn.SoftMarginLoss, F.soft_margin_loss),
    (nn.HuberLoss, F.huber_loss),
    (nn.KLDivLoss, F.kl_div),
    (nn.L1Loss, F.l1_loss),
    (nn.MSELoss, F.mse_loss),
    (nn.SmoothL1Loss, F.smooth_l1_loss),
    (nn.PoissonNLLLoss, F.poisson_nll_loss),
)


def _divisor_of(loss: Any) -> Callable[[Tensor], Any] | None:
    """What a loss of torch divides by, given the target; None for others, own subclasses among them."""
    plain, given = unwrapped(loss)

    def said(name: str, default: Any) -> Any:
        return given.get(name, getattr(plain, name, default))

    for module, function in ((nn.CrossEntropyLoss, F.cross_entropy), (nn.NLLLoss, F.nll_loss)):
        if _is(plain, module, function):
            ignored, weighs = objective_of(loss).ignore_index, said("weight", None) is not None
            return lambda target: _kept(target, ignored, said("weight", None) if weighs else None)
    if not any(_is(plain, module, function) for module, function in _BY_NUMBERS):
        return None
    if said("reduction", "mean") == "batchmean":
        return len
    return Tensor.numel


def _is(loss: Any, module: type[nn.Module], function: Any) -> bool:
    return loss is function or (isinstance(loss, module) and type(loss).forward is module.forward)


_FEW = 256  # targets, up to which a list is quicker than numpy


def _kept(target: Tensor, ignored: int, weight: Tensor | None) -> Any:
    if target.is_floating_point():  # class probabilities [B, C, ...]: torch divides by the places, whatever the weights
        return target.numel() // target.shape[1] if target.dim() > 1 else 1
    if weight is None and target.is_cpu and type(target) is Tensor:
        if target.dim() == 1 and len(target) <= _FEW:  # every step pays for this: the lists of Python are quickest
            return len(target) - target.tolist().count(ignored)
        return int(np.count_nonzero(target.numpy() != ignored))  # in a third of the time
    kept = target != ignored
    if weight is None:
        return kept.sum()
    # Without waiting for the device; what is out of range is for the loss itself to complain about.
    return (weight[target.clamp(0, len(weight) - 1)] * kept).sum()
