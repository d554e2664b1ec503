"""Sounds for a model that listens: files, folders, bytes, open files, arrays with their rate; files in a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlkit._cores import default_threads, for_each
from dlkit.artifact.inputs import Meaning
from dlkit.collate import PadCollate
from dlkit.datasets.audio.decoding import SOUNDS, OpenAudio, open_audio
from dlkit.datasets.audio.settings import AudioSettings
from dlkit.errors import ArgumentError, DataError
from dlkit.inference.batches import Inputs
from dlkit.inference.filed import Medium, filed
from dlkit.transforms.audio.spec import AudioPreprocessing, as_waveform

__all__ = ["sounds"]

_MIDDLE = 0.5


def _in_memory(given: Any) -> bool:
    if isinstance(given, tuple):  # a recording and its rate
        return len(given) == 2 and isinstance(given[1], int) and not isinstance(given[1], bool)
    return isinstance(given, np.ndarray | Tensor) and given.ndim < 3


def sounds(meaning: Meaning, given: Any, batch_size: int, options: Mapping[str, Any]) -> Inputs:
    """Sounds for a model that listens; those of another rate are resampled.

    Args:
        meaning: The model's.
        given: A sound or an iterable of sounds: paths, bytes, open binary files, `(array, sample_rate)`, arrays [T] or
            [C, T] with `sample_rate=`; a folder, with all that is below it; a CSV file or a DataFrame with a column of
            file names.
        batch_size: Sounds at a time.
        options: `sample_rate` of arrays that come without, in Hz. For a table: `audio` names the column, `root` the
            folder that the names are seen from, `suffix` what is added to them.

    Raises:
        ArgumentError: something that is not a sound, or has no rate; a string, which opens nothing.
        DataNotFoundError: no such folder or table.
    """
    others = {name: value for name, value in options.items() if name != "sample_rate"}
    medium = dataclasses.replace(_MEDIUM, held=partial(_held, rate=options.get("sample_rate")))
    return filed(medium, meaning, given, batch_size, others)


def _held(item: Any, name: str, rate: Any = None) -> Any:
    if not _in_memory(item):
        return None
    value, own = item if isinstance(item, tuple) else (item, rate)
    if own is None:
        raise ArgumentError(f"{name} is an array, whose rate is not known; give (array, 44_100) or sample_rate=")
    return OpenAudio.of_array(as_waveform(value), own, name)


def _prepared(spec: AudioPreprocessing, things: Sequence[Any]) -> tuple[Any, Mapping[int, str]]:
    """As a dataset gives them in evaluation."""
    settings = AudioSettings(transform=spec)
    found, bad = dict[int, Tensor](), dict[int, str]()

    def work(place: int) -> None:
        thing = things[place]
        try:
            if isinstance(thing, Exception):
                raise thing
            with thing if isinstance(thing, OpenAudio) else open_audio(thing) as audio:
                start, count = settings.span(audio.length(spec.sample_rate), _MIDDLE)
                waveform = audio.waveform(sample_rate=spec.sample_rate, mono=spec.mono, start=start, count=count)
                found[place] = spec.apply(torch.from_numpy(waveform))
        except (DataError, ArgumentError) as error:  # the latter of a wrong number of channels
            bad[place] = str(error)

    for_each(work, len(things), default_threads())
    waveforms = [found[place] for place in sorted(found)]
    together = torch.stack if spec.length is not None else PadCollate(dim=-1)
    return together(waveforms) if waveforms else None, dict(sorted(bad.items()))


_MEDIUM = Medium(
    noun="sound",
    option="audio",
    files=SOUNDS,
    in_memory=_in_memory,
    takes="a Path, bytes, an open file, an array [T] or [C, T] with its rate, (array, 44_100), or a list of these",
    opened=open_audio,
    held=_held,
    prepared=_prepared,
)
