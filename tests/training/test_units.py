"""A regression on a scaled target reports errors and predictions in the target's own unit, everywhere."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

import dlkit
from dlkit import Trainer
from dlkit.callbacks import CSVLogger
from dlkit.cli import app
from dlkit.datasets import CSVDataset
from dlkit.errors import TrainingError
from dlkit.metrics import Mean
from dlkit.models import TabularMLP
from dlkit.recipes import evaluate_file, train

METRICS = ["mae", "mse", "r2", "rmse"]


def frame(rows: int = 60) -> pd.DataFrame:
    x = np.random.default_rng(0).normal(size=(rows, 2))
    return pd.DataFrame({"x": x[:, 0], "z": x[:, 1], "price": 5_000 + 700 * x[:, 0] + 50.5 * x[:, 1] ** 2})


def trainer_of(model: nn.Module, loss: Any = None, **settings: Any) -> Trainer:
    settings = {"metrics": METRICS, **settings}
    optim = torch.optim.Adam(model.parameters(), 0.05)
    return Trainer(model, loss or nn.MSELoss(), optim, progress=False, device="cpu", **settings)


def fitted(target: Any = "price", loss: Any = None, **settings: Any) -> tuple[Trainer, CSVDataset, CSVDataset]:
    torch.manual_seed(0)
    whole = frame().assign(rent=lambda f: f.price / 100 + f.z)
    whole = whole.drop(columns=[] if "rent" in target else "rent")
    parts = CSVDataset.split(whole, target=target, fractions=0.7)
    trainer = trainer_of(TabularMLP(parts[0].spec, hidden=[8]), loss, **settings)
    trainer.fit(DataLoader(parts[0], 8, shuffle=True), DataLoader(parts[1], 7), epochs=3)
    return trainer, *parts


def expected(truth: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    off = predictions.reshape(truth.shape) - truth
    columns = np.square(off).sum(0) / np.square(truth - truth.mean(0)).sum(0)
    mse = float(np.square(off).mean())
    return {"mae": float(np.abs(off).mean()), "mse": mse, "r2": float((1 - columns).mean()), "rmse": mse**0.5}


@pytest.mark.parametrize("target", ["price", ["price", "rent"]], ids=str)
def test_history_evaluation_prediction_and_file_agree_in_the_unit_of_the_table(target, tmp_path):
    log = tmp_path / "history.csv"
    trainer, _, val = fitted(target, callbacks=[CSVLogger(log)])
    loader = DataLoader(val, 7)
    truth = val.to_pandas()[target].to_numpy()
    predictions = trainer.predict(loader)
    assert predictions.dtype == torch.float32
    assert predictions.mean() > 1_000 * (target == "price")
    want = pytest.approx(expected(truth, predictions.double().numpy()), rel=1e-5)
    values = trainer.evaluate(loader)
    assert {name: values[name] for name in METRICS} == want
    assert {name: trainer.history[f"val_{name}"][-1] for name in METRICS} == want
    assert pd.read_csv(log)["val_rmse"].iloc[-1] == pytest.approx(values["rmse"])
    # The loss stays what it says: of the scaled values.
    bare = trainer.predict(loader, scaled=True)
    assert values["loss"] == pytest.approx(float((bare.reshape(val.targets.shape) - val.targets).square().mean()))
    torch.testing.assert_close(val.unscale_target(bare), predictions)
    file = dlkit.load(trainer.save(tmp_path / "model.safetensors"))
    again = file.evaluate(val)
    assert (again["mae"], again["rmse"]) == pytest.approx((values["mae"], values["rmse"]), rel=1e-4)
    table = val.to_pandas()
    np.testing.assert_allclose(file.predict(table)[target], predictions.reshape(truth.shape), rtol=1e-5)
    assert trainer.run.history["val_mae"][-1] == pytest.approx(file.info["metrics"]["val_mae"])


def test_wrappers_lists_and_an_untrained_model_say_the_same():
    """A list of batches says nothing of its unit; the run does, by its data or its model."""
    trainer, _, val = fitted()
    values = trainer.evaluate(DataLoader(val, 7))
    batches = [(val.numeric[:9], val.targets[:9]), (val.numeric[9:], val.targets[9:])]
    for data in (DataLoader(Subset(val, range(len(val))), 4), batches):
        assert trainer.evaluate(data) == pytest.approx(values, rel=1e-5)
    torch.testing.assert_close(trainer.predict(batches), trainer.predict(DataLoader(val, 5)))
    fresh = trainer_of(trainer.model)
    assert fresh.evaluate(batches) == pytest.approx(values, rel=1e-5)
    plain = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
    known_by_data = trainer_of(plain)
    assert known_by_data.evaluate(DataLoader(val, 7))["mae"] > 100
    assert known_by_data.evaluate(batches)["mae"] < 100  # where nobody knows, numbers stay what they are


def test_functions_and_objects_get_the_same_unit():
    off = Mean(lambda preds, target: (preds - target).abs().mean(), higher_is_better=False)
    trainer, _, val = fitted(metrics={"own": off, "mae": "mae"})
    values = trainer.evaluate(DataLoader(val, 7))
    assert values["own"] == pytest.approx(values["mae"], rel=1e-9)


def test_an_unscaled_target_stays_as_it_is():
    data = CSVDataset(frame(), target="price", scale_target=False)
    trainer = trainer_of(TabularMLP(data.spec, hidden=[4]))
    loader = DataLoader(data, 16)
    assert torch.equal(trainer.predict(loader), trainer.predict(loader, scaled=True))
    values = trainer.evaluate(loader)
    assert values["mse"] == pytest.approx(values["loss"], rel=1e-5)


def test_a_unit_that_float32_cannot_tell_apart(tmp_path):
    """Around 10**9 float32 knows every 64th number: errors of 3 would be 0, and all predictions the same."""
    data = CSVDataset(frame().assign(price=lambda f: 1e9 + f.price / 100), target="price")
    trainer = trainer_of(TabularMLP(data.spec, hidden=[4]))
    loader = DataLoader(data, 16)
    trainer.fit(loader, loader)
    truth = data.to_pandas()["price"].to_numpy()
    predictions = trainer.predict(loader)
    assert predictions.dtype == torch.float64
    want = expected(truth - 1e9, predictions.numpy() - 1e9)
    values, file = trainer.evaluate(loader), dlkit.load(trainer.save(tmp_path / "model.safetensors"))
    assert {name: values[name] for name in METRICS} == pytest.approx(want, rel=1e-3)
    found = file.evaluate(data)
    assert (found["mae"], found["rmse"]) == pytest.approx((want["mae"], want["rmse"]), rel=1e-3)
    np.testing.assert_allclose(file.predict(data.to_pandas())["price"] - 1e9, predictions - 1e9, atol=1e-3)


class MeanAndVariance(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(x)


def gaussian(output, target):
    return nn.functional.gaussian_nll_loss(output[:, 0], target, output[:, 1].exp())


def test_an_output_of_unknown_unit_is_refused_not_reported():
    data = CSVDataset(frame(), target="price")
    loader = DataLoader(data, 16)
    trainer = trainer_of(MeanAndVariance(), gaussian)
    message = r"of an output \[16, 2\] float32 for a target \[16\] float32 the unit is not known; .*scale_target=False"
    with pytest.raises(TrainingError, match=message):
        trainer.evaluate(loader)
    with pytest.raises(
        TrainingError, match=r"outputs \[60, 2\] float32 the unit is not known; predict\(..., scaled=Tr"
    ):
        trainer.predict(loader)
    assert trainer.predict(loader, scaled=True).shape == (60, 2)
    silent = trainer_of(MeanAndVariance(), gaussian, metrics=())
    silent.fit(loader, loader)
    assert list(silent.evaluate(loader)) == ["loss"]


def test_counts_by_their_logarithm_need_an_unscaled_target():
    data = CSVDataset(frame(), target="price")
    trainer = trainer_of(TabularMLP(data.spec, hidden=[4]), nn.PoissonNLLLoss())
    with pytest.raises(TrainingError, match=r"interprets the output as the logarithm of a count, .*scale_target=False"):
        trainer.fit(DataLoader(data, 16))
    assert trainer.run.step == 0


def test_a_model_that_returns_its_loss_is_read_by_its_logits():
    data = CSVDataset(frame(), target="price")

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 1)

        def forward(self, inputs, labels=None):
            logits = self.layer(inputs).squeeze(1)
            return SimpleNamespace(loss=None if labels is None else (logits - labels).square().mean(), logits=logits)

    own = Own()
    trainer = Trainer(own, None, torch.optim.SGD(own.parameters(), 0.1), metrics=["mae"], progress=False, device="cpu")
    batches = [{"inputs": data.numeric, "labels": data.targets}]
    trainer.run.data = data
    truth = data.to_pandas()["price"].to_numpy()
    predictions = data.unscale_target(own(data.numeric).logits.detach()).double().numpy()
    assert trainer.evaluate(batches)["mae"] == pytest.approx(np.abs(predictions - truth).mean(), rel=1e-5)


@pytest.mark.filterwarnings("ignore:.* equal one that the model was trained on")
def test_the_recipe_and_the_command_line_speak_of_one_unit(tmp_path, capsys):
    file = tmp_path / "prices.csv"
    frame(120).to_csv(file, index=False)
    trained = train(file, target="price", epochs=3, lr=1e-2, out=tmp_path / "run", progress=False, device="cpu")
    val = dlkit.load(trained.path).evaluate(trained.data.val)
    kept = pd.read_csv(tmp_path / "run" / "history.csv")
    best = kept.loc[kept["val_loss"].idxmin()]
    assert (best["val_mae"], best["val_rmse"]) == pytest.approx((val["mae"], val["rmse"]), rel=1e-4)
    test = dlkit.load(trained.path).evaluate(trained.data.test)
    assert (trained.metrics["mae"], trained.metrics["rmse"]) == pytest.approx((test["mae"], test["rmse"]), rel=1e-4)
    with pytest.raises(SystemExit):
        app(["evaluate", str(trained.path), str(file), "--json"], prog_name="dlkit")
    told, whole = json.loads(capsys.readouterr().out), evaluate_file(trained.path, file)
    assert (told["mae"], told["rmse"]) == pytest.approx((whole["mae"], whole["rmse"]))
    assert whole["mae"] > 10  # and not some tenths of a standard deviation
