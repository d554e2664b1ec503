"""`Run`: one training run as its callbacks see it, and the numbers that say where it stands."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dlkit._language import Message
from dlkit._near import hint
from dlkit._showing import safe
from dlkit.distributed import World
from dlkit.errors import ArgumentError, TrainingError
from dlkit.runs.history import History, Row
from dlkit.runs.losses import LossMeter
from dlkit.runs.shards import Shards

__all__ = ["Cursor", "Run"]

_log = logging.getLogger("dlkit")


@dataclasses.dataclass
class Cursor:
    """Where a run stands: always between two optimizer steps.

    Attributes:
        epoch: Finished epochs, which is also the number of the current one, counted from 0.
        batch: Batches of the current epoch that are done.
        step: Optimizer steps since the start.
        samples: Samples trained on since the start: rows of targets, or what batches say of their length.
        validated: The `step` at which the last validation took place, -1 before the first.
        finished: Why there is nothing left to do ("completed", "early stopping ..."), or an empty string.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    samples: int = 0
    validated: int = -1
    finished: str = ""


def _shown_by_logging() -> bool:
    """Whether a handler puts what is logged on the screen."""
    if not _log.isEnabledFor(logging.INFO):
        return False
    logger: logging.Logger | None = _log
    while logger is not None:
        if any(handler.level <= logging.INFO and _is_screen(handler) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


def _is_screen(handler: logging.Handler) -> bool:
    stream = getattr(getattr(handler, "console", handler), "file", None) or getattr(handler, "stream", None)  # rich's
    if any(stream is each for each in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)):
        return stream is not None
    return bool(getattr(stream, "isatty", bool)())


class Run:
    """One training run: what callbacks read, and how they ask for something. They never see the Trainer.

    Attributes:
        model: The model itself, never a compiled or parallel wrapper.
        optimizers: By name; `{"optimizer": ...}` for a single one.
        device: Where the batches go.
        epochs: How many epochs the run has in all.
        cursor: Where it stands (`Cursor`).
        history: The rows so far.
        losses: The training losses since the last row (`LossMeter`).
        eval_model: The module that validations use: `model`, unless a callback (EMA) puts another one here.
        stop_reason: Why the run is to stop after this step, or None.
        num_batches: Batches per epoch, None for streams of unknown length.
        accumulate: Batches per optimizer step.
        epoch_began: The step and batch at which the current epoch began or was resumed.
        keep_state: False once the weights are corrupted and must not be saved.
        between_steps: False while a step, a row or the end of an epoch is half done.
        write_files: False in a dry run.
        scaler: The gradient scaler of fp16 training, else None.
        directions: For each value of the history whether higher is better, None if unknown.
        capture: Returns the run's whole state; only at a safe point.
        indices: `indices(epoch, batch)` gives the samples of a batch, None if unknown.
        logged: What callbacks have logged for the next row.
        trained: The weights that training continues from, while the model holds those that were evaluated; else None.
        stream: What the model's draws in the current epoch are derived from.
        world: The processes that share the run; the leading one writes files and speaks.
        shards: While each process holds a share of the model, which tensors are such; else None.
        whole: `with run.whole():` is a block in which no process holds shares, so that parts can be frozen or thawed.
        half: `half(model)` runs a model on stored features of its frozen first part; None where none are stored.
        weights_from: The step whose weights a callback has brought back into the model; None for those of `step`.
        data: The dataset that is trained on, without torch's wrappers; None if unknown.
        val_data: The dataset that validations read.
        outputs: What the model's outputs are, for its file; None where the loss does not say.
        asked: Of several processes: 1 where this one was asked to stop, 2 where it is to end, and the others have not
            heard of it.
        all_end: Whether one of several processes was told to end, so that all of them do after the fit.
        seed: What all randomness of the run is derived from.
        verbose: Whether what the run says appears on the screen, too.
        parts: What else was handed over and has a state, by name, such as a loss with parameters: `dlkit.runs.parts`.
        unsaved: Names, once, the tensors of a loss or a step that the run has changed and that no part holds.
        unfilled: Parameters that held NaN or infinities before the first step, so that checkpoints may hold such: of
            the "model" and of each part.

    Args:
        model: The model itself.
        optimizers: By name.
        device: Where the batches go.
        seed: What all randomness of the run is derived from.
        verbose: Whether what the run says appears on the screen, too.
    """

    def __init__(
        self, model: nn.Module, optimizers: dict[str, Optimizer], *, device: torch.device, seed: int, verbose: bool
    ) -> None:
        self.model, self.optimizers, self.device, self.seed = model, optimizers, device, seed
        self.stream = seed
        self.cursor, self.history, self.losses = Cursor(), History(), LossMeter()
        self.eval_model: nn.Module = model
        self.epochs = 0
        self.num_batches: int | None = None
        self.stop_reason: str | None = None
        self.keep_state = True
        self.between_steps = True
        self.write_files = True
        self.scaler: torch.amp.GradScaler | None = None
        self.directions: dict[str, bool | None] = {}
        self.capture: Callable[[], dict[str, Any]] = dict
        self.indices: Callable[[int, int], list[Any] | None] = lambda epoch, batch: None
        self.accumulate = 1
        self.epoch_began = (0, 0)
        self.verbose = verbose
        self.logged: Row = {}
        self.data: Any = None
        self.val_data: Any = None
        self.outputs: str | None = None
        self.parts: dict[str, Any] = {}
        self.unsaved: Callable[[], list[str]] = list
        self.unfilled: dict[str, frozenset[str]] = {}
        self.trained: Any = None
        self.weights_from: int | None = None
        self.world = World.of_environment()
        self.shards: Shards | None = None
        self.whole: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
        self.half: Callable[[nn.Module], Callable[[Tensor], Any]] | None = None
        self._asked: str | None = None
        self._backward: Callable[[Callable[[Any], Any], Any], Tensor] | None = None
        self._speaks = self.world.leads  # also while a rehearsal works for itself
        self.asked = self._heard = 0
        self.all_end = False

    @property
    def optimizer(self) -> Optimizer:
        """The only optimizer, or the first of several."""
        return next(iter(self.optimizers.values()))

    @property
    def epoch(self) -> int:
        """The number of the current epoch, counted from 0."""
        return self.cursor.epoch

    @property
    def step(self) -> int:
        """Optimizer steps since the start."""
        return self.cursor.step

    def request_stop(self, reason: str, *, final: bool = False, keep_state: bool = True) -> None:
        """Ask the loop to end after this step. The first reason stays.

        Args:
            reason: Shown in the last line, kept in the history and the checkpoint.
            final: Nothing is left to do: running the script again trains no further epoch.
            keep_state: False when the weights are corrupted and must not become the newest checkpoint.
        """
        if self.stop_reason is None:
            self.stop_reason = reason
        if final and self.keep_state and not self.cursor.finished:
            self.cursor.finished = str(reason)  # also when a signal came first: else the resumed run would continue
        self.keep_state = self.keep_state and keep_state

    def ask_stop(self, reason: str, *, ends: bool = False) -> None:
        """Ask for a stop that other processes of the run cannot see coming: after a signal, or a time.

        Alone it is `request_stop`; of several processes all stop after the same step, see `agree`.

        Args:
            reason: See `request_stop`.
            ends: Whether the process is to end, too, after a signal for example: then all of them do.
        """
        if self.world.size == 1:
            self.request_stop(reason)
        else:
            self._asked = self._asked or reason
            self.asked = max(self.asked, 2 if ends else 1)

    def hear(self, asked: Iterable[int]) -> None:
        """Take in what all processes have said; used where they talk to each other.

        Args:
            asked: Their `asked`.
        """
        self._heard = max(self._heard, *asked)

    def agree(self) -> None:
        """Stop if one of the processes was asked to; used by the loop, by all of them after each step."""
        if self._heard:
            self.request_stop(self._asked or "another process of the run was asked to stop")
            self.all_end = self.all_end or self._heard > 1
            self._asked, self.asked, self._heard = None, 0, 0

    def backward(self, loss_of: Callable[[Any], Any], *, count: Callable[[Any], Any] | None = None) -> Tensor:
        """In a custom step: forward and backward over all batches of the step, whichever process has them.

        Afterwards each parameter's `.grad` has the gradient of the mean over these batches added to it, in every
        process and with the same bits for any number of processes; then call the optimizers. What is drawn at random
        in `loss_of` (noise, dropout) depends on nothing but the batch's place in the run.

        Args:
            loss_of: `loss_of(batch)` gives the loss of one batch, a mean. It is called once for each batch of this
                process, and not at all in one that has none.
            count: `count(batch)`, what that loss was divided by; by default what the Trainer's `count` says, or the
                number of samples.

        Returns:
            The mean loss over the batches of the step, without a gradient.

        Raises:
            TrainingError: outside of a step; or processes call it differently often.

        >>> from dlkit import Trainer
        >>> model = nn.Linear(2, 1)
        >>> def step(run):
        ...     run.optimizer.zero_grad()
        ...     loss = run.backward(lambda batch: model(batch).square().mean())
        ...     run.optimizer.step()
        ...     return loss
        >>> optim = torch.optim.SGD(model.parameters(), 0.1)
        >>> trainer = Trainer(model, None, optim, step=step, accumulate=2, progress=False)
        >>> trainer.fit([torch.ones(4, 2), torch.ones(3, 2)])["step"]
        [1]
        """
        if self._backward is None:
            raise TrainingError("run.backward can only be called in a custom step, Trainer(..., step=step)")
        return self._backward(loss_of, count)

    def share_backward(self, function: Callable[[Callable[[Any], Any], Any], Tensor] | None) -> None:
        """What `backward` does until further notice; used by the step.

        Args:
            function: None after a step.
        """
        self._backward = function

    def batches_of(self, step: int) -> list[int]:
        """Which batches of the current epoch the optimizer step `step` of this epoch was made of.

        Args:
            step: A step since the epoch began or was resumed.
        """
        began_step, began_batch = self.epoch_began
        first = began_batch + (step - began_step) * self.accumulate
        last = first + self.accumulate
        return list(range(first, last if self.num_batches is None else min(last, self.num_batches)))

    def pass_over(self, batches: int) -> None:
        """Count batches that were left out, without a step; the next step's batches are those after them.

        Args:
            batches: How many.
        """
        self.losses.flush()  # whoever watches them asks for the batches of the steps so far
        self.cursor.batch += batches
        self.epoch_began = (self.cursor.step, self.cursor.batch)

    def place_of(self, step: int) -> str:
        """Where in the training an optimizer step is, in words, counted from 1.

        Args:
            step: A step since the epoch began or was resumed.
        """
        batches = ", ".join(str(batch + 1) for batch in self.batches_of(step))
        numbers = {"step": step + 1, "epoch": self.epoch + 1, "batch": batches}
        return Message("step {step}, epoch {epoch}, batch {batch}", **numbers)

    def log(self, name: str, value: float) -> None:
        """Add a value to the next row of the history; a later one of the same name takes its place.

        Args:
            name: The column.
            value: One number. A tensor is read from its device at once, so not in every step.

        Raises:
            ArgumentError: it is not a number, or the name is "epoch" or "step".
        """
        if name in ("epoch", "step"):
            raise ArgumentError(f"{name!r} is what a row is found by; log the value under another name")
        try:
            self.logged[name] = value if isinstance(value, int | float) else float(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ArgumentError(
                f"run.log({name!r}, ...) takes one number, not {type(value).__name__}: {error}"
            ) from error

    def take_logged(self) -> Row:
        """What callbacks have logged since the last row; used by the loop."""
        logged, self.logged = self.logged, {}
        return logged

    def say(self, message: str) -> None:
        """Tell the user something, once: to the log `dlkit`, and unless `progress=False` to stderr.

        Where logging is set up to show the log on the screen, it is left to it. Of several processes one speaks.

        Args:
            message: One line, or several as `dlkit._showing.Lines`.
        """
        if not self._speaks:
            return
        message = safe(message)
        _log.info(message)
        if self.verbose and not _shown_by_logging():
            sys.stderr.write(f"{message}\n")
            sys.stderr.flush()

    def tell(self, message: str) -> None:
        """Tell the user what must not be missed, such as which of two settings holds: also with `progress=False`.

        Then it is a warning in the log `dlkit`, which appears on stderr where no logging is set up.

        Args:
            message: See `say`.
        """
        if self.verbose or not self._speaks:
            self.say(message)
        else:
            _log.warning(safe(message))

    def higher_is_better(self, monitor: str, mode: str | None = None) -> bool:
        """The direction of a value of the history: told by `mode`, else by the metric itself.

        Args:
            monitor: For example `"val_accuracy"`.
            mode: `"max"` or `"min"` settles it.

        Raises:
            ArgumentError: nobody measures `monitor`, or its metric does not say which direction is better.
        """
        if mode is not None:
            if mode not in ("min", "max"):
                raise ArgumentError(f"mode must be 'min', 'max' or None, not {mode!r}")
            return mode == "max"
        if monitor not in self.directions:
            judged, validates = monitor.startswith("val_"), "val_loss" in self.directions
            lacks = " (give `fit` validation data)" if judged and not validates else ""
            there = sorted(self.directions)
            near = f"there are {', '.join(there)}" if lacks else hint(monitor, there, has="there are")
            own = " What an eval_step returns needs mode='max' or mode='min'" if judged and validates else ""
            raise ArgumentError(f"nothing measures {monitor!r}{lacks}; {near}{own}")
        direction = self.directions[monitor]
        if direction is None:
            raise ArgumentError(f"{monitor!r} does not say whether more is better; pass mode='max' or mode='min'")
        return direction
