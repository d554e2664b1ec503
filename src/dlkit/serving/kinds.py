"""What each kind of model takes: one table, and the functions it names.

Which media type is one input, which is a table of them, how an input looks in JSON, and what is looked at before any
work is done for it, is in `TAKES`, once. Nothing that a client sends names a file, an address or a program here.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from dlkit.datasets.images.decoding import open_image
from dlkit.errors import ArgumentError, DataError
from dlkit.inference.predictor import Predictor
from dlkit.serving.limits import Limits
from dlkit.serving.refusals import RefusedError

__all__ = ["TAKES", "Takes", "decoded", "in_json"]

_CSV = "text/csv"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_CHARSETS = ("utf-8", "us-ascii", "utf-16", "iso-8859-1", "windows-1252", "euc-kr", "cp949", "shift_jis", "gb18030")
_SMALL = 1 << 14
_STRING: dict[str, Any] = {"type": "string"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Takes:
    """How inputs of a kind come over the wire.

    Attributes:
        nouns: What they are called.
        json: What one is in JSON, in words.
        schema: The same as JSON Schema, as far as that can say it.
        raw: The media types of a body that is one input; "image/*" for all of a family.
        files: The media types of a body that holds many.
        of_file: What is in such a body, of each input or, as a string, why it cannot be used; None where `Predictor`
            reads the body itself.
        of_raw: Such a body, and the parameters of its media type, as an input of `Predictor.predict`.
        of_json: A value of JSON as an input, given what the model says of itself.
        check: What is wrong with an input, found before any work is done for it; empty if nothing is.
        gather: Inputs as `Predictor.predict` takes them.
        small: Bytes of JSON up to which an input is little work; 0 for a kind of which a few bytes can be much.
        alone: Whether a CPU computes inputs one by one, because many at once take as long.
        sample: An input, good or bad: asking for it once imports all that reads inputs, so that no client waits for it.
    """

    nouns: str
    json: str
    of_json: Callable[[Any, Predictor], Any]
    schema: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    raw: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    of_file: Callable[[bytes, Predictor], Iterator[tuple[str, ...] | str]] | None = None
    of_raw: Callable[[bytes, Mapping[str, str]], Any] = lambda body, parameters: body
    check: Callable[[Any, Limits], str] = lambda given, limits: ""
    gather: Callable[[list[Any]], Any] = lambda inputs: inputs
    small: int = 0
    alone: bool = False
    sample: Any = None


def _of_base64(value: Any, predictor: Predictor) -> bytes:
    if isinstance(value, bytes):  # of a binary tensor
        return value
    if not isinstance(value, str):
        raise ArgumentError(f"is not the bytes of a file in base64, a text, but {in_json(value)}")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ArgumentError(f"is not base64: {error}") from error


def _pixels(data: bytes, limits: Limits) -> str:
    try:
        image = open_image(data, name="it")
    except DataError:
        return ""  # the model's own reader says what is wrong
    if image.height * image.width <= limits.pixels:
        return ""
    return f"has {image.width:,} x {image.height:,} pixels, more than the {limits.pixels:,} this server takes"


def _length(data: bytes, limits: Limits) -> str:
    from dlkit.datasets.audio.decoding import open_audio

    try:
        with open_audio(data, name="it") as audio:
            seconds: float = audio.frames / audio.sample_rate
    except DataError:
        return ""  # the model's own reader says what is wrong
    if seconds <= limits.audio_seconds:
        return ""
    return f"lasts {seconds:,.0f} s, more than the {limits.audio_seconds:,.0f} s this server takes"


def _texts(body: bytes, predictor: Predictor) -> Iterator[tuple[str, ...] | str]:
    from dlkit.inference.texts import texts_in_table

    return texts_in_table(predictor.meaning, body)


def _of_text(value: Any, predictor: Predictor) -> Any:
    value = decoded(value, {}) if isinstance(value, bytes) else value  # of a binary tensor
    if isinstance(value, str):
        return value
    if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value):
        return tuple(value)
    raise ArgumentError(f"is not a text or a pair of texts, but {in_json(value)}")


def decoded(body: bytes, parameters: Mapping[str, str]) -> str:
    """A body as text: in the encoding that it says it has, else in UTF-8; nothing is guessed.

    Args:
        body: The bytes.
        parameters: Of its media type.

    Raises:
        RefusedError: it has another encoding, or one that is not taken.
    """
    charset = parameters.get("charset", "utf-16" if body.startswith(_UTF_16) else "utf-8").lower()
    if charset not in _CHARSETS:
        raise RefusedError(415, f"texts are taken in {', '.join(_CHARSETS)}, and this one says {charset!r:.40}")
    try:
        return body.decode("utf-8-sig" if charset == "utf-8" else charset)
    except UnicodeDecodeError as error:
        hint = "; say what it is: Content-Type: text/csv; charset=windows-1252" if "charset" not in parameters else ""
        raise RefusedError(400, f"the body is not {charset}: byte {error.start:,} cannot be read{hint}") from error


def _characters(given: Any, limits: Limits) -> str:
    longest = max(map(len, [given] if isinstance(given, str) else given))
    return f"has {longest:,} characters, more than the {limits.characters:,} this server takes" * (
        longest > limits.characters
    )


def _of_object(value: Any, predictor: Predictor) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ArgumentError(f"is not an object with a value for each column, but {in_json(value)}")
    return value


def _of_numbers(value: Any, predictor: Predictor) -> Any:
    described = predictor.info["input"]
    if not isinstance(described, Mapping) or not isinstance(described.get("dtype"), str):
        raise ArgumentError("cannot be sent as JSON: the model takes several tensors; use the Open Inference Protocol")
    try:
        made = torch.tensor(value, dtype=getattr(torch, described["dtype"]))
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise ArgumentError("is not an array of numbers whose rows have the same length") from None
    if list(made.shape) != list(described["shape"][1:]):
        raise ArgumentError(f"has the shape {list(made.shape)}, and the model takes {list(described['shape'][1:])}")
    return made


def in_json(value: Any) -> str:
    """What a value is called in JSON.

    Args:
        value: What JSON gave.
    """
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


class _Kinds(dict[str, Takes]):
    """A kind that is not listed, such as a time series or one of a user's own, takes what tensors are made of."""

    def __missing__(self, kind: str) -> Takes:
        return self["tensor"]


#: One entry for each kind of model. A new kind needs no other line in this room.
TAKES: dict[str, Takes] = _Kinds(
    {
        "image": Takes(
            nouns="images",
            json="the bytes of the file as a text in base64",
            schema=_STRING | {"contentEncoding": "base64"},
            raw=("image/*", "application/octet-stream"),
            of_json=_of_base64,
            check=_pixels,
            alone=True,
            sample=b"",
        ),
        "audio": Takes(
            nouns="recordings",
            json="the bytes of the file as a text in base64",
            schema=_STRING | {"contentEncoding": "base64"},
            raw=("audio/*", "application/octet-stream"),
            of_json=_of_base64,
            check=_length,
            alone=True,
            sample=b"",
        ),
        "text": Takes(
            nouns="texts",
            json="a string, or a list of two for a pair",
            schema={"anyOf": [_STRING, {"type": "array", "items": _STRING, "minItems": 2, "maxItems": 2}]},
            raw=("text/plain",),
            files=(_CSV,),
            of_file=_texts,
            of_raw=decoded,
            of_json=_of_text,
            check=_characters,
            small=_SMALL,
            sample="",
        ),
        "table": Takes(
            nouns="rows of a table",
            json="an object with a value for each column, null where it is missing",
            files=(_CSV,),
            of_json=_of_object,
            small=_SMALL,
            sample={},
        ),
        "tensor": Takes(
            nouns="arrays of numbers",
            json="a list of numbers, or of such lists, in the shape of the model's input",
            of_json=_of_numbers,
            small=_SMALL,
            gather=torch.stack,
        ),
    }
)
