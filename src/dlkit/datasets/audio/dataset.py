"""Recordings in files; what `AudioFolder`, `AudioFiles` and `AudioTable` are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from dlkit.collate import PadCollate
from dlkit.datasets.audio.fetching import AudioFetch
from dlkit.datasets.audio.settings import AudioSettings
from dlkit.datasets.files.dataset import FileDataset, Transform
from dlkit.declared import spec_in
from dlkit.errors import DataError
from dlkit.plots.sound import play
from dlkit.samplers import LengthBuckets
from dlkit.samplers.order import Planner, Sequential
from dlkit.storage.arrays import Kind, keep_arrays, kept_arrays
from dlkit.storage.files import home_of
from dlkit.storage.identity import of_files, of_parts
from dlkit.transforms.audio.spec import AudioPreprocessing

__all__ = ["AudioDataset"]

_KIND = Kind("lengths of recordings", 1)
#: Lengths of fewer files are not kept on the disk: reading the headers again takes a fraction of a second.
KEEP_FROM = 2_000
_SECONDS = 5  # of a recording that can be heard in a notebook or a report


class AudioDataset(FileDataset):
    """Recordings in files, with or without targets; made by `AudioFolder`, `AudioTable` and `AudioFiles`."""

    fetch, SETTINGS = AudioFetch, AudioSettings
    settings: AudioSettings
    _lengths: npt.NDArray[np.int64] | None = None

    def sample_html(self, index: int) -> str:
        spec, name = spec_in(self), super().sample_html(index)
        try:
            inputs = self[index] if self.targets is None else self[index][0]
        except DataError:
            return name
        if spec is None or inputs.dim() != 2:  # a spectrogram has no sound
            return name
        return f"{play(inputs[..., : _SECONDS * spec.sample_rate], spec.sample_rate)._repr_html_()}<p>{name}</p>"

    @property
    def draws_random(self) -> bool:
        return self.settings.random_crop or super().draws_random

    @property
    def identity(self) -> str | None:
        known, settings = super().identity, self.settings
        return None if known is None else of_parts(known, f"{settings.seconds} {settings.random_crop}")

    @property
    def spec(self) -> AudioPreprocessing | None:
        """What the waveforms are, for the model file; None where that is not known: kept channels, an own transform."""
        settings = self.settings
        if isinstance(settings.transform, AudioPreprocessing):
            return settings.transform
        if settings.transform is not None or settings.sample_rate is None or not settings.mono:
            return None
        return AudioPreprocessing(sample_rate=settings.sample_rate, seconds=settings.seconds)

    def with_transform(self, transform: Transform | None) -> Self:
        """The same recordings with another transform; what an `AudioPreprocessing` says of rate and length holds.

        Args:
            transform: See the options of the dataset.
        """
        if not isinstance(transform, AudioPreprocessing):
            return super().with_transform(transform)
        told = {name: getattr(transform, name) for name in ("sample_rate", "mono", "seconds")}
        return self._with(settings=dataclasses.replace(self.settings, transform=transform, crop="center", **told))  # type: ignore[no-any-return]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """How many samples each waveform has, int64 [N], for `LengthBuckets`; read from the headers once, and kept.

        Those of a large dataset are kept for later runs, too. With `on_error="skip"`, 0 for a file that cannot be read.

        Raises:
            DataError: a file cannot be read.
        """
        if self.settings.length is not None:
            return np.full(len(self), self.settings.length, np.int64)
        if self._lengths is None:
            self._lengths = self._kept_lengths()
        return self._lengths

    @property
    def collate(self) -> PadCollate | None:
        """How `dlkit.DataLoader` makes batches: padded to the longest with a mask where lengths differ; else as usual.

        A custom transform may make them equal or not: pass `collate_fn=` then.
        """
        return PadCollate(dim=-1) if self.settings.length is None and not self.settings.own_transform else None

    @property
    def planner(self) -> Callable[..., Planner] | None:
        """How `dlkit.DataLoader` orders them: by length when it shuffles; None where all have the same length."""
        return self._by_length if self.settings.length is None else None

    def _by_length(self, batch_size: int, *, shuffle: bool, drop_last: bool) -> Planner:
        if shuffle:
            return LengthBuckets(self.lengths, batch_size, drop_last=drop_last)
        return Sequential(len(self), batch_size, drop_last=drop_last)

    def _kept_lengths(self) -> npt.NDArray[np.int64]:
        files = of_files(self._paths()) if len(self) >= KEEP_FROM and self.settings.rule is not None else None
        if files is None:
            return self._read_lengths()
        path = home_of("scans") / f"{of_parts(files, self.settings.rule)[:24]}.lengths"
        if (kept := kept_arrays(path, _KIND)) is not None:
            return kept["lengths"].numpy()
        lengths = self._read_lengths()
        keep_arrays(path, _KIND, {"lengths": torch.from_numpy(lengths)})
        return lengths

    def _read_lengths(self) -> npt.NDArray[np.int64]:
        shapes, bad = self._of_all(self.settings.measure)
        if bad and self._journal is None:
            raise DataError(bad[min(bad)])
        if self._journal is not None:
            self._journal.add(bad)
            self._check_share()
        return np.array([shape[1] if shape else 0 for shape in shapes], np.int64)

    def _with(self, **changes: Any) -> Any:
        changed = super()._with(**changes)
        changed._lengths = None
        return changed
