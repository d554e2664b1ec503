"""`Trainer.test`: `evaluate` at the very end, of weights that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dlkit import Trainer
from dlkit.callbacks import EMA, Checkpoint
from dlkit.errors import ArgumentError
from dlkit.training import ReuseFeatures

TRAIN = [(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [2.0]]))]
TEST = [(torch.tensor([[3.0]]), torch.tensor([[5.0]]))]


def make(folder: Path | None = None, monitor: str = "val_loss", lr: float = 0.45, **settings: Any) -> Trainer:
    """A line that overshoots: with this rate the first step is the best one, and every later one is worse."""
    torch.manual_seed(0)
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.5)
    callbacks = [] if folder is None else [Checkpoint(folder, monitor, **settings.pop("checkpoint", {}))]
    optim = torch.optim.SGD(model.parameters(), lr)
    callbacks += settings.pop("callbacks", [])
    return Trainer(model, nn.MSELoss(), optim, callbacks=callbacks, device="cpu", metrics=["mae"], **settings)


def test_it_is_evaluate_under_other_names_and_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = make(tmp_path)
    trainer.fit(TRAIN, TRAIN, epochs=3)
    capsys.readouterr()
    tested = trainer.test(TEST)
    assert tested == {f"test_{name}": value for name, value in trainer.evaluate(TEST).items()}
    assert "test_loss " in (told := capsys.readouterr().err)
    assert "test_mae " in told
    assert "(the weights of step 1)" in told  # the best ones, which the fit has left
    assert "test_loss" not in trainer.history


@pytest.mark.parametrize("average", [False, True], ids=["weights", "average"])
@pytest.mark.parametrize("monitor", ["val_loss", "val_mae"])
def test_a_script_that_only_tests_takes_the_best_weights_of_the_folder(
    monitor: str, average: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = make(tmp_path, monitor, callbacks=[EMA(0.5)] if average else [])
    trained.fit(TRAIN, TRAIN, epochs=3)
    best = trained.test(TEST)
    capsys.readouterr()
    fresh = make(tmp_path, monitor)
    assert fresh.test(TEST) == best
    told = capsys.readouterr().err
    assert f"best ({monitor} " in told
    assert "weights restored, of step " in told
    assert torch.equal(fresh.model.weight, trained.model.weight)  # what was judged is what is left


def test_a_direction_that_rises_is_known_without_a_fit(tmp_path: Path) -> None:
    def classifier() -> Trainer:
        torch.manual_seed(0)
        model = nn.Linear(1, 2)
        optim = torch.optim.SGD(model.parameters(), 5.0)
        store = Checkpoint(tmp_path, "val_accuracy", keep_best=3, keep_last=3)
        return Trainer(
            model, nn.CrossEntropyLoss(), optim, metrics=["accuracy"], callbacks=[store], device="cpu", progress=False
        )

    data = [(torch.tensor([[-1.0], [1.0], [2.0]]), torch.tensor([1, 0, 1]))]
    trained = classifier()
    trained.fit(data, data, epochs=3)
    assert classifier().test(data)["test_accuracy"] == max(trained.history["val_accuracy"])


def test_without_a_fit_and_without_a_folder_the_model_is_judged_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert make().test(TEST)["test_mae"] == 3.5
    assert "(the weights of the model as it was given)" in capsys.readouterr().err


def test_weights_that_were_to_stay_are_those_that_are_tested(tmp_path: Path) -> None:
    trainer = make(tmp_path, checkpoint={"restore_best": False}, progress=False)
    trainer.fit(TRAIN, TRAIN, epochs=3)
    last = trainer.model.weight.clone()
    trainer.test(TEST)
    assert torch.equal(trainer.model.weight, last)


@pytest.mark.parametrize("value", [None, 1, "yes", ReuseFeatures], ids=["None", "1", "yes", "class"])
def test_a_setting_for_features_is_true_false_or_settings(value: Any) -> None:
    with pytest.raises(ArgumentError, match=r"^reuse_features must be True, False or a ReuseFeatures object, not "):
        make(reuse_features=value)


def test_settings_of_features_are_looked_at_where_they_are_made() -> None:
    with pytest.raises(ArgumentError, match=r"^views must be a whole number of at least 1, not 0"):
        ReuseFeatures(views=0)


def test_another_number_of_stored_views_is_told_at_a_resume(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, reuse_features=ReuseFeatures(views=2), progress=False).fit(TRAIN, epochs=1)
    make(tmp_path, reuse_features=ReuseFeatures(views=3), progress=False).fit(TRAIN, epochs=2)
    assert "stored views: saved 2, this script says 3; the new one holds" in caplog.text
