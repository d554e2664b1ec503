"""A GAN with two optimizers: `step=` takes over, and everything else (checkpoints, resuming, logs) stays.

The generator learns a ring of eight points in the plane. `python examples/gan.py [--smoke] [--out runs/gan]`
"""

from __future__ import annotations

import argparse
import math

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dlkit import Trainer, seed_everything
from dlkit.callbacks import Checkpoint, CSVLogger

NOISE = 8
bce = nn.BCEWithLogitsLoss()


def ring(count: int) -> torch.Tensor:
    """Points near eight places on a circle of radius 2."""
    angles = torch.arange(count) % 8 * (math.pi / 4)
    return 2 * torch.stack([angles.cos(), angles.sin()], 1) + 0.05 * torch.randn(count, 2)


def network(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, outputs))


def step(run, batch):
    (real,) = batch
    generator, judge = run.model["generator"], run.model["judge"]
    fake = generator(torch.randn(len(real), NOISE, device=real.device))
    ones, zeros = torch.ones(len(real), 1, device=real.device), torch.zeros(len(real), 1, device=real.device)

    judge_loss = bce(judge(real), ones) + bce(judge(fake.detach()), zeros)
    run.optimizers["judge"].zero_grad()
    judge_loss.backward()
    run.optimizers["judge"].step()

    generator_loss = bce(judge(fake), ones)
    run.optimizers["generator"].zero_grad()
    generator_loss.backward()
    run.optimizers["generator"].step()
    return {"generator_loss": generator_loss, "judge_loss": judge_loss}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/gan")
    parser.add_argument("--smoke", action="store_true", help="a second of training, to see that it runs")
    options = parser.parse_args()

    seed_everything(0)
    model = nn.ModuleDict({"generator": network(NOISE, 2), "judge": network(2, 1)})
    optimizers = {name: torch.optim.Adam(net.parameters(), 1e-3, betas=(0.5, 0.9)) for name, net in model.items()}
    data = TensorDataset(ring(512 if options.smoke else 8192))
    callbacks = [Checkpoint(options.out), CSVLogger(f"{options.out}/history.csv")]
    trainer = Trainer(model, None, optimizers, step=step, callbacks=callbacks)
    trainer.fit(DataLoader(data, 128, shuffle=True), epochs=2 if options.smoke else 40)

    with torch.no_grad():
        points = model["generator"](torch.randn(1000, NOISE))
    distance = torch.cdist(points, ring(8)).min(1).values
    print(f"mean distance of a generated point from the nearest of the eight: {distance.mean():.3f}")


if __name__ == "__main__":
    main()
