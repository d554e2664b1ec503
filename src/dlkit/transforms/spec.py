"""`Preprocessing`: from decoded pixels to what the model takes, as plain data that travels through JSON.

What is random is drawn first, for a whole batch, as a table of uniform numbers (`draw`); what to do with an image is
then a pure function of its size and its row of the table (`plan`), carried out by any thread (`write`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dlkit import _bounds
from dlkit._kinds import Spec, values
from dlkit.errors import ArgumentError
from dlkit.transforms.augment import Augment, Numbers, Pixels
from dlkit.transforms.contrast import LocalContrastNormalization
from dlkit.transforms.geometry import (
    Box,
    centered,
    middle_of_strip,
    reduction,
    resized_part,
    short_side_to,
    snapped,
)

__all__ = ["ImagePlan", "Preprocessing"]

Interpolation = Literal["bilinear", "bicubic", "nearest"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_SMALL = 96
# A resized image of more is a strip, or has sides of more than any model takes: 50 MB, and four times that in between.
_MOST_PIXELS = int(_bounds.SIDE.most) ** 2


class ImagePlan(NamedTuple):
    """What to do with one image.

    Attributes:
        reduce: At which part of its size a JPEG is to be decoded: 1, 2, 4 or 8.
        box: What to cut out, in pixels of the full image; a multiple of `reduce`, or the whole image.
        height: What the cut-out is resized to.
        width: What the cut-out is resized to.
        target: Which part of the output the resized image fills.
        offset: Which part of the resized image that is: (top, left).
        numbers: The row of random numbers, None where nothing is random.
    """

    reduce: int
    box: Box
    height: int
    width: int
    target: Box
    offset: tuple[int, int]
    numbers: Numbers | None


@dataclass(frozen=True, kw_only=True)
class Preprocessing(Spec):
    """How images become a model's input: made by `for_training`, `for_evaluation`, `from_model`, or of a model file.

    It is callable on one image, picklable, and equal to what `Preprocessing.from_json(it.to_json())` gives. Image
    datasets run it in their threads; on its own it serves `torchvision.datasets.ImageFolder(transform=...)` as well.

    Attributes:
        size: Height and width of the output, in pixels.
        resize: In evaluation with `fit="crop"`, what the shorter side is made before the center crop.
        fit: "crop" cuts out the middle, "stretch" changes the proportions, "pad" keeps all and fills with the mean.
        interpolation: "bilinear", "bicubic" or "nearest"; the first two with antialiasing.
        color: "RGB" or "L" (grey).
        mean: Per channel, of pixels in [0, 1].
        std: Per channel, of pixels in [0, 1].
        augment: What is random; None for evaluation.
        then: Steps on the normalised images, such as `LocalContrastNormalization()`.

    >>> prepare = Preprocessing(size=(4, 4), resize=6)
    >>> prepare(np.zeros((9, 12, 3), np.uint8)).shape
    torch.Size([3, 4, 4])
    """

    kind: ClassVar[str] = "image"
    noun: ClassVar[str] = "images"
    way: ClassVar[str] = (
        "give both the same colour and normalisation: transforms.for_evaluation(size, mean=..., std=...)"
    )
    _title: ClassVar[str] = "the preprocessing"
    _head: ClassVar[Mapping[str, Any]] = {"kind": "Preprocessing"}

    size: tuple[int, int]
    resize: int | None = None
    fit: Literal["crop", "stretch", "pad"] = "crop"
    interpolation: Interpolation = "bilinear"
    color: Literal["RGB", "L"] = "RGB"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    augment: Augment | None = None
    then: tuple[LocalContrastNormalization, ...] = ()
    _scale: npt.NDArray[np.float32] = field(init=False, repr=False, compare=False)
    _bias: npt.NDArray[np.float32] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check(self)
        for name in ("size", "mean", "std", "then"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.resize is None and self.fit == "crop":
            object.__setattr__(self, "resize", max(self.size))
        # x / 255 normalised is x * scale + bias.
        scale = [1 / (255 * std) for std in self.std]
        bias = [-mean / std for mean, std in zip(self.mean, self.std, strict=True)]
        object.__setattr__(self, "_scale", np.array(scale, np.float32)[:, None, None])
        object.__setattr__(self, "_bias", np.array(bias, np.float32)[:, None, None])

    @property
    def channels(self) -> int:
        """3 for RGB, 1 for grey."""
        return len(self.mean)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the output."""
        return (self.channels, *self.size)

    @property
    def draws_random(self) -> bool:
        """Whether `draw` draws."""
        return self.augment is not None

    def for_evaluation(self) -> Self:
        """The same without augmentation."""
        return dataclasses.replace(self, augment=None)

    def example(self, *, small: bool = False) -> Any:
        """Two images, or two of 96 pixels where they are larger and a small example will do."""
        size = [_SMALL, _SMALL] if small and min(self.size) > _SMALL else self.size
        return values([2, self.channels, *size], "float32", -2.0, 2.0)

    def compared(self) -> dict[str, Any]:
        """What a pixel means; size and crop may differ between training and evaluation."""
        return {name: getattr(self, name) for name in ("color", "mean", "std", "then")}

    def draw(self, count: int) -> Numbers | None:
        """The random numbers for `count` images [count, 32], from torch's global stream; None if nothing is random.

        Args:
            count: How many images.
        """
        return self.augment.draw(count) if self.augment is not None else None

    def plan(self, height: int, width: int, numbers: Numbers | None = None) -> ImagePlan:
        """What to do with an image of this size.

        Args:
            height: Upright, in full.
            width: Upright, in full.
            numbers: Its row of `draw`.
        """
        whole = Box(0, 0, height, width)
        wanted = Box(0, 0, *self.size)
        if self.augment is not None and self.augment.scale is not None:
            assert numbers is not None
            box = self.augment.box(height, width, numbers)
            factor = reduction(box.height, box.width, *self.size)
            return ImagePlan(factor, snapped(box, factor), *self.size, wanted, (0, 0), numbers)
        if self.fit == "stretch":
            return ImagePlan(reduction(height, width, *self.size), whole, *self.size, wanted, (0, 0), numbers)
        if self.fit == "pad":
            share = min(self.size[0] / height, self.size[1] / width)
            h, w = (max(1, round(height * share)), max(1, round(width * share)))
            target = centered(*self.size, min(h, self.size[0]), min(w, self.size[1]))
            return ImagePlan(
                reduction(height, width, h, w), whole, target.height, target.width, target, (0, 0), numbers
            )
        assert self.resize is not None
        h, w = short_side_to(height, width, self.resize)
        strip = h * w > _MOST_PIXELS
        if strip:  # most of it would be enlarged to be cut off
            whole = middle_of_strip(height, width)
            h, w = short_side_to(whole.height, whole.width, self.resize)
        top, left, _, _ = centered(h, w, *self.size)
        return ImagePlan(1 if strip else reduction(height, width, h, w), whole, h, w, wanted, (top, left), numbers)

    def write(self, pixels: Pixels, plan: ImagePlan, out: npt.NDArray[np.float32], *, reduce: int = 1) -> None:
        """Carry out a plan. Draws nothing and starts no threads, so that any thread may do it.

        Args:
            pixels: uint8 [H, W, C], upright.
            plan: From `plan`, for the size of the full image.
            out: float32 [C, H, W] of `size`, gets the result.
            reduce: At which part of the full image's size the pixels are: 1, or `plan.reduce`.
        """
        top, left = plan.box.top // reduce, plan.box.left // reduce
        height, width = -(-plan.box.height // reduce), -(-plan.box.width // reduce)
        if (top, left, height, width) != (0, 0, *pixels.shape[:2]):
            pixels = pixels[top : top + height, left : left + width]
        part = plan.box.height / reduce, plan.box.width / reduce
        planes = resized_part(pixels, *part, plan.height, plan.width, self.interpolation)
        used = self._used(planes, plan)
        if used.shape[1:] != out.shape[1:]:
            out[:] = 0  # what it leaves free
        self._normalize(used, plan, out)
        if self.augment is not None and plan.numbers is not None:
            self.augment.erase_in(out, plan.numbers)

    def write_labels(self, labels: npt.NDArray[np.int64], plan: ImagePlan, out: npt.NDArray[np.int64]) -> None:
        """Carry out a plan on class numbers, of which none in between are made: what `write` did to the image's places.

        Args:
            labels: [H, W], upright, one for each pixel of the full image.
            plan: As for `write`.
            out: int64 [H, W] of `size`; what the image does not reach stays as it is.
        """
        box = plan.box
        rows = box.top + (np.arange(plan.height) * 2 + 1) * box.height // (2 * plan.height)
        columns = box.left + (np.arange(plan.width) * 2 + 1) * box.width // (2 * plan.width)
        top, left, height, width = plan.target
        out[top : top + height, left : left + width] = self._used(labels[np.ix_(rows, columns)][None], plan)[0]

    def write_target(self, pixels: Pixels, plan: ImagePlan, out: npt.NDArray[np.float32]) -> None:
        """Carry out a plan on a picture that is a target: cut, resized, mirrored and normalised; not recoloured.

        Args:
            pixels: As for `write`, of the full image.
            plan: As for `write`.
            out: As for `write`.
        """
        moved = None if self.augment is None else self.augment.moves()
        dataclasses.replace(self, augment=moved).write(pixels, plan, out)

    def _used(self, planes: Any, plan: ImagePlan) -> Any:
        """The part of the resized image that is used, mirrored where it is to be."""
        top, left = plan.offset
        if plan.offset != (0, 0) or planes.shape[1:] != plan.target[2:]:
            planes = planes[:, top : top + plan.target.height, left : left + plan.target.width]
        if self.augment is not None and plan.numbers is not None:
            planes = self.augment.mirrored(planes, plan.numbers)
        return planes

    def _normalize(self, planes: Pixels, plan: ImagePlan, out: npt.NDArray[np.float32]) -> None:
        top, left, height, width = plan.target
        values: npt.NDArray[Any] = planes
        if self.augment is not None and self.augment.changes_color and plan.numbers is not None:
            values = self.augment.recolored(planes, plan.numbers)
        # In order of memory first: reading every third byte three times over costs more than one pass that sorts them.
        part = out[:, top : top + height, left : left + width]
        np.copyto(part, np.ascontiguousarray(values))
        np.multiply(part, self._scale, out=part)
        np.add(part, self._bias, out=part)

    def __call__(self, image: Any) -> Tensor:
        """One image, with random numbers drawn for it if there is anything random: float32 [C, H, W].

        Args:
            image: A PIL image, a uint8 array [H, W, C] or [H, W], or a uint8 tensor [C, H, W] or [H, W].
        """
        pixels = _pixels_of(image, self.color)
        table = self.draw(1)
        plan = self.plan(pixels.shape[0], pixels.shape[1], None if table is None else table[0])
        out = np.empty(self.shape, np.float32)
        self.write(pixels, plan, out)
        return self.finish(torch.from_numpy(out))

    def finish(self, images: Tensor) -> Tensor:
        """The steps of `then`, on normalised images.

        Args:
            images: float32 [C, H, W] or [B, C, H, W].
        """
        for step in self.then:
            images = step(images)
        return images


def _pixels_of(image: Any, color: str) -> Pixels:
    if isinstance(image, Tensor):
        array: Any = image.detach().cpu().numpy()
        array = array.transpose(1, 2, 0) if array.ndim == 3 else array
    elif isinstance(image, np.ndarray):
        array = image
    elif callable(convert := getattr(image, "convert", None)):
        array = np.array(convert(color))
    else:
        raise ArgumentError(
            f"an image must be a PIL image, a uint8 array or a uint8 tensor, not {type(image).__name__}"
        )
    array = array[:, :, None] if array.ndim == 2 else array
    channels = {"RGB": 3, "L": 1}[color]
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (1, channels):
        raise ArgumentError(
            f"pixels must be uint8 with {channels} channel(s) (an array [H, W, C], a tensor [C, H, W]), "
            f"not {array.dtype} of shape {list(array.shape)} (channels last)"
        )
    pixels: Pixels = np.ascontiguousarray(array if array.shape[2] == channels else array.repeat(channels, axis=2))
    return pixels if pixels.flags.writeable else pixels.copy()


def _check(spec: Preprocessing) -> None:
    if not isinstance(spec.size, tuple | list) or len(spec.size) != 2 or not all(_is_side(side) for side in spec.size):
        raise ArgumentError(f"size must be (height, width) in pixels, from 1 to {_bounds.SIDE.most}, not {spec.size!r}")
    for name, choices in (
        ("fit", ("crop", "stretch", "pad")),
        ("interpolation", ("bilinear", "bicubic", "nearest")),
        ("color", ("RGB", "L")),
    ):
        if getattr(spec, name) not in choices:
            raise ArgumentError(f"{name} must be one of {', '.join(choices)}, not {getattr(spec, name)!r}")
    if spec.resize is not None and (not _is_side(spec.resize) or spec.resize < max(spec.size)):
        raise ArgumentError(
            f"resize, the shorter side before the center crop, must be a whole number from {max(spec.size)} (the "
            f"size) to {_bounds.SIDE.most}, not {spec.resize!r}"
        )
    channels = {"RGB": 3, "L": 1}[spec.color]
    for name in ("mean", "std"):
        values = getattr(spec, name)
        if not isinstance(values, tuple | list) or len(values) != channels:
            raise ArgumentError(f"{name} must have a number for each of {channels} channel(s), not {values!r:.200}")
    for name, bounds in (("mean", _bounds.MEAN), ("std", _bounds.STD)):
        for value in getattr(spec, name):
            _bounds.number(value, name, bounds)
    if spec.augment is not None and not isinstance(spec.augment, Augment):
        raise ArgumentError(f"augment must be an Augment or None, not {type(spec.augment).__name__}")
    _bounds.whole(len(spec.then), "the number of steps in then", _bounds.STEPS)
    if not all(isinstance(step, LocalContrastNormalization) for step in spec.then):
        raise ArgumentError(f"then takes LocalContrastNormalization steps, not {spec.then!r}")


def _is_side(value: Any) -> bool:
    return type(value) is int and _bounds.SIDE.least <= value <= _bounds.SIDE.most
