"""Models for tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from torch import nn

from dlkit._language import Message
from dlkit._near import hint
from dlkit._optional import install_line, require
from dlkit.errors import ArgumentError
from dlkit.models import (
    MixedClassifier,
    MixedRegressor,
    TabularBlend,
    TabularEnsemble,
    TabularMLP,
    TabularTrees,
)
from dlkit.recipes.choices import Choice, Fitted, Wish, class_weights, judged_by, refuse
from dlkit.recipes.reading import Data

__all__ = ["TABLE_MODELS", "for_table"]


def _ensemble(data: Data, wish: Wish, **settings: Any) -> Choice:
    """Measured in `bench/defaults.py`: about 3,000 steps, at least 20 epochs, and a shorter path for large tables."""
    del wish
    rows, model = len(data.train), TabularEnsemble.for_data(data.train)
    batch_size = next((size for limit, size in _TABLE_BATCHES if rows < limit), _LARGE_BATCH)
    steps = -(-rows // batch_size)
    large = batch_size == _LARGE_BATCH
    epochs = max(3, 6_000 // steps) if large else min(100, max(20, -(-3_000 // steps)))
    return Choice(
        arch="ensemble",
        model=model,
        lr=3e-3,
        epochs=epochs,
        batch_size=batch_size,
        patience=1 if large else 4,
        plateau=True,
        groups=lambda lr: _decaying(model, lr),
        why=[Message("model: TabularEnsemble, eight networks of two hidden layers side by side")],
        **settings,
    )


def _blend(data: Data, wish: Wish, **settings: Any) -> Choice:
    """The ensemble, and trees whose share in the mean the validation part chooses; `bench/defaults.py` measures it."""
    require("sklearn", extra="boosting")  # now, and not when the training is over
    choice = _ensemble(data, wish, **settings)
    weights = _boosting_weights(data, wish)

    def finish(model: nn.Module) -> tuple[nn.Module, str]:
        assert isinstance(model, TabularEnsemble)
        trees = TabularTrees.for_data(data.train, seed=wish.seed, **weights)
        blend = TabularBlend.of(model, trees, data.val, choice.loss)
        if data.test is not None and blend.share:
            trees = TabularTrees.for_data(data.train, data.val, seed=wish.seed, **weights)
            blend = TabularBlend.joined(model, trees, blend.share)
        return blend, Message(
            "trees count {share:.0%} in the mean with the networks: chosen on the validation part", share=blend.share
        )

    why = [
        *choice.why,
        Message("and TabularTrees, scikit-learn's HistGradientBoosting with its own settings, once it is trained"),
    ]
    return dataclasses.replace(choice, arch="blend", why=why, finish=finish)


def _decaying(model: nn.Module, lr: float) -> list[dict[str, Any]]:
    """Weights, which decay, and biases, which do not."""
    biases = [value for name, value in model.named_parameters() if name.endswith("bias")]
    weights = [value for name, value in model.named_parameters() if not name.endswith("bias")]
    return [{"params": weights, "lr": lr}, {"params": biases, "lr": lr, "weight_decay": 0.0}]


def _mlp(data: Data, wish: Wish, **settings: Any) -> Choice:
    del wish
    few = len(data.train) < 5_000
    hidden = (64, 32) if few else (256, 128)
    return Choice(
        arch="mlp",
        model=TabularMLP(data.train.spec, hidden=hidden, dropout=0.3),
        lr=3e-3 if few else 2e-3,
        epochs=60 if few else 15,
        batch_size=32 if few else 256,
        patience=10 if few else 4,
        why=[
            Message("model: TabularMLP with hidden layers of {first} and {second}", first=hidden[0], second=hidden[1])
        ],
        **settings,
    )


def _boosting(data: Data, wish: Wish, **settings: Any) -> Choice:
    weights = _boosting_weights(data, wish)

    def fit() -> Fitted:
        model = TabularTrees.for_data(data.train, seed=wish.seed, **weights)
        return Fitted(model=model, data=data, again=again)

    def again() -> tuple[nn.Module, Data]:
        return TabularTrees.for_data(data.train, data.val, seed=wish.seed, **weights), data

    return Choice(
        arch="boosting",
        model=TabularTrees(data.train.spec),
        lr=1.0,
        epochs=1,
        batch_size=1024,
        patience=1,
        fit=fit,
        why=[Message("model: TabularTrees, scikit-learn's HistGradientBoosting with its own settings")],
        **settings,
    )


def _boosting_weights(data: Data, wish: Wish) -> dict[str, Any]:
    said = "balanced" if wish.sampler is not None else wish.class_weights  # trees see no steps
    if said is None:
        return {}
    weights = class_weights(data, said).tolist()
    if data.task == "multilabel":
        return {"class_weight": [{0: 1.0, 1: weight} for weight in weights]}
    return {"class_weight": dict(enumerate(weights))}


def _mixed(data: Data, wish: Wish, **settings: Any) -> Choice:
    del wish
    spec = data.train.spec
    make = MixedRegressor if data.task == "regression" else MixedClassifier
    told = Message(
        "model: {name}, on {texts} text columns and {images} image columns besides the rest",
        name=make.__name__,
        texts=len(spec.of_kind("text")),
        images=len(spec.of_kind("image")),
    )
    return Choice(
        arch="mixed",
        model=make(spec),
        lr=2e-3,
        epochs=20,
        batch_size=32,
        patience=5,
        why=[told],
        **settings,
    )


#: What `arch` may be.
TABLE_MODELS: dict[str, Callable[..., Choice]] = {
    "ensemble": _ensemble,
    "blend": _blend,
    "boosting": _boosting,
    "mlp": _mlp,
}
_BLENDED = 1_000  # training rows from which on trees are worth asking as well
_TABLE_BATCHES = ((1_000, 32), (3_000, 64), (8_000, 128), (100_000, 256))  # rows below which a step has so many


_LARGE_BATCH = 1024


def for_table(data: Data, wish: Wish) -> Choice:
    """The default is `TabularEnsemble`, of many rows in the mean with trees, if scikit-learn is installed.

    Args:
        data: From `read_data`: a table.
        wish: What the caller has said.
    """
    refuse(wish, "weights", "freeze", "views", "image_size", why="this is for images, and the data is a table")
    models = {**TABLE_MODELS, "mixed": _mixed}
    if wish.arch not in (None, *models):
        raise ArgumentError(f"arch={wish.arch!r}: {hint(wish.arch, models, has='for tables there are')}")
    many, there = len(data.train) >= _BLENDED, find_spec("sklearn") is not None
    loss, metrics = judged_by(data.task)
    mixed = bool(data.train.spec.of_kind("text", "image"))
    arch = wish.arch or ("mixed" if mixed else "blend" if many and there else "ensemble")
    choice = models[arch](data, wish, loss=loss, metrics=metrics)
    if wish.arch is None and many and not there and not mixed:
        how = install_line("boosting")
        choice.why.append(Message("without trees, which often help a table of this size: {how}", how=how))
    return choice
