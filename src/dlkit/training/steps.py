"""One optimizer step: forward, loss, backward, and what precision, accumulation and full memory ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dlkit._layer_errors import explain
from dlkit._shapes import shape_of
from dlkit.errors import ArgumentError, TrainingError
from dlkit.objective import objective_of
from dlkit.runs.state import Run
from dlkit.training.batches import call, check_scalar, pieces, size_of, split

__all__ = ["CustomStep", "Forward", "StandardStep", "Step", "weight_of"]

Step = Callable[[Run, list[Any]], tuple[Any, int]]
Hook = Callable[[Run], None]

_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Forward:
    """Model and loss on one batch, in the wanted precision: the same for training and validation.

    Args:
        model: The module that is called, compiled or not.
        loss: `loss(output, target)`; None when the model returns the loss itself (or has it as `.loss`).
        precision: "fp32", "bf16" or "fp16".
        device: Where the batches are.

    Attributes:
        loss_modules: The modules in the loss, which has modes like a model.

    Raises:
        ArgumentError: another precision.
    """

    def __init__(self, model: nn.Module, loss: Any, *, precision: str, device: torch.device) -> None:
        if not isinstance(precision, str) or precision not in _DTYPES:
            raise ArgumentError(f"precision must be one of {', '.join(_DTYPES)}, not {precision!r}")
        self.model, self.loss, self.device = model, loss, device
        self.dtype = _DTYPES[precision]
        self.objective = objective_of(loss)
        self.loss_modules: list[nn.Module] = []

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

    def __call__(self, batch: Any, model: nn.Module | None = None) -> tuple[Tensor, Any, Any]:
        """The loss of a batch (one number), the model's output, and the target.

        Args:
            batch: As the loader gave it, on the device.
            model: Another module in its place.
        """
        if self.loss is None:
            output = self.output(batch, model)
            return check_scalar(getattr(output, "loss", output)), output, split(batch)[1]
        inputs, target = split(batch)
        if target is None:
            raise TrainingError(
                f"the batch has no target: it is {shape_of(batch)}; expected (inputs, target), or pass loss=None "
                "if the model returns the loss itself"
            )
        output = self.output(inputs, model)
        logits = output if isinstance(output, Tensor) else getattr(output, "logits", output)
        return self._loss_of(logits, target), output, target

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


class StandardStep:
    """Forward and backward over a group of batches, then one optimizer step on the gradient of their joint mean.

    Each batch counts by its number of samples (by the weights and the ignored targets of a `CrossEntropyLoss`), so the
    gradient is that of one big batch, the short last group included. When the device runs out of memory, batches
    are cut in halves and the step is done again.

    Args:
        forward: Model and loss.
        on_gradients: Hooks to call between the backward pass and the optimizer.
    """

    def __init__(self, forward: Forward, on_gradients: Sequence[Hook]) -> None:
        self.forward, self.on_gradients = forward, list(on_gradients)
        self._pieces = 1

    def __call__(self, run: Run, group: list[Any]) -> tuple[Tensor, int]:
        """Do the step; returns the mean loss of the group, still on the device, and its number of samples.

        Args:
            run: The run.
            group: Batches on the device.
        """
        while True:
            try:
                value, samples = self._gradients(run, group)
                break
            except torch.OutOfMemoryError:
                if self._pieces >= max(size_of(batch) for batch in group):
                    raise
            self._halve(run)
        self._update(run)  # not tried again: an optimizer that fails may have moved half of the parameters
        return value, samples

    def _gradients(self, run: Run, group: list[Any]) -> tuple[Tensor, int]:
        if self._pieces > 1:
            group = [part for batch in group for part in pieces(batch, self._pieces)]
        if len(group) == 1:
            loss, _, _ = self.forward(group[0])
            self._backward(run, loss, group[0])
            return loss.detach(), size_of(group[0])
        return self._accumulate(run, group)

    def _accumulate(self, run: Run, group: list[Any]) -> tuple[Tensor, int]:
        sizes = [size_of(batch) for batch in group]
        counts = [weight_of(self.forward.loss, batch) for batch in group]
        total: Any = sum(counts)
        parts = []
        for batch, count in zip(group, counts, strict=True):
            loss, _, _ = self.forward(batch)
            if isinstance(count, Tensor):  # the mean over targets that are all ignored is 0 / 0, and counts nothing
                loss = torch.where(count > 0, loss, loss.new_zeros(())) * (count / total)
            elif getattr(self.forward.loss, "reduction", "mean") != "sum":
                loss = loss * (count / total)
            self._backward(run, loss, batch)
            parts.append(loss.detach())
        return torch.stack(parts).sum(), sum(sizes)

    def _backward(self, run: Run, loss: Tensor, batch: Any) -> None:
        try:
            (loss if run.scaler is None else run.scaler.scale(loss)).backward()
        except RuntimeError as error:
            if getattr(split(batch)[1], "dtype", None) == torch.float64 and "dtype Double" in str(error):
                raise TrainingError(
                    "the targets are float64, as numpy and pandas make them, and the model is not: "
                    "convert the data once, target.float()"
                ) from error
            raise

    def _update(self, run: Run) -> None:
        optimizer = run.optimizer
        if run.scaler is not None:
            run.scaler.unscale_(optimizer)
        for hook in self.on_gradients:
            hook(run)
        if run.scaler is None:
            optimizer.step()
        else:
            run.scaler.step(optimizer)
            run.scaler.update()
        _drop_gradients(optimizer)

    def _halve(self, run: Run) -> None:
        self._pieces *= 2
        run.optimizer.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        run.say(f"out of memory: from now on each batch is worked on in {self._pieces} parts; the step stays the same")


def _drop_gradients(optimizer: Optimizer) -> None:
    """`optimizer.zero_grad()`, without the profiling range of torch's own, which costs more than all of the loop."""
    if type(optimizer).zero_grad is not Optimizer.zero_grad or "zero_grad" in vars(optimizer):
        optimizer.zero_grad()
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


class CustomStep:
    """A step of the user's own: it runs backward and the optimizers itself, and returns what is to be shown.

    Args:
        function: `step(run, batch)`, returning a scalar tensor or a dict of named ones.
    """

    def __init__(self, function: Callable[[Run, Any], Any]) -> None:
        self.function = function

    def __call__(self, run: Run, group: list[Any]) -> tuple[Any, int]:
        """Do the step.

        Args:
            run: The run.
            group: One batch on the device.
        """
        try:
            values = self.function(run, group[0])
        except Exception as error:
            explain(error, run.model, group[0])
            raise
        if isinstance(values, dict):
            return {name: check_scalar(value).detach() for name, value in values.items()}, size_of(group[0])
        return check_scalar(values).detach(), size_of(group[0])


def weight_of(loss: Any, batch: Any) -> Any:
    """What the mean of a loss divides by: the number of samples, or the weights of the targets that are not ignored.

    Args:
        loss: The loss function.
        batch: A batch.
    """
    if not isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss) or loss.reduction != "mean":
        return size_of(batch)
    _, target = split(batch)
    if not isinstance(target, Tensor) or target.is_floating_point():
        return size_of(batch)
    kept = target != loss.ignore_index
    if loss.weight is None:
        return kept.sum()
    # Without waiting for the device; what is out of range is for the loss itself to complain about.
    return (loss.weight[target.clamp(0, len(loss.weight) - 1)] * kept).sum()
