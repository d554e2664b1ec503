"""Spoken digits, heard by a network that has never met some of the speakers: `python examples/spoken_digits.py FSDD`.

FSDD is the folder `recordings` of the Free Spoken Digit Dataset: `7_jackson_32.wav` is a 7, spoken by Jackson, take 32.
Every fifth take is held out, or with `--by speaker` two of the speakers. `--smoke` makes up a folder of tones.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

import dlkit
from dlkit import DataLoader, Trainer, plots
from dlkit.datasets import AudioTable
from dlkit.models import AudioClassifier
from dlkit.transforms.audio import AudioAugment, AudioPreprocessing

RATE = 8_000


def made_up(folder: Path) -> Path:
    """Tones in the place of digits, each speaker with a pitch of their own."""
    rng = np.random.default_rng(0)
    for digit, speaker, take in np.ndindex(3, 3, 5):
        wave = np.sin(np.cumsum(np.full(2_400, (0.1 + 0.25 * digit) * (1 + 0.1 * speaker)))) + 0.1 * rng.normal(
            size=2_400
        )
        soundfile.write(folder / f"{digit}_{'abc'[speaker]}_{take}.wav", 0.3 * wave, RATE)
    return folder


def listed(folder: Path) -> pd.DataFrame:
    """What the names of the files say."""
    files = sorted(path.name for path in folder.glob("*_*_*.wav"))
    parts = [name.removesuffix(".wav").split("_") for name in files]
    table = pd.DataFrame(parts, columns=["digit", "speaker", "take"])
    return table.assign(file=files, take=table["take"].astype(int))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--by", choices=("take", "speaker"), default="take", help="what is held out")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--picture", type=Path, help="draw which digits are mistaken for which into this file")
    parser.add_argument("--smoke", action="store_true", help="made-up tones, two epochs, some seconds")
    options = parser.parse_args()
    if options.smoke:
        options.folder, options.epochs = made_up(Path(tempfile.mkdtemp())), 2
    elif options.folder is None:
        parser.error("give the folder of recordings, or --smoke")

    table = listed(options.folder)
    held_out = (
        table["take"] % 5 == 4 if options.by == "take" else table["speaker"].isin(sorted(set(table["speaker"]))[-2:])
    )
    augment = AudioAugment(shift=0.08, noise=(10, 40))  # moved, and with noise below it; drawn again in every epoch
    training = AudioPreprocessing(sample_rate=RATE, seconds=0.7, augment=augment)
    train, test = (
        AudioTable(rows, target="digit", root=options.folder, task="classification", transform=transform)
        for rows, transform in ((table[~held_out], training), (table[held_out], training.for_evaluation()))
    )
    torch.manual_seed(0)
    model = AudioClassifier(len(train.classes), RATE)
    optim = torch.optim.AdamW(model.parameters(), 3e-3)
    trainer = Trainer(
        model,
        torch.nn.CrossEntropyLoss(),
        optim,
        metrics=["accuracy"],
        scheduler=CosineAnnealingLR(optim, options.epochs),
    )
    trainer.fit(DataLoader(train, 32, shuffle=True), epochs=options.epochs)
    print(f"{len(train)} training recordings; held out by {options.by}:", trainer.evaluate(DataLoader(test, 64)))
    if options.picture:
        guesses = trainer.predict(DataLoader(test, 64)).argmax(1)
        plots.confusion_matrix(test.targets, guesses, test.classes, path=options.picture)
    file = trainer.save(Path(tempfile.mkdtemp()) / "digits.safetensors")
    print(dlkit.load(file).predict_file(options.folder / str(table["file"].iloc[0]), top_k=2))


if __name__ == "__main__":
    main()
