"""A loss that is NaN or infinite is said once, with step and samples, in every kind of training, without a callback."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from dlkit import Trainer
from dlkit.callbacks import Callback, Checkpoint, StopOnNaN
from dlkit.training.sources import source_of


class Numbers(Dataset):
    """Forty samples, some of which spoil a mean squared error."""

    def __init__(self, spoilt: dict[int, float]) -> None:
        self.spoilt = spoilt

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index):
        return torch.ones(2) * index / 40, torch.tensor([self.spoilt.get(index, 1.0)])


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.at = step

    def on_step_end(self, run) -> None:
        if run.step == self.at:
            run.request_stop("later")


def own_step(run, batch):
    loss = nn.functional.mse_loss(run.model(batch[0]), batch[1])
    return {"zero": loss.detach() * 0 if loss.isfinite() else torch.zeros(()), "fit": loss}


def fit(spoilt: dict[int, float], *callbacks: Callback, val: dict[int, float] | None = None, **settings: Any):
    """Every warning of a fit, and the trainer."""
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    epochs = settings.pop("epochs", 2)
    optim = torch.optim.SGD(model.parameters(), 0.0)  # the weights stay good, so each epoch has the same bad batch
    settings = {"progress": False, "device": "cpu", **settings}
    trainer = Trainer(model, nn.MSELoss(), optim, callbacks=callbacks, **settings)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(DataLoader(Numbers(spoilt), 4), None if val is None else DataLoader(Numbers(val), 4), epochs=epochs)
    return [str(warning.message) for warning in caught], trainer


SAID = "the loss became {} at step 3, epoch 1, batch 3 (samples 8, 9, 10, 11); training continues: "


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_it_is_said_once_with_step_and_samples(value):
    (said,), trainer = fit({10: value, 20: value})
    assert said.startswith(SAID.format("nan" if value != value else "inf"))
    assert "StopOnNaN() ends a run there" in said
    assert trainer.run.step == 20  # without a callback the training continues


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        (
            {"accumulate": 2},
            "the loss became nan at step 2, epoch 1, batch 3, 4 (samples 8, 9, 10, 11, 12, 13, 14, 15)",
        ),
        ({"step": own_step}, "the fit became nan at step 3, epoch 1, batch 3 (samples 8, 9, 10, 11)"),
        ({"progress": True}, "the loss became nan at step 3, epoch 1, batch 3 (samples 8, 9, 10, 11)"),
        ({"precision": "bf16"}, "the loss became nan at step 3, epoch 1, batch 3 (samples 8, 9, 10, 11)"),
    ],
)
def test_in_every_kind_of_step(settings, place):
    (said,), _ = fit({10: float("nan")}, **settings)
    assert said.startswith(f"{place}; ")


def test_a_resumed_run_says_the_step_of_the_whole_run(tmp_path):
    said, _ = fit({30: float("nan")}, Checkpoint(tmp_path, every="1 steps", restore_best=False), StopAt(5))
    assert said == []
    (said,), trainer = fit({30: float("nan")}, Checkpoint(tmp_path, every="1 steps", restore_best=False))
    assert said.startswith("the loss became nan at step 8, epoch 1, batch 8 (samples 28, 29, 30, 31); ")
    assert trainer.run.step == 20


def test_stop_on_nan_stops_and_says_it_alone():
    said, trainer = fit({10: float("nan")}, StopOnNaN())
    assert said == []
    assert trainer.run.stop_reason.startswith("the loss became nan at step 3, epoch 1, batch 3 (samples 8, 9, 10, 11);")
    assert trainer.run.step == 10  # the losses are read at the end of the epoch


def test_a_validation_names_its_batch_once_for_all_epochs():
    (said,), _ = fit({}, val={10: float("nan")}, epochs=3)
    assert said.startswith("the loss is nan in batch 3 of the evaluation (samples 8, 9, 10, 11): ")


def test_so_does_an_evaluation():
    _, trainer = fit({})
    with pytest.warns(UserWarning, match=r"the loss is nan in batch 3 of the evaluation \(samples 8, 9, 10, 11\)"):
        trainer.evaluate(DataLoader(Numbers({10: float("nan")}), 4))


def test_a_batch_without_any_target_is_no_fault():
    """The mean of nothing is NaN, and counts nothing."""
    model = nn.Linear(2, 3)
    optim = torch.optim.SGD(model.parameters(), 0.1)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim, device="cpu", progress=False)
    batches = [(torch.ones(2, 2), torch.tensor([0, 1])), (torch.ones(2, 2), torch.tensor([-100, -100]))]
    assert trainer.evaluate(batches)["loss"] == trainer.evaluate(batches[:1])["loss"]


def test_nothing_is_known_of_the_samples_of_a_stream():
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    trainer = Trainer(model, nn.MSELoss(), torch.optim.SGD(model.parameters(), 0.1), device="cpu", progress=False)
    source = source_of(DataLoader(Numbers({5: float("nan")}), 4), 0)
    with pytest.warns(UserWarning, match=r"the loss became nan at step 2, epoch 1, batch 2; training continues"):
        trainer.fit(list(source.batches(0)))


def test_a_loss_is_read_no_oftener_than_before():
    """Sixty-four at a time: no step waits for the device."""
    reads = []

    class Watch(Callback):
        def on_fit_start(self, run) -> None:
            run.losses.watchers.append(lambda first, values: reads.append((first, len(values["loss"]))))

    fit({}, Watch(), epochs=13)
    assert reads == [(10 * epoch, 10) for epoch in range(13)]
