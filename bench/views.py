"""How many stored views does a head need? Accuracy with K views of each photo, in turn or mixed, against fresh ones.

    python bench/views.py --data ../shared/data

A single training cannot tell: with 153 photos to validate on, it moves by half a percent from seed to seed. So the
features of many random views are computed once, and many heads are trained on them, each with views, weights and order
of its own: head alone, 25 epochs, as in `transfer.py`; all heads at once, and `--trained` ones with dlkit's Trainer.
"In turn" is another one of the K views in every epoch; "mixed" is another mixture of them, as dlkit trains.
96 views take ten minutes on one core, the heads a few more.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision import datasets, transforms

from dlkit import Trainer
from dlkit.transfer import create_model
from dlkit.transfer.features import FeatureStore

BATCH, RATE, EPOCHS, DROPOUT = 32, 1e-3, 25, 0.2


@torch.inference_mode()
def features_of(model: Any, photos: list[Any], transform: Any, device: str) -> Tensor:
    """[photos, 1280]"""
    parts = []
    for start in range(0, len(photos), BATCH):
        images = torch.stack([transform(photo) for photo in photos[start : start + BATCH]])
        parts.append(model.features(images.to(device, memory_format=torch.channels_last)).mean((2, 3)))
    return torch.cat(parts)


def stored(root: Path, count: int, device: str, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features of `count` random views [views, photos, 1280] and their targets, features and targets to validate on."""
    folder, weights = root / "images" / "hymenoptera", root / "weights" / "mobilenet_v2_imagenet.pth"
    model = create_model("torchvision/mobilenet_v2", classes=2, weights=weights).eval().to(device)
    ready = [transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    crop = transforms.Compose([transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), *ready])
    plain = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), *ready])
    train, val = (datasets.ImageFolder(str(folder / part)) for part in ("train", "val"))
    photos = [photo for photo, _ in train]
    torch.manual_seed(seed)
    views = torch.stack([features_of(model, photos, crop, device) for _ in range(count)])
    found = features_of(model, [photo for photo, _ in val], plain, device)
    return views, torch.tensor(train.targets, device=device), found, torch.tensor(val.targets, device=device)


def train_heads(
    views: Tensor, target: Tensor, count: int, heads: int, *, mixed: bool, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Many heads at once, [heads, 2, 1280] and [heads, 2], each with `count` views of its own of each photo."""
    device, samples = views.device, len(target)
    draw = torch.Generator(device).manual_seed(100 * seed + count)
    bound = views.shape[2] ** -0.5
    weight = torch.empty(heads, 2, views.shape[2], device=device).uniform_(-bound, bound, generator=draw)
    bias = torch.empty(heads, 2, device=device).uniform_(-bound, bound, generator=draw)
    optimizer = torch.optim.AdamW([weight.requires_grad_(), bias.requires_grad_()], RATE)
    own = torch.rand(heads, samples, len(views), device=device, generator=draw).argsort(2)[:, :, :count]
    index = torch.arange(samples, device=device)
    for epoch in range(EPOCHS):
        if mixed:
            weights = torch.empty(heads, samples, count, device=device).exponential_(generator=draw)
            weights /= weights.sum(2, keepdim=True)  # evenly among all that sum to 1
            now = sum(weights[:, :, [view]] * views[own[:, index, view], index] for view in range(count))
        else:
            now = views[own[:, index, (index + epoch) % count], index]
        order = torch.rand(heads, samples, device=device, generator=draw).argsort(1)
        for batch in order.split(BATCH, 1):
            x = now.gather(1, batch.unsqueeze(2).expand(-1, -1, views.shape[2]))
            x = x * (torch.rand(x.shape, device=device, generator=draw) > DROPOUT) / (1 - DROPOUT)
            logits = torch.einsum("hbd,hcd->hbc", x, weight) + bias[:, None]
            each = F.cross_entropy(logits.flatten(0, 1), target[batch].flatten(), reduction="none")
            optimizer.zero_grad()
            (each.sum() / batch.shape[1]).backward()
            optimizer.step()
    return weight.detach(), bias.detach()


class Views(Dataset[Any]):
    """Other features of each photo in every epoch, as a FeatureStore gives them."""

    draws_random = False

    def __init__(self, views: Tensor, target: Tensor, count: int, *, mixed: bool, seed: int) -> None:
        own = torch.rand(len(target), len(views)).argsort(1)[:, :count]
        self.store, self.seed, self.epoch = FeatureStore(len(target), count, None, memory_bytes=1 << 40), seed, 0
        self.store.fill(lambda view, start: [(views[own[:, view], torch.arange(len(target))], target)])
        self.store.mixes = mixed

    def __len__(self) -> int:
        return self.store.samples

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int) -> Any:
        values, target = self.store.rows([index], self.epoch, seed=self.seed)
        return values[0], target[0]


def train_with_trainer(data: tuple[Tensor, Tensor, Tensor, Tensor], count: int, seed: int, *, mixed: bool) -> float:
    views, target, found, wanted = (part.cpu() for part in data)
    torch.manual_seed(seed)
    head = nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(views.shape[2], 2))
    trainer = Trainer(
        head, nn.CrossEntropyLoss(), torch.optim.AdamW(head.parameters(), RATE), metrics=["accuracy"], seed=seed,
        device="cpu", progress=False,
    )  # fmt: skip
    train = DataLoader(Views(views, target, count, mixed=mixed, seed=seed), BATCH, shuffle=True)
    history = trainer.fit(train, DataLoader(TensorDataset(found, wanted), len(wanted)), epochs=EPOCHS)
    return float(history["val_accuracy"][-1])


def shown(scores: Tensor) -> str:
    return f"{scores.mean():.4f} ± {scores.std() / len(scores) ** 0.5:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("DLKIT_TEST_DATA", "../shared/data")))
    parser.add_argument("--views", type=int, default=96, help="that are computed; at least 25")
    parser.add_argument("--seed", type=int, default=0, help="of the views")
    parser.add_argument("--heads", type=int, default=60, help="that are trained at once")
    parser.add_argument("--times", type=int, default=5, help="how often that is done")
    parser.add_argument("--trained", type=int, default=0, help="that many heads with dlkit's Trainer, too")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args()
    data = views, target, found, wanted = stored(options.data, options.views, options.device, options.seed)
    kinds = [(EPOCHS, False), (1, False)]
    kinds += [(count, mixed) for count in (2, 4, 6, 8) for mixed in (False, True)]
    for count, mixed in kinds:
        scores, losses = [], []
        for seed in range(options.times):
            weight, bias = train_heads(views, target, count, options.heads, mixed=mixed, seed=seed)
            logits = torch.einsum("bd,hcd->hbc", found, weight) + bias[:, None]
            scores.append((logits.argmax(2) == wanted).float().mean(1))
            losses.append(F.cross_entropy(logits.flatten(0, 1), wanted.repeat(options.heads)).item())
        name = "fresh views" if count == EPOCHS else f"{count} view{'s' * (count > 1)}{', mixed' if mixed else ''}"
        print(f"{name:15} accuracy {shown(torch.cat(scores))}, loss {statistics.mean(losses):.4f}", flush=True)
        if options.trained:
            own = [train_with_trainer(data, count, seed, mixed=mixed) for seed in range(options.trained)]
            print(f"  with the Trainer:  {shown(torch.tensor(own))}", flush=True)


if __name__ == "__main__":
    main()
