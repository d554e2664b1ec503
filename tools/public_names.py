"""Print every public name with its signature; a test compares them with tests/golden/public-names.txt.

What is printed is what users write: names of parameters, their kinds and defaults, methods and properties of classes,
the names at every door. So nothing of it changes unnoticed. What is meant to change is kept by
`python tools/public_names.py > tests/golden/public-names.txt`.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from typing import Any

import dlkit


def names() -> Iterator[str]:
    """A line for each name, sorted by door."""
    doors = ["dlkit", *(f"dlkit.{name}" for name in dlkit.__all__ if inspect.ismodule(getattr(dlkit, name)))]
    for door in sorted(doors):
        module = importlib.import_module(door)
        for name in sorted(module.__all__):
            value = getattr(module, name)
            if not inspect.ismodule(value):
                yield from _of(f"{door}.{name}", value)


def _of(name: str, value: Any) -> Iterator[str]:
    if inspect.isclass(value):
        yield f"class {name}{_signature(value)}"
        for member in sorted(vars(value)):
            if not member.startswith("_"):
                found = inspect.getattr_static(value, member)
                if isinstance(found, property):
                    yield f"  .{member}"
                elif inspect.isroutine(found) or isinstance(found, classmethod | staticmethod):
                    yield f"  .{member}{_signature(getattr(value, member))}"
    elif callable(value):
        yield f"{name}{_signature(value)}"
    else:
        yield name


def _signature(value: Any) -> str:
    try:
        given = inspect.signature(value)
    except (TypeError, ValueError):  # of what C defines, and of abstract types
        return ""
    parameters = [each.replace(annotation=inspect.Parameter.empty) for each in given.parameters.values()]
    plain = given.replace(parameters=parameters, return_annotation=inspect.Signature.empty)
    return re.sub(r" at 0x[0-9a-f]+", "", str(plain))


if __name__ == "__main__":
    sys.stdout.write("".join(f"{line}\n" for line in names()))
