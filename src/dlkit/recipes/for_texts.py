"""Models for texts."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlkit._near import hint
from dlkit.errors import ArgumentError
from dlkit.loader import DataLoader
from dlkit.models import (
    TextClassifier,
    TfidfLinear,
)
from dlkit.recipes.choices import Choice, Wish, class_weights, refuse
from dlkit.recipes.reading import Data, encoded_by
from dlkit.tokens import Vocabulary

__all__ = ["TEXT_MODELS", "for_texts"]

_RATES = {"bag": 1e-2, "gru": 2e-3, "transformer": 1e-3}
#: What `arch` may be, the default first.
TEXT_MODELS = ("linear", *_RATES)


_STRENGTHS = (1, 4, 16, 64)


_MANY_TOKENS = 1_000_000  # the most frequent ones, where there are more


_MANY_BYTES = 3_000_000  # of texts, of which runs of characters would be too many; and long texts gain least by them


def for_texts(data: Data, wish: Wish) -> Choice:
    """The default is `TfidfLinear`, which is fitted in one go.

    Args:
        data: From `read_data`: texts.
        wish: What the caller has said.
    """
    refuse(wish, "weights", "freeze", "views", "image_size", why="this is for images, and the data is texts")
    encoder = wish.arch or "linear"
    if encoder not in TEXT_MODELS:
        raise ArgumentError(f"arch={encoder!r}: {hint(encoder, TEXT_MODELS, has='for texts there are')}")
    if not data.classes:
        raise ArgumentError("the targets of the texts are quantities, not classes; dlkit has no ready recipe for those")
    vocabulary, types = len(data.train.vocabulary), 1 if data.train.pairs is None else 2
    if encoder == "linear":
        return Choice(
            arch=encoder,
            model=TfidfLinear(vocabulary, len(data.classes), num_types=types),
            loss=nn.CrossEntropyLoss(),
            metrics=["accuracy"],
            lr=1.0,
            epochs=1,
            batch_size=256,
            patience=1,
            fit=lambda: _fitted_to_texts(data, wish),
            why=["model: TfidfLinear, logistic regression on TF-IDF"],
        )
    return Choice(
        arch=encoder,
        model=TextClassifier(vocabulary, len(data.classes), encoder=encoder, num_types=types),  # type: ignore[arg-type]
        loss=nn.CrossEntropyLoss(),
        metrics=["accuracy"],
        lr=_RATES[encoder],
        epochs=10,
        batch_size=64,
        patience=3,
        why=[f"model: TextClassifier, encoder {encoder!r}"],
    )


def _fitted_to_texts(data: Data, wish: Wish) -> tuple[nn.Module, Data, str]:
    """Of several ways to cut a text, and strengths, what has the smallest loss on the validation part."""
    found: list[tuple[float, str, nn.Module, Data]] = []
    weights = None if wish.class_weights is None else class_weights(data, wish.class_weights)
    loss = nn.CrossEntropyLoss(weight=weights)
    for name, cut in _cuts(data):
        for strength, fitted in zip(_STRENGTHS, TfidfLinear.path(cut.train, _STRENGTHS, loss), strict=True):
            value = _loss_on(fitted, cut.val, weights)
            found.append((value, f"{name}, strength {strength:g} (validation loss {value:.4g})", fitted, cut))
            if len(found) > 1 and found[-2][3] is cut and value > found[-2][0]:
                break
    _, told, model, cut = min(found, key=lambda row: row[0])
    return model, cut, told


def _cuts(data: Data) -> Iterator[tuple[str, Data]]:
    """The data as it was cut on demand; else in lower case by words and pairs, and where they are few by characters."""
    if data.options.get("tokenizer"):
        yield f"tokens: {data.options['tokenizer']}", data
        return
    train = data.train
    parts = [train.texts, *([] if train.pairs is None else [train.pairs])]
    for name in ("words-and-pairs", "runs"):
        if name == "runs" and sum(each.num_bytes for each in parts) > _MANY_BYTES:
            return
        cleaning = dataclasses.replace(train.vocabulary.cleaning, lower=True)
        texts = itertools.chain.from_iterable(parts)
        # Tokens that come once count as well: leaving them out cost a point on Korean reviews.
        vocabulary = Vocabulary.fit(texts, tokenizer=name, cleaning=cleaning, max_size=_MANY_TOKENS)
        yield f"tokens: {name}", encoded_by(data, dataclasses.replace(train.spec, encoder=vocabulary))


@torch.no_grad()
def _loss_on(model: nn.Module, part: Any, weights: Tensor | None) -> float:
    batches = [(model(**inputs), targets) for inputs, targets in DataLoader(part, 256)]
    outputs, targets = (torch.cat(each) for each in zip(*batches, strict=True))
    return float(F.cross_entropy(outputs, targets, weight=weights))
