"""What the Trainer makes of its arguments before any training: device, bare model, and what cannot be meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from dlkit.callbacks.base import Callback, overrides
from dlkit.callbacks.checkpoint import Checkpoint
from dlkit.callbacks.frozen import CheckFrozen
from dlkit.callbacks.learning_rate import LearningRate
from dlkit.errors import ArgumentError

__all__ = ["bare", "check", "check_callbacks", "is_channels_last", "pick_device", "schedule"]


def pick_device(device: str | torch.device) -> torch.device:
    """The device itself, or for "auto" the best one there is.

    Args:
        device: As given to the Trainer.
    """
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def bare(model: nn.Module) -> nn.Module:
    """The user's module without the wrappers of `torch.compile` and `DataParallel`, which would dirty the keys.

    Args:
        model: As given to the Trainer.
    """
    while isinstance(inner := getattr(model, "_orig_mod", None) or _parallel(model), nn.Module):
        model = inner
    return model


def _parallel(model: nn.Module) -> Any:
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    return model.module if isinstance(model, wrappers) else None


def is_channels_last(model: nn.Module) -> bool:
    """Whether the convolutions' kernels lie in channels-last order.

    Args:
        model: The bare model.
    """
    kernels = [parameter for parameter in model.parameters() if parameter.dim() == 4 and parameter.shape[1] > 1]
    return any(
        kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels if max(kernel.shape[2:]) > 1
    )


def schedule(scheduler: Any) -> list[LearningRate]:
    """The scheduler as a callback, in a list; an empty one for None.

    Args:
        scheduler: As given to the Trainer.
    """
    if scheduler is None:
        return []
    return [scheduler if isinstance(scheduler, LearningRate) else LearningRate(scheduler)]


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
    if accumulate < 1:
        raise ArgumentError(f"accumulate must be at least 1 batch per step, not {accumulate}")
    for name, optimizer in optimizers.items():
        if not isinstance(optimizer, Optimizer):
            raise ArgumentError(f"{name} must be a torch.optim.Optimizer, not {type(optimizer).__name__}")
    if step is None and len(optimizers) != 1:
        raise ArgumentError(f"{len(optimizers)} optimizers need a step=function of your own that says which does what")
    if step is not None and (accumulate != 1 or precision != "fp32"):
        raise ArgumentError(
            "a step of your own does its own accumulation and precision; leave accumulate and precision out"
        )
    if step is not None and compiled:
        raise ArgumentError("a step of your own calls the model itself: compile what it calls, and leave compile out")
    own = {id(parameter) for parameter in model.parameters()}
    held = [p for optimizer in optimizers.values() for group in optimizer.param_groups for p in group["params"]]
    if not any(id(parameter) in own for parameter in held):
        raise ArgumentError(
            "the optimizer holds none of the model's parameters; make it from the model you train: "
            "torch.optim.AdamW(model.parameters(), lr=1e-3)"
        )


def check_callbacks(callbacks: Sequence[Any], step: Any) -> None:
    """Refuse what is no callback, two folders for one run, and what a step of the user's own would never call.

    Args:
        callbacks: All of them.
        step: As given to the Trainer.
    """
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise ArgumentError(f"callbacks must be dlkit.callbacks.Callback objects, not {callback!r}")
    if sum(isinstance(callback, Checkpoint) for callback in callbacks) > 1:
        raise ArgumentError("a run has one folder: pass one Checkpoint")
    for callback in callbacks if step is not None else ():
        name, warmup = type(callback).__name__, getattr(callback, "warmup", None)
        harmless = isinstance(callback, CheckFrozen) or (isinstance(callback, LearningRate) and warmup == 0)
        if overrides(callback, "on_gradients") and not harmless:
            name += f"(warmup={warmup})" if isinstance(callback, LearningRate) else ""
            raise ArgumentError(
                f"{name} works on gradients, which the Trainer never sees with a step of your own; do in the step "
                "what it would do, between backward() and optimizer.step()"
            )
