"""The demo: `python -m dlkit.demo` trains a small convnet on notMNIST, tests it and draws three pictures.

Every step of a project with dlkit, one call each. Start it again after Ctrl-C or a kill, and it continues.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from dlkit import plots
from dlkit._language import Message
from dlkit.callbacks.checkpoint import Checkpoint
from dlkit.callbacks.early_stopping import EarlyStopping
from dlkit.callbacks.learning_rate import LearningRate
from dlkit.datasets.letters.glyphs import Glyphs
from dlkit.datasets.letters.notmnist import NotMNIST
from dlkit.datasets.letters.packed import PackedImages
from dlkit.errors import DlkitError, DownloadError
from dlkit.models import SmallConvNet
from dlkit.rng import seed_everything
from dlkit.runs.history import History
from dlkit.training.trainer import Trainer

__all__ = ["EPOCHS", "main"]

EPOCHS = 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return the exit code: 0, or 130 after Ctrl-C.

    Args:
        arguments: `--out`, `--epochs`, `--fast`; None takes those of the command line.

    >>> main(["--help"])  # doctest: +SKIP
    """
    options = _parser().parse_args(arguments)
    data = Glyphs(2_000) if options.fast else _letters()
    folder = options.out / (type(data).__name__.lower() + ("-fast" if options.fast else ""))
    train, val, test = data.split([0.7, 0.1, 0.2], stratify=True, seed=0)
    sizes = {"train": len(train), "val": len(val), "test": len(test)}
    counts = Message("training on {train:,}, validating on {val:,}, testing on {test:,}", **sizes)
    print(f"{data!r}\n{counts.here()}", flush=True)

    seed_everything(0)
    model = SmallConvNet(len(data.classes), dropout=0.5)
    loader = DataLoader(train, 128, shuffle=True)
    optim = torch.optim.AdamW(model.parameters(), lr=3e-3)
    steps = options.epochs * len(loader)
    trainer = Trainer(
        model,
        torch.nn.CrossEntropyLoss(),
        optim,
        metrics=["accuracy"],
        callbacks=[Checkpoint(folder), EarlyStopping(patience=3)],
        scheduler=LearningRate(LambdaLR(optim, lambda step: max(0.0, 1 - step / steps)), every="step", warmup=20),
    )
    history = trainer.fit(loader, DataLoader(val, 512), epochs=options.epochs)
    if trainer.run.stop_reason == "interrupted":
        print(Message("interrupted; run the same command to resume").here())
        return 130
    _report(test, trainer.predict(DataLoader(test, 512)).argmax(1), history, folder)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m dlkit.demo", description="Train, test and draw: dlkit's main job.")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="where to save (default: %(default)s)")
    parser.add_argument("--epochs", type=_count, default=EPOCHS, help="passes over the data (default: %(default)s)")
    parser.add_argument("--fast", action="store_true", help="2,000 rendered letters instead of notMNIST: seconds")
    return parser


def _count(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def _letters() -> PackedImages:
    try:
        return NotMNIST(download=True)
    except DownloadError as error:
        reason = textwrap.shorten(str(error), 300, placeholder=" ...")
        told = Message(
            "notMNIST is not available ({reason}); continuing with letters from this machine's fonts", reason=reason
        )
        print(told.here(), flush=True)
        return Glyphs()


def _report(test: PackedImages, predictions: Tensor, history: History, folder: Path) -> None:
    hits = predictions == test.targets
    print(Message("test accuracy {accuracy:.4f}, by class:", accuracy=float(hits.float().mean())).here())
    print("  " + "  ".join(f"{c} {hits[test.targets == i].float().mean():.3f}" for i, c in enumerate(test.classes)))
    shown = torch.linspace(0, len(test) - 1, 48).long()
    plots.sample_grid(
        test.images[shown],
        test.targets[shown],
        predictions[shown],
        classes=test.classes,
        path=folder / "samples.png",
    )
    plots.curves(history, path=folder / "curves.png")
    plots.confusion_matrix(test.targets, predictions, test.classes, path=folder / "confusion.png")
    files = ", ".join(str(folder / f"{name}.png") for name in ("samples", "curves", "confusion"))
    print(Message("pictures: {files}", files=files).here())


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:  # while the letters are fetched, or a second time
        raise SystemExit(130) from None
    except DlkitError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None
