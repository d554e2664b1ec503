"""Features of a frozen backbone on the CPU, from images in the usual layout and channels last, in turn.

python bench/layout.py --out bench/layout.txt
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from dlkit.transfer import create_model, freeze
from dlkit.transfer._cut import find_cut, in_best_layout

NAMES = (
    "torchvision/mobilenet_v2", "torchvision/resnet18", "torchvision/resnet50", "torchvision/squeezenet1_1",
    "torchvision/densenet121", "timm/efficientnet_b0", "timm/convnext_tiny", "timm/vit_tiny_patch16_224",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write each result there as well")
    options = parser.parse_args()
    images = torch.randn(options.batch, 3, 224, 224)
    for name in NAMES:
        usual = find_cut(freeze(create_model(name, classes=2, pretrained=False)), images)
        best = in_best_layout(usual, images)
        left, right = usual.features(images), best.features(images)  # also to warm up
        times: list[list[float]] = [[], []]
        for _ in range(options.rounds):
            for cut, taken in zip((usual, best), times, strict=True):
                began = time.perf_counter()
                cut.features(images)
                taken.append((time.perf_counter() - began) / options.batch * 1e3)
        faster = statistics.median(one / other for one, other in zip(*times, strict=True))
        before, after = map(statistics.median, times)
        text = (
            f"{name:26s} {before:6.1f} ms an image, {str(best.layout).removeprefix('torch.'):15s} {after:6.1f} ms, "
            f"{faster:.2f} times as fast; features differ by {(left - right).abs().max() / left.abs().max():.0e}"
        )
        print(text, flush=True)
        if options.out:
            with options.out.open("a") as file:
                file.write(f"{text}\n")


if __name__ == "__main__":
    main()
