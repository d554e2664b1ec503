"""What one client may ask of the server, so that no request can take its memory or its time."""

from __future__ import annotations

import dataclasses
import math

from dlkit._arguments import whole_number
from dlkit.errors import ArgumentError

__all__ = ["Limits"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """How much a server takes on. Whatever is beyond is refused with a sentence, before any work is done for it.

    Attributes:
        body: Bytes of a request's body, counted as they come and by Content-Length.
        inputs: Inputs of one request: images, texts, rows.
        queue: Inputs that may wait in all, of all requests together. One request counts for a sixteenth at most, so
            that a table of many rows is taken while others wait, and blocks no other request.
        pixels: Height times width of an image, as its header says.
        audio_seconds: Of one recording, as its header says.
        characters: Of one text.
        body_seconds: How long a body may take to come.
        seconds: How long a request may take in all. One whose time is over is dropped before it is computed.

    >>> Limits(queue=0)
    Traceback (most recent call last):
    dlkit.errors.ArgumentError: queue must be a whole number of at least 1, not 0
    """

    body: int = 16 << 20
    inputs: int = 10_000
    queue: int = 64
    pixels: int = 50_000_000
    audio_seconds: float = 600.0
    characters: int = 100_000
    body_seconds: float = 20.0
    seconds: float = 30.0

    def __post_init__(self) -> None:
        for name in ("body", "inputs", "queue", "pixels", "characters"):
            whole_number(name, getattr(self, name), least=1)
        for name in ("audio_seconds", "body_seconds", "seconds"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ArgumentError(f"{name} must be a number of seconds above 0, not {value!r}")
