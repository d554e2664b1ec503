"""What was meant by a name that there is not: modules, arguments, columns, metrics, layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import dlkit
from dlkit import Trainer
from dlkit.runs.history import History
from dlkit.specs import TableSpec


def trainer(**settings: Any) -> Trainer:
    model = nn.Linear(2, 2)
    optim = settings.pop("optim", torch.optim.SGD(model.parameters(), 0.1))
    return Trainer(model, nn.CrossEntropyLoss(), optim, progress=False, **settings)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda: dlkit.Trianer, AttributeError, "do you mean 'Trainer'"),
        (lambda: dlkit.CSVDataset, AttributeError, "it is dlkit.datasets.CSVDataset"),
        (lambda: dlkit.models.smallconvnet, AttributeError, "do you mean 'SmallConvNet'"),
        (lambda: dlkit.callbacks.nothing, AttributeError, "it has 'BackToBest', 'CSVLogger'"),
        (lambda: trainer(metric=["accuracy"]), TypeError, r"Trainer\(\) has no argument 'metric'; .*'metrics'"),
        (lambda: trainer().fit([], epoch=3), TypeError, r"Trainer.fit\(\) has no argument 'epoch'; .*'epochs'"),
        (lambda: dlkit.save(nn.Linear(2, 2), "x", clases=["a"]), TypeError, "do you mean 'classes'"),
        (lambda: trainer(metrics=["Acuracy"]), dlkit.errors.ArgumentError, "do you mean 'accuracy'"),
        (lambda: History([{"val_loss": 1.0}])["valloss"], KeyError, "do you mean 'val_loss'"),
        (lambda: History()["val_loss"], KeyError, "there are no rows yet"),
        (lambda: TableSpec(columns=())["price"], KeyError, "it has none"),
    ],
    ids=[
        "module",
        "room",
        "case",
        "none",
        "trainer",
        "fit",
        "save",
        "metric",
        "history",
        "empty",
        "column",
    ],
)
def test_a_wrong_name_is_answered_by_the_right_one(wrong: Callable[[], Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        wrong()
