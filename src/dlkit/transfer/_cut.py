"""A frozen model in two halves: what is computed once, and what is trained.

The cut is the input of the first module that is not frozen. The second half is the model's own `forward`, run with the
modules in front of the cut standing still: they answer with tensors that have a shape and no data ("meta"), until the
module behind the cut takes the stored features in their place. So nothing of the model is rewritten, and whatever
`forward` does after the cut is done. That the halves make the whole is checked on the first batch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dlkit._calling import call
from dlkit._nested import map_leaves, tensors_in
from dlkit.errors import ArgumentError, TrainingError
from dlkit.transfer._trace import run_trace
from dlkit.transfer.freezing import frozen_modules
from dlkit.transfer.heads import find_heads

__all__ = ["Cut", "SecondHalf", "check_halves", "check_training", "find_cut", "in_best_layout"]


class _Reached(Exception):  # noqa: N818  (not an error: the first half is done)
    pass


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cut:
    """Where a frozen model is cut.

    Attributes:
        model: The model.
        boundary: The name of the first module behind the cut.
        still: The names of the outermost modules in front of it, which need not run.
        layout: How a batch of images is in memory while the first half computes, see `in_best_layout`.
    """

    model: nn.Module
    boundary: str
    still: tuple[str, ...]
    layout: torch.memory_format = torch.preserve_format

    def features(self, images: Any) -> Tensor:
        """The first half: what the module behind the cut would be given, without a graph.

        Args:
            images: A batch as the model takes it.
        """
        taken: list[Tensor] = []

        def take(module: nn.Module, args: Any) -> None:
            taken.append(args[0].detach())
            raise _Reached

        if self.layout is torch.channels_last:
            images = images.contiguous(memory_format=self.layout)
        handle = self.model.get_submodule(self.boundary).register_forward_pre_hook(take, prepend=True)
        try:
            with torch.no_grad(), contextlib.suppress(_Reached):
                call(self.model, images)
        finally:
            handle.remove()
        if not taken:
            raise TrainingError(f"the model's forward did not reach {self.boundary!r}, so there are no features of it")
        return taken[0]


class SecondHalf:
    """Runs a model from the cut on.

    Args:
        model: The model that was cut, or a copy of it (a moving average): what is behind the cut is its own.
        cut: Where.
        example: Two samples as the model takes them, of which the shapes count: with them its forward is followed up
            to the cut.
    """

    def __init__(self, model: nn.Module, cut: Cut, example: Any) -> None:
        self.model, self.cut, self.example = model, cut, map_leaves(example, _without_data)
        self._boundary = model.get_submodule(cut.boundary)
        self._still = {name: model.get_submodule(name) for name in cut.still}
        self._answers = self._record()

    def _record(self) -> dict[str, list[Any]]:
        """What each module in front of the cut returns for two samples: shapes only."""
        answers: dict[str, list[Any]] = {name: [] for name in self._still}

        def note(name: str) -> Any:
            return lambda module, args, output: answers[name].append(map_leaves(output, _without_data))

        handles = [module.register_forward_hook(note(name)) for name, module in self._still.items()]
        try:
            run_trace(self.model, self.example)
        finally:
            for handle in handles:
                handle.remove()
        return answers

    def __call__(self, features: Tensor) -> Any:
        """The model's output for stored features.

        Args:
            features: [B, ...], as `Cut.features` gave them.
        """
        handed: list[bool] = []

        def hand_over(module: nn.Module, args: Any) -> Any:
            if handed:
                return None
            handed.append(True)
            return (features, *args[1:])

        hook = self._boundary.register_forward_pre_hook(hand_over, prepend=True)
        try:
            for name, module in self._still.items():
                module.__dict__["forward"] = _answering(self._answers[name], len(features))
            return call(self.model, map_leaves(self.example, lambda leaf: _of_batch(leaf, len(features))))
        finally:
            hook.remove()
            for module in self._still.values():
                module.__dict__.pop("forward", None)


def _answering(answers: list[Any], batch: int) -> Any:
    waiting = iter(answers)
    return lambda *args, **kwargs: map_leaves(next(waiting), lambda leaf: _of_batch(leaf, batch))


def _without_data(leaf: Any) -> Any:
    return torch.empty(leaf.shape, dtype=leaf.dtype, device="meta") if isinstance(leaf, Tensor) else leaf


def _of_batch(leaf: Any, batch: int) -> Any:
    per_sample = isinstance(leaf, Tensor) and leaf.shape[:1] == (2,)
    return leaf.new_empty((batch, *leaf.shape[1:])) if per_sample else leaf


def find_cut(model: nn.Module, example: Any) -> Cut:
    """Where a model's frozen part ends.

    Args:
        model: A model that was frozen with `freeze`.
        example: A batch as the model takes it (its shapes are what counts).

    Raises:
        ArgumentError: there is no exactly frozen first part, or more than one way leads out of it.
    """
    frozen = set(frozen_modules(model))
    trace = run_trace(model, example)
    whole = {name for name in trace.calls if name and not any(_is_in(each, name) for each in frozen)}
    behind = [name for name in trace.calls if name in whole]
    if not frozen or not behind:
        raise ArgumentError(f"{type(model).__name__} has no frozen first part: freeze(model) makes one")
    boundary = behind[0]
    before = trace.calls[boundary].used_before
    trainable = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    own = dict(model.named_parameters())
    moving = [name for name in trace.used[:before] if name in own and id(own[name]) in trainable]
    if moving:
        raise ArgumentError(f"{', '.join(moving[:3])} is trained and used before {boundary!r}, so features would move")
    order = list(trace.calls)
    earlier = [name for name in order[: order.index(boundary)] if name and name not in trace.calls[boundary].within]
    # A pure first half and nothing else: outermost modules whose weights the second half does not need.
    still = [name for name in earlier if not any(name.startswith(f"{other}.") for other in earlier)]
    if not before and not still:
        raise ArgumentError(f"{type(model).__name__} computes nothing before {boundary!r}, which is trained")
    heads = find_heads(model).main
    if any(head in still for head in heads):
        raise ArgumentError(f"the head is used before {boundary!r}")
    return Cut(model=model, boundary=boundary, still=tuple(still))


def in_best_layout(cut: Cut, images: Any) -> Cut:
    """The same cut, computed on images that lie channels last where that is the same: a CPU convolves faster so.

    By 1.2 to 2.1 times for convolutional networks with BatchNorm, and no slower for others (`bench/layout.txt`). Which
    layout is taken must not depend on a stopwatch: features are to be the same bits in every run.

    Args:
        cut: The cut.
        images: A few samples as the model takes them.
    """
    if not isinstance(images, Tensor) or images.dim() != 4 or images.device.type != "cpu":
        return cut
    few, other = images[:2], dataclasses.replace(cut, layout=torch.channels_last)
    try:
        same = torch.allclose(other.features(few), cut.features(few), rtol=1e-4, atol=1e-5)
    except RuntimeError:  # such as a .view() that counts on the usual layout
        return cut
    return other if same else cut


def _is_in(name: str, other: str) -> bool:
    return name == other or name.startswith(f"{other}.")


def check_halves(cut: Cut, images: Any, whole: Any, half: Any) -> None:
    """Refuse a cut whose halves do not give what the model gives.

    Args:
        cut: The cut.
        images: A batch.
        whole: The model's output in eval mode.
        half: What the halves gave.
    """
    for left, right in zip(tensors_in(whole), tensors_in(half), strict=True):
        if left.shape != right.shape or not torch.allclose(left, right, 1e-4, 1e-5, equal_nan=True):
            raise ArgumentError(
                f"{type(cut.model).__name__} cannot be cut at {cut.boundary!r}: what comes after it also uses "
                f"something else of the first half (for {[list(each.shape) for each in tensors_in(images)]})"
            )


def check_training(cut: Cut, images: Any, features: Tensor, half: Callable[[Tensor], Any]) -> None:
    """Refuse a cut through which the model cannot be trained as it is trained whole: tried with one backward.

    What follows the cut may compute its part a second time in the backward (checkpointing), long after the stored
    features were handed over, and then meets whatever the first half had given.

    Args:
        cut: The cut.
        images: A few samples as the model takes them.
        features: What the first half makes of them.
        half: The second half of the model.

    Raises:
        ArgumentError: the backward fails, or gives other gradients than that of the whole model.
    """
    try:
        whole = _gradients(cut.model, lambda: call(cut.model, images))
        halved = _gradients(cut.model, lambda: half(features))
    except Exception as error:  # any model, any error: what failed is told
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ArgumentError(f"the model cannot be trained from {cut.boundary!r} on alone: {reason}") from error
    size = max((float(v.abs().nan_to_num().max()) for v in whole.values() if v is not None and v.numel()), default=0.0)
    for name, mine in whole.items():
        other = halved[name]
        if mine is None or other is None:
            alike = mine is other
        else:
            alike = torch.allclose(mine, other, rtol=1e-3, atol=1e-4 * size, equal_nan=True)
        if not alike:
            raise ArgumentError(f"trained from {cut.boundary!r} on alone, {name} would get another gradient")


def _gradients(model: nn.Module, run: Callable[[], Any]) -> dict[str, Tensor | None]:
    """The gradients of some number of the output; model, random streams and hooks on parameters notice nothing."""
    own = next(model.parameters()).device
    with _on_copies(model) as copies, torch.random.fork_rng([own] if own.type == "cuda" else []), torch.enable_grad():
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what there is to warn of is said in the training itself
            outputs = [tensor for tensor in tensors_in(run()) if tensor.requires_grad]
            torch.stack([_weighed(output) for output in outputs]).sum().backward()
    return {name: copied.grad for name, copied in copies.items()}


def _weighed(output: Tensor) -> Tensor:
    """A sum in which every value counts otherwise, so that none can stand for another."""
    weights = torch.linspace(0.5, 1.5, output.numel(), device=output.device)
    return (output.float().reshape(-1) * weights).sum()


@contextlib.contextmanager
def _on_copies(model: nn.Module) -> Iterator[dict[str, nn.Parameter]]:
    """Let a model compute with copies of what it trains and of its buffers for a while; gives the copied parameters."""
    places = [(module, key, value) for module in model.modules() for key, value in _moving(module)]
    copies: dict[int, Tensor] = {}
    for _, _, value in places:
        copied = value.detach().clone()
        copies[id(value)] = nn.Parameter(copied) if isinstance(value, nn.Parameter) else copied
    named = {name: copies[id(value)] for name, value in model.named_parameters() if value.requires_grad}
    try:
        for module, key, value in places:
            setattr(module, key, copies[id(value)])  # not past the module: recurrent layers keep a list of theirs
        yield named  # type: ignore[misc]
    finally:
        for module, key, value in places:
            setattr(module, key, value)


def _moving(module: nn.Module) -> list[tuple[str, Tensor]]:
    own = [(key, value) for key, value in module._parameters.items() if value is not None and value.requires_grad]
    return [*own, *((key, value) for key, value in module._buffers.items() if value is not None)]
