"""Recordings as pictures, and as something to listen to in a notebook."""

from __future__ import annotations

import base64
import html
import io
import os
import wave
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dlkit._arguments import whole_number
from dlkit.errors import ArgumentError
from dlkit.plots._canvas import BLUE, FAINT, INK, new_figure, saved, to_array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Player", "play", "spectrogram", "waveform"]

_COLUMNS = 1_200  # of a drawn waveform: more than a picture has pixels side by side


def waveform(samples: Any, sample_rate: int, *, title: str = "", path: str | os.PathLike[str] | None = None) -> Figure:
    """Draw a recording over its time, a band for each channel: from its lowest to its highest value at each moment.

    Args:
        samples: [T] or [C, T], a tensor or an array; floats in -1 to 1, or integers.
        sample_rate: In Hz.
        title: Above the picture.
        path: Where to save the picture, for example `sound.png`.

    Raises:
        ArgumentError: something that is not a recording, or an unknown file ending.

    >>> waveform(np.sin(np.arange(8_000) / 9), 8_000).axes[0].get_xlabel()
    'seconds'
    """
    channels = _channels(samples)
    seconds = channels.shape[1] / whole_number("sample_rate", sample_rate, least=1)
    figure = new_figure(7, 0.6 + 1.2 * len(channels))
    for number, channel in enumerate(channels):
        axes = figure.add_subplot(len(channels), 1, number + 1)
        low, high = _envelope(channel)
        places = np.linspace(0, seconds, len(low))
        axes.fill_between(places, low, high, color=BLUE, linewidth=0.6)
        axes.axhline(0, color=FAINT, linewidth=0.4)
        axes.set(xlim=(0, seconds), ylabel="" if len(channels) == 1 else f"channel {number}")
    axes.set_xlabel("seconds")
    if title:
        figure.suptitle(title, color=INK, fontsize=10)
    return saved(figure, path)


def spectrogram(
    levels: Any,
    *,
    seconds: float | None = None,
    highest: float | None = None,
    title: str = "",
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draw a spectrogram, low frequencies below, louder places lighter, in one scale of brightness.

    Args:
        levels: [bands, frames], or [1, bands, frames], such as `LogMel(sample_rate=16_000)(waveform)` gives, in dB.
        seconds: How long it lasts; None counts frames.
        highest: The highest frequency in Hz; None counts bands.
        title: Above the picture.
        path: Where to save the picture, for example `sound.png`.

    Raises:
        ArgumentError: another shape, or an unknown file ending.

    >>> from dlkit.transforms.audio import LogMel; import torch
    >>> figure = spectrogram(LogMel(sample_rate=8_000)(torch.randn(8_000)), seconds=1.0, title="noise")
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['band', 'dB']
    """
    values = to_array(levels)
    values = values[0] if values.ndim == 3 and len(values) == 1 else values
    if values.ndim != 2 or not values.size:
        raise ArgumentError(f"levels is a spectrogram [bands, frames], not of shape {list(values.shape)}")
    bands, frames = values.shape
    figure = new_figure(7, 3)
    axes = figure.add_subplot()
    shown = axes.imshow(
        values,
        origin="lower",
        aspect="auto",
        cmap="cividis",  # the same for every kind of sight, and in grey
        extent=(0, frames if seconds is None else seconds, 0, bands),
    )
    axes.set(xlabel="frame" if seconds is None else "seconds", ylabel="band")
    if highest is not None:
        axes.set_ylabel(f"band, up to {highest:,.0f} Hz")
    figure.colorbar(shown, ax=axes, label="dB")
    if title:
        figure.suptitle(title, color=INK, fontsize=10)
    return saved(figure, path)


class Player:
    """A recording that a notebook shows as a player; made by `play`.

    Args:
        content: A WAV file.
        title: Beside the player.

    Attributes:
        content: The WAV file's bytes, as `Path("a.wav").write_bytes(player.content)` saves them.
    """

    def __init__(self, content: bytes, title: str = "") -> None:
        self.content, self._title = content, title

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.content).decode()
        told = f"<div>{html.escape(self._title)}</div>" if self._title else ""
        return f'{told}<audio controls src="data:audio/wav;base64,{data}"></audio>'

    def __repr__(self) -> str:
        return f"Player({len(self.content):,} bytes; a notebook shows it)"


def play(samples: Any, sample_rate: int, *, title: str = "") -> Player:
    """A recording to listen to in a notebook: the last line of a cell, or `display(play(...))`.

    It is as loud as it is, and what is beyond -1 to 1 is clipped, as everywhere. Needs no package.

    Args:
        samples: [T] or [C, T], a tensor or an array; floats in -1 to 1, or integers.
        sample_rate: In Hz.
        title: Above the player.

    Raises:
        ArgumentError: something that is not a recording.

    >>> play(np.zeros(8_000), 8_000)
    Player(16,044 bytes; a notebook shows it)
    """
    channels = _channels(samples)
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(len(channels))
        writer.setsampwidth(2)
        writer.setframerate(whole_number("sample_rate", sample_rate, least=1))
        writer.writeframes((channels.T.clip(-1, 1) * 32_767).round().astype("<i2").tobytes())
    return Player(file.getvalue(), title)


def _channels(samples: Any) -> npt.NDArray[np.float32]:
    from dlkit.transforms.audio.spec import as_waveform

    return as_waveform(to_array(samples))


def _envelope(channel: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The lowest and the highest value of each column that is drawn."""
    step = -(-len(channel) // _COLUMNS)
    starts = np.arange(0, len(channel), step)
    return np.minimum.reduceat(channel, starts), np.maximum.reduceat(channel, starts)
