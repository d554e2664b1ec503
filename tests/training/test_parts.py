"""State that is not in the model: a loss that learns, metrics, buffers that are not saved with a `state_dict`."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import StopAt
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from dlkit import Trainer, fine_tune
from dlkit.callbacks import EMA, Callback, Checkpoint, StopOnNaN
from dlkit.errors import ResumeError
from dlkit.runs.checkpointfile import load_checkpoint
from dlkit.runs.parts import find_parts
from dlkit.training.setup import parts_on_device


class Centers(nn.Module):
    """Pulls outputs to learned centers, remembers a running mean, and counts in a buffer that is not saved."""

    def __init__(self, classes: int = 3, learning: bool = True) -> None:
        super().__init__()
        self.centers = nn.Parameter(torch.zeros(classes, classes), requires_grad=learning)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        if self.training:
            self.mean.mul_(0.9).add_(0.1 * output.detach().mean())
            self.seen += len(target)
        pull = (output - self.centers[target]).square().mean() * (1 + self.mean.abs().clone())
        return nn.functional.cross_entropy(output, target) + 0.1 * pull + 1e-3 * self.seen.clone()


class Net(nn.Module):
    """Has a buffer that no `state_dict` holds, on which its output depends, and one that grows."""

    def __init__(self, grows: bool = True) -> None:
        super().__init__()
        self.grows = grows
        self.linear = nn.Linear(4, 3)
        self.register_buffer("scale", torch.ones(3), persistent=False)
        self.register_buffer("cache", torch.zeros(0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        output = self.linear(x) * self.scale.clone()
        if self.training:
            self.scale.mul_(0.9).add_(0.1 * output.detach().abs().mean(0))
        if self.training and self.grows:
            self.cache = torch.cat([self.cache, output.detach().mean()[None]])
        return output + self.cache.sum()


def batches() -> tuple[DataLoader, DataLoader]:
    generator = torch.Generator().manual_seed(1)
    data = TensorDataset(torch.randn(30, 4, generator=generator), torch.arange(30) % 3)
    return DataLoader(data, 6, shuffle=True), DataLoader(data, 10)


def make(*callbacks: Callback, loss: Any = None, model: nn.Module | None = None, **settings: Any) -> Trainer:
    torch.manual_seed(0)
    model, loss = model or Net(), Centers() if loss is None else loss
    parameters = [*model.parameters(), *(loss.parameters() if isinstance(loss, nn.Module) else ())]
    optimizer = torch.optim.Adam([each for each in parameters if each.requires_grad], 0.05)
    return Trainer(model, loss, optimizer, callbacks=callbacks, **{"device": "cpu", "progress": False, **settings})


def everything(trainer: Trainer) -> dict[str, Tensor]:
    """All tensors of model, average and loss, the buffers without a place in a `state_dict` included."""
    found: dict[str, Tensor] = {}
    for name, module in {"model": trainer.model, "average": trainer.run.eval_model, **trainer.run.parts}.items():
        for kind in (module.named_parameters(), module.named_buffers()):
            found |= {f"{name}.{place}": tensor.detach().clone() for place, tensor in kind}
    return found


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name, tensor in one.items() if not torch.equal(tensor, other[name])] == []


# ------------------------------------------------------------------------------------------------------------- resuming


@pytest.mark.parametrize("ema", [False, True])
def test_a_run_resumed_at_every_step_is_the_run_that_was_not_stopped(tmp_path, ema):
    def run(*callbacks: Callback) -> Trainer:
        made = make(*callbacks, *([EMA(0.8)] if ema else []), model=_seeded(grows=not ema))
        made.fit(*batches(), epochs=2)
        return made

    whole = run()
    assert float(whole.run.parts["loss"].mean) != 0
    for step in range(1, 10):
        run(StopAt(step), Checkpoint(tmp_path, every="1000 steps", restore_best=False))
    resumed = run(Checkpoint(tmp_path, restore_best=False))
    assert resumed.history.rows == whole.history.rows
    assert_same(everything(resumed), everything(whole))


def _seeded(grows: bool) -> Net:
    torch.manual_seed(0)
    return Net(grows)


def test_a_loss_of_another_shape_is_refused_and_one_without_state_too(tmp_path):
    make(Checkpoint(tmp_path)).fit(*batches())
    with pytest.raises(ResumeError, match=r"loss, centers: saved \[3, 3\], now \[5, 5\]"):
        make(Checkpoint(tmp_path), loss=Centers(5)).fit(*batches(), epochs=2)
    with pytest.raises(ResumeError, match=r"loss, centers: saved \[3, 3\], now nothing"):
        make(Checkpoint(tmp_path), loss=nn.CrossEntropyLoss()).fit(*batches(), epochs=2)


def test_the_best_weights_come_back_with_the_loss_and_the_buffers_that_belong_to_them(tmp_path):
    class Spoil(Callback):
        def on_epoch_end(self, run) -> None:
            if run.epoch == 0:
                kept.update(everything(made))
            else:
                with torch.no_grad():
                    for tensor in (*run.model.parameters(), run.model.scale, *run.parts["loss"].parameters()):
                        tensor.add_(20)

    kept: dict[str, Tensor] = {}
    made = make(Spoil(), Checkpoint(tmp_path))
    history = made.fit(*batches(), epochs=3)
    assert min(history["val_loss"][1:]) > history["val_loss"][0]
    assert_same(everything(made), kept)
    assert made.evaluate(batches()[1])["loss"] == history["val_loss"][0]


# ----------------------------------------------------------------------------------------------------------- rehearsals


@pytest.mark.parametrize("name", ["dry run", "lr_find", "evaluate"])
def test_a_rehearsal_puts_everything_back(name):
    made = make()
    made.fit(*batches())
    before = everything(made)
    tensors = {name: id(buffer) for name, buffer in made.model.named_buffers()}
    if name == "dry run":
        made.dry_run(*batches())
    elif name == "lr_find":
        made.lr_find(batches()[0], steps=5, end=1e-3)
    else:
        made.evaluate(batches()[1])
    assert_same(everything(made), before)
    assert {name: id(buffer) for name, buffer in made.model.named_buffers()} == tensors


# ------------------------------------------------------------------------------------------------------------- the loss


def test_a_loss_that_learns_is_that_of_a_bare_loop():
    made = make(model=nn.Linear(4, 3))
    model, loss = copy.deepcopy(made.model), copy.deepcopy(made.run.parts["loss"])
    optimizer = torch.optim.Adam([*model.parameters(), *loss.parameters()], 0.05)
    data = [(x, y) for x, y in batches()[1]]
    made.fit(data, epochs=3)
    for x, y in data * 3:
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
    assert torch.equal(made.run.parts["loss"].centers, loss.centers)
    assert torch.equal(made.model.weight, model.weight)


def test_what_should_learn_and_is_in_no_optimizer_is_named():
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def fit(loss):
        Trainer(model, loss, optimizer, device="cpu", progress=False).fit(list(batches()[1])[:1])

    with pytest.warns(UserWarning, match=r"in no optimizer, so never changed: loss\.centers;"):
        fit(Centers())
    with pytest.warns(UserWarning, match=r"loss\.inner\.centers"):
        fit(functools.partial(_scaled, inner=Centers()))
    fit(Centers(learning=False))


def _scaled(output: Tensor, target: Tensor, inner: nn.Module) -> Tensor:
    return 2 * inner(output, target)


_margin = Centers(learning=False)


class Plain:
    """A loss that is a plain object and holds a module."""

    def __init__(self) -> None:
        self.inner = {"first": Centers(learning=False)}

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return self.inner["first"](output, target)


def _closure() -> Any:
    inner = Centers(learning=False)
    return lambda output, target: inner(output, target)


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (_closure, "loss.inner"),
        (lambda: functools.partial(_scaled, inner=Centers(learning=False)), "loss.inner"),
        (Plain, "loss.inner.first"),
        (lambda: Plain().__call__, "loss.self.inner.first"),
        (lambda: lambda output, target: _margin(output, target), "loss._margin"),
    ],
    ids=["closure", "partial", "object", "method", "global"],
)
def test_a_module_inside_the_loss_is_found_saved_and_resumed(loss, name, tmp_path):
    _margin.mean.zero_(), _margin.seen.zero_()
    whole = make(loss=loss())
    assert list(whole.run.parts) == [name]
    whole.fit(*batches(), epochs=2)
    kept = everything(whole)
    _margin.mean.zero_(), _margin.seen.zero_()
    make(StopAt(7), Checkpoint(tmp_path, restore_best=False), loss=loss()).fit(*batches(), epochs=2)
    _margin.mean.zero_(), _margin.seen.zero_()
    resumed = make(Checkpoint(tmp_path, restore_best=False), loss=loss())
    resumed.fit(*batches(), epochs=2)
    assert_same(everything(resumed), kept)


def test_what_belongs_to_the_model_is_no_part_of_its_own():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    wrapped = nn.Sequential(model)
    losses = [lambda output, target: model(output), lambda output, target: wrapped(output), nn.functional.mse_loss]
    assert [find_parts({"loss": loss}, model) for loss in losses] == [{}, {}, {}]
    again = nn.BatchNorm1d(2)
    assert find_parts({"loss": again, "metric a": again, "step": type(again)}, model) == {"loss": again}


def test_class_weights_reach_the_device():
    """On the device "meta", which is there on every machine and computes nothing."""
    weight = torch.tensor([1.0, 2.0, 3.0])
    for loss in (
        nn.CrossEntropyLoss(weight=weight),
        functools.partial(nn.functional.cross_entropy, weight=weight),
        Plain(),
        nn.BCEWithLogitsLoss(pos_weight=weight),
    ):
        inside, parts = parts_on_device(loss, {}, nn.Linear(4, 3), torch.device("meta"))
        held = inside.keywords.values() if isinstance(inside, functools.partial) else ()
        tensors = [*held, *(buffer for part in parts.values() for buffer in part.buffers())]
        assert tensors
        assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert weight.device.type == "cpu"


class Attributes(nn.Module):
    """Holds tensors as plain attributes, one of which moves with every batch, and some in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = torch.tensor([1.0, 2.0, 3.0])
        self.pull = nn.Module()
        self.pull.center = torch.zeros(3)
        self.more = [torch.ones(3)]

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        if self.training:
            self.pull.center = 0.9 * self.pull.center + 0.1 * output.detach().mean(0)
        return nn.functional.cross_entropy(output - self.pull.center, target, self.weights)


def test_tensors_that_a_loss_holds_as_attributes_are_moved_or_named():
    loss = Attributes()
    named = r"^loss\.more\.0: not on meta, where the model is, .*register_buffer\('weights', tensor\)"
    with pytest.warns(UserWarning, match=named):
        parts_on_device(loss, {}, nn.Linear(4, 3), torch.device("meta"))
    assert {loss.weights.device.type, loss.pull.center.device.type} == {"meta"}
    assert loss.state_dict() == {}
    weights = torch.ones(3)
    with pytest.warns(UserWarning, match=r"^loss\.weights: not on meta"):
        parts_on_device(lambda output, target: (output * weights).sum(), {}, nn.Linear(4, 3), torch.device("meta"))
    plain = Plain()
    plain.weights = {"a": weights}
    with pytest.warns(UserWarning, match=r"^loss\.weights\.a: not on meta"):
        parts_on_device(plain, {}, nn.Linear(4, 3), torch.device("meta"))


def test_tensors_that_a_loss_holds_as_attributes_go_on_with_a_resumed_run(tmp_path):
    whole = make(loss=Attributes())
    whole.fit(*batches(), epochs=2)
    make(StopAt(7), Checkpoint(tmp_path, restore_best=False), loss=Attributes()).fit(*batches(), epochs=2)
    resumed = make(Checkpoint(tmp_path, restore_best=False), loss=Attributes())
    resumed.fit(*batches(), epochs=2)
    assert_same(everything(resumed), everything(whole))
    assert torch.equal(resumed.run.parts["loss"].pull.center, whole.run.parts["loss"].pull.center)
    assert resumed.history.rows == whole.history.rows


def test_a_validation_teaches_the_loss_nothing():
    made = make()
    made.fit(batches()[0])
    before = everything(made)
    made.evaluate(batches()[1])
    assert_same(everything(made), before)
    assert made.run.parts["loss"].training


def test_a_loss_that_becomes_nan_is_not_saved(tmp_path):
    class Spoil(Callback):
        def on_step_end(self, run) -> None:
            if run.step == 7:
                run.parts["loss"].centers.data[2] = torch.nan

    made = make(Spoil(), StopOnNaN(), Checkpoint(tmp_path, every="1 steps", restore_best=False))
    made.fit(batches()[0], epochs=2)
    assert "loss.centers" in str(made.run.stop_reason)
    assert load_checkpoint(made.callbacks[-1].last)["cursor"]["step"] == 6


# ---------------------------------------------------------------------------------------------- metrics, steps, objects


class Learned:
    """A metric that is a plain object with a memory beyond a validation."""

    higher_is_better = False

    def __init__(self) -> None:
        self.calls, self.sum = 0, 0.0

    def update(self, preds: Tensor, target: Tensor) -> None:
        self.calls += 1
        self.sum += 1

    def compute(self) -> float:
        return self.sum + 100 * self.calls

    def reset(self) -> None:
        self.sum = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self.calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.calls = state["calls"]


def test_a_metric_with_a_memory_goes_on(tmp_path):
    whole = make(metrics={"odd": Learned()})
    whole.fit(*batches(), epochs=3)
    make(Checkpoint(tmp_path, restore_best=False), metrics={"odd": Learned()}).fit(*batches(), epochs=2)
    resumed = make(Checkpoint(tmp_path, restore_best=False), metrics={"odd": Learned()})
    resumed.dry_run(*batches())
    resumed.fit(*batches(), epochs=3)
    assert resumed.history["val_odd"] == whole.history["val_odd"] == [303, 603, 903]


class Stepper(nn.Module):
    """A step of one's own that is an object with a state."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("momentum", torch.zeros(()))

    def forward(self, run: Any, batch: Any) -> Tensor:
        loss = nn.functional.cross_entropy(run.model(batch[0]), batch[1])
        self.momentum.mul_(0.5).add_(loss.detach())
        run.optimizer.zero_grad()
        (loss * (1 + self.momentum)).backward()
        run.optimizer.step()
        return loss


def test_a_step_of_ones_own_with_a_state_goes_on(tmp_path):
    whole = make(step=Stepper(), loss=nn.CrossEntropyLoss())
    whole.fit(*batches(), epochs=2)
    make(StopAt(7), Checkpoint(tmp_path), step=Stepper(), loss=nn.CrossEntropyLoss()).fit(*batches(), epochs=2)
    resumed = make(Checkpoint(tmp_path, restore_best=False), step=Stepper(), loss=nn.CrossEntropyLoss())
    resumed.fit(*batches(), epochs=2)
    assert_same(everything(resumed), everything(whole))


def test_every_try_of_the_head_begins_with_the_loss_as_it_was():
    """Fine-tuning trains a head several times, with one loss."""

    class Watched(Centers):
        first: list[float] = []  # noqa: RUF012

        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            if self.training and int(self.seen) == 0:
                self.first.append(float(self.mean))
            return super().forward(output, target)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    loss, (train, _) = Watched(learning=False), batches()
    val = DataLoader(TensorDataset(torch.randn(9, 4), torch.arange(9) % 3), 9)
    fine_tune(model, train, val, epochs=0, head_epochs=2, loss=loss, progress=False, device="cpu")
    assert len(Watched.first) > 1
    assert set(Watched.first) == {0.0}
    assert float(loss.mean) == float(loss.seen) == 0


def test_an_older_checkpoint_without_parts_fits_a_loss_without_state():
    golden = Path(__file__).parent.parent / "golden" / "checkpoint-0.1.0.pt"
    assert "parts" not in load_checkpoint(golden)  # and `test_golden.py` goes on from it


# ------------------------------------------------------------------------------- tensors that nothing saves, told once


class Drifting:
    """A plain object that remembers a mean in a tensor."""

    def __init__(self) -> None:
        self.mean, self.fixed = torch.zeros(()), torch.ones(3)

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * output.detach().mean()
        return nn.functional.cross_entropy(output * self.fixed, target) + self.mean


def in_place() -> Any:
    seen = torch.zeros(())

    def loss(output: Tensor, target: Tensor) -> Tensor:
        seen.add_(1)
        return nn.functional.cross_entropy(output, target) * seen

    return loss


def attribute() -> Any:
    def loss(output: Tensor, target: Tensor) -> Tensor:
        loss.bank = output.detach()
        return nn.functional.cross_entropy(output, target)

    return loss


class Kept(Drifting):
    """The same, with a state."""

    def state_dict(self) -> dict[str, Tensor]:
        return {"mean": self.mean}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.mean = state["mean"]


CHANGED = {"loss.mean": Drifting, "loss.seen": in_place, "loss.bank": attribute, "loss.0.mean": lambda: [Drifting()]}


@pytest.mark.parametrize(("place", "loss"), CHANGED.items(), ids=list(CHANGED))
def test_tensors_that_a_plain_loss_changes_are_told_once_when_they_would_be_lost(tmp_path, caplog, place, loss):
    made = loss()
    if isinstance(made, list):
        held = made
        made = functools.partial(lambda output, target, held: held[0](output, target), held=held)
        place = "loss.held.0.mean"
    make(Checkpoint(tmp_path, every="1 step"), loss=made).fit(*batches(), epochs=2)
    told = [record.message for record in caplog.records if "not saved" in record.message]
    assert len(told) == 1
    assert told[0].startswith(f"{place}: changed while training, and not saved: a run that is resumed")


def test_a_rehearsal_tells_of_them_too_and_a_constant_is_nobodys_business(tmp_path, caplog):
    make(loss=Drifting()).dry_run(*batches())
    assert caplog.text.count("loss.mean: changed while training") == 1
    caplog.clear()
    weights = torch.tensor([1.0, 2.0, 1.0])
    make(Checkpoint(tmp_path), loss=lambda o, t: nn.functional.cross_entropy(o, t, weights)).fit(*batches(), epochs=2)
    make(Checkpoint(tmp_path / "kept"), loss=Kept()).fit(*batches(), epochs=2)
    assert "not saved" not in caplog.text
