"""`content_keys`: one number per sample, the same for equal samples in every process and on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dlkit._frames import as_pandas
from dlkit.errors import ArgumentError
from dlkit.splits._values import Keys, as_array, mixed

__all__ = ["content_keys"]


def content_keys(data: Any) -> Keys:
    """A 64-bit key for each sample; equal samples have equal keys, in every process and on every machine.

    Two different samples of half a million share a key with a chance of 1 in 100 million.

    Args:
        data: Tensor or array [N, ...]; a `CSVDataset`, DataFrame or dict of columns [N], whose rows are the samples; or
            a sequence of strings, bytes, numbers or tuples. In columns and tuples 1, 1.0 and True are equal, and so are
            missing values; in arrays and tensors NaN equals NaN.

    Returns:
        uint64 [N].

    >>> keys = content_keys(np.array([[1, 2], [3, 4], [1, 2]]))
    >>> bool(keys[0] == keys[2]), bool(keys[0] == keys[1])
    (True, False)
    """
    columns = columns_of(data)
    if columns is not None:
        return _keys_of_columns(columns)
    if isinstance(data, Tensor | np.ndarray) and (array := as_array(data)).dtype.kind not in "OSU":
        return _keys_of_rows(array)
    return _digests(_encoded(value) for value in (data.tolist() if isinstance(data, np.ndarray) else data))


def columns_of(data: Any) -> dict[str, Any] | None:
    if callable(inputs := getattr(data, "comparable", None)):
        data = inputs()  # a table of dlkit gives its inputs as columns
    data = as_pandas(data)
    if isinstance(data, Mapping):
        return {str(name): values for name, values in data.items()}
    if hasattr(data, "columns") and hasattr(data, "iloc"):
        return {str(name): data.iloc[:, place] for place, name in enumerate(data.columns)}
    return None


def _keys_of_rows(array: npt.NDArray[Any]) -> Keys:
    if array.dtype.kind == "f":
        array = np.where(np.isnan(array), array.dtype.type(np.nan), array + array.dtype.type(0))  # -0.0 is 0.0
    if array.ndim == 0:
        raise ArgumentError("data must have the samples as its first dimension; it has no dimension")
    return _digests(np.ascontiguousarray(row).tobytes() for row in array)


def _digests(rows: Iterable[bytes]) -> Keys:
    return np.frombuffer(b"".join(hashlib.blake2b(row, digest_size=8).digest() for row in rows), dtype="<u8").astype(
        np.uint64
    )


def _keys_of_columns(columns: Mapping[str, Any]) -> Keys:
    keys = [_column_keys(values) for values in columns.values()]
    if len(lengths := {len(column) for column in keys}) != 1:
        raise ArgumentError(f"the columns must have one length, not {sorted(lengths)}")
    found = np.zeros(lengths.pop(), np.uint64)
    for column in keys:
        found = mixed(found * np.uint64(3) + column)
    return found


def _column_keys(values: Any) -> Keys:
    array = as_array(values)
    if array.dtype.kind in "mM":
        array = array.astype(f"{array.dtype.kind}8[us]").astype(object)  # the same instant in another unit is equal
    if array.dtype.kind in "biuf":
        unique, codes = np.unique(array, return_inverse=True)
        return _digests(_encoded(value) for value in unique.tolist())[codes]
    seen: dict[bytes, int] = {}
    rows = [seen.setdefault(_encoded(value), len(seen)) for value in array.tolist()]
    return _digests(seen)[rows]


def _encoded(value: Any) -> bytes:
    return repr(_canonical(value)).encode("utf-8", "surrogatepass")


def _canonical(value: Any) -> Any:
    """One form for equal values: missing ones are None, whole numbers are integers."""
    if isinstance(value, list | tuple):
        return tuple(_canonical(part) for part in value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool | float):
        return None if value != value else int(value) if float(value).is_integer() else value
    return None if type(value).__name__ in ("NAType", "NaTType") else value
