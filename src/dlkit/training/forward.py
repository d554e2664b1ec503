"""Model and loss on one batch, in the wanted precision: the same for training and validation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dlkit._calling import as_input, bare, call, main_part, split
from dlkit._layer_errors import explain
from dlkit._shapes import shape_of
from dlkit.errors import ArgumentError, DlkitError, TrainingError
from dlkit.objective import objective_of
from dlkit.training import outputs
from dlkit.training.batches import check_scalar
from dlkit.training.counting import Counting

__all__ = ["Forward"]

_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Forward:
    """Model and loss on one batch, in the wanted precision: the same for training and validation.

    Args:
        model: The module that is called, compiled or not.
        loss: `loss(output, target)`; None when the model returns the loss itself, has it as `.loss` or under "loss" in
            what it returns, or returns a dict of losses.
        precision: "fp32", "bf16" or "fp16".
        device: Where the batches are.
        count: What a batch counts, see `Counting`.

    Attributes:
        loss_modules: The modules in the loss, which has modes like a model.

    Raises:
        ArgumentError: another precision.
    """

    def __init__(self, model: nn.Module, loss: Any, *, precision: str, device: torch.device, count: Any = None) -> None:
        if not isinstance(precision, str) or precision not in _DTYPES:
            raise ArgumentError(f"precision must be one of {', '.join(_DTYPES)}, not {precision!r}")
        self.model, self.loss, self.device = model, loss, device
        self.dtype = _DTYPES[precision]
        self.objective, self.counting = objective_of(loss), Counting(loss, count)
        self.loss_modules: list[nn.Module] = []
        self._outputs_known = False

    def output(self, inputs: Any, model: nn.Module | None = None) -> Any:
        """What the model gives for a batch's inputs.

        Args:
            inputs: What `split` gave.
            model: Another module in its place (the moving average).

        Raises:
            TrainingError: a layer cannot take its input; other errors of the model come out as they are.
        """
        module = self.model if model is None else model
        try:
            if self.dtype is None:
                return call(module, inputs)
            with torch.autocast(self.device.type, self.dtype):
                return call(module, inputs)
        except Exception as error:
            explain(error, module, inputs)
            raise

    def explain_prediction(self, error: Exception, batch: Any) -> None:
        """Raise what to do where a model that computes its own loss cannot predict without the target.

        Args:
            error: What it raised.
            batch: As the loader gave it; the model got its inputs alone.
        """
        inputs, target = split(batch)
        writes = callable(getattr(bare(self.model), "generate", None))
        if self.loss is not None or isinstance(error, DlkitError | torch.OutOfMemoryError):
            return
        if isinstance(batch, Mapping) and target is not None:
            names = ", ".join(repr(name) for name in batch if name not in inputs)
            told, way = f"without {names}, which predict leaves out", "has_targets=False gives it the whole batch"
            way += "; model.generate(...) writes without a target" * writes
        elif writes:
            told, way = "on its inputs alone", "model.generate(...) writes without a target"
        else:
            return
        raise TrainingError(f"the model cannot be called {told} ({type(error).__name__}: {error}); {way}") from error

    def __call__(self, batch: Any, model: nn.Module | None = None) -> tuple[Tensor, Any, Any]:
        """The loss of a batch (one number), the model's output, and the target.

        Args:
            batch: As the loader gave it, on the device.
            model: Another module in its place.
        """
        if self.loss is None:
            output = self.output(batch, model)
            loss = check_scalar(outputs.total(output))
            self._check_outputs(output, loss)
            return loss, output, split(batch)[1]
        inputs, target = split(batch)
        if target is None:
            raise TrainingError(
                f"the batch has no target: it is {shape_of(batch)}; expected (inputs, target), or pass loss=None "
                "if the model returns the loss itself"
            )
        output = self.output(as_input(self.model, inputs, target), model)
        if isinstance(output, Tensor):
            return self._loss_of(output, target), output, target
        return self._loss_of_parts(output, target), output, target

    def _loss_of_parts(self, output: Any, target: Any) -> Tensor:
        """The loss of an output that is not one tensor; auxiliary heads are trained, and not judged."""
        if (several := outputs.members(output)) is not None and isinstance(target, Tensor):
            # One mean over all members and samples is the mean of the members' losses, of weighted ones as well.
            loss = self._loss_of(several.flatten(0, 1), torch.cat([target] * len(several)))
            return loss / len(several) if self.counting.sums else loss
        main = self.prediction(output)
        if self.objective.kind is not None and not isinstance(main, Tensor):
            raise TrainingError(
                f"the model gave several outputs, {shape_of(main)}, and a loss of torch takes one; pass a custom "
                "loss that takes them all, for example lambda outputs, target: sum(f(each, target) for each in outputs)"
            )
        loss = self._loss_of(main, target)
        if torch.is_grad_enabled():
            for weight, part in outputs.auxiliary(output):
                loss = loss + weight * self._loss_of(part, target)
            if main is not output:  # what a loss got whole is its own matter
                self._check_outputs(output, loss)
        return loss

    def prediction(self, output: Any) -> Any:
        """The part of an output that the loss and the metrics get: a loss of the user's own gets a dict as it is.

        Args:
            output: What the model gave.
        """
        if isinstance(output, Tensor) or (self.objective.kind is None and isinstance(output, dict)):
            return getattr(output, "logits", output)
        return main_part(output)

    def _check_outputs(self, output: Any, loss: Tensor) -> None:
        """Once, in the first step: following the graph of every step would cost."""
        if not self._outputs_known and torch.is_grad_enabled():
            outputs.check_trained(output, loss, self.model)
            self._outputs_known = True

    def _loss_of(self, output: Any, target: Any) -> Tensor:
        if self.objective.kind != "classes":
            self._check_shapes(output, target)
        try:
            if self.dtype is None:
                return check_scalar(self.loss(output, target))
            with torch.autocast(self.device.type, self.dtype):
                return check_scalar(self.loss(output, target))
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            if isinstance(error, TrainingError | torch.OutOfMemoryError):
                raise
            raise TrainingError(
                "the loss could not be computed: "
                f"the model gave {shape_of(output)}, the target is {shape_of(target)}: {error}"
            ) from error

    def _check_shapes(self, output: Any, target: Any) -> None:
        """Refuse what a loss would spread silently: [N, 1] against [N] is N x N differences.

        A loss of torch that compares number with number needs one shape; of any other (functions, the user's own,
        also of several outputs) those are refused that have the target's numbers in another shape.
        """
        shape = getattr(target, "shape", None)
        if isinstance(output, Tensor) and output.shape == shape:
            return
        known = isinstance(output, Tensor) and self.objective.kind is not None
        if not known and not any(
            isinstance(target, Tensor) and part.numel() == target.numel() and part.shape != shape
            for part in _parts(output)
        ):
            return
        raise TrainingError(
            f"{getattr(self.loss, '__name__', type(self.loss).__name__)} needs output and target of one shape: "
            f"the model gave {shape_of(output)}, the target is {shape_of(target)}; "
            "reshape one of them, for example output.squeeze(1) at the end of the model"
        )


def _parts(output: Any) -> Iterable[Tensor]:
    parts = output.values() if isinstance(output, dict) else output if isinstance(output, tuple | list) else [output]
    return (part for part in parts if isinstance(part, Tensor))
