"""Steps of one's own that give other values in other steps, several Checkpoints, several inputs, messages."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import dlkit
from dlkit import Trainer, fine_tune
from dlkit.artifact import read_header
from dlkit.callbacks import Callback, Checkpoint, StopOnNaN
from dlkit.errors import CheckpointError, TrainingError
from dlkit.runs.losses import LossMeter
from dlkit.runs.state import Run
from dlkit.transforms import for_evaluation

# ---------------------------------------------------------------------------------------------------- values by step


def batches() -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(size, 3) for size in (4, 2, 4, 1, 4, 3, 4)]


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.at = step

    def on_step_end(self, run: Run) -> None:
        if run.step == self.at:
            run.request_stop("test")


def gan(folder: Path | None = None, stop: int = 0) -> Trainer:
    """A discriminator in every step, a generator in every third one."""
    torch.manual_seed(1)
    model = nn.ModuleDict({"generator": nn.Linear(3, 3), "discriminator": nn.Linear(3, 1)})
    optim = {name: torch.optim.SGD(part.parameters(), 0.1) for name, part in model.items()}

    def step(run: Run, batch: Tensor) -> dict[str, Tensor]:
        values = {"discriminator": run.model["discriminator"](batch).square().mean()}
        values["discriminator"].backward()
        run.optimizers["discriminator"].step()
        if run.step % 3 == 1:
            values["generator"] = (run.model["generator"](batch) - 1).square().mean()
            values["generator"].backward()
            run.optimizers["generator"].step()
        model.zero_grad()
        return values

    callbacks: list[Callback] = [StopOnNaN(), StopAt(stop)]
    callbacks += [Checkpoint(folder)] if folder is not None else []
    return Trainer(model, None, optim, step=step, callbacks=callbacks, progress=False, device="cpu")


def test_values_of_some_steps_have_means_of_their_own() -> None:
    data, seen = batches(), dict[str, list[tuple[float, int]]]()
    trainer = gan()

    class Note(Callback):
        def on_setup(self, run: Run) -> None:
            add = run.losses.add

            def noted(values: Any, weight: Any, step: int) -> None:
                for name, value in values.items():
                    seen.setdefault(name, []).append((float(value), weight))
                add(values, weight, step)

            run.losses.add = noted  # type: ignore[method-assign]

    trainer.callbacks.append(Note())
    row = trainer.fit(data).rows[0]
    assert [len(seen[name]) for name in ("discriminator", "generator")] == [7, 2]
    for name, values in seen.items():
        wanted = sum(value * weight for value, weight in values) / sum(weight for _, weight in values)
        assert row[f"train_{name}"] == pytest.approx(wanted)


@pytest.mark.parametrize("stop", [1, 2, 4, 6])
def test_they_survive_a_stop_at_any_step(stop: int, tmp_path: Path) -> None:
    whole = gan().fit(batches(), epochs=2)
    gan(tmp_path, stop).fit(batches(), epochs=2)
    assert gan(tmp_path).fit(batches(), epochs=2).rows == whole.rows


def test_a_watcher_sees_at_which_step_a_value_was() -> None:
    meter, seen = LossMeter(), list[Any]()
    meter.watchers.append(lambda step, values: seen.append((step, values)))
    for step, values in enumerate(({"a": 1.0}, {}, {"b": 5.0, "a": 2.0})):
        meter.add({name: torch.tensor(value) for name, value in values.items()}, 1, step)
    assert meter.mean() == {"a": 1.5, "b": 5.0}
    assert seen == [(0, {"a": [1.0, None, 2.0], "b": [None, None, 5.0]})]
    assert meter.latest() == 5.0


def test_sums_of_an_older_file_are_taken() -> None:
    meter = LossMeter()
    meter.load_state_dict({"sums": {"loss": 6.0}, "count": 4})
    meter.add(torch.tensor(1.0), 2, 0)
    assert meter.mean() == {"loss": pytest.approx(8 / 6)}


# ------------------------------------------------------------------------------------------- several batches in a step


def classifier(**settings: Any) -> Trainer:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 2))
    optim = torch.optim.AdamW(model.parameters(), 0.01)
    return Trainer(model, nn.CrossEntropyLoss(), optim, accumulate=3, progress=False, device="cpu", **settings)


def labelled() -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    return [(torch.randn(size, 3), torch.randint(0, 2, (size,))) for size in (4, 2, 4, 2, 4, 3, 4)]


def test_one_loss_over_several_batches_is_the_standard_step() -> None:
    def step(run: Run) -> Tensor:
        run.optimizer.zero_grad()
        loss = run.backward(lambda batch: nn.functional.cross_entropy(run.model(batch[0]), batch[1]))
        run.optimizer.step()
        return loss

    standard, own = classifier(), classifier(step=step)
    assert own.fit(labelled(), epochs=2).rows == standard.fit(labelled(), epochs=2).rows
    assert own.run.cursor == standard.run.cursor
    for mine, theirs in zip(own.model.state_dict().values(), standard.model.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
    own.lr_find(labelled(), steps=3)
    assert own.overfit(labelled(), 4, epochs=1)["step"] == [2]


@pytest.mark.parametrize("accumulate", [1, 3])
def test_gradients_of_two_losses_are_added(accumulate: int) -> None:
    seen = list[Tensor]()

    def step(run: Run) -> Tensor:
        parameters = list(run.model.parameters())
        run.model.zero_grad()
        run.backward(lambda batch: run.model(batch[0]).square().sum(), count=lambda batch: 1)
        seen.extend(p.grad.clone() for p in parameters if p.grad is not None)
        value = run.backward(lambda batch: run.model(batch[0]).mean())
        seen.extend(p.grad for p in parameters if p.grad is not None)
        return value

    torch.manual_seed(2)
    model, data = nn.Linear(3, 2), labelled()[:accumulate]
    optim = torch.optim.SGD(model.parameters(), 0.1)
    Trainer(model, None, optim, step=step, accumulate=accumulate, progress=False, device="cpu").fit(data)
    total = sum(model(x).square().sum() for x, _ in data) / len(data)
    first = torch.autograd.grad(torch.as_tensor(total), list(model.parameters()))
    mean = model(torch.cat([x for x, _ in data])).mean()
    second = torch.autograd.grad(mean, list(model.parameters()))
    for found, wanted in zip(seen, [*first, *(a + b for a, b in zip(first, second, strict=True))], strict=True):
        torch.testing.assert_close(found, wanted)


def test_a_step_that_reaches_no_batch_and_a_backward_outside_of_a_step_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"the step has trained on none .* through run.backward\(loss_of\)"):
        classifier(step=lambda run: torch.zeros(())).fit(labelled())
    with pytest.raises(TrainingError, match=r"run\.backward can only be called in a custom step"):
        classifier().run.backward(lambda batch: batch)


# ------------------------------------------------------------------------------------------------------ two Checkpoints


class Scripted(Callback):
    """Gives the values to judge by: the best by `a` is step 2, the best by `b` step 4."""

    order = -1
    values = {"a": [3.0, 1.0, 2.0, 5.0, 4.0], "b": [1.0, 2.0, 3.0, 5.0, 4.0]}  # noqa: RUF012

    def on_log(self, run: Run, row: Any) -> None:
        row |= {name: values[run.epoch] for name, values in self.values.items()}


@dlkit.register("two checkpoints, for tests")
class Plain(nn.Linear):
    def __init__(self) -> None:
        super().__init__(16, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs.flatten(1))


def two(folder: Path, *, stop: int = 0, first: dict[str, Any] | None = None) -> Trainer:
    torch.manual_seed(0)
    model = Plain()
    stores = [
        Checkpoint(folder / "run", "a", mode="min", **(first or {})),
        Checkpoint(folder / "by-b", "b", mode="max", model_file=folder / "b.safetensors"),
    ]
    callbacks = [Scripted(), StopAt(stop), *stores]
    optim = torch.optim.SGD(model.parameters(), 0.1)
    return Trainer(model, nn.MSELoss(), optim, callbacks=callbacks, progress=False, device="cpu")


def data() -> DataLoader[Any]:
    torch.manual_seed(2)
    return DataLoader(Images(torch.randn(4, 1, 4, 4), torch.randn(4, 2)), 4)


class Images(TensorDataset):
    classes, transform = ("x", "y"), for_evaluation(4, color="L", mean=0.0, std=1.0)


def stores(trainer: Trainer) -> list[Checkpoint]:
    return [callback for callback in trainer.callbacks if isinstance(callback, Checkpoint)]


def weights_at(step: int) -> Tensor:
    torch.manual_seed(0)
    model = Plain()
    trainer = Trainer(model, nn.MSELoss(), torch.optim.SGD(model.parameters(), 0.1), progress=False, device="cpu")
    trainer.fit(data(), epochs=step)
    return model.weight.detach()


@pytest.mark.parametrize("stop", [0, 3])
def test_the_best_by_two_values(stop: int, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    if stop:
        two(tmp_path, stop=stop).fit(data(), epochs=5)
    trainer = two(tmp_path)
    trainer.fit(data(), epochs=5)
    by_a, by_b = stores(trainer)
    assert torch.equal(trainer.model.weight, weights_at(2))  # the first one's best comes back
    assert trainer.run.weights_from == 2
    for store, step in ((by_a, 2), (by_b, 4)):
        assert torch.equal(torch.load(store.best, weights_only=True)["model"]["weight"], weights_at(step))
    file = dlkit.load(tmp_path / "b.safetensors")
    assert torch.equal(file.model.weight, weights_at(4))
    assert read_header(tmp_path / "b.safetensors").document["metrics"]["b"] == 5.0


def test_a_run_goes_on_from_the_first_folder_else_from_the_others(tmp_path: Path, capsys: Any) -> None:
    two(tmp_path, stop=3).fit(data(), epochs=5)
    (tmp_path / "run").rename(tmp_path / "gone")
    trainer = two(tmp_path)
    trainer.run.verbose = True
    trainer.fit(data(), epochs=5)
    assert f"resumed from {tmp_path / 'by-b'}" in capsys.readouterr().err
    assert trainer.history["step"] == [1, 2, 3, 4, 5]
    again = two(tmp_path)
    again.fit(data(), epochs=2, resume=False)
    assert [len(list((tmp_path / name).glob("earlier-*"))) for name in ("run", "by-b")] == [1, 1]
    with pytest.raises(CheckpointError, match=r"there is nothing to resume in .*other/run or .*other/by-b"):
        two(tmp_path / "other").fit(data(), resume=True)


def test_where_the_first_brings_nothing_back_the_second_does(tmp_path: Path) -> None:
    trainer = two(tmp_path, first={"restore_best": False})
    trainer.fit(data(), epochs=5)
    assert torch.equal(trainer.model.weight, weights_at(4))


# --------------------------------------------------------------------------------------------------------- two inputs


class Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Sequential(nn.Linear(4, 8), nn.ReLU()), nn.Embedding(5, 8)
        self.mixed, self.head = nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.head(self.mixed(torch.cat([self.left(left), self.right(right)], 1)).relu())


@pytest.mark.parametrize("how", ["pair", "flat", "dict"])
def test_fine_tune_with_two_inputs(how: str) -> None:
    torch.manual_seed(0)
    left, right = torch.randn(24, 4), torch.randint(0, 5, (24,))
    target = (left[:, 0] > 0).long() + (right > 2).long()
    shapes = {
        "pair": lambda i: ((left[i], right[i]), target[i]),
        "flat": lambda i: (left[i], right[i], target[i]),
        "dict": lambda i: ({"left": left[i], "right": right[i]}, target[i]),
    }
    samples: list[Any] = [shapes[how](i) for i in range(24)]
    loader: Any = DataLoader(samples, 8)
    found = fine_tune(Both(), loader, loader, epochs=2, head_epochs=2, backbone_lr=1e-2, progress=False, device="cpu")
    with torch.no_grad():
        right_ones = (found.model(left, right).argmax(1) == target).float().mean()
    assert found.score == pytest.approx(float(right_ones))


# ----------------------------------------------------------------------------------------------------------- messages


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    logger = logging.getLogger("dlkit")
    before = logger.level, logger.propagate, list(logger.handlers), list(logging.getLogger().handlers)
    yield logger
    logger.level, logger.propagate = before[:2]
    logger.handlers[:], logging.getLogger().handlers[:] = before[2:]
    logger.setLevel(before[0])


class Console(logging.Handler):
    """As rich's handler: not a StreamHandler, but one that writes to the screen."""

    class console:  # noqa: N801
        file: Any = None

    def emit(self, record: logging.LogRecord) -> None:
        sys.stdout.write(record.getMessage() + "\n")


@pytest.mark.parametrize("verbose", [True, False])
@pytest.mark.parametrize("where", ["nowhere", "root", "dlkit", "stdout", "file", "too high", "not propagated", "rich"])
def test_a_message_appears_once(where: str, verbose: bool, log: logging.Logger, capsys: Any) -> None:
    handler: logging.Handler = logging.StreamHandler(sys.stdout if where == "stdout" else sys.stderr)
    if where == "file":
        handler = logging.StreamHandler(io.StringIO())
    if where == "rich":
        handler = Console()
        handler.console.file = sys.stdout
    if where != "nowhere":
        (log if where == "dlkit" else logging.getLogger()).addHandler(handler)
        log.setLevel(logging.WARNING if where == "too high" else logging.INFO)
        log.propagate = where != "not propagated"
    model = nn.Linear(2, 2)
    optimizers: dict[str, Any] = {"optimizer": torch.optim.SGD(model.parameters(), 0.1)}
    Run(model, optimizers, device=torch.device("cpu"), seed=0, verbose=verbose).say("a message")
    shown = "".join(capsys.readouterr())
    logged = where in ("root", "dlkit", "stdout", "rich")
    assert shown.count("a message") == (1 if verbose or logged else 0)
    if where == "file":
        assert handler.stream.getvalue().count("a message") == 1  # type: ignore[attr-defined]
