"""What data (or a model) says of its samples: classes, spec, image preprocessing; and whether two agree.

The one place that is asked by training, evaluation, joined datasets and model files. What does not say anything is not
compared: a `TensorDataset` fits everything.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from dlkit._kinds import Spec
from dlkit.errors import DataError
from dlkit.specs.table import Target
from dlkit.transforms import Preprocessing

__all__ = ["Difference", "check_same", "classes_in", "difference", "preparation_in", "spec_in", "target_in", "task_in"]

_TARGETS = ("label", "labels", "target", "targets", "y")
_SCALES = "scale both alike: cut one dataset into parts with split, or read the other with scale_target=train.target"
_CLASSES = "open the data with the same classes: classes=train.classes, or cut one dataset into parts: split"


def spec_in(given: Any) -> Any:
    """The `Preprocessing`, `TableSpec` or other `Spec` that this is or has; None where there is none.

    Args:
        given: Any object.

    >>> from dlkit.transforms import for_training
    >>> spec_in(for_training(32)).augment is None
    True
    """
    for each in (given, *(getattr(given, name, None) for name in ("spec", "preprocessing", "transform"))):
        if isinstance(each, Spec):
            return each.for_evaluation()
    return None


def preparation_in(given: Any) -> Preprocessing | None:
    """How images are prepared for evaluation, where the data says so.

    Args:
        given: Any object.
    """
    spec = spec_in(given)
    return spec if isinstance(spec, Preprocessing) else None


def classes_in(given: Any) -> list[str] | None:
    """The names of the classes in the order of their numbers; None for numbers, unlabelled data, and unknown ones.

    Args:
        given: A dataset (also of torchvision or Hugging Face), a model, a spec.

    >>> from types import SimpleNamespace
    >>> classes_in(SimpleNamespace(classes=("ant", "bee"))), classes_in(SimpleNamespace(classes=2))
    (['ant', 'bee'], None)
    """
    spec, features = spec_in(given), getattr(given, "features", None)
    labels = [features[name] for name in _TARGETS if name in features] if isinstance(features, Mapping) else []
    holders = (given, spec, getattr(spec, "target", None))
    for names in (*(getattr(each, "classes", None) for each in holders), *(getattr(e, "names", None) for e in labels)):
        if isinstance(names, Sequence | np.ndarray) and not isinstance(names, str) and len(names):
            return [str(name) for name in names]
    return None


def target_in(given: Any) -> Any:
    """The `Target` of a table's spec: task, classes, scale; None where there is none.

    Args:
        given: A dataset, a model or a spec.
    """
    own = getattr(given, "target", None)  # of data whose spec says nothing of targets, such as images
    return getattr(spec_in(given), "target", None) or (own if isinstance(own, Target) else None)


def task_in(given: Any) -> str | None:
    """What there is to learn: classification, binary, multilabel or regression; None where nothing says so.

    What its spec or the dataset itself says, else what its targets are: `reading.targets` has made whole numbers of
    classes and floats of quantities when it was read.

    Args:
        given: A dataset, a model or a spec.

    >>> from types import SimpleNamespace
    >>> from torch import ones
    >>> task_in(SimpleNamespace(classes=["ant", "bee"])), task_in(SimpleNamespace(targets=ones(3)))
    ('classification', 'regression')
    """
    stated = getattr(target_in(given), "task", None) or getattr(given, "task", None)
    if isinstance(stated, str):
        return stated
    targets = _targets_of(given)  # which a streamed table refuses to show
    if targets is not None and targets.is_floating_point():
        return "multilabel" if targets.dim() == 2 and classes_in(given) else "regression"
    return "classification" if targets is not None or classes_in(given) else None


def _targets_of(given: Any) -> Tensor | None:
    targets = getattr(given, "targets", None)
    return targets if isinstance(targets, Tensor) else None


class Difference(NamedTuple):
    """The first thing of which two say different things.

    Attributes:
        what: Which thing, such as "class 1" or "column 'age': fill".
        mine: What the first says, as text.
        theirs: What the other says.
        way: What to do to make them agree.
    """

    what: str
    mine: str
    theirs: str
    way: str


def difference(first: Any, other: Any) -> Difference | None:
    """The first thing of which two say different things; None where they agree, or one of them says nothing.

    Args:
        first: A dataset, a model, a spec; the one that is right.
        other: The same.

    >>> from types import SimpleNamespace
    >>> difference(SimpleNamespace(classes=["ant", "bee"]), SimpleNamespace(classes=["ant", "wasp"]))[:3]
    ('class 1', "'bee'", "'wasp'")
    """
    if first is other:
        return None
    mine, theirs = spec_in(first), spec_in(other)
    if mine is None or theirs is None or mine is theirs:
        return _of_classes(classes_in(first), classes_in(other), _CLASSES)
    if mine.kind != theirs.kind:
        return Difference("the data", mine.noun, theirs.noun, "use data of the same kind")
    stated = classes_in(mine) is not None  # by the spec itself, which is the way to hand them on
    classes = _of_classes(classes_in(first), classes_in(other), mine.way if stated else _CLASSES)
    classes = classes or _of_scales(getattr(first, "target", None), getattr(other, "target", None))
    if classes or mine == theirs:
        return classes
    found = _first(mine.compared(), theirs.compared(), ())
    return None if found is None else Difference(_named(found[0]), _shown(found[1]), _shown(found[2]), mine.way)


def check_same(first: Any, other: Any, *, there: str, here: str, way: str | None = None) -> None:
    """Refuse data that means something else than the data (or model) it is used with.

    Args:
        first: The data that was trained on, or the model.
        other: The data to be used with it.
        there: What `first` is, for the message.
        here: What `other` is.
        way: What to do, where it is not what `difference` says.

    Raises:
        DataError: they differ; the first difference is named, and the way.
    """
    if found := difference(first, other):
        raise DataError(
            f"{there} and {here} mean different things: {found.what} is {found.mine} in {there} and {found.theirs} in "
            f"{here}; {way or found.way}"
        )


def _of_scales(mine: Any, theirs: Any) -> Difference | None:
    """Of data whose spec says nothing of targets."""
    if not isinstance(mine, Target) or not isinstance(theirs, Target):
        return None
    for name in ("columns", "center", "scale"):
        if (one := getattr(mine, name)) != (two := getattr(theirs, name)):
            return Difference(f"the target's {name}", _shown(one), _shown(two), _SCALES)
    return None


def _of_classes(mine: list[str] | None, theirs: list[str] | None, way: str) -> Difference | None:
    if mine is None or theirs is None or mine == theirs:
        return None
    pairs = enumerate(itertools.zip_longest(mine, theirs))
    number, (one, two) = next(pair for pair in pairs if pair[1][0] != pair[1][1])
    return Difference(f"class {number}", _shown(one), _shown(two), way)


def _first(one: Any, two: Any, where: tuple[Any, ...]) -> tuple[tuple[Any, ...], Any, Any] | None:
    """The first place in which two trees of plain data differ; a name that is in one of them alone says nothing."""
    if one == two:
        return None
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        found = (_first(one[name], two[name], (*where, name)) for name in one if name in two)
        return next((each for each in found if each), None)
    if isinstance(one, list | tuple) and isinstance(two, list | tuple):
        number, (a, b) = next((n, pair) for n, pair in enumerate(itertools.zip_longest(one, two)) if pair[0] != pair[1])
        return _first(a, b, (*where, number))
    return where, one, two


def _named(where: tuple[Any, ...]) -> str:
    if where[0] == "column":
        return f"column {where[1]!r}: {' '.join(map(str, where[2:]))}"
    return " ".join(map(str, where))


def _shown(value: Any) -> str:
    return "missing" if value is None else f"{value!r:.60}"
