"""Evaluation over batches is evaluation over the whole, and leaves the model as it was."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dlkit import Trainer
from dlkit.callbacks import Callback
from dlkit.metrics import Mean, names

CLASSIFICATION = ["accuracy", "auroc", "average_precision", "balanced_accuracy", "f1", "precision", "recall"]
REGRESSION = ["mae", "mse", "r2", "rmse"]


class Stored(nn.Module):
    """Gives what it is told to: its inputs are the predictions."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x + 0 * self.unused


def stored(loss: Any, metrics: Any = (), **settings: Any) -> Trainer:
    model = Stored()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return Trainer(model, loss, optimizer, metrics=metrics, **{"progress": False, "device": "cpu", **settings})


def cut(tensors: tuple[torch.Tensor, ...], sizes: list[int]) -> list[tuple[torch.Tensor, ...]]:
    return list(zip(*(tensor.split(sizes) for tensor in tensors), strict=True))


def both(loss, metrics, preds, target, sizes, **settings) -> tuple[dict[str, float], dict[str, float]]:
    """The values over batches and over the whole, from one trainer."""
    trainer = stored(loss, metrics, **settings)
    return trainer.evaluate(cut((preds, target), sizes)), trainer.evaluate([(preds, target)])


def agree(parts: dict[str, float], whole: dict[str, float]) -> None:
    assert list(parts) == list(whole)
    for name, value in whole.items():
        assert parts[name] == pytest.approx(value, rel=1e-4, abs=1e-5, nan_ok=True), name


SIZES = st.lists(st.integers(1, 6), max_size=5).map(lambda sizes: [4, *sizes])


@pytest.mark.parametrize("task", ["multiclass", "binary", "column", "multilabel", "regression", "regression column"])
@settings(max_examples=12)
@given(sizes=SIZES, seed=st.integers(0, 10_000), spread=st.sampled_from([0.3, 1.0, 5.0]))
def test_metrics_over_batches_are_the_metrics_over_the_whole(sizes, seed, task, spread):
    """Also where all scores of one batch happen to look like probabilities, and those of another do not."""
    torch.manual_seed(seed)
    count = sum(sizes)
    scores = torch.randn(count, 3) * spread
    if task.startswith("regression"):
        preds = scores[:, :1] if "column" in task else scores[:, 0]
        parts, whole = both(lambda p, t: (p - t).square().mean(), REGRESSION, preds, torch.randn(preds.shape), sizes)
    elif task == "multiclass":
        parts, whole = both(nn.CrossEntropyLoss(), CLASSIFICATION, scores, torch.randint(0, 3, (count,)), sizes)
    elif task == "multilabel":
        target = torch.randint(0, 2, (count, 3)).float()
        parts, whole = both(nn.BCEWithLogitsLoss(), CLASSIFICATION, scores, target, sizes)
    else:
        preds = scores[:, :1] if task == "column" else scores[:, 0]
        target = torch.randint(0, 2, preds.shape).float()
        parts, whole = both(nn.BCEWithLogitsLoss(), CLASSIFICATION, preds, target, sizes)
    agree(parts, whole)


def test_every_name_is_tried_here():
    assert names() == sorted(CLASSIFICATION + REGRESSION)


@settings(max_examples=25)
@given(sizes=SIZES, seed=st.integers(0, 1000), kind=st.sampled_from(["plain", "weights", "ignored", "both"]))
def test_the_loss_over_batches_is_the_loss_over_the_whole(sizes, seed, kind):
    """Weights and ignored targets count as they do in the mean of one batch."""
    torch.manual_seed(seed)
    count = sum(sizes)
    preds, target = torch.randn(count, 3), torch.randint(0, 3, (count,))
    settings: dict[str, Any] = {"weight": torch.tensor([0.1, 1.0, 4.0])} if kind in ("weights", "both") else {}
    if kind in ("ignored", "both"):
        settings["ignore_index"] = 1
    parts, whole = both(nn.CrossEntropyLoss(**settings), (), preds, target, sizes)
    agree(parts, whole)


def test_a_function_of_a_batch_as_a_metric():
    preds, target = torch.randn(10, 1), torch.randn(10, 1)
    metrics = {"off": Mean(lambda p, t: (p - t).abs().mean(), higher_is_better=False)}
    parts, whole = both(nn.MSELoss(), metrics, preds, target, [4, 4, 2])
    agree(parts, whole)
    assert math.isnan(Mean(lambda p, t: 0.0, higher_is_better=True).compute())


def test_evaluations_do_not_mix():
    trainer = stored(nn.CrossEntropyLoss(), ["accuracy"])
    right, wrong = torch.tensor([[5.0, 0.0]] * 4), torch.tensor([[0.0, 5.0]] * 4)
    target = torch.zeros(4, dtype=torch.long)
    for preds, share in ((right, 1.0), (wrong, 0.0), (right, 1.0)):
        assert trainer.evaluate([(preds, target)])["accuracy"] == share


# -------------------------------------------------------------------------------------------------------- predictions


def linear(**settings: Any) -> Trainer:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return Trainer(model, nn.CrossEntropyLoss(), optimizer, **{"progress": False, "device": "cpu", **settings})


X, CLASSES = torch.randn(23, 3), torch.randint(0, 2, (23,))


@pytest.mark.parametrize("workers", [0, 2])
def test_predictions_in_the_order_of_the_data(workers):
    trainer = linear()
    expected = trainer.model.eval()(X).detach()
    found = trainer.predict(DataLoader(TensorDataset(X, CLASSES), 5, num_workers=workers))
    assert found.shape == (23, 2)
    assert torch.equal(found.argmax(1), expected.argmax(1))
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad
    torch.testing.assert_close(trainer.predict(DataLoader(TensorDataset(X), 5)), expected)
    torch.testing.assert_close(trainer.predict([X]), expected)


class Several(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.layer, self.kind = nn.Linear(3, 2), kind

    def forward(self, x, y=None):
        x = x if y is None else x + y
        output = self.layer(x)
        return {
            "dict": {"a": output, "b": (x,)},
            "tuple": (output, x),
            "logits": SimpleNamespace(logits=output),
            "scalar": output.sum(),
            "half": output.bfloat16(),
        }[self.kind]


def test_predictions_of_several_parts():
    def predict(kind: str, batches: Any, **settings: Any) -> Any:
        model = Several(kind)
        trainer = Trainer(model, None, torch.optim.SGD(model.parameters(), 0.1), progress=False, device="cpu")
        return trainer.predict(batches, **settings), model

    batches = [(X[:20], CLASSES[:20]), (X[20:], CLASSES[20:])]
    found, model = predict("dict", batches)
    torch.testing.assert_close(found, {"a": model.layer(X).detach(), "b": (X,)})
    found, model = predict("tuple", batches)
    torch.testing.assert_close(found, (model.layer(X).detach(), X))
    found, model = predict("logits", batches)
    torch.testing.assert_close(found, model.layer(X).detach())
    assert predict("scalar", batches)[0].shape == (2,)
    assert predict("half", batches)[0].dtype == torch.float32
    found, model = predict("logits", [(X, X)], has_targets=False)
    torch.testing.assert_close(found, model.layer(2 * X).detach())


# --------------------------------------------------------------------------------------------------- left as it was


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("what", ["evaluate", "predict"])
def test_modes_streams_and_statistics_are_as_they_were(what, fails):
    trainer = linear()
    trainer.model.train()
    trainer.model[1].eval()  # a frozen BatchNorm
    modes = [module.training for module in trainer.model.modules()]
    statistics = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    stream = torch.get_rng_state()
    seen = []

    def look(module, inputs):
        seen.append((module.training, torch.is_grad_enabled()))
        if fails:
            raise OSError("broken")

    trainer.model[2].register_forward_pre_hook(look)
    loader = DataLoader(TensorDataset(X, CLASSES), 5)
    if fails:
        with pytest.raises(OSError, match="broken"):
            getattr(trainer, what)(loader)
    else:
        getattr(trainer, what)(loader)
    assert set(seen) == {(False, False)}
    assert [module.training for module in trainer.model.modules()] == modes
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), stream)
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, statistics[name])


def test_a_validation_in_the_middle_of_training_changes_no_number_of_it():
    data = DataLoader(TensorDataset(X, CLASSES), 4, shuffle=True)
    modes: list[bool] = []

    class Look(Callback):
        def on_gradients(self, run) -> None:
            modes.append(run.model.training and run.model[2].training)

    with_it, without = linear(callbacks=[Look()]), linear()
    with_it.fit(data, data, epochs=2, validate_every="2 steps")
    without.fit(data, epochs=2)
    assert all(modes)
    for name, value in without.model.state_dict().items():
        assert torch.equal(value, with_it.model.state_dict()[name])


def test_the_same_values_every_time():
    trainer = linear()
    loader = DataLoader(TensorDataset(X, CLASSES), 5, shuffle=True)
    assert trainer.evaluate(loader) == trainer.evaluate(loader)
    with pytest.warns(UserWarning, match="the loader shuffles, so the predictions are shuffled as well"):
        first = trainer.predict(loader)
    with pytest.warns(UserWarning, match="the loader shuffles"):
        assert torch.equal(first, trainer.predict(loader))
