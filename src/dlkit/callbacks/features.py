"""How the Trainer reuses the features of a frozen backbone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dlkit._arguments import whole_number
from dlkit.callbacks.base import Callback

__all__ = ["ReuseFeatures"]


class ReuseFeatures(Callback):
    """Settings for the reuse of features; without this callback the Trainer reuses them wherever that is exact.

    A model that was frozen with `dlkit.transfer.freeze` computes the same features for a sample in every epoch, so
    the Trainer computes them once and trains the rest of the model on what it has stored. It does so by itself where
    the samples are prepared without randomness, for validation data in any case. The streams of torch, numpy and
    `random` are watched while samples are fetched, and samples of a dataset that does not say `draws_random = False`
    are fetched twice: a generator that nothing can seed gives others, and then no features are stored. The rest of the
    model is tried with one backward before it is trained on stored features.

    Args:
        enabled: False computes everything anew in every epoch.
        views: With random augmentation, store so many random views of each training sample; every epoch trains on
            another mixture of them, with weights drawn evenly among all that sum to 1. Maps and tokens (where more
            than the head is trained) are taken in turn. None stores no augmented samples. They are stored even where
            no more epochs than views are left and so nothing is saved: a resumed run has to see the same numbers.
        keep: Keep features in a folder, so that the next run finds them; they are recomputed as soon as weights, data
            or preprocessing differ. False keeps them for this fit only.
        folder: Where; None for the cache folder (`DLKIT_HOME`).
        max_memory: Bytes up to which features are held in memory; beyond, a file is mapped.
        max_bytes: Features that would take more than this are not stored at all.

    Raises:
        ArgumentError: fewer than one view.

    >>> ReuseFeatures(views=4).views
    4
    """

    def __init__(
        self,
        *,
        enabled: bool = True,
        views: int | None = None,
        keep: bool = True,
        folder: str | os.PathLike[str] | None = None,
        max_memory: int = 1 << 30,
        max_bytes: int = 1 << 34,
    ) -> None:
        if views is not None:
            views = whole_number("views", views, least=1)
        self.enabled, self.views, self.keep = enabled, views, keep
        self.folder = None if folder is None else Path(folder)
        self.max_memory, self.max_bytes = max_memory, max_bytes
        #: Features that fits with this same object share, by key, where somebody puts a dict here: `fine_tune`.
        self.shared: dict[str, Any] | None = None
