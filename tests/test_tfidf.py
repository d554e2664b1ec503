"""The default for texts: scikit-learn's TF-IDF and logistic regression, bit for bit the same in every batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

import dlkit
from dlkit.datasets import TextDataset
from dlkit.errors import ArgumentError, TrainingError
from dlkit.models import TfidfLinear
from dlkit.recipes import train
from dlkit.tokens import runs, words_and_pairs, words_and_runs

WORDS = ["great", "dull", "long", "film", "plot", "so", "not", "very", "end"]


def frame(size: int = 150) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 8))) for _ in range(size)]
    labels = ["good" if "great" in t and "not" not in t else "bad" if "dull" in t else "neither" for t in texts]
    return pd.DataFrame({"text": texts, "label": labels})


def data(tokenizer: str = "words-and-pairs", **options: Any) -> TextDataset:
    return TextDataset(frame(), target="label", tokenizer=tokenizer, min_freq=1, **options)


@pytest.mark.parametrize(
    ("name", "cut"), [("words-and-pairs", words_and_pairs), ("runs", runs), ("words-and-runs", words_and_runs)]
)
def test_it_gives_what_scikit_learn_gives(name: str, cut: Any) -> None:
    ds = data(name)
    model = TfidfLinear.for_data(ds, strength=4.0)
    inputs = TfidfVectorizer(analyzer=cut, sublinear_tf=True).fit_transform(ds.texts)
    wanted = LogisticRegression(C=4.0, max_iter=500, tol=1e-8).fit(inputs, ds.targets).predict_proba(inputs)
    batch, _ = ds.collate([ds[place] for place in range(len(ds))])
    with torch.no_grad():
        found = model(**batch).softmax(1).numpy()
        alone = model(ds[3][0][None]).softmax(1)[0].numpy()
    assert np.abs(found - wanted).max() < 2e-3
    assert np.abs(found[3] - alone).max() < 1e-6  # beside longer texts as by itself


def test_a_path_of_strengths_ends_where_each_of_them_ends() -> None:
    ds = data()
    *_, last = TfidfLinear.path([ds], [1.0, 8.0])
    alone = TfidfLinear.for_data(ds, strength=8.0)
    assert (last.weight - alone.weight).abs().max().item() < 2e-2


def test_unknown_tokens_and_empty_texts_count_for_nothing() -> None:
    model = TfidfLinear.for_data(data())
    with torch.no_grad():
        both, known = model(
            torch.tensor([[4, 1, 1, 5], [4, 5, 0, 0]]), torch.tensor([[True] * 4, [True, True, False, False]])
        )
        assert torch.allclose(both, known)
        assert torch.equal(model(torch.zeros(2, 0, dtype=torch.int64)), model.bias.expand(2, -1))
        assert torch.equal(model(torch.tensor([[1]]))[0], model.bias)


def test_pairs_have_weights_for_each_side() -> None:
    table = frame().assign(second=["so dull", "great plot"] * 75)
    table["label"] = ["bad", "good"] * 75
    ds = TextDataset(table, target="label", pair="second", min_freq=1)
    model = TfidfLinear.for_data(ds)
    batch, targets = ds.collate([ds[place] for place in range(20)])
    assert (model(**batch).argmax(1) == targets).all()
    assert len(model.weight) == 2 * len(ds.vocabulary)


def test_what_does_not_fit_is_named() -> None:
    model = TfidfLinear.for_data(data())
    with pytest.raises(TrainingError, match=r"takes input_ids \[B, L\] and a mask"):
        model(torch.zeros(3, dtype=torch.int64))
    with pytest.raises(TrainingError, match="a token number is outside"):
        model(torch.tensor([[10**6]]))
    with pytest.raises(ArgumentError, match="strength must be above 0"):
        TfidfLinear.for_data(data(), strength=0)
    with pytest.raises(ArgumentError, match="no targets to learn"):
        TfidfLinear.for_data(TextDataset(frame()[["text"]]))


def test_the_recipe_chooses_on_validation_rows_and_writes_one_file(tmp_path: Path) -> None:
    options: dict[str, Any] = {"text": "text", "target": "label", "out": tmp_path, "progress": False}
    trained = train(frame(400), **options)
    assert trained.metrics["accuracy"] >= 0.9
    assert isinstance(trained.model, TfidfLinear)
    predictor = dlkit.load(trained.path)
    assert predictor.predict_one("so GREAT").label == "good"  # in lower case, as was chosen
    assert predictor.evaluate(trained.data.test)["accuracy"] == pytest.approx(trained.metrics["accuracy"])
    assert train(frame(400), **options).metrics == trained.metrics
    assert train(frame(400), **options).history.rows == trained.history.rows
    with pytest.raises(ArgumentError, match=r"epochs=3: linear is fitted at once.*arch='bag' is trained in steps"):
        train(frame(400), epochs=3, **options)


def test_what_was_chosen_is_fitted_again_to_all_rows_but_those_of_the_test_part(tmp_path: Path) -> None:
    """Else a tenth of the rows would only choose; and where they judge, they must not be learnt from."""
    table = frame(300)
    table.loc[table.index % 7 == 0, "text"] += " only" + table.index[table.index % 7 == 0].astype(str)  # one text each
    options: dict[str, Any] = {"text": "text", "target": "label", "progress": False}
    trained = train(table, out=tmp_path / "three", **options)
    data = trained.data
    whole = TfidfLinear.for_data(data.train, data.val, strength=1.0)
    assert torch.equal(trained.model.idf, whole.idf)
    words = {token for text in data.val.texts for token in data.train.vocabulary.tokenize(text)}
    assert words <= set(data.train.vocabulary.tokens)
    two = train(table, out=tmp_path / "two", fractions=(0.8, 0.2), **options)
    assert two.judged_on == "val"
    assert torch.equal(two.model.idf, TfidfLinear.for_data(two.data.train).idf)


def prices(size: int = 150) -> pd.DataFrame:
    worth = dict(zip(WORDS, range(-300, 600, 100), strict=True))
    texts = frame(size)["text"]
    return pd.DataFrame({"text": texts, "price": [1000.5 + np.mean([*map(worth.get, t.split())]) for t in texts]})


def test_numbers_as_targets_are_ridge_regression_in_their_own_units() -> None:
    ds = TextDataset(prices(), target="price", tokenizer="words-and-pairs", min_freq=1)
    model = TfidfLinear.for_data(ds, strength=4.0)
    inputs = TfidfVectorizer(analyzer=words_and_pairs, sublinear_tf=True).fit_transform(ds.texts)
    wanted = Ridge(alpha=1 / 8).fit(inputs, ds.targets).predict(inputs)
    batch, targets = ds.collate([ds[place] for place in range(len(ds))])
    with torch.no_grad():
        found = model(**batch)
    assert found.shape == targets.shape
    assert np.abs(found.numpy() - wanted).max() < 1e-2 * float(targets.std())


@pytest.mark.parametrize("options", [{}, {"arch": "bag", "epochs": 30, "batch_size": 16}])
def test_a_recipe_for_numbers_as_targets(tmp_path: Path, options: dict[str, Any]) -> None:
    done = train(prices(), text="text", target="price", out=tmp_path / "run", progress=False, **options)
    assert done.metrics["r2"] > 0.5
    cheap, dear = dlkit.load(done.path).predict(["great dull long film", "end end very very"])["price"]
    assert 0 < float(cheap) < 1000 < float(dear)
