"""Estimators for scikit-learn: its own checks, frames of anything, texts, pipelines and searches."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from dlkit.errors import ArgumentError
from dlkit.sklearn import TableClassifier, TableRegressor, TextClassifier, TextRegressor

DRAWN = np.random.default_rng(0)
ROWS = DRAWN.normal(size=(160, 3))
WORDS = ["splendid film", "what a joy", "so dull", "a bore, truly"] * 10
KINDS = ["good", "good", "bad", "bad"] * 10


@pytest.mark.parametrize(
    "estimator",
    [TableClassifier("mlp", epochs=12), TableRegressor("mlp", epochs=15), TextClassifier(), TextRegressor()],
    ids=lambda estimator: type(estimator).__name__,
)
def test_scikit_learns_own_checks(estimator: Any) -> None:
    with warnings.catch_warnings():  # the checks fit what warns, and say which of them mean nothing for texts
        warnings.simplefilter("ignore")
        results = check_estimator(estimator, on_fail=None)
    assert [f"{each['check_name']}: {each['exception']!r}" for each in results if each["status"] == "failed"] == []
    assert estimator.get_params()["validation"] == 0.15


def test_a_frame_of_numbers_words_dates_and_gaps() -> None:
    frame = pd.DataFrame({"x": ROWS[:, 0], "kind": ["a", "b"] * 80, "when": pd.date_range("2024", periods=160)})
    frame.loc[3, "x"] = np.nan
    frame.loc[4, "kind"] = None
    wanted = np.where(frame["x"].fillna(0) + 2 * (frame["kind"] == "a") > 1, "yes", "no")
    model = TableClassifier("mlp", epochs=30).fit(frame, wanted)
    assert model.score(frame, wanted) > 0.9
    assert model.predict_proba(frame).sum(1) == pytest.approx(np.ones(160))
    assert model.feature_names_in_.tolist() == ["x", "kind", "when"]
    new = frame.iloc[:4].assign(kind=["a", "never seen", None, "b"])
    assert model.predict(new).shape == (4,)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame.rename(columns={"x": "z"}))


def test_the_same_seed_is_the_same_model_and_survives_a_pickle() -> None:
    target = ROWS[:, 0] * 300 + 1000
    one, two = (TableRegressor("mlp", epochs=5, random_state=3).fit(ROWS, target) for _ in range(2))
    np.testing.assert_array_equal(one.predict(ROWS), two.predict(ROWS))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(one)).predict(ROWS), two.predict(ROWS))
    assert 500 < one.predict(ROWS).mean() < 1500


def test_the_usual_choice_is_the_recipes_own() -> None:
    model = TableClassifier(epochs=2).fit(ROWS, ROWS[:, 0] > 0)
    assert (model.arch_, type(model.model_).__name__) == ("ensemble", "TabularEnsemble")
    assert model.classes_.tolist() == [False, True]
    with pytest.raises(ArgumentError, match="do you mean 'mlp'"):
        TableClassifier("mpl").fit(ROWS, ROWS[:, 0] > 0)


@pytest.mark.parametrize("arch", ["boosting", "blend", "mixed"])
def test_other_models_answer_too(arch: str) -> None:
    model = TableClassifier(arch, epochs=5).fit(ROWS, ROWS[:, 0] > 0)
    assert model.score(ROWS, ROWS[:, 0] > 0) > 0.8
    np.testing.assert_allclose(model.predict_proba(ROWS[:3]), model.predict_proba(ROWS)[:3], atol=1e-6)


def test_pipelines_searches_and_folds() -> None:
    frame, wanted = pd.DataFrame(ROWS, columns=list("abc")), (ROWS[:, 0] > 0).astype(int)
    scaled = make_column_transformer((StandardScaler(), ["a", "b"]), remainder="drop")
    pipeline = make_pipeline(scaled, TableClassifier("mlp", epochs=12))
    assert cross_val_score(pipeline, frame, wanted, cv=3).mean() > 0.8
    found = GridSearchCV(TableClassifier("mlp"), {"epochs": [1, 12]}, cv=2).fit(ROWS, wanted)
    assert found.best_params_ == {"epochs": 12}


def test_texts() -> None:
    model = TextClassifier().fit(pd.Series(WORDS), KINDS)
    assert model.predict(["a splendid joy", "dull, truly"]).tolist() == ["good", "bad"]
    assert TextClassifier("bag", epochs=30).fit(WORDS, KINDS).score(WORDS, KINDS) == 1
    assert TextClassifier().fit(WORDS, ["one"] * 40).predict(["x"]).tolist() == ["one"]
    numbers = TextRegressor().fit(WORDS, np.where(np.array(KINDS) == "good", 40.5, 10))
    good, bad = numbers.predict(["splendid film", "so dull"])
    assert good > 30 > 20 > bad
    with pytest.raises(ValueError, match="texts must be strings, not 3"):
        TextClassifier().fit([3, 4], [0, 1])
    with pytest.raises(NotFittedError):
        TextClassifier().predict(["x"])
