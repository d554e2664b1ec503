"""The model that is judged is the model that is left and saved: in every combination of callbacks and kinds of end."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import dlkit
from dlkit import Trainer
from dlkit.artifact import read_header
from dlkit.callbacks import EMA, Callback, Checkpoint, EarlyStopping, StopOnNaN
from dlkit.runs.checkpointfile import load_checkpoint

EPOCHS, STEPS = 3, 3  # steps per epoch


@dlkit.register("judged, for tests")
class Small(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def samples() -> TensorDataset:
    generator = torch.Generator().manual_seed(3)
    return TensorDataset(torch.randn(12, 3, generator=generator), torch.arange(12) % 2)


class End(Callback):
    """Ends the fit in the middle of its second epoch."""

    def __init__(self, how: str) -> None:
        self.how = how

    def on_step_end(self, run: Any) -> None:
        if run.step == STEPS + 2 and self.how != "completed":
            how, self.how = self.how, "completed"
            if how == "stopped":
                run.request_stop("test")
            elif how == "Ctrl-C":
                os.kill(os.getpid(), signal.SIGINT)
            elif how == "exception":
                raise ValueError("test")
            else:
                run.model[0].weight.data.fill_(float("nan"))


def make(folder: Path, *, ema: bool, store: str, stopping: bool, end: str, validate: bool) -> Trainer:
    torch.manual_seed(0)
    model = Small()
    callbacks: list[Callback] = [End("completed" if end == "early" else end)]
    callbacks += [EMA(0.6)] if ema else []
    callbacks += [Checkpoint(folder / "run", restore_best=store == "best")] if store != "none" else []
    callbacks += (
        [EarlyStopping("val_loss" if validate else "train_loss", patience=1, min_delta=9.0)] if stopping else []
    )  # after the second epoch
    callbacks += [StopOnNaN()] if end == "NaN" else []
    return Trainer(
        model,
        nn.CrossEntropyLoss(),
        torch.optim.SGD(model.parameters(), 0.5, momentum=0.9),
        callbacks=callbacks,
        device="cpu",
        progress=False,
    )


def fit(trainer: Trainer, end: str, *, validate: bool, epochs: int = EPOCHS) -> None:
    train, val = DataLoader(samples(), 4, shuffle=True), DataLoader(samples(), 5) if validate else None
    raises = end == "exception" and not trainer.history.rows
    with pytest.raises(ValueError, match="test") if raises else contextlib.nullcontext():
        trainer.fit(train, val, epochs=epochs)


def check(trainer: Trainer, path: Path) -> dict[str, float]:
    """`evaluate`, `predict`, the plain model and the file say the same; returns the metrics that the file names."""
    loader, (inputs, targets) = DataLoader(samples(), 5), samples().tensors
    values, predicted = trainer.evaluate(loader), trainer.predict(loader)
    with torch.no_grad():
        plain = trainer.model.eval()(inputs)
    trainer.model.train()
    torch.testing.assert_close(predicted, plain)
    assert values["loss"] == pytest.approx(float(nn.functional.cross_entropy(plain, targets)), rel=1e-5)
    trainer.save(path, task="classification", classes=["a", "b"], example=inputs)
    with torch.no_grad():
        torch.testing.assert_close(dlkit.load(path).model(inputs), plain)
    described = dict(read_header(path).document["metrics"])
    if "val_loss" in described:
        assert described["val_loss"] == values["loss"]
    return described


ENDS = ["completed", "early", "stopped", "Ctrl-C", "exception", "NaN"]
CASES = list(itertools.product([False, True], ["none", "last", "best"], [False, True], ENDS))


@pytest.mark.filterwarnings("ignore:the loss is nan in batch 1 of the evaluation")  # of the case that is about that
@pytest.mark.parametrize(("ema", "store", "validate", "end"), CASES)
def test_what_evaluate_says_is_what_the_file_gives(
    ema: bool, store: str, validate: bool, end: str, tmp_path: Path
) -> None:
    if end == "NaN" and store != "best":
        return  # then the weights are spoilt, and nothing was to bring others back
    trainer = make(tmp_path, ema=ema, store=store, stopping=end == "early", end=end, validate=validate)
    fit(trainer, end, validate=validate)
    described = check(trainer, tmp_path / "model.safetensors")
    history = trainer.history
    stays = store == "best" and validate  # the best is brought back
    at_a_row = stays or end in ("completed", "early")
    if at_a_row and validate:
        kept = min(history.rows, key=lambda row: row["val_loss"]) if stays else history.rows[-1]
        assert described["val_loss"] == kept["val_loss"]
    elif not at_a_row and end != "NaN":
        assert described == {}  # no row is of these weights
    if end in ("exception", "NaN", "early"):
        return
    # Training goes on from the raw weights, as if nothing had happened in between.
    whole = uninterrupted(ema, validate, store == "best" and validate)
    fit(trainer, end, validate=validate, epochs=EPOCHS + 1)
    assert without_time(trainer.history.rows) == without_time(whole.history.rows)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(trainer.model.state_dict()[name], value)
    if ema:
        assert all(torch.equal(left, raw) for left, raw in zip(raw_of(trainer), raw_of(whole), strict=True))


@functools.cache
def uninterrupted(ema: bool, validate: bool, best: bool) -> Trainer:
    with tempfile.TemporaryDirectory() as folder:
        store = "best" if best else "none"
        whole = make(Path(folder), ema=ema, store=store, stopping=False, end="completed", validate=validate)
        fit(whole, "completed", validate=validate, epochs=EPOCHS + 1)
    return whole


def raw_of(trainer: Trainer) -> list[Tensor]:
    assert trainer.run.trained is not None
    return list(trainer.run.trained.tensors.values())


def without_time(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if "time" not in name} for row in rows]


def test_a_new_process_with_nothing_to_train_leaves_the_same(tmp_path: Path) -> None:
    for store in ("last", "best"):
        folder = tmp_path / store
        first = make(folder, ema=True, store=store, stopping=False, end="completed", validate=True)
        fit(first, "completed", validate=True)
        again = make(folder, ema=True, store=store, stopping=False, end="completed", validate=True)
        fit(again, "completed", validate=True)
        for name, value in first.model.state_dict().items():
            assert torch.equal(again.model.state_dict()[name], value)
        assert check(again, tmp_path / "model.safetensors") == check(first, tmp_path / "model.safetensors")


def test_the_checkpoint_keeps_the_raw_weights(tmp_path: Path) -> None:
    trainer = make(tmp_path, ema=True, store="last", stopping=False, end="completed", validate=False)
    fit(trainer, "completed", validate=False)
    state = load_checkpoint(trainer.callbacks[2].last)  # type: ignore[attr-defined]
    raw = dict(zip(dict(trainer.model.named_parameters()), raw_of(trainer), strict=False))
    for name, value in raw.items():
        assert torch.equal(state["model"][name], value)
        assert torch.equal(state["eval_model"][name], trainer.model.state_dict()[name])


def test_rehearsals_between_two_fits_leave_no_trace(tmp_path: Path) -> None:
    loader = DataLoader(samples(), 4, shuffle=True)
    trainer, plain = (
        make(tmp_path, ema=True, store="none", stopping=False, end="completed", validate=True) for _ in "ab"
    )
    for each in (trainer, plain):
        fit(each, "completed", validate=True)
    before = trainer.evaluate(loader)
    trainer.dry_run(loader, loader)
    trainer.lr_find(loader, steps=3)
    assert trainer.evaluate(loader) == before
    for each in (trainer, plain):
        fit(each, "completed", validate=True, epochs=EPOCHS + 1)
    assert without_time(trainer.history.rows) == without_time(plain.history.rows)


def test_weights_that_the_user_loads_between_two_fits_are_trained_on(capsys: pytest.CaptureFixture[str]) -> None:
    trainer = make(Path(), ema=True, store="none", stopping=False, end="completed", validate=False)
    trainer.run.verbose = True
    fit(trainer, "completed", validate=False)
    with torch.no_grad():
        trainer.model[2].weight.zero_()  # type: ignore[index, operator]
    seen: list[Tensor] = []

    class Look(Callback):
        def on_fit_start(self, run: Any) -> None:
            seen.append(run.model[2].weight.detach().clone())

    trainer.callbacks.append(Look())
    fit(trainer, "completed", validate=False, epochs=EPOCHS + 1)
    assert not seen[0].any()
    assert "the model's weights were changed after the last fit" in capsys.readouterr().err


def test_buffers_that_no_file_holds_are_left_and_taken_back_too() -> None:
    class Counting(nn.Linear):
        def __init__(self) -> None:
            super().__init__(3, 2)
            self.register_buffer("offset", torch.zeros(()), persistent=False)

        def forward(self, inputs: Tensor) -> Tensor:
            if self.training:
                self.offset += 1
            return super().forward(inputs) + self.offset * torch.tensor([0.1, 0.0])

    model = Counting()
    trainer = Trainer(
        model, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), 0.1), callbacks=[EMA(0.5)], progress=False
    )
    loader = DataLoader(samples(), 4)
    history = trainer.fit(loader, loader, epochs=2)
    assert trainer.evaluate(loader)["loss"] == history["val_loss"][-1]
    assert float(model.offset) < 6
    trainer.fit(loader, loader, epochs=3)
    assert float(trainer.run.trained.tensors["offset"]) == 9
