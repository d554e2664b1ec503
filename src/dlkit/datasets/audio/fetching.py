"""From rows to a batch of waveforms: threads seek, decode, mix and resample, each recording into its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from dlkit._cores import one_thread
from dlkit.datasets.audio.decoding import Part, Waveform, resampled
from dlkit.datasets.audio.settings import AudioSettings
from dlkit.datasets.files.fetching import DecodedRows, Fetch
from dlkit.datasets.files.handover import sendable

__all__ = ["AudioFetch"]

#: So many samples are resampled at once; more would gain no time, and with fewer pieces threads wait for each other.
_TOGETHER = 1 << 17


class AudioFetch(Fetch):
    """As `Fetch`; only the part of a recording that is used is read. What is random is drawn before the threads run."""

    def read(self, rows: list[int]) -> DecodedRows:
        settings, transform = self.settings, self.settings.transform
        spots = torch.rand(len(rows), dtype=torch.float64).tolist() if settings.random_crop else [0.5] * len(rows)
        table = transform.draw(len(rows)) if settings.draws else None
        if settings.length is None or not settings.mono:
            return self._one_by_one(rows, spots, table)
        batch = self.memory.take((len(rows), 1, settings.length))
        out = batch.numpy()
        bad = self._decoded(rows, spots, out.__setitem__)
        if not settings.own_transform:
            return DecodedRows(sendable(self._applied(batch, table), batch), bad, whole=True)
        good = [place for place in range(len(rows)) if place not in bad]
        return DecodedRows(self._stacked([settings.sample(out[at], self.path_of(rows[at])) for at in good]), bad)

    def _one_by_one(self, rows: list[int], spots: list[float], table: Any) -> DecodedRows:
        """As many tensors, for waveforms that differ in length or channels."""
        settings, found = self.settings, [np.empty(0, np.float32)] * len(rows)
        bad = self._decoded(rows, spots, found.__setitem__)
        good = [place for place in range(len(rows)) if place not in bad]
        samples = [
            self._applied(torch.from_numpy(found[at]), None if table is None else table[at])
            if settings.draws
            else settings.sample(found[at], self.path_of(rows[at]))
            for at in good
        ]
        return DecodedRows(self._stacked(samples), bad)

    def _decoded(self, rows: list[int], spots: list[float], put: Callable[[int, Waveform], None]) -> dict[int, str]:
        """Hand each waveform to `put`, with its place; short ones are resampled several at once."""
        parts = dict[int, Part]()

        def work(place: int) -> None:
            parts[place] = self._part(rows[place], spots[place])

        def then(places: list[int]) -> None:
            made = resampled([parts.pop(place) for place in places], self.settings.sample_rate)
            for place, waveform in zip(places, made, strict=True):
                put(place, waveform)

        together = max(1, _TOGETHER // (self.settings.length or _TOGETHER))
        with one_thread():
            return self.in_threads(work, rows, then=then, together=together)

    def _applied(self, waveforms: torch.Tensor, numbers: Any) -> torch.Tensor:
        made: torch.Tensor = self.settings.transform.apply(waveforms, numbers) if self.settings.draws else waveforms
        return made

    def _part(self, row: int, spot: float) -> Part:
        """What of a recording is used, decoded alone or cut out of the whole that is kept."""
        settings: AudioSettings = self.settings
        cache = self.cache
        if cache is None or (cache.get(row, self.path_of) is None and settings.too_long(self.path_of(row))):
            return settings.part(self.path_of(row), spot)
        whole = self.array(row)
        start, count = settings.span(whole.shape[1], spot)
        return Part(whole[:, start : start + count], None, 0, count)
