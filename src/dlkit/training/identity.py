"""Which run this is: what tells its checkpoints from those of another run in the same folder.

Shapes do not tell two runs apart. The seed does, some samples of the training data and their order, and what the model,
the loss and the step compute: the modules with their settings, and the code of classes and functions that are not part
of an installed package. All of it is compared in such a way that a longer run, other workers, another machine, a moved
folder or an edited comment are the same run.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import inspect
import platform
import re
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dlkit.runs.state import Run

__all__ = ["code_of", "differences", "identity_of"]

_LARGEST_SEED = 2**32  # a seed that somebody chose; those that are derived have 64 bits
_SHOWN = 4
_PLAIN = (int, float, str, bool, type(None))


def identity_of(run: Run, **functions: Any) -> dict[str, Any]:
    """What a run is known by, as plain data; without its data, of which `probing` knows.

    Args:
        run: As it was made, before any training.
        functions: What else computes, by name: loss, step.
    """
    drawn_from = torch.initial_seed()
    kinds: dict[Any, None] = {type(module): None for module in run.model.modules()}
    code = {kind.__qualname__: _code_of_class(kind) for kind in kinds}
    for name, value in functions.items():
        for part in _own_parts(value):
            code[f"{name} {part.__qualname__}"] = code_of(part)
    return {
        "seed": run.seed,
        "torch seed": drawn_from if drawn_from < _LARGEST_SEED else None,
        "modules": {name or "model": _described(module) for name, module in run.model.named_modules()},
        "code": {name: digest for name, digest in code.items() if digest},
        "python": ".".join(platform.python_version_tuple()[:2]),
        "torch": str(torch.__version__),
    }


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What shows that a checkpoint is of another run, line by line; none for the same run.

    Args:
        saved: An `identity_of` from a checkpoint; what an older release did not write is not compared.
        now: That of this script.
    """
    lines = []
    if "seed" in saved and saved["seed"] != now["seed"]:
        lines.append(f"seed: saved {saved['seed']}, this script says {now['seed']}")
    seeds = saved.get("torch seed"), now["torch seed"]
    if None not in seeds and seeds[0] != seeds[1]:
        lines.append(f"seed of torch when the Trainer was made: saved {seeds[0]}, this script says {seeds[1]}")
    if saved.get("torch") == now["torch"]:  # another release may describe its modules in other words
        lines += _of_modules(saved.get("modules", {}), now["modules"])
    if saved.get("python") == now["python"]:
        code = saved.get("code", {})
        changed = [name for name, digest in now["code"].items() if code.get(name, digest) != digest]
        lines += [f"code of {name}: differs from what the run was started with" for name in changed]
    return lines


def _of_modules(saved: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    names = [name for name in dict.fromkeys([*saved, *now]) if saved.get(name) != now.get(name)]
    lines = [
        f"module {name}: saved {saved.get(name, 'nothing')}, this script says {now.get(name, 'nothing')}"
        for name in names
    ]
    return lines if len(lines) <= _SHOWN else [*lines[:_SHOWN], f"{len(lines) - _SHOWN} more modules differ"]


def _described(module: nn.Module) -> str:
    """The class and what it prints of itself, as in `Dropout(p=0.5, inplace=False)`."""
    try:
        text = str(module.extra_repr())
    except Exception:  # noqa: BLE001  (it is only for printing, and a class may get it wrong)
        text = ""
    return f"{type(module).__name__}({'' if re.search('0x[0-9a-f]+', text) else text})"


def _own_parts(value: Any) -> Iterator[Any]:
    """The functions and classes that a loss or a step is made of."""
    if isinstance(value, functools.partial):
        yield from _own_parts(value.func)
    elif inspect.ismethod(value):
        yield value.__func__
    elif inspect.isfunction(value):
        yield inspect.unwrap(value)
    elif isinstance(value, nn.Module):
        yield from {type(module): type(module) for module in value.modules()}
    elif value is not None and not inspect.isbuiltin(value):
        yield type(value)


def code_of(part: Any) -> str:
    """A digest of what a function or class of the user's own does; empty for one of an installed package.

    Args:
        part: A function or a class.

    >>> code_of(len), code_of(nn.Linear)
    ('', '')
    """
    if isinstance(part, type):
        return _code_of_class(part)
    own = inspect.isfunction(part) and not _is_installed(part)
    return _digest(_instructions(part.__code__), _values(part)) if own else ""


@functools.cache
def _code_of_class(kind: type) -> str:
    """A digest of the methods that a class and its bases have from the user's own code; empty for none."""
    parts: list[Any] = []
    for each in kind.__mro__:
        if _is_installed(each):
            continue
        for name, value in sorted(vars(each).items()):
            function = getattr(value, "fget", None) or getattr(value, "__func__", value)
            if inspect.isfunction(function):
                parts.append((name, _instructions(inspect.unwrap(function).__code__), _values(function)))
    return _digest(*parts) if parts else ""


def _digest(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode(errors="surrogatepass")).hexdigest()[:16]


def _instructions(code: types.CodeType) -> list[Any]:
    """What a function does, without the places of its lines, its docstring and comments."""
    return [
        (each.opname, _argument(each.argval))
        for each in dis.get_instructions(code)
        if each.opname not in ("NOP", "RESUME")
    ]


def _argument(value: Any) -> Any:
    if isinstance(value, types.CodeType):
        return _instructions(value)
    if isinstance(value, frozenset):  # whose order is another in each process
        return sorted(map(repr, value))
    return repr(value)


def _values(function: Any) -> list[str]:
    """The plain values that a function was made with: its defaults, and what it holds of the function around it."""
    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:  # a name that has no value yet
            continue
    held = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values(), *cells]
    return [repr(value) for value in held if isinstance(value, _PLAIN)]


def _is_installed(part: Any) -> bool:
    """Whether a class or function belongs to Python, this library or an installed package, which have versions."""
    name = getattr(part, "__module__", None) or "builtins"
    file = getattr(sys.modules.get(name), "__file__", None)
    if name == "__main__" or file is None:  # a script or notebook; or built in
        return name != "__main__"
    return any(place in Path(file).resolve().parents for place in _installed_places())


@functools.cache
def _installed_places() -> frozenset[Path]:
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    packages = [Path(__file__).parents[1], Path(torch.__file__).parent]
    return frozenset(path.resolve() for path in [*map(Path, filter(None, paths)), *packages])
