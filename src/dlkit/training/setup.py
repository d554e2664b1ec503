"""What the Trainer makes of its arguments before any training: device, bare model, and what is refused."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from dlkit._arguments import callable_object, instance
from dlkit.callbacks.base import Callback, overrides
from dlkit.callbacks.learning_rate import LearningRate
from dlkit.errors import ArgumentError
from dlkit.runs.parts import elsewhere, find_parts, hold_tensors, learning_parameters
from dlkit.runs.state import Run
from dlkit.training.batches import to_device
from dlkit.training.closures import needs_closure
from dlkit.training.own_steps import takes_a_batch
from dlkit.transfer.groups import warn_of_unheld

__all__ = [
    "check",
    "check_callbacks",
    "check_kinds",
    "gradient_hooks",
    "listed_callbacks",
    "optimizers_of",
    "parts_on_device",
    "schedule",
]


def check_kinds(model: Any, loss: Any, step: Any, eval_step: Any) -> None:
    """Refuse a model, a loss or a step that is a class, a name, or something else that cannot be called.

    Args:
        model: As given to the Trainer.
        loss: As given to the Trainer.
        step: As given to the Trainer.
        eval_step: As given to the Trainer.
    """
    instance("model", model, nn.Module, "a torch.nn.Module")
    if isinstance(loss, type):
        raise ArgumentError(f"loss is the class {loss.__name__}; make an object of it: {loss.__name__}()")
    if loss is not None:
        callable_object("loss", loss, "loss(output, target), or None when the model returns it")
    if step is not None:
        callable_object("step", step, "step(run, batch) or step(run)")
    if eval_step is not None:
        callable_object("eval_step", eval_step, "eval_step(run, batch)")


def optimizers_of(optim: Any) -> dict[str, Optimizer]:
    """The optimizers by name; a single one is called "optimizer".

    Args:
        optim: As given to the Trainer.
    """
    optimizers = dict(optim) if isinstance(optim, Mapping) else {"optimizer": optim}
    for name, optimizer in optimizers.items():
        expected = "a torch.optim.Optimizer, such as torch.optim.AdamW(model.parameters(), lr=1e-3)"
        instance(str(name), optimizer, Optimizer, expected)
        if not isinstance(name, str):
            raise ArgumentError(f"the name of an optimizer must be a string, not {name!r}")
    return optimizers


def schedule(scheduler: Any) -> list[LearningRate]:
    """The scheduler as a callback, in a list; an empty one for None.

    Args:
        scheduler: As given to the Trainer.
    """
    if scheduler is None:
        return []
    return [scheduler if isinstance(scheduler, LearningRate) else LearningRate(scheduler)]


def parts_on_device(
    loss: Any, others: Mapping[str, Any], model: nn.Module, device: torch.device
) -> tuple[Any, dict[str, Any]]:
    """The loss, and all that has a state beside the model, by name (`Run.parts`), on the device.

    Args:
        loss: As given to the Trainer. Modules in it are moved where they are, with the tensors that they hold as plain
            attributes; tensors that a `functools.partial` holds, such as class weights, make a new one.
        others: What else was given and may have a state, by name.
        model: The bare model.
        device: Where the model is.
    """
    if isinstance(loss, functools.partial):
        arguments, named = to_device(loss.args, device), to_device(loss.keywords, device)
        loss = functools.partial(loss.func, *arguments, **named)
    parts = find_parts({"loss": loss, **others}, model)
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            if name.partition(".")[0] == "loss":
                hold_tensors(part, model)
            part.to(device)
    if left := elsewhere(loss, "loss", device):
        warnings.warn(
            f"{', '.join(left)}: not on {device.type}, where the model is, and neither moved nor saved; let the loss "
            "be a torch.nn.Module that holds each such tensor by itself: self.register_buffer('weights', tensor), or "
            "torch.nn.Parameter(tensor) where it learns",
            stacklevel=3,
        )
    return loss, parts


def warn_untrained(run: Run) -> None:
    """Name the parameters of the model and the loss that are meant to be trained and are in no optimizer.

    Args:
        run: With all its parts.
    """
    losses = {part: value for part, value in run.parts.items() if part.partition(".")[0] == "loss"}
    named = {
        f"{part}.{name}": each for part, value in losses.items() for name, each in learning_parameters(value).items()
    }
    warn_of_unheld(dict(run.model.named_parameters()) | named, run.optimizers)


def check(
    model: nn.Module,
    optimizers: Mapping[str, Optimizer],
    accumulate: int,
    step: Any,
    precision: str,
    compiled: bool,
) -> None:
    """Refuse arguments that do not go together.

    Args:
        model: The bare model.
        optimizers: By name.
        accumulate: As given to the Trainer.
        step: As given to the Trainer.
        precision: As given to the Trainer.
        compiled: Whether the Trainer is to compile the model.
    """
    if step is None and len(optimizers) != 1:
        raise ArgumentError(f"{len(optimizers)} optimizers need a step=function of your own that says which does what")
    if step is not None and precision != "fp32":
        raise ArgumentError("a custom step handles precision itself (torch.autocast); leave precision out")
    if step is not None and accumulate != 1 and takes_a_batch(step):
        raise ArgumentError(
            f"a custom step that is called as step(run, batch) sees one batch, and accumulate={accumulate} are to "
            "make a step: let it be called as step(run), and run.backward(loss_of) goes over all of them, where "
            "loss_of(batch) gives the loss of one"
        )
    if step is None and precision == "fp16" and needs_closure(next(iter(optimizers.values()))):
        raise ArgumentError(
            "the gradient scaler of fp16 looks at the gradients before the optimizer does, and this optimizer computes "
            "its gradients itself; use precision='bf16' or 'fp32'"
        )
    if step is not None and compiled:
        raise ArgumentError("a custom step calls the model itself: compile what it calls, and leave compile out")
    own = {id(parameter) for parameter in model.parameters()}
    held = [p for optimizer in optimizers.values() for group in optimizer.param_groups for p in group["params"]]
    if not any(id(parameter) in own for parameter in held):
        raise ArgumentError(
            "the optimizer holds none of the model's parameters; make it from the model you train: "
            "torch.optim.AdamW(model.parameters(), lr=1e-3)"
        )


def listed_callbacks(callbacks: Any) -> list[Callback]:
    """The user's callbacks as a list of objects.

    Args:
        callbacks: As given to the Trainer.
    """
    if isinstance(callbacks, Callback | str) or not isinstance(callbacks, Iterable):
        raise ArgumentError(f"callbacks must be a list of dlkit.callbacks.Callback objects, not {callbacks!r}")
    listed = list(callbacks)
    for callback in listed:
        instance("callbacks: each", callback, Callback, "a dlkit.callbacks.Callback")
    return listed


def gradient_hooks(callbacks: Sequence[Callback]) -> list[Callable[..., None]]:
    """The hooks of callbacks that do nothing but work on gradients; a warm-up, for example, also ends its step.

    Args:
        callbacks: All of them.
    """
    alone = (each for each in callbacks if overrides(each, "on_gradients") and not overrides(each, "on_step_end"))
    return [callback.on_gradients for callback in alone]


def check_callbacks(callbacks: Sequence[Callback], step: Any, optimizers: Mapping[str, Optimizer]) -> None:
    """Refuse two Checkpoints in one folder, and what cannot serve a run that takes its steps in another way.

    Args:
        callbacks: All of them.
        step: As given to the Trainer.
        optimizers: By name.
    """
    folders = [callback.store.folder.resolve() for callback in callbacks if callback.store is not None]
    for folder in (folder for place, folder in enumerate(folders) if folder in folders[:place]):
        raise ArgumentError(
            f"two Checkpoints save into {folder}; give each its own folder, for example {folder / 'best-accuracy'}"
        )
    closure = step is None and any(needs_closure(optimizer) for optimizer in optimizers.values())
    for callback in callbacks:
        if (conflict := callback.conflict(own_step=step is not None, closure=closure)) is not None:
            raise ArgumentError(conflict)
