"""Steps of the user's own, and `run.backward`, which puts the gradients of all batches of such a step together."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dlkit._layer_errors import explain
from dlkit.errors import TrainingError
from dlkit.runs.state import Run
from dlkit.training.batches import check_scalar
from dlkit.training.counting import Averaging, Counting, samples_of
from dlkit.training.exchanging import Exchange, Notice
from dlkit.training.steps import AFTER, Done, Group, NothingError, Step, start_stream, trained_parameters
from dlkit.training.summing import Buffers, Sum, times

__all__ = ["OwnStep", "takes_a_batch"]

_BEFORE = -2  # for what a step draws before its first batch


def takes_a_batch(step: Callable[..., Any]) -> bool:
    """Whether a step is called as `step(run, batch)`, and not as `step(run)`, which reaches batches by `run.backward`.

    Args:
        step: As given to the Trainer.

    >>> takes_a_batch(lambda run, batch: None), takes_a_batch(lambda run: None)
    (True, False)
    """
    try:
        inspect.signature(step).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # one without a signature
        return True
    return True


class _Backward:
    """The n-th call of `run.backward` in each step: forward and backward over a group of batches."""

    def __init__(self, place: int, counting: Counting, buffers: Buffers) -> None:
        self._place, self._buffers = place, buffers
        self._path = (place,) if place else ()  # the first one draws what the standard step draws
        self._counted = Averaging(counting)
        self._exchange: Exchange | None = None

    def __call__(self, run: Run, group: Group, loss_of: Callable[[Any], Any], count: Any) -> Done:
        if not _is_shared(run):
            (batch,) = group.values()
            loss = _loss(run, loss_of, batch)
            loss.backward()
            counting = self._counted.counting if count is None else Counting(None, count)
            return loss.detach(), counting(batch), samples_of(batch)
        parameters = trained_parameters(run)
        before = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = None
        done = self._summed(run, group, loss_of, self._counted if count is None else Averaging(Counting(None, count)))
        for parameter, gradient in zip(parameters, before, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else gradient.add_(parameter.grad)
        return done

    def settle(self) -> None:
        self._counted.settle()

    def _summed(self, run: Run, group: Group, loss_of: Callable[[Any], Any], counted: Averaging) -> Done:
        counted.restart()
        with Sum(trained_parameters(run), self._buffers) as step:
            for place, batch in group.items():
                step.start()
                start_stream(run, place, *self._path)
                count = counted(batch)
                loss = times(_loss(run, loss_of, batch), count)
                loss.backward()
                step.take(place, loss, count)
            samples = sum(map(samples_of, group.values()))
            said, total = self._total(run, step, Notice(samples, run.asked, 1 + self._place))
            run.hear(each.asked for each in said)
        if total is None:
            raise NothingError
        start_stream(run, 0, AFTER, *self._path)
        loss, count = step.settle(total, divide=True, scale=1.0, kept=run.world.size > 1)
        return loss, count, sum(each.samples for each in said)

    def _total(self, run: Run, step: Sum, notice: Notice) -> tuple[list[Notice], Any]:
        if run.world.size == 1:
            return [notice], step.tree.total() if step.tree.nodes else None
        self._exchange = self._exchange or Exchange(run.world, run.accumulate)
        said, total = self._exchange(step.tree, step.like(run.device), notice)
        if other := [rank for rank, each in enumerate(said) if each.parts != notice.parts]:
            raise TrainingError(
                f"process {run.world.rank} is at call {notice.parts} of run.backward in this step and process "
                f"{other[0]} at call {said[other[0]].parts}: the step must call it equally often in all processes, "
                "so that decision must not depend on the batches of one of them"
            )
        return said, total


class OwnStep(Step):
    """A step of the user's own: it runs backward and the optimizers itself, and returns what is to be shown.

    Args:
        function: `step(run, batch)` or `step(run)`, returning a scalar tensor or a dict of named ones.
        count: What a batch counts in means; by default its number of samples.
        modules: What forward passes may write buffers into.
    """

    def __init__(
        self, function: Callable[..., Any], count: Callable[[Any], Any] | None, modules: list[nn.Module]
    ) -> None:
        self.function, self.counting = function, Counting(None, count)
        self._takes_batch, self._buffers = takes_a_batch(function), Buffers(modules)
        self._calls, self._compared = list[_Backward](), False

    def __call__(self, run: Run, group: Group) -> Done | None:
        done = list[Done]()
        if _is_shared(run):
            start_stream(run, 0, _BEFORE)
        run.share_backward(functools.partial(self._backward, run, group, done))
        try:
            values = self._values(run, group)
        except NothingError:
            return None
        finally:
            run.share_backward(None)
        if not done and not self._takes_batch:
            raise TrainingError(
                "the step has trained on none of its batches: step(run) reaches them through run.backward(loss_of), "
                "where loss_of(batch) gives the loss of one; a step that is called as step(run, batch) gets the "
                "batch itself"
            )
        if run.world.size > 1 and not self._compared:
            self._compare(run, values)
        if self._takes_batch:
            (batch,) = group.values()
            return values, self.counting(batch), samples_of(batch)
        return values, *done[0][1:]

    def settle(self) -> None:
        for call in self._calls:
            call.settle()

    def _values(self, run: Run, group: Group) -> Any:
        if not self._takes_batch:
            values = self.function(run)
        else:
            (batch,) = group.values()
            try:
                values = self.function(run, batch)
            except Exception as error:
                explain(error, run.model, batch)
                raise
        if isinstance(values, dict):
            return {name: check_scalar(value).detach() for name, value in values.items()}
        return check_scalar(values).detach()

    def _backward(self, run: Run, group: Group, done: list[Done], loss_of: Callable[[Any], Any], count: Any) -> Tensor:
        if len(done) == len(self._calls):
            self._calls.append(_Backward(len(done), self.counting, self._buffers))
        done.append(self._calls[len(done)](run, group, loss_of, count))
        return torch.as_tensor(done[-1][0])

    def _compare(self, run: Run, values: Any) -> None:
        """Once: refuse values that each process has of its own batches, as history and schedules would differ."""
        self._compared = True
        named = values if isinstance(values, dict) else {"loss": values}
        said = run.world.everybodys({name: repr(float(value)) for name, value in named.items()})
        names = [name for name in said[0] if any(other.get(name) != said[0][name] for other in said)]
        if names or any(other.keys() != said[0].keys() for other in said):
            raise TrainingError(
                f"the step returns other values in each process: {', '.join(names) or 'other names'}; return what "
                "run.backward gives, which is the mean over the batches of all processes"
            )


def _is_shared(run: Run) -> bool:
    """Whether a step may be of several batches, so that their gradients are put together in their own order."""
    return run.accumulate > 1 or run.world.size > 1


def _loss(run: Run, loss_of: Callable[[Any], Any], batch: Any) -> Tensor:
    try:
        return check_scalar(loss_of(batch))
    except Exception as error:
        explain(error, run.model, batch)
        raise
