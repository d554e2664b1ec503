"""What can be said of any dataset of files."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypedDict

import torch
from torch import Tensor

from dlkit.datasets.files.decoder import Array, Decoder, read_with_status
from dlkit.errors import ArgumentError, DataError
from dlkit.reading.policy import RowPolicy, check_known
from dlkit.storage.strings import PackedStrings

__all__ = ["FileOptions", "FileSettings"]

BatchTransform = Callable[[Any, Any], tuple[Any, Any]]


class FileOptions(TypedDict, total=False):
    """The options of every dataset of files, as its constructor takes them by name; see `FileSettings`."""

    transform: Callable[[Any], Any] | None
    on_error: Literal["raise", "skip"]
    max_errors: float
    batch_transform: BatchTransform | None
    threads: int | None
    cache: str | os.PathLike[str] | None
    cache_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class FileSettings(RowPolicy):
    """What can be said of any dataset of files, checked where it is made; `on_error` is that of `RowPolicy`.

    Attributes:
        decoder: What kind of files they are.
        transform: Called with the decoded array of each, in order, in the thread that fetches, because it may draw
            random numbers; must return a tensor. None gives the array as a tensor.
        max_errors: The largest share of unreadable files that `on_error="skip"` accepts, as of rows; ten always are.
        batch_transform: Called with a finished batch `(inputs, targets)`.
        threads: How many threads decode; None for all cores, divided among a DataLoader's workers.
        cache: Keeps decoded arrays, so that later epochs and runs decode nothing: "auto" in `DLKIT_HOME`, "memory"
            until the process ends, or a folder. A file that changes is decoded again.
        cache_bytes: How large the kept arrays may become; None for half of what is free.

    Raises:
        ArgumentError: an invalid argument.
    """

    OPTIONS: ClassVar[type] = FileOptions
    #: The kind of file that is read without a `decoder`.
    READS: ClassVar[Decoder | None] = None

    decoder: Decoder | None = None
    transform: Callable[[Any], Any] | None = None
    batch_transform: BatchTransform | None = None
    threads: int | None = None
    cache: str | os.PathLike[str] | None = None
    cache_bytes: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decoder is not None and not isinstance(self.decoder, Decoder):
            raise ArgumentError(f"decoder must be a Decoder(suffixes=..., decode=...), not {self.decoder!r}")
        if self.threads is not None and (not isinstance(self.threads, int) or self.threads < 1):
            raise ArgumentError(f"threads must be a whole number of at least 1, not {self.threads!r}")
        for given in (self.transform, self.batch_transform):
            if given is not None and not callable(given):
                raise ArgumentError(f"transform and batch_transform must be callable, not {type(given).__name__}")
        if self.cache is not None and self.rule is None:
            raise ArgumentError(
                "cache= needs to know decode= again: make it a function at the top of a module, or say "
                "Decoder(rule='1') and change the rule whenever its arrays change"
            )

    @classmethod
    def of(cls, owner: str, options: Mapping[str, Any], **own: Any) -> Self:
        """The settings that a dataset was given by name.

        Args:
            owner: What errors call the dataset.
            options: Those of the class's `OPTIONS`.
            own: What the dataset adds.

        Raises:
            ArgumentError: an option that does not exist, or is invalid.
        """
        check_known(owner, options, cls.OPTIONS)
        return cls(**options, **own)

    @property
    def kind(self) -> Decoder:
        """What files are taken, and what messages call them; a `decoder` adds its own to those of a known kind."""
        own, known = self.decoder, self.READS
        if own is not None and known is not None:
            return dataclasses.replace(known, suffixes={*known.suffixes, *own.suffixes})
        if (one := own or known) is None:
            raise ArgumentError("a dataset of files needs decoder=Decoder(suffixes=..., decode=...)")
        return one

    @property
    def rule(self) -> str | None:
        """What arrays are kept under; None where they cannot be known again."""
        own = "" if self.decoder is None else self.decoder.identity
        return None if own is None else f"{self._made_as} {own}".strip()

    @property
    def _made_as(self) -> str:
        """What the settings themselves make of a file."""
        return ""

    def check_names(self, names: PackedStrings) -> None:
        """Say at once, and not in the middle of a training, that files need a package that is not installed.

        Args:
            names: Of all files.

        Raises:
            MissingExtraError: it names the package.
        """

    def array(self, data: bytes, name: str) -> Array:
        """A file's array, as it is kept in the cache.

        Args:
            data: The file's content.
            name: What errors call the file.

        Raises:
            DataError: the file cannot be decoded.
        """
        return self.kind.array(data, name)

    def load(self, path: Path) -> tuple[Array, os.stat_result]:
        """A file's array, and the file's status at the moment when it was read.

        Args:
            path: The file.

        Raises:
            DataError: the file cannot be read or decoded.
        """
        data, status = read_with_status(path)
        return self.array(data, str(path)), status

    def check(self, path: Path) -> None:
        """Decode a file and keep nothing of it.

        Args:
            path: The file.

        Raises:
            DataError: the file cannot be read or decoded.
        """
        self.load(path)

    def measure(self, path: Path) -> tuple[int, ...]:
        """The shape of a file's array, see `shape`.

        Args:
            path: The file.

        Raises:
            DataError: the file cannot be read.
        """
        return self.shape(read_with_status(path)[0], str(path))

    def shape(self, data: bytes, name: str) -> tuple[int, ...]:
        """The shape of a file's array, from its header where that tells.

        Args:
            data: The file's content.
            name: What errors call the file.

        Raises:
            DataError: the file cannot be read.
        """
        return self.kind.shape_of(data, name)

    @property
    def own_transform(self) -> bool:
        """Whether the transform is the user's own, of which nothing is known, and not a spec of dlkit's."""
        return self.transform is not None and not hasattr(self.transform, "draws_random")

    @property
    def evened(self) -> str:
        """What to do where the shapes of samples differ, for the message."""
        return "give a transform that makes them equal (collate_fn=PadCollate() pads them, batch_size=1 works without)"

    def sample(self, array: Array, path: Path) -> Tensor:
        """One file through the transform.

        Args:
            array: From `array`; it may be the cache's, which must not be written to.
            path: What errors call it.

        Raises:
            DataError: the transform gives something else than a tensor.
        """
        if self.transform is None:
            return torch.from_numpy(array.copy())
        return self._transformed(array, path, "a numpy array", "end it with torch.from_numpy")

    def _transformed(self, given: Any, path: Path, told: str, advice: str) -> Tensor:
        assert self.transform is not None
        try:
            result = self.transform(given)
        except Exception as error:
            error.add_note(f"in the transform of {path}; it is given {told}")
            raise
        if not isinstance(result, Tensor):
            raise DataError(
                f"the transform must return a tensor, but returned {type(result).__name__} for {path}; {advice}"
            )
        return result.as_subclass(Tensor)

    def for_training(self) -> Self:
        """The same for a part that is trained on."""
        return self

    def for_evaluation(self) -> Self:
        """The same for a part that is not trained on: without augmentation and batch transform."""
        ours = getattr(self.transform, "for_evaluation", None)
        transform = ours() if callable(ours) else self.transform
        return dataclasses.replace(self._judging(), transform=transform)

    def _judging(self) -> Self:
        """The same without what is for training alone; the transform stays."""
        return dataclasses.replace(self, batch_transform=None)

    def of_parts(self, count: int, transform: Sequence[Callable[[Any], Any] | None] | None) -> list[Self]:
        """The settings of each part of a split: only the first one, meant for training, keeps what is random.

        Args:
            count: How many parts.
            transform: One transform or None for each part; None as a whole keeps the dataset's.

        Raises:
            ArgumentError: not one for each part.
        """
        if transform is None:
            if count > 1 and self.own_transform and "Random" in repr(self.transform):
                warnings.warn(
                    "the transform seems to be random, and every part of the split gets it; "
                    "split(..., transform=[for_training, for_evaluation]) gives each part its own",
                    UserWarning,
                    stacklevel=4,
                )
            return [self if count == 1 else self.for_training(), *[self.for_evaluation()] * (count - 1)]
        if not isinstance(transform, Sequence) or len(transform) != count:
            raise ArgumentError(f"transform= of a split takes one transform or None for each of its {count} parts")
        parts = [dataclasses.replace(self, transform=own) for own in transform]
        return [parts[0] if count == 1 else parts[0].for_training(), *(own._judging() for own in parts[1:])]
