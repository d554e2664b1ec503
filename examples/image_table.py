"""A CSV of file names and labels to a trained model: `python examples/image_table.py TABLE.csv`, or `--smoke`."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from dlkit import DataLoader, Trainer, plots, transforms
from dlkit.datasets import ImageTable
from dlkit.models import SmallConvNet


def made_up(folder: Path) -> Path:
    """Grey images of two brightnesses, and the table that names them."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(40):
        bright = number % 2 == 1
        pixels = np.clip(rng.normal(180 if bright else 80, 30, (40, 40)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append({"file": f"{number}.png", "label": "day" if bright else "night"})
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", nargs="?", type=Path, help="a CSV file with a header row")
    parser.add_argument("--image", default="file", help="the column with the files")
    parser.add_argument("--target", default="label", help="the column with the classes")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--picture", type=Path, help="draw photos and guesses into this file")
    parser.add_argument("--smoke", action="store_true", help="made-up images, two epochs, some seconds")
    options = parser.parse_args()
    if options.smoke:
        options.table, options.size, options.epochs = made_up(Path(tempfile.mkdtemp())), 32, 2
    elif options.table is None:
        parser.error("give the table, or --smoke")

    transform = transforms.for_training(options.size, scale=(0.5, 1.0))
    ds = ImageTable(options.table, options.image, options.target, transform=transform, task="classification")
    train, val = ds.split(0.8, seed=0)
    torch.manual_seed(0)
    model = SmallConvNet(len(ds.classes), in_chans=3)
    optim = torch.optim.AdamW(model.parameters(), 1e-3)
    trainer = Trainer(model, torch.nn.CrossEntropyLoss(), optim, metrics=["accuracy"])
    trainer.fit(DataLoader(train, 16, shuffle=True), DataLoader(val, 32), epochs=options.epochs)
    print(trainer.evaluate(DataLoader(val, 32)))
    if options.picture:
        images, labels = next(iter(DataLoader(val, 16, shuffle=True)))
        guesses = trainer.predict([images]).argmax(1)
        plots.sample_grid(images, labels, guesses, classes=ds.classes, path=options.picture)


if __name__ == "__main__":
    main()
