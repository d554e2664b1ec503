"""Head-only transfer: dlkit beside a correct loop, the usual tutorial's loop, Lightning and fastai where installed.

MobileNetV2 with real ImageNet weights on 397 photos of ants and bees at 224 pixels. Everybody trains the same new head
with the same optimizer on the same batches' size; the reading of the photos is torchvision's for all.

    python bench/transfer.py --data ../shared/data --out bench/transfer.txt

A whole run takes about an hour on two cores, so each result is written as it is done, contenders taking turns, and a
run can be made of pieces: `--contenders "correct loop" --seeds 3 4`. `--table bench/transfer.txt` puts together what is
there. `--epochs 2` shortens everything for a quick look; results of different lengths are never mixed. `--device cuda`
lets everybody compute on a GPU, while the photos are still read by this process alone; keep those results in another
file.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.data import DataLoader

from dlkit import Trainer, fine_tune
from dlkit.callbacks import Callback
from dlkit.datasets import NotMNIST
from dlkit.training import ReuseFeatures
from dlkit.transfer import create_model, freeze

BATCH, RATE, FINE_TUNE_EPOCHS = 32, 1e-3, 5


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


def accuracy(model: nn.Module, loader: DataLoader[Any], device: str) -> float:
    model.eval()
    right = total = 0
    with torch.no_grad():
        for images, target in loader:
            right += int((model(images.to(device)).argmax(1).cpu() == target).sum())
            total += len(target)
    return right / total


class Epochs(Callback):
    """When epochs began."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_epoch_end(self, run: Any) -> None:
        self.times.append(time.perf_counter())


class Result(NamedTuple):
    """One training: the last epoch's accuracy, seconds in all, and of the epochs after the first."""

    accuracy: float
    seconds: float
    epoch: float
    slowest: float

    @classmethod
    def of(cls, accuracy: float, began: float, ends: list[float]) -> Result:
        later = [after - before for before, after in itertools.pairwise(ends)] or [float("nan")]
        return cls(accuracy, ends[-1] - began, statistics.median(later), max(later))


def with_dlkit(root: Path, seed: int, epochs: int, device: str, *, views: int | None) -> Result:
    train, val = data(root / "images" / "hymenoptera", augment=views is not None)
    model, clock = freeze(model_of(root, seed)), Epochs()
    optim = torch.optim.AdamW(model.head_parameters(), RATE)
    with tempfile.TemporaryDirectory() as folder:  # nothing is found from an earlier run
        reuse, began = ReuseFeatures(views=views, cache=folder), time.perf_counter()
        trainer = Trainer(
            model, nn.CrossEntropyLoss(), optim, metrics=["accuracy"], callbacks=[clock], reuse_features=reuse,
            seed=seed, device=device,
        )  # fmt: skip
        history = trainer.fit(train, val, epochs=epochs)
    return Result.of(history["val_accuracy"][-1], began, clock.times)


def with_loop(root: Path, seed: int, epochs: int, device: str, *, correct: bool, augment: bool = True) -> Result:
    train, val = data(root / "images" / "hymenoptera", augment=augment)
    model = model_of(root, seed).to(device)
    for parameter in model.features.parameters():
        parameter.requires_grad = False
    optim = torch.optim.AdamW(model.classifier.parameters(), RATE)
    loss, ends, result, began = nn.CrossEntropyLoss(), list[float](), 0.0, time.perf_counter()
    for _ in range(epochs):
        model.train()
        if correct:
            model.features.eval()
        for images, target in train:
            optim.zero_grad()
            loss(model(images.to(device)), target.to(device)).backward()
            optim.step()
        result = accuracy(model, val, device)
        ends.append(time.perf_counter())
    return Result.of(result, began, ends)


def with_lightning(root: Path, seed: int, epochs: int, device: str) -> Result:
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

        def on_train_epoch_end(self) -> None:  # comes after the validation
            ends.append(time.perf_counter())

        def validation_step(self, batch: Any, number: int) -> None:
            self.right += int((self(batch[0]).argmax(1) == batch[1]).sum())
            self.total += len(batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW([each for each in self.parameters() if each.requires_grad], RATE)

    train, val = data(root / "images" / "hymenoptera", augment=True)
    module, ends, began = Module(), list[float](), time.perf_counter()
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="gpu" if device == "cuda" else device, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        callbacks=[BackboneFinetuning(unfreeze_backbone_at_epoch=10_000)],
    )  # fmt: skip
    trainer.fit(module, train, val)
    return Result.of(module.right / module.total, began, ends)


def with_fastai(root: Path, seed: int, epochs: int, device: str) -> Result:
    """As its own `vision_learner` does it: the body frozen, except for its BatchNorm layers."""
    import fastai.callback.progress  # noqa: F401  (gives a learner its no_bar)
    from fastai import metrics as scores
    from fastai.callback.core import Callback as FastaiCallback
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner

    ends: list[float] = []

    class Clock(FastaiCallback):
        order = 90

        def after_epoch(self) -> None:
            ends.append(time.perf_counter())

    def parts(model: Any) -> list[list[Any]]:
        return [list(model.features.parameters()), list(model.classifier.parameters())]

    model = model_of(root, seed).to(device)
    loaders = DataLoaders(*data(root / "images" / "hymenoptera", augment=True), device=torch.device(device))
    learner = Learner(
        loaders, model, loss_func=nn.CrossEntropyLoss(), metrics=scores.accuracy, splitter=parts, cbs=[Clock()]
    )
    learner.freeze()
    began = time.perf_counter()
    with learner.no_bar():
        learner.fit(epochs, RATE)
    return Result.of(float(learner.recorder.values[-1][-1]), began, ends)


def with_fine_tune(root: Path, seed: int, epochs: int, device: str) -> Result:
    train, val = data(root / "images" / "hymenoptera", augment=True)
    with tempfile.TemporaryDirectory() as folder:
        reuse, began = ReuseFeatures(views=4, cache=folder), time.perf_counter()
        found = fine_tune(
            model_of(root, seed), train, val, epochs=FINE_TUNE_EPOCHS, head_epochs=epochs, seed=seed, device=device,
            reuse_features=reuse,
        )  # fmt: skip
        ended = time.perf_counter()
    return Result.of(accuracy(found.model, val, device), began, [ended])


def with_letters(root: Path, seed: int, epochs: int, device: str) -> Result:
    """3,000 letters of notMNIST as they are, 28 pixels in grey, on the frozen backbone for colour photos."""
    weights = root / "weights" / "mobilenet_v2_imagenet.pth"
    with tempfile.TemporaryDirectory() as folder:
        archive = root / "notmnist" / "notMNIST_small_lookalike.tar.gz"
        shutil.copyfile(archive, Path(folder) / "notMNIST_small.tar.gz")
        train, val, _ = NotMNIST(folder, max_errors=0.1).split([0.2, 0.1, 0.7], seed=seed)
        torch.manual_seed(seed)
        model = create_model("torchvision/mobilenet_v2", classes=train.classes, weights=weights, in_chans=1)
        clock, reuse = Epochs(), ReuseFeatures(cache=folder)
        optim = torch.optim.AdamW(freeze(model).head_parameters(), RATE)
        began = time.perf_counter()
        history = Trainer(
            model,
            nn.CrossEntropyLoss(),
            optim,
            metrics=["accuracy"],
            callbacks=[clock],
            reuse_features=reuse,
            seed=seed,
            device=device,
        ).fit(DataLoader(train, BATCH, shuffle=True), DataLoader(val, BATCH), epochs=epochs)
    return Result.of(history["val_accuracy"][-1], began, clock.times)


CONTENDERS: dict[str, Callable[[Path, int, int, str], Result]] = {
    "correct loop": lambda *a: with_loop(*a, correct=True),
    "dlkit, views=4": lambda *a: with_dlkit(*a, views=4),
    "dlkit, views=6": lambda *a: with_dlkit(*a, views=6),
    "correct loop, no augmentation": lambda *a: with_loop(*a, correct=True, augment=False),
    "dlkit, no augmentation": lambda *a: with_dlkit(*a, views=None),
    "tutorial's loop": lambda *a: with_loop(*a, correct=False),
    "Lightning BackboneFinetuning": with_lightning,
    "fastai": with_fastai,
    "fine_tune": with_fine_tune,
    "notMNIST in grey": with_letters,
}
# Who is compared with whom.
AGAINST = {
    "dlkit, views=4": "correct loop",
    "dlkit, views=6": "correct loop",
    "dlkit, no augmentation": "correct loop, no augmentation",
    "tutorial's loop": "correct loop",
    "Lightning BackboneFinetuning": "correct loop",
    "fastai": "correct loop",
}
_LINE = re.compile(
    r"(?P<name>.+?) +\| seed (?P<seed>\d+) \| +(?P<epochs>\d+) epochs \| accuracy (?P<accuracy>[\d.]+) "
    r"\| +(?P<seconds>[\d.]+) s \| an epoch +(?P<epoch>[\d.]+|nan) s, the slowest +(?P<slowest>[\d.]+|nan) s"
)


def line(name: str, seed: int, epochs: int, result: Result) -> str:
    return (
        f"{name:30s} | seed {seed} | {epochs:3d} epochs | accuracy {result.accuracy:.4f} | {result.seconds:7.1f} s | "
        f"an epoch {result.epoch:7.3f} s, the slowest {result.slowest:7.3f} s"
    )


def table(text: str) -> str:
    """Means over seeds, and ratios to the loop that does the same."""
    found: dict[tuple[str, int], list[Result]] = {}
    for each in text.splitlines():
        if match := _LINE.match(each):
            numbers = Result(*(float(match[key]) for key in Result._fields))
            found.setdefault((match["name"], int(match["epochs"])), []).append(numbers)
    lines = [f"{'':30s} {'seeds':>5s} {'epochs':>6s} {'accuracy: mean (all)':>44s} {'seconds':>9s} {'an epoch':>9s}"]
    for (name, epochs), results in found.items():
        scores = [result.accuracy for result in results]
        seconds, epoch = (statistics.median(getattr(each, key) for each in results) for key in ("seconds", "epoch"))
        every = f"{statistics.mean(scores):.4f} ({', '.join(f'{score:.3f}' for score in scores)})"
        lines.append(f"{name:30s} {len(results):5d} {epochs:6d} {every:>44s} {seconds:9.1f} {epoch:9.3f}")
        if peers := found.get((AGAINST.get(name, ""), epochs)):
            whole = statistics.median(peer.seconds for peer in peers) / seconds
            share = max(each.slowest for each in results) / statistics.median(peer.epoch for peer in peers)
            lines[-1] += f"  1/{whole:.1f} of the loop's time; the slowest later epoch {share:.2%} of the loop's"
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("DLKIT_TEST_DATA", "../shared/data")))
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--seeds", type=int, nargs="*", default=list(range(5)))
    parser.add_argument("--contenders", nargs="*", default=list(CONTENDERS))
    parser.add_argument("--out", type=Path, help="write each result there as well")
    parser.add_argument("--table", type=Path, help="only put together the results in this file")
    options = parser.parse_args()
    if options.table:
        print(table(options.table.read_text()))
        return
    lines = []
    for seed, name in itertools.product(options.seeds, options.contenders):
        try:
            result = CONTENDERS[name](options.data, seed, options.epochs, options.device)
        except ImportError as error:
            print(f"{name:30s} | not installed: {error}")
            continue
        lines.append(line(name, seed, options.epochs, result))
        print(lines[-1], flush=True)
        if options.out:
            with options.out.open("a") as file:
                file.write(f"{lines[-1]}\n")
    print(table("\n".join(lines)))


if __name__ == "__main__":
    main()
