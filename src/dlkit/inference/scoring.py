"""How good a loaded model is on labelled data, whatever order that data has its classes in."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlkit.artifact.inputs import Meaning
from dlkit.declared import spec_in
from dlkit.errors import ArgumentError, DataError
from dlkit.inference.outputs import probabilities_of
from dlkit.metrics import Metrics
from dlkit.reading.targets import ClassNumbers

__all__ = ["labelled", "score"]

# Kinds whose inputs are in files that a dataset prepares in one way or another, to what its classes are called.
_OF_FILES = {"audio": "Audio", "image": "Image"}


def labelled(meaning: Meaning, data: Any, options: Mapping[str, Any]) -> Any:
    """A labelled dataset that is prepared the model's way.

    Args:
        meaning: What the model takes.
        data: A dataset; or a folder, a file or a table to make one of.
        options: More for the dataset that reads a file.

    Raises:
        ArgumentError: the dataset is prepared another way, and cannot be prepared again.
    """
    from dlkit.datasets.files.table import FilesInTable

    made = _opened(meaning, data, options) if not hasattr(data, "__getitem__") or _is_raw(data) else data
    if meaning.kind in _OF_FILES and spec_in(made) != meaning.preprocessing:
        made = _prepared(made, meaning)
    if meaning.scaled is not None and isinstance(made, FilesInTable):
        made = made.with_target(meaning.scaled)
    if meaning.kind in (*_OF_FILES, "tensor"):
        return made
    own = spec_in(made)
    if own is None or own.compared() != meaning.preprocessing.compared():
        raise ArgumentError(
            "this dataset is prepared by another spec than the model's; give the file or table itself, and the model "
            "prepares it"
        )
    if getattr(made, "targets", None) is None:
        raise DataError("the data has no targets to compare with; say where they are: evaluate(data, target=...)")
    return made


def _prepared(data: Any, meaning: Meaning) -> Any:
    """Images or sounds in files, prepared the model's way instead of their own."""
    from dlkit.datasets.audio.dataset import AudioDataset
    from dlkit.datasets.images.dataset import ImageDataset

    if not isinstance(data, AudioDataset if meaning.kind == "audio" else ImageDataset):
        noun, name = meaning.preprocessing.noun, _OF_FILES[meaning.kind]
        raise ArgumentError(
            f"{type(data).__name__} does not prepare its {noun} as the model expects them, and cannot be told to; "
            f"give a folder of class folders, or an {name}Folder or {name}Table"
        )
    return data.with_transform(meaning.preprocessing)


def _is_raw(data: Any) -> bool:
    return isinstance(data, str | os.PathLike | list) or type(data).__module__.startswith("pandas")


def _opened(meaning: Meaning, source: Any, options: Mapping[str, Any]) -> Any:
    if meaning.kind in _OF_FILES:
        return _of_files(meaning, source, options)
    if meaning.kind == "table":
        from dlkit.datasets.tables.dataset import CSVDataset

        return CSVDataset(source, spec=meaning.preprocessing, **options)
    if meaning.kind == "text":
        from dlkit.datasets.texts.dataset import TextDataset

        return TextDataset(source, spec=meaning.preprocessing, **_with_column(meaning, source, options))
    raise ArgumentError("a model of bare tensors is evaluated on a dataset of (inputs, target)")


def _of_files(meaning: Meaning, source: Any, options: Mapping[str, Any]) -> Any:
    """A folder with a folder for each class, or files that a table names, prepared the model's way."""
    from dlkit.datasets.audio.folders import AudioFolder
    from dlkit.datasets.audio.table import AudioTable
    from dlkit.datasets.images.folders import ImageFolder
    from dlkit.datasets.images.table import ImageTable

    folder, table = (AudioFolder, AudioTable) if meaning.kind == "audio" else (ImageFolder, ImageTable)
    if isinstance(source, str | os.PathLike) and "://" not in str(source) and not Path(source).expanduser().is_file():
        return folder(source, transform=meaning.preprocessing, **options)
    file, target = options.get(meaning.kind) or next(iter(meaning.columns), None), options.get("target")
    if file is None:
        raise ArgumentError(f"say which column of the table names the files: {meaning.kind}=...")
    if target is None and meaning.task != "regression":
        raise ArgumentError("say which column of the table holds the true values: target=...")
    columns = list(meaning.classes) if target is None else [target] if isinstance(target, str) else list(target)
    others = {name: value for name, value in options.items() if name not in (meaning.kind, "target")}
    task: Any = "classification" if meaning.task == "binary" else meaning.task
    return table(source, file, columns, task=task, transform=meaning.preprocessing, **others)


def _with_column(meaning: Meaning, source: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with the column that the texts are in, where the source has columns; never just the first one."""
    from dlkit.inference.texts import columns_of

    named = Path(source) if isinstance(source, str) else source
    if not isinstance(named, os.PathLike) and not hasattr(named, "columns"):
        return dict(options)
    return {**options, **dict(zip(("text", "pair"), columns_of(meaning, named, options), strict=False))}


def score(meaning: Meaning, outputs: Tensor, targets: Tensor, classes: Sequence[str] | None) -> dict[str, float]:
    """The measures of `Predictor.evaluate`.

    Args:
        meaning: What the outputs are.
        outputs: As the model gives them [N, ...].
        targets: As the dataset gives them.
        classes: The dataset's own order; None where it is the model's.

    Raises:
        DataError: the data has classes that the model does not know.
    """
    samples = {"samples": float(len(outputs))}
    if meaning.task == "regression":
        target = meaning.target
        wanted = (targets if target is None else target.unscale(targets)).reshape(len(targets), -1).double()
        predicted = probabilities_of(meaning, outputs).double().reshape(wanted.shape)
        wrong = float(nn.functional.mse_loss(outputs.reshape(len(targets), -1), targets.reshape(len(targets), -1)))
        return samples | _measured(["rmse", "mae", "r2"], nn.MSELoss(), predicted, wanted) | {"loss": wrong}
    loss, outputs, wanted = _decisions(meaning, outputs, targets, _order(meaning.classes, classes))
    names = ["f1", "accuracy"] if meaning.task == "multilabel" else ["accuracy"]
    measured = _measured(names, loss, _shifted(meaning, outputs), wanted)
    return samples | measured | {"loss": float(loss(outputs, wanted))}


def _shifted(meaning: Meaning, outputs: Tensor) -> Tensor:
    """Outputs that decide at one half as the model's own do at its thresholds."""
    if not meaning.thresholds:
        return outputs
    limits = torch.tensor(meaning.thresholds, dtype=outputs.dtype)
    if meaning.task == "classification":  # logits, or logarithms of probabilities
        return outputs - torch.cat([1 - limits, limits]).log()
    if meaning.outputs == "probabilities":
        return outputs * (1 - limits) / (outputs * (1 - limits) + (1 - outputs) * limits).clamp_min(1e-30)
    return outputs - limits.logit()


def _measured(names: list[str], loss: nn.Module, outputs: Tensor, wanted: Tensor) -> dict[str, float]:
    metrics = Metrics(names, loss=loss)
    metrics.update(outputs, wanted)
    return metrics.compute()


def _decisions(meaning: Meaning, outputs: Tensor, targets: Tensor, order: Tensor) -> tuple[nn.Module, Tensor, Tensor]:
    """The loss of classes or labels, with outputs and targets as it reads them."""
    ready = meaning.outputs == "probabilities"
    if meaning.task == "classification":
        # Logarithms of probabilities score as logits do; as small as torch's own BCE allows.
        logits = outputs.double().clamp_min(1e-44).log() if ready else outputs
        return nn.CrossEntropyLoss(), logits, order[targets.long().reshape(-1)]
    outputs, loss = outputs.double(), nn.BCELoss() if ready else nn.BCEWithLogitsLoss()
    if meaning.task == "binary":
        return loss, outputs.reshape(-1), order[targets.long().reshape(-1)].double()
    wanted = torch.zeros_like(outputs)
    wanted[:, order] = targets.double()
    return loss, outputs, wanted


def _order(own: Sequence[str], given: Sequence[str] | None) -> Tensor:
    """The model's number of each class of the data."""
    numbers = ClassNumbers(own)
    places = [numbers.get(str(name), -1) for name in given or own]
    if unknown := [str(name) for name, place in zip(given or own, places, strict=True) if place < 0]:
        raise DataError(
            f"the data has the classes {', '.join(unknown[:5])}, which the model does not know; it knows "
            f"{', '.join(own[:10])}{', ...' if len(own) > 10 else ''}"
        )
    return torch.tensor(places)
