"""Models by name: what a model file needs, to build a model again without running code that came with the file."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn

from dlkit import _bounds
from dlkit._kinds import KINDS, Spec
from dlkit.errors import ArgumentError, ModelFileError

__all__ = ["build", "record", "register"]

_T = TypeVar("_T", bound=Callable[..., Any])

_builders: dict[str, Callable[..., nn.Module]] = {}


def register(name: str) -> Callable[[_T], _T]:
    """Give a model class, or a function that makes a model, a name under which a model file finds it again.

    Each model that is made notes its name and its arguments in `model.architecture`; they must be plain data (numbers,
    texts, lists, dicts). A file that was saved with it loads wherever the module that registers it is imported first.

    Args:
        name: What is in the file, such as "our-team.net-v2". Names that begin with "dlkit." are dlkit's.

    Raises:
        ArgumentError: the name is taken by something else.

    >>> @register("docs.TwoLayers")
    ... class TwoLayers(nn.Module):
    ...     def __init__(self, width: int = 8):
    ...         super().__init__()
    ...         self.layers = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))
    ...     def forward(self, x):
    ...         return self.layers(x)
    >>> TwoLayers(16).architecture
    {'library': 'registered', 'name': 'docs.TwoLayers', 'arguments': {'width': 16}, 'home': 'dlkit.registry'}
    """
    if not name or not isinstance(name, str):
        raise ArgumentError(f"a model is registered under a name, not {name!r}")

    def decorate(maker: _T) -> _T:
        taken = _builders.get(name)
        if taken is not None and (taken.__module__, taken.__qualname__) != (maker.__module__, maker.__qualname__):
            raise ArgumentError(f"the name {name!r} is taken by {taken.__module__}.{taken.__qualname__}")
        made = _recording_class(maker, name) if inspect.isclass(maker) else _recording_function(maker, name)
        _builders[name] = made
        return made  # type: ignore[no-any-return]

    return decorate


def _recording_class(kind: Any, name: str) -> Any:
    init, signature = kind.__init__, inspect.signature(kind)

    @functools.wraps(init)
    def initialise(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        if type(self) is kind:  # a subclass is another model
            record(self, name, _arguments(signature, args, kwargs), kind.__module__)

    kind.__init__ = initialise
    return kind


def _recording_function(function: Any, name: str) -> Any:
    signature = inspect.signature(function)

    @functools.wraps(function)
    def make(*args: Any, **kwargs: Any) -> Any:
        model = function(*args, **kwargs)
        record(model, name, _arguments(signature, args, kwargs), function.__module__)
        return model

    return make


def _arguments(signature: inspect.Signature, args: Any, kwargs: Any) -> dict[str, Any]:
    return dict(signature.bind(*args, **kwargs).arguments)


def record(model: nn.Module, name: str, arguments: Mapping[str, Any], home: str) -> None:
    """Note in `model.architecture` how a model was made.

    Args:
        model: The model.
        name: Its registered name.
        arguments: What it was made with, by name.
        home: The module that registers the name.
    """
    plain = {key: _to_plain(value) for key, value in arguments.items()}
    model.__dict__["architecture"] = {"library": "registered", "name": name, "arguments": plain, "home": home}


def _to_plain(value: Any) -> Any:
    if isinstance(value, Spec):  # what is not plain JSON itself says of which kind it is
        return {"$kind": value.kind, "json": value.to_json()}
    return list(value) if isinstance(value, tuple) else value


def build(architecture: Mapping[str, Any]) -> nn.Module:
    """A fresh model of a registered architecture; its weights are random.

    Args:
        architecture: What `model.architecture` held, also after a way through JSON.

    Raises:
        ModelFileError: the name is not registered, or it cannot be made with these arguments.

    >>> from dlkit.models import SmallConvNet
    >>> type(build(SmallConvNet(num_classes=3).architecture)).__name__
    'SmallConvNet'
    """
    name, arguments = architecture.get("name"), architecture.get("arguments")
    if not isinstance(name, str) or not isinstance(arguments, Mapping):
        raise ModelFileError(f"an architecture needs a name and arguments, not {architecture!r:.200}")
    if name not in _builders:
        raise ModelFileError(
            f"the architecture {name!r} is not registered here; import the module that registers it before loading "
            f"(it was {architecture.get('home', 'not noted')!r} where the file was made), or see dlkit.register"
        )
    for key, value in arguments.items():
        if isinstance(value, list) and len(value) > _bounds.ARGUMENTS:
            raise ModelFileError(f"arguments.{key:.100} has {len(value)} entries; {_bounds.ARGUMENTS} are allowed")
    try:
        return _builders[name](**{key: _from_plain(value) for key, value in arguments.items()})
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"{name!r} cannot be made with {_shown(arguments)}: {error}") from error


def _from_plain(value: Any) -> Any:
    if not isinstance(value, Mapping) or "$kind" not in value:
        return value
    kind = value["$kind"]
    if not isinstance(kind, str) or kind not in KINDS:
        raise ModelFileError(f"an argument of the kind {kind!r:.60} is not known; there are {', '.join(KINDS)}")
    return KINDS[kind].from_json(value.get("json", ""))


def _shown(arguments: Mapping[str, Any]) -> str:
    return json.dumps(dict(arguments), default=str)[:200]
