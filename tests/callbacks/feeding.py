"""Callbacks fed with a plain list of values: a small real `Run`, and the hooks called as the loop calls them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from dlkit.callbacks import Callback
from dlkit.callbacks.base import overrides
from dlkit.runs.history import History
from dlkit.runs.state import Cursor, Run


def new_run(*, epochs: int = 1000, lr: float = 0.1, verbose: bool = False) -> Run:
    """A run with a model of two weights, that measures what a run with validation data and accuracy measures."""
    torch.manual_seed(0)
    model = nn.Linear(2, 1, bias=False)
    optimizers: dict[str, torch.optim.Optimizer] = {"optimizer": torch.optim.SGD(model.parameters(), lr=lr)}
    run = Run(model, optimizers, device=torch.device("cpu"), seed=0, verbose=verbose)
    run.epochs = epochs
    run.directions = {"train_loss": False, "val_loss": False, "val_accuracy": True, "val_odd": None}
    return run


class Feed:
    """Drives callbacks without a Trainer.

    Each value fed becomes one optimizer step (which sets the weights to the number of the step, so that it shows which
    weights were saved) and one row with that value as `monitor`; None makes a row without it. An epoch has
    `rows_per_epoch` rows.
    """

    def __init__(
        self, *callbacks: Callback, run: Run | None = None, rows_per_epoch: int = 1, monitor: str = "val_loss"
    ) -> None:
        self.callbacks: Sequence[Callback] = sorted(callbacks, key=lambda callback: callback.order)
        self.run, self.rows_per_epoch, self.monitor = run or new_run(), rows_per_epoch, monitor
        self.run.num_batches = rows_per_epoch
        self.run.capture = self.state

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of a run, as far as callbacks have a part in it."""
        run = self.run
        average = run.eval_model.state_dict() if run.eval_model is not run.model else None
        return {
            "model": run.model.state_dict(),
            "eval_model": average,
            "optimizer": run.optimizer.state_dict(),
            "callbacks": [callback.state_dict() for callback in self.callbacks],
            "losses": run.losses.state_dict(),
            "history": run.history.rows,
            "cursor": dataclasses.asdict(run.cursor),
        }

    def resume(self, state: dict[str, Any]) -> Feed:
        """Take a state as a new process would, before `start`."""
        run = self.run
        run.model.load_state_dict(state["model"])
        run.optimizer.load_state_dict(state["optimizer"])
        for callback, saved in zip(self.callbacks, state["callbacks"], strict=True):
            if saved:
                callback.load_state_dict(saved)
        run.losses.load_state_dict(state["losses"])
        run.history, run.cursor = History(state["history"]), Cursor(**state["cursor"])
        return self

    def tell(self, hook: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            if overrides(callback, hook):
                getattr(callback, hook)(self.run, *arguments)

    def start(self) -> Feed:
        self.run.losses.watchers.clear()
        self.tell("on_fit_start")
        return self

    def step(self, loss: float = 0.5) -> None:
        """One optimizer step whose training loss is given."""
        run = self.run
        if run.cursor.batch == 0:
            self.tell("on_epoch_start")
            run.epoch_began = (run.step, 0)
        run.between_steps = False
        self.tell("on_gradients")
        run.optimizer.step()
        with torch.no_grad():
            run.model.weight.fill_(float(run.step + 1))  # type: ignore[operator, union-attr]
        run.losses.add(torch.tensor(loss), 1, run.step)
        run.cursor.step, run.cursor.batch = run.step + 1, run.cursor.batch + 1
        self.tell("on_step_end")
        run.between_steps = True

    def row(self, value: float | None, **more: float) -> None:
        """One row of the history."""
        run, measured = self.run, {} if value is None else {self.monitor: value}
        if value is not None:
            run.cursor.validated = run.step
        losses = {f"train_{name}": mean for name, mean in run.losses.mean().items()}
        rate = run.optimizer.param_groups[0]["lr"]
        row = {"epoch": run.epoch + 1, "step": run.step, **losses, "lr": rate, **measured, **more, **run.take_logged()}
        run.losses.reset()
        run.history.rows.append(row)
        self.tell("on_log", row)

    def safe_point(self) -> None:
        if self.run.cursor.batch >= self.rows_per_epoch:
            self.tell("on_epoch_end")
            self.run.cursor.epoch, self.run.cursor.batch = self.run.epoch + 1, 0
        self.tell("on_safe_point")

    def __call__(self, values: Iterable[float | None]) -> Feed:
        """Feed values until there are no more, or a callback asks to stop."""
        for value in values:
            if self.run.stop_reason is not None:
                break
            self.step()
            self.row(value)
            self.safe_point()
        return self

    def end(self) -> Feed:
        self.tell("on_fit_end")
        return self
