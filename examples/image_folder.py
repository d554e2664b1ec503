"""A folder of photos to a trained model: `python examples/image_folder.py PHOTOS`, or `--smoke` for a made-up one."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dlkit import DataLoader, Trainer, plots, transforms
from dlkit.callbacks import Checkpoint, EarlyStopping
from dlkit.datasets import ImageFolder, inspect
from dlkit.models import SmallConvNet


def made_up(folder: Path) -> Path:
    """Two classes that differ in colour."""
    rng = np.random.default_rng(0)
    for number in range(40):
        color = np.array([(250, 240, 90), (200, 30, 60)][number % 2])
        pixels = np.clip(color + rng.normal(0, 40, (90, 120, 3)), 0, 255).astype(np.uint8)
        path = folder / ("daisy", "rose")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="?", type=Path, help="a folder with one folder per class")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--run", default="runs/photos", help="where checkpoints go")
    parser.add_argument("--picture", type=Path, help="draw photos and guesses into this file")
    parser.add_argument("--smoke", action="store_true", help="made-up photos, four epochs, some seconds")
    options = parser.parse_args()
    if options.smoke:
        temporary = Path(tempfile.mkdtemp())
        options.photos, options.run = made_up(temporary / "photos"), str(temporary / "run")
        options.size, options.epochs = 32, 4
    elif options.photos is None:
        parser.error("give the folder of photos, or --smoke")

    print(inspect(options.photos))
    ds = ImageFolder(
        options.photos, transform=transforms.for_training(options.size, scale=(0.3, 1.0)), on_error="skip", cache="auto"
    )
    train, val = ds.split(0.8, seed=0)  # stratified; equal files stay on one side; only `train` is augmented
    torch.manual_seed(0)
    model = SmallConvNet(len(ds.classes), in_chans=3)
    optim = torch.optim.AdamW(model.parameters(), 1e-3)
    callbacks = [Checkpoint(options.run), EarlyStopping(patience=5)]
    trainer = Trainer(model, torch.nn.CrossEntropyLoss(), optim, metrics=["accuracy"], callbacks=callbacks)
    trainer.fit(DataLoader(train, 32, shuffle=True), DataLoader(val, 64), epochs=options.epochs)
    print(trainer.evaluate(DataLoader(val, 64)), "left out:", ds.skipped)
    if options.picture:
        images, labels = next(iter(DataLoader(val, 16, shuffle=True)))
        guesses = trainer.predict([images]).argmax(1)
        plots.sample_grid(images, labels, guesses, classes=ds.classes, path=options.picture)


if __name__ == "__main__":
    main()
