"""`eval_step=`: what a batch is worth by a function of the user's own; and what a Trainer shows of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dlkit import Trainer
from dlkit.callbacks import EMA, Checkpoint, EarlyStopping
from dlkit.errors import ArgumentError, TrainingError

X, Y = torch.randn(10, 3), torch.randn(10, 3)
TRAIN, VAL = DataLoader(TensorDataset(X, Y), 4), DataLoader(TensorDataset(X, Y), 4)  # batches of 4, 4 and 2


def step(run: Any, batch: Any) -> torch.Tensor:
    loss = (run.model(batch[0]) - batch[1]).square().mean()
    run.optimizer.zero_grad()
    loss.backward()
    run.optimizer.step()
    return loss


def eval_step(run: Any, batch: Any) -> dict[str, Any]:
    assert not run.eval_model.training
    assert not torch.is_grad_enabled()
    off = run.eval_model(batch[0]) - batch[1]
    return {"loss": off.square().mean(), "worst": float(off.abs().max()), "draw": torch.rand(())}


def trainer(*callbacks: Any, **settings: Any) -> Trainer:
    torch.manual_seed(1)
    model = nn.Linear(3, 3)
    given = {"step": step, "eval_step": eval_step, "progress": False, "device": "cpu", **settings}
    return Trainer(model, None, torch.optim.SGD(model.parameters(), 0.1), callbacks=callbacks, **given)


def test_named_values_are_means_over_samples() -> None:
    one = trainer()
    row = one.fit(TRAIN, VAL, epochs=1).rows[-1]
    off = (one.model(X) - Y).detach()
    assert row["val_loss"] == pytest.approx(float(off.square().mean()))
    worst = [float(part.abs().max()) for part in off.split(4)]
    assert row["val_worst"] == pytest.approx((4 * worst[0] + 4 * worst[1] + 2 * worst[2]) / 10)
    assert one.evaluate(VAL)["worst"] == pytest.approx(row["val_worst"])
    by_batches = trainer(count=lambda batch: 1)
    assert by_batches.fit(TRAIN, VAL, epochs=1)["val_worst"][0] == pytest.approx(sum(worst) / 3)


def test_it_works_beside_a_standard_step() -> None:
    model = nn.Linear(3, 3)
    optim = torch.optim.SGD(model.parameters(), 0.1)
    one = Trainer(model, nn.MSELoss(), optim, eval_step=lambda run, batch: len(batch[0]), progress=False)
    assert one.fit(TRAIN, VAL, epochs=1)["val_loss"] == [pytest.approx((16 + 16 + 4) / 10)]


def test_early_stopping_and_the_best_checkpoint_watch_a_named_value(tmp_path: Path) -> None:
    callbacks = [EarlyStopping("val_worst", patience=1, mode="max"), Checkpoint(tmp_path, "val_worst", mode="min")]
    one = trainer(*callbacks)
    history = one.fit(TRAIN, VAL, epochs=9)
    assert len(history.rows) < 9
    assert one.evaluate(VAL)["worst"] == pytest.approx(min(history["val_worst"]))
    with pytest.raises(ArgumentError, match=r"nothing measures 'val_worst'.*eval_step returns needs mode='max'"):
        trainer(EarlyStopping("val_worst")).fit(TRAIN, VAL)
    with pytest.warns(UserWarning, match="looks at 'val_wrost', which the validation did not measure"):
        trainer(EarlyStopping("val_wrost", mode="max")).fit(TRAIN, VAL)


def test_a_resumed_run_writes_the_same_rows(tmp_path: Path) -> None:
    whole = trainer(EMA(0.5)).fit(TRAIN, VAL, epochs=3).rows
    trainer(EMA(0.5), Checkpoint(tmp_path)).fit(TRAIN, VAL, epochs=1)
    assert trainer(EMA(0.5), Checkpoint(tmp_path)).fit(TRAIN, VAL, epochs=3).rows == whole


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"metrics": ["mae"]}, ArgumentError, "let it return them as named numbers"),
        ({"eval_step": 3}, ArgumentError, r"eval_step must be something that is called as eval_step\(run, batch\)"),
        ({"eval_step": lambda run, batch: batch[0]}, TrainingError, "batch 1 of the evaluation"),
    ],
    ids=["metrics", "number", "tensor"],
)
def test_what_cannot_be_meant(settings: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        trainer(**settings).fit(TRAIN, VAL)


# --------------------------------------------------------------------------------------------------------- summary


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.head = nn.Linear(4, 3)
        self.tied = self.body[0]
        self.body.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def test_a_summary_names_shapes_parameters_and_what_learns() -> None:
    model = Two()
    one = Trainer(model, nn.MSELoss(), torch.optim.SGD(model.head.parameters(), 0.1), device="cpu", progress=False)
    before, stream = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    found = one.summary(TRAIN)
    rows = {layer.name: (layer.kind, layer.output, layer.parameters, layer.learns) for layer in found.layers}
    assert rows["body.0"] == ("Linear", "[4, 4] float32", 16, "no")
    assert rows["head"] == ("Linear", "[4, 3] float32", 15, "yes")
    assert (found.parameters, found.trainable) == (16 + 8 + 15, 15)
    assert [layer.name for layer in one.summary(depth=1).layers] == ["", "body", "head"]
    assert {layer.name: layer.parameters for layer in one.summary(depth=1).layers}["body"] == 24
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(stream, torch.get_rng_state())
    assert model.training
    assert not model.head._forward_hooks
    assert "39 parameters, 15 learn, 24 do not" in str(found)
    assert "<td>body: Sequential</td>" in found._repr_html_()


def test_a_trainer_says_what_it_trains() -> None:
    one = trainer()
    told = "Trainer(model Linear of 12 parameters, learning 12, loss of the model, optimizer SGD at 0.1"
    assert repr(one).startswith(told)
    one.fit(TRAIN, VAL)
    assert "<td>step</td>" in one._repr_html_()
    assert '<th scope="col">val_worst</th>' in one._repr_html_()
