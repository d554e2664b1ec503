"""`evaluate_file`: how right a model file is, on other data or on what its run has held out."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, Unpack, cast

import numpy as np

from dlkit._language import Message
from dlkit.datasets.texts.dataset import TextOptions
from dlkit.errors import ArgumentError, DataError
from dlkit.inference import Predictor, load
from dlkit.inference.scoring import labelled
from dlkit.reading.policy import ReadArguments
from dlkit.recipes.held_out import kept_keys, keys_of
from dlkit.recipes.identity import saved_settings
from dlkit.recipes.kinds import DataOptions, kind_of, place_of
from dlkit.recipes.reading import Data, encoded_by, letters, read_data
from dlkit.splits import Fold

__all__ = ["evaluate_file"]

_PARTS = ("train", "val", "test")


def evaluate_file(
    model: str | os.PathLike[str],
    source: Any = None,
    *,
    part: str | None = None,
    device: str = "cpu",
    batch_size: int | None = None,
    tta: bool = False,
    **reading: Unpack[DataOptions],
) -> dict[str, float]:
    """How right a model file is on labelled data; classes and columns are matched by name.

    The measures are those of training, in the units of the data. A warning says how many of the samples are among those
    that the model was trained on, where its run still is beside it.

    Args:
        model: What `train` or `dlkit.save` wrote, or the folder of a run.
        source: See `read_data`; all of it is taken, or the `part`. None: the data of the run.
        part: "train", "val" or "test" of the run, which is cut again as it was then, or of a folder that has folders of
            these names. None takes all of `source`, and without one what was held out.
        device: Where to compute.
        batch_size: Samples at a time; None for as many as `Predictor.predict` takes.
        tta: The mean over an image and its mirror image, see `Predictor.predict`.
        **reading: Of texts the columns, `text`, `pair` and `target`, and how rows are read. A table's columns are in
            the file, and all of this is in a run. Of a table that names images or sounds `target`; `image` or
            `audio` where it is another column than in training.

    Raises:
        ArgumentError: an option that this kind of model has no use for; a part of data that is not the run's.
        DataError: the data has classes that the model does not know, cannot be read, or is not what it was when the run
            held out a part of it.
    """
    predictor = load(model, device=device)
    options: dict[str, Any] = {name: value for name, value in reading.items() if value is not None}
    folder = Path(predictor.info["file"]).parent
    settings = saved_settings(folder)
    if part not in (None, *_PARTS):
        raise ArgumentError(f"part={part!r}: there are {', '.join(_PARTS)}")
    if source is None and not settings:
        raise ArgumentError(
            f"say which data to evaluate on: {folder} is not the folder of a run, which would know what it held out"
        )
    if source is None or (part is not None and settings and place_of(source) == settings.get("data")):
        data = _of_run(settings, source, options)
        return predictor.evaluate(_held_out(predictor, folder, data, part), batch_size=batch_size, tta=tta)
    dataset = _dataset(predictor, source, part, options)
    if part != "train":
        _warn_of_known(folder, dataset)
    return predictor.evaluate(dataset, batch_size=batch_size, tta=tta)


def _of_run(settings: dict[str, Any], source: Any, options: dict[str, Any]) -> Data:
    """The data of a run, cut as it was then."""
    said = {name: settings[name] for name in DataOptions.__annotations__ if settings.get(name) is not None}
    if isinstance(fold := said.get("fractions"), dict):
        said["fractions"] = Fold(**fold)
    for name in options.keys() - {"on_error"}:
        if options[name] != said.get(name):
            raise ArgumentError(f"{name}={options[name]!r}: the part of a run is read as the run did; leave it out")
    return read_data(source or settings["data"], seed=settings["split_seed"], **cast(Any, {**said, **options}))


def _held_out(predictor: Predictor, folder: Path, data: Data, part: str | None) -> Any:
    name = part or ("test" if data.test is not None else "val")
    if (found := getattr(data, name)) is None:
        raise ArgumentError(
            f"part={name!r}: the run in {folder} has held out no such part; it has train and val"
            + (f", and {folder / 'fold-1'} and the others have a test part" if (folder / "fold-1").is_dir() else "")
        )
    kept, keys = kept_keys(folder), keys_of(found)
    if name in kept and keys is not None and not np.array_equal(kept[name], keys):
        raise DataError(
            f"{data.source} is not what it was when the run in {folder} held out a part of it, so the part cannot be "
            "found again; train again, or name the data to evaluate on"
        )
    if data.kind == "text":
        found = getattr(encoded_by(data, predictor.preprocessing), name)
    return labelled(predictor.meaning, found, {})


def _dataset(predictor: Predictor, source: Any, part: str | None, options: dict[str, Any]) -> Any:
    """A source of labelled data as the model takes it."""
    texts = {"target", "text", "pair", *(ReadArguments.__annotations__.keys() & TextOptions.__annotations__.keys())}
    fitting = {
        "image": {"target", "image", "label_separator", *ReadArguments.__annotations__},
        "audio": {"target", "audio", "label_separator", *ReadArguments.__annotations__},
        "table": {"target", *ReadArguments.__annotations__},
        "text": texts,
    }
    for name in options:
        if name not in fitting.get(predictor.kind, ()):
            raise ArgumentError(
                f"{name}={options[name]!r}: the model takes {predictor.kind}s, which have no such thing"
            )
    if part is not None and predictor.kind not in ("image", "audio"):
        raise ArgumentError(
            f"part={part!r}: this is not the data of the model's run, which alone has parts; leave it out to take all"
        )
    if predictor.kind == "table":
        _check_target(predictor.preprocessing, options.pop("target", None))
    if predictor.kind == "image" and kind_of(source) == "letters":
        source, options = letters(str(source)), {}
    options |= {"part": part} if part is not None else {}
    return labelled(predictor.meaning, source, options)


def _warn_of_known(folder: Path, dataset: Any) -> None:
    """Say how many samples the model has seen in training, where that is known."""
    if not len(known := kept_keys(folder).get("train", ())) or (keys := keys_of(dataset)) is None:
        return
    if met := int(np.isin(keys, known).sum()):
        warnings.warn(
            Message(
                "{met:,} of {count:,} samples equal one that the model was trained on, so these figures flatter it; "
                "part='test' takes what its run has held out",
                met=met,
                count=len(keys),
            ),
            stacklevel=3,
        )


def _check_target(spec: Any, target: Any) -> None:
    wanted = () if target is None else (str(target),) if isinstance(target, str | int) else tuple(target)
    if wanted and wanted != spec.target.columns:
        raise ArgumentError(f"target={target!r}: the model predicts {', '.join(spec.target.columns)}; leave it out")
