"""Image datasets whose pixels are in one uint8 array: `NotMNIST` and `Glyphs` are made of this."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dlkit._html import picture
from dlkit.datasets.base import InMemoryDataset, shown
from dlkit.datasets.letters.packfile import ImageStore, Pack
from dlkit.errors import ArgumentError, DataError
from dlkit.splits import Fractions, content_keys, split_indices
from dlkit.storage.identity import of_parts, of_tensor, of_transform
from dlkit.transforms import Preprocessing, for_evaluation

__all__ = ["PackedImages"]

Transform = Callable[[Tensor], Any]

# The very factor of `Preprocessing`, so that an image's file and this array give the same bits.
_SCALE = np.float32(1 / 255)


class PackedImages(InMemoryDataset):
    """Grey images in one array, given as float32 [1, H, W] in [0, 1] with an int64 label.

    Args:
        store: Pixels, targets and names, shared by all parts of a split.
        classes: The class names in the order of the labels.
        transform: Called with each image as float32 [1, H, W]; returns a tensor.

    Attributes:
        targets: int64 [N], the labels.
        classes: The class names in the order of the labels.
        class_to_idx: The label of each class name.
        transform: As given.
    """

    def __init__(self, store: ImageStore, classes: Sequence[str], *, transform: Transform | None = None) -> None:
        self._store, self._indices = store, None
        self.targets = store.targets
        self.classes = list(classes)
        self.class_to_idx = {name: label for label, name in enumerate(self.classes)}
        self.transform = transform

    _indices: Tensor | None

    @property
    def images(self) -> Tensor:
        """The pixels, uint8 [N, H, W]; for a part of a split its own copy."""
        return self._store.images if self._indices is None else self._store.images.index_select(0, self._indices)

    @property
    def indices(self) -> Tensor:
        """int64 [N], where the samples are in the whole dataset."""
        return torch.arange(len(self)) if self._indices is None else self._indices

    @property
    def identity(self) -> str | None:
        """One name for these samples prepared this way, by which stored features are found again in the next run.

        Pixels count with their content (a pack with its checksum). None with a transform that cannot be identified.
        """
        transform, store = of_transform(self.transform), self._store
        if transform is None:
            return None
        pixels = f"{store.checksum} {list(store.images.shape)}" if isinstance(store, Pack) else of_tensor(store.images)
        return of_parts(pixels, of_tensor(self.indices), of_tensor(self.targets), transform)

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How a picture in a file becomes what this dataset gives, for the model file; None with a `transform`."""
        if self.transform is not None:
            return None
        height, width = self._store.images.shape[1:]
        return for_evaluation((height, width), fit="stretch", color="L", mean=0.0, std=1.0)

    @property
    def draws_random(self) -> bool:
        """True with a transform, which may draw random numbers; the loader then seeds every batch."""
        return self.transform is not None

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The samples at `indices` (int64 [B]) as images [B, 1, H, W] and labels [B].

        Args:
            indices: Each in range.
        """
        rows = indices if self._indices is None else self._indices.index_select(0, indices)
        # By numpy, in this thread: torch would wake its OpenMP threads for 40 microseconds of work, and they wait for
        # each other. Where others used the two cores, too, that took 7 times as long (batches of 128), even 25 (1024).
        pixels = np.take(self._store.images.numpy(), rows.numpy(), axis=0).astype(np.float32)
        pixels *= _SCALE
        images = torch.from_numpy(pixels).unsqueeze(1)
        if self.transform is not None:
            images = self._transformed(self.transform, images, indices)
        return images, self.targets.index_select(0, indices)

    def _transformed(self, transform: Transform, images: Tensor, indices: Tensor) -> Tensor:
        results: list[Tensor] = []
        for image, index in zip(images.unbind(0), indices.tolist(), strict=True):
            try:
                result = transform(image)
            except Exception as error:
                error.add_note(f"in the transform of sample {index} of {self!r}")
                raise
            if not isinstance(result, Tensor):
                raise DataError(
                    f"transform must return a tensor, but returned {type(result).__name__} (sample {index})"
                )
            if results and result.shape != results[0].shape:
                raise DataError(
                    f"transform must return one shape, but sample {index} gave {list(result.shape)} and another "
                    f"{list(results[0].shape)}"
                )
            results.append(result)
        return torch.stack(results) if results else images

    def with_transform(self, transform: Transform | None) -> Self:
        """The same samples over the same memory with another transform.

        Args:
            transform: Called with each image as float32 [1, H, W]; None for the plain images.
        """
        return self._with(transform=transform)

    def split(
        self,
        fractions: Fractions = None,
        *,
        stratify: bool = True,
        group: Any = None,
        dedupe: bool | None = None,
        seed: int = 0,
        transform: Sequence[Transform | None] | None = None,
    ) -> tuple[Self, ...]:
        """Cut the dataset into parts over the same memory; where each lies is in its `indices`.

        Args:
            fractions: The share of the first part, the second one getting the rest; or all shares, which sum to 1;
                None for 0.8, 0.1 and 0.1.
            stratify: Every part has each class in the same share.
            seed: Another seed gives another split of the same sizes.
            dedupe: Identical images never fall into different parts, whatever their labels. None is True for images.
            group: `"font"`: letters of one font never fall into different parts, so that a part tests on unseen fonts;
                or one key per sample.
            transform: One transform (or None) for each part; the dataset's own one where this is left out.

        Raises:
            ArgumentError: see `dlkit.splits.split_indices`.
        """
        parts = split_indices(
            len(self),
            fractions,
            stratify=self.targets if stratify else None,
            class_names=self.classes,
            group=self._groups(group),
            dedupe=content_keys(self.images) if dedupe is None or dedupe else None,
            seed=seed,
        )
        transforms = [self.transform] * len(parts) if transform is None else self._one_each(transform, len(parts))
        return tuple(
            self._with(
                _indices=self.indices.index_select(0, torch.from_numpy(part)),
                targets=self.targets.index_select(0, torch.from_numpy(part)),
                transform=own,
            )
            for part, own in zip(parts, transforms, strict=True)
        )

    @staticmethod
    def _one_each(transform: Sequence[Transform | None], parts: int) -> list[Transform | None]:
        if not isinstance(transform, Sequence) or len(transform) != parts:
            raise ArgumentError(f"transform= of a split takes one transform or None for each of its {parts} parts")
        return list(transform)

    def _groups(self, group: Any) -> Any:
        if group is None or not isinstance(group, str):
            return group
        if group != "font":
            raise ArgumentError(f"group must be 'font', one key for each sample, or None, not {group!r}")
        return self._fonts()

    def _fonts(self) -> np.ndarray[Any, Any]:
        """The font of each sample, as keys."""
        raise ArgumentError(f"{type(self).__name__} does not know the fonts of its images")

    def _with(self, **changes: Any) -> Self:
        changed = object.__new__(type(self))
        changed.__dict__.update(self.__dict__ | changes)
        return changed

    def _described(self) -> str:
        height, width = self._store.images.shape[1:]
        sizes = torch.bincount(self.targets, minlength=len(self.classes)).tolist()
        each = f"{min(sizes):,}" if min(sizes) == max(sizes) else f"{min(sizes):,} to {max(sizes):,}"
        part = "" if self._indices is None else f" of {len(self._store.images):,}"
        return (
            f"{len(self):,}{part} grey images of {height}x{width}, "
            f"{len(self.classes)} classes {self.classes[0]} to {self.classes[-1]} with {each} each"
        )

    def sample_html(self, index: int) -> str:
        """One sample as a person would want to see it, for notebooks and reports.

        Args:
            index: The sample's position in this dataset.
        """
        return picture(Image.fromarray(self.images[index].numpy()), f"sample {index}")

    def _repr_html_(self) -> str:
        return shown(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._described()})"
