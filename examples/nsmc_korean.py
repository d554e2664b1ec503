"""Do they like the film? Korean reviews as a bag of character n-grams, beside TF-IDF and logistic regression.

    python examples/nsmc_korean.py ratings_train.txt ratings_test.txt [--fast] [--runs runs/nsmc]

The files are those of the Naver sentiment movie corpus (e9t/nsmc, CC0): tab-separated, with a header. In Korean a word
has many endings, so words are a poor unit; runs of one to three characters carry stem and ending alike. Run it again
and it continues, or only shows what it reached.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from dlkit import DataLoader, Trainer, plots, seed_everything
from dlkit.callbacks import Checkpoint, EarlyStopping
from dlkit.datasets import TextDataset
from dlkit.models import TextClassifier

BASELINES: dict[str, dict[str, object]] = {
    "TF-IDF of words": {},
    "TF-IDF of word parts": {"analyzer": "char_wb", "ngram_range": (2, 4)},
}


def made_up(folder: Path, count: int) -> Path:
    """Reviews in the same form."""
    draw = random.Random(count)
    said = {0: ["지루했어요", "최악이었다", "돈이 아깝네요"], 1: ["재밌게 봤습니다", "최고였다", "감동적이었어요"]}
    path, lines = folder / f"{count}.txt", ["id\tdocument\tlabel"]
    for number in range(count):
        label = draw.randrange(2)
        about = draw.choice(["이 영화", "주말에 본 작품", "배우들", "이야기"])
        lines.append(f"{number}\t{about} {draw.choice(said[label])} {number}\t{label}")
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def dlkit_accuracy(
    train: TextDataset, val: TextDataset, test: TextDataset, epochs: int, folder: Path, picture: Path | None
) -> float:
    """Train, stop when the validation accuracy no longer rises, and test the best epoch's weights."""
    seed_everything(0)
    model = TextClassifier(len(train.vocabulary), len(train.classes), encoder="bag", width=32, dropout=0.5)
    trainer = Trainer(
        model,
        torch.nn.CrossEntropyLoss(),
        torch.optim.AdamW(model.parameters(), 5e-3),
        metrics=["accuracy"],
        callbacks=[Checkpoint(folder, monitor="val_accuracy"), EarlyStopping("val_accuracy", patience=2)],
    )
    trainer.fit(DataLoader(train, 64, shuffle=True), DataLoader(val, 256), epochs=epochs)
    if picture:
        probabilities = trainer.predict(DataLoader(test, 256)).softmax(1)
        plots.roc_curve(test.targets, probabilities, test.classes, path=picture)
    return float(trainer.evaluate(DataLoader(test, 256))["accuracy"])


def baseline_accuracy(train: TextDataset, test: TextDataset, **options: object) -> float:
    """The usual first answer: weights of words or of their parts, and a linear model."""
    assert train.targets is not None
    assert test.targets is not None
    model = make_pipeline(TfidfVectorizer(**options), LogisticRegression(max_iter=1000))
    model.fit(train.texts, train.targets.numpy())
    return float(model.score(test.texts, test.targets.numpy()))


def main() -> None:
    """Train, test, and print the accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", nargs="?", type=Path)
    parser.add_argument("test", nargs="?", type=Path)
    parser.add_argument("--picture", type=Path, help="draw how well it ranks the texts into this file")
    parser.add_argument("--smoke", action="store_true", help="made-up texts, with --fast: some seconds")
    parser.add_argument("--fast", action="store_true", help="one epoch, a small vocabulary and one baseline")
    parser.add_argument("--runs", type=Path, default=Path("runs/nsmc"))
    arguments = parser.parse_args()
    if arguments.smoke:
        folder = Path(tempfile.mkdtemp())
        arguments.train, arguments.test, arguments.fast = made_up(folder, 600), made_up(folder, 200), True
    elif arguments.test is None:
        parser.error("give both files, or --smoke")
    train, val = TextDataset.split(
        arguments.train,
        text="document",
        target="label",
        tokenizer="ngrams",
        max_size=5000 if arguments.fast else None,
        fractions=0.9,
    )
    test = TextDataset(arguments.test, text="document", target="label", spec=train.spec)
    print(train)
    reached = {
        "dlkit": dlkit_accuracy(
            train, val, test, 1 if arguments.fast and not arguments.smoke else 8, arguments.runs, arguments.picture
        )
    }
    for name in list(BASELINES)[: 1 if arguments.fast else None]:
        reached[name] = baseline_accuracy(train, test, **BASELINES[name])
    print(", ".join(f"{name} {value:.4f}" for name, value in reached.items()))


if __name__ == "__main__":
    main()
