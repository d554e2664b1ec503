"""Transforms to JSON and back: what a model file carries, so that predicting prepares images as training did."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from dlkit import _bounds
from dlkit.errors import ArgumentError
from dlkit.transforms.contrast import LocalContrastNormalization
from dlkit.transforms.mixing import CutMix, MixUp
from dlkit.transforms.spec import Augment, Preprocessing

__all__ = ["from_json", "spec_of", "to_json"]

_KINDS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (Augment, CutMix, LocalContrastNormalization, MixUp, Preprocessing)
}


def spec_of(transform: Any) -> dict[str, Any] | None:
    """A transform as plain data for JSON; None for one that has no spec, such as a function of your own.

    Args:
        transform: Any object.

    >>> spec_of(LocalContrastNormalization(window=7))
    {'kind': 'LocalContrastNormalization', 'window': 7, 'sigma': None}
    >>> spec_of(print) is None
    True
    """
    if _KINDS.get(type(transform).__name__) is not type(transform):
        return None
    fields = [field.name for field in dataclasses.fields(transform) if field.init]
    return {"kind": type(transform).__name__, **{name: _plain(getattr(transform, name)) for name in fields}}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return spec_of(value) if dataclasses.is_dataclass(value) else value


def to_json(transform: Any) -> str:
    """A transform of dlkit as one line of JSON.

    Args:
        transform: What `train`, `evaluate` and `from_model` return, or another transform of this package.

    Raises:
        ArgumentError: it has no spec.

    >>> from_json(to_json(MixUp(num_classes=2))) == MixUp(num_classes=2)
    True
    """
    spec = spec_of(transform)
    if spec is None:
        raise ArgumentError(
            f"{type(transform).__name__} has no spec that JSON can hold; transforms with one are {', '.join(_KINDS)}"
        )
    return json.dumps(spec, allow_nan=False)


def from_json(text: str | bytes | Mapping[str, Any]) -> Any:
    """The transform that `to_json` or `spec_of` wrote. Runs no code: only the kinds above with checked values.

    Args:
        text: JSON, or what was read from it.

    Raises:
        ArgumentError: it is no such document; the message says where.
    """
    if not isinstance(text, Mapping):
        text = _bounds.parse(text, "a transform's spec")
    return _build(text, "spec")


def _build(spec: Any, where: str) -> Any:
    if not isinstance(spec, Mapping) or not isinstance(spec.get("kind"), str) or spec["kind"] not in _KINDS:
        found = spec.get("kind") if isinstance(spec, Mapping) else type(spec).__name__
        raise ArgumentError(f"{where}: kind must be one of {', '.join(_KINDS)}, not {found!r}")
    kind = _KINDS[spec["kind"]]
    known = {field.name for field in dataclasses.fields(kind) if field.init}
    if odd := sorted(set(spec) - known - {"kind"}):
        raise ArgumentError(
            f"{where}: {spec['kind']} has no {', '.join(odd)}; it was written by a newer dlkit or by hand"
        )
    values = {name: _value(value, f"{where}.{name}") for name, value in spec.items() if name != "kind"}
    try:
        return kind(**values)
    except TypeError as error:
        raise ArgumentError(f"{where}: {spec['kind']} cannot be made of it: {error}") from error


def _value(value: Any, where: str) -> Any:
    if isinstance(value, list):
        _bounds.whole(len(value), f"{where}: the number of entries", _bounds.STEPS)
        return tuple(_value(item, f"{where}[{place}]") for place, item in enumerate(value))
    return _build(value, where) if isinstance(value, Mapping) else value
