"""Sample data by name: public tables to try things with, fetched once and checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlkit.download.fetching import fetch
from dlkit.storage.files import home_of

__all__ = ["SAMPLES", "Sample", "sampled", "table_of"]

_SEABORN = "https://raw.githubusercontent.com/mwaskom/seaborn-data/master"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A table that is known by name.

    Attributes:
        about: What it holds, in words.
        url: Where it is.
        sha256: Of the file.
        size: Of the file, in bytes.
        target: The column that is usually predicted.
        drop: Columns that tell the target.
    """

    about: str
    url: str
    sha256: str
    size: int
    target: str
    drop: tuple[str, ...] = ()


#: By name.
SAMPLES = {
    "titanic": Sample(
        about="who survived: 891 passengers with numbers, categories and gaps; downloaded once (57 kB)",
        url=f"{_SEABORN}/titanic.csv",
        sha256="81787d320d7f7b03df935e91de8bd19e11d45c5bbcab86ef4d4a76dc91b7d4f2",
        size=57018,
        target="survived",
        drop=("alive",),
    ),
    "penguins": Sample(
        about="three species of penguins by their measures: 344 rows; downloaded once (13 kB)",
        url=f"{_SEABORN}/penguins.csv",
        sha256="e07636bd8af74260099ea2f8678e2eabbf35def579940cc76f67061ee16c06c1",
        size=13478,
        target="species",
    ),
}


def sampled(source: Any, options: Mapping[str, Any]) -> tuple[Any, Any]:
    """What to read where `source` is the name of sample data, and how; anything else as it is.

    A file or folder of that name comes first. What `options` say of the target comes before what is usual.

    Args:
        source: See `read_data`.
        options: See `read_data`.
    """
    sample = SAMPLES.get(str(source).lower()) if isinstance(source, str | os.PathLike) else None
    if sample is None or Path(source).expanduser().exists():
        return source, dict(options)
    usual = {} if options.get("target") is not None else {"target": sample.target, "drop": sample.drop}
    return table_of(str(source)), {**options, **usual}


def table_of(name: str, to: Path | None = None) -> Path:
    """The file of a sample, fetched if need be.

    Args:
        name: One of `SAMPLES`.
        to: The file, or the folder to put it into; None for the cache folder.

    Raises:
        DownloadError: its address did not give it.
    """
    sample, file = SAMPLES[name.lower()], f"{name.lower()}.csv"
    path = home_of("tables") / file if to is None else to / file if to.is_dir() else to
    return fetch(sample.url, path, sha256=sample.sha256, size=sample.size, progress=False)
