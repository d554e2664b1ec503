"""Adult (census income): two files in their original form to a trained model, beside scikit-learn on the same rows.

    python examples/adult.py [FOLDER]    # with adult.data and adult.test; fetched from the UCI archive if not given
    python examples/adult.py --smoke     # made-up people, some seconds

The files have blanks after their commas, `?` for unknown, and class names in the test file that end with a point.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch.optim.lr_scheduler import OneCycleLR

from dlkit import DataLoader, Trainer, plots
from dlkit.callbacks import LearningRate
from dlkit.datasets import CSVDataset
from dlkit.download import fetch
from dlkit.models import TabularMLP

URL = "https://archive.ics.uci.edu/ml/machine-learning-databases/adult/"
COLUMNS = [
    *("age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship"),
    *("race", "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country", "classification"),
]


def made_up(rows: int = 600) -> Path:
    """Two files of the same form."""
    rng = np.random.default_rng(0)
    folder = Path(tempfile.mkdtemp())
    for name, point in (("adult.data", ""), ("adult.test", ".")):
        lines = [", ".join(COLUMNS)]
        for _ in range(rows):
            age, hours, years = int(rng.integers(17, 80)), int(rng.integers(10, 70)), int(rng.integers(1, 17))
            rich = rng.random() < (years + hours / 10) / 30
            words = [
                rng.choice(choice) for choice in (["Private", "?"], ["HS", "BA"], ["Wed", "Single"], ["Sales", "?"])
            ]
            cells = [age, words[0], int(rng.integers(10_000, 900_000)), words[1], years, words[2], words[3], "Wife"]
            cells += ["White", "Male", 0, 0, hours, "Cuba", (">50K" if rich else "<=50K") + point]
            lines.append(", ".join(map(str, cells)))
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def datasets(folder: Path | None) -> tuple[CSVDataset, CSVDataset, CSVDataset]:
    """Nine tenths of adult.data for training, one for validation, and adult.test for the test."""
    if folder is None:
        folder = fetch(URL + "adult.data", "data/adult/adult.data").parent
        fetch(URL + "adult.test", "data/adult/adult.test")
    with open(folder / "adult.data") as file:
        names = None if file.readline().startswith("age") else COLUMNS  # the original files have no header row
    # The original adult.test begins with a line that is not a row; it is skipped, and listed in `test.skipped`.
    form: Any = {"header": names, "on_error": "skip"}
    train, val = CSVDataset.split(folder / "adult.data", target="classification", fractions=0.9, **form)
    aliases = {"<=50K.": "<=50K", ">50K.": ">50K"}
    return train, val, CSVDataset(folder / "adult.test", spec=train.spec, aliases=aliases, **form)


def train_mlp(train: CSVDataset, val: CSVDataset, epochs: int) -> Trainer:
    torch.manual_seed(0)
    model = TabularMLP(train.spec, dropout=0.3)
    loader = DataLoader(train, 256, shuffle=True)
    optim = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=1e-2)
    rate = LearningRate(OneCycleLR(optim, 2e-3, total_steps=epochs * len(loader)), every="step")
    loss = torch.nn.CrossEntropyLoss()
    trainer = Trainer(model, loss, optim, metrics=["accuracy"], callbacks=[rate], progress=False)
    trainer.fit(loader, DataLoader(val, 2048), epochs=epochs)
    return trainer


def sklearn_models(train: CSVDataset) -> dict[str, Any]:
    """The same columns, with the usual preprocessing of each."""
    numbers, categories = [column.name for column in train.spec.numbers], train.spec.categorical_features
    scaled = make_column_transformer((StandardScaler(), numbers), (OneHotEncoder(handle_unknown="ignore"), categories))
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
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--picture", type=Path, help="draw how far its probabilities can be trusted into this file")
    parser.add_argument("--smoke", action="store_true", help="made-up people, two epochs")
    options = parser.parse_args()
    if options.smoke:
        options.folder, options.epochs = made_up(), 2

    train, val, test = datasets(options.folder)
    print(train, train.spec, train.describe(test), sep="\n\n")
    began = time.perf_counter()
    trainer = train_mlp(train, val, options.epochs)
    accuracy = trainer.evaluate(DataLoader(test, 2048))["accuracy"]
    print(f"\naccuracy on the {len(test)} rows of adult.test:")
    print(f"  {'TabularMLP':22} {accuracy:.4f}  ({time.perf_counter() - began:.0f} s)")
    if options.picture:
        probabilities = trainer.predict(DataLoader(test, 2048)).softmax(1)
        plots.calibration_curve(test.targets, probabilities, path=options.picture)
    known = frame(train)
    for name, model in sklearn_models(train).items():
        began = time.perf_counter()
        model.fit(known, train.targets)
        score = model.score(frame(test, known), test.targets)
        print(f"  {name:22} {score:.4f}  ({time.perf_counter() - began:.0f} s)")


if __name__ == "__main__":
    main()
