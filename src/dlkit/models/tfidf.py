"""`TfidfLinear`: weighted counts of tokens and a linear layer; the default for texts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlkit._arguments import whole_number
from dlkit.errors import ArgumentError, TrainingError
from dlkit.models.linear import center_and_scale, fit_linear
from dlkit.registry import register

__all__ = ["TfidfLinear"]

_UNKNOWN = 1  # of the numbers before the tokens, 0 is padding, and this one stands for what is not known


@register("dlkit.models.TfidfLinear")
class TfidfLinear(nn.Module):
    """Logistic or linear regression on TF-IDF, for the padded batches of `TextDataset`: `model(**inputs)`.

    A text is 1 + log(count) for each of its tokens, times log((1 + texts) / (1 + texts with it)) + 1 (Sparck Jones
    1972), scaled to the length 1; tokens that training never saw count for nothing. Fitted by `for_data` to its one
    optimum, without rates and epochs. What a token is, words, pairs of them, runs of characters, says the vocabulary.

    Args:
        num_tokens: Rows of the weights: `len(train.vocabulary)`.
        num_classes: How many scores (logits) come out per text; 1 for a regression.
        num_types: 2 for pairs of texts, whose batches have `token_type_ids`.

    Raises:
        ArgumentError: a count below 1.
        TrainingError: in `forward`, inputs of another shape, or tokens that the model does not have.

    >>> from dlkit.datasets import TextDataset
    >>> frame = {"text": ["so good", "good film", "so bad", "bad film"], "label": ["pos", "pos", "neg", "neg"]}
    >>> import pandas as pd
    >>> train = TextDataset(pd.DataFrame(frame), target="label", min_freq=1)
    >>> model = TfidfLinear.for_data(train)
    >>> train.classes[int(model(**train.collate([train[0]])[0]).argmax())]
    'pos'
    """

    idf: Tensor

    def __init__(self, num_tokens: int, num_classes: int, *, num_types: int = 1) -> None:
        super().__init__()
        for name, value in (("num_tokens", num_tokens), ("num_classes", num_classes), ("num_types", num_types)):
            whole_number(name, value, least=1)
        self.num_tokens, self.num_types = num_tokens, num_types
        self.weight = nn.Parameter(torch.zeros(num_tokens * num_types, num_classes))
        self.bias = nn.Parameter(torch.zeros(num_classes))
        self.register_buffer("idf", torch.zeros(num_tokens * num_types))

    @classmethod
    def for_data(cls, *parts: Any, strength: float = 10.0) -> Self:
        """A fitted model.

        Args:
            *parts: A `TextDataset` with targets, the training part alone; or several with one vocabulary.
            strength: The inverse of the L2 penalty, scikit-learn's C.

        Raises:
            ArgumentError: there are no targets, or the strength is invalid.
        """
        return next(cls.path(parts, [strength]))

    @classmethod
    def path(
        cls, parts: Sequence[Any], strengths: Sequence[float], loss: Callable[[Tensor, Tensor], Tensor] | None = None
    ) -> Iterator[Self]:
        """Fitted models of rising strength, each begun where the one before ended.

        Args:
            parts: See `for_data`.
            strengths: See `for_data`.
            loss: For logits; cross entropy by default. Numbers as targets have the squared error, in units of their
                standard deviation.

        Raises:
            ArgumentError: see `for_data`.
        """
        train = parts[0]
        if getattr(train, "targets", None) is None:
            raise ArgumentError("the texts have no targets to learn")
        if not all(0 < strength < float("inf") for strength in strengths):
            raise ArgumentError(f"strength must be above 0, not {list(strengths)!r}")
        outputs = len(train.classes) or 1
        model = cls(len(train.vocabulary), outputs, num_types=1 if train.pairs is None else 2)
        inputs, transposed = model._counted(parts)
        targets, center, scale = torch.cat([part.targets for part in parts]), 0.0, 1.0
        if not train.classes:
            center, scale = center_and_scale(targets)
            targets, loss = (targets - center) / scale, nn.MSELoss()
        start = None
        for strength in strengths:
            start = fit_linear(
                inputs,
                targets,
                loss or nn.CrossEntropyLoss(),
                outputs,
                decay=1 / (strength * len(targets)),
                transposed=transposed,
                start=start,
            )
            fitted = cls(model.num_tokens, outputs, num_types=model.num_types).eval()
            weight, bias = start[0] * scale, start[1] * scale + center  # so that answers are in the data's own units
            fitted.load_state_dict({"weight": weight, "bias": bias, "idf": model.idf})
            yield fitted

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Score texts.

        Args:
            input_ids: int64 [B, L].
            attention_mask: bool [B, L], True where a token is; None when nothing is padding.
            token_type_ids: int64 [B, L], 0 in the first text of a pair and 1 in the second.

        Returns:
            The logits, float [B, num_classes]; of a regression the numbers, float [B].
        """
        scores = self._scores(input_ids, attention_mask, token_type_ids)
        return scores.squeeze(1) if len(self.bias) == 1 else scores

    def _scores(self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None) -> Tensor:
        mask = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        if input_ids.dim() != 2 or mask.shape != input_ids.shape:
            raise TrainingError(
                f"TfidfLinear takes input_ids [B, L] and a mask of that shape; got {list(input_ids.shape)} and "
                f"{list(mask.shape)}"
            )
        if not input_ids.shape[1]:
            return self.bias.expand(len(input_ids), -1)
        ids = input_ids
        if token_type_ids is not None and self.num_types > 1:
            ids = ids + token_type_ids * self.num_tokens
        ids = ids.masked_fill(~mask, -1)
        ordered = ids.sort(1).values
        counts = torch.searchsorted(ordered, ordered, right=True) - torch.searchsorted(ordered, ordered)
        there, ordered = ordered >= 0, ordered.clamp_min(0)
        try:
            each = self.idf[ordered] * there * (1 + counts.log()) / counts
        except IndexError as error:
            raise TrainingError(
                f"a token number is outside 0 to {self.num_tokens - 1} (the batch has {int(input_ids.min())} to "
                f"{int(input_ids.max())}): make the model with num_tokens=len(train.vocabulary)"
            ) from error
        # A token that is there n times is met n times here, so each time it adds the n-th part of what it counts.
        length = (each.square() * counts).sum(1, keepdim=True).sqrt()
        scores = F.embedding_bag(ordered, self.weight, per_sample_weights=each.to(self.weight.dtype), mode="sum")
        return scores / length.clamp_min(1e-12) + self.bias

    def _counted(self, parts: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """The texts as rows of a sparse matrix, and its transpose; sets `idf`."""
        ids, size = np.concatenate([part.ids for part in parts]).astype(np.int64), self.idf.numel()
        if parts[0].types is not None:
            ids = ids + np.concatenate([part.types for part in parts]).astype(np.int64) * self.num_tokens
        texts = sum(map(len, parts))
        rows = np.repeat(np.arange(texts), np.concatenate([part.lengths for part in parts]))
        known = ids % self.num_tokens > _UNKNOWN
        places, counts = np.unique(rows[known] * size + ids[known], return_counts=True)
        rows, columns = places // size, places % size
        with_it = np.bincount(columns, minlength=size)
        idf = np.where(with_it > 0, np.log((1 + texts) / (1 + with_it)) + 1, 0.0)
        self.idf.copy_(torch.from_numpy(idf))
        values = (1 + np.log(counts)) * idf[columns]
        lengths = np.sqrt(np.bincount(rows, values**2, minlength=texts))
        values = (values / lengths[rows]).astype(np.float32)
        by_column = np.argsort(columns, kind="stable")
        return (
            _sparse(rows, columns, values, (texts, size)),
            _sparse(columns[by_column], rows[by_column], values[by_column], (size, texts)),
        )


def _sparse(rows: Any, columns: Any, values: Any, shape: tuple[int, int]) -> Tensor:
    starts = np.append(0, np.bincount(rows, minlength=shape[0]).cumsum())
    first, second, numbers = (torch.from_numpy(each) for each in (starts, columns, values))
    with warnings.catch_warnings():  # torch calls the format, which is eight times as fast as the other one, a beta
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(first, second, numbers, shape, check_invariants=False)
