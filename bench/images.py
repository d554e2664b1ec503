"""Images per second from files to normalised, augmented 224-pixel batches; alternating, medians, ratios.

    python bench/images.py [--rounds 5] [--photos FOLDER] [--only 500x375]

Contenders: torchvision's ImageFolder in PIL and in tensor form (as many workers as cores), dlkit with threads in this
process, with threads in one worker, with Pillow alone, and later epochs from a full cache; DALI (on the CPU), SPDL (its
pipeline of threads over FFmpeg) and FFCV (its raw mode) where they are installed. Every one cuts a random part out,
resizes it to 224 pixels, mirrors half of the images and gives normalised floats. Without FOLDER, photographs of 500x375
pixels are made by enlarging noise, and two sets of 12-megapixel ones: grainy (3.9 MB each) and smooth (1.7 MB), because
at a reduced size most of the time goes into reading the file's bits; and with the test data at hand (DLKIT_TEST_DATA) a
third one of real photographs enlarged to 12 megapixels (0.7 MB). Real ones compress differently, so give some. Each
subfolder of FOLDER is measured by itself and must be a folder of classes.
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

DATA = Path(os.environ.get("DLKIT_TEST_DATA", "../shared/data"))
SIZE, BATCH = 224, 32
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def made_up(folder: Path, width: int, height: int, count: int, detail: int = 12, grain: float = 4) -> Path:
    """Noise enlarged `detail` times, with grain: what a JPEG of it weighs decides how long it takes to decode."""
    rng = np.random.default_rng(0)
    for number in range(count):
        noise = rng.normal(128, 60, (height // detail + 1, width // detail + 1, 3)).clip(0, 255).astype(np.uint8)
        image = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        noise = rng.normal(0, grain, (height, width, 1))
        path = folder / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return folder


def enlarged(folder: Path, width: int, height: int, count: int) -> Path:
    """Landscape photographs of the test data, enlarged."""
    made = 0
    for path in sorted((DATA / "images" / "hymenoptera" / "train").rglob("*.jpg")):
        with Image.open(path) as photo:
            if made == count or photo.width <= photo.height:
                continue
            target = folder / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            photo.convert("RGB").resize((width, height), Image.Resampling.LANCZOS).save(target, quality=85)
            made += 1
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


def loader_of(dataset: Any, workers: int) -> Any:
    return DataLoader(dataset, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0)


def whole_pass(loader: Any) -> float:
    """One epoch. The first one of each loader starts workers, compiles and fills caches, and is not counted.

    It is a whole one, because a loader that is begun again has to wait for what its workers still fetch for the epoch
    that was given up.
    """
    start = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - start


def second_pass(make: Callable[[], Any]) -> float:
    """For a loader that already fetches the next epoch while nobody asks: made anew, and from one epoch to the next."""
    loader = make()
    whole_pass(loader)
    return whole_pass(loader)


def without_simplejpeg(loader: Any) -> float:
    found = decoding._simplejpeg
    decoding._simplejpeg = lambda: None  # type: ignore[assignment]
    try:
        return whole_pass(loader)
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


class SPDL:
    """SPDL's pipeline of threads: FFmpeg decodes, crops, mirrors and resizes in one filter graph, torch normalises."""

    def __init__(self, folder: Path, threads: int) -> None:
        import spdl.io
        import spdl.pipeline

        self.io, self.builder, self.threads = spdl.io, spdl.pipeline.PipelineBuilder, threads
        self.samples = TorchvisionFolder(folder).samples
        self.crop = v2.RandomResizedCrop(SIZE)
        mean, std = (255 * torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        self.scale, self.shift = 1 / std, -mean / std

    def decode(self, sample: tuple[str, int]) -> tuple[Any, int]:
        packets = self.io.demux_image(sample[0])
        box = self.crop.make_params([torch.empty(3, packets.height, packets.width, device="meta")])
        mirrored = "hflip," if torch.rand(()) < 0.5 else ""
        steps = f"crop={box['width']}:{box['height']}:{box['left']}:{box['top']},{mirrored}scale={SIZE}:{SIZE}:flags="
        return self.io.decode_packets(packets, filter_desc=f"{steps}bilinear,format=pix_fmts=rgb24"), sample[1]

    def collate(self, samples: list[tuple[Any, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        frames, labels = zip(*samples, strict=True)
        pixels = self.io.to_torch(self.io.convert_frames(list(frames))).permute(0, 3, 1, 2)
        return torch.empty(pixels.shape).copy_(pixels).mul_(self.scale).add_(self.shift), torch.tensor(labels)

    def __iter__(self) -> Iterator[Any]:
        order = torch.randperm(len(self.samples)).tolist()
        builder = self.builder().add_source([self.samples[number] for number in order])
        builder = builder.pipe(self.decode, concurrency=self.threads).aggregate(BATCH).pipe(self.collate).add_sink(4)
        pipeline = builder.build(num_threads=self.threads)
        with pipeline.auto_stop():
            yield from pipeline


def spdl(folder: Path, cores: int) -> Any:
    """SPDL's loader; None where it is not installed. It was fastest with two threads per core."""
    try:
        return SPDL(folder, 2 * cores)
    except ImportError:
        return None


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


def contenders(folder: Path, cache: Path) -> Iterator[tuple[str, Callable[[], float]]]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ours = ImageFolder(folder, transform=transforms.for_training(SIZE))
    kept = ImageFolder(folder, transform=transforms.for_training(SIZE), cache=cache)
    loaders = {
        "torchvision, PIL": loader_of(torchvision_pil(folder), cores),
        "torchvision, tensors": loader_of(torchvision_tensor(folder), cores),
        "dlkit, 0 workers": loader_of(ours, 0),
        "dlkit, 1 worker": loader_of(ours, 1),
        "dlkit, 0 workers, cache full": loader_of(kept, 0),
        "dlkit, 1 worker, cache full": loader_of(kept, 1),
    }
    for name, loader in loaders.items():
        whole_pass(loader)
        yield name, functools.partial(whole_pass, loader)
    yield "dlkit, 0 workers, Pillow alone", functools.partial(without_simplejpeg, loader_of(ours, 0))
    packed = cache.with_name(f"{folder.name}.beton")
    makers: dict[str, Callable[[], Any]] = {
        "DALI, CPU": lambda: dali(folder, cores),
        "SPDL, FFmpeg": lambda: spdl(folder, cores),
        "FFCV, raw": lambda: ffcv(folder, cores, packed),
    }
    for name, make in makers.items():
        try:
            loader = make()
            if loader is not None:
                whole_pass(loader)
                ahead = name.startswith("DALI")
                yield name, functools.partial(second_pass, make) if ahead else functools.partial(whole_pass, loader)
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
    files = [path for path in folder.rglob("*") if path.is_file()]
    size, count = sum(path.stat().st_size for path in files) / len(files), len(ImageFolder(folder))
    print(f"{folder.name}: {count} images of {size / 1e6:.2f} MB, load {os.getloadavg()[0]:.1f}")
    for name, times in taken.items():
        ratios = [base / own for base, own in zip(taken["torchvision, PIL"], times, strict=True)]
        shown = f"{statistics.median(ratios):6.2f} x torchvision (PIL), from {min(ratios):.2f} to {max(ratios):.2f}"
        print(f"  {name:32} {count / statistics.median(times):6.0f} img/s {shown}")
    if "FFCV, raw" in taken:
        for name in [name for name in taken if "cache full" in name]:
            ratios = [raw / own for raw, own in zip(taken["FFCV, raw"], taken[name], strict=True)]
            print(f"  {name}: {statistics.median(ratios):.2f} x FFCV, from {min(ratios):.2f} to {max(ratios):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--only", help="measure only the folder of this name")
    # As many batches for each of torchvision's workers, or one of them idles at the end of every epoch.
    parser.add_argument("--count", type=int, default=320, help="how many photographs of 500x375 are made")
    parser.add_argument("--large", type=int, default=128, help="how many photographs of 12 megapixels are made")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        if options.photos:
            found = sorted(path for path in options.photos.iterdir() if path.is_dir())
            folders = [path for path in found if options.only in (None, path.name)]
        else:
            sets: dict[str, Callable[[Path], Path]] = {
                "500x375": lambda folder: made_up(folder, 500, 375, options.count),
                "12 megapixels": lambda folder: made_up(folder, 4000, 3000, options.large),
                "12 megapixels, smooth": lambda folder: made_up(folder, 4000, 3000, options.large, 48, 1.5),
            }
            if DATA.is_dir():
                sets["12 megapixels, enlarged"] = lambda folder: enlarged(folder, 4000, 3000, options.large)
            folders = [make(root / name) for name, make in sets.items() if options.only in (None, name)]
        for folder in folders:
            measure(folder, options.rounds, root / "cache")


if __name__ == "__main__":
    main()
