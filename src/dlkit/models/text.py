"""`TextClassifier`: a bag of embeddings, a bidirectional GRU or a small transformer over padded texts."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from dlkit.errors import ArgumentError, TrainingError
from dlkit.registry import register

__all__ = ["TextClassifier"]


@register("dlkit.models.TextClassifier")
class TextClassifier(nn.Module):
    """Scores for texts, from the padded batches that `TextDataset` gives: `model(**inputs)`.

    What is padding, by the mask, never changes a result: a text has the same logits alone and beside a longer one, but
    for rounding. Both padding sides work.

    * "bag": the mean of the tokens' embeddings. Joulin et al. 2016 (arXiv:1607.01759). Order counts for nothing, and it
      trains in seconds; strong where single words decide.
    * "gru": a bidirectional GRU (Cho et al. 2014, arXiv:1406.1078) on packed sequences, and of its outputs the maximum
      and the mean over the text.
    * "transformer": layers of self-attention and feed-forward (Vaswani et al. 2017, arXiv:1706.03762), normalised
      first, with sinusoidal positions, and the mean over the text.

    Args:
        num_tokens: Rows of the embedding: `len(train.vocabulary)`.
        num_classes: How many scores (logits) come out per text; 1 for a regression.
        encoder: Which of the three.
        width: Size of a token's embedding, and of each direction of the GRU.
        depth: Layers of the GRU or the transformer.
        num_heads: Of the transformer; `width` must be a multiple.
        dropout: The share of features set to zero while training.
        num_types: 2 for pairs of texts, whose batches have `token_type_ids`.
        center: Of a regression, the mean of the training targets, and ...
        scale: ... their standard deviation: answers are in the data's own units.

    Raises:
        ArgumentError: A count below 1, an unknown encoder, a dropout outside 0 to 1.
        TrainingError: In `forward`, inputs of another shape, or tokens that the embedding does not have.

    >>> model = TextClassifier(num_tokens=100, num_classes=2)
    >>> model(torch.tensor([[5, 6, 0]]), torch.tensor([[True, True, False]])).shape
    torch.Size([1, 2])
    """

    def __init__(
        self,
        num_tokens: int,
        num_classes: int,
        *,
        encoder: Literal["bag", "gru", "transformer"] = "bag",
        width: int = 128,
        depth: int = 1,
        num_heads: int = 4,
        dropout: float = 0.3,
        num_types: int = 1,
        center: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.center, self.scale = center, scale
        counts = {"num_tokens": num_tokens, "num_classes": num_classes, "width": width, "depth": depth}
        for name, value in {**counts, "num_heads": num_heads, "num_types": num_types}.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ArgumentError(f"{name} is a whole number of at least 1; got {value!r}")
        if not 0 <= dropout < 1:
            raise ArgumentError(f"dropout must be at least 0 and below 1; got {dropout!r}")
        self.num_tokens, self.num_classes, self.num_types = num_tokens, num_classes, num_types
        self.encoder: nn.Module
        if encoder == "bag":
            self.encoder, features = _Bag(num_tokens * num_types, width), width
        elif encoder == "gru":
            self.encoder, features = _GRU(num_tokens, num_types, width, depth, dropout), 4 * width
        elif encoder == "transformer":
            self.encoder, features = _Transformer(num_tokens, num_types, width, depth, num_heads, dropout), width
        else:
            raise ArgumentError(f"encoder must be 'bag', 'gru' or 'transformer', not {encoder!r}")
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(features, num_classes)

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
        mask = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        if input_ids.dim() != 2 or mask.shape != input_ids.shape:
            raise TrainingError(
                f"TextClassifier takes input_ids [B, L] and a mask of that shape; got {list(input_ids.shape)} and "
                f"{list(mask.shape)}"
            )
        types = token_type_ids if token_type_ids is not None and self.num_types > 1 else None
        try:
            features = self.encoder(*_with_a_token(input_ids, mask, types))
        except IndexError as error:
            raise TrainingError(
                f"a token number is outside 0 to {self.num_tokens - 1} (the batch has {int(input_ids.min())} to "
                f"{int(input_ids.max())}): make the model with num_tokens=len(train.vocabulary)"
            ) from error
        logits: Tensor = self.head(self.dropout(features))
        return logits if self.num_classes > 1 else logits.squeeze(1) * self.scale + self.center


def _with_a_token(ids: Tensor, mask: Tensor, types: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Let a text without any token have one of number 0, since there is no mean over nothing."""
    if not ids.shape[1]:
        ids, mask = nn.functional.pad(ids, (0, 1)), nn.functional.pad(mask, (0, 1))
        types = None if types is None else nn.functional.pad(types, (0, 1))
    empty = ~mask.any(dim=1, keepdim=True)
    first = torch.zeros_like(mask)
    first[:, 0] = True
    return ids.masked_fill(empty, 0), mask | (empty & first), types


class _Bag(nn.Module):
    """The mean of embeddings; a second text of a pair has embeddings of its own."""

    def __init__(self, num_embeddings: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(num_embeddings, width, mode="mean", include_last_offset=True)
        self.num_tokens = num_embeddings
        nn.init.normal_(self.embedding.weight, std=0.1)

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor | None) -> Tensor:
        if types is not None:
            ids = ids + types * (self.num_tokens // 2)
        # Packed, so that each text is summed by itself, in an order in which padding has no part.
        offsets = nn.functional.pad(mask.sum(1).cumsum(0), (1, 0))
        pooled: Tensor = self.embedding(ids[mask], offsets)
        return pooled


class _GRU(nn.Module):
    """Outputs of a bidirectional GRU, pooled by maximum and mean."""

    def __init__(self, num_tokens: int, num_types: int, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.embedding = _Embedding(num_tokens, num_types, width, dropout)
        between = dropout if depth > 1 else 0.0
        self.gru = nn.GRU(width, width, depth, batch_first=True, bidirectional=True, dropout=between)

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor | None) -> Tensor:
        # Packing takes the beginning of each row, so tokens go in front; a stable sort keeps their order.
        order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)
        ids, mask = ids.gather(1, order), mask.gather(1, order)
        types = None if types is None else types.gather(1, order)
        # Lengths on the CPU, because cuDNN wants them there: the one synchronisation of a step.
        lengths = mask.sum(1).cpu()
        packed = pack_padded_sequence(self.embedding(ids, types), lengths, batch_first=True, enforce_sorted=False)
        outputs, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True)
        mask = mask[:, : outputs.shape[1], None]
        highest = outputs.masked_fill(~mask, -torch.inf).amax(1)
        return torch.cat([highest, _mean(outputs, mask)], dim=1)


class _Transformer(nn.Module):
    """Layers of self-attention that look at tokens only, and the mean of what comes out."""

    def __init__(self, num_tokens: int, num_types: int, width: int, depth: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        if width % num_heads or width % 2:
            raise ArgumentError(f"width must be even and a multiple of num_heads={num_heads}; got {width}")
        self.embedding = _Embedding(num_tokens, num_types, width, dropout)
        layer = nn.TransformerEncoderLayer(
            width, num_heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        frequencies = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor | None) -> Tensor:
        embedded = self.embedding(ids, types) + self._positions(mask)
        return _mean(self.layers(embedded, src_key_padding_mask=~mask), mask[..., None])

    def _positions(self, mask: Tensor) -> Tensor:
        """Sines and cosines of each token's place in its text, wherever padding is: [B, L, width]."""
        angles = torch.arange(mask.shape[1], device=mask.device)[:, None] * self.get_buffer("frequencies")
        waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
        return nn.functional.embedding((mask.cumsum(1) - 1).clamp(min=0), waves)


class _Embedding(nn.Module):
    """A vector per token, plus one for its text where there are pairs."""

    def __init__(self, num_tokens: int, num_types: int, width: int, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Embedding(num_tokens, width)
        self.types = nn.Embedding(num_types, width) if num_types > 1 else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: Tensor, types: Tensor | None) -> Tensor:
        embedded: Tensor = self.tokens(ids)
        if self.types is not None and types is not None:
            embedded = embedded + self.types(types)
        dropped: Tensor = self.dropout(embedded)
        return dropped


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of [B, L, width] over the places of the mask [B, L, 1]."""
    return values.masked_fill(~mask, 0).sum(1) / mask.sum(1)
