"""What a layer cannot take is named with layer, shapes, batch and remedy; what a user's code raises stays as it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dlkit import Trainer
from dlkit.errors import TrainingError
from dlkit.transfer import freeze


def trainer(model: nn.Module, **settings: Any) -> Trainer:
    optim = torch.optim.SGD(model.parameters(), 0.1)
    settings = {"loss": lambda output, target: output.float().mean(), **settings}
    loss = settings.pop("loss")
    return Trainer(model, loss, optim, **{"device": "cpu", "progress": False, **settings})


def images(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.zeros(*shape, dtype=dtype)


CASES = {
    "a wrong width": (
        nn.Linear(4, 2),
        images(8, 5),
        r"Linear takes 4 features in the last dimension, but its input is \[8, 5\]: make it nn.Linear\(5, 2\)",
    ),
    "not flattened": (
        nn.Sequential(nn.Identity(), nn.Linear(784, 2)),
        images(8, 1, 28, 28),
        r"Linear '1' takes 784 features .*: put nn.Flatten\(\) before it",
    ),
    "float64": (
        nn.Linear(4, 2),
        images(8, 4, dtype=torch.float64),
        r"has float32 weights, but its input is \[8, 4\] float64: convert the data once, x.to\(torch.float32\) \(numpy",
    ),
    "uint8": (
        nn.Conv2d(3, 4, 3),
        images(8, 3, 9, 9, dtype=torch.uint8),
        r"float32 weights, but its input is \[8, 3, 9, 9\] uint8: pixels become numbers by x.to\(torch.float32\) / 255",
    ),
    "int64": (nn.Linear(4, 2), images(8, 4, dtype=torch.int64), r"its input is \[8, 4\] int64: convert the data once"),
    "HWC": (
        nn.Conv2d(3, 4, 3),
        images(8, 28, 29, 3),
        r"takes 3 channels as \[batch, channels, height, width\], but its input is \[8, 28, 29, 3\], with the channels "
        r"last: move them, x.permute\(0, 3, 1, 2\)",
    ),
    "grey": (nn.Conv2d(3, 4, 3), images(8, 1, 9, 9), r"input is \[8, 1, 9, 9\]: make it for 1 channels, or give"),
    "without channels": (nn.Conv2d(1, 4, 3), images(8, 9, 9), r"without a channel dimension; add it, x.unsqueeze\(1\)"),
    "flat": (nn.Conv2d(1, 4, 3), images(8, 81), r"but its input is \[8, 81\]: 2 dimensions"),
    "small images": (nn.Conv2d(3, 4, 5), images(8, 3, 2, 2), r"kernel of \[5, 5\], larger than its input \[8, 3, 2"),
    "one sample": (
        nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)),
        images(1, 4),
        r"BatchNorm1d '1' takes mean and variance over a batch, but its input \[1, 2\] has one value per channel: .*"
        r"drop_last=True",
    ),
    "norm": (nn.BatchNorm1d(4), images(5, 3), r"BatchNorm1d takes 4 channels, but its input .* is \[5, 3\]"),
    "norm of images": (nn.BatchNorm2d(4), images(5, 4), r"BatchNorm2d takes 4 dimensions, but its input is \[5, 4\]"),
    "layer norm": (nn.LayerNorm(4), images(5, 3), r"LayerNorm normalises the last dimensions \[4\], but its input is"),
    "group norm": (nn.GroupNorm(2, 4), images(5, 3, 3), "GroupNorm takes 4 channels, but its input"),
    "recurrent": (nn.LSTM(4, 3), images(2, 5, 6), r"LSTM takes 4 features per step, but its input is \[2, 5, 6\]"),
    "indices": (nn.Embedding(10, 4), images(5), r"takes indices \(int64\), but its input is \[5\] float32"),
    "too large an index": (nn.Embedding(10, 4), torch.tensor([3, 11]), "its indices are 0 to 9, but .* holds 11: make"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_a_layer_cannot_take(name):
    model, inputs, message = CASES[name]
    with pytest.raises(TrainingError, match=message) as caught:
        trainer(model).fit([(inputs, torch.zeros(len(inputs)))])
    assert str(caught.value).endswith("(step 1, epoch 1, batch 1)")
    assert f"The model was called with {list(inputs.shape)}" in str(caught.value)
    assert isinstance(caught.value.__cause__, RuntimeError | ValueError | IndexError)


def own_step(run, batch):
    return run.model(batch[0]).mean()


@pytest.mark.parametrize("how", ["fit", "accumulate", "own step", "evaluate", "validation", "predict", "bf16", "loss"])
def test_wherever_the_model_is_called(how):
    """The third batch is the one that does not fit."""
    good, bad = [(images(2, 4), torch.zeros(2))] * 2, (images(3, 5), torch.zeros(3))
    batches, settings = [*good, bad], {}
    if how == "accumulate":
        settings = {"accumulate": 3}
    elif how == "own step":
        settings = {"step": own_step}
    elif how == "bf16":
        settings = {"precision": "bf16"}
    elif how == "loss":
        batches = [x for x, _ in batches]
        settings = {"loss": None}
    made = trainer(nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), **settings)
    calls = {
        "evaluate": (lambda: made.evaluate(batches), "batch 3 of the evaluation"),
        "validation": (lambda: made.fit(good, batches), "batch 3 of the evaluation"),
        "predict": (lambda: made.predict(batches), "batch 3 of the prediction"),
        "accumulate": (lambda: made.fit(batches), "step 1, epoch 1, batch 1, 2, 3"),
    }
    if how == "loss":
        made.model.append(Mean())
    call, place = calls.get(how, (lambda: made.fit(batches), "step 3, epoch 1, batch 3"))
    with pytest.raises(TrainingError, match=r"Linear '0' takes 4 features .* is \[3, 5\]") as caught:
        call()
    assert str(caught.value).endswith(f"({place})")


class Mean(nn.Module):
    def forward(self, x):
        return x.mean()


def test_a_last_batch_of_one_after_a_good_epoch():
    data = TensorDataset(torch.randn(9, 4), torch.randint(0, 2, (9,)))
    model = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2))
    made = trainer(model, loss=nn.CrossEntropyLoss())
    with pytest.raises(TrainingError, match=r"has one value per channel.*\(step 3, epoch 1, batch 3\)$"):
        made.fit(DataLoader(data, 4))
    made.fit(DataLoader(data, 4, drop_last=True))
    with pytest.raises(TrainingError, match=r"\(step 3, epoch 2, batch 1\)$"):
        trainer(model, loss=nn.CrossEntropyLoss(), seed=1).fit(Second(data), epochs=2)


class Second:
    """Two good batches in the first epoch, and one of one sample in the second."""

    def __init__(self, data: TensorDataset) -> None:
        self.data, self.epoch = data, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self):
        return iter([self.data[:1]] if self.epoch else [self.data[:4], self.data[4:8]])


def test_a_frozen_model_says_the_same():
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), nn.Linear(3, 2))
    freeze(model, until="1")
    with pytest.raises(TrainingError, match=r"Linear '0.0' takes 4 features"):
        trainer(model).fit(DataLoader(TensorDataset(images(8, 5), torch.zeros(8)), 4))


def test_a_float64_target_that_only_the_backward_pass_would_notice():
    made = trainer(nn.Linear(4, 1), loss=nn.HuberLoss())
    with pytest.raises(TrainingError, match=r"the targets are float64, .*target.float\(\) \(step 1"):
        made.fit([(images(2, 4), torch.zeros(2, 1, dtype=torch.float64))])


class Mine(nn.Module):
    def __init__(self, where: str) -> None:
        super().__init__()
        self.where, self.layer = where, nn.Linear(4, 2)

    def forward(self, x):
        if self.where == "forward":
            raise ValueError("mine")
        if self.where == "hook":
            self.layer.register_forward_pre_hook(self.hook)
        return self.layer(x)

    @staticmethod
    def hook(module, inputs):
        raise ValueError("mine")


@pytest.mark.parametrize("where", ["forward", "hook"])
def test_what_the_users_own_code_raises_is_not_masked(where):
    with pytest.raises(ValueError, match=r"^mine\n") as caught:
        trainer(Mine(where)).fit([(images(8, 5), torch.zeros(8))])
    assert type(caught.value) is ValueError
    assert caught.value.__notes__ == ["while calling Mine with [8, 5] float32", "in step 1, epoch 1, batch 1"]
