"""A GAN with two optimizers: `step=` takes over, and everything else (checkpoints, resuming, logs) stays.

The generator learns eight places on a ring in the plane. Stop it with Ctrl-C or kill it, start it again, and it ends
with the same numbers; so it does in several processes, `torchrun --nproc-per-node 2 examples/gan.py --accumulate 2`,
where `run.backward` adds up the gradients. `python examples/gan.py [--smoke] [--out runs/gan]`, half a minute.
"""

from __future__ import annotations

import argparse
import functools
import math
from pathlib import Path

import torch
from matplotlib.figure import Figure
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


def fake(run: Run, like: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = run.model["generator"](torch.randn(len(like), NOISE, device=like.device))
    return made


def judge_loss(run: Run, batch: list[torch.Tensor]) -> torch.Tensor:
    """Real points are to be judged 1, made ones 0, and the judgement is to be flat where points are."""
    judge, real = run.model["judge"], batch[0].requires_grad_()
    with torch.no_grad():
        made = fake(run, real)
    scores, others = judge(real), judge(made)
    (slope,) = torch.autograd.grad(scores.sum(), real, create_graph=True)
    penalty: torch.Tensor = SLOPE_PENALTY * slope.square().sum(1).mean()
    return bce(scores, torch.ones_like(scores)) + bce(others, torch.zeros_like(others)) + penalty


def generator_loss(run: Run, batch: list[torch.Tensor]) -> torch.Tensor:
    """What is made is to be judged 1."""
    scores = run.model["judge"](fake(run, batch[0]))
    loss: torch.Tensor = bce(scores, torch.ones_like(scores))
    return loss


def step(run: Run) -> dict[str, torch.Tensor]:
    """One step of each network; what it returns becomes `train_...` columns of the history."""
    values = {}
    for name, loss_of in {"judge": judge_loss, "generator": generator_loss}.items():
        run.model.zero_grad()
        values[f"{name}_loss"] = run.backward(functools.partial(loss_of, run))
        run.optimizers[name].step()
    return values


def draw(points: torch.Tensor, path: Path) -> None:
    """The points that the generator makes, on those that it was to learn."""
    figure = Figure(figsize=(4, 4), dpi=120, layout="constrained")
    axes = figure.add_subplot(aspect="equal", xticks=[], yticks=[], title="learnt (blue) and made (orange)")
    for cloud, colour in ((ring(1000), "#0072B2"), (points, "#D55E00")):
        axes.scatter(*cloud.T, s=3, c=colour, alpha=0.5)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/gan")
    parser.add_argument("--picture", type=Path, help="draw the points and the ring into this file")
    parser.add_argument("--smoke", action="store_true", help="a second of training, to see that it runs")
    parser.add_argument("--accumulate", type=int, default=1, help="batches of a step, which processes share")
    options = parser.parse_args()

    seed_everything(0)
    model = nn.ModuleDict({"generator": network(NOISE, 2), "judge": network(2, 1)})
    optimizers = {name: torch.optim.Adam(net.parameters(), 1e-3, betas=(0.5, 0.9)) for name, net in model.items()}
    data = TensorDataset(ring(512 if options.smoke else 8192))
    callbacks = [Checkpoint(options.out), CSVLogger(f"{options.out}/history.csv")]
    trainer = Trainer(model, None, optimizers, step=step, callbacks=callbacks, accumulate=options.accumulate)
    trainer.fit(DataLoader(data, 128 // options.accumulate, shuffle=True), epochs=2 if options.smoke else 40)

    with torch.no_grad():
        points = model["generator"](torch.randn(1000, NOISE, device=trainer.device)).cpu()
    if options.picture:
        draw(points, options.picture)
    distance, place = torch.cdist(points, ring(8)).min(1)
    reached = (place[distance < 0.3].bincount(minlength=8) >= 20).sum()
    print(f"places reached: {reached} of 8; mean distance from the nearest: {distance.mean():.3f}")


if __name__ == "__main__":
    main()
