"""The options that all image datasets share."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Self

from torch import Tensor

from dlkit.datasets.images.decoding import Color
from dlkit.errors import ArgumentError
from dlkit.transforms import Augment, Preprocessing, for_evaluation

__all__ = ["ImageSettings"]

Transform = Preprocessing | Callable[[Any], Any]
BatchTransform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """The options that all image datasets share, checked where they are made.

    Attributes:
        size: Short for `transform=transforms.for_evaluation(size)`.
        transform: From the decoded image to the sample: a `Preprocessing` (`transforms.for_training(224)`), which is
            carried out in threads at the speed the machine allows; or any callable on a PIL image that returns a
            tensor, such as torchvision's v2 transforms, run one by one. None: uint8 [C, H, W] in each image's own size.
        augment: What is random: the `augment` of the `Preprocessing`, True for `Augment()`, or another
            `Preprocessing` whose augmentation is taken.
        color: "RGB" or "L"; a `Preprocessing` has its own.
        on_error: "raise" stops at a file that cannot be read, naming it; "skip" leaves it out for good.
        max_errors: The largest share of unreadable files that "skip" accepts.
        batch_transform: Called with a finished batch `(images, targets)`, such as `MixUp(num_classes=10)`.
        threads: How many decode; None for all cores, divided among the workers.
        cache: None, "auto", "memory" or a folder; see `ImageFolder`.
        cache_side: What the shorter side of a kept image is; None for what the transform needs.
        cache_bytes: How large the kept pixels may become; None for half of the free space.
    """

    size: int | tuple[int, int] | None = None
    transform: Transform | None = None
    augment: Augment | Preprocessing | bool | None = None
    color: Color = "RGB"
    on_error: Literal["raise", "skip"] = "raise"
    max_errors: float = 0.01
    batch_transform: BatchTransform | None = None
    threads: int | None = None
    cache: str | os.PathLike[str] | None = None
    cache_side: int | None = None
    cache_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.size is not None and self.transform is not None:
            raise ArgumentError("size= is short for transform=transforms.for_evaluation(size): give one of them")
        if self.size is not None:
            color: dict[str, Any] = {"color": self.color}
            object.__setattr__(self, "transform", for_evaluation(self.size, **color))
        if self.augment is not None and self.augment is not False:
            object.__setattr__(self, "transform", _augmented(self.transform, self.augment))
        object.__setattr__(self, "size", None)
        object.__setattr__(self, "augment", None)
        if self.on_error not in ("raise", "skip"):
            raise ArgumentError(f"on_error must be 'raise' or 'skip', not {self.on_error!r}")
        if not isinstance(self.max_errors, int | float) or not 0 <= self.max_errors <= 1:
            raise ArgumentError(f"max_errors is a share from 0 to 1, not {self.max_errors!r}")
        if self.color not in ("RGB", "L"):
            raise ArgumentError(f"color must be 'RGB' or 'L', not {self.color!r}")
        if self.threads is not None and (not isinstance(self.threads, int) or self.threads < 1):
            raise ArgumentError(f"threads must be a whole number of at least 1, not {self.threads!r}")
        for given in (self.transform, self.batch_transform):
            if given is not None and not callable(given):
                raise ArgumentError(f"transform and batch_transform must be callable, not {type(given).__name__}")

    @property
    def decoded_color(self) -> Color:
        """What images are decoded to: "RGB" or "L"."""
        return self.transform.color if isinstance(self.transform, Preprocessing) else self.color

    @property
    def kept_side(self) -> int | None:
        """What the shorter side of an image kept in the cache becomes; None keeps all."""
        if self.cache_side is not None or not isinstance(self.transform, Preprocessing):
            return self.cache_side
        # A random crop takes half the area on average, so 1.5 times the size still has its pixels.
        return max(self.transform.resize or 0, round(1.5 * max(self.transform.size)))

    def for_evaluation(self) -> Self:
        """The same for a part that is not trained on: without augmentation and batch transform."""
        transform = self.transform
        if isinstance(transform, Preprocessing):
            transform = transform.for_evaluation()
        return dataclasses.replace(self, transform=transform, batch_transform=None)


def _augmented(transform: Transform | None, augment: Any) -> Preprocessing:
    """A transform with what `augment=` asks for."""
    if isinstance(augment, Preprocessing) and transform is None:
        transform = augment
    if not isinstance(transform, Preprocessing):
        raise ArgumentError("augment= needs size= or a transform made by dlkit.transforms")
    if augment is True:
        augment = Augment()
    own = augment.augment if isinstance(augment, Preprocessing) else augment
    if not isinstance(own, Augment):
        raise ArgumentError(
            "augment= takes transforms.Augment(...), True for its defaults, or what transforms.for_training(size) "
            f"returns, not {type(augment).__name__}; a pipeline of torchvision goes into transform= as a whole"
        )
    return dataclasses.replace(transform, augment=own)
