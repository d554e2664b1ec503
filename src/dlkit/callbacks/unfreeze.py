"""Unfreeze a model in stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlkit._language import Message
from dlkit.callbacks.base import Callback
from dlkit.errors import ArgumentError
from dlkit.runs.state import Run
from dlkit.transfer.freezing import freeze, frozen_modules, unfreeze
from dlkit.transfer.groups import add_groups

__all__ = ["Unfreeze"]


class Unfreeze(Callback):
    """Makes more of a frozen model trainable at the start of given epochs: `Unfreeze({3: "layer4", 6: "all"})`.

    Before the first of them only the head is trained. Which parts are frozen follows from the plan and the epoch
    alone, so a run that is resumed at any step continues bit for bit. Parameters that the optimizer does not have are
    added to it before the run begins, as groups by depth; they do not move while they are frozen. (A scheduler must
    know all groups from the start: then make the optimizer with `dlkit.transfer.param_groups`.)

    Args:
        schedule: From which epoch on (counted from 0) the model is trainable from which module on: a module's name,
            "head", or "all".
        backbone_lr: Rate of added groups next to the head; None takes a tenth of the optimizer's.
        layer_decay: Factor of the rate per layer further down.
        example: See `dlkit.transfer.freeze`.

    Raises:
        ArgumentError: an empty schedule or epochs that are not numbers from 0 on; at the start of a fit, a module that
            is not there.

    >>> unfreeze = Unfreeze({3: "layer4", 6: "all"})
    >>> [unfreeze.stage(epoch) for epoch in (0, 3, 5, 6, 100)]
    ['head', 'layer4', 'layer4', 'all', 'all']
    """

    order = -100
    freezes = True

    def __init__(
        self,
        schedule: Mapping[int, str],
        *,
        backbone_lr: float | None = None,
        layer_decay: float = 0.8,
        example: Any = None,
    ) -> None:
        if not schedule or not all(isinstance(epoch, int) and epoch >= 0 for epoch in schedule):
            raise ArgumentError(f"schedule must map epochs, counted from 0, to names of modules, not {schedule!r}")
        self.schedule = dict(sorted(schedule.items()))
        self.backbone_lr, self.layer_decay, self.example = backbone_lr, layer_decay, example
        self._stage: str | None = None

    def conflict(self, *, own_step: bool, closure: bool) -> str | None:
        if closure:
            return (
                "Unfreeze adds parameters to the optimizer, and one with a closure (LBFGS) steps those that it was "
                "made with; train each stage with its own optimizer"
            )
        return super().conflict(own_step=own_step, closure=closure)

    def stage(self, epoch: int) -> str:
        """From which module on the model is trainable.

        Args:
            epoch: Counted from 0.
        """
        passed = [name for start, name in self.schedule.items() if start <= epoch]
        return passed[-1] if passed else "head"

    def on_setup(self, run: Run) -> None:
        self._stage = None
        names = dict(run.model.named_modules())
        for name in self.schedule.values():
            if name not in ("all", "head") and name not in names:
                freeze(run.model, name)  # raises, and names what is close
        rate = float(run.optimizer.param_groups[0]["lr"]) / 10 if self.backbone_lr is None else self.backbone_lr
        add_groups(run.optimizer, run.model, backbone_lr=rate, layer_decay=self.layer_decay, example=self.example)

    def on_epoch_start(self, run: Run) -> None:
        before, stage = frozen_modules(run.model), self.stage(run.epoch)
        if run.shards is not None and stage == self._stage:
            return  # to make a model whole and share it out again takes time
        self._stage = stage
        with run.whole():
            unfreeze(run.model)
            if stage != "all":
                freeze(run.model, stage, example=self.example)
        run.model.train()
        after = frozen_modules(run.model)
        if before != after:
            learning = sum(each.numel() for each in run.model.parameters() if each.requires_grad)
            part = Message("everything is trainable")
            if stage != "all":
                part = Message("trainable from {stage!r} on", stage=stage)
            told = Message(
                "epoch {epoch}: {part}, {count:,} parameters", epoch=run.epoch + 1, part=part, count=learning
            )
            run.say(told)
