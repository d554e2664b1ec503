"""How large what a file says may be: the one place with bounds for numbers, names and lists that come from elsewhere.

A file of a kilobyte can state any number. Whoever makes an object of a document (the model file, a transform, a text
spec, a table spec) asks here before any work is done, and the error names the field.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from dlkit.errors import ArgumentError

__all__ = ["Range", "check_plain", "number", "parse", "text", "whole"]


class Range(NamedTuple):
    """The smallest and the largest value that may be in a field.

    Attributes:
        least: Inclusive.
        most: Inclusive.
    """

    least: float
    most: float


#: The outputs of a model, the channels of its images, and the side of the images it is made for.
OUTPUTS = Range(1, 1 << 24)
CHANNELS = Range(1, 1 << 12)
#: A side of an image in pixels. One image of the largest size is 50 MB as pixels and 200 MB as a model's input.
SIDE = Range(1, 4096)
#: Steps on a normalised image, one after the other.
STEPS = Range(0, 16)
#: The side of a window that is moved over an image, and the deviation of its weights, in pixels.
WINDOW = Range(3, 255)
SIGMA = Range(1e-3, 1e3)
#: Of recordings: samples per second, channels, seconds, and the samples of one in all channels (an hour at 16 kHz).
RATE = Range(100, 1_000_000)
TRACKS = Range(1, 64)
SECONDS = Range(1e-3, 86_400)
WAVEFORM = 1 << 26
#: Of spectrograms: samples of a window, bands, and levels.
FFT = Range(1, 1 << 15)
MELS = Range(1, 1024)
DECIBEL = Range(1e-3, 200)
#: Of pixels in [0, 1]. Outside, normalised pixels are not numbers of float32 any more.
MEAN = Range(-1e6, 1e6)
STD = Range(1e-6, 1e6)
#: Of a table's columns, in their own units: float64 until they are scaled, so all of its numbers but those with fewer
#: digits, whose inverse is infinite.
SCALE = Range(2.3e-308, sys.float_info.max)
CENTER = Range(-sys.float_info.max, sys.float_info.max)
#: Tokens of a text, and numbers of a vocabulary.
LENGTH = Range(1, 1 << 24)
TOKEN = Range(0, 1 << 24)
#: How many a document may list: columns of a table, and arguments of a model in one list.
COLUMNS = 1 << 17
ARGUMENTS = 1 << 12
#: Letters of a name: of a class, an input, a tensor.
NAME = 1 << 12
#: The inputs of a model's stored example, and the values in all of them: 32 MB.
INPUTS = 64
DIMENSIONS = 16
EXAMPLE = 1 << 23
#: A size of a tensor.
SIZE = Range(0, 1 << 40)
#: Any document: its levels, its values, and its whole numbers.
_DEPTH, _VALUES = 64, 4_000_000
_NESTED = (Mapping, list)
_WHOLE = Range(-(1 << 63), (1 << 64) - 1)


def whole(value: Any, field: str, bounds: Range) -> int:
    """A whole number within bounds.

    Args:
        value: What is in the field.
        field: Its name, for the error.
        bounds: What it may be.

    Raises:
        ArgumentError: it is something else.

    >>> whole(224, "size", SIDE)
    224
    """
    if type(value) is not int or not bounds.least <= value <= bounds.most:
        raise ArgumentError(f"{field} must be a whole number from {bounds.least} to {bounds.most}, not {value!r:.60}")
    return value


def number(value: Any, field: str, bounds: Range) -> float:
    """A finite number within bounds.

    Args:
        value: What is in the field.
        field: Its name, for the error.
        bounds: What it may be.

    Raises:
        ArgumentError: it is something else.
    """
    if type(value) not in (int, float) or not bounds.least <= value <= bounds.most:
        raise ArgumentError(f"{field} must be a number from {bounds.least:g} to {bounds.most:g}, not {value!r:.60}")
    return float(value)


def text(value: Any, field: str, most: int = NAME) -> str:
    """A string that is not too long.

    Args:
        value: What is in the field.
        field: Its name, for the error.
        most: How many characters it may have.

    Raises:
        ArgumentError: it is something else.
    """
    if type(value) is not str or len(value) > most:
        shown = f"one of {len(value)}" if isinstance(value, str) else f"{value!r:.60}"
        raise ArgumentError(f"{field} must be a text of at most {most} characters, not {shown}")
    return value


def parse(content: str | bytes, what: str) -> Any:
    """JSON from elsewhere as plain data: strict JSON, and neither too deep nor too large.

    Args:
        content: The JSON.
        what: Its name, for the error.

    Raises:
        ArgumentError: it is not JSON, has NaN or Infinity, a key twice, or is outside the bounds.

    >>> parse('{"a": 1, "a": 2}', "the document")
    Traceback (most recent call last):
    dlkit.errors.ArgumentError: the document must be JSON: the key 'a' is there twice
    """
    if not isinstance(content, str | bytes):
        raise ArgumentError(f"{what} must be JSON, not {content!r:.60}")
    commas = content.count("," if isinstance(content, str) else b",")  # type: ignore[arg-type]
    if commas > _VALUES:  # parsed, a value takes up to a hundred bytes
        raise ArgumentError(f"{what} holds {commas:,} values, and {_VALUES:,} are allowed")
    try:
        text = content if isinstance(content, str) else content.decode(json.detect_encoding(content), "surrogatepass")
        parsed = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise ArgumentError(f"{what} must be JSON: {error}") from error
    check_plain(parsed, what)
    return parsed


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice!r:.80} is there twice")
    return made


_DECODER = json.JSONDecoder(parse_constant=_no_number, object_pairs_hook=_each_once)


def check_plain(value: Any, field: str) -> None:
    """Plain data is not too deep, and its numbers are finite and not beyond 64 bits.

    Args:
        value: What JSON gave.
        field: Its name; the error has the path from there to the value.

    Raises:
        ArgumentError: it is outside these bounds.
    """
    _check_inside([value], [field])


def _check_inside(items: Any, keys: Any, *path: Any) -> None:
    """One level; `path` leads to it. Strings, the bulk of a vocabulary, are skipped."""
    for key, item in zip(keys, items, strict=True):
        kind = type(item)
        if kind is str:
            continue
        if kind is int:
            if not _WHOLE.least <= item <= _WHOLE.most:
                whole(item, _joined(path, key), _WHOLE)  # says what is wrong
        elif kind is float:
            if not math.isfinite(item):
                raise ArgumentError(f"{_joined(path, key)} must be a finite number, not {item}")
        elif isinstance(item, _NESTED):
            if len(path) == _DEPTH:
                raise ArgumentError(f"{_joined(path, key)} lies more than {_DEPTH} levels deep")
            inner = (item.values(), item) if isinstance(item, Mapping) else (item, range(len(item)))
            _check_inside(*inner, *path, key)


def _joined(path: tuple[Any, ...], key: Any) -> str:
    return ".".join(map(str, (*path, key)))[-200:]
