"""pandas and Arrow tables to cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from numbers import Number
from typing import Any

import numpy as np

from dlkit._cores import default_threads, for_each
from dlkit._textfiles import check_width
from dlkit.errors import DataError
from dlkit.reading._headers import column_names
from dlkit.reading.cells import EXACT, Array, Cells, Dates, Numbered, Numbers, Strings, Table, cell_text, strings_of
from dlkit.storage.strings import PackedStrings

__all__ = [
    "arrow_columns",
    "cells_of_arrow",
    "cells_of_series",
    "cells_of_values",
    "concatenated",
    "joined_texts",
    "table_of_frame",
]

_BOOLEAN_POOL = ("False", "True")
_LONG, _SAMPLED = 50_000, 20_000  # among 20,000 of a million values that come twice, some hundred equal ones meet
_NUMBERS = (int, float, np.integer, np.floating)


def table_of_frame(frame: Any) -> Table:
    """A pandas DataFrame as a table; the index is left out, and rows are named by it in errors.

    Args:
        frame: Of pandas.
    """
    import pandas as pd

    check_width(frame.shape[1], "the DataFrame")
    names = column_names(list(frame.columns))
    columns = {name: cells_of_series(frame.iloc[:, place], name) for place, name in enumerate(names)}
    declared = [name for name, dtype in zip(names, frame.dtypes, strict=True) if isinstance(dtype, pd.CategoricalDtype)]
    return Table(columns, "the DataFrame", Numbered(frame.index, "the DataFrame", "row"), categories=declared)


def cells_of_series(series: Any, name: str) -> Cells:
    """One column of a DataFrame.

    Args:
        series: The column.
        name: Its name, for errors.

    Raises:
        DataError: cells that are neither numbers, text, booleans nor dates.
    """
    import pandas as pd

    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        pool = strings_of([cell_text(value) for value in dtype.categories])
        codes = series.cat.codes.to_numpy().astype(np.int32)
        return Strings(np.where(codes < 0, -1, pool.codes[codes] if len(pool) else -1).astype(np.int32), pool.pool)
    if pd.api.types.is_bool_dtype(dtype):
        return _booleans(series.to_numpy(dtype=object), series.isna().to_numpy())
    if pd.api.types.is_datetime64_any_dtype(dtype):
        if getattr(dtype, "tz", None) is not None:
            series = series.dt.tz_convert("UTC").dt.tz_localize(None)
        return Dates(series.to_numpy().astype("datetime64[us]"))
    if pd.api.types.is_timedelta64_dtype(dtype):
        return Numbers(series.dt.total_seconds().to_numpy(dtype=np.float64))
    if pd.api.types.is_integer_dtype(dtype):
        return _whole(series.to_numpy(dtype=object, na_value=None) if series.isna().any() else series.to_numpy())
    if pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_complex_dtype(dtype):
        return Numbers(series.to_numpy(dtype=np.float64, na_value=np.nan))
    return _objects(series, name)


def cells_of_values(values: Sequence[Any]) -> Cells:
    """One column of rows that came one by one: numbers, dates, else the text of each.

    What a value becomes does not depend on the others: a number beside a text is the number that its text says.

    Args:
        values: Numbers, texts, moments; None, NaN, NaT and NA are missing.

    >>> cells_of_values([1, None, 2.5]).missing().tolist(), cells_of_values(["a", 1.0]).tolist()
    ([False, True, False], ['a', '1'])
    """
    cells = [None if _is_missing(value) else value for value in values]
    there = [value for value in cells if value is not None]
    if all(isinstance(value, _NUMBERS) and not (isinstance(value, int) and abs(value) >= EXACT) for value in there):
        return Numbers(np.array([np.nan if value is None else value for value in cells], dtype=np.float64))
    if all(isinstance(value, date | np.datetime64) for value in there):
        return Dates(np.array([_moment(value) for value in cells], dtype="datetime64[us]"))
    return _mixed(None if value is None else _as_iso(value) for value in cells)


def _as_iso(value: Any) -> Any:
    """A moment as text, in UTC; anything else as it is."""
    if not isinstance(value, date | np.datetime64):
        return value
    return str(_moment(value)).removesuffix(".000000").removesuffix("T00:00:00")


def _is_missing(value: Any) -> bool:
    return value is None or type(value).__name__ in ("NAType", "NaTType") or bool(value != value)


def _moment(value: Any) -> np.datetime64:
    """A moment in UTC."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        value = value.astimezone(UTC).replace(tzinfo=None)
    return np.datetime64("NaT" if value is None else value, "us")


def _objects(series: Any, name: str) -> Cells:
    missing = series.isna().to_numpy()
    values = series.to_numpy(dtype=object)
    kinds = {type(value) for value, absent in zip(values, missing, strict=True) if not absent}
    if kinds and kinds <= {bool, np.bool_}:
        return _booleans(values, missing)
    if kinds and all(issubclass(kind, int | np.integer) for kind in kinds):
        return _whole(np.array([None if absent else value for value, absent in zip(values, missing, strict=True)]))
    if odd := [kind.__name__ for kind in kinds if issubclass(kind, list | tuple | dict | set | np.ndarray | complex)]:
        raise DataError(
            f"column {name!r} of the DataFrame holds cells of type {', '.join(sorted(odd))}; "
            "cells must be numbers, text, booleans or dates: spread them over columns or join them to text first"
        )
    return cells_of_values([None if absent else value for value, absent in zip(values, missing, strict=True)])


def _mixed(values: Iterable[Any]) -> Strings:
    """Cells of any type as text; a number among them stays that number, however the texts beside it are written."""
    index: dict[tuple[str, bool], int] = {}
    codes = [
        -1
        if value is None
        else index.setdefault((text := cell_text(value), isinstance(value, Number) and "." in text), len(index))
        for value in values
    ]
    typed = frozenset(place for place, (_, number) in enumerate(index) if number)
    return Strings(np.array(codes, dtype=np.int32), PackedStrings.of(text for text, _ in index), typed)


def _whole(values: Array) -> Cells:
    """Integers, None where missing: as text where a float64 could not tell them apart, as identifiers of 64 bits."""
    if values.dtype.kind in "iu" and (not len(values) or int(values.max()) < 1 << 62):
        return Numbers(values.astype(np.int64))
    there = [int(value) for value in values if value is not None]
    if all(abs(value) <= EXACT for value in there):
        return Numbers(np.array([np.nan if value is None else value for value in values], dtype=np.float64))
    return strings_of(None if value is None else str(int(value)) for value in values)


def _booleans(values: Array, missing: Array) -> Strings:
    codes = np.fromiter(
        (-1 if absent else int(bool(value)) for value, absent in zip(values, missing, strict=True)), dtype=np.int32
    )
    return Strings(codes, PackedStrings.of(_BOOLEAN_POOL))


def cells_of_arrow(column: Any, name: str, origin: str) -> Cells:
    """One column (a `ChunkedArray`) of an Arrow table.

    Args:
        column: The cells.
        name: The column's name, for errors.
        origin: The file, for errors.

    Raises:
        DataError: nested or binary cells.
    """
    import pyarrow as pa

    kind, types = column.type, pa.types
    if types.is_dictionary(kind) and not (types.is_string(kind.value_type) or types.is_large_string(kind.value_type)):
        return cells_of_arrow(column.cast(kind.value_type), name, origin)
    if types.is_null(kind):
        return Numbers(np.full(len(column), np.nan))
    if types.is_boolean(kind):
        codes = column.cast(pa.int8()).fill_null(-1).to_numpy().astype(np.int32)
        return Strings(codes, PackedStrings.of(_BOOLEAN_POOL))
    if types.is_integer(kind):
        return _integers(column)
    if types.is_floating(kind) or types.is_decimal(kind):
        return Numbers(column.cast(pa.float64()).to_numpy())
    if types.is_temporal(kind):
        return _moments(column)
    if types.is_dictionary(kind) or types.is_string(kind) or types.is_large_string(kind):
        return _strings(column)
    raise DataError(
        f"column {name!r} of {origin} holds {kind} cells; cells must be numbers, text, booleans or dates: "
        f"leave it out with drop=[{name!r}] or change it first"
    )


def arrow_columns(table: Any, origin: str, *, threads: bool = False) -> dict[str, Cells]:
    """The columns of an Arrow table as cells.

    Args:
        table: Of Arrow.
        origin: The file, for errors.
        threads: Whether to take several columns at a time.
    """

    names, columns = table.column_names, dict[str, Cells]()

    def convert(place: int) -> None:
        columns[names[place]] = cells_of_arrow(table.column(place), names[place], origin)

    # Arrow lets go of the interpreter while it looks for equal strings.
    for_each(convert, len(names), default_threads() if threads else 1)
    return {name: columns[name] for name in names}


def _integers(column: Any) -> Cells:
    import pyarrow as pa
    import pyarrow.compute as pc

    bounds = pc.min_max(column).as_py()
    largest = max(abs(bounds["min"] or 0), abs(bounds["max"] or 0))
    if not column.null_count and largest < 1 << 63:
        return Numbers(column.cast(pa.int64()).to_numpy())
    if largest < EXACT:
        return Numbers(column.cast(pa.float64()).to_numpy())
    return _strings(column.cast(pa.string()))


def _moments(column: Any) -> Cells:
    import pyarrow as pa

    kind, types = column.type, pa.types
    if types.is_duration(kind):
        seconds = column.cast(pa.duration("us"), safe=False).cast(pa.int64())
        return Numbers(seconds.cast(pa.float64()).to_numpy() / 1e6)
    if types.is_time(kind):
        micros = column.cast(pa.time64("us"), safe=False).cast(pa.int64())
        return Dates(micros.cast(pa.timestamp("us")).to_numpy().astype("datetime64[us]"))
    if types.is_timestamp(kind) and kind.tz is not None:
        column = column.cast(pa.timestamp(kind.unit))  # Arrow keeps moments in UTC whatever the zone is called
    if types.is_date(kind):
        column = column.cast(pa.date32())
    return Dates(column.cast(pa.timestamp("us"), safe=False).to_numpy().astype("datetime64[us]"))


def _strings(column: Any) -> Strings:
    import pyarrow as pa

    encoded = pa.types.is_dictionary(column.type)
    # Joined first: chunk after chunk, dictionaries of ever more distinct strings would be made and unified.
    whole = (column.unify_dictionaries() if encoded else column).combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        empty = pa.array([], pa.string())
        whole = pa.concat_arrays(whole.cast(pa.large_string()).chunks) if whole.num_chunks else empty  # over 2 GB
    if not pa.types.is_dictionary(whole.type):
        if _all_differ(whole):
            return Strings(np.arange(len(whole), dtype=np.int32), PackedStrings.of_arrow(whole))
        whole = whole.dictionary_encode()
    dictionary = whole.dictionary
    if dictionary.null_count:  # allowed in Parquet; such cells are missing
        return strings_of(whole.cast(dictionary.type).to_pylist())
    codes = whole.indices.fill_null(-1).cast(pa.int32()).to_numpy(zero_copy_only=False)
    return Strings(codes, PackedStrings.of_arrow(dictionary))


def _all_differ(array: Any) -> bool:
    """Whether strings are so surely all different that looking for equal ones is not worth the time."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if len(array) < _LONG or array.null_count:
        return False
    sample = array.take(pa.array(range(0, len(array), len(array) // _SAMPLED)))
    return bool(pc.count_distinct(sample).as_py() == len(sample))


def concatenated(parts: list[Cells]) -> Cells | None:
    """Columns of several files under each other; None where one has text and another numbers or dates.

    Args:
        parts: The column in each file.
    """
    typed = [part for part in parts if not (isinstance(part, Numbers) and part.missing().all())] or parts
    if all(isinstance(part, Numbers) for part in typed):
        return Numbers(np.concatenate([part.values for part in parts if isinstance(part, Numbers)]))
    if all(isinstance(part, Dates) for part in typed):
        empty = np.datetime64("NaT", "us")
        return Dates(
            np.concatenate([part.values if isinstance(part, Dates) else np.full(len(part), empty) for part in parts])
        )
    if all(isinstance(part, Strings) for part in typed):
        return joined_texts(parts)
    return None


def joined_texts(parts: Sequence[Cells]) -> Strings:
    """Columns of text under each other; parts without text hold nothing.

    Args:
        parts: The column in each piece.
    """
    index: dict[str, int] = {}
    codes = []
    for part in parts:
        if isinstance(part, Strings):
            places = [index.setdefault(text, len(index)) for text in part.pool.tolist()]
            codes.append(part.mapped(places, -1, np.int32))
        else:
            codes.append(np.full(len(part), -1, dtype=np.int32))
    return Strings(np.concatenate(codes), PackedStrings.of(index))
