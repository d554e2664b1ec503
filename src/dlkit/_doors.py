"""A room's door: its public names, each imported from the file it lives in when somebody first asks for it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["door", "missing"]


def door(package: str, homes: Mapping[str, str]) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """`__all__`, `__getattr__` and `__dir__` of a package whose names load when they are first used.

    The homes are constants in the package's own file, so that `tests/test_layers.py` sees them as imports.

    Args:
        package: Its `__name__`.
        homes: The module that each public name lives in.
    """
    names = sorted(homes)

    refuse = missing(package, names)

    def find(name: str) -> Any:
        if name not in homes:
            refuse(name)
        value = getattr(importlib.import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return names, find, lambda: names


def missing(package: str, names: Sequence[str]) -> Callable[[str], Any]:
    """`__getattr__` of a package whose names are all there: what was meant by one that is not.

    Args:
        package: Its `__name__`.
        names: Its `__all__`.
    """

    def refuse(name: str) -> Any:
        from dlkit._near import hint

        raise AttributeError(f"module {package!r} has no attribute {name!r}; {hint(name, names)}")

    return refuse
