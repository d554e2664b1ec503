"""A GAN with two optimizers: `step=` takes over, and everything else (checkpoints, resuming, logs) stays.

The generator learns eight places on a ring in the plane. Stop it with Ctrl-C or kill it, start it again, and it ends
with the same numbers. `python examples/gan.py [--smoke] [--out runs/gan]`, about a minute on one core.
"""

from __future__ import annotations

import argparse
import math

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dlkit import Trainer, seed_everything
from dlkit.callbacks import Checkpoint, CSVLogger
from dlkit.training import Run

NOISE = 8
bce = nn.BCEWithLogitsLoss()
# Without a penalty on its slope at real points (R1: Mescheder et al. 2018), the judge gets too steep to learn from.
SLOPE_PENALTY = 0.05


def ring(count: int) -> torch.Tensor:
    """Points near eight places on a circle of radius 2."""
    angles = torch.arange(count) % 8 * (math.pi / 4)
    return 2 * torch.stack([angles.cos(), angles.sin()], 1) + 0.05 * torch.randn(count, 2)


def network(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, outputs))


def step(run: Run, batch: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """One step of each network; what it returns becomes `train_...` columns of the history."""
    real = batch[0].requires_grad_()
    generator, judge = run.model["generator"], run.model["judge"]
    fake = generator(torch.randn(len(real), NOISE, device=real.device))
    ones, zeros = torch.ones(len(real), 1, device=real.device), torch.zeros(len(real), 1, device=real.device)

    scores = judge(real)
    (slope,) = torch.autograd.grad(scores.sum(), real, create_graph=True)
    judge_loss = bce(scores, ones) + bce(judge(fake.detach()), zeros) + SLOPE_PENALTY * slope.square().sum(1).mean()
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
        points = model["generator"](torch.randn(1000, NOISE, device=trainer.device)).cpu()
    distance, place = torch.cdist(points, ring(8)).min(1)
    reached = (place[distance < 0.3].bincount(minlength=8) >= 20).sum()
    print(f"places reached: {reached} of 8; mean distance from the nearest: {distance.mean():.3f}")


if __name__ == "__main__":
    main()
