"""Import an optional dependency where it is used, with an error that names the extra to install."""

from __future__ import annotations

import importlib
from typing import Any

from dlkit.errors import MissingExtraError


def require(module: str, *, extra: str) -> Any:
    """Import `module` and return it, or say which extra of dlkit brings it.

    >>> require("json", extra="plots").dumps([1])
    '[1]'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if error.name is not None and error.name.partition(".")[0] != module.partition(".")[0]:
            raise  # the package is there, but something inside it is broken: do not hide that
        raise MissingExtraError(
            f"this needs the package {module.partition('.')[0]!r}, which is not installed; "
            f"pip install 'dlkit-torch[{extra}]'"
        ) from error
