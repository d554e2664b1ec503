"""What the model of a run is worth: validations, evaluations and predictions, in the unit of the data."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import nn

from dlkit import rng
from dlkit.callbacks.guards import watch_evaluation
from dlkit.metrics import Metrics
from dlkit.runs.state import Run
from dlkit.samplers import Shuffle
from dlkit.training import evaluation, meaning
from dlkit.training.batches import on_device
from dlkit.training.sources import Source, source_of
from dlkit.training.steps import Forward
from dlkit.training.units import Unit

__all__ = ["Judge"]


class Judge:
    """Measures the model that a run validates with.

    Args:
        run: The run.
        forward: Model and loss.
        metrics: The user's.
        channels_last: Whether images are given to the model in that order.
    """

    def __init__(self, run: Run, forward: Forward, metrics: Metrics, *, channels_last: bool) -> None:
        self.run, self.forward, self.metrics = run, forward, metrics
        self._channels_last = channels_last

    def prepare(self, batches: Iterable[Any]) -> Iterable[Any]:
        """Batches on the run's device, as the model takes them.

        Args:
            batches: As the loader gave them.
        """
        return on_device(batches, self.run.device, channels_last=self._channels_last)

    def unit(self, loader: Any = None) -> Unit:
        """In which unit outputs and targets are reported.

        Args:
            loader: The data, where they may be others than those of the training.
        """
        return Unit(meaning.target_of(self.run, loader), self.forward.objective)

    def directions(self, *, has_val: bool) -> dict[str, bool | None]:
        """For each value of the history whether higher is better.

        Args:
            has_val: Whether there is validation data.
        """
        if not has_val:
            return {"train_loss": False}
        measured = {f"val_{name}": self.metrics.higher_is_better(name) for name in self.metrics}
        return {"train_loss": False, "val_loss": False, **measured}

    def validation(self, val: Source, hooks: Sequence[Callable[..., None]]) -> Callable[[], dict[str, float] | None]:
        """A function that validates; it gives None when the run was asked to stop meanwhile.

        Args:
            val: The validation data.
            hooks: Called after each batch with the run, the batches done, and those in all.
        """
        run, unit, watch = self.run, self.unit(), self._watch(val)  # one for all validations: a fault is said once

        def go_on(done: int) -> bool:
            for hook in hooks:
                hook(run, done, val.num_batches)
            return run.stop_reason is None

        def validate() -> dict[str, float] | None:
            if run.stop_reason is not None:
                return None
            return self.measure(val.batches(0), unit, watch=watch, go_on=go_on)

        return validate

    def measure(self, batches: Iterable[Any], unit: Unit, **options: Any) -> dict[str, float] | None:
        """Loss and metrics, see `evaluation.evaluate`.

        Args:
            batches: As the loader gave them.
            unit: Of what the metrics are told.
            options: See `evaluation.evaluate`.
        """
        prepared = self.prepare(batches)
        return evaluation.evaluate(self.forward, prepared, self.metrics, model=self._module(), unit=unit, **options)

    def evaluate(self, loader: Any) -> dict[str, float]:
        """See `Trainer.evaluate`.

        Args:
            loader: Anything `fit` takes.
        """
        source = self._source(loader)
        with rng.isolated(source.seed):
            return self.measure(source.batches(0), self.unit(loader), watch=self._watch(source)) or {}

    def predict(self, loader: Any, *, has_targets: bool | None, scaled: bool) -> Any:
        """See `Trainer.predict`.

        Args:
            loader: Anything `fit` takes.
            has_targets: Whether batches of two are inputs and target.
            scaled: Leave the outputs of a regression as the model gives them.
        """
        source = self._source(loader)
        if isinstance(getattr(getattr(source, "loader", None), "planner", None), Shuffle):
            warnings.warn(
                "the loader shuffles, and so are the predictions; pass one without shuffle=True", stacklevel=3
            )
        leaves_out = getattr(meaning.data_of(loader), "leaves_out", False)
        with rng.isolated(source.seed):
            outputs = evaluation.predict(
                self.forward,
                self.prepare(source.batches(0)),
                model=self._module(),
                has_targets=has_targets,
                planned=functools.partial(source.indices, 0) if leaves_out else None,
            )
        if evaluation.has_lists(outputs):
            self.run.say(
                "the outputs of the batches differ in width, so the predictions are a list with one tensor for each "
                "sample, as wide as its batch was; torch.nn.utils.rnn.pad_sequence(..., batch_first=True) makes it one"
            )
        return outputs if scaled else self.unit(loader).predictions(outputs)

    def _source(self, loader: Any) -> Source:
        meaning.check(self.run, loader)
        return source_of(loader, rng.derive(self.run.seed, rng.EVALUATE))

    def _watch(self, source: Source) -> Any:
        return watch_evaluation(functools.partial(source.indices, 0))

    def _module(self) -> nn.Module:
        """The averaged model where there is one, else the one that is called, compiled or not."""
        return self.forward.model if self.run.eval_model is self.run.model else self.run.eval_model
