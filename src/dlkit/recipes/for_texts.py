"""Models for texts."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from dlkit._language import Message
from dlkit._near import hint
from dlkit.errors import ArgumentError
from dlkit.loader import DataLoader
from dlkit.models import (
    TextClassifier,
    TfidfLinear,
)
from dlkit.models.linear import center_and_scale
from dlkit.recipes.choices import Choice, Fitted, Wish, class_weights, refuse
from dlkit.recipes.reading import Data, encoded_by
from dlkit.tokens import Vocabulary
from dlkit.transfer.freezing import freeze
from dlkit.transfer.groups import param_groups
from dlkit.transfer.texts import create_text_model

__all__ = ["TEXT_MODELS", "for_texts"]

_RATES = {"bag": 1e-2, "gru": 2e-3, "transformer": 1e-3}
#: What `arch` may be, the default first.
TEXT_MODELS = ("linear", *_RATES)


_STRENGTHS = (1, 4, 16, 64)
_CUTS = ("words-and-pairs", "runs", "words-and-runs")
_MANY_TOKENS = 1_000_000  # the most frequent ones, where there are more
_MANY_BYTES = 3_000_000  # of texts, of which runs of characters would be too many; and long texts gain least by them


def for_texts(data: Data, wish: Wish) -> Choice:
    """The default is `TfidfLinear`, which is fitted in one go.

    Args:
        data: From `read_data`: texts.
        wish: What the caller has said.
    """
    refuse(wish, "weights", "views", "image_size", why="this is for images, and the data is texts")
    encoder = wish.arch or "linear"
    if encoder.startswith("hf/"):
        return _pretrained(data, wish, encoder)
    refuse(wish, "freeze", why="this is for a pretrained encoder: arch='hf/NAME'")
    if encoder not in TEXT_MODELS:
        raise ArgumentError(
            f"arch={encoder!r}: {hint(encoder, TEXT_MODELS, has='for texts there are')}, and hf/NAME for an encoder of "
            "transformers in a folder or an installed package"
        )
    outputs, loss, metrics, units = _judged_by(data)
    vocabulary, types = len(data.train.vocabulary), 1 if data.train.pairs is None else 2
    if encoder == "linear":
        return Choice(
            arch=encoder,
            model=TfidfLinear(vocabulary, outputs, num_types=types),
            loss=loss,
            metrics=metrics,
            lr=1.0,
            epochs=1,
            batch_size=256,
            patience=1,
            fit=lambda: _fitted_to_texts(data, wish),
            why=[
                Message("model: TfidfLinear, logistic regression on TF-IDF")
                if data.classes
                else Message("model: TfidfLinear, linear regression on TF-IDF")
            ],
        )
    return Choice(
        arch=encoder,
        model=TextClassifier(vocabulary, outputs, encoder=encoder, num_types=types, **units),  # type: ignore[arg-type]
        loss=loss,
        metrics=metrics,
        lr=_RATES[encoder],
        epochs=10,
        batch_size=64,
        patience=3,
        why=[Message("model: TextClassifier, encoder {name!r}", name=encoder)],
    )


def _judged_by(data: Data) -> tuple[int, nn.Module, list[str], dict[str, Any]]:
    """How many outputs, the loss, the metrics, and the units of a regression."""
    if data.classes:
        return len(data.classes), nn.CrossEntropyLoss(), ["accuracy"], {}
    units = dict(zip(("center", "scale"), center_and_scale(data.train.targets), strict=True))
    return 1, nn.MSELoss(), ["rmse", "mae", "r2"], units


def _pretrained(data: Data, wish: Wish, arch: str) -> Choice:
    """An encoder that runs once over each text, while only the head is trained; or, unfrozen, all of it."""
    outputs, loss, metrics, units = _judged_by(data)
    model = create_text_model(arch, classes=data.classes or outputs, pretrained=wish.pretrained, **units)
    frozen = wish.pretrained if wish.freeze is None else wish.freeze
    if frozen and not wish.pretrained:
        raise ArgumentError("freeze=True with pretrained=False would train a head on random features; leave one out")
    if data.options.get("tokenizer"):
        raise ArgumentError(f"tokenizer={data.options['tokenizer']!r}: {arch} comes with its own; leave it out")
    if frozen:
        freeze(model)
    told = Message(
        "{model}; texts of up to {tokens} tokens",
        model=Message(
            "model: {arch}, {origin}; {learns}",
            arch=arch,
            origin=Message("pretrained") if wish.pretrained else Message("random weights"),
            learns=Message("only the head is trained") if frozen else Message("all layers are trained"),
        ),
        tokens=model.max_length,
    )
    spec = dataclasses.replace(data.train.spec, encoder=model.tokenizer, max_length=model.max_length)
    return Choice(
        arch=arch,
        model=model,
        loss=loss,
        metrics=metrics,
        lr=3e-3 if frozen else 3e-4,
        epochs=30 if frozen else 4,
        batch_size=32,
        patience=5,
        frozen=frozen,
        why=[told],
        groups=None if frozen else lambda lr: param_groups(model, lr, backbone_lr=lr / 10, layer_decay=0.8),
        data=encoded_by(data, spec),
    )


def _fitted_to_texts(data: Data, wish: Wish) -> Fitted:
    """Of several ways to cut a text, and strengths, what has the smallest loss on the validation part."""
    best, least = None, math.inf
    weights = None if wish.class_weights is None else class_weights(data, wish.class_weights)
    loss = nn.CrossEntropyLoss(weight=weights) if data.classes else nn.MSELoss()
    for name in _cuts(data):
        cut, before = _cut_by(name, data, [data.train]), math.inf
        for strength, fitted in zip(_STRENGTHS, TfidfLinear.path([cut.train], _STRENGTHS, loss), strict=True):
            value = _loss_on(fitted, cut.val, loss)
            if value < least:
                best, least = (name or data.options["tokenizer"], strength, fitted, cut), value
            if value > before:
                break
            before = value
    assert best is not None
    name, strength, model, cut = best

    def again() -> tuple[nn.Module, Data]:
        whole = _cut_by(name if name in _CUTS else "", data, [data.train, data.val])
        return next(TfidfLinear.path([whole.train, whole.val], [strength], loss)), whole

    told = f"tokens: {name}, strength {strength:g} (validation loss {least:.4g})"
    return Fitted(model=model, data=cut, told=told, again=again)


def _cuts(data: Data) -> Sequence[str]:
    """Ways to cut the texts; "" for the one that the caller has said."""
    if data.options.get("tokenizer"):
        return [""]
    return _CUTS if sum(each.num_bytes for each in _texts_of(data.train)) < _MANY_BYTES else _CUTS[:1]


def _cut_by(name: str, data: Data, fitted_on: Sequence[Any]) -> Data:
    """The data in lower case, cut by a tokenizer into what there is in some of its parts."""
    if not name:
        return data
    texts = itertools.chain.from_iterable(itertools.chain.from_iterable(map(_texts_of, fitted_on)))
    cleaning = dataclasses.replace(data.train.vocabulary.cleaning, lower=True)
    # Tokens that come once count as well: leaving them out cost a point on Korean reviews.
    vocabulary = Vocabulary.fit(texts, tokenizer=name, cleaning=cleaning, max_size=_MANY_TOKENS)
    return encoded_by(data, dataclasses.replace(data.train.spec, encoder=vocabulary))


def _texts_of(part: Any) -> list[Any]:
    return [part.texts, *([] if part.pairs is None else [part.pairs])]


@torch.no_grad()
def _loss_on(model: nn.Module, part: Any, loss: nn.Module) -> float:
    batches = [(model(**inputs), targets) for inputs, targets in DataLoader(part, 256).batches(0)]
    outputs, targets = (torch.cat(each) for each in zip(*batches, strict=True))
    return float(loss(outputs, targets))
