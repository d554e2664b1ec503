"""Titanic: a CSV with gaps to a trained model, and what scikit-learn reaches on the same rows.

    python examples/titanic.py [titanic.csv]    # fetched from seaborn's collection if not given
    python examples/titanic.py --smoke          # made-up passengers, some seconds

With under a thousand rows the luck of a split moves the accuracy by several points, so every model is trained and
tested on ten of them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from dlkit import DataLoader, Trainer, plots
from dlkit.callbacks import EarlyStopping
from dlkit.datasets import CSVDataset
from dlkit.models import TabularMLP

URL = "https://raw.githubusercontent.com/mwaskom/seaborn-data/master/titanic.csv"
# "alive" is the target in words: `train.describe()` finds it. The others repeat columns that are there already.
DROP = ["alive", "class", "embark_town", "adult_male", "who", "alone"]


def made_up() -> Path:
    """A table with the same columns and gaps."""
    rng = np.random.default_rng(0)
    rows = 300
    sex, pclass = rng.choice(["male", "female"], rows), rng.integers(1, 4, rows)
    survived = (rng.random(rows) < np.where(sex == "female", 0.9, 0.3) - 0.1 * pclass).astype(int)
    age = np.where(rng.random(rows) < 0.2, np.nan, rng.integers(1, 80, rows))
    columns: dict[str, Any] = {"survived": survived, "pclass": pclass, "sex": sex, "age": age}
    columns |= {"sibsp": rng.integers(0, 3, rows), "parch": rng.integers(0, 3, rows)}
    columns |= {"fare": rng.exponential(30, rows).round(4), "embarked": rng.choice(["S", "C", "Q", ""], rows)}
    columns |= {"deck": rng.choice(["A", "B", "", "", ""], rows)}
    columns |= {name: np.where(survived == 1, "yes", "no") for name in DROP}
    path = Path(tempfile.mkdtemp()) / "titanic.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def train_mlp(train: CSVDataset, val: CSVDataset, epochs: int) -> Trainer:
    torch.manual_seed(0)
    model = TabularMLP(train.spec, hidden=(64, 32), dropout=0.3)
    optim = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=1e-2)
    stop = EarlyStopping(patience=10)
    trainer = Trainer(model, torch.nn.CrossEntropyLoss(), optim, metrics=["accuracy"], callbacks=[stop], progress=False)
    trainer.fit(DataLoader(train, 32, shuffle=True), DataLoader(val, 256), epochs=epochs)
    return trainer


def sklearn_models(train: CSVDataset) -> dict[str, Any]:
    """The same columns, with the usual preprocessing of each."""
    numbers = [column.name for column in train.spec.numbers]
    categories = train.spec.categorical_features
    scaled = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler()), numbers),
        (OneHotEncoder(handle_unknown="ignore"), categories),
    )
    boosting = HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=0)
    return {
        "logistic regression": make_pipeline(scaled, LogisticRegression(max_iter=1000)),
        "HistGradientBoosting": boosting,
    }


def frame(ds: CSVDataset, like: pd.DataFrame | None = None) -> pd.DataFrame:
    """The columns that the spec uses; categories as such, with the values of `like`."""
    data = ds.to_pandas()[[column.name for column in ds.spec.columns if column.used]]
    for name in ds.spec.categorical_features:
        data[name] = pd.Categorical(data[name], None if like is None else like[name].cat.categories)
    return data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", default=URL)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--picture", type=Path, help="draw how well the last model ranks passengers into this file")
    parser.add_argument("--smoke", action="store_true", help="made-up passengers, two splits, two epochs")
    options = parser.parse_args()
    if options.smoke:
        options.table, options.splits, options.epochs = made_up(), 2, 2

    results: dict[str, list[float]] = {}
    for seed in range(options.splits):
        parts = CSVDataset.split(options.table, target="survived", drop=DROP, fractions=(0.7, 0.1, 0.2), seed=seed)
        train, val, test = parts
        if seed == 0:
            print(train, train.spec, CSVDataset(options.table, target="survived").describe(), sep="\n\n")
        trainer = train_mlp(train, val, options.epochs)
        results.setdefault("TabularMLP", []).append(trainer.evaluate(DataLoader(test, 256))["accuracy"])
        known = frame(train)
        for name, model in sklearn_models(train).items():
            model.fit(known, train.targets)
            results.setdefault(name, []).append(model.score(frame(test, known), test.targets))
    if options.picture:
        probabilities = trainer.predict(DataLoader(test, 256)).softmax(1)
        plots.roc_curve(test.targets, probabilities, test.classes, path=options.picture)
    print(f"\naccuracy on the test rows of {options.splits} splits:")
    for name, values in results.items():
        print(f"  {name:22} {statistics.mean(values):.3f}  (from {min(values):.3f} to {max(values):.3f})")


if __name__ == "__main__":
    main()
