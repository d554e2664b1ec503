"""`load` and `Predictor`: a model file, and files, tables or texts in; names and numbers out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dlkit._devices import pick_device
from dlkit._showing import safe
from dlkit.artifact.header import Header
from dlkit.artifact.inputs import Meaning
from dlkit.artifact.opening import open_model
from dlkit.artifact.running import call, cast, evaluating, output_of
from dlkit.errors import ArgumentError, DataError
from dlkit.inference.outputs import Prediction, columns_of, predictions_of, probabilities_of
from dlkit.inference.scoring import labelled, score
from dlkit.inference.sources import Asked, ask
from dlkit.loader import DataLoader

__all__ = ["Predictor", "load"]


def load(
    path: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    verify: bool = True,
    trust_hub: bool = False,
    tokenizer: Callable[[str], list[str]] | None = None,
) -> Predictor:
    """Open a model file for prediction. Runs no code from the file.

    Args:
        path: What `dlkit.save` wrote.
        device: Where to compute; "auto" takes the fastest there is.
        verify: Compute the stored example again and compare (some milliseconds).
        trust_hub: Allow an architecture of `torch.hub`, which runs the code of that repository.
        tokenizer: The function that cuts texts, where the model was trained with one of your own.

    Raises:
        DataNotFoundError: there is no such file.
        ModelFileError: it is damaged or hostile, was changed, or names an architecture that is not registered here.

    >>> import tempfile, dlkit; from dlkit.models import SmallConvNet; from dlkit.transforms import evaluate
    >>> file = tempfile.mkdtemp() + "/letters.safetensors"
    >>> grey = evaluate(28, color="L", mean=0.0, std=1.0)
    >>> file = dlkit.save(SmallConvNet(num_classes=2), file, classes=["A", "B"], preprocessing=grey)
    >>> dlkit.load(file)
    Predictor(dlkit.models.SmallConvNet, image, classification of 2 classes: A, B)
    """
    model, meaning, header = open_model(path, verify=verify, trust_hub=trust_hub, tokenizer=tokenizer)
    return Predictor(model, meaning, header, device=pick_device(device))


class Predictor:
    """A model that is ready to predict; from `dlkit.load`.

    Inputs are prepared exactly as in validation, so the logits of a file are those that validation saw, bit for bit on
    the CPU, for the same batch.

    Args:
        model: In evaluation mode.
        meaning: What its inputs and outputs mean.
        header: Of the file it came from.
        device: Where to compute.

    Attributes:
        model: The module.
        classes: The classes' names in the order of the outputs; for regression those of the outputs.
        task: "classification", "binary", "multilabel" or "regression".
        kind: "image", "table", "text" or "tensor".
        preprocessing: The transform, `Schema` or `TextSpec`; None for tensors.
        info: What the file says of itself: architecture, metrics, versions.
        device: Where it computes.
    """

    def __init__(self, model: nn.Module, meaning: Meaning, header: Header, *, device: torch.device) -> None:
        self.model, self.meaning, self.device = model.to(device), meaning, device
        self.classes, self.task, self.kind = list(meaning.classes), meaning.task, meaning.kind
        self.preprocessing = meaning.preprocessing
        document = header.document
        self.info: dict[str, Any] = {
            "file": str(header.path),
            "architecture": document.get("architecture"),
            "kind": self.kind,
            "task": self.task,
            "classes": self.classes,
            "metrics": document.get("metrics", {}),
            "versions": document.get("versions", {}),
        }

    def __repr__(self) -> str:
        name = (self.info["architecture"] or {}).get("name")
        few = ", ".join(self.classes[:5]) + (", ..." if len(self.classes) > 5 else "")
        what = f"{self.task} of {len(self.classes)} classes" if self.task != "regression" else "regression"
        return safe(f"Predictor({name}, {self.kind}, {what}{f': {few}' if few else ''})")

    def predict(
        self,
        source: Any,
        *,
        top_k: int = 1,
        batch_size: int = 64,
        on_error: Literal["raise", "skip"] = "raise",
        **options: Any,
    ) -> Any:
        """Predictions for anything of the model's kind.

        Args:
            source: Images: a file, a list of files, a folder, pictures of PIL or uint8 arrays. Tables: a CSV or
                Parquet file, a DataFrame, a dict (one row) or a list of dicts. Texts: a text, a list of texts, a file
                of texts. Or prepared tensors [B, ...].
            top_k: How many classes to list.
            batch_size: Inputs per forward pass.
            on_error: "raise" stops at an input that cannot be read, naming it; "skip" gives it an error in place of a
                prediction.
            **options: More for the dataset that reads a file: `text="comment"` for the column of texts, `separator=`.

        Returns:
            A `Prediction` for one input; for many a DataFrame with a column for the input (file, text or row),
            `prediction` and `probability` (and `_2`, `_3` ... up to top_k), or one column per output of a regression.

        Raises:
            ArgumentError: the model takes another kind of input.
            DataError: an input cannot be read.
        """
        asked = ask(self.meaning, source, on_error, options)
        found = self._predictions(asked, top_k, batch_size)
        if asked.single:
            return found[0]
        import pandas as pd

        names = [asked.names[place] for place in range(len(asked.names))]
        return pd.DataFrame({asked.column: names, **columns_of(self.meaning, found, top_k)})

    def logits(self, source: Any, *, batch_size: int = 64, **options: Any) -> Tensor:
        """The model's bare outputs, float32 [N, ...] on the CPU.

        Args:
            source: See `predict`.
            batch_size: Inputs per forward pass.
            **options: See `predict`.
        """
        return self._outputs(ask(self.meaning, source, "raise", options), batch_size)

    def probabilities(self, source: Any, *, batch_size: int = 64, **options: Any) -> Tensor:
        """Probabilities [N, classes] in the order of `classes`; for regression the values in their own units.

        Args:
            source: See `predict`.
            batch_size: Inputs per forward pass.
            **options: See `predict`.
        """
        return probabilities_of(self.meaning, self.logits(source, batch_size=batch_size, **options))

    def evaluate(self, dataset: Any, *, batch_size: int = 64, **options: Any) -> dict[str, float]:
        """How good the model is on labelled data; classes are matched by name, never by number.

        Args:
            dataset: A labelled dataset of the model's kind, which is prepared the model's way; or a folder of class
                folders, a table, a file of texts to make one of.
            batch_size: Inputs per forward pass.
            **options: More for the dataset that reads a file: `text=`, `target=`.

        Returns:
            "samples", and "accuracy" and "loss"; for several labels "accuracy" is per label; for regression "mae" and
            "rmse", in the units of the data.

        Raises:
            DataError: the data has classes that the model does not know.
        """
        data = labelled(self.meaning, dataset, options)
        batches = list(self.run(data, batch_size))
        if not batches or any(target is None for _, target in batches):
            raise DataError("there is nothing to compare with: the data is empty, or has no targets")
        outputs, targets = (torch.cat(part) for part in zip(*batches, strict=True))
        return score(self.meaning, outputs, targets, getattr(data, "classes", None))

    def _predictions(self, asked: Asked, top_k: int, batch_size: int) -> list[Prediction]:
        readable = len(asked.data) > 0
        found = (
            predictions_of(self.meaning, probabilities_of(self.meaning, self._outputs(asked, batch_size)), top_k)
            if readable
            else []
        )
        if asked.rows is None:
            return found
        placed = dict(zip(asked.rows, found, strict=True))
        return [placed.get(n) or Prediction(error=asked.errors.get(n, "unreadable")) for n in range(len(asked.names))]

    def _outputs(self, asked: Asked, batch_size: int) -> Tensor:
        if len(asked.data) == 0:
            raise DataError("there is nothing to predict: the source is empty")
        return torch.cat([output for output, _ in self.run(asked.data, batch_size)])

    def run(self, dataset: Any, batch_size: int) -> Iterator[tuple[Tensor, Any]]:
        """Outputs and targets (None without any) of a dataset in order, batch by batch, on the CPU.

        Args:
            dataset: Prepared the model's way.
            batch_size: Inputs per forward pass.
        """
        if batch_size < 1:
            raise ArgumentError(f"batch_size must be at least 1, not {batch_size}")
        like = next((value for value in self.model.parameters() if value.is_floating_point()), None)
        loader = DataLoader(dataset, batch_size, collate_fn=None)
        with evaluating(self.model):
            for batch in loader:
                inputs, target = _halves(batch, dataset)
                inputs = tuple(inputs) if isinstance(inputs, list) else inputs
                yield output_of(call(self.model, cast(inputs, like))).float().cpu(), target


def _halves(batch: Any, dataset: Any) -> tuple[Any, Any]:
    """Inputs and target; datasets of dlkit say whether they have targets, of others a pair is taken for both."""
    pair = isinstance(batch, tuple | list) and len(batch) == 2
    if pair and getattr(dataset, "targets", batch) is not None and not isinstance(dataset, list):
        return batch[0], batch[1]
    return batch, None
