"""Spam or not? A classifier for text messages in a minute on two cores, beside TF-IDF and logistic regression.

    python examples/sms_spam.py SMSSpamCollection [--fast] [--runs runs/sms]
    python examples/sms_spam.py --smoke     # made-up messages, some seconds

The file is the SMS Spam Collection (Almeida, Gómez Hidalgo & Yamakami 2011), from the UCI repository: 5,574 messages,
tab-separated, without a header, and with quotes that are never closed. One message has a line break in it, so that its
second half is a line without a label: it is skipped, and listed. Messages that occur twice never fall on both sides
of the split. Run it again and it continues, or only shows what it reached.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path
from statistics import fmean

import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from dlkit import DataLoader, Trainer, plots, seed_everything
from dlkit.callbacks import Checkpoint
from dlkit.datasets import TextDataset
from dlkit.models import TextClassifier

BASELINES: dict[str, dict[str, object]] = {
    "TF-IDF of words": {},
    "TF-IDF of word parts": {"analyzer": "char_wb", "ngram_range": (2, 4)},
}


def made_up(folder: Path) -> Path:
    """Messages in the same form."""
    draw = random.Random(0)
    words = {
        "ham": ["see", "you", "at", "home", "later", "lunch"],
        "spam": ["win", "cash", "call", "now", "free", "txt"],
    }
    kinds = draw.choices(["ham", "spam"], [6, 1], k=600)
    lines = [
        f"{kind}\t{' '.join(draw.choices([*words[kind], 'ok', 'the', 'a'], k=8))} {n}" for n, kind in enumerate(kinds)
    ]
    (folder / "messages").write_text("\n".join(lines), encoding="utf-8")
    return folder / "messages"


def dlkit_accuracy(
    train: TextDataset, val: TextDataset, test: TextDataset, epochs: int, folder: Path, picture: Path | None
) -> float:
    """Train a bag of embeddings over a byte pair encoding, and test the best epoch's weights."""
    seed_everything(0)
    model = TextClassifier(len(train.vocabulary), len(train.classes), encoder="bag")
    trainer = Trainer(
        model,
        torch.nn.CrossEntropyLoss(),
        torch.optim.AdamW(model.parameters(), 1e-2),
        metrics=["accuracy"],
        callbacks=[Checkpoint(folder, monitor="val_loss")],
        progress=False,
    )
    trainer.fit(DataLoader(train, 64, shuffle=True), DataLoader(val, 256), epochs=epochs)
    if picture:
        probabilities = trainer.predict(DataLoader(test, 256)).softmax(1)
        plots.roc_curve(test.targets, probabilities, test.classes, path=picture)
    return float(trainer.evaluate(DataLoader(test, 256))["accuracy"])


def baseline_accuracy(train: TextDataset, test: TextDataset, **options: object) -> float:
    """The usual first answer: word weights and a linear model."""
    assert train.targets is not None
    assert test.targets is not None
    model = make_pipeline(TfidfVectorizer(**options), LogisticRegression(max_iter=1000))
    model.fit(train.texts, train.targets.numpy())
    return float(model.score(test.texts, test.targets.numpy()))


def main() -> None:
    """Train and test on a few splits, and print the accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--picture", type=Path, help="draw how well it ranks the texts into this file")
    parser.add_argument("--smoke", action="store_true", help="made-up texts, with --fast: some seconds")
    parser.add_argument("--fast", action="store_true", help="one split, two epochs and one baseline")
    parser.add_argument("--runs", type=Path, default=Path("runs/sms"))
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.file, arguments.fast = made_up(Path(tempfile.mkdtemp())), True
    elif arguments.file is None:
        parser.error("give the file, or --smoke")
    baselines = list(BASELINES)[: 1 if arguments.fast else None]
    results: list[dict[str, float]] = []
    for seed in range(1 if arguments.fast else 5):
        train, val, test = TextDataset.split(
            arguments.file, text=1, target=0, tokenizer="bpe", max_size=2000, on_error="skip", seed=seed
        )
        if seed == 0:
            print(train, "\nskipped:", *map(str, train.skipped))
        reached = {
            "dlkit": dlkit_accuracy(
                train, val, test, 2 if arguments.fast else 10, arguments.runs / str(seed), arguments.picture
            )
        }
        reached |= {name: baseline_accuracy(train, test, **BASELINES[name]) for name in baselines}
        results.append(reached)
        print(f"split {seed}:", ", ".join(f"{name} {value:.4f}" for name, value in reached.items()), flush=True)
    means = {name: fmean(reached[name] for reached in results) for name in results[0]}
    print("mean:", ", ".join(f"{name} {value:.4f}" for name, value in means.items()))


if __name__ == "__main__":
    main()
