"""What happens to gradients between the backward pass and the optimizer."""

from __future__ import annotations

import torch

from dlkit.callbacks.base import Callback
from dlkit.errors import ArgumentError
from dlkit.runs.state import Run

__all__ = ["ClipGradients"]


class ClipGradients(Callback):
    """Scales the gradients of a step down to a total norm over all parameters of an optimizer (Pascanu et al. 2013).

    Works on the whole accumulated and unscaled gradient, and does not wait for the device.

    Args:
        max_norm: The largest total norm.
        norm_type: 2 for the Euclidean norm, `float("inf")` for the largest entry.

    Raises:
        ArgumentError: a norm that is not positive.

    >>> clip = ClipGradients(max_norm=1.0)
    """

    def __init__(self, max_norm: float = 1.0, norm_type: float = 2.0) -> None:
        if not max_norm > 0:
            raise ArgumentError(f"max_norm must be positive, not {max_norm}")
        self.max_norm, self.norm_type = max_norm, norm_type

    def on_gradients(self, run: Run) -> None:
        for optimizer in run.optimizers.values():
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            if run.shards is None:
                torch.nn.utils.clip_grad_norm_(parameters, self.max_norm, self.norm_type)
                continue
            # Whole gradients, one after the other: the norms of their parts would add up to other last digits.
            wholes = (run.shards.whole(each, each.grad) for each in parameters if each.grad is not None)
            norms = [torch._foreach_norm([whole], self.norm_type)[0] for whole in wholes]
            if norms:
                total = torch.linalg.vector_norm(torch.stack(norms), self.norm_type)
                torch.nn.utils.clip_grads_with_norm_(parameters, self.max_norm, total)
