"""The server's log: a line of JSON for each event, without paths or secrets."""

from __future__ import annotations

import datetime
import json
import logging
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dlkit._showing import escaped_json, without_secrets

__all__ = ["LOGGER", "event", "line", "place_of", "write_to"]

#: The name of the logger.
LOGGER = "dlkit-serve"
_logger = logging.getLogger(LOGGER)
_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode
_write: Callable[[str], None] | None = None


def write_to(function: Callable[[str], None] | None) -> None:
    """Hand lines straight to a function from now on: records of `logging` take more time than all else about a line.

    Args:
        function: Takes a line, and never waits; None for records again, which is how it begins.
    """
    global _write
    _write = function


def event(what: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Write one line.

    Args:
        what: What happened, in a word or two.
        level: Of `logging`.
        **fields: More about it, as plain data.
    """
    if not _logger.isEnabledFor(level):
        return
    if _write is not None:
        _write(line(what, level, fields))
    else:  # `log` would look through the stack for the caller's name first, at every request
        _logger.handle(_logger.makeRecord(LOGGER, level, "", 0, line(what, level, fields), (), None))


def line(what: str, level: int, fields: Mapping[str, Any]) -> str:
    """An event as a line of JSON.

    Args:
        what: What happened.
        level: Of `logging`.
        fields: More about it.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    document = {"time": now, "level": logging.getLevelName(level).lower(), "event": what, **fields}
    return escaped_json(without_secrets(_encode(document)))


def place_of(error: BaseException) -> str:
    """Where an unexpected error was raised: the innermost lines as file names and numbers, without folders or values.

    Args:
        error: Any.
    """
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
