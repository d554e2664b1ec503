"""Steps of optimizers that evaluate loss and gradients several times themselves, such as L-BFGS."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor
from torch.optim import Optimizer

from dlkit.errors import TrainingError
from dlkit.runs.state import Run
from dlkit.training.optimizing import drop_gradients
from dlkit.training.steps import Done, Group, NothingError, StandardStep

__all__ = ["ClosureStep", "needs_closure"]


def needs_closure(optimizer: Optimizer) -> bool:
    """Whether `optimizer.step` cannot be called without a closure, as its signature says.

    Args:
        optimizer: Any optimizer.

    >>> import torch
    >>> weights = [torch.nn.Parameter(torch.zeros(1))]
    >>> needs_closure(torch.optim.LBFGS(weights)), needs_closure(torch.optim.Adam(weights))
    (True, False)
    """
    parameters = inspect.signature(type(optimizer).step).parameters
    closure = parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


class ClosureStep(StandardStep):
    """The standard step for an optimizer that is given a closure.

    Each call of the closure computes loss and gradients of the whole group again, at the weights as they are then, and
    calls the hooks on gradients (clipping), as a closure in your own loop would. The loss that counts is that of
    the first call, at the weights before the step.
    """

    def __call__(self, run: Run, group: Group) -> Done | None:
        optimizer, first = run.optimizer, list[Done]()

        def closure() -> Tensor:
            drop_gradients(optimizer)
            done = self._evaluated(run, group)
            if done is None:
                raise NothingError
            for hook in self.on_gradients:
                hook(run)
            first.append(done)
            return torch.as_tensor(done[0])

        try:
            optimizer.step(closure)  # type: ignore[arg-type]  # torch says float, and documents the loss
        except NothingError:
            return None
        drop_gradients(optimizer)
        if not first:
            raise TrainingError(f"{type(optimizer).__name__}.step did not call the closure that it demands")
        return self._as_mean(*first[0])
