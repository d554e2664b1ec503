"""The moving average equals one that is written by hand."""

from __future__ import annotations

import pytest
import torch
from feeding import Feed
from torch import nn

from dlkit import Trainer
from dlkit.callbacks import EMA, Callback
from dlkit.errors import ArgumentError
from dlkit.runs.checkpointfile import load_checkpoint, save_checkpoint


class ByHand(Callback):
    """The definition, parameter by parameter; the first average is the weights after the first step."""

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.average: dict[str, torch.Tensor] = {}

    def on_step_end(self, run) -> None:
        for name, value in run.model.state_dict().items():
            if name not in self.average:
                self.average[name] = value.clone()
            elif value.is_floating_point():
                self.average[name] = self.decay * self.average[name] + (1 - self.decay) * value


def test_the_average_of_a_real_training():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    batches = [(torch.randn(8, 3), torch.randint(0, 2, (8,))) for _ in range(6)]
    ema, by_hand = EMA(0.7), ByHand(0.7)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, callbacks=[ema, by_hand], progress=False, device="cpu")
    raw = [None]

    class Look(Callback):
        def on_log(self, run, row) -> None:
            raw[0] = {name: value.clone() for name, value in run.model.state_dict().items()}

    trainer.callbacks.append(Look())
    history = trainer.fit(batches, batches, epochs=2)
    average = trainer.run.eval_model.state_dict()
    for name, value in by_hand.average.items():
        if value.is_floating_point():
            torch.testing.assert_close(average[name], value)
            assert not torch.equal(average[name], raw[0][name])
    assert trainer.evaluate(batches)["loss"] == history["val_loss"][-1]
    model.load_state_dict(average)
    model.eval()
    with torch.no_grad():
        by_model = torch.stack([nn.functional.cross_entropy(model(x), y) for x, y in batches]).mean()
    assert history["val_loss"][-1] == pytest.approx(float(by_model), rel=1e-5)


def average_of(feed: Feed) -> float:
    return float(feed.run.eval_model.weight.detach()[0, 0])


@pytest.mark.parametrize("cut", [1, 2, 4])
def test_resumed_from_a_file(tmp_path, cut):
    expected = 1.0
    for weight in range(2, 7):
        expected = 0.75 * expected + 0.25 * weight
    whole = Feed(EMA(0.75)).start()([1] * 6)
    assert average_of(whole) == expected
    first = Feed(EMA(0.75)).start()([1] * cut)
    save_checkpoint(first.state(), tmp_path / "state.pt")
    second = Feed(EMA(0.75)).resume(load_checkpoint(tmp_path / "state.pt")).start()([1] * (6 - cut))
    assert average_of(second) == expected
    assert int(second.state()["callbacks"][0]["steps"]) == 6


def test_training_goes_on_with_the_raw_weights():
    run = Feed(EMA(0.9)).start()([1] * 3).run
    assert float(run.model.weight.detach()[0, 0]) == 3
    assert run.eval_model is not run.model


@pytest.mark.parametrize("decay", [0, 1, -0.1, 2, float("nan")])
def test_decays_that_cannot_be_meant(decay):
    with pytest.raises(ArgumentError, match="decay must lie between 0 and 1, not"):
        EMA(decay)


def test_a_dry_run_in_between_leaves_the_average_as_it_was():
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    batches = [(torch.randn(4, 2), torch.randn(4, 1))] * 3
    trainer = Trainer(
        model, nn.MSELoss(), torch.optim.SGD(model.parameters(), 0.1), callbacks=[EMA(0.5)], progress=False
    )
    trainer.fit(batches, batches, epochs=2)
    before = trainer.evaluate(batches)
    trainer.dry_run(batches, batches)
    assert trainer.evaluate(batches) == before
    whole = nn.Linear(2, 1)
    torch.manual_seed(0)
    whole.reset_parameters()
    other = Trainer(whole, nn.MSELoss(), torch.optim.SGD(whole.parameters(), 0.1), callbacks=[EMA(0.5)], progress=False)
    other.fit(batches, batches, epochs=4)
    trainer.fit(batches, batches, epochs=4)
    assert trainer.evaluate(batches) == other.evaluate(batches)
