"""Texts to numbers, once: in memory while they are few, in a file that is found again when they are many."""

from __future__ import annotations

import hashlib
import os
import sys
import unicodedata
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dlkit._language import Message
from dlkit._progress import Bar
from dlkit.storage.arrays import ArrayWriter, Kind, SharedArray, open_arrays, write_arrays
from dlkit.storage.files import FileLock, atomic_write, home_of, mark_used
from dlkit.storage.strings import PackedStrings
from dlkit.tokens._encoded import EncodedTexts, Encoder

__all__ = ["Packed", "Storage", "pack_texts"]

Array = np.ndarray[Any, Any]
_KIND = Kind("list of encoded texts", 2)
_CHUNK = 10_000
_CACHED_FROM = 4 << 20  # bytes of text; less is encoded again in about the time that looking it up takes


@dataclass(frozen=True, kw_only=True)
class Storage:
    """Where encoded texts are kept.

    Attributes:
        folder: The folder of the files that keep what takes long to encode, and are looked into first; None keeps none.
        budget: Bytes of encoded texts to hold in memory; more are read from a mapped file.
    """

    folder: Path | None = None
    budget: int = 1 << 30

    @property
    def place(self) -> Path:
        """The folder, or where files that outgrow the memory lie until the process ends."""
        return home_of("text") if self.folder is None else self.folder

    def is_writable(self) -> bool:
        """Whether files can be made there; if not, a warning says why, and texts are encoded each time."""
        try:
            self.place.mkdir(parents=True, exist_ok=True)
            if os.access(self.place, os.W_OK):
                return True
            problem = f"{self.place} may not be written to"
        except OSError as error:
            problem = str(error)
        told = Message("the encoded texts cannot be kept for the next time: {problem}", problem=problem)
        warnings.warn(told, stacklevel=2)
        return False


@dataclass(frozen=True)
class Packed:
    """All texts of a dataset as numbers: ids int32 [total], lengths int64 [N], types int8 [total] for pairs."""

    ids: SharedArray
    lengths: Array
    types: SharedArray | None


def pack_texts(encoder: Encoder, texts: Sequence[PackedStrings], max_length: int | None, storage: Storage) -> Packed:
    """Encode one or, for pairs, two packed lists of texts; or take what was kept the last time."""
    key = (
        _key(encoder, texts, max_length)
        if storage.folder is not None and _is_much(texts) and storage.is_writable()
        else None
    )
    if key is None:
        return _encoded(encoder, texts, max_length, storage, None)
    with FileLock(storage.place / f"{key}.lock"):  # of several processes that start together, one encodes
        kept = _load(key, storage)
        if kept is None:
            kept = _encoded(encoder, texts, max_length, storage, key)
            _keep(kept, key, storage)
        return kept


def _is_much(texts: Sequence[PackedStrings]) -> bool:
    return sum(each.num_bytes for each in texts) >= _CACHED_FROM


def _key(encoder: Encoder, texts: Sequence[PackedStrings], max_length: int | None) -> str | None:
    fingerprint = encoder.fingerprint()
    if fingerprint is None:
        return None
    parts = (_KIND.version, fingerprint, max_length, sys.version_info[:2], unicodedata.unidata_version)
    return hashlib.sha256(repr((*parts, [each.digest() for each in texts])).encode()).hexdigest()


def _encoded(
    encoder: Encoder, texts: Sequence[PackedStrings], max_length: int | None, storage: Storage, key: str | None
) -> Packed:
    ids = ArrayWriter(np.int32, budget=storage.budget, folder=storage.place)
    types = ArrayWriter(np.int8, budget=storage.budget // 4, folder=storage.place)
    lengths, typed = [np.zeros(0, dtype=np.int64)], False
    for part in _chunks(encoder, texts, max_length):
        ids.append(part.ids)
        lengths.append(part.lengths)
        if len(texts) > 1:
            types.append(np.zeros(len(part.ids), dtype=np.int8) if part.types is None else part.types)
            typed = typed or part.types is not None
    return Packed(ids.finish(".ids", key), np.concatenate(lengths), types.finish(".types", key) if typed else None)


def _chunks(encoder: Encoder, texts: Sequence[PackedStrings], max_length: int | None) -> Iterator[EncodedTexts]:
    with Bar(len(texts[0]), desc=Message("encoding"), unit=Message("texts")) as bar:
        for begin in range(0, len(texts[0]), _CHUNK):
            first, *second = (each[begin : begin + _CHUNK] for each in texts)
            yield encoder.encode_batch(first, second[0] if second else None, max_length=max_length)
            bar.update(len(first))


def _keep(packed: Packed, key: str, storage: Storage) -> None:
    """Write what is not in a file yet; the file of lengths comes last and says that all is there."""
    about = {"checksum": _checksum(packed.ids, packed.types), "typed": packed.types is not None}
    try:
        for block, suffix in ((packed.ids, ".ids"), (packed.types, ".types")):
            if block is not None and block.path is None:
                with atomic_write(storage.place / f"{key}{suffix}") as file:
                    file.write(block.array.data)
        write_arrays(storage.place / f"{key}.lengths", _KIND, {"lengths": torch.from_numpy(packed.lengths)}, about)
    except OSError as error:
        told = Message("the encoded texts could not be kept for the next time: {error}", error=error)
        warnings.warn(told, stacklevel=2)


def _load(key: str, storage: Storage) -> Packed | None:
    try:
        kept = open_arrays(storage.place / f"{key}.lengths", _KIND)
        ids = SharedArray.map(storage.place / f"{key}.ids", np.dtype("<i4"))
        types = SharedArray.map(storage.place / f"{key}.types", np.dtype("i1")) if kept.about["typed"] else None
    except (OSError, ValueError, KeyError):
        return None
    mark_used(storage.place / f"{key}.lengths")
    lengths = kept["lengths"].numpy().copy()
    if lengths.sum() != len(ids.array) or (types is not None and len(types.array) != len(ids.array)):
        return None
    if ids.array.nbytes > storage.budget:
        return Packed(ids, lengths, types)
    if _checksum(ids, types) != kept.about["checksum"]:
        return None
    return Packed(SharedArray(ids.array.copy()), lengths, types and SharedArray(types.array.copy()))


def _checksum(ids: SharedArray, types: SharedArray | None) -> int:
    return zlib.crc32(b"" if types is None else types.array.data, zlib.crc32(ids.array.data))
