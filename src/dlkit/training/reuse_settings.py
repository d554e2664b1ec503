"""How the Trainer reuses the features of a frozen backbone."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from dlkit._arguments import whole_number
from dlkit.errors import ArgumentError

__all__ = ["ReuseFeatures"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReuseFeatures:
    """How the Trainer reuses the features of a frozen backbone: `Trainer(..., reuse_features=ReuseFeatures(views=4))`.

    A model that was frozen with `dlkit.transfer.freeze` computes the same features for a sample in every epoch, so
    the Trainer computes them once and trains the rest of the model on what it has stored. It does so by itself where
    the samples are prepared without randomness, for validation data in any case. The streams of torch, numpy and
    `random` are watched while samples are fetched, and samples of a dataset that does not say `draws_random = False`
    are fetched twice: a generator that nothing can seed gives others, and then no features are stored. The rest of the
    model is tried with one backward before it is trained on stored features.

    Attributes:
        views: With random augmentation, store so many random views of each training sample; every epoch trains on
            another mixture of them, with weights drawn evenly among all that sum to 1. Maps and tokens (where more
            than the head is trained) are taken in turn. None stores no augmented samples. They are stored even where
            no more epochs than views are left and so nothing is saved: a resumed run has to see the same numbers.
        cache: Keeps features for the next run: "auto" in `DLKIT_HOME`, or in a folder; they are recomputed as soon as
            weights, data or preprocessing differ. None keeps them for this fit only.
        cache_bytes: Features that would take more than this are not stored at all.
        memory_bytes: Bytes up to which features are held in memory; beyond, a file is mapped.
        shared: A dict through which several Trainers with the same frozen model share features; None for none.

    Raises:
        ArgumentError: fewer than one view.

    >>> ReuseFeatures(views=4).views
    4
    """

    views: int | None = None
    cache: str | os.PathLike[str] | None = "auto"
    cache_bytes: int = 1 << 34
    memory_bytes: int = 1 << 30
    shared: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.views is not None:
            object.__setattr__(self, "views", whole_number("views", self.views, least=1))

    @classmethod
    def of(cls, given: Any) -> ReuseFeatures | None:
        """The settings that an argument says; None where features are not reused.

        Args:
            given: True, False or settings.

        Raises:
            ArgumentError: anything else.
        """
        if not isinstance(given, bool | cls):
            raise ArgumentError(f"reuse_features must be True, False or a ReuseFeatures object, not {given!r}")
        return given if isinstance(given, cls) else cls() if given else None
