"""Images per second from files to normalised, augmented 224-pixel batches; alternating, medians, ratios.

    python bench/images.py [--rounds 5] [--photos FOLDER] [--only 500x375]

Contenders: torchvision's ImageFolder in PIL and in tensor form (as many workers as cores), dlkit with threads in this
process, with threads in one worker, with Pillow alone, and later epochs from a full cache; DALI (on the CPU) and FFCV
(its raw mode) where they are installed. Every one cuts a random part out, resizes it to 224 pixels, mirrors half of the
images and gives normalised floats. Without FOLDER, photographs of 500x375 pixels are made by enlarging noise,
12-megapixel ones likewise: real ones compress differently, so give some. Each subfolder of FOLDER is measured by itself
and must be a folder of classes.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder as TorchvisionFolder
from torchvision.io import ImageReadMode, decode_image, read_file
from torchvision.transforms import v2

from dlkit import transforms
from dlkit.datasets import ImageFolder
from dlkit.datasets.images import decoding

SIZE, BATCH = 224, 32
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def made_up(folder: Path, width: int, height: int, count: int) -> Path:
    rng = np.random.default_rng(0)
    for number in range(count):
        noise = rng.normal(128, 60, (height // 12 + 1, width // 12 + 1, 3)).clip(0, 255).astype(np.uint8)
        image = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        grain = rng.normal(0, 4, (height, width, 1))
        path = folder / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return folder


def tensor_loader(path: str) -> Any:
    return decode_image(read_file(path), ImageReadMode.RGB)


def torchvision_pil(folder: Path) -> Any:
    steps = [v2.RandomResizedCrop(SIZE, antialias=True), v2.RandomHorizontalFlip(), v2.PILToTensor()]
    steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    return TorchvisionFolder(folder, v2.Compose(steps))


def torchvision_tensor(folder: Path) -> Any:
    steps = [v2.RandomResizedCrop(SIZE, antialias=True), v2.RandomHorizontalFlip()]
    steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    return TorchvisionFolder(folder, v2.Compose(steps), loader=tensor_loader)


def seconds(dataset: Any, workers: int, *, warm: bool = True) -> float:
    """One epoch; workers are started before the clock, as they are in every epoch but the first."""
    loader = DataLoader(dataset, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    if warm and workers:
        for _ in loader:
            break
    start = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - start


def without_simplejpeg(dataset: Any) -> float:
    found = decoding._simplejpeg
    decoding._simplejpeg = lambda: None  # type: ignore[assignment]
    try:
        return seconds(dataset, 0)
    finally:
        decoding._simplejpeg = found


def dali(folder: Path, cores: int) -> Any:
    """DALI's usual training pipeline on the CPU; None where it is not installed."""
    try:
        from nvidia.dali import fn, pipeline_def, types
        from nvidia.dali.plugin.pytorch import DALIClassificationIterator
    except ImportError:
        return None

    @pipeline_def
    def pipeline() -> Any:
        files, labels = fn.readers.file(file_root=str(folder), random_shuffle=True, name="files")
        images = fn.decoders.image_random_crop(files, device="cpu", output_type=types.RGB)
        images = fn.resize(images, resize_x=SIZE, resize_y=SIZE)
        mean, std = ([255 * value for value in values] for values in (MEAN, STD))
        mirror = fn.random.coin_flip(probability=0.5)
        return fn.crop_mirror_normalize(images, mean=mean, std=std, mirror=mirror, output_layout="CHW"), labels

    built = pipeline(batch_size=BATCH, num_threads=cores, device_id=None)
    return DALIClassificationIterator(built, reader_name="files", auto_reset=True)


def ffcv(folder: Path, cores: int, packed: Path) -> Any:
    """FFCV's loader over a file in raw mode; None where it is not installed."""
    try:
        from ffcv.fields import IntField, RGBImageField
        from ffcv.fields.decoders import IntDecoder
        from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
        from ffcv.loader import Loader, OrderOption
        from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, ToTensor, ToTorchImage
        from ffcv.writer import DatasetWriter
    except ImportError:
        return None
    with Image.open(next(folder.rglob("*.jpg"))) as first:
        if first.width * first.height * 3 > 8 << 20:
            return None  # more than a page of its file holds: its writer would wait for ever
    fields = {"image": RGBImageField(write_mode="raw"), "label": IntField()}
    DatasetWriter(str(packed), fields, num_workers=1).from_indexed_dataset(TorchvisionFolder(folder))
    normalize = NormalizeImage(255 * np.array(MEAN), 255 * np.array(STD), np.float32)
    image = [RandomResizedCropRGBImageDecoder((SIZE, SIZE)), RandomHorizontalFlip(), normalize]
    pipelines = {"image": [*image, ToTensor(), ToTorchImage()], "label": [IntDecoder(), ToTensor()]}
    return Loader(
        str(packed), batch_size=BATCH, num_workers=cores, order=OrderOption.RANDOM, os_cache=True, pipelines=pipelines
    )


def whole_pass(loader: Any) -> float:
    start = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - start


def contenders(folder: Path, cache: Path) -> Iterator[tuple[str, Callable[[], float]]]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pil, tensor = torchvision_pil(folder), torchvision_tensor(folder)
    ours = ImageFolder(folder, transform=transforms.train(SIZE))
    kept = ImageFolder(folder, transform=transforms.train(SIZE), cache=cache)
    seconds(kept, 0)
    yield "torchvision, PIL", lambda: seconds(pil, cores)
    yield "torchvision, tensors", lambda: seconds(tensor, cores)
    yield "dlkit, 0 workers", lambda: seconds(ours, 0)
    yield "dlkit, 1 worker", lambda: seconds(ours, 1)
    yield "dlkit, 0 workers, Pillow alone", lambda: without_simplejpeg(ours)
    yield "dlkit, 0 workers, cache full", lambda: seconds(kept, 0)
    yield "dlkit, 1 worker, cache full", lambda: seconds(kept, 1)
    packed = cache.with_name(f"{folder.name}.beton")
    for name, make in (("DALI, CPU", lambda: dali(folder, cores)), ("FFCV, raw", lambda: ffcv(folder, cores, packed))):
        try:
            loader = make()
            if loader is not None:
                whole_pass(loader)  # compiles
                yield name, functools.partial(whole_pass, loader)
        except Exception as error:
            print(f"  {name} does not run here: {str(error).strip().splitlines()[0][:100]}")


def measure(folder: Path, rounds: int, cache: Path) -> None:
    entrants = dict(contenders(folder, cache))
    taken: dict[str, list[float]] = {name: [] for name in entrants}
    for _ in range(rounds):
        for name, run in list(entrants.items()):
            try:
                taken[name].append(run())
            except Exception as error:
                print(f"  {name} fails: {type(error).__name__}: {str(error).strip().splitlines()[0][:100]}")
                del entrants[name], taken[name]
    count = len(ImageFolder(folder))
    base = statistics.median(taken["torchvision, PIL"])
    print(f"{folder.name}: {count} images, load {os.getloadavg()[0]:.1f}")
    for name, times in taken.items():
        middle = statistics.median(times)
        print(f"  {name:32} {count / middle:8.0f} img/s   {base / middle:5.2f} x torchvision (PIL)")
    if "FFCV, raw" in taken:
        for name in [name for name in taken if "cache full" in name]:
            ratios = [raw / own for raw, own in zip(taken["FFCV, raw"], taken[name], strict=True)]
            print(f"  {name}: {statistics.median(ratios):.2f} x FFCV, from {min(ratios):.2f} to {max(ratios):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--only", help="measure only the folder of this name")
    parser.add_argument("--count", type=int, default=256, help="how many photographs of 500x375 are made")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        folders = sorted(path for path in options.photos.iterdir() if path.is_dir()) if options.photos else []
        if not folders:
            folders = [made_up(root / "500x375", 500, 375, options.count)] if options.only != "12 megapixels" else []
            if options.only != "500x375":
                folders.append(made_up(root / "12 megapixels", 4000, 3000, 32))
        for folder in folders:
            measure(folder, options.rounds, root / "cache")


if __name__ == "__main__":
    main()
