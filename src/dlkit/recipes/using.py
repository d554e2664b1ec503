"""What else one does with data and models: look at it, compare backbones on it, fetch what is needed."""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

from dlkit._near import hint
from dlkit._progress import bars
from dlkit.datasets.inspecting import inspect
from dlkit.datasets.tables.dataset import CSVDataset
from dlkit.errors import ArgumentError
from dlkit.loader import DataLoader
from dlkit.metrics import Metrics
from dlkit.recipes.choosing import models_for
from dlkit.recipes.comparing import Comparison, compare
from dlkit.recipes.filed import filed_table
from dlkit.recipes.for_pictures import ENOUGH_HERTZ, listening_to
from dlkit.recipes.kinds import LETTERS, DataOptions, understood
from dlkit.recipes.reading import letters, read_data, rows_of
from dlkit.recipes.samples import SAMPLES, sampled, table_of
from dlkit.recipes.training import train
from dlkit.storage.files import home
from dlkit.transfer.models import create_model
from dlkit.transforms import for_evaluation
from dlkit.transforms.audio import AudioPreprocessing

__all__ = ["Ranked", "compare_backbones", "compare_models", "download", "look_at"]


def look_at(source: Any, **options: Unpack[DataOptions]) -> Any:
    """What is in a source of data, before a night is spent on it; `print` the result.

    Args:
        source: See `read_data`.
        **options: See `read_data`. A table needs no target here; with one, columns that know too much are told.

    Returns:
        For images or sounds, in a folder or named in a table, what `dlkit.datasets.inspect` found, for any other table
        what `CSVDataset.describe` found, for anything else the `Data`.

    Raises:
        DataError: it cannot be read.

    >>> import pandas as pd
    >>> print(*look_at(pd.DataFrame({"x": range(9), "y": [1] * 9})).findings)
    'y' is constant
    """
    source, options = sampled(source, options)
    kind, column = understood(source, options)
    if kind in ("letters", "text"):
        return read_data(source, **options)
    if column is not None:
        return inspect(filed_table(column, source, options, labelled=False))
    if kind != "table":
        return inspect(source)
    target = options.get("target")
    columns = str(target) if isinstance(target, str | int) else None if target is None else list(target)
    rows, drop = rows_of(options), tuple(options.get("drop", ()))
    # The columns are what `train` makes of them, which looks at the training rows alone.
    shares: dict[str, Any] = {name: options[name] for name in ("fractions", "group", "time") if options.get(name)}
    try:
        train, *_ = CSVDataset.split(source, target=columns, drop=drop, **shares, **rows)
    except ArgumentError:  # too few rows to be cut, which can be looked at all the same
        if columns is not None:
            raise
        return CSVDataset(source, drop=drop, **rows).describe()
    return CSVDataset(source, spec=train.spec, **rows).describe()


def compare_backbones(
    source: Any,
    models: Sequence[str],
    *,
    pretrained: bool = True,
    image_size: int = 224,
    batch_size: int = 64,
    num_workers: int = 0,
    device: str = "auto",
    seed: int = 0,
    progress: bool = True,
    **reading: Unpack[DataOptions],
) -> list[Comparison]:
    """How well the features of several backbones separate the classes of a folder of images or sounds, the best first.

    All get the same images, prepared as ImageNet's, or the same spectrograms; see `dlkit.compare`.

    Args:
        source: Images: a folder, or letters by name. Sounds: a folder.
        models: Names for `create_model`; "name=weights.pth" takes a file of weights instead of the library's own.
        pretrained: False takes random weights where no file is given: the baseline to beat.
        image_size: Side of the images in pixels.
        batch_size: Images per batch.
        num_workers: Processes that prepare batches.
        device: "auto", or where to compute.
        seed: Of the split.
        progress: Say each row on stderr as it is done.
        **reading: See `read_data`.

    Raises:
        ArgumentError: no models, an unknown one, or data that are not images.
        DownloadError: weights could not be fetched.
    """
    with bars(progress):
        data = read_data(source, seed=seed, **reading)
    if data.kind not in ("images", "letters", "sounds"):
        raise ArgumentError(f"backbones look at images and spectrograms, and {data.name} is {data.kind}")
    if data.task != "classification":
        raise ArgumentError(f"what is compared is how well features separate classes, and {data.name} is {data.task}")
    if not models:
        raise ArgumentError("name the backbones to compare, such as torchvision/resnet18 timm/mobilenetv3_small_100")
    letters, parts, log_mel = data.kind == "letters", [data.train, data.val], None
    if data.kind == "sounds":
        heard = AudioPreprocessing(sample_rate=min(data.rate, ENOUGH_HERTZ), seconds=data.seconds)
        parts, log_mel = [part.with_transform(heard) for part in parts], listening_to(heard)
    elif not letters:
        parts = [part.with_transform(for_evaluation(image_size)) for part in parts]
    train, val = (DataLoader(part, batch_size, num_workers=num_workers) for part in parts)
    rows = []
    for name in models:
        arch, _, weights = name.partition("=")
        model = create_model(
            arch,
            classes=data.classes,
            in_chans=1 if letters else 3,
            pretrained=pretrained,
            weights=weights or None,
            image_size=28 if letters else None if log_mel else image_size,
            log_mel=log_mel,
        )
        rows += compare({arch: model}, train, val, classes=data.classes, device=device, progress=progress)
    return sorted(rows, key=lambda row: row.linear, reverse=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranked:
    """One model's row in the table of `compare_models`.

    Attributes:
        name: The model, as in `arch=`.
        metrics: Of the test part; the first one ranks.
        judged_on: "test", or "val" where there is no test part.
        seconds: That fitting and judging took.
    """

    name: str
    metrics: dict[str, float]
    judged_on: str
    seconds: float


def compare_models(
    source: Any,
    models: Sequence[str] = (),
    *,
    device: str = "auto",
    seed: int = 0,
    progress: bool = True,
    **reading: Unpack[DataOptions],
) -> list[Ranked]:
    """Train several models on one split of a table or of texts, and rank them; the best first.

    Each is trained as `train` trains it, in a temporary folder. All see the same rows, prepared the same way.

    Args:
        source: A table, or a table of texts (`text=`).
        models: Names for `arch=`; all there are for this kind of data if none is given.
        device: Where to compute.
        seed: Of the split and of the models.
        progress: Say each row on stderr as it is done.
        **reading: See `read_data`.

    Raises:
        ArgumentError: images, or a name that is not known.

    >>> import pandas as pd
    >>> frame = pd.DataFrame({"x": range(100), "y": ["no", "yes"] * 50})
    >>> [row.name for row in compare_models(frame, ["mlp"], target="y", progress=False)]
    ['mlp']
    """
    with bars(progress):
        data = read_data(source, seed=seed, **reading)
    if data.kind not in ("table", "text"):
        raise ArgumentError(f"{data.name} is {data.kind}: compare backbones on it, such as torchvision/resnet18")
    known = models_for(data.kind)
    if unknown := [name for name in models if name not in known]:
        near = hint(unknown[0], known, has="there are")
        raise ArgumentError(f"{unknown[0]!r} is not a model for a {data.kind}; {near}")
    rows, best_first = list[Ranked](), 1.0
    for name in models or known:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            trained = train(data, arch=name, out=folder, seed=seed, device=device, progress=False)
        figures = {metric: value for metric, value in trained.metrics.items() if metric != "loss"}
        figures |= {"loss": trained.metrics["loss"]}
        best_first = -1.0 if Metrics([next(iter(figures))]).higher_is_better(next(iter(figures))) else 1.0
        rows.append(
            Ranked(
                name=name, metrics=figures, judged_on=trained.judged_on, seconds=round(time.perf_counter() - began, 1)
            )
        )
        if progress:
            sys.stderr.write(f"{name}: {', '.join(f'{metric} {value:.4g}' for metric, value in figures.items())}\n")
    return sorted(rows, key=lambda row: best_first * next(iter(row.metrics.values())))


def download(name: str, to: str | os.PathLike[str] | None = None) -> str:
    """Fetch something for later, when there may be no network; says what there is now.

    Args:
        name: "notmnist", "notmnist-large", "titanic", "penguins", or a model whose pretrained weights are meant
            ("torchvision/resnet18").
        to: A folder for notMNIST, a file or folder for a table; None for the cache folder. Weights always go to
            the cache folder of their library.

    Raises:
        DownloadError: no address gave it.
        ArgumentError: there is nothing of this name.
    """
    if name.lower() in SAMPLES:
        return str(table_of(name, None if to is None else Path(to)))
    if name.lower() in LETTERS:
        return repr(letters(name, None if to is None else Path(to)))
    if to is not None:
        raise ArgumentError(f"weights go to the cache folder ({home()}, set by DLKIT_HOME), so leave out where to")
    model = create_model(name, classes=2)
    return str(model.weights_report or f"the weights of {name} are in the cache of its library")
