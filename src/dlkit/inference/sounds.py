"""Sounds for a model that listens: files, folders, bytes, open files, arrays with their rate; files in a table."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
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
from dlkit.inference.batches import Batch, Inputs, in_batches
from dlkit.inference.filed import Medium, NamedInputs, batch_of, content, source_of
from dlkit.transforms.audio.spec import AudioPreprocessing, as_waveform

__all__ = ["sounds"]

_MIDDLE = 0.5


def _in_memory(given: Any) -> bool:
    if isinstance(given, tuple):  # a recording and its rate
        return len(given) == 2 and isinstance(given[1], int) and not isinstance(given[1], bool)
    return isinstance(given, np.ndarray | Tensor) and given.ndim < 3


_MEDIUM = Medium(
    noun="sound",
    option="audio",
    files=SOUNDS,
    in_memory=_in_memory,
    takes="a Path, bytes, an open file, an array [T] or [C, T] with its rate, (array, 44_100), or a list of these",
)


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
        ArgumentError: something that is no sound, or has no rate; a string, which opens nothing.
        DataNotFoundError: no such folder or table.
    """
    others = {name: value for name, value in options.items() if name != "sample_rate"}
    source = source_of(_MEDIUM, meaning, given, others)
    return Inputs(
        batches=_batches(meaning.preprocessing, source, batch_size, options.get("sample_rate")),
        headings=source.headings,
        total=source.total,
        index=source.index,
    )


def _batches(spec: AudioPreprocessing, source: NamedInputs, size: int, rate: Any) -> Iterator[Batch]:
    settings = AudioSettings(transform=spec)
    for start, some in in_batches(source.items, size):
        things = [_ready(item, f"sound {start + place}", rate) for place, (_, item) in enumerate(some)]
        waveforms, errors = _decoded(settings, spec, things)
        yield batch_of(source, start, some, _together(spec, waveforms), errors)


def _ready(item: Any, name: str, rate: Any) -> Any:
    """What threads may work on: a path, a sound whose content is in memory, or an error."""
    try:
        if isinstance(item, bytes | bytearray | memoryview) or hasattr(item, "read"):
            return open_audio(content(item, name, "sound"), name=name)
        if _in_memory(item):
            value, own = item if isinstance(item, tuple) else (item, rate)
            if own is None:
                raise ArgumentError(
                    f"{name} is an array, whose rate is not known; give (array, 44_100) or sample_rate="
                )
            return OpenAudio.of_array(as_waveform(value), own, name)
    except DataError as error:
        return error
    if isinstance(item, os.PathLike | DataError):
        return item
    raise _MEDIUM.refused(item)


def _decoded(
    settings: AudioSettings, spec: AudioPreprocessing, things: Sequence[Any]
) -> tuple[list[Tensor], dict[int, str]]:
    """The waveforms of the good ones, as a dataset gives them in evaluation, and what is wrong with the others."""
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
    return [found[place] for place in sorted(found)], dict(sorted(bad.items()))


def _together(spec: AudioPreprocessing, waveforms: list[Tensor]) -> Any:
    if not waveforms:
        return None
    return torch.stack(waveforms) if spec.length is not None else PadCollate(dim=-1)(waveforms)
