"""`PretrainedTextClassifier`: an encoder of Hugging Face's transformers with a linear head."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from dlkit import _bounds
from dlkit._arguments import whole_number
from dlkit._optional import require
from dlkit.errors import ArgumentError, DataError
from dlkit.registry import register

__all__ = ["PretrainedTextClassifier", "config_text"]

_MOST_CONFIG, _MOST_NUMBER, _MOST_WORDS, _MOST_LAYERS = 1 << 16, 1 << 24, 1 << 12, 1 << 10
#: What a config may name code, kernels, places or number formats by, none of which is needed for plain float32; and the
#: labels of its own head, of which transformers makes a dictionary however many are claimed.
_LEFT_OUT = {"auto_map", "attn_implementation", "dtype", "quantization_config", "torch_dtype", "custom_pipelines"}
_LEFT_OUT |= {"num_labels", "id2label", "label2id"}


@register("dlkit.models.PretrainedTextClassifier")
class PretrainedTextClassifier(nn.Module):
    """The mean of an encoder's last hidden states over the tokens of a text, and a linear layer: `model(**inputs)`.

    `dlkit.transfer.create_text_model` makes one with pretrained weights; this alone begins with random ones, for a
    model file to be loaded into. Needs the extra `hf`. Nothing of it runs code that comes with a model.

    Args:
        config: The config of transformers as JSON, with its `model_type`.
        num_classes: How many scores (logits) come out per text; 1 for a regression.
        dropout: In front of the head.
        center: Of a regression, the mean of the training targets, and ...
        scale: ... their standard deviation: answers are in the data's own units.

    Raises:
        ArgumentError: the config is not that of an encoder which the installed transformers knows, or is out of bounds.
        MissingExtraError: transformers is not installed.

    >>> config = '{"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, '
    >>> config += '"intermediate_size": 8, "vocab_size": 50}'
    >>> model = PretrainedTextClassifier(config, num_classes=2).eval()
    >>> model(__import__("torch").tensor([[5, 6, 7]])).shape
    torch.Size([1, 2])
    """

    def __init__(
        self, config: str, num_classes: int, *, dropout: float = 0.1, center: float = 0.0, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.num_classes = whole_number("num_classes", num_classes, least=1)
        self.center, self.scale = center, scale
        self.encoder = _Encoder(_encoder_of(config))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.encoder.width, num_classes)

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

        Raises:
            DataError: a text has more tokens than the encoder has positions.
        """
        scores: Tensor = self.head(self.dropout(self.encoder(input_ids, attention_mask, token_type_ids)))
        return scores if self.num_classes > 1 else scores.squeeze(1) * self.scale + self.center


class _Encoder(nn.Module):
    """Texts to vectors, [B, L] to [B, width]: the mean over what is not padding.

    Args:
        model: Of transformers.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.width = model, int(model.config.hidden_size)
        self.takes_types = "token_type_ids" in inspect.signature(model.forward).parameters
        named = (each for name, each in model.named_modules() if name.endswith("position_embeddings"))
        table = next((each for each in named if isinstance(each, nn.Embedding)), None)
        padding = -1 if table is None or table.padding_idx is None else table.padding_idx  # positions begin behind it
        self.longest = None if table is None else table.num_embeddings - padding - 1

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None) -> Tensor:
        if self.longest is not None and input_ids.shape[1] > self.longest:
            raise DataError(
                f"a text has {input_ids.shape[1]:,} tokens, and this encoder has positions for {self.longest:,}; "
                f"shorten texts where they are read: TextDataset(..., max_length={self.longest})"
            )
        mask = input_ids.new_ones(input_ids.shape) if attention_mask is None else attention_mask.long()
        types = {"token_type_ids": token_type_ids} if self.takes_types and token_type_ids is not None else {}
        hidden = self.model(input_ids=input_ids, attention_mask=mask, **types).last_hidden_state
        weights = mask[:, :, None].to(hidden.dtype)
        mean: Tensor = (hidden * weights).sum(1) / weights.sum(1).clamp_min(1)
        return mean


def _encoder_of(config: str) -> Any:
    """A model of transformers with random weights, by its config.

    Args:
        config: JSON.

    Raises:
        ArgumentError: see `PretrainedTextClassifier`.
    """
    transformers = require("transformers", extra="hf")
    document = _plain_config(_bounds.parse(_bounds.text(config, "config of the encoder", _MOST_CONFIG), "config"))
    kind = document.pop("model_type")
    if kind not in transformers.CONFIG_MAPPING:
        raise ArgumentError(f"model_type {kind!r:.100} is not known to transformers {transformers.__version__}")
    try:
        made = transformers.AutoConfig.for_model(kind, **document)
        model = transformers.AutoModel.from_config(made, trust_remote_code=False)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ArgumentError(f"transformers cannot make a {kind!r} of this config: {error}") from error
    if made.is_encoder_decoder or not isinstance(getattr(made, "hidden_size", None), int):
        raise ArgumentError(f"{kind!r} is not an encoder of texts: it has a decoder, or no hidden_size")
    if isinstance(getattr(model, "pooler", None), nn.Module) and "bert" in kind:
        model.pooler = None  # made for another task, and of no use to the mean
    return model.float()


def _plain_config(document: Any) -> dict[str, Any]:
    """A config without what would name code or places, in bounds.

    Args:
        document: What JSON gave.

    Raises:
        ArgumentError: it is not a config, or a number or name in it is out of bounds.
    """
    if not isinstance(document, Mapping) or not isinstance(document.get("model_type"), str):
        raise ArgumentError(f"a config of transformers is a JSON object with a model_type, not {document!r:.100}")
    kept = {str(key): value for key, value in document.items() if not key.startswith("_") and key not in _LEFT_OUT}
    for key, value in kept.items():
        _check(key, value, depth=0)
    return kept


def _check(key: str, value: Any, *, depth: int) -> None:
    if isinstance(value, Mapping | list):
        if depth > 2 or len(value) > _MOST_WORDS:
            raise ArgumentError(f"{key:.100} of the config is too large")
        for name, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            _check(f"{key}.{name}", inner, depth=depth + 1)
    elif isinstance(value, str) and len(value) > _MOST_WORDS:
        raise ArgumentError(f"{key:.100} of the config has {len(value):,} characters")
    elif key.endswith(("layer", "layers")) and isinstance(value, int) and value > _MOST_LAYERS:  # each is an object
        raise ArgumentError(f"{key:.100} of the config is {value!r:.60}; at most {_MOST_LAYERS:,} is allowed")
    elif isinstance(value, int | float) and not -_MOST_NUMBER <= value <= _MOST_NUMBER and abs(value) < 1e30:
        raise ArgumentError(f"{key:.100} of the config is {value!r:.60}; at most {_MOST_NUMBER:,} is allowed")


def config_text(document: Any) -> str:
    """A config unchanged in the model file.

    Args:
        document: What JSON gave.
    """
    return json.dumps(_plain_config(document), sort_keys=True)
