"""What the model of a run is worth: validations, evaluations and predictions, in the unit of the data."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dlkit import rng
from dlkit._calling import as_input, split
from dlkit._fetching import LEFT_OUT, Mine
from dlkit._language import Message
from dlkit._layer_errors import locate
from dlkit._modes import in_mode
from dlkit._nested import map_leaves
from dlkit.callbacks.guards import watch_evaluation
from dlkit.distributed import joined
from dlkit.errors import TrainingError
from dlkit.metrics import Metrics, Told
from dlkit.runs.losses import LossMeter
from dlkit.runs.state import Run
from dlkit.samplers import Shuffle
from dlkit.training import counting, dealing, meaning
from dlkit.training.batches import on_device, to_device
from dlkit.training.counting import Averaging, samples_of
from dlkit.training.dealing import InTurns, to_send
from dlkit.training.forward import Forward
from dlkit.training.own_evaluation import OwnEvaluation
from dlkit.training.sources import Source, source_of
from dlkit.training.units import Unit

__all__ = ["Judge"]


class Judge:
    """Measures the model that a run validates with.

    Args:
        run: The run.
        forward: Model and loss.
        metrics: The user's.
        channels_last: Whether images are given to the model in that order.
        own: What the user does with a batch instead of model, loss and metrics.
    """

    def __init__(
        self, run: Run, forward: Forward, metrics: Metrics, *, channels_last: bool, own: OwnEvaluation | None = None
    ) -> None:
        self.run, self.forward, self.metrics, self.own = run, forward, metrics, own
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
            with self._apart(val.seed):
                return self.measure(functools.partial(val.batches, 0, 0), unit, watch=watch, go_on=go_on)

        return validate

    def measure(
        self,
        batches: Callable[[Mine], Iterable[Any]],
        unit: Unit,
        *,
        go_on: Callable[[int], bool] = lambda done: True,
        watch: Callable[[int, dict[str, list[float | None]]], None] | None = None,
    ) -> dict[str, float] | None:
        """The mean loss and the metrics over all samples, however they are cut into batches; None if `go_on` said no.

        Several processes share the batches. What each has found goes to all, so the values are the same, bit for bit.

        Args:
            batches: `batches(mine)` gives them as the loader does.
            unit: Of what the metrics are told; the loss stays as it is.
            go_on: Called after each batch with the number of batches done; False ends the evaluation.
            watch: Sees the losses of the batches, see `LossMeter`.

        Raises:
            TrainingError: there was no batch at all, or what the batches count in the mean is not known.
        """
        meter, done, counted = LossMeter(), 0, Averaging(self.forward.counting)
        if watch is not None:
            meter.watchers.append(watch)
        self.metrics.reset()
        look = _Look(self, unit, counted)
        with contextlib.ExitStack() as modes, torch.no_grad():
            # What a loss remembers is not of this data; the user's own evaluation may call the trained model as well.
            for module in (self._module(), self.run.model, *self.forward.loss_modules):
                modes.enter_context(in_mode(module, training=False))
            forward = functools.partial(self.forward, model=self._module())
            call = forward if self.own is None else functools.partial(self.own, self.run)
            turns = InTurns(self.run, lambda mine: self.prepare(batches(mine)), look, call)
            for number, (own, found) in enumerate(turns):
                look.by_states = by_states = self._by_states(turns.largest, said=look.by_states)
                if found is None:
                    meter.flush()  # the losses that are read at once are those of batches in a row
                    continue
                counted.put_beside(found.unit, found.batch)
                meter.add(found.loss, found.count, number)
                if found.told is not None:
                    self.metrics.take(found.told)
                    if found.shows and (own or not by_states):
                        look.show(number, found.told)
                done += 1
                if not go_on(done):
                    return None
        counted.settle()
        if done == 0:
            raise TrainingError("the loader for the evaluation yielded no batch; is its dataset empty?")
        measured = self.metrics.compute(put_together=look.by_states)
        ignored = {} if self.own is not None else {"loss": float("nan")}  # where every target is
        return {**ignored, **meter.mean(), **measured}

    def look(self, batch: Any) -> Any:
        """The model's output for a batch, in evaluation mode; nothing else of the run changes.

        Args:
            batch: On the device.
        """
        with self._apart(self.run.seed), in_mode(self.run.model, training=False), torch.no_grad():
            return self.forward.output(as_input(self.run.model, *split(batch)), self.run.model)

    def _by_states(self, largest: int, *, said: bool) -> bool:
        """Whether outputs are so large that it is the states of torchmetrics' objects that are put together."""
        by_states = largest > dealing.LARGE and bool(self.metrics.objects) and self.metrics.sum_up
        if by_states and not said:
            told = Message(
                "outputs and targets of a batch take {megabytes:.0f} MB: each process shows its own to the metrics, "
                "whose states are then put together; their last digits may depend on the number of processes",
                megabytes=largest / 1e6,
            )
            self.run.say(told)
        return by_states

    def evaluate(self, loader: Any) -> dict[str, float]:
        """See `Trainer.evaluate`.

        Args:
            loader: Anything `fit` takes.
        """
        source = self._source(loader)
        batches, watch = functools.partial(source.batches, 0, 0), self._watch(source)
        with joined(self.run.world, self.run.device), self._apart(source.seed):
            return self.measure(batches, self.unit(loader), watch=watch) or {}

    def predict(self, loader: Any, *, has_targets: bool | None, scaled: bool) -> Any:
        """See `Trainer.predict`.

        Args:
            loader: Anything `fit` takes.
            has_targets: Whether batches of two are inputs and target.
            scaled: Leave the outputs of a regression as the model gives them.
        """
        source, leads = self._source(loader), self.run.world.leads
        if leads and isinstance(getattr(getattr(source, "loader", None), "planner", None), Shuffle):
            warnings.warn(
                "the loader shuffles, so the predictions are shuffled as well; pass one without shuffle=True",
                stacklevel=3,
            )
        leaves_out = getattr(meaning.data_of(loader), "leaves_out", False)
        with joined(self.run.world, self.run.device), self._apart(source.seed):
            outputs = _concatenated(self._outputs(source, has_targets, leaves_out=leaves_out))
        if _has_lists(outputs):
            told = Message(
                "the outputs of the batches differ in width, so the predictions are a list with one tensor for each "
                "sample, as wide as its batch was; torch.nn.utils.rnn.pad_sequence(..., batch_first=True) makes it one"
            )
            self.run.say(told)
        return outputs if scaled else self.unit(loader).predictions(outputs)

    def _outputs(self, source: Source, has_targets: bool | None, *, leaves_out: bool) -> list[Any]:
        """The outputs of all batches, in the loader's order, on the CPU."""
        outputs, short, model = list[Any](), list[int](), self._module()

        def call(batch: Any) -> Any:
            return self.forward.output(batch if has_targets is False else as_input(model, *split(batch)), model)

        def look(number: int, batch: Any) -> tuple[bool, list[Any]]:
            planned = len(source.indices(0, number) or ()) if leaves_out else 0
            if batch is LEFT_OUT:
                return True, []
            self.start_stream(number)
            try:
                output = call(batch)
            except Exception as error:
                locate(error, f"batch {number + 1} of the prediction")
                if has_targets is not False:
                    self.forward.explain_prediction(error, batch)
                raise
            found = map_leaves(getattr(output, "logits", output), _to_cpu)
            return samples_of(batch) < planned, [found if self.run.world.size == 1 else to_send(found)]

        with in_mode(model, training=False), torch.no_grad():
            turns = InTurns(self.run, lambda mine: self.prepare(source.batches(0, 0, mine)), look, call)
            for number, (_, (lacks, found)) in enumerate(turns):
                short += [number + 1] * lacks
                outputs += found
        if short and self.run.world.leads:
            warnings.warn(
                f"samples that cannot be read have no prediction, in batch {', '.join(map(str, short))}: there are "
                "fewer predictions than samples. Read the data with on_error='raise', or predict on "
                "dataset.without_errors()",
                stacklevel=4,
            )
        if not outputs:
            raise TrainingError("the loader yielded no batch to predict; is its dataset empty?")
        return outputs

    @contextlib.contextmanager
    def _apart(self, seed: int) -> Iterator[None]:
        """A block that draws from its own streams: what a model draws in it moves nothing of the training."""
        streams = rng.state_dict()
        rng.set_streams(seed)
        try:
            yield
        finally:
            rng.load_state_dict(streams)

    def start_stream(self, number: int, *path: int) -> None:
        """Let what is drawn for a batch depend on nothing but its number, whichever process works on it.

        Args:
            number: From 0 on.
            path: What for, beside the model's own draws.
        """
        rng.start_torch(rng.derive(self.run.seed, rng.EVALUATE, number, *path), self.run.device)

    def _source(self, loader: Any) -> Source:
        meaning.check(self.run, loader)
        return source_of(loader, rng.derive(self.run.seed, rng.EVALUATE))

    def _watch(self, source: Source) -> Any:
        return watch_evaluation(functools.partial(source.indices, 0)) if self.run.world.leads else None

    def _module(self) -> nn.Module:
        """The averaged model where there is one, else the one that is called, compiled or not."""
        return self.forward.model if self.run.eval_model is self.run.model else self.run.eval_model


class _Found(NamedTuple):
    """What is found out about a batch of an evaluation.

    Attributes:
        loss: Its mean.
        count: What it counts in the mean of all.
        unit: What one of its samples is, see `Averaging`.
        batch: It, or what an error says of it.
        told: What the metrics have to know; None where there are none.
        shows: Whether that holds output and target for the metrics that are objects.
    """

    loss: Tensor
    count: Any
    unit: Any
    batch: Any
    told: Told | None
    shows: bool


class _Look:
    """Looks at one batch after the other, by the process whose batch it is."""

    def __init__(self, judge: Judge, unit: Unit, counted: Averaging) -> None:
        self._judge, self._unit, self._counted, self.by_states = judge, unit, counted, False
        self._alone, self._objects = judge.run.world.size == 1, bool(judge.metrics.objects)

    def __call__(self, number: int, batch: Any) -> _Found | None:
        if batch is LEFT_OUT:
            return None
        forward, metrics = self._judge.forward, self._judge.metrics
        self._judge.start_stream(number)
        if self._judge.own is not None:
            values, count = self._measured(self._judge.own, number, batch)
            return _Found(values if self._alone else to_send(values), count, None, "", None, False)
        try:
            loss, output, target = forward(batch, self._judge._module())
            (count, unit), told = self._counted.seen(batch), None
            if len(metrics):
                judged = output if hasattr(output, "logits") else forward.prediction(output)
                told = metrics.told(*self._unit.pair(judged, target))
                if self.by_states:
                    self.show(number, told)
        except Exception as error:
            locate(error, f"batch {number + 1} of the evaluation")
            raise
        loss = forward.counting.mean(loss, count)
        if self._alone:
            return _Found(loss, count, unit, batch, told, self._objects)
        shows = self._objects and not self.by_states
        told = told if shows or told is None else told._replace(preds=None, target=None)
        known = forward.counting.known
        found: _Found = to_send(_Found(loss, count, unit, "" if known else counting.told(batch), told, shows))
        return found

    def _measured(self, own: OwnEvaluation, number: int, batch: Any) -> tuple[Any, Any]:
        """What the user's own evaluation says of a batch, and what the batch counts."""
        try:
            values, count = own(self._judge.run, batch)
        except Exception as error:
            locate(error, f"batch {number + 1} of the evaluation")
            raise
        return values, count

    def show(self, number: int, told: Told) -> None:
        """Show a batch to the metrics that are objects, which may draw random numbers.

        Args:
            number: Of the batch.
            told: Of any process.
        """
        if not self._objects:
            return
        self._judge.start_stream(number, 1)
        try:
            self._judge.metrics.show(told if self._alone else to_device(told, self._judge.run.device))
        except Exception as error:
            locate(error, f"batch {number + 1} of the evaluation")
            raise


def _to_cpu(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    return leaf.float().cpu() if leaf.dtype in (torch.float16, torch.bfloat16) else leaf.cpu()


def _is_ragged(outputs: list[Tensor]) -> bool:
    """Whether outputs of several batches [B, ...] cannot be one tensor, as they differ behind the first dimension."""
    return any(output.is_nested for output in outputs) or len({output.shape[1:] for output in outputs}) > 1


def _has_lists(outputs: Any) -> bool:
    """Whether predictions are lists of samples somewhere, as they are where batches were ragged."""
    if isinstance(outputs, Mapping):
        return any(map(_has_lists, outputs.values()))
    if isinstance(outputs, tuple):
        return any(map(_has_lists, outputs))
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
