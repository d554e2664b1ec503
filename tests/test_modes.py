"""Modules that act when their mode changes do so wherever dlkit changes it: merged adapters, caches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import dlkit
from dlkit import Trainer
from dlkit._modes import in_mode
from dlkit.transfer import freeze, unfreeze
from dlkit.transfer._trace import run_trace


class Adapter(nn.Module):
    """A linear layer with a low-rank update that is merged into the weight in eval mode, as loralib and PEFT do it.

    Its forward complains where its mode was changed behind its back.
    """

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(width))
        self.down, self.up = nn.Parameter(torch.ones(1, width)), nn.Parameter(torch.full((width, 1), 0.5))
        self.merged = False

    def train(self, mode: bool = True) -> Adapter:
        super().train(mode)
        if mode == self.merged:
            self.weight.data += (self.up @ self.down).detach() * (-1 if mode else 1)
            self.merged = not mode
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        assert self.merged is not self.training, "the mode was changed without a call"
        low = 0 if self.merged else inputs @ self.down.T @ self.up.T
        return inputs @ self.weight.T + low


@dlkit.register("adapted, for tests")
class Adapted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = Adapter(), Adapter(), nn.Linear(4, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.second(self.first(inputs)))


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def data(batches: int = 2) -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    return [(torch.randn(4, 4), torch.randint(0, 2, (4,))) for _ in range(batches)]


def plain(model: Adapted, inputs: Tensor) -> Tensor:
    for adapter in (model.first, model.second):
        whole = adapter.weight if adapter.merged else adapter.weight + adapter.up @ adapter.down
        inputs = inputs @ whole.T
    return model.head(inputs)


@pytest.mark.parametrize("training", [True, False])
def test_every_module_gets_its_own_mode_back_by_a_call(training: bool) -> None:
    shared = Adapter()
    model = nn.Sequential(nn.Sequential(shared, nn.Dropout()), nn.Sequential(nn.Dropout(), shared), Adapted())
    for mask in range(64):
        for place, module in enumerate([*model, shared, model[2].first, model[2].head]):
            module.train(bool(mask >> place & 1))
        before, merged = modes(model), [module.merged for module in model.modules() if isinstance(module, Adapter)]
        with in_mode(model, training=training):
            assert modes(model) == [training] * len(before)
            model(torch.ones(2, 4))
        assert modes(model) == before
        assert [module.merged for module in model.modules() if isinstance(module, Adapter)] == merged


def test_training_validation_prediction_and_the_file_call_the_modules(tmp_path: Path) -> None:
    model, batches = Adapted(), data()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, metrics=["accuracy"], progress=False, device="cpu")
    trainer.dry_run(batches, batches)
    history = trainer.fit(batches, batches, epochs=2)
    trainer.lr_find(batches, steps=3)
    assert not model.first.merged
    assert history["val_loss"][-1] == trainer.evaluate(batches)["loss"]
    torch.testing.assert_close(trainer.predict([batches[0]]), plain(model, batches[0][0]))
    trainer.save(tmp_path / "adapted.safetensors", task="classification", classes=["a", "b"], example=batches[0][0])
    again = dlkit.load(tmp_path / "adapted.safetensors").model
    torch.testing.assert_close(again(batches[0][0]), plain(model, batches[0][0]))


def test_following_a_model_neither_merges_its_weights_nor_misses_a_parameter() -> None:
    model = Adapted().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for training in (True, False):
        run_trace(model, torch.zeros(2, 4, device="meta"), training=training)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert not model.first.merged


def test_a_frozen_adapter_acts_as_in_eval_mode_and_comes_back() -> None:
    model, inputs = Adapted().train(), data()[0][0]
    freeze(model)
    for mode in (True, False, True):
        model.train(mode)
        assert model.first.merged
        assert model.head.training is mode
        torch.testing.assert_close(model(inputs), plain(model, inputs))
    with in_mode(model, training=False):
        model(inputs)
    unfreeze(model)
    assert modes(model) == [True] * len(modes(model))
    assert not model.first.merged
    torch.testing.assert_close(model(inputs), plain(model, inputs))


def test_the_mode_of_a_frozen_model_outlives_an_evaluation() -> None:
    """What `train` was last asked for is what the parts go back to when they are unfrozen."""
    model = freeze(nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.ReLU(), nn.Linear(4, 2))).train()
    with in_mode(model, training=False):
        pass
    assert modes(unfreeze(model)) == [True] * 5


def test_an_overridden_eval_is_called() -> None:
    class Counted(nn.Linear):
        calls = 0

        def eval(self) -> Counted:
            self.calls += 1
            return super().eval()

    model = Counted(2, 2)
    with in_mode(model, training=False):
        assert model.calls == 1
    assert model.training
