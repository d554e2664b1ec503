"""`Spec`: what a model's inputs mean, as one object that fits into JSON; and which kinds there are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

from dlkit._documents import Document
from dlkit._html import facts
from dlkit.errors import ArgumentError

__all__ = ["KINDS", "Spec", "Task", "values"]

#: What a model's outputs say of a target.
Task = Literal["classification", "binary", "multilabel", "regression"]

#: Every kind of input by its name: a class adds itself when it is defined.
KINDS: dict[str, type[Spec]] = {}


class Spec(Document):
    """How raw inputs became a model's inputs: a table's `TableSpec`, a `TextSpec`, an image's `Preprocessing`.

    The model file and the registry of models know this class alone. A kind of your own is a frozen dataclass that is
    derived from it, with a `kind` and an `example`; a model file that was saved with it loads wherever the module that
    defines it is imported.

    Attributes:
        kind: The name of the kind of inputs, such as "image"; it is in the model file.
        noun: What such data is called in messages.
        way: What to do where two datasets differ in it.
        any_length: Whether the second dimension of every input may have any length, as that of texts.
    """

    kind: ClassVar[str]
    noun: ClassVar[str] = "data of another kind"
    way: ClassVar[str] = "prepare both in the same way"
    any_length: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "kind" not in vars(cls):
            return
        taken = KINDS.get(cls.kind)
        if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ArgumentError(f"the kind {cls.kind!r} is taken by {taken.__module__}.{taken.__qualname__}")
        KINDS[cls.kind] = cls

    def _repr_html_(self) -> str:
        named = {field.name: repr(getattr(self, field.name)) for field in dataclasses.fields(self) if field.repr}  # type: ignore[arg-type]
        return facts(type(self).__name__, {name: value[:300] for name, value in named.items()})

    def example(self, *, small: bool = False) -> Any:
        """A batch of two inputs, described by `values`; in a dict where the model takes several by name.

        Args:
            small: A smaller one, which not every model takes, to make the model file quick to open.

        Raises:
            ArgumentError: a model cannot take such inputs.
        """
        raise NotImplementedError

    def for_evaluation(self) -> Self:
        """The same without what is random in training."""
        return self

    def compared(self) -> dict[str, Any]:
        """What must be equal in training and evaluation, as plain data in the order in which differences are told."""
        return self.document()

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The columns of a table that the inputs are in, where the spec says so itself."""
        return ()


def values(shape: Sequence[int], dtype: str, low: float, high: float) -> Mapping[str, Any]:
    """One tensor of an example, as plain data: its numbers follow from this on any machine.

    Args:
        shape: Of the batch.
        dtype: "float32", "int64" or "bool".
        low: The smallest value.
        high: Above the largest one.
    """
    return {"shape": list(shape), "dtype": dtype, "low": low, "high": high}
