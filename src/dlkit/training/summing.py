"""The sum over the batches of one step, in an order that nothing but their places decides.

Each batch is a *leaf*: its gradients, its loss, what it counts, and the buffers that it moved (BatchNorm's statistics),
none of them divided by anything. Leaves are added pairwise along one fixed binary tree, and the sum is divided once.
Floating point sums depend on their order; this one is the same however the batches are distributed, so that a step has
the same bits on any number of processes. The idea is that of reproducible summation (Demmel, Nguyen, "Fast
Reproducible Floating-Point Summation", 2013) by fixing the order instead of the rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Buffers", "Sum", "Tree", "add", "divided", "power_of_two", "times"]

Leaf = list[Tensor | None]
_SMALL = 1 << 16  # numbers of a buffer up to which copying is cheaper than to know whether it changed


class Tree:
    """Sums leaves that come in the order of their places; at most as many partial sums wait as there are levels.

    >>> tree = Tree()
    >>> for place in range(3):
    ...     tree.add(place, [torch.tensor(float(place))])
    >>> tree.total()
    [tensor(3.)]
    """

    def __init__(self) -> None:
        #: (level, place in the level, sum), from left to right; a node of level l holds 2 ** l leaves.
        self.nodes: list[tuple[int, int, Leaf]] = []

    def add(self, place: int, leaf: Leaf, level: int = 0) -> None:
        """Take in a leaf, or the node of a level whose leaves were added elsewhere.

        Args:
            place: Its number in its level, above those before.
            leaf: Tensors that may be written into; None instead of one that nothing was computed for.
            level: 0 for a leaf.
        """
        while place % 2 and self.nodes and self.nodes[-1][:2] == (level, place - 1):
            leaf, level, place = add(self.nodes.pop()[2], leaf), level + 1, place // 2
        self.nodes.append((level, place, leaf))

    def total(self) -> Leaf:
        """The sum of all; where their number is no power of two, what is left over is added from the right."""
        total = self.nodes[-1][2]
        for _, _, left in reversed(self.nodes[:-1]):
            total = add(left, total)
        return total


def add(left: Leaf, right: Leaf) -> Leaf:
    """The sum of two leaves, in the memory of the left one.

    Args:
        left: Written into.
        right: Has as many tensors.

    >>> add([torch.ones(2), None], [None, torch.ones(1)])
    [tensor([1., 1.]), tensor([1.])]
    """
    both = [(a, b) for a, b in zip(left, right, strict=True) if a is not None and b is not None]
    dense = [(a, b) for a, b in both if not a.is_sparse and not b.is_sparse]
    if dense:
        torch._foreach_add_([a for a, _ in dense], [b for _, b in dense])
    sums = iter([a + b if a.is_sparse or b.is_sparse else a for a, b in both])
    return [_one(a, b) if a is None or b is None else next(sums) for a, b in zip(left, right, strict=True)]


def _one(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    """The one that there is, plus nothing: which takes the sign from zeros, as adding zeros elsewhere does."""
    there = right if left is None else left
    return there if there is None or there.is_sparse else there.add_(0)


class Buffers:
    """What forward passes write into modules: each batch of a step starts from the step's own, the end is their mean.

    So BatchNorm's moving averages take one step for each optimizer step, with the mean of the batches' statistics,
    instead of one for each batch, whose result would depend on who had which batch.

    Args:
        modules: The model, and what else has buffers.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._modules = list(modules)
        self._steady: set[tuple[int, str]] = set()  # those that no batch has moved so far are not copied

    def begin(self) -> None:
        """Remember where the step begins."""
        self._found = {
            (id(part), name): (part, buffer, buffer._version)
            for module in self._modules
            for part in module.modules()
            for name, buffer in part._buffers.items()
            if buffer is not None and part.training
        }
        self._start = {key: self._found[key][1].clone() for key in self._found if key not in self._steady}

    @torch.no_grad()
    def take(self, count: Any) -> Leaf:
        """By how much a batch has moved them, times what it counts, or once for whole numbers; None for what stayed.

        Args:
            count: A number, or a tensor with one.
        """
        moved = {key for key in self._found if self._moved(key)}
        self._steady = self._found.keys() - moved
        return [self._way(key, count) if key in moved and key in self._start else None for key in self._found]

    def like(self) -> list[Tensor]:
        """Tensors with shape, type and device of what `take` gives."""
        return [_wide(buffer) for _, buffer, _ in self._found.values()]

    @torch.no_grad()
    def restart(self) -> None:
        """Back to where the step began."""
        for key, start in self._start.items():
            part, buffer, _ = self._found[key]
            if self._moved(key):
                part._buffers[key[1]] = buffer.copy_(start)
                self._found[key] = (part, buffer, buffer._version)

    @torch.no_grad()
    def settle(self, sums: Sequence[Tensor | None], count: Any, leaves: Any) -> None:
        """Let those that moved be the mean over the batches.

        Args:
            sums: The sum of what `take` gave.
            count: What all batches together count.
            leaves: How many there are.
        """
        for (key, (part, buffer, _)), summed in zip(self._found.items(), sums, strict=True):
            if summed is None:
                continue
            way = divided(summed, count if buffer.is_floating_point() else leaves)
            if not buffer.is_floating_point():
                way = way.round().to(buffer.dtype)
            start = self._start.get(key, buffer)
            part._buffers[key[1]] = buffer.copy_(start + way if buffer.dtype != torch.bool else start ^ way)

    def _way(self, key: tuple[int, str], count: Any) -> Tensor:
        """From where the step began to now: exactly 0 where nothing has moved, so that constants keep their bits."""
        now, start = self._found[key][0]._buffers[key[1]], self._start[key]
        if now is None:
            return torch.zeros_like(_wide(start))
        if now.is_floating_point():
            return torch.where(now == start, 0, now - start).mul(count)
        return (now ^ start if now.dtype == torch.bool else now - start).to(torch.float64)

    def _moved(self, key: tuple[int, str]) -> bool:
        """Whether it may have been written into: torch's own normalisation does not count up a buffer's version."""
        part, buffer, version = self._found[key]
        return buffer.numel() <= _SMALL or part._buffers[key[1]] is not buffer or buffer._version != version


def _wide(buffer: Tensor) -> Tensor:
    """What a mean of it is computed in."""
    return buffer if buffer.is_floating_point() else buffer.to(torch.float64)


class Sum:
    """Loss and gradients of the batches of one step, put together when all are there.

    Args:
        parameters: Those that are trained.
        buffers: What forward passes write into.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], buffers: Buffers) -> None:
        self._parameters, self._buffers, self.tree = parameters, buffers, Tree()

    def __enter__(self) -> Sum:
        self._buffers.begin()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is not None:
            self._buffers.restart()

    def start(self) -> None:
        """Before the forward pass of a batch."""
        self._buffers.restart()

    @torch.no_grad()
    def take(self, place: int, loss: Tensor, count: Any) -> None:
        """After the backward pass of a batch.

        Args:
            place: The batch's place in the step.
            loss: What `backward` was called on.
            count: What the batch counts.
        """
        gradients: Leaf = []
        for parameter in self._parameters:
            gradients.append(parameter.grad)
            parameter.grad = None
        if loss.is_cpu and not isinstance(count, Tensor):  # a third of the time of writing them one by one
            numbers = torch.tensor((loss.item(), count, 1), dtype=torch.float64)
        else:
            numbers = _numbers(loss.device)
            numbers[0], numbers[1], numbers[2] = loss, count, 1
        self.tree.add(place, [numbers, *gradients, *self._buffers.take(count)])

    def like(self, device: torch.device) -> list[Tensor]:
        """Tensors with shape, type and device of each entry of a leaf.

        Args:
            device: Where losses are.
        """
        return [_numbers(device), *self._parameters, *self._buffers.like()]

    @torch.no_grad()
    def settle(
        self, total: Leaf, *, divide: bool, scale: float, kept: bool, more: Sequence[Tensor] = ()
    ) -> tuple[Tensor, Any]:
        """Give parameters the gradients of the whole step; returns the loss, and what all batches count.

        Args:
            total: The sum over all leaves.
            divide: Whether the losses are means, which were multiplied by what each counts over `scale`.
            scale: A power of two, which changes no bit.
            kept: Whether the sum is in memory that is written into again, while gradients may be looked at.
            more: Sums of gradients that are not entries of the leaves.
        """
        numbers, rest = total[0], total[1:]
        if numbers is None:
            raise AssertionError("a leaf without its numbers")
        loss, count, leaves = numbers if numbers.is_cuda else numbers.tolist()
        weight = count / scale if divide else 1
        below, gradients = _divisor(weight), rest[: len(self._parameters)]
        there = [gradient for gradient in gradients if gradient is not None]
        means = iter(torch._foreach_div(there, below) if kept and there else [each.div_(below) for each in there])
        for each in more:
            each.div_(below)
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = None if gradient is None else next(means)
        self._buffers.settle(rest[len(self._parameters) :], count, leaves)
        return divided(torch.as_tensor(loss, dtype=numbers.dtype), weight), count


def _numbers(device: torch.device) -> Tensor:
    """Room for the loss, what batches count, and how many leaves there are."""
    return torch.zeros(3, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)


def times(loss: Tensor, count: Any) -> Tensor:
    """The loss of a batch times what it counts; the mean of nothing, which is NaN, times nothing is 0.

    Args:
        loss: A mean.
        count: What it was divided by.
    """
    if isinstance(count, Tensor):
        return torch.where(count > 0, loss, loss.new_zeros(())) * count
    return torch.mul(loss if count else loss.nan_to_num(0.0, 0.0, 0.0), count)


def power_of_two(count: Any) -> float:
    """The power of two next to a number, 1 for what has not been read: to divide by it changes no bit.

    Args:
        count: What a batch counts.

    >>> power_of_two(48), power_of_two(0)
    (32.0, 1.0)
    """
    return 1.0 if isinstance(count, Tensor) or not count else 2.0 ** (math.frexp(count)[1] - 1)


def divided(value: Tensor, total: Any) -> Tensor:
    """A sum as a mean; the mean of nothing is the sum of nothing, 0.

    Args:
        value: The sum.
        total: What it counts: a number, or a tensor with one that has not been read.
    """
    return torch.div(value, _divisor(total))


def _divisor(total: Any) -> Any:
    if isinstance(total, Tensor):
        return torch.where(total > 0, total, torch.ones_like(total))
    return total or 1
