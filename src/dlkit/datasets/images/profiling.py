"""Where the time of an image dataset goes, measured one sample after the other in one thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dlkit.datasets.files.decoder import read_with_status
from dlkit.datasets.images.decoding import has_fast_jpeg
from dlkit.datasets.images.settings import ImageSettings
from dlkit.errors import DataError
from dlkit.transforms import Preprocessing

__all__ = ["profile_of"]

STAGES = ("read", "decode", "resize and normalise", "hand over")


class _Measured:
    """Seconds per stage, and what was seen of the files."""

    def __init__(self) -> None:
        self.spent = dict.fromkeys(STAGES, 0.0)
        self.sides: list[int] = []
        self.reduced = 0

    def timed(self, stage: str, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = work(*args, **kwargs)
        self.spent[stage] += time.perf_counter() - start
        return result

    @property
    def total(self) -> float:
        return sum(self.spent.values())


def profile_of(paths: Sequence[Path], settings: ImageSettings, threads: int) -> str:
    """Read, decode, resize and hand over each file, and say in a small table what took how long and what would help.

    Args:
        paths: The files.
        settings: The dataset's.
        threads: How many threads the dataset uses.
    """
    measured = _Measured()
    for path in paths:
        try:
            _measure(measured, path, settings)
        except DataError:
            continue  # `verify` is there to list them
    if not measured.sides:
        return "none of the files could be read; ds.verify() says why"
    return _text(measured, settings.transform, threads)


def _measure(measured: _Measured, path: Path, settings: ImageSettings) -> None:
    data, _ = measured.timed("read", read_with_status, path)
    image, transform = measured.timed("decode", settings.open, data, str(path)), settings.transform
    if not isinstance(transform, Preprocessing):
        pixels = measured.timed("decode", image.pixels)
        sample = measured.timed("resize and normalise", settings.sample, pixels, path)
        measured.timed("hand over", sample.clone)
        measured.sides.append(min(image.height, image.width))
        return
    table = transform.draw(1)
    plan = transform.plan(image.height, image.width, None if table is None else table[0])
    reduce = plan.reduce if image.reducible else 1
    pixels = measured.timed("decode", image.pixels, reduce, color=transform.color)
    out = np.empty(transform.shape, np.float32)
    measured.timed("resize and normalise", transform.write, pixels, plan, out, reduce=reduce)
    measured.timed("hand over", torch.from_numpy(out).clone)
    measured.sides.append(min(image.height, image.width))
    measured.reduced += reduce > 1


def _text(measured: _Measured, transform: Any, threads: int) -> str:
    count, total = len(measured.sides), measured.total
    lines = [f"{1e3 * total / count:.2f} ms per image and core ({count} measured; the dataset uses {threads} threads)"]
    for stage, seconds in measured.spent.items():
        lines.append(f"  {stage:21} {1e3 * seconds / count:8.2f} ms {100 * seconds / total:4.0f} %")
    side = sorted(measured.sides)[count // 2]
    lines.append(f"  shorter side {side} px in the middle, {measured.reduced} of {count} decoded at reduced size")
    return "\n".join([*lines, *(f"- {line}" for line in _advice(measured, transform, side))])


def _advice(measured: _Measured, transform: Any, side: int) -> list[str]:
    spent, total, advice = measured.spent, measured.total, list[str]()
    fast = isinstance(transform, Preprocessing)
    if spent["read"] > 0.4 * total:
        advice.append("reading takes most: copy the files to a faster disk, or cache='auto' on one")
    if spent["decode"] > 0.5 * total:
        advice.append("decoding takes most: with cache='auto' later epochs and runs decode nothing")
        if not has_fast_jpeg():
            advice.append("pip install 'dlkit-torch[images]' brings a faster JPEG decoder with the same pixels")
    if fast and side > 4 * max(transform.size):
        advice.append(f"the files are {side // max(transform.size)} times as large as needed: store smaller copies")
    if not fast and transform is not None and spent["resize and normalise"] > 0.3 * total:
        advice.append("your transform runs in one thread, image by image: for_training(size) runs in all of them")
    return advice
