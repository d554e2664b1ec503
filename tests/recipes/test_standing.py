"""What a score is worth, compared with scikit-learn's and scipy's arithmetic."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlkit import recipes
from dlkit.recipes.standing import standing_of_classes, standing_of_labels, standing_of_values, wilson


@given(hits=st.integers(0, 50), more=st.integers(0, 50))
def test_the_interval_of_a_share_is_wilsons(hits: int, more: int) -> None:
    from scipy.stats import binomtest  # here: collecting the tests must not import it in every process

    size = hits + more
    if size:
        expected = binomtest(hits, size).proportion_ci(method="wilson")
        assert wilson(hits / size, size) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_classes_are_measured_as_scikit_learn_does() -> None:
    from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

    drawn = torch.Generator().manual_seed(1)
    targets = torch.randint(0, 3, (200,), generator=drawn)
    said = (torch.randn(200, 3, generator=drawn) + torch.eye(3)[targets]).softmax(1)
    found = standing_of_classes(said, targets, ["a", "b", "c"], usual=int(targets.bincount().argmax()))
    answers = said.argmax(1)
    assert found.score == pytest.approx(float((answers == targets).float().mean()))
    assert found.others["balanced accuracy"] == pytest.approx(balanced_accuracy_score(targets, answers))
    assert [row.f1 for row in found.classes] == pytest.approx(f1_score(targets, answers, average=None))
    expected = [roc_auc_score(targets == n, said[:, n]) for n in range(3)]
    assert [row.auroc for row in found.classes] == pytest.approx(expected)
    assert found.baseline == pytest.approx(float(targets.bincount().max()) / 200)
    assert found.low < found.score < found.high
    assert not found.warnings


def test_a_class_that_is_never_the_answer_is_named() -> None:
    targets = torch.tensor([0] * 98 + [1] * 2)
    said = torch.tensor([[0.9, 0.1]] * 100)
    found = standing_of_classes(said, targets, ["no", "yes"], usual=0)
    assert str(found).splitlines() == [
        "accuracy 0.98 (95 %: 0.93 to 0.9945) on 100 samples; always answering 'no' gives 0.98",
        "'yes' is never the answer, though 2 samples are it: give rare classes more weight, or look for what tells "
        "them apart",
        "this is not significantly better than the baseline without a model",
    ]
    assert math.isnan(found.classes[1].precision)
    assert found.classes[1].recall == 0


def test_few_samples_say_little() -> None:
    found = standing_of_classes(torch.eye(2).repeat(5, 1), torch.tensor([0, 1] * 5), ["a", "b"], usual=0)
    assert "10 samples are few: the accuracy may lie anywhere from 0.72 to 1.00" in found.warnings


def test_values_stand_beside_the_mean() -> None:
    from sklearn.metrics import r2_score

    wanted = torch.linspace(0, 10, 101)[:, None]
    said = wanted + 0.5 * torch.randn(101, 1, generator=torch.Generator().manual_seed(0))
    found = standing_of_values(said, wanted, ["price"], usual=torch.tensor([4.0]))
    assert found.score == pytest.approx(r2_score(wanted.numpy(), said.numpy()))
    assert found.baseline == pytest.approx(r2_score(wanted.numpy(), torch.full_like(wanted, 4.0).numpy()))
    assert found.others["rmse, answering the mean"] == pytest.approx(float(((wanted - 4) ** 2).mean().sqrt()))
    assert found.low < found.score < found.high
    assert found == standing_of_values(said, wanted, ["price"], usual=torch.tensor([4.0]))


def test_labels_stand_beside_their_usual_answers() -> None:
    targets = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    found = standing_of_labels(targets * 0.8 + 0.1, targets, ["red", "round"], shares=torch.tensor([0.7, 0.2]))
    assert (found.score, found.baseline) == (1.0, 0.75)
    assert [row.samples for row in found.classes] == [3, 1]


def test_training_says_what_its_score_is_worth(tmp_path: object) -> None:
    frame = pd.DataFrame({"x": range(200), "y": ["no"] * 190 + ["yes"] * 10}).sample(frac=1, random_state=0)
    trained = recipes.train(
        frame, target="y", arch="mlp", epochs=1, out=f"{tmp_path}/run", device="cpu", progress=False
    )
    assert trained.standing is not None
    assert trained.standing.baseline_says == "always answering 'no'"
    assert trained.standing.score == pytest.approx(trained.metrics["accuracy"])
    assert trained.standing.samples == len(trained.data.test)
