"""Which model, loss, rate and preparation suit the data, unless the caller says so; every choice is told."""

from __future__ import annotations

from dlkit import rng
from dlkit._language import Message
from dlkit.errors import ArgumentError
from dlkit.recipes.choices import Choice, Wish, class_weights, weighed_loss
from dlkit.recipes.for_pictures import for_images, for_sounds
from dlkit.recipes.for_tables import TABLE_MODELS, for_table
from dlkit.recipes.for_texts import TEXT_MODELS, for_texts
from dlkit.recipes.reading import Data

__all__ = ["choose", "models_for"]


def choose(data: Data, wish: Wish) -> Choice:
    """Make the model for the data.

    Args:
        data: From `read_data`.
        wish: What the caller has said.

    Raises:
        ArgumentError: what was said does not go together, or is not known.
        DownloadError: pretrained weights are needed and could not be fetched; the message says what to do without.
    """
    _check_sampler(data, wish)
    weights = None if wish.class_weights is None else class_weights(data, wish.class_weights)
    with rng.isolated(rng.derive(wish.seed, rng.MODEL)):
        choice = _chosen(data, wish)
    if weights is not None:
        choice.loss = weighed_loss(data.task, weights)
        told = ", ".join(f"{name} {weight:.4g}" for name, weight in zip(data.classes, weights.tolist(), strict=True))
        if data.task == "multilabel":
            choice.why.append(Message("weights of the labels in the loss: {weights}", weights=told[:460]))
        else:
            choice.why.append(Message("weights of the classes in the loss: {weights}", weights=told[:460]))
    return choice


def _check_sampler(data: Data, wish: Wish) -> None:
    if wish.sampler is None:
        return
    if wish.sampler != "balanced":
        raise ArgumentError(f"sampler must be 'balanced', or None for every sample once, not {wish.sampler!r}")
    if data.task == "regression":
        raise ArgumentError("sampler='balanced': this is a regression, which has no classes")
    if wish.class_weights is not None:
        raise ArgumentError("class_weights and sampler='balanced' both make up for rare classes; leave one out")


def _chosen(data: Data, wish: Wish) -> Choice:
    if data.kind == "table":
        return for_table(data, wish)
    if data.kind == "sounds":
        return for_sounds(data, wish)
    return for_texts(data, wish) if data.kind == "text" else for_images(data, wish)


def models_for(kind: str) -> list[str]:
    """What `arch` may be for a `kind` of data, "table" or "text", the default first."""
    return list(TABLE_MODELS) if kind == "table" else list(TEXT_MODELS)
