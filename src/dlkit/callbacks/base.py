"""`Callback`: what happens beside the training loop, at ten moments."""

from __future__ import annotations

import warnings
from typing import Any

from dlkit.runs.history import Row
from dlkit.runs.state import Run
from dlkit.runs.store import CheckpointStore

__all__ = ["Callback", "overrides", "unseen_gradients", "warn_unmeasured"]


class Callback:
    """Listens to a run at its moments, and asks for something with `run.request_stop(...)` or `run.log(...)`.

    Override what you need; a hook that is not overridden costs nothing. Callbacks never raise to steer. Within one
    moment they are called in the order of the list, except that `Checkpoint` always comes last, so that it saves what
    the others have decided.

    Which hooks still run, when a fit ends (a callback that asks to stop and a signal are one and the same):

    =====================  ==========  =========================  =====================
    hook                   completed   stop asked, or a signal    exception
    =====================  ==========  =========================  =====================
    `on_setup`             yes         yes                        yes
    `on_fit_start`         yes         yes                        yes
    `on_epoch_start`       yes         yes                        yes
    `on_gradients`         yes         the step is finished       no
    `on_step_end`          yes         the step is finished       no
    `on_validation_step`   yes         the batch is finished      no
    `on_log`               yes         not for an open row        no
    `on_epoch_end`         yes         after its last row         no
    `on_safe_point`        yes         once more                  if between steps
    `on_fit_end`           yes         yes                        yes
    =====================  ==========  =========================  =====================

    A validation that is cut short has no row; the resumed run starts with it. With a `step` of your own the Trainer
    does not know when the gradients are there, and never calls `on_gradients`.

    Whatever a callback remembers over steps belongs in `state_dict`: plain data (tensors, numbers, strings, lists,
    dicts), saved with every checkpoint and given back on resume.

    >>> class CountSteps(Callback):
    ...     steps = 0
    ...     def on_step_end(self, run): self.steps += 1
    ...     def state_dict(self): return {"steps": self.steps}
    ...     def load_state_dict(self, state): self.steps = state["steps"]
    """

    #: Called later than those with a smaller number at the same moment.
    order = 0
    #: Whether the training's numbers can depend on it; if so, a resume tells that it was added or left out.
    changes_numbers = True
    #: Whether it changes which parts of the model are frozen while the run trains; the Trainer then looks after them.
    freezes = False
    #: Whether it needs the whole model while the run trains, of which a process may hold a share (`parallel="shard"`).
    needs_whole_model = False
    #: The folder in which the run is stored; `fit` resumes from it.
    store: CheckpointStore | None = None
    #: The torch scheduler that the callback steps; its state is part of the run.
    scheduler: Any = None

    def on_setup(self, run: Run) -> None:
        """A fit is called, and nothing is loaded yet: the time to bring model and optimizer into the shape they keep.

        Args:
            run: The run, as in all hooks.
        """

    def on_fit_start(self, run: Run) -> None:
        """Everything is built, a resumed state is loaded, and no batch has been fetched.

        Args:
            run: The run, as in all hooks.
        """

    def on_epoch_start(self, run: Run) -> None:
        """An epoch begins, or continues at `run.cursor.batch` after a resume.

        Args:
            run: The run.
        """

    def on_gradients(self, run: Run) -> None:
        """The gradients of a whole optimizer step are there (unscaled), and the optimizer has not used them yet.

        Args:
            run: The run.
        """

    def on_step_end(self, run: Run) -> None:
        """An optimizer step is done and counted. Do not read the device here in every step.

        Args:
            run: The run.
        """

    def on_validation_step(self, run: Run, done: int, total: int | None) -> None:
        """A batch of a validation is done.

        Args:
            run: The run.
            done: Batches so far.
            total: Batches in all, None if unknown.
        """

    def on_log(self, run: Run, row: Row) -> None:
        """A row of the history is complete: the one moment at which all callbacks see the same values.

        A callback whose `order` is negative may add its own values, before the loggers write the row down.

        Args:
            run: The run; `row` is already the last of `run.history.rows`.
            row: See `History`. It has `val_` values when this was a validation.
        """

    def on_epoch_end(self, run: Run) -> None:
        """All batches of an epoch are done, and its row is written.

        Args:
            run: The run; `run.epoch` is still the number of this epoch.
        """

    def on_safe_point(self, run: Run) -> None:
        """The run is between two steps with nothing half done: the place for `run.capture()`.

        Args:
            run: The run.
        """

    def on_fit_end(self, run: Run) -> None:
        """The fit is over, however it ends.

        Args:
            run: The run; `run.stop_reason` says why.
        """

    def bring_back(self, run: Run) -> bool:
        """Put the best weights that it keeps into the model; returns whether there were any.

        Args:
            run: The run.
        """
        del run
        return False

    def conflict(self, *, own_step: bool, closure: bool) -> str | None:
        """Why it cannot serve a run that takes its steps in another way; None if it can.

        Args:
            own_step: The user has given a step, so that the Trainer never sees the gradients.
            closure: The optimizer computes the gradients itself, as LBFGS does.
        """
        del closure
        return unseen_gradients(type(self).__name__) if own_step and overrides(self, "on_gradients") else None

    def state_dict(self) -> dict[str, Any]:
        """What to remember, as plain data; nothing by default."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave.

        Args:
            state: Never empty.
        """


def unseen_gradients(name: str) -> str:
    """Why a callback that works on gradients cannot serve a run with a step of the user's own.

    Args:
        name: Of the callback.
    """
    return (
        f"{name} works on gradients, which the Trainer never sees with a custom step; do in the step what it "
        "would do, between backward() and optimizer.step()"
    )


def overrides(callback: Callback, hook: str) -> bool:
    """Whether a callback has its own version of a hook, in its class or set on the object.

    Args:
        callback: The callback.
        hook: The hook's name.

    >>> overrides(Callback(), "on_step_end")
    False
    """
    return getattr(getattr(callback, hook), "__func__", None) is not getattr(Callback, hook)


def warn_unmeasured(callback: Callback, monitor: str, run: Run, row: Row) -> None:
    """Tell the user, once, that a validation came without the value that a callback looks at.

    A name without a metric is refused at the start of the fit, but with a `mode` it may also be a value that another
    callback logs; so a wrong name shows only here.

    Args:
        callback: Who looks.
        monitor: At what.
        run: The run.
        row: A row without that value.
    """
    measured = [name for name in row if name.startswith("val_")] if run.world.leads else []
    if measured and monitor.startswith("val_") and monitor not in run.history and not hasattr(callback, "_told"):
        callback._told = True  # type: ignore[attr-defined]
        name = type(callback).__name__
        found = ", ".join(measured)
        warnings.warn(f"{name} looks at {monitor!r}, which the validation did not measure: {found}", stacklevel=2)
