"""What is offered exists, is documented with every parameter, and is typed; what the texts name exists, too."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

import dlkit

ROOT = Path(__file__).resolve().parent.parent
# `dlkit` and every module whose dotted name has no part with a leading underscore.
MODULES = ["dlkit", *sorted(m.name for m in pkgutil.walk_packages(dlkit.__path__, "dlkit.") if "._" not in m.name)]
TEXTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("src/**/*.py"), *ROOT.glob("examples/*.py")])


@pytest.mark.parametrize("name", MODULES)
def test_all_is_what_the_module_offers(name: str) -> None:
    wrong = door_faults(importlib.import_module(name))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_is_documented_and_typed(name: str) -> None:
    module = importlib.import_module(name)
    wrong = [fault for public, value in offered(module) for fault in faults(f"{name}.{public}", value)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_in_texts_exist(path: Path) -> None:
    assert [name for name in named(path.read_text(encoding="utf-8")) if not exists(name)] == []


def door_faults(module: ModuleType) -> list[str]:
    """How `__all__` differs from what is there and, at a user's door, from what the door lets out.

    Inner modules may share functions among each other that they do not list; what a user reaches with
    `dlkit.something` is listed completely.
    """
    listed = list(getattr(module, "__all__", []))
    wrong = [] if inspect.getdoc(module) else [f"{module.__name__} has no docstring"]
    wrong += [] if listed == sorted(set(listed)) else [f"{module.__name__}.__all__ is not sorted"]
    wrong += [f"{module.__name__}.__all__ has {name}, which is not there" for name in listed if not has(module, name)]
    if module.__name__.partition(".")[2] not in ["", *dlkit.__all__]:
        return wrong
    home = (module.__name__ + ".") if hasattr(module, "__path__") else module.__name__
    return wrong + [
        f"{module.__name__} offers {name}, which is not in its __all__"
        for name, value in vars(module).items()
        if not name.startswith("_") and name not in listed
        if inspect.isclass(value) or inspect.isroutine(value)
        if value.__module__ == module.__name__ or f"{value.__module__}.".startswith(home)
    ]


def offered(module: ModuleType) -> list[tuple[str, Any]]:
    """The classes and functions that a module defines and lists; a door's are checked where they are defined."""
    values = [(name, getattr(module, name)) for name in getattr(module, "__all__", []) if has(module, name)]
    return [(name, value) for name, value in values if getattr(value, "__module__", None) == module.__name__]


def faults(name: str, value: Any) -> list[str]:
    """What is missing in the docstring and the types of a class, its public methods, or a function."""
    if inspect.isclass(value):
        wrong = described(name, value.__doc__, constructor(value), only=own_fields(value))
        for public, method in methods(value):
            function = method if callable(method) else None
            wrong += described(f"{name}.{public}", inspect.getdoc(method), function, inherited=overrides(value, public))
        return wrong
    return described(name, inspect.getdoc(value), value) if inspect.isroutine(value) else []


def constructor(value: type) -> Callable[..., Any] | None:
    """What makes an object, if the class says so itself."""
    if dataclasses.is_dataclass(value) or hasattr(value, "_fields"):
        return value
    init = vars(value).get("__init__")
    return init if isinstance(init, FunctionType) and init.__module__ == value.__module__ else None


def own_fields(value: type) -> set[str] | None:
    """A dataclass documents the fields that it adds; its base has the others."""
    return set(inspect.get_annotations(value)) if dataclasses.is_dataclass(value) else None


def overrides(value: type, method: str) -> bool:
    """Whether a base of the class documents the method: then it need not be documented again."""
    return any(vars(base)[method].__doc__ for base in value.__mro__[1:] if method in vars(base))


def methods(value: type) -> Iterator[tuple[str, Any]]:
    for name, member in vars(value).items():
        if name.startswith("_"):
            continue
        if isinstance(member, FunctionType) and member.__code__.co_name != name and not hasattr(member, "__wrapped__"):
            continue  # made in a loop: its signature is not what anybody wrote
        if isinstance(member, FunctionType | property | cached_property):
            yield name, member
        elif isinstance(member, classmethod | staticmethod):
            yield name, member.__func__


def described(
    name: str,
    text: str | None,
    function: Callable[..., Any] | None,
    only: set[str] | None = None,
    *,
    inherited: bool = False,
) -> list[str]:
    """What is missing; the arguments of a method that overrides a documented one are named there (`inherited`)."""
    wrong = [] if text and not text.startswith(name.rpartition(".")[2] + "(") else [f"{name} has no docstring"]
    if function is None:
        return wrong
    signature = inspect.signature(function)
    for parameter in signature.parameters.values():
        if parameter.name in ("self", "cls") or (only is not None and parameter.name not in only):
            continue
        if parameter.annotation is parameter.empty:
            wrong.append(f"{name}: {parameter.name} has no type")
        if (
            text
            and not inherited
            and not parameter.name.startswith("_")
            and not re.search(rf"\b{parameter.name}\b", text)
        ):
            wrong.append(f"{name}: the docstring does not name {parameter.name}")
    untyped = not inspect.isclass(function) and signature.return_annotation is signature.empty
    return [*wrong, f"{name} has no return type"] if untyped else wrong


def named(text: str) -> list[str]:
    """Dotted names under `dlkit` in a text, without those of files and addresses."""
    found = re.findall(r"(?<![\w./-])dlkit(?:\.[A-Za-z]\w*)+(?![\w/-])", text)
    return sorted({name for name in found if not name.endswith((".json", ".py", ".toml", ".safetensors"))})


def exists(name: str) -> bool:
    value: Any = dlkit
    for number, part in enumerate(name.split(".")[1:], start=2):
        if not has(value, part):
            return False
        value = getattr(value, part, None) or importlib.import_module(".".join(name.split(".")[:number]))
    return True


def has(value: Any, name: str) -> bool:
    """Whether an attribute or a submodule of that name is there; a lazy door may promise what is not."""
    try:
        if hasattr(value, name) or name in getattr(value, "__annotations__", {}):
            return True
        return isinstance(value, ModuleType) and bool(importlib.import_module(f"{value.__name__}.{name}"))
    except ModuleNotFoundError:
        return False


# ------------------------------------------------------------------------------------------- the checks themselves work


def good(number: int, *names: str, flag: bool = False) -> str:
    """Join `names`, `number` times, with `flag`."""
    return ""


def bad(number, *, hidden: bool = False):  # type: ignore[no-untyped-def]
    """Take a number."""


class Holder:
    """Holds nothing, whatever `size` is."""

    def __init__(self, size: int) -> None:
        self.size = size

    def undocumented(self) -> None: ...

    @property
    def ratio(self) -> float:
        return 1.0

    @classmethod
    def make(cls, shape: int) -> Holder:
        """Make one."""
        return cls(shape)


def test_the_checks_find_what_is_missing() -> None:
    assert faults("good", good) == []
    assert faults("bad", bad) == [
        "bad: number has no type",
        "bad: the docstring does not name hidden",
        "bad has no return type",
    ]
    assert faults("Holder", Holder) == [
        "Holder.undocumented has no docstring",
        "Holder.ratio has no docstring",
        "Holder.make: the docstring does not name shape",
    ]


class Heir(Holder):
    """A Holder: `size` is its size."""

    def undocumented(self) -> None: ...

    @classmethod
    def make(cls, shape: int) -> Heir:
        """Make an heir."""
        return cls(shape)

    def add(self, other: int) -> None:
        """Add nothing."""


def test_an_override_is_documented_by_its_base() -> None:
    assert faults("Heir", Heir) == [
        "Heir.undocumented has no docstring",
        "Heir.add: the docstring does not name other",
    ]


def test_the_checks_find_wrong_doors() -> None:
    module = ModuleType("door", "A door.")
    exec("def b(): ...\ndef a(): ...\ndef c(): ...\ndef _d(): ...", vars(module))
    vars(module).update(__all__=["b", "a", "gone"], helper=re.sub, __name__="dlkit.models")
    for name in "abc":
        vars(module)[name].__module__ = "dlkit.models"
    assert door_faults(module) == [
        "dlkit.models.__all__ is not sorted",
        "dlkit.models.__all__ has gone, which is not there",
        "dlkit.models offers c, which is not in its __all__",
    ]


def test_the_checks_find_names_that_do_not_exist() -> None:
    text = "`dlkit.errors.DataError`, dlkit.errors.Gone, see dlkit.nowhere.x() and ~/dlkit.cache, dlkit.json."
    assert [name for name in named(text) if not exists(name)] == ["dlkit.errors.Gone", "dlkit.nowhere.x"]


def test_public_names_and_signatures_are_those_that_are_kept() -> None:
    """What users write changes only together with this file, and with the changelog."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import public_names
    finally:
        sys.path.remove(str(ROOT / "tools"))
    kept = (ROOT / "tests/golden/public-names.txt").read_text(encoding="utf-8").splitlines()
    now = list(public_names.names())
    changed = [*(f"- {line}" for line in kept if line not in now), *(f"+ {line}" for line in now if line not in kept)]
    assert not changed, "python tools/public_names.py > tests/golden/public-names.txt"
    assert now == kept
