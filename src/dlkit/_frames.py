"""Tables of other libraries (polars, Arrow, Hugging Face) as the pandas DataFrames that dlkit reads."""

from __future__ import annotations

from typing import Any

from dlkit.errors import ArgumentError

__all__ = ["as_pandas"]


def as_pandas(given: Any) -> Any:
    """A DataFrame of pandas for one of another library; anything else as it is.

    Args:
        given: What a caller handed over as data.

    Raises:
        ArgumentError: a query of polars that has not been run.
    """
    if hasattr(given, "iloc") or isinstance(given, type):
        return given
    if callable(getattr(given, "to_pandas", None)):
        return given.to_pandas()
    if type(given).__name__ == "LazyFrame":
        raise ArgumentError("a LazyFrame is a query that has not been run; pass frame.collect()")
    return given
