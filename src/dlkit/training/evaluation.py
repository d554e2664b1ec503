"""Loss and metrics over a loader, and predictions."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dlkit._calling import as_input, split
from dlkit._layer_errors import locate
from dlkit._modes import in_mode
from dlkit._nested import mapped
from dlkit.errors import TrainingError
from dlkit.loader import LEFT_OUT
from dlkit.metrics import Metrics
from dlkit.runs.state import LossMeter
from dlkit.training.counting import Averaging, samples_of
from dlkit.training.steps import Forward
from dlkit.training.units import Unit

__all__ = ["evaluate", "has_lists", "predict"]


def evaluate(
    forward: Forward,
    batches: Iterable[Any],
    metrics: Metrics,
    *,
    model: nn.Module,
    unit: Unit,
    go_on: Callable[[int], bool] = lambda done: True,
    watch: Callable[[int, dict[str, list[float | None]]], None] | None = None,
) -> dict[str, float] | None:
    """The mean loss and the metrics over all samples, however they are cut into batches; None when `go_on` said no.

    Args:
        forward: Model and loss.
        batches: On the device.
        metrics: Emptied first.
        model: The module to evaluate, put into eval mode for the time.
        unit: Of what the metrics are to be told; the loss stays as it is.
        go_on: Called after each batch with the number of batches done; False ends the evaluation.
        watch: Sees the losses of the batches, see `LossMeter`.

    Raises:
        TrainingError: there was no batch at all, or what the batches count in the mean is not known.
    """
    meter, done, counted = LossMeter(), 0, Averaging(forward.counting)
    if watch is not None:
        meter.watchers.append(watch)
    metrics.reset()
    with contextlib.ExitStack() as modes, torch.no_grad():
        for module in (model, *forward.loss_modules):  # what a loss remembers is not to come from this data
            modes.enter_context(in_mode(module, training=False))
        for number, batch in enumerate(batches):
            if batch is LEFT_OUT:
                meter.flush()  # the losses that are read at once are those of batches in a row
                continue
            try:
                loss, output, target = forward(batch, model)
                count = counted(batch)
                meter.add(forward.counting.mean(loss, count), count, number)
                if len(metrics):
                    judged = output if hasattr(output, "logits") else forward.prediction(output)
                    metrics.update(*unit.pair(judged, target))
            except Exception as error:
                locate(error, f"batch {number + 1} of the evaluation")
                raise
            done += 1
            if not go_on(done):
                return None
    counted.settle()
    if done == 0:
        raise TrainingError("the loader for the evaluation yielded no batch; is its dataset empty?")
    return {"loss": float("nan"), **meter.mean(), **metrics.compute()}  # NaN where every target is ignored


def predict(
    forward: Forward,
    batches: Iterable[Any],
    *,
    model: nn.Module,
    has_targets: bool | None,
    planned: Callable[[int], Sequence[Any] | None] | None = None,
) -> Any:
    """The model's outputs for all samples in the loader's order, on the CPU.

    Args:
        forward: The model.
        batches: `(inputs, target)` or inputs alone, on the device.
        model: The module to use, put into eval mode for the time.
        has_targets: Whether batches of two are (inputs, target); None looks at the batch: yes.
        planned: The samples that a batch was to have, where the dataset may leave some out.

    Returns:
        A tensor [N, ...], or dicts and tuples of such; a list of N tensors where the batches differ in width.
    """
    outputs: list[Any] = []
    short: list[int] = []
    with in_mode(model, training=False), torch.no_grad():
        for number, batch in enumerate(batches):
            if batch is LEFT_OUT or (planned is not None and samples_of(batch) < len(planned(number) or ())):
                short.append(number + 1)
            if batch is LEFT_OUT:
                continue
            inputs = batch if has_targets is False else as_input(model, *split(batch))
            try:
                output = forward.output(inputs, model)
            except Exception as error:
                locate(error, f"batch {number + 1} of the prediction")
                raise
            outputs.append(mapped(getattr(output, "logits", output), _to_cpu))
    if short:
        warnings.warn(
            f"samples that cannot be read have no prediction, in batch {', '.join(map(str, short))}: there are fewer "
            "predictions than samples. Read the data with on_error='raise', or predict on dataset.without_errors()",
            stacklevel=3,
        )
    if not outputs:
        raise TrainingError("the loader yielded no batch to predict; is its dataset empty?")
    return _concatenated(outputs)


def _to_cpu(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    return leaf.float().cpu() if leaf.dtype in (torch.float16, torch.bfloat16) else leaf.cpu()


def _is_ragged(outputs: list[Tensor]) -> bool:
    """Whether outputs of several batches [B, ...] cannot be one tensor, as they differ behind the first dimension."""
    return any(output.is_nested for output in outputs) or len({output.shape[1:] for output in outputs}) > 1


def has_lists(outputs: Any) -> bool:
    """Whether predictions are lists of samples somewhere, as they are where batches were ragged.

    Args:
        outputs: What `predict` gave.
    """
    if isinstance(outputs, Mapping):
        return any(map(has_lists, outputs.values()))
    if isinstance(outputs, tuple):
        return any(map(has_lists, outputs))
    return isinstance(outputs, list) and isinstance(outputs[0], Tensor)


def _concatenated(outputs: list[Any]) -> Any:
    first = outputs[0]
    if isinstance(first, Tensor):
        batched = [output.reshape(1) if output.dim() == 0 else output for output in outputs]
        if _is_ragged(batched):
            return [sample for output in batched for sample in output.unbind(0)]
        return torch.cat(batched)
    if isinstance(first, Mapping):
        return {name: _concatenated([output[name] for output in outputs]) for name in first}
    if isinstance(first, tuple | list):
        return tuple(_concatenated([output[number] for output in outputs]) for number in range(len(first)))
    return outputs
