"""An optimizer's step and what belongs to it, without what torch wraps around them for its profiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim import optimizer as torch_optimizer

from dlkit.errors import TrainingError

__all__ = ["drop_gradients", "explain_closure", "take_step"]

#: What torch puts around the `step` of every optimizer class: a profiling range, and the hooks of users.
_WRAPPER = Optimizer.profile_hook_step(lambda optimizer: None).__code__
_HOOKS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
_GLOBAL_HOOKS = ("_global_optimizer_pre_hooks", "_global_optimizer_post_hooks")


def take_step(optimizer: Optimizer) -> None:
    """`optimizer.step()`; the profiling range around it, which costs more than all of the loop, only for a profiler.

    Args:
        optimizer: Any optimizer. A `step` of its instance (schedulers count its calls) and hooks are called as always.

    Raises:
        TrainingError: it misses the closure that it declares as optional.
    """
    inner = _inner_step(type(optimizer))
    own = vars(optimizer)
    try:
        if inner is None or "step" in own or any(map(own.get, _HOOKS)) or _somebody_listens():
            optimizer.step()
        else:
            inner(optimizer)
    except Exception as error:
        explain_closure(error, optimizer)
        raise


def _inner_step(kind: type[Optimizer]) -> Callable[[Any], Any] | None:
    """What torch's wrapper wraps; None where it cannot be told from something else, which might do more."""
    step: Any = kind.step
    return step.__wrapped__ if getattr(step, "__code__", None) is _WRAPPER else None


def _somebody_listens() -> bool:
    listening = any(getattr(torch_optimizer, name, None) for name in _GLOBAL_HOOKS)
    return listening or torch.autograd._profiler_enabled()  # type: ignore[attr-defined]


def drop_gradients(optimizer: Optimizer) -> None:
    """`optimizer.zero_grad()`, without its profiling range.

    Args:
        optimizer: Any optimizer; one with a `zero_grad` of its own is asked.
    """
    if type(optimizer).zero_grad is not Optimizer.zero_grad or "zero_grad" in vars(optimizer):
        optimizer.zero_grad()
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


def explain_closure(error: Exception, optimizer: Optimizer) -> None:
    """Raise a `TrainingError` where an optimizer misses the closure that it declares as optional.

    Args:
        error: What `optimizer.step()` raised.
        optimizer: The optimizer.
    """
    if "closure" in str(error).lower():
        raise TrainingError(
            f"{type(optimizer).__name__}.step declares its closure as optional, but does not work without: {error}. "
            "Only a custom step, Trainer(..., step=function), knows what it needs before and after it is called"
        ) from error
