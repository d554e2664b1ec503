"""Rare classes and rows in time: told of before training, drawn as often as others, and answered with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from dlkit import DataLoader, Trainer
from dlkit.callbacks import Checkpoint
from dlkit.datasets import CSVDataset
from dlkit.errors import ArgumentError
from dlkit.models import TabularMLP
from dlkit.recipes import look_at, read_data, train
from dlkit.recipes.choices import Wish, balanced_by, class_weights
from dlkit.recipes.choosing import choose
from dlkit.samplers import Balanced


def fraud(rows: int = 900, least: float = 2.2) -> pd.DataFrame:
    """Some 4 in 100 rows are "yes", and nothing tells which for certain."""
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=rows), rng.normal(size=rows)
    yes = x + 0.8 * rng.normal(size=rows) > least
    return pd.DataFrame({"x": x, "z": z, "fraud": np.where(yes, "yes", "no")})


def test_a_rare_class_is_told_of_before_anything_is_trained() -> None:
    findings = "\n".join(look_at(fraud(), target="fraud").findings)
    assert "'fraud' is yes in" in findings
    assert "always answering no is right in 9" in findings
    assert any("so accuracy says little" in line for line in read_data(fraud(), target="fraud").how)
    even = fraud().assign(fraud=["no", "yes"] * 450)
    assert not any("accuracy says little" in line for line in look_at(even, target="fraud").findings)


def test_rows_in_the_order_of_time_are_told_of() -> None:
    frame = fraud().assign(day=pd.date_range("2024-01-01", periods=900), fraud=["no", "yes"] * 450)
    (finding,) = (line for line in look_at(frame, target="fraud").findings if "in the order of" in line)
    assert "'day'" in finding
    assert "cut them by time (time='day')" in finding
    assert any("in the order of 'day'" in line for line in read_data(frame, target="fraud").how)
    mixed = frame.sample(frac=1, random_state=0)
    assert not any("in the order of" in line for line in look_at(mixed, target="fraud").findings)


def test_every_class_has_its_turn_and_every_sample_of_it() -> None:
    targets = torch.tensor([0] * 70 + [1] * 20 + [2] * 9)
    sampler = Balanced(targets, 8)
    epochs = [torch.cat(list(sampler.plan(3, epoch))) for epoch in range(4)]
    for order in epochs:
        assert torch.bincount(targets[order]).tolist() == [33, 33, 33]
        assert torch.bincount(order, minlength=99)[90:].min() >= 3  # 33 of 9: each at least three times
    seen = torch.cat(epochs)
    frequent = seen[targets[seen] == 0]
    assert len(frequent[:66].unique()) == 66  # all of a frequent class before one comes again
    assert torch.equal(torch.cat(list(Balanced(targets, 8).plan(3, 2))), epochs[2])
    assert not torch.equal(torch.cat(list(sampler.plan(4, 2))), epochs[2])
    assert len(Balanced(targets, 8, drop_last=True).plan(0, 0)) == 12
    with pytest.raises(ArgumentError, match="the class of each sample as whole numbers"):
        Balanced(torch.rand(5), 2)


def test_a_run_with_it_goes_on_bit_for_bit(tmp_path: Path) -> None:
    def fit(folder: Path, *epochs: int) -> torch.Tensor:
        for total in epochs:
            torch.manual_seed(0)
            data = CSVDataset(fraud(200), target="fraud")
            model = TabularMLP(data.spec, hidden=(8,))
            optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
            settings: dict[str, Any] = {"callbacks": [Checkpoint(folder)], "progress": False, "device": "cpu"}
            trainer = Trainer(model, torch.nn.CrossEntropyLoss(), optimizer, **settings)
            trainer.fit(DataLoader(data, batch_sampler=Balanced(data.targets, 32)), epochs=total)
        return torch.cat([value.flatten() for value in model.state_dict().values()])

    assert torch.equal(fit(tmp_path / "a", 3), fit(tmp_path / "b", 1, 3))


def test_a_model_of_a_balanced_sampler_answers_with_the_rare_class(tmp_path: Path) -> None:
    options: dict[str, Any] = {"target": "fraud", "arch": "mlp", "epochs": 5, "device": "cpu", "progress": False}
    plain = train(fraud(), out=tmp_path / "plain", **options)
    drawn = train(fraud(), out=tmp_path / "drawn", sampler="balanced", **options)
    assert plain.standing is not None
    assert drawn.standing is not None
    assert drawn.standing.others["balanced accuracy"] > plain.standing.others["balanced accuracy"] + 0.1
    assert drawn.standing.classes[1].predicted > plain.standing.classes[1].predicted
    assert train(fraud(), out=tmp_path / "drawn", sampler="balanced", **options).metrics == drawn.metrics
    for wrong, message in (
        ({"sampler": "odd"}, "sampler must be 'balanced'"),
        ({"sampler": "balanced", "class_weights": "balanced"}, "leave one out"),
        ({"sampler": "balanced", "target": "x"}, "this is a regression, which has no classes"),
        ({"sampler": "balanced", "arch": "boosting", "epochs": None}, "boosting is fitted at once"),
    ):
        with pytest.raises(ArgumentError, match=message):
            train(fraud(), out=tmp_path / "wrong", **{**options, **wrong})


def two_labels(rows: int = 400) -> pd.DataFrame:
    """Of one label 15 in 100 rows, of the other half of them; the columns tell each a little."""
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=rows), rng.normal(size=rows)
    rare, usual = x + 0.7 * rng.normal(size=rows) > 1.3, z + rng.normal(size=rows) > 0
    labels = ["|".join(["rare"] * int(r) + ["usual"] * int(u)) or "none" for r, u in zip(rare, usual, strict=True)]
    return pd.DataFrame({"x": x, "z": z, "labels": labels})


BINARY: dict[str, Any] = {"target": "fraud", "task": "binary"}
LABELS: dict[str, Any] = {"target": "labels", "label_separator": "|"}


def test_weights_of_one_output_and_of_labels_are_what_torch_makes_of_them() -> None:
    data, logits = read_data(fraud(), **BINARY), torch.linspace(-2, 2, 8)
    y = torch.tensor([0.0, 1, 0, 0, 1, 0, 1, 0])
    counts = torch.bincount(data.train.targets.long())
    weighed = torch.where(y > 0, counts[0] / counts[1], 1.0)
    by_hand = -(weighed * (y * logits.sigmoid().log() + (1 - y) * (1 - logits.sigmoid()).log())).mean()
    loss = choose(data, Wish(arch="mlp", class_weights="balanced")).loss
    assert float(loss(logits, y)) == pytest.approx(float(by_hand), rel=1e-5)
    given = choose(data, Wish(arch="mlp", class_weights={"no": 2.0, "yes": 10.0})).loss
    assert float(given.pos_weight) == 5.0
    data, logits = read_data(two_labels(), **LABELS), torch.linspace(-2, 2, 12).reshape(4, 3)
    there = data.train.targets
    wanted = (len(there) - there.sum(0)) / there.sum(0)
    choice = choose(data, Wish(arch="mlp", class_weights="balanced"))
    assert torch.allclose(choice.loss.pos_weight, wanted)
    y = torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    each = wanted * y * logits.sigmoid().log() + (1 - y) * (1 - logits.sigmoid()).log()
    assert float(choice.loss(logits, y)) == pytest.approx(float(-each.mean()), rel=1e-5)
    assert any(line.startswith("weights of the labels in the loss: none") for line in choice.why)
    for wrong in ({"class_weights": "odd"}, {"class_weights": {"rare": 2.0}}):
        with pytest.raises(ArgumentError, match="a weight for each label"):
            choose(data, Wish(arch="mlp", **wrong))


def test_a_label_that_is_always_or_never_there_is_not_weighed() -> None:
    data = read_data(two_labels(), **LABELS)
    data.train.targets[:, 0], data.train.targets[:, 1] = 1, 0
    assert class_weights(data, "balanced")[:2].tolist() == [1, 1]


@pytest.mark.parametrize("arch", ["mlp", "boosting"])
@pytest.mark.parametrize("how", [BINARY, LABELS], ids=["binary", "labels"])
def test_what_is_rare_is_found_more_often(how: dict[str, Any], arch: str, tmp_path: Path) -> None:
    if arch == "boosting":
        pytest.importorskip("sklearn")
    frame = fraud(3_000, 2.72) if how is BINARY else two_labels()  # of which 1.7 in 100 are "yes"
    place = 1  # "yes", and "rare" between "none" and "usual"
    options: dict[str, Any] = {"arch": arch, "device": "cpu", "progress": False, **how}
    options |= {} if arch == "boosting" else {"epochs": 3}
    recalls = {}
    for name, said in (("plain", {}), ("weights", {"class_weights": "balanced"}), ("sampler", {"sampler": "balanced"})):
        if arch == "boosting" and name == "sampler":
            continue
        done = train(frame, out=tmp_path / name, **said, **options)
        assert done.standing is not None
        recalls[name] = done.standing.classes[place].recall
    assert all(recall > recalls["plain"] + 0.1 for name, recall in recalls.items() if name != "plain"), recalls


def test_of_labels_a_sample_counts_as_its_rarest() -> None:
    data = read_data(two_labels(), **LABELS)
    told = balanced_by(data)
    rare = data.train.targets[:, data.classes.index("rare")] > 0
    assert (told[rare] == data.classes.index("rare")).all()
    order = torch.cat(list(Balanced(told, 32).plan(0, 0)))
    assert data.train.targets[order, data.classes.index("rare")].mean() > rare.float().mean() + 0.1
