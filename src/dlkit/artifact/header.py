"""The head of a model file: one JSON document, read and checked before anything is allocated or built."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dlkit import _bounds
from dlkit._filekinds import HEAD, told
from dlkit._opening import open_regular
from dlkit.errors import ArgumentError, DataNotFoundError, ModelFileError

__all__ = ["FORMAT_VERSION", "Header", "MODEL_FILE", "model_file", "read_header", "sealed"]

FORMAT_VERSION = 1
#: What the model file is called in the folder of a run.
MODEL_FILE = "model.safetensors"
# Behind the eight bytes of the length, a file's first letters and the 64 digits of its SHA-256 have a fixed place, so
# that the digest covers the bytes of the file and not what a parser makes of them.
_OPENING = b'{"__metadata__":{"sha256":"'
_DIGITS = slice(8 + len(_OPENING), 8 + len(_OPENING) + 64)
_MOST_HEADER = 64 << 20  # parsed, it stays below a gigabyte; the largest vocabularies take a third of it
_SIZES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2}
_SIZES |= {"I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8, "C64": 8}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Header:
    """What a model file says of itself.

    Attributes:
        path: The file.
        document: dlkit's document.
        shapes: Of each tensor.
    """

    path: Path
    document: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]

    def check_intact(self) -> None:
        """Read the whole file, and compare it with the digest that was written into it.

        Raises:
            ModelFileError: a bit of it is another one now.
        """
        with open_regular(self.path, ModelFileError) as stream:
            head = stream.read(_DIGITS.stop)
            found = _digest(head, iter(functools.partial(stream.read, 1 << 20), b""))
        if head[8 : _DIGITS.start] != _OPENING or found != head[_DIGITS]:
            raise ModelFileError(f"{self.path} is damaged: its SHA-256 does not match what was written; copy it again")


def sealed(document: str, layout: Mapping[str, Any], tensors: bytes | memoryview) -> bytes:
    """The head of a model file: the length, and the JSON with the digest of the whole file in its place.

    Args:
        document: dlkit's part, as JSON.
        layout: The names, types, shapes and places of the tensors.
        tensors: The bytes that are to follow.
    """
    metadata = {"sha256": "0" * 64, "dlkit": document}
    raw = json.dumps({"__metadata__": metadata, **layout}, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)  # tensors begin at a multiple of eight, so that they can be mapped
    head = len(raw).to_bytes(8, "little") + raw
    digits = _digest(head, [tensors])
    return head[: _DIGITS.start] + digits + head[_DIGITS.stop :]


def _digest(head: bytes, rest: Iterable[bytes | memoryview]) -> bytes:
    """The hexadecimal digits of the SHA-256 of all bytes of a file, its own digits taken as zeros."""
    digest = hashlib.sha256(head[: _DIGITS.start] + b"0" * 64 + head[_DIGITS.stop :])
    for piece in rest:
        digest.update(piece)
    return digest.hexdigest().encode()


def model_file(path: str | os.PathLike[str]) -> Path:
    """The model file that is meant: that of a run, where its folder is named.

    Args:
        path: Of a model file, or the folder of a run.

    Raises:
        DataNotFoundError: the folder has no model file.
    """
    file = Path(path).expanduser()
    if not file.is_dir():
        return file
    if not (file / MODEL_FILE).is_file():
        raise DataNotFoundError(
            f"the folder {file} has no {MODEL_FILE}, which a run writes when it is finished; name a model file"
        )
    return file / MODEL_FILE


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read and check the head of a model file. Nothing else of it is read.

    Args:
        path: The file, or the folder of the run that wrote it.

    Raises:
        DataNotFoundError: there is no such file.
        ModelFileError: it is not a model file of dlkit, damaged, or of a newer format.
    """
    file = model_file(path)
    with open_regular(file, ModelFileError, noun="model file") as stream:
        total = os.fstat(stream.fileno()).st_size
        length = int.from_bytes(stream.read(8), "little")
        if total < 10 or not 2 <= length <= min(total - 8, _MOST_HEADER):
            stream.seek(0)
            claim = f"is not a safetensors file: {total} bytes, and a header of {length} is claimed"
            raise ModelFileError(f"{file} {told(stream.read(HEAD), 'a model file') or claim}")
        raw = stream.read(length)
    try:
        entries = _bounds.parse(raw, "its header")
    except ArgumentError as error:
        raise ModelFileError(f"{file} is not a safetensors file: {error}") from error
    if not isinstance(entries, dict):
        raise ModelFileError(f"{file} is not a safetensors file: its header is a {type(entries).__name__}")
    metadata = entries.pop("__metadata__", None)
    _check_layout(entries, total - 8 - length, file)
    document = _document(metadata, file)
    shapes = {name: tuple(entry["shape"]) for name, entry in entries.items()}
    return Header(path=file, document=document, shapes=shapes)


def _check_layout(entries: dict[str, Any], size: int, file: Path) -> None:
    """Every byte of the rest belongs to one tensor of the size that its shape asks for."""
    spans = []
    for name, entry in entries.items():
        try:
            shape, (start, end), each = entry["shape"], entry["data_offsets"], _SIZES[entry["dtype"]]
            numbers = [*shape, start, end]
            good = all(type(number) is int and 0 <= number <= _bounds.SIZE.most for number in numbers)
            good = good and isinstance(shape, list) and math.prod(shape) * each == end - start
        except (KeyError, TypeError, ValueError):
            good = False
        if not good:
            raise ModelFileError(f"{file}: the tensor {name!r:.80} is described wrongly: {entry!r:.120}")
        spans.append((start, end))
    position = 0
    for start, end in sorted(spans):
        if start != position:
            raise ModelFileError(f"{file}: its tensors do not lie one after the other")
        position = end
    if position != size:
        raise ModelFileError(
            f"{file} has {size} bytes of tensors where {position} are claimed; it is cut off or changed"
        )


def _document(metadata: Any, file: Path) -> dict[str, Any]:
    if not isinstance(metadata, dict) or not isinstance(metadata.get("dlkit"), str):
        raise ModelFileError(
            f"{file} holds tensors, but not how to build and use the model; dlkit.save writes that. For bare weights "
            "there is dlkit.transfer.create_model(name, classes=..., weights=path)"
        )
    try:
        document = _bounds.parse(metadata["dlkit"], "dlkit's part of the header")
    except ArgumentError as error:
        raise ModelFileError(f"{file}: {error}") from error
    if not isinstance(document, dict) or type(document.get("version")) is not int or document["version"] < 1:
        raise ModelFileError(f"{file}: dlkit's part of the header needs a version, a whole number of at least 1")
    if document["version"] > FORMAT_VERSION:
        raise ModelFileError(
            f"{file} has format {document['version']}, and this dlkit reads up to {FORMAT_VERSION}; update dlkit-torch"
        )
    return document
