"""A model file knows from the loss whether the model gives logits, probabilities or logarithms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import dlkit
from dlkit import Trainer
from dlkit.datasets import CSVDataset
from dlkit.errors import ArgumentError, ModelFileError
from dlkit.metrics import Metrics


@dlkit.register("tests.Ending")
class Ending(nn.Module):
    """A layer, and what the model ends in."""

    def __init__(self, width: int, ending: str = "none") -> None:
        super().__init__()
        self.layer, self.width = nn.Linear(2, width), width
        endings = {"sigmoid": nn.Sigmoid(), "softmax": nn.Softmax(1), "log_softmax": nn.LogSoftmax(1)}
        self.ending = endings.get(ending, nn.Identity())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values: torch.Tensor = self.ending(self.layer(x))
        return values[:, 0] if self.width == 1 else values


def rows(count: int = 30) -> pd.DataFrame:
    x = torch.linspace(-2, 2, count).tolist()
    return pd.DataFrame(
        {
            "x": x,
            "z": [value * value for value in x],
            "two": ["no" if value < 0.3 else "yes" for value in x],
            "three": ["abc"[int(value > -1) + int(value > 1)] for value in x],
            "many": ["a|b" if value > 1 else "a" if value > 0 else "b" for value in x],
            "count": [float(i % 5) for i in range(count)],
        }
    )


def saved(loss: Any, target: str, model: nn.Module, folder: Path, **options: Any) -> tuple[Any, CSVDataset, Trainer]:
    torch.manual_seed(0)
    frame = rows()[["x", "z", target]]
    settings = {"two": {"task": "binary"}, "many": {"label_separator": "|"}, "count": {"task": "regression"}}
    data = CSVDataset(frame, target=target, scale_target=False, **settings.get(target, {}))  # type: ignore[arg-type]
    names = ["mae"] if target == "count" else ["accuracy"]
    wanted = options.pop("metrics", names)
    optim = torch.optim.Adam(model.parameters(), 0.1)
    trainer = Trainer(model, loss, optim, metrics=wanted, progress=False, device="cpu")
    trainer.fit(DataLoader(data, 10), DataLoader(data, 10), epochs=3)
    return dlkit.load(trainer.save(folder / "model.safetensors", **options)), data, trainer


def own(loss: nn.Module) -> Any:
    return lambda output, target: loss(output, target)


CASES = {
    "binary logits": (nn.BCEWithLogitsLoss(), "two", 1, "none"),
    "binary probabilities": (nn.BCELoss(), "two", 1, "sigmoid"),
    "function": (nn.functional.binary_cross_entropy, "two", 1, "sigmoid"),
    "labels": (nn.BCELoss(), "many", 2, "sigmoid"),
    "classes": (nn.CrossEntropyLoss(), "three", 3, "none"),
    "log-probabilities": (nn.NLLLoss(), "three", 3, "log_softmax"),
}


@pytest.mark.parametrize("case", CASES)
def test_probabilities_labels_and_measures_are_those_of_the_training(case, tmp_path):
    loss, target, width, ending = CASES[case]
    predictor, data, trainer = saved(loss, target, Ending(width, ending), tmp_path)
    logits = trainer.model.layer(data.numeric).detach()
    right = logits.softmax(1) if target == "three" else logits.sigmoid()
    right = torch.cat([1 - right, right], 1) if width == 1 else right
    torch.testing.assert_close(predictor.probabilities(data), right)
    values = trainer.evaluate(DataLoader(data, 30))
    found = predictor.evaluate(data)
    assert (found["accuracy"], found["loss"]) == pytest.approx((values["accuracy"], values["loss"]), rel=1e-5)
    if target != "many":
        labels = [data.classes[place] for place in right.argmax(1)]
        assert predictor.predict(data.to_pandas())["prediction"].tolist() == labels
        assert len(set(labels)) > 1


def test_a_poisson_model_predicts_counts(tmp_path):
    predictor, data, trainer = saved(nn.PoissonNLLLoss(), "count", Ending(1), tmp_path)
    counts = trainer.model.layer(data.numeric).detach()[:, 0].exp()
    torch.testing.assert_close(predictor.probabilities(data)[:, 0], counts)
    assert predictor.evaluate(data)["mae"] == pytest.approx(trainer.history["val_mae"][-1], rel=1e-5)


@pytest.mark.parametrize("how", ["metrics", "save"])
def test_an_own_loss_says_it_by_its_metrics_or_when_saving(how, tmp_path):
    given = {"metrics": Metrics(["accuracy"], loss=nn.BCELoss())} if how == "metrics" else {}
    given |= {"outputs": "probabilities", "metrics": []} if how == "save" else {}
    predictor, data, trainer = saved(own(nn.BCELoss()), "two", Ending(1, "sigmoid"), tmp_path, **given)
    probabilities = trainer.model(data.numeric).detach()
    torch.testing.assert_close(predictor.probabilities(data)[:, 1], probabilities)


def test_classes_with_probabilities(tmp_path):
    nll = own(nn.NLLLoss())
    loss = lambda output, target: nll(output.log(), target)  # noqa: E731
    predictor, data, trainer = saved(loss, "three", Ending(3, "softmax"), tmp_path, outputs="probabilities")
    torch.testing.assert_close(predictor.probabilities(data), trainer.model(data.numeric).detach())
    expected = nn.functional.nll_loss(trainer.model(data.numeric).detach().log(), data.targets)
    assert predictor.evaluate(data)["loss"] == pytest.approx(float(expected), rel=1e-5)


def test_an_assumption_is_told_with_the_ways_to_say_it_otherwise_also_without_progress(tmp_path, caplog):
    for loss, told in ((own(nn.CrossEntropyLoss()), True), (nn.CrossEntropyLoss(), False)):
        _, _, trainer = saved(loss, "three", Ending(3), tmp_path)
        caplog.clear()
        trainer.save(tmp_path / "model.safetensors")
        text = "does not say what the outputs are; they are taken for logits. If they are something else, name the loss"
        assert (text in caplog.text) is told
        caplog.clear()
        trainer.save(tmp_path / "model.safetensors", outputs="logits")
        assert "taken for logits" not in caplog.text


def test_what_a_file_may_say(tmp_path):
    predictor, _, trainer = saved(nn.CrossEntropyLoss(), "three", Ending(3), tmp_path)
    assert "outputs" not in predictor.meaning.document()  # as in the first files
    with pytest.raises(ArgumentError, match="outputs must be one of logits, probabilities, logarithms, not 'odds'"):
        trainer.save(tmp_path / "model.safetensors", outputs="odds")
    document = predictor.meaning.document() | {"outputs": "odds"}
    with pytest.raises(ModelFileError, match=r"meaning\.outputs must be one of logits, .*: 'odds'"):
        type(predictor.meaning).from_document(document)
