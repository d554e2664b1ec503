"""Head-only transfer: dlkit beside a correct loop, the usual tutorial's loop, and Lightning where it is installed.

MobileNetV2 with real ImageNet weights on 397 photos of ants and bees at 224 pixels. Everybody trains the same new head
with the same optimizer on the same batches' size; the reading of the photos is torchvision's for all.

    python bench/transfer.py --data ../shared/data --epochs 25 --seeds 5

`--loop-epochs 3` shortens the loops for a quick look: their times are then scaled up to `--epochs`, and their
accuracies are those after so few epochs. `--fine-tune` adds `fine_tune`, `--contenders` chooses.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from dlkit import Trainer
from dlkit.callbacks import Callback, ReuseFeatures
from dlkit.transfer import create_model, fine_tune, freeze

BATCH, RATE = 32, 1e-3


def data(folder: Path, *, augment: bool) -> tuple[DataLoader[Any], DataLoader[Any]]:
    from torchvision import datasets, transforms

    normal = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    plain = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), normal])
    random = transforms.Compose(
        [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), transforms.ToTensor(), normal]
    )
    train = datasets.ImageFolder(str(folder / "train"), random if augment else plain)
    val = datasets.ImageFolder(str(folder / "val"), plain)
    return DataLoader(train, BATCH, shuffle=True), DataLoader(val, BATCH)


def model_of(data_folder: Path, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    weights = data_folder / "weights" / "mobilenet_v2_imagenet.pth"
    return create_model("torchvision/mobilenet_v2", classes=["ants", "bees"], weights=weights)


def accuracy(model: nn.Module, loader: DataLoader[Any]) -> float:
    model.eval()
    right = total = 0
    with torch.no_grad():
        for images, target in loader:
            right += int((model(images).argmax(1) == target).sum())
            total += len(target)
    return right / total


class Epochs(Callback):
    """When epochs began."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_epoch_end(self, run: Any) -> None:
        self.times.append(time.perf_counter())


Result = tuple[float, float, float]  # accuracy, seconds in all, seconds of an epoch after the first


def with_dlkit(root: Path, seed: int, epochs: int, *, views: int | None) -> Result:
    train, val = data(root / "images" / "hymenoptera", augment=views is not None)
    model, clock = freeze(model_of(root, seed)), Epochs()
    optim = torch.optim.AdamW(model.head_parameters(), RATE)
    with tempfile.TemporaryDirectory() as folder:  # nothing is found from an earlier run
        callbacks = [ReuseFeatures(views=views, folder=folder), clock]
        began = time.perf_counter()
        trainer = Trainer(
            model, nn.CrossEntropyLoss(), optim, metrics=["accuracy"], callbacks=callbacks, seed=seed, device="cpu"
        )
        history = trainer.fit(train, val, epochs=epochs)
        seconds = time.perf_counter() - began
    later = [after - before for before, after in itertools.pairwise(clock.times)]
    return history["val_accuracy"][-1], seconds, statistics.median(later)


def with_loop(root: Path, seed: int, epochs: int, *, correct: bool, augment: bool = True) -> Result:
    train, val = data(root / "images" / "hymenoptera", augment=augment)
    model = model_of(root, seed)
    for parameter in model.features.parameters():
        parameter.requires_grad = False
    optim = torch.optim.AdamW(model.classifier.parameters(), RATE)
    loss, times, result = nn.CrossEntropyLoss(), [time.perf_counter()], 0.0
    for _ in range(epochs):
        model.train()
        if correct:
            model.features.eval()
        for images, target in train:
            optim.zero_grad()
            loss(model(images), target).backward()
            optim.step()
        result = accuracy(model, val)
        times.append(time.perf_counter())
    later = [after - before for before, after in itertools.pairwise(times)]
    return result, times[-1] - times[0], statistics.median(later)


def with_lightning(root: Path, seed: int, epochs: int) -> Result:
    import lightning
    from lightning.pytorch.callbacks import BackboneFinetuning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            model = model_of(root, seed)
            self.backbone, self.head, self.loss = model.features, model.classifier, nn.CrossEntropyLoss()
            self.right = self.total = 0

        def forward(self, images: Any) -> Any:
            return self.head(self.backbone(images).mean((2, 3)))

        def training_step(self, batch: Any, number: int) -> Any:
            return self.loss(self(batch[0]), batch[1])

        def on_validation_epoch_start(self) -> None:
            self.right = self.total = 0

        def validation_step(self, batch: Any, number: int) -> None:
            self.right += int((self(batch[0]).argmax(1) == batch[1]).sum())
            self.total += len(batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW([each for each in self.parameters() if each.requires_grad], RATE)

    train, val = data(root / "images" / "hymenoptera", augment=True)
    module = Module()
    began = time.perf_counter()
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
        callbacks=[BackboneFinetuning(unfreeze_backbone_at_epoch=10_000)],
    )  # fmt: skip
    trainer.fit(module, train, val)
    seconds = time.perf_counter() - began
    return module.right / module.total, seconds, seconds / epochs


def with_fine_tune(root: Path, seed: int, epochs: int) -> Result:
    train, val = data(root / "images" / "hymenoptera", augment=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DLKIT_HOME"] = folder
        began = time.perf_counter()
        found = fine_tune(
            model_of(root, seed), train, val, epochs=epochs, head_epochs=25, views=4, seed=seed, device="cpu"
        )
        seconds = time.perf_counter() - began
    return accuracy(found.model, val), seconds, float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("DLKIT_TEST_DATA", "../shared/data")))
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--loop-epochs", type=int, default=None)
    parser.add_argument("--fine-tune", type=int, metavar="EPOCHS", default=0)
    parser.add_argument("--contenders", nargs="*", default=None)
    options = parser.parse_args()
    loop_epochs = options.loop_epochs or options.epochs
    contenders: dict[str, tuple[int, Callable[..., Result]]] = {
        "correct loop": (loop_epochs, lambda *a: with_loop(*a, correct=True)),
        "dlkit, views=4": (options.epochs, lambda *a: with_dlkit(*a, views=4)),
        "correct loop, no augmentation": (loop_epochs, lambda *a: with_loop(*a, correct=True, augment=False)),
        "dlkit, no augmentation": (options.epochs, lambda *a: with_dlkit(*a, views=None)),
        "tutorial's loop": (loop_epochs, lambda *a: with_loop(*a, correct=False)),
        "Lightning BackboneFinetuning": (loop_epochs, with_lightning),
    }
    if options.fine_tune:
        contenders["fine_tune"] = (options.fine_tune, with_fine_tune)
    print(f"{options.seeds} seeds, {options.epochs} epochs")
    print(f"{'':32s} {'accuracy':>22s} {'seconds':>9s} {'epoch':>8s}")
    for name, (epochs, run) in contenders.items():
        if options.contenders and name not in options.contenders:
            continue
        try:
            results = [run(options.data, seed, epochs) for seed in range(options.seeds)]
        except ImportError as error:
            print(f"{name:32s} not installed: {error}")
            continue
        scores = [result[0] for result in results]
        scale = 1.0 if name == "fine_tune" else options.epochs / epochs
        seconds = statistics.median(result[1] for result in results) * scale
        epoch = statistics.median(result[2] for result in results)
        spread = f"{statistics.mean(scores):.4f} ({min(scores):.3f}-{max(scores):.3f})"
        mark = f"  [accuracy after {epochs} epochs, time scaled]" if epochs != options.epochs and scale != 1.0 else ""
        print(f"{name:32s} {spread:>18s} {seconds:9.1f} {epoch:8.3f}{mark}", flush=True)


if __name__ == "__main__":
    main()
