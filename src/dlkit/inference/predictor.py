"""`load` and `Predictor`: a model file, and files, tables or texts in; names and numbers out."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from dlkit._calling import call, cast, evaluating, output_of, split
from dlkit._devices import pick_device
from dlkit._html import facts
from dlkit._language import Message
from dlkit._layer_errors import explain
from dlkit._progress import Bar
from dlkit._showing import safe
from dlkit.artifact.fusing import fused
from dlkit.artifact.header import Header
from dlkit.artifact.inputs import Meaning
from dlkit.artifact.opening import open_model
from dlkit.errors import ArgumentError, DataError
from dlkit.inference.batches import Batch, Inputs
from dlkit.inference.frames import Layout, frame_of, joined
from dlkit.inference.inputs import Preparing, files_named
from dlkit.inference.outputs import (
    Prediction,
    check_top_k,
    predictions_of,
    probabilities_of,
)
from dlkit.inference.scoring import labelled, score
from dlkit.loader import DataLoader

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Predictor", "load"]

OnError = Literal["raise", "skip"]


def load(
    path: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    verify: bool = True,
    trust_hub: bool = False,
    tokenizer: Callable[[str], list[str]] | None = None,
    fuse: bool = False,
) -> Predictor:
    """Open a model file for prediction. Runs no code from the file.

    Args:
        path: What `dlkit.save` wrote.
        device: Where to compute; "auto" takes the fastest there is.
        verify: Compute the stored example again and compare (some milliseconds).
        trust_hub: Allow an architecture of `torch.hub`, which runs the code of that repository.
        tokenizer: The function that cuts texts, where the model was trained with one of your own.
        fuse: Compute with a copy whose batch normalisations are part of its convolutions, with the channels last in
            memory: for images on a CPU a fifth to a third less time. Numbers may differ in the last bits of a
            float32; a copy that does not give the stored example's output is not used.

    Raises:
        DataNotFoundError: there is no such file.
        ModelFileError: it is damaged or hostile, was changed, or names an architecture that is not registered here.

    >>> import tempfile, dlkit; from dlkit.models import SmallConvNet; from dlkit.transforms import for_evaluation
    >>> file = tempfile.mkdtemp() + "/letters.safetensors"
    >>> grey = for_evaluation(28, color="L", mean=0.0, std=1.0)
    >>> file = dlkit.save(SmallConvNet(num_classes=2), file, classes=["A", "B"], preprocessing=grey)
    >>> dlkit.load(file)
    Predictor(dlkit.models.SmallConvNet, image, classification of 2 classes: A, B)
    """
    where = pick_device(device)
    model, meaning, header = open_model(path, verify=verify, trust_hub=trust_hub, tokenizer=tokenizer)
    model = fused(model, header.document) if fuse else model
    return Predictor(model, meaning, header, device=where)


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
        kind: "image", "audio", "table", "text" or "tensor".
        preprocessing: The transform, `TableSpec` or `TextSpec`; None for tensors.
        info: What the file says of itself: architecture, metrics, versions.
        device: Where it computes.
    """

    def __init__(self, model: nn.Module, meaning: Meaning, header: Header, *, device: torch.device) -> None:
        self.model, self.meaning, self.device = model.to(device), meaning, device
        self.classes, self.task, self.kind = list(meaning.classes), meaning.task, meaning.kind
        self.preprocessing = meaning.preprocessing
        document = header.document
        self._prepare = Preparing(meaning, device)
        self.info: dict[str, Any] = {
            "file": str(header.path),
            "architecture": document.get("architecture"),
            "kind": self.kind,
            "task": self.task,
            "classes": self.classes,
            "metrics": document.get("metrics", {}),
            "versions": document.get("versions", {}),
            "columns": list(meaning.columns),
            "input": document["example"]["input"],
        }
        self._shape = tuple(document["example"]["shape"][1:])

    def __repr__(self) -> str:
        name = (self.info["architecture"] or {}).get("name")
        few = ", ".join(self.classes[:5]) + (", ..." if len(self.classes) > 5 else "")
        what = f"{self.task} of {len(self.classes)} classes" if self.task != "regression" else "regression"
        return safe(f"Predictor({name}, {self.kind}, {what}{f': {few}' if few else ''})")

    def _repr_html_(self) -> str:
        told = {**self.info, "classes": ", ".join(self.classes[:20]) + (", ..." if len(self.classes) > 20 else "")}
        shapes = {"architecture": (self.info["architecture"] or {}).get("name"), "device": self.device}
        return facts(
            repr(self), {name: value for name, value in {**told, **shapes}.items() if value and name != "input"}
        )

    def predict(
        self,
        inputs: Any,
        *,
        top_k: int = 1,
        probabilities: bool = False,
        tta: bool = False,
        batch_size: int | None = None,
        on_error: OnError = "raise",
        progress: bool = True,
        **options: Any,
    ) -> pd.DataFrame:
        """A table with one row for each input, in its place.

        What a string means is said by you, never by the disk: in `predict` it is a text, which for other models than
        those of texts is an error. Files are named by a `Path`, or to `predict_file`.

        Args:
            inputs: One input or an iterable of inputs. Images: a `Path` (of a file, or of a folder with all that is
                below it), bytes, an open binary file, a PIL image, a uint8 array [H, W, C] or [H, W]. Sounds: a
                `Path`, bytes or an open file in the same way, or an array [T] or [C, T] with its rate in Hz,
                `(array, 44_100)`; they are resampled to the model's rate. Tables: a
                DataFrame, a dict (one row), dicts; the `Path` of a CSV or Parquet file, its bytes, or it, open in mode
                "rb". Texts: strings (bytes are one text, as a file holds it), or pairs of them; a DataFrame or dicts
                with the column that the model was trained on; the `Path` of a file of texts. Or prepared tensors
                [B, ...].
            top_k: How many classes to list.
            probabilities: Also a column `p_NAME` for each class.
            tta: Test-time augmentation of images: the mean of what the model says of an image and of its mirror image,
                which helps a little with photographs, takes twice as long, and is wrong for letters and directions.
            batch_size: Inputs per forward pass. None for 64; for 1,024 rows of numbers and categories; and on a CPU for
                fewer large images, 8 of 224 x 224 pixels, of which more at once take up to twice as long each.
            on_error: "raise" stops at an input that cannot be used, naming it; "skip" gives it an error instead of
                a prediction, in the column `error`.
            progress: Show a bar on a terminal, when it takes longer than two seconds.
            **options: More about a file or a table. `keep=["id"]`: columns of a file that are beside the predictions,
                as they are written there; True for all. Texts: `text="comment"` for another column than the model's,
                and `separator`, `encoding`, `header`, `quotes`, `format`, `pattern` as in `TextDataset`. Tables:
                `separator`, `encoding`, `names`, `missing`, `image_root` as in `CSVDataset`. Images named in a table:
                `image` for another column than the model's, `root` (needed with a DataFrame) and `suffix` as in
                `ImageTable`; sounds in the same way, with `audio`. Sounds: `sample_rate` of arrays that come without.

        Returns:
            For classes the columns `prediction` and `probability` (and `_2`, `_3` ... up to `top_k`); for several
            labels `prediction` and a probability under each label's name; for a regression a column per output, named
            after it, in the units of the data. Before them `file` or `text` where such were given. A DataFrame's index
            is kept; else rows are numbered. (An output that is called like another column keeps its name, and the
            other gets an underscore.)

        Raises:
            ArgumentError: the model takes another kind of input.
            DataError: an input cannot be used, or a table lacks a column of the model's.
            TrainingError: prepared tensors do not fit the model; the layer and both shapes are named.
        """
        asked = self._prepare(inputs, batch_size, options)
        layout, size = self._layout(asked, top_k, on_error, every=probabilities), 0
        parts = [layout.empty()]
        for batch, found in self._each(asked, on_error, progress=progress, tta=tta):
            parts.append(layout.columns(batch, found))
            size += batch.size
        return frame_of(joined(parts), 0, size, asked)

    def predict_file(
        self,
        path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        top_k: int = 1,
        probabilities: bool = False,
        tta: bool = False,
        batch_size: int | None = None,
        on_error: OnError = "raise",
        progress: bool = True,
        **options: Any,
    ) -> pd.DataFrame:
        """`predict` for a file, a folder or an address, which a string names here.

        Args:
            path: An image or a sound, a folder or a list of those; a table (CSV, Parquet; also a list, and an address);
                a file or a folder of texts.
            top_k: See `predict`.
            probabilities: See `predict`.
            tta: See `predict`.
            batch_size: See `predict`.
            on_error: See `predict`.
            progress: See `predict`.
            **options: See `predict`.

        Raises:
            DataNotFoundError: there is no such file.
            DataError: it cannot be read, or lacks a column of the model's.
        """
        named = files_named(path)
        said: dict[str, Any] = {"top_k": top_k, "probabilities": probabilities, "tta": tta, "batch_size": batch_size}
        return self.predict(named, on_error=on_error, progress=progress, **said, **options)

    def predict_batches(
        self,
        inputs: Any,
        *,
        top_k: int = 1,
        probabilities: bool = False,
        tta: bool = False,
        batch_size: int | None = None,
        on_error: OnError = "raise",
        progress: bool = False,
        **options: Any,
    ) -> Iterator[pd.DataFrame]:
        """What `predict` gives, one batch at a time as it is computed: for more inputs than fit into memory.

        Args:
            inputs: See `predict`. Files and iterables are read as batches are asked for.
            top_k: See `predict`.
            probabilities: See `predict`.
            tta: See `predict`.
            batch_size: See `predict`.
            on_error: See `predict`.
            progress: See `predict`.
            **options: See `predict`.

        Yields:
            Tables with the same columns and, where the caller's index is not kept, running numbers; at least one,
            which is empty where there was no input.
        """
        asked = self._prepare(inputs, batch_size, options)
        layout, start = self._layout(asked, top_k, on_error, every=probabilities), 0
        for batch, found in self._each(asked, on_error, progress=progress, tta=tta):
            yield frame_of(layout.columns(batch, found), start, batch.size, asked)
            start += batch.size
        if not start:
            yield frame_of(layout.empty(), 0, 0, asked)

    def predict_one(self, one: Any, *, top_k: int = 1, **options: Any) -> Prediction:
        """What the model says of one input.

        Args:
            one: One text (or a pair), one image, one row (a dict); see `predict`.
            top_k: How many classes to list.
            **options: See `predict`.

        Raises:
            ArgumentError: it is not one input, or the model takes another kind.
            DataError: it cannot be used.
        """
        given = [one] if self.kind == "text" and isinstance(one, tuple) else one
        found = list(itertools.islice(self.predict_each(given, top_k=top_k, batch_size=2, **options), 2))
        if len(found) != 1:
            count = "no input" if not found else "more than one"
            raise ArgumentError(f"predict_one takes one input, and this holds {count}; predict takes any number")
        return found[0]

    def predict_each(
        self, inputs: Any, *, top_k: int = 1, batch_size: int | None = None, on_error: OnError = "raise", **options: Any
    ) -> Iterator[Prediction]:
        """What the model says of each input, in order, computed batch by batch as the answers are asked for.

        The numbers are those of `predict` with the same `batch_size`; without a table, single answers cost less.

        Args:
            inputs: See `predict`.
            top_k: How many classes to list.
            batch_size: See `predict`.
            on_error: "raise" stops at an input that cannot be used; "skip" gives a `Prediction` with an `error`.
            **options: See `predict`.

        Yields:
            A `Prediction` for each input, in its place.
        """
        check_top_k(top_k)
        for batch, probabilities in self.answers(inputs, batch_size=batch_size, on_error=on_error, **options):
            answers = iter(() if probabilities is None else predictions_of(self.meaning, probabilities, top_k))
            for place in range(batch.size):
                error = batch.errors.get(place)
                yield next(answers) if error is None else Prediction(error=error)

    def answers(
        self, inputs: Any, *, batch_size: int | None = None, on_error: OnError = "raise", **options: Any
    ) -> Iterator[tuple[Batch, Tensor | None]]:
        """The numbers behind `predict_each`, batch by batch as they are asked for: what a server writes answers from.

        Args:
            inputs: See `predict`.
            batch_size: See `predict`.
            on_error: "raise" stops at an input that cannot be used; "skip" leaves its error in the batch's `errors`.
            **options: See `predict`.

        Yields:
            A batch, and what `probabilities` gives for those of its inputs that can be used; None if there are none.
        """
        _check_on_error(on_error)
        yield from self._each(self._prepare(inputs, batch_size, options), on_error)

    def logits(self, inputs: Any, *, batch_size: int | None = None, **options: Any) -> Tensor:
        """The model's bare outputs, float32 [N, ...] on the CPU.

        Args:
            inputs: See `predict`.
            batch_size: See `predict`.
            **options: See `predict`.
        """
        asked = self._prepare(inputs, batch_size, options)
        found = [output for batch in asked.batches if (output := self._output(batch, "raise")) is not None]
        return torch.cat(found) if found else torch.zeros(0, *self._shape)

    def probabilities(self, inputs: Any, *, batch_size: int | None = None, **options: Any) -> Tensor:
        """Probabilities [N, classes] in the order of `classes`; for regression the values in their own units.

        Args:
            inputs: See `predict`.
            batch_size: See `predict`.
            **options: See `predict`.
        """
        return probabilities_of(self.meaning, self.logits(inputs, batch_size=batch_size, **options))

    def evaluate(
        self, dataset: Any, *, batch_size: int | None = None, tta: bool = False, progress: bool = True, **options: Any
    ) -> dict[str, float]:
        """How good the model is on labelled data; classes are matched by name, never by number.

        Args:
            dataset: A labelled dataset of the model's kind, which is prepared the model's way; or a folder of class
                folders, a table, a file of texts to make one of.
            batch_size: See `predict`.
            tta: See `predict`.
            progress: See `predict`.
            **options: More for the dataset that reads a file: `text=`, `target=`.

        Returns:
            "samples", and "accuracy" and "loss"; for several labels "f1", and "accuracy" per label; for regression
            "rmse" and "mae" in the units of the data, "r2", and "loss" as in training.

        Raises:
            DataError: the data has classes that the model does not know.
        """
        data = labelled(self.meaning, dataset, options)
        batches = list(self.run(data, batch_size, tta=tta, progress=progress))
        if not batches or any(target is None for _, target in batches):
            raise DataError("there is nothing to compare with: the data is empty, or has no targets")
        outputs, targets = (torch.cat(part) for part in zip(*batches, strict=True))
        return score(self.meaning, outputs, targets, getattr(data, "classes", None))

    def _each(
        self, asked: Inputs, on_error: OnError, *, progress: bool = False, tta: bool = False
    ) -> Iterator[tuple[Batch, Tensor | None]]:
        """Each batch with the probabilities of its good inputs."""
        with Bar(asked.total, desc=Message("predicting"), unit=Message("inputs"), enabled=progress) as bar:
            for batch in asked.batches:
                output = self._output(batch, on_error, tta=tta)
                yield batch, None if output is None else probabilities_of(self.meaning, output)
                bar.update(batch.size)

    def _output(self, batch: Batch, on_error: OnError, *, tta: bool = False) -> Tensor | None:
        """The outputs of a batch's good inputs; None if there are none."""
        if batch.errors and on_error == "raise":
            raise DataError(
                f"{batch.told(min(batch.errors))}; on_error='skip' reports this error in the input's place and "
                "continues"
            )
        return self._outputs(batch.inputs, tta=tta) if len(batch.good) else None

    def _outputs(self, inputs: Any, *, tta: bool) -> Tensor:
        """What the model says, or the mean of that and of what it says of the mirror images."""
        if not tta:
            return self._forward(inputs)
        if self.kind != "image":
            raise ArgumentError(f"tta=True: mirror images are for images, and this model takes the kind {self.kind!r}")
        return (self._forward(inputs) + self._forward(inputs.flip(-1))) / 2

    def _forward(self, inputs: Any) -> Tensor:
        like = next((value for value in self.model.parameters() if value.is_floating_point()), None)
        given = cast(inputs, like)
        with evaluating(self.model):
            try:
                return output_of(call(self.model, given)).float().cpu()
            except Exception as error:
                explain(error, self.model, given)
                raise

    def _layout(self, asked: Inputs, top_k: int, on_error: OnError, *, every: bool) -> Layout:
        check_top_k(top_k)
        _check_on_error(on_error)
        return Layout(
            meaning=self.meaning,
            shape=self._shape,
            headings=asked.headings,
            top_k=top_k,
            skipping=on_error == "skip",
            every=every,
        )

    def run(
        self, dataset: Any, batch_size: int | None = None, *, tta: bool = False, progress: bool = False
    ) -> Iterator[tuple[Tensor, Any]]:
        """Outputs and targets (None without any) of a dataset in order, batch by batch, on the CPU.

        Args:
            dataset: Prepared the model's way.
            batch_size: See `predict`.
            tta: See `predict`.
            progress: See `predict`.
        """
        # Datasets of dlkit say whether they have targets; a pair of others is treated as inputs and target.
        has_targets = getattr(dataset, "targets", ()) is not None and not isinstance(dataset, list)
        total = len(dataset) if hasattr(dataset, "__len__") else None
        with Bar(total, desc=Message("evaluating"), unit=Message("samples"), enabled=progress) as bar:
            loader = DataLoader(dataset, batch_size or self._prepare.batch_size, collate_fn=None)
            for batch in loader.batches(0):  # each of several processes wants all of them
                inputs, target = split(batch) if has_targets else (batch, None)
                outputs = self._outputs(inputs, tta=tta)
                yield outputs, target
                bar.update(len(outputs))


def _check_on_error(on_error: Any) -> None:
    if on_error not in ("raise", "skip"):
        raise ArgumentError(f"on_error must be 'raise' or 'skip', not {on_error!r}")
