"""Bad input is answered with an error that names the thing, says what was expected, and leaves nothing behind."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from dlkit import Trainer
from dlkit.callbacks import Callback, Checkpoint, ClipGradients, EarlyStopping, LearningRate
from dlkit.errors import ArgumentError, CheckpointError, DataError, DlkitError, ResumeError, TrainingError
from dlkit.metrics import Mean

X, CLASSES, NUMBERS = torch.randn(8, 3), torch.randint(0, 2, (8,)), torch.randn(8)


def trainer(loss: Any = None, *, out: int = 2, model: nn.Module | None = None, **settings: Any) -> Trainer:
    torch.manual_seed(0)
    model = nn.Linear(3, out) if model is None else model
    optim = settings.pop("optim", None) or torch.optim.SGD(model.parameters(), 0.1)
    return Trainer(model, loss or nn.CrossEntropyLoss(), optim, **{"device": "cpu", "progress": False, **settings})


def batches(target: Any, count: int = 2) -> list[Any]:
    return [(X, target)] * count


# ------------------------------------------------------------------------------------------------- making the Trainer


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "fp8"}, "precision must be one of fp32, bf16, fp16, not 'fp8'"),
        ({"accumulate": 0}, "accumulate must be a whole number of at least 1, not 0"),
        ({"metrics": ["acuracy"]}, "unknown metric 'acuracy'; do you mean 'accuracy'.* works too"),
        ({"metrics": [3]}, "3 is not a metric: it lacks update, compute and reset; give a name or an object"),
        ({"metrics": [len]}, "len.* is not a metric: .*; wrap it: dlkit.metrics.Mean"),
        ({"callbacks": [EarlyStopping]}, "callbacks: each is the class EarlyStopping; make an object of it: Early"),
        ({"callbacks": [print]}, "callbacks: each must be a dlkit.callbacks.Callback, not builtin_function"),
        ({"scheduler": 3}, "scheduler must be a scheduler of torch.optim.lr_scheduler, not int"),
        ({"optim": "sgd"}, "optimizer must be a torch.optim.Optimizer, such as .*, not str 'sgd'"),
        (
            {"optim": torch.optim.SGD(nn.Linear(3, 2).parameters(), 0.1)},
            r"the optimizer holds none of the model's parameters; make it from the model you train",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_arguments_that_cannot_be_meant(settings, message):
    with pytest.raises(ArgumentError, match=message):
        trainer(**settings)


def test_two_checkpoints(tmp_path):
    with pytest.raises(ArgumentError, match=r"two Checkpoints save into .*run; give each its own folder"):
        trainer(callbacks=[Checkpoint(tmp_path / "run"), Checkpoint(tmp_path / "other" / ".." / "run", "train_loss")])


def test_several_optimizers_without_a_step():
    model = nn.Linear(3, 2)
    optim = {"a": torch.optim.SGD([model.weight], 0.1), "b": torch.optim.SGD([model.bias], 0.1)}
    with pytest.raises(ArgumentError, match="2 optimizers need a step=function of your own that says which does what"):
        trainer(model=model, optim=optim)


def own_step(run, batch):
    loss = run.model(batch[0]).sum()
    loss.backward()
    run.optimizer.step()
    return loss


class Gradients(Callback):
    def on_gradients(self, run) -> None: ...


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"accumulate": 2},
            r"sees one batch, and accumulate=2 are .* called as step\(run\), and run.backward\(loss_of\)",
        ),
        ({"precision": "bf16"}, "a custom step handles precision itself"),
        ({"compile": True}, "a custom step calls the model itself: compile what it calls"),
        (
            {"callbacks": [ClipGradients()]},
            "ClipGradients works on gradients, which the Trainer never sees with a custom step",
        ),
        ({"callbacks": [Gradients()]}, "Gradients works on gradients, which the Trainer never sees with a custom step"),
        ({"callbacks": [LearningRate(warmup=3)]}, r"LearningRate\(warmup=3\) .* never sees with a custom step"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_a_step_of_ones_own_would_ignore_in_silence(settings, message):
    with pytest.raises(ArgumentError, match=message):
        trainer(step=own_step, **settings)


def test_a_schedule_without_warmup_fits_a_step_of_ones_own():
    model = nn.Linear(3, 2)
    optim = torch.optim.SGD(model.parameters(), 0.1)
    made = trainer(model=model, optim=optim, step=own_step, scheduler=torch.optim.lr_scheduler.StepLR(optim, 1))
    made.fit(batches(CLASSES))
    assert optim.param_groups[0]["lr"] == pytest.approx(0.01)


# ---------------------------------------------------------------------------------------------------- loss and shapes


@pytest.mark.parametrize(
    ("loss", "out", "target", "message"),
    [
        (
            nn.CrossEntropyLoss(reduction="none"),
            2,
            CLASSES,
            r"the loss returned \[8\] values instead of one number; use red",
        ),
        (lambda output, target: (output - 1).square(), 2, CLASSES, r"the loss returned \[8, 2\] values instead of one"),
        (lambda output, target: 3.0, 2, CLASSES, "the loss must be a tensor with one number, not float"),
        (
            nn.MSELoss(),
            1,
            NUMBERS,
            r"MSELoss needs output and target of one shape: the model gave \[8, 1\] float32, the ",
        ),
        (nn.L1Loss(), 1, NUMBERS, r"L1Loss needs .* the target is \[8\] float32; reshape one .* output.squeeze\(1\)"),
        (
            nn.HuberLoss(),
            2,
            NUMBERS[:, None],
            r"HuberLoss needs output and target of one shape: the model gave \[8, 2\]",
        ),
        (nn.SmoothL1Loss(), 1, NUMBERS, "SmoothL1Loss needs output and target of one shape"),
        (nn.BCEWithLogitsLoss(), 1, CLASSES.float(), "BCEWithLogitsLoss needs output and target of one shape"),
        (nn.BCELoss(), 1, CLASSES.float(), "BCELoss needs output and target of one shape"),
        (nn.functional.mse_loss, 1, NUMBERS, r"mse_loss needs output and target of one shape: the model gave \[8, 1\]"),
        (nn.functional.huber_loss, 1, NUMBERS, "huber_loss needs output and target of one shape"),
        (
            nn.CrossEntropyLoss(),
            2,
            CLASSES + 5,
            r"the model gave \[8, 2\] float32, the target is \[8\] int64: .*out of b",
        ),
        (nn.CrossEntropyLoss(), 2, CLASSES[:5], r"the model gave \[8, 2\] float32, the target is \[5\] int64: "),
        (nn.CrossEntropyLoss(), 2, CLASSES.float(), r"the target is \[8\] float32: .*"),
        (nn.CrossEntropyLoss(), 2, CLASSES[:, None], r"the target is \[8, 1\] int64: "),
        (
            nn.MSELoss(),
            1,
            ["a"] * 8,
            r"MSELoss needs output and target of one shape: .* the target is list of str, str, str, str, \.\.\.",
        ),
    ],
)
@pytest.mark.parametrize("stage", ["fit", "evaluate"])
def test_losses_that_do_not_fit(loss, out, target, message, stage):
    made = trainer(
        loss, out=out, model=nn.Sequential(nn.Linear(3, out), nn.Sigmoid()) if "BCELoss" in message else None
    )
    with pytest.raises(TrainingError, match=message):
        made.fit(batches(target)) if stage == "fit" else made.evaluate(batches(target))


class Root(nn.Module):
    """A loss of the user's own."""

    def forward(self, output, target):
        return (output - target).square().mean().sqrt()


class TwoHeads(nn.Module):
    """A mean and a variance, [N, 1] each."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        mean, log = self.layer(x).split(1, 1)
        return mean, log.exp()


def nll_of_two(output, target):
    return nn.functional.gaussian_nll_loss(output[0], target, output[1])


COUNTS = NUMBERS.abs().round()


@pytest.mark.parametrize(
    ("loss", "target", "name"),
    [
        (lambda o, t: (o - t).square().mean(), NUMBERS, "<lambda>"),
        (lambda o, t: (o - t).abs().mean(), CLASSES, "<lambda>"),  # whole numbers are spread just so
        (nn.PoissonNLLLoss(), COUNTS, "PoissonNLLLoss"),
        (nn.functional.poisson_nll_loss, COUNTS, "poisson_nll_loss"),
        (functools.partial(nn.functional.mse_loss, reduction="sum"), NUMBERS, "partial"),
        (nn.SoftMarginLoss(), NUMBERS.sign(), "SoftMarginLoss"),
        (Root(), NUMBERS, "Root"),
        (nll_of_two, NUMBERS, "nll_of_two"),
        (lambda o, t: nn.functional.gaussian_nll_loss(o["mean"], t, o["variance"]), NUMBERS, "<lambda>"),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_no_loss_spreads_a_column_against_a_row(loss, target, name):
    """[8, 1] against [8] is 64 differences for most losses, of which the mean says nothing."""
    model: nn.Module = nn.Linear(3, 1)
    if name == "nll_of_two":
        model = TwoHeads()
    elif isinstance(loss, type(lambda: 0)) and "gaussian_nll_loss" in loss.__code__.co_names:
        model = TwoHeads()
        model.register_forward_hook(lambda module, x, pair: {"mean": pair[0], "variance": pair[1]})
    made = trainer(loss, model=model)
    with pytest.raises(TrainingError, match=rf"{name} needs output and target of one shape: .*\[8, 1\].*is \[8\]") as e:
        made.fit(batches(target))
    assert "reshape one of them" in str(e.value)
    made.evaluate(batches(target[:, None]))


def test_losses_that_compare_other_shapes_on_purpose():
    """Quantiles, mean and variance in one output, classes: the numbers differ, so nothing can be spread by mistake."""
    quantiles = trainer(lambda o, t: torch.maximum(0.5 * (t[:, None] - o), o - t[:, None]).mean())
    quantiles.fit(batches(NUMBERS))
    trainer(lambda o, t: nn.functional.gaussian_nll_loss(o[:, 0], t, o[:, 1].exp())).fit(batches(NUMBERS))
    trainer(lambda o, t: nn.functional.cross_entropy(o, t)).fit(batches(CLASSES))
    trainer(nn.CrossEntropyLoss(), out=1).fit(batches(CLASSES * 0))


def test_a_loss_without_reduction_of_a_batch_of_one_is_one_number():
    made = trainer(nn.CrossEntropyLoss(reduction="none"))
    made.fit([(X[:1], CLASSES[:1])])


def test_a_batch_without_a_target():
    with pytest.raises(
        TrainingError, match=r"the batch has no target: it is \[8, 3\] float32; expected \(inputs, target\)"
    ):
        trainer().fit([X])
    with pytest.raises(
        TrainingError, match=r"the batch has no target: it is list of \[8, 3\] float32; .* pass loss=None"
    ):
        trainer().fit(DataLoader(TensorDataset(X), 8))
    with pytest.raises(TrainingError, match=r"it is \{x: \[8, 3\] float32, klass: \[8\] int64\}"):
        trainer().fit([{"x": X, "klass": CLASSES}])


def test_a_model_that_does_not_return_its_loss():
    model = nn.Linear(3, 2)
    made = Trainer(model, None, torch.optim.SGD(model.parameters(), 0.1), device="cpu", progress=False)
    with pytest.raises(TrainingError, match=r"the loss returned \[8, 2\] values instead of one number"):
        made.fit([X])


def test_a_step_of_ones_own_that_returns_nothing():
    with pytest.raises(TrainingError, match="the loss must be a tensor with one number, not NoneType"):
        trainer(step=lambda run, batch: None).fit(batches(CLASSES))


# ------------------------------------------------------------------------------------------------------------- loaders


class Nothing(IterableDataset):
    def __iter__(self):
        return iter(())


EMPTY = [
    [],
    DataLoader(TensorDataset(X[:0], CLASSES[:0]), 4),
    DataLoader(TensorDataset(X[:3], CLASSES[:3]), 4, drop_last=True),
    DataLoader(Nothing(), 4),
]


@pytest.mark.parametrize("loader", EMPTY, ids=["list", "dataset", "drop_last", "stream"])
def test_loaders_that_yield_nothing(loader, tmp_path):
    message = (
        r"the loader yielded no batch in epoch 1.*; is the dataset empty, or smaller than one batch with drop_last"
    )
    for call in (
        lambda: trainer(callbacks=[Checkpoint(tmp_path)]).fit(loader),
        lambda: trainer().dry_run(loader),
        lambda: trainer().overfit(loader, 2),
        lambda: trainer().lr_find(loader),
    ):
        with pytest.raises(DataError, match=message):
            call()
    assert list(tmp_path.glob("*.pt")) == []  # which would stand in the way of the corrected script
    with pytest.raises(TrainingError, match="the loader for the evaluation yielded no batch; is its dataset empty"):
        trainer().evaluate(loader)
    with pytest.raises(TrainingError, match="the loader for the evaluation yielded no batch; is its dataset empty"):
        trainer().fit(batches(CLASSES), loader)
    with pytest.raises(TrainingError, match="the loader yielded no batch to predict; is its dataset empty"):
        trainer().predict(loader)


@pytest.mark.parametrize("loader", [None, 5, nn.Linear(1, 1)], ids=lambda value: type(value).__name__)
def test_what_is_no_loader(loader):
    with pytest.raises(
        ArgumentError, match=r"expected a DataLoader or an iterable of batches, not (NoneType|int|Linear)"
    ):
        trainer().fit(loader)


def test_a_dataset_in_place_of_a_loader():
    """Its samples would be taken for batches."""
    with pytest.raises(ArgumentError, match=r"TensorDataset is a dataset.*DataLoader\(dataset, batch_size"):
        trainer().fit(TensorDataset(X, CLASSES))


def stream(count: int = 2):
    yield from batches(CLASSES, count)


def test_a_generator_is_used_up_after_one_epoch():
    with pytest.raises(ArgumentError, match="generator can be iterated only once, and this is epoch 2; pass an object"):
        trainer().fit(stream(), epochs=2)
    trainer().fit(stream(), epochs=1)


def test_a_generator_as_validation_data():
    with pytest.raises(
        ArgumentError, match="generator can be iterated only once, and this is the second time; pass an "
    ):
        trainer().fit(batches(CLASSES), stream(), epochs=2)
    assert len(trainer().fit(batches(CLASSES), stream(), epochs=1)["val_loss"]) == 1


class Broken(Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index):
        if index == 5:
            raise OSError("photo5.jpg is truncated")
        return X[index], CLASSES[index]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_that_cannot_be_read_names_its_batch(workers):
    with pytest.raises(OSError, match=r"photo5\.jpg is truncated") as caught:
        trainer().fit(DataLoader(Broken(), 4, num_workers=workers))
    told = str(caught.value) + "\n".join(getattr(caught.value, "__notes__", []))
    assert re.search(r"while fetching batch 1 of epoch 0, samples \[4, 5, 6, 7\]", told)


# ------------------------------------------------------------------------------------------------------------- fitting


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1, not 0"),
        ({"validate_every": "10 min"}, "validate_every in time would give other numbers on another machine"),
        ({"validate_every": "often"}, "'often' is not an interval; write 'epoch', '2 epochs', '500 steps'"),
        ({"validate_every": "0 steps"}, "'0 steps' is not an interval"),
    ],
)
def test_fit_arguments_that_cannot_be_meant(settings, message):
    with pytest.raises(ArgumentError, match=message):
        trainer().fit(batches(CLASSES), **settings)


def test_nothing_to_resume(tmp_path):
    with pytest.raises(CheckpointError, match="resume=True, but there is nothing to resume in"):
        trainer(callbacks=[Checkpoint(tmp_path)]).fit(batches(CLASSES), resume=True)
    with pytest.raises(CheckpointError, match="nothing to resume because there is no Checkpoint callback"):
        trainer().fit(batches(CLASSES), resume=True)
    with pytest.raises(CheckpointError, match=r"there is no checkpoint file at .*missing\.pt"):
        trainer().fit(batches(CLASSES), resume=tmp_path / "missing.pt")


def test_starting_anew_needs_new_weights(tmp_path):
    """A second `fit(resume=False)` in a notebook would otherwise call trained weights a fresh start."""
    made = trainer(callbacks=[Checkpoint(tmp_path)])
    made.fit(batches(CLASSES))
    with pytest.raises(
        ArgumentError, match=r"this Trainer has trained 2 steps already.*make a new model, optimizer and"
    ):
        made.fit(batches(CLASSES), resume=False)
    assert len(list(tmp_path.glob("*.pt"))) == 1  # nothing was moved aside


@pytest.mark.parametrize("name", ["val_accuracy", "val_loss", "val_acc"])
def test_monitoring_what_nobody_measures(name, tmp_path):
    message = rf"nothing measures '{name}' \(give `fit` validation data\); there are train_loss"
    for callback in (
        EarlyStopping(name),
        Checkpoint(tmp_path / "run", name) if name != "val_loss" else EarlyStopping(),
    ):
        with pytest.raises(ArgumentError, match=message):
            trainer(callbacks=[callback]).fit(batches(CLASSES))
    assert list(tmp_path.rglob("*.pt")) == []


class Odd:
    """A metric that does not say in which direction it gets better."""

    def __init__(self, values: int = 1) -> None:
        self.values, self.count = values, 0

    def update(self, preds, target) -> None:
        self.count += len(target)

    def compute(self):
        return torch.full((self.values,), self.count)

    def reset(self) -> None:
        self.count = 0


def test_monitoring_a_metric_without_a_direction():
    settings = {"metrics": {"odd": Odd()}, "callbacks": [EarlyStopping("val_odd")]}
    with pytest.raises(
        ArgumentError, match="'val_odd' does not say whether more is better; pass mode='max' or mode='min'"
    ):
        trainer(**settings).fit(batches(CLASSES), batches(CLASSES))
    settings["callbacks"] = [EarlyStopping("val_odd", mode="max")]
    assert trainer(**settings).fit(batches(CLASSES), batches(CLASSES))["val_odd"] == [16]


def test_metrics_that_do_not_fit():
    with pytest.raises(
        TrainingError, match=r"metric 'accuracy' could not take a batch: predictions \[8, 2\] float32, "
    ):
        trainer(lambda o, t: o.mean(), metrics=["accuracy"]).evaluate(batches(CLASSES[:5]))
    with pytest.raises(
        TrainingError,
        match=r"metric 'accuracy' could not take a batch.* needs one tensor of predictions and one of targets, not Ten",
    ):
        trainer(lambda o, t: o.mean(), metrics=["accuracy"]).evaluate([(X, ["a"] * 8)])
    with pytest.raises(TrainingError, match=r"metric 'odd' gave \[2\] values instead of one number; .*average"):
        trainer(metrics=[Odd(values=2)]).evaluate(batches(CLASSES))
    strange = Mean(lambda preds, target: preds[0], higher_is_better=True)
    with pytest.raises(TrainingError, match="metric 'mean' could not take a batch"):
        trainer(metrics=[strange]).evaluate(batches(CLASSES))


def test_state_that_could_not_be_loaded_is_refused_before_it_is_needed(tmp_path):
    class Strange(Callback):
        def state_dict(self):
            return {"when": np.array([1.0]), "where": Path("/tmp")}

    message = r"state\['callbacks'\]\['Strange'\]\['when'\] is a numpy.ndarray, which cannot be loaded without running"
    for call in (
        lambda: trainer(callbacks=[Strange()]).dry_run(batches(CLASSES)),
        lambda: trainer(callbacks=[Strange(), Checkpoint(tmp_path, background=False)]).fit(batches(CLASSES)),
        lambda: trainer(callbacks=[Strange(), Checkpoint(tmp_path)]).fit(batches(CLASSES)),
    ):
        with pytest.raises(CheckpointError, match=message):
            call()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 3}, r"data, batch size: saved 4, now 3"),
        ({"samples": 7}, r"data, samples: saved 8, now 7"),
        ({"out": 3}, r"model, weight: saved \[2, 3\], now \[3, 3\]"),
        ({"optim": torch.optim.Adam}, r"optimizer: saved SGD, now Adam"),
        ({"accumulate": 2}, r"accumulate: saved 1, now 2"),
    ],
    ids=str,
)
def test_a_run_that_no_longer_fits(tmp_path, change, message):
    def fit(epochs: int, batch_size: int = 4, samples: int = 8, out: int = 2, optim: Any = torch.optim.SGD, **settings):
        model = nn.Linear(3, out)
        made = trainer(model=model, optim=optim(model.parameters(), 0.1), callbacks=[Checkpoint(tmp_path)], **settings)
        return made.fit(DataLoader(TensorDataset(X[:samples], CLASSES[:samples]), batch_size), epochs=epochs)

    fit(1)
    with pytest.raises(ResumeError, match=message) as caught:
        fit(2, **change)
    assert "use the script as it was, another folder, or fit(..., resume=False)" in str(caught.value)
    assert isinstance(caught.value, DlkitError)
    fit(2)  # and the run is still good
