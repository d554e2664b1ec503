"""`TabularMLP`: embeddings of the categories beside the numbers, and a small network over both."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dlkit.errors import ArgumentError, TrainingError
from dlkit.registry import register
from dlkit.specs.columns import FIRST, PADDING
from dlkit.specs.table import TableSpec

__all__ = ["TabularMLP", "check_columns", "check_inputs"]


@register("dlkit.models.TabularMLP")
class TabularMLP(nn.Module):
    """A baseline for tables: an embedding per category, the numbers as they are, and a few wide layers over both.

    What Guo and Berkhahn 2016 ("Entity embeddings of categorical variables", arXiv:1604.06737) and fastai do. On tables
    of a few thousand rows gradient boosting is often better; measure it beside (`docs/how-to/tables.md`).

    The embeddings of missing and unseen values begin as zeros, so a category that never occurred in training changes
    nothing, instead of adding noise.

    Args:
        spec: A fitted spec: `train.spec`. It says how many numbers and codes come in and how many outputs go out.
        hidden: The width of each hidden layer.
        dropout: The share of features set to zero while training.
        num_outputs: How many outputs; by default what the spec's target needs.

    Raises:
        ArgumentError: The spec has text or images, or no target and no `num_outputs` is given; or an invalid
            number.
        TrainingError: In `forward`, inputs that are not the spec's.

    >>> import pandas as pd
    >>> from dlkit.datasets import CSVDataset
    >>> frame = pd.DataFrame({"age": [30, 40, 50, 35], "sex": ["m", "f", "m", "f"], "y": ["no", "yes", "no", "no"]})
    >>> ds = CSVDataset(frame, target="y")
    >>> model = TabularMLP(ds.spec)
    >>> inputs, targets = next(iter(torch.utils.data.DataLoader(ds, 4)))
    >>> model(**inputs).shape
    torch.Size([4, 2])
    """

    def __init__(
        self,
        spec: TableSpec,
        *,
        hidden: Sequence[int] = (256, 128),
        dropout: float = 0.2,
        num_outputs: int | None = None,
    ) -> None:
        super().__init__()
        _check(spec, hidden, dropout)
        self.spec = spec
        self.num_outputs = _outputs(spec) if num_outputs is None else num_outputs
        # A single number per row comes out as [B], as its targets are; [B, 1] would broadcast with them to [B, B].
        self.single = self.num_outputs == 1
        self.embeddings = nn.ModuleList(
            nn.Embedding(codes, width, padding_idx=PADDING) for codes, width in spec.embedding_sizes()
        )
        for embedding in self.embeddings:
            assert isinstance(embedding.weight, nn.Parameter)
            nn.init.normal_(embedding.weight, std=0.1)
            with torch.no_grad():
                embedding.weight[:FIRST] = 0
        width = len(spec.numeric_features) + sum(size for _, size in spec.embedding_sizes())
        layers: list[nn.Module] = []
        for size in hidden:
            layers += [nn.Linear(width, size), nn.LayerNorm(size), nn.ReLU(), nn.Dropout(dropout)]
            width = size
        self.layers = nn.Sequential(*layers, nn.Linear(width, self.num_outputs))

    def forward(self, numeric: Tensor | None = None, categorical: Tensor | None = None) -> Tensor:
        """Outputs for a batch of rows.

        Args:
            numeric: float [B, numbers]; None where the spec has none.
            categorical: int64 [B, codes]; None where the spec has none.

        Returns:
            float [B, outputs], or [B] for a single output.
        """
        check_inputs(self.spec, numeric, categorical)
        parts = [] if numeric is None else [numeric]
        if categorical is not None:
            parts += [
                embedding(column) for embedding, column in zip(self.embeddings, categorical.unbind(1), strict=True)
            ]
        outputs: Tensor = self.layers(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1))
        return outputs.squeeze(1) if self.single else outputs


def check_inputs(spec: TableSpec, numeric: Tensor | None, categorical: Tensor | None) -> None:
    """Refuse inputs that are not the spec's.

    Args:
        spec: The model's.
        numeric: See `TabularMLP.forward`.
        categorical: See `TabularMLP.forward`.

    Raises:
        TrainingError: one is missing, too much, or has another number of columns.
    """
    for name, given, wanted in (
        ("numeric", numeric, len(spec.numeric_features)),
        ("categorical", categorical, len(spec.categories)),
    ):
        if (given is None) != (wanted == 0) or (given is not None and given.shape[1:] != (wanted,)):
            shown = "none" if given is None else list(given.shape)
            raise TrainingError(
                f"the spec has {wanted} columns of {name} inputs, so they must be "
                f"{'none' if not wanted else f'[B, {wanted}]'}, not {shown}"
            )


def check_columns(spec: TableSpec, model: str) -> None:
    """Refuse a spec with columns that a model of numbers and categories cannot look at.

    Args:
        spec: The model's.
        model: Its name, for the message.

    Raises:
        ArgumentError: there are such.
    """
    if others := spec.of_kind("text", "image"):
        raise ArgumentError(
            f"{model} looks at numbers and categories, and the spec has the {others[0].kind} column "
            f"{others[0].name!r}, too; drop it, or write a model that takes **inputs"
        )


def _check(spec: TableSpec, hidden: Sequence[int], dropout: float) -> None:
    check_columns(spec, "TabularMLP")
    if not hidden or any(size < 1 for size in hidden):
        raise ArgumentError(f"hidden must be widths of at least 1, not {hidden!r}")
    if not 0 <= dropout < 1:
        raise ArgumentError(f"dropout must be from 0 to below 1, not {dropout!r}")


def _outputs(spec: TableSpec) -> int:
    if spec.target is None:
        raise ArgumentError("the spec has no target, so say how many outputs there are: num_outputs=")
    return spec.target.num_outputs
