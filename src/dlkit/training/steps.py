"""One optimizer step: forward, loss, backward, and what precision, accumulation and full memory ask for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dlkit import rng
from dlkit._calling import rows_of, split
from dlkit._language import Message
from dlkit._shapes import shape_of
from dlkit.errors import TrainingError
from dlkit.runs.state import Run
from dlkit.training.batches import pieces
from dlkit.training.counting import Averaging, samples_of
from dlkit.training.exchanging import Exchange, Notice
from dlkit.training.forward import Forward
from dlkit.training.optimizing import drop_gradients, take_step
from dlkit.training.summing import Buffers, Leaf, Sum, power_of_two, times

__all__ = [
    "AFTER",
    "Done",
    "Group",
    "Hook",
    "NothingError",
    "StandardStep",
    "Step",
    "start_stream",
    "trained_parameters",
]

#: The batches of a step by their place in it, on the device; those of which nothing is left are missing.
Group = dict[int, Any]
Hook = Callable[[Run], None]

#: For what is drawn after the last batch of a step, instead of what a batch draws.
AFTER = -1


#: The loss (or named ones), what it counts in a mean over steps, and the number of samples.
Done = tuple[Any, Any, int]


class Step(Protocol):
    """One optimizer step on a group of batches."""

    def __call__(self, run: Run, group: Group) -> Done | None:
        """Do it; returns the loss (or named ones), what it counts in a mean over steps, and the number of samples.

        Returns None, and does nothing, if no process of the run has a batch.

        Args:
            run: The run.
            group: Batches on the device.
        """

    def settle(self) -> None:
        """At the end of a fit: complain of what was not worth waiting for the device in a step."""
        return


class StandardStep(Step):
    """Forward and backward over a group of batches, then one optimizer step on the gradient of their joint mean.

    Each batch counts by what its loss was divided by (see `Counting`), so the gradient is that of one big batch, the
    short last group included. When the device runs out of memory, batches are cut in halves and the step is done again.

    Args:
        forward: Model and loss.
        on_gradients: Hooks to call between the backward pass and the optimizer.
    """

    def __init__(self, forward: Forward, on_gradients: Sequence[Hook]) -> None:
        self.forward, self.counting, self.on_gradients = forward, forward.counting, list(on_gradients)
        self._counted_together = Averaging(self.counting)
        self._pieces = 1
        self._exponent: int | None = None
        self._exchange: Exchange | None = None
        self._buffers = Buffers([forward.model, *forward.loss_modules])

    def __call__(self, run: Run, group: Group) -> Done | None:
        done = self._evaluated(run, group)
        if done is None:
            return None
        self._update(run)  # not tried again: an optimizer that fails may have moved half of the parameters
        return self._as_mean(*done)

    def settle(self) -> None:
        self._counted_together.settle()

    def _as_mean(self, loss: Tensor, count: Any, samples: int) -> Done:
        return self.counting.mean(loss, count), count, samples

    def _evaluated(self, run: Run, group: Group) -> Done | None:
        """Gradients of a group, and what the step gives; in as many pieces as the memory asks for."""
        if run.accumulate > 1:
            return self._summed(run, group)
        while self._pieces == 1:
            try:
                (batch,) = group.values()
                loss, _, _ = self.forward(batch)
                self._backward(run, loss, batch)
                return loss.detach(), self.counting(batch), samples_of(batch)
            except torch.OutOfMemoryError as error:
                self._check_halves(group, error)
            self._halve(run, 2)
        return self._summed(run, group)

    def _check_halves(self, group: Group, error: Exception) -> None:
        """Raise what a device says whose memory is full, where smaller parts are not possible."""
        rows = [rows_of(batch) for batch in group.values()]
        if None in rows:
            error.add_note("the batch has no first dimension that all its tensors share, to be cut along")
        if None in rows or self._pieces >= max(row or 1 for row in rows):
            raise error

    def _cut(self, batch: Any) -> list[Any]:
        if self._pieces == 1:
            return [batch]
        parts = pieces(batch, self._pieces)
        if self.counting.said:
            whole, cut = float(self.counting(batch)), sum(float(self.counting(part)) for part in parts)
            if not math.isclose(whole, cut, rel_tol=1e-6):
                raise TrainingError(
                    f"the batch {shape_of(batch)} cannot be processed in parts along its first dimension: "
                    f"count= gives {whole:g} for it and {cut:g} for its parts; use smaller batches"
                )
        return parts

    def _summed(self, run: Run, group: Group) -> Done | None:
        """Sums over batches, or parts of such, that are divided once at the end; see `dlkit.training.summing`.

        None if no process of the run has a batch.
        """
        while True:
            with Sum(self._parameters(run), self._buffers) as step:
                notice, scale = self._leaves(run, group, step)
                said, total = self._total(run, step, notice)
                run.hear(each.asked for each in said)
                wanted = max(each.parts for each in said)
                if wanted == self._pieces:
                    break
                step.start()
            self._halve(run, wanted)
        if total is None:
            return None
        start_stream(run, 0, AFTER)
        several = run.world.size > 1
        more = self._more_gradients(run)
        done = step.settle(total, divide=not self.counting.sums, scale=scale, kept=several, more=more)
        return *done, sum(each.samples for each in said)

    def _parameters(self, run: Run) -> list[nn.Parameter]:
        """Those whose gradients are entries of a leaf."""
        return trained_parameters(run)

    def _more_gradients(self, run: Run) -> Sequence[Tensor]:
        """Sums of gradients that are not entries of a leaf."""
        return ()

    def _leaves(self, run: Run, group: Group, step: Sum) -> tuple[Notice, float]:
        """Forward and backward over this process's batches; gives what the others must know of it.

        Also the power of two that losses are divided by.
        """
        parts = {place * self._pieces + n: part for place in group for n, part in enumerate(self._cut(group[place]))}
        self._counted_together.restart()
        counts = {place: self._counted_together(part) for place, part in parts.items()}
        scale = self._scale(run, next(iter(counts.values()), 1))
        try:
            for place, part in parts.items():
                step.start()
                start_stream(run, place)
                loss, _, _ = self.forward(part)
                summed = loss if self.counting.sums else times(loss, counts[place] / scale)
                self._backward(run, summed, part)
                step.take(place, summed, counts[place])
        except torch.OutOfMemoryError as error:
            self._check_halves(group, error)
            return Notice(0, run.asked, 2 * self._pieces), scale
        return Notice(sum(map(samples_of, parts.values())), run.asked, self._pieces), scale

    def _total(self, run: Run, step: Sum, notice: Notice) -> tuple[list[Notice], Leaf | None]:
        if run.world.size == 1:
            return [notice], step.tree.total() if step.tree.nodes else None
        if self._exchange is None:
            self._exchange = Exchange(run.world, run.accumulate)
        return self._exchange(step.tree, step.like(run.device), notice)

    def _scale(self, run: Run, count: Any) -> float:
        """A power of two near to what a batch counts: the half precision of fp16 has no room for so large losses."""
        if run.scaler is None:
            return 1.0
        if self._exponent is None:
            self._exponent = run.world.numbers([round(math.log2(power_of_two(count)))])[0][0]
        return 2.0**self._exponent

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
            take_step(optimizer)
        else:
            run.scaler.step(optimizer)
            run.scaler.update()
        drop_gradients(optimizer)

    def _halve(self, run: Run, pieces: int) -> None:
        self._pieces = pieces
        run.optimizer.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        run.say(
            Message(
                "out of memory: from now on each batch is processed in {pieces} parts; the step stays the same",
                pieces=self._pieces,
            )
        )


def trained_parameters(run: Run) -> list[nn.Parameter]:
    """The parameters of the model and of all optimizers that learn, each once.

    Args:
        run: The run.
    """
    groups = [group for optimizer in run.optimizers.values() for group in optimizer.param_groups]
    several = itertools.chain(run.model.parameters(), *(group["params"] for group in groups))
    return list({id(each): each for each in several if each.requires_grad}.values())


def start_stream(run: Run, place: int, *path: int) -> None:
    """Let what the model draws for a batch, dropout for example, depend on nothing but the batch's place in the run.

    Where a batch is its own step, and so cannot be assigned to another process, torch's stream simply continues.

    Args:
        run: Between two steps.
        place: The batch's place in the step.
        path: What for, beside the first forward pass of the batch: `AFTER`, say.
    """
    seed = rng.derive(run.stream, run.cursor.batch + place)
    rng.start_torch(rng.derive(seed, *path) if path else seed, run.device)


class NothingError(Exception):
    """No process of the run has a batch in a step, which an optimizer or a step of the user's own need not know."""
