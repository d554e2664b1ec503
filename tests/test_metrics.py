"""The named metrics against plain arithmetic, scikit-learn and torchmetrics, for every way a loss reads its target."""

from __future__ import annotations

import functools
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dlkit import Trainer
from dlkit.errors import ArgumentError, DlkitError, TrainingError
from dlkit.metrics import Mean, Metrics, names
from dlkit.objective import objective_of

CLASSIFICATION = ["accuracy", "auroc", "average_precision", "balanced_accuracy", "f1", "precision", "recall"]
REGRESSION = ["mae", "mse", "r2", "rmse"]


def measured(wanted: Any, loss: Any, *batches: tuple[Any, Any]) -> dict[str, float]:
    metrics = Metrics(wanted, loss=loss)
    for output, target in batches:
        metrics.update(output, target)
    return metrics.compute()


def in_two(loss: Any, output: torch.Tensor, target: torch.Tensor, wanted: Any = CLASSIFICATION) -> dict[str, float]:
    """In batches of unequal size; and they must be those of one batch."""
    cut = [3, len(output) - 3]
    found = measured(wanted, loss, *zip(output.split(cut), target.split(cut), strict=True))
    assert found == pytest.approx(measured(wanted, loss, (output, target)), rel=1e-12, nan_ok=True)
    return found


def area(scores: np.ndarray, hits: np.ndarray) -> float:
    """Pair by pair: the share in order, ties half."""
    above, below = scores[hits][:, None], scores[~hits]
    return float((above > below).mean() + (above == below).mean() / 2)


def precision_sum(scores: np.ndarray, hits: np.ndarray) -> float:
    """The mean over the positives of the precision among those that score at least as much."""
    return float(np.mean([hits[scores >= score].mean() for score in scores[hits]]))


def of_classes(probabilities: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """All class metrics in plain loops; rows are decisions."""
    guess, count = probabilities.argmax(1), probabilities.shape[1]
    hits = np.array([((guess == c) & (target == c)).sum() for c in range(count)])
    meant = np.array([(target == c).sum() for c in range(count)])
    found = np.array([(guess == c).sum() for c in range(count)])
    used, both = meant + found > 0, [c for c in range(count) if 0 < meant[c] < len(target)]
    return {
        "accuracy": float((guess == target).mean()),
        "auroc": float(np.mean([area(probabilities[:, c], target == c) for c in both])),
        "average_precision": float(
            np.mean([precision_sum(probabilities[:, c], target == c) for c in range(count) if meant[c]])
        ),
        "balanced_accuracy": float((hits[meant > 0] / meant[meant > 0]).mean()),
        "f1": float((2 * hits / np.maximum(meant + found, 1))[used].mean()),
        "precision": float((hits / np.maximum(found, 1))[used].mean()),
        "recall": float((hits / np.maximum(meant, 1))[used].mean()),
    }


def of_labels(scores: np.ndarray, yes: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """All metrics of yes or no, [M, L], in plain loops."""
    right = {name: [] for name in CLASSIFICATION}  # type: dict[str, list[float]]
    for guess, true, score in zip(yes.T, target.T, scores.T, strict=True):
        tp, predicted, actual = (guess & true).sum(), guess.sum(), true.sum()
        right["accuracy"].append((guess == true).mean())
        right["auroc"].append(area(score, true))
        right["average_precision"].append(precision_sum(score, true))
        right["balanced_accuracy"].append((tp / actual + (~guess & ~true).sum() / (~true).sum()) / 2)
        right["precision"].append(tp / predicted if predicted else 0.0)
        right["recall"].append(tp / actual)
        right["f1"].append(2 * tp / (predicted + actual))
    return {name: float(np.mean(values)) for name, values in right.items()}


def draw(*shape: int, seed: int = 0, classes: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if classes:
        return torch.randint(0, classes, shape, generator=generator)
    return torch.randn(shape, generator=generator)


def one_hot(target: torch.Tensor, classes: int) -> torch.Tensor:
    return F.one_hot(target, classes).movedim(-1, 1).float()


N, C = 23, 4
SHAPES = {"rows": (N,), "sequences": (N, 5), "maps": (N, 2, 3)}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "case",
    ["plain", "ignored", "weights", "sum", "none", "function", "partial", "nll", "one-hot", "smoothed", "subclass"],
)
def test_classes_against_plain_arithmetic(case, shape):
    places = SHAPES[shape]
    output, target = draw(N, C, *places[1:]), draw(*places, seed=1, classes=C)
    kept, given, loss = torch.ones(places, dtype=torch.bool), target, nn.CrossEntropyLoss()  # type: Any, Any, Any
    if case == "ignored":
        loss, kept = nn.CrossEntropyLoss(ignore_index=2), target != 2
    elif case == "weights":
        loss = nn.CrossEntropyLoss(torch.tensor([0.1, 5.0, 1.0, 2.0]))
    elif case in ("sum", "none"):
        loss = nn.CrossEntropyLoss(reduction=case)
    elif case == "function":
        loss, kept = F.cross_entropy, draw(*places, seed=2, classes=3) > 0
        given = target.where(kept, -100)
    elif case == "partial":
        loss, kept = functools.partial(functools.partial(F.cross_entropy, ignore_index=0), reduction="sum"), target != 0
    elif case == "nll":
        loss, output = nn.NLLLoss(ignore_index=1), output.log_softmax(1)
        kept = target != 1
    elif case in ("one-hot", "smoothed"):
        loss = nn.CrossEntropyLoss(label_smoothing=0.1)
        given = one_hot(target, C)
        given = given if case == "one-hot" else given * 0.8 + 0.05
    else:
        loss = type("Focal", (nn.CrossEntropyLoss,), {})(ignore_index=3)
        kept = target != 3
    rows = output.double().softmax(1).movedim(1, -1)[kept].numpy()
    assert in_two(loss, output, given) == pytest.approx(of_classes(rows, target[kept].numpy()), rel=1e-9)


def test_mixed_targets_count_as_their_larger_part():
    output, target = draw(N, C), draw(N, seed=1, classes=C)
    other = (target + 1) % C
    mixed = 0.7 * one_hot(target, C) + 0.3 * one_hot(other, C)
    loss = nn.CrossEntropyLoss()
    assert in_two(loss, output, mixed) == in_two(loss, output, target)
    rest = (output.argmax(1) == (1 - mixed).argmax(1)).double().mean()
    assert in_two(loss, output, 1 - mixed)["accuracy"] == float(rest)
    halves = 0.5 * one_hot(target * 0, C) + 0.5 * one_hot(target * 0 + 1, C)  # the first of equal ones
    assert in_two(loss, output, halves)["accuracy"] == float((output.argmax(1) == 0).double().mean())


def test_probabilities_without_any_share_do_not_count():
    """A row of zeros (a pixel of no class, a lost label) is nothing in the loss, and not class 0 in a metric."""
    output, target = draw(N, C, 2), draw(N, 2, seed=1, classes=C)
    kept = draw(N, 2, seed=5) > 0
    soft = one_hot(target, C) * kept[:, None]
    loss = nn.CrossEntropyLoss()
    assert in_two(loss, output, soft) == in_two(loss, output, target.where(kept, -100))


@pytest.mark.parametrize("shape", [(N,), (N, 1), (N, 3), (N, 1, 4), (N, 1, 2, 2), (N, 3, 2, 2)], ids=str)
@pytest.mark.parametrize("case", ["logits", "function", "soft margin", "margin", "probabilities", "smoothed"])
def test_yes_or_no_against_plain_arithmetic(case, shape):
    output, target = draw(*shape).mul(4).round() / 4, draw(*shape, seed=3, classes=2)  # with ties
    yes, given = output > 0, target.float()
    losses = {
        "soft margin": nn.MultiLabelSoftMarginLoss(),
        "margin": nn.SoftMarginLoss(),
        "probabilities": nn.BCELoss(),
    }
    loss = losses.get(case, nn.BCEWithLogitsLoss())  # type: Any
    if case == "function":
        loss = F.binary_cross_entropy_with_logits
    elif case == "margin":
        given = given * 2 - 1
    elif case == "probabilities":
        output = output.sigmoid()
    elif case == "smoothed":
        given = given * 0.9 + 0.05
    columns = (
        (lambda t: t.reshape(-1, 1))
        if len(shape) == 1 or shape[1] == 1
        else (lambda t: t.movedim(1, -1).reshape(-1, shape[1]))
    )
    expected = of_labels(*(columns(each).numpy() for each in (output.double(), yes, target.bool())))
    assert in_two(loss, output, given) == pytest.approx(expected, rel=1e-9)


def test_logits_and_probabilities_are_what_the_loss_says_whatever_their_values():
    """0.3 is a yes as a logit and a no as a probability, alone in its batch or not."""
    scores, target = torch.tensor([0.3, 0.2, -0.4, 0.1]), torch.tensor([1.0, 1.0, 0.0, 1.0])
    for cut in ([4], [2, 2], [1, 1, 1, 1]):
        batches = list(zip(scores.split(cut), target.split(cut), strict=True))
        assert measured(["accuracy", "f1"], nn.BCEWithLogitsLoss(), *batches) == {"accuracy": 1.0, "f1": 1.0}
        positive = [(part.clamp(min=0), truth) for part, truth in batches]
        assert measured(["accuracy"], nn.BCELoss(), *positive) == {"accuracy": 0.25}


def test_ranks_where_probabilities_would_round_to_one():
    """Two sure and different logits are not a tie, as they would be after a float32 sigmoid."""
    scores, target = torch.tensor([30.0, 40.0, 20.0]), torch.tensor([0.0, 1.0, 0.0])
    assert measured(["auroc"], nn.BCEWithLogitsLoss(), (scores, target)) == {"auroc": 1.0}


@pytest.mark.parametrize("seed", range(4))
def test_against_scikit_learn(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    output, target = draw(40, C, seed=seed), draw(40, seed=seed + 9, classes=C - seed % 2)
    guess, probabilities = output.argmax(1), output.double().softmax(1)
    macro = {"average": "macro", "zero_division": 0}
    found = in_two(nn.CrossEntropyLoss(), output, target)
    expected = {
        "accuracy": metrics.accuracy_score(target, guess),
        "f1": metrics.f1_score(target, guess, **macro),
        "precision": metrics.precision_score(target, guess, **macro),
        "recall": metrics.recall_score(target, guess, **macro),
    }
    if seed % 2 == 0:
        expected |= {
            "balanced_accuracy": metrics.balanced_accuracy_score(target, guess),
            "auroc": metrics.roc_auc_score(target, probabilities, multi_class="ovr"),
            "average_precision": metrics.average_precision_score(one_hot(target, C), probabilities),
        }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-9)
    hits = (target > 0).float()
    found = in_two(nn.BCEWithLogitsLoss(), output[:, 0], hits)
    expected = {
        "auroc": metrics.roc_auc_score(hits, output[:, 0]),
        "average_precision": metrics.average_precision_score(hits, output[:, 0]),
        "balanced_accuracy": metrics.balanced_accuracy_score(hits, output[:, 0] > 0),
        "f1": metrics.f1_score(hits, output[:, 0] > 0),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-9)
    preds, truth = draw(40, 2, seed=seed).double(), draw(40, 2, seed=seed + 1).double()
    found = in_two(nn.MSELoss(), preds, truth, REGRESSION)
    expected = {
        "mae": metrics.mean_absolute_error(truth, preds),
        "mse": metrics.mean_squared_error(truth, preds),
        "r2": metrics.r2_score(truth, preds),
        "rmse": metrics.mean_squared_error(truth, preds) ** 0.5,
    }
    assert found == pytest.approx(expected, rel=1e-9)


def test_accuracy_and_errors_are_those_of_torchmetrics():
    """The one test here that imports it, which takes seconds."""
    import torchmetrics
    import torchmetrics.functional as reference

    for seed in range(8):
        output, target = draw(40, C, seed=seed), draw(40, seed=seed + 9, classes=C)
        multi = {"task": "multiclass", "num_classes": C}
        found = in_two(nn.CrossEntropyLoss(ignore_index=1), output, target)
        expected = {"accuracy": reference.accuracy(output, target, ignore_index=1, **multi)}
        found |= in_two(nn.CrossEntropyLoss(), output, target, ["f1", "precision", "recall", "auroc"])
        expected |= {
            "f1": reference.f1_score(output, target, average="macro", **multi),
            "precision": reference.precision(output, target, average="macro", **multi),
            "recall": reference.recall(output, target, average="macro", **multi),
            "auroc": reference.auroc(output.softmax(1), target, **multi),
        }
        preds, truth = draw(40, seed=seed), draw(40, seed=seed + 1)
        found |= in_two(nn.MSELoss(), preds, truth, REGRESSION)
        expected |= {
            "mae": reference.mean_absolute_error(preds, truth),
            "mse": reference.mean_squared_error(preds, truth),
            "rmse": reference.mean_squared_error(preds, truth, squared=False),
            "r2": reference.r2_score(preds, truth),
        }
        expected = {name: float(value) for name, value in expected.items()}
        assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5, abs=1e-6)
    ours, theirs = nn.Linear(3, C), torchmetrics.classification.MulticlassF1Score(C)  # objects get what names get
    trainer = Trainer(
        ours, nn.CrossEntropyLoss(), torch.optim.SGD(ours.parameters(), 0.1), metrics={"theirs": theirs, "ours": "f1"},
        progress=False, device="cpu",
    )  # fmt: skip
    measured_twice = trainer.evaluate([(draw(9, 3), draw(9, classes=C)), (draw(4, 3), draw(4, classes=C))])
    assert measured_twice["theirs"] == pytest.approx(measured_twice["ours"], rel=1e-5)
    assert trainer.metrics.higher_is_better("theirs")


def test_no_name_needs_torchmetrics(monkeypatch):
    """It takes seconds to import; here importing it fails."""
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    net, x, y = nn.Linear(2, 2), draw(8, 2), draw(8, classes=2)
    for loss, target, wanted in ((nn.CrossEntropyLoss(), y, CLASSIFICATION), (nn.MSELoss(), x, REGRESSION)):
        optim = torch.optim.SGD(net.parameters(), 0.1)
        trainer = Trainer(net, loss, optim, metrics=wanted, progress=False, device="cpu")
        assert set(trainer.fit([(x, target)], [(x, target)])) >= {f"val_{name}" for name in wanted}


# --------------------------------------------------------------------------------------- losses that do not say it


def own(output: Any, target: Any) -> Any:
    return 0.0


def test_an_own_loss_says_nothing_and_shapes_say_what_they_can():
    output, target = draw(N, C), draw(N, seed=1, classes=C)
    counted = ["accuracy", "balanced_accuracy", "f1", "precision", "recall"]
    assert in_two(own, output, target, counted) == in_two(nn.CrossEntropyLoss(), output, target, counted)
    target[4] = -100  # which no class has, and torch's losses ignore
    assert in_two(own, output, target, counted) == in_two(nn.CrossEntropyLoss(), output, target, counted)
    sequence, words = draw(N, 5, C), draw(N, 5, seed=1, classes=C)  # classes last, as in a language model
    expected = in_two(nn.CrossEntropyLoss(), sequence.movedim(-1, 1), words, counted)
    assert in_two(own, sequence, words, counted) == expected
    bits = draw(N, seed=2, classes=2)
    ranked = ["auroc", "average_precision"]  # the order of logits and of probabilities is the same
    assert in_two(own, output[:, 0], bits, ranked) == in_two(nn.BCELoss(), output[:, 0].sigmoid(), bits.float(), ranked)
    assert in_two(own, output[:, 0], draw(N), ["mae"]) == in_two(nn.MSELoss(), output[:, 0], draw(N), ["mae"])


@pytest.mark.parametrize(
    ("loss", "name", "output", "target", "message"),
    [
        (own, "accuracy", draw(N), draw(N, classes=2), r"whether the outputs are logits .* or probabilities"),
        (own, "f1", draw(N, 1), draw(N, 1, classes=2).float(), r"whether the outputs are logits"),
        (own, "accuracy", draw(N, C), draw(N, C), r"may be class probabilities, several labels or numbers"),
        (own, "auroc", draw(N, C), draw(N, classes=C), r"does not say how the outputs become probabilities"),
        (own, "accuracy", draw(N, 5, 5), draw(N, 5, classes=5), r"dimension 1 or the last one may hold the classes"),
        (own, "accuracy", draw(N, C), draw(N, 2, classes=C), r"output \[23, 4\] float32 and target \[23, 2\] int64 do"),
        (nn.CrossEntropyLoss(), "accuracy", draw(N, C), draw(N, classes=9), r"target \d is not one of the 4 classes"),
        (
            nn.CrossEntropyLoss(ignore_index=0),
            "accuracy",
            draw(N, C),
            torch.full((N,), -100),
            r"target -100 is not one",
        ),
        (nn.BCEWithLogitsLoss(), "f1", draw(N, 3, 5), draw(N, 3, 5, classes=2), r"whether D are labels or places"),
        (nn.BCEWithLogitsLoss(), "auroc", draw(N, 3, 5), draw(N, 3, 5, classes=2), r"dimension 1 .* holds labels"),
        (
            nn.BCEWithLogitsLoss(),
            "f1",
            draw(N),
            draw(N, 1, classes=2),
            r"output \[23\] .* target \[23, 1\] .* one shape",
        ),
        (nn.BCEWithLogitsLoss(), "f1", draw(N), draw(N, classes=3), r"must lie between 0 and 1, and here it is 2"),
        (own, "mae", draw(N, 3), draw(N), r"output \[23, 3\] float32 and target \[23\] float32 must have one shape"),
        (own, "mae", [1], draw(N), r"needs one tensor of predictions and one of targets, not list"),
    ],
)
def test_what_is_not_known_is_refused_with_the_way(loss, name, output, target, message):
    with pytest.raises(TrainingError, match=rf"metric '{name}' could not .*: .*{message}") as caught:
        measured([name], loss, (output, target))
    assert isinstance(caught.value, DlkitError)


@pytest.mark.parametrize(
    ("loss", "name", "told"),
    [
        (nn.MultiMarginLoss(), "auroc", "MultiMarginLoss"),
        (nn.MSELoss(), "accuracy", "MSELoss"),
        (functools.partial(F.l1_loss, reduction="sum"), "f1", "l1_loss"),
        (nn.CrossEntropyLoss(), "mae", "CrossEntropyLoss"),
        (F.binary_cross_entropy, "rmse", "binary_cross_entropy"),
    ],
)
def test_a_metric_that_the_loss_contradicts_is_refused_before_any_training(loss, name, told):
    net = nn.Linear(2, 2)
    with pytest.raises(
        ArgumentError, match=rf"metric '{name}' cannot be told of what {told} compares; say how .*loss="
    ):
        Trainer(net, loss, torch.optim.SGD(net.parameters(), 0.1), metrics=[name], progress=False, device="cpu")


def test_the_way_that_the_refusal_names():
    output, target = draw(N), draw(N, seed=1, classes=2).float()
    for reads in (nn.BCEWithLogitsLoss(), nn.BCELoss()):
        said = Metrics(Metrics(["accuracy"], loss=reads), loss=own)  # what the Trainer does with it
        said.update(output.sigmoid(), target)
        assert said.compute() == measured(["accuracy"], reads, (output.sigmoid(), target))
    assert Metrics(Metrics({"mine": "f1"}), loss=nn.BCELoss()).higher_is_better("mine")


def test_logits_are_called_so_by_models_that_return_the_loss_themselves():
    output, target = draw(N, 1), draw(N, seed=1, classes=2)
    known = measured(CLASSIFICATION, nn.BCEWithLogitsLoss(), (output[:, 0], target.float()))
    assert measured(CLASSIFICATION, None, (SimpleNamespace(loss=0, logits=output), target)) == known
    assert measured(CLASSIFICATION, None, ({"loss": 0, "logits": output}, target)) == known
    output, target = draw(N, C), draw(N, seed=1, classes=C)
    known = measured(CLASSIFICATION, nn.CrossEntropyLoss(), (output, target))
    assert measured(CLASSIFICATION, None, (SimpleNamespace(loss=0, logits=output), target)) == known


# ------------------------------------------------------------------------------------------------- edges of the values


def test_a_metric_of_nothing_or_of_nan_is_nan():
    assert measured(names(), None) == {}
    ignored = (draw(2, C), torch.tensor([0, 0]))
    found = measured(CLASSIFICATION, nn.CrossEntropyLoss(ignore_index=0), ignored)
    assert all(np.isnan(value) for value in found.values())
    broken = (torch.full((4, C), float("nan")), torch.zeros(4, dtype=torch.long))
    assert all(np.isnan(value) for value in measured(CLASSIFICATION, nn.CrossEntropyLoss(), broken).values())
    broken = (torch.full((4,), float("nan")), torch.zeros(4))
    assert all(np.isnan(value) for value in measured(REGRESSION, nn.MSELoss(), broken).values())


def test_r2_where_nothing_varies_and_of_large_numbers():
    same = torch.full((5,), 3.0)
    assert measured(["r2"], nn.MSELoss(), (same, same)) == {"r2": 1.0}
    assert measured(["r2"], nn.MSELoss(), (same + 1, same)) == {"r2": 0.0}
    assert np.isnan(measured(["r2"], nn.MSELoss(), (same[:1], same[:1]))["r2"])
    truth = torch.arange(10.0).double() + 1e9
    found = in_two(nn.MSELoss(), truth + 1, truth, ["r2"])["r2"]
    assert found == pytest.approx(1 - 10 / 82.5, rel=1e-9)


def test_a_poisson_loss_predicts_the_logarithm():
    output, target = draw(N, 2), draw(N, 2, classes=5).float()
    errors = (output.double().exp() - target).abs().mean()
    assert in_two(nn.PoissonNLLLoss(), output, target, ["mae"])["mae"] == pytest.approx(float(errors), rel=1e-6)
    straight = nn.PoissonNLLLoss(log_input=False)
    assert in_two(straight, output.exp(), target, ["mae"])["mae"] == pytest.approx(float(errors), rel=1e-6)
    partial = functools.partial(F.poisson_nll_loss, log_input=False)
    assert in_two(partial, output.exp(), target, ["mae"])["mae"] == pytest.approx(float(errors), rel=1e-6)


def test_half_precision_counts_as_exact():
    output, target = draw(N, C).bfloat16(), draw(N, seed=1, classes=C)
    assert in_two(nn.CrossEntropyLoss(), output, target) == in_two(nn.CrossEntropyLoss(), output.float(), target)
    preds = draw(N).half()
    assert in_two(nn.MSELoss(), preds, draw(N, seed=1), REGRESSION) == in_two(
        nn.MSELoss(), preds.float(), draw(N, seed=1), REGRESSION
    )


def test_classes_that_come_and_go():
    metrics = Metrics(["accuracy"])
    metrics.update(draw(N, C), draw(N, classes=C))
    with pytest.raises(TrainingError, match="the output has 5 classes, that of earlier batches 4"):
        metrics.update(draw(N, 5), draw(N, classes=C))


def test_a_mean_beside_names_and_a_compiled_loss():
    off = Mean(lambda preds, target: (preds - target).abs().mean(), higher_is_better=False)
    found = measured({"mine": off, "theirs": "mae"}, nn.L1Loss(), (draw(N), draw(N, seed=1)))
    assert found["mine"] == pytest.approx(found["theirs"])
    assert objective_of(SimpleNamespace(_orig_mod=nn.CrossEntropyLoss(ignore_index=7))).ignore_index == 7
    assert objective_of(None).kind is None
