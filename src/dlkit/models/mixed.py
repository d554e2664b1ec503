"""`MixedClassifier` and `MixedRegressor`: numbers, categories, texts and images of one row, in one network."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlkit._near import hint
from dlkit.errors import ArgumentError, TrainingError
from dlkit.models.convnet import SmallConvNet
from dlkit.registry import register
from dlkit.specs.columns import FIRST, PADDING
from dlkit.specs.table import TableSpec, part_names
from dlkit.tokens.tokenizers import words

__all__ = ["MixedClassifier", "MixedRegressor", "hashed"]

_ROWS = 1 << 15  # of a text's embedding: words that fall together share a row (Weinberger et al. 2009)
_PADDING = 0


def hashed(texts: Sequence[str], *, rows: int = _ROWS) -> Tensor:
    """Words and pairs of neighbours as numbers that need no vocabulary: the same everywhere, for any words.

    Args:
        texts: As they are written; capitals make no difference.
        rows: How many numbers there are; 0 is padding.

    Returns:
        int64 [B, L], padded on the right.

    >>> hashed(["a b", "b"]).ne(0).sum(1)
    tensor([3, 1])
    """
    found = []
    for text in texts:
        single = words(text.lower())
        pairs = [f"{one} {two}" for one, two in itertools.pairwise(single)]
        found.append([1 + zlib.crc32(word.encode("utf-8", "replace")) % (rows - 1) for word in (*single, *pairs)])
    longest = max(map(len, found), default=0)
    return torch.tensor([numbers + [_PADDING] * (longest - len(numbers)) for numbers in found], dtype=torch.int64).view(
        len(found), longest
    )


class _Mixed(nn.Module):
    """What both models are: a part for each kind of column, and layers over what they give."""

    def __init__(self, spec: TableSpec, num_outputs: int, hidden: int, width: int, dropout: float) -> None:
        super().__init__()
        if hidden < 1 or width < 1 or not 0 <= dropout < 1:
            raise ArgumentError(
                f"hidden and width must be at least 1, dropout from 0 to below 1: {hidden, width, dropout}"
            )
        self.spec, self.num_outputs, self.single = spec, num_outputs, num_outputs == 1
        self.text_parts = part_names("text", [column.name for column in spec.of_kind("text")])
        self.image_parts = part_names("image", [column.name for column in spec.of_kind("image")])
        self.categories = nn.ModuleList(
            nn.Embedding(codes, size, padding_idx=PADDING) for codes, size in spec.embedding_sizes()
        )
        for each in self.categories:
            assert isinstance(each, nn.Embedding)
            nn.init.normal_(each.weight, std=0.1)
            with torch.no_grad():
                each.weight[:FIRST] = 0
        self.texts = nn.ModuleList(
            nn.EmbeddingBag(_ROWS, width, mode="mean", padding_idx=_PADDING) for _ in self.text_parts
        )
        for each in self.texts:
            assert isinstance(each, nn.EmbeddingBag)
            nn.init.normal_(each.weight, std=0.1)
        self.images = nn.ModuleList(SmallConvNet(width, in_chans=3, dropout=0.0) for _ in self.image_parts)
        sizes = [len(spec.numeric_features), *(size for _, size in spec.embedding_sizes())]
        features = sum(sizes) + width * (len(self.texts) + len(self.images))
        if not features:
            raise ArgumentError("the spec has no column that a model could look at")
        self.layers = nn.Sequential(
            nn.Linear(features, hidden),
            nn.LayerNorm(hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_outputs),
        )

    def forward(self, numeric: Tensor | None = None, **inputs: Any) -> Tensor:
        """Outputs for a batch of rows, by the names of its parts.

        Args:
            numeric: float [B, numbers]; None where the spec has none.
            inputs: What else a `CSVDataset` gives: `categorical` int64 [B, codes], `text` B strings (or what `hashed`
                makes of them), `image` float [B, 3, H, W]; of several columns of texts or images `text_<column>` and
                `image_<column>`.

        Returns:
            float [B, outputs], or [B] for a single output.
        """
        self._check(inputs if numeric is None else {"numeric": numeric, **inputs})
        parts = [] if numeric is None else [numeric]
        if self.spec.categories:
            codes = inputs["categorical"].unbind(1)
            parts += [embedding(column) for embedding, column in zip(self.categories, codes, strict=True)]
        for name, bag in zip(self.text_parts, self.texts, strict=True):
            parts.append(bag(self._numbers(inputs[name])))
        for name, network in zip(self.image_parts, self.images, strict=True):
            parts.append(F.relu(network(inputs[name])))
        outputs: Tensor = self.layers(torch.cat(parts, dim=1))
        return outputs.squeeze(1) if self.single else outputs

    def _check(self, inputs: dict[str, Any]) -> None:
        wanted = [*(["numeric"] if self.spec.numbers else []), *(["categorical"] if self.spec.categories else [])]
        wanted += [*self.text_parts, *self.image_parts]
        for name in {*wanted} ^ inputs.keys():
            raise TrainingError(
                f"the batch {'lacks' if name in wanted else 'has too much'}: {name!r}; "
                f"{hint(name, wanted, has='the model takes')}"
            )

    def _numbers(self, texts: Any) -> Tensor:
        device = next(self.parameters()).device
        numbers = texts if isinstance(texts, Tensor) else hashed(texts)
        return F.pad(numbers.to(device), (0, 1))  # a text silently has one place, which is padding


@register("dlkit.models.MixedClassifier")
class MixedClassifier(_Mixed):
    """Classes, one or several labels, of rows that mix numbers, categories, texts and images.

    Each kind of column has its own part: numbers as they are, an embedding per category (Guo and Berkhahn 2016),
    the mean of the embeddings of a text's words and pairs of neighbours, hashed (Weinberger et al. 2009), and a
    `SmallConvNet` per image; a hidden layer joins them. All of it learns together, from scratch.

    Args:
        spec: A fitted spec: `train.spec`. It says what comes in, and how many classes or labels go out.
        hidden: Width of the layer over all parts.
        width: Features of a text, and of an image.
        dropout: The share of features set to zero while training.

    Raises:
        ArgumentError: the spec's target is not a class, or an invalid number.
        TrainingError: in `forward`, a part is missing or too much.

    >>> import pandas as pd; from dlkit.datasets import CSVDataset; from dlkit import DataLoader
    >>> frame = pd.DataFrame({"price": [1.5, 2, 3, 4], "note": ["good", "bad", "good one", "bad"], "y": list("abab")})
    >>> data = CSVDataset(frame, target="y", text=["note"])
    >>> inputs, _ = next(iter(DataLoader(data, 4)))
    >>> MixedClassifier(data.spec)(**inputs).shape
    torch.Size([4, 2])
    """

    def __init__(self, spec: TableSpec, *, hidden: int = 128, width: int = 64, dropout: float = 0.2) -> None:
        if spec.target is None or spec.target.task == "regression":
            raise ArgumentError(
                "MixedClassifier needs a target of classes or labels; for numbers there is MixedRegressor"
            )
        super().__init__(spec, spec.target.num_outputs, hidden, width, dropout)


@register("dlkit.models.MixedRegressor")
class MixedRegressor(_Mixed):
    """`MixedClassifier` for targets that are numbers.

    Args:
        spec: See `MixedClassifier`.
        hidden: See `MixedClassifier`.
        width: See `MixedClassifier`.
        dropout: See `MixedClassifier`.

    Raises:
        ArgumentError: the spec's target is not a number, or an invalid number.
        TrainingError: in `forward`, a part is missing or too much.
    """

    def __init__(self, spec: TableSpec, *, hidden: int = 128, width: int = 64, dropout: float = 0.2) -> None:
        if spec.target is None or spec.target.task != "regression":
            raise ArgumentError("MixedRegressor needs a target of numbers; for classes there is MixedClassifier")
        super().__init__(spec, spec.target.num_outputs, hidden, width, dropout)
