"""From probabilities to JSON. Numbers are written with every digit, so that a reader gets the same bits."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from dlkit.artifact.inputs import Meaning
from dlkit.inference.outputs import best_of, output_names, predictions_of
from dlkit.serving.scheduling import Answer
from dlkit.serving.served import Loaded

__all__ = ["as_json", "body_of", "rows_in_json"]

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_quoted = functools.lru_cache(1 << 14)(_encode)  # of the names of classes


def as_json(document: Any) -> bytes:
    """Plain data as JSON in UTF-8.

    Args:
        document: Without NaN and infinities.
    """
    return _encode(document).encode("utf-8", "backslashreplace")


def body_of(loaded: Loaded, answer: Answer) -> bytes:
    """The answer to a request.

    Args:
        loaded: The version that computed it.
        answer: With rows in JSON.
    """
    rows, why = answer.rows, answer.errors
    if why:
        rows = [f'{{"error":{_encode(why[place])}}}' if place in why else row for place, row in enumerate(rows)]
    error = ""
    if len(why) == len(rows):
        error = f',"error":{_encode(why[0] if why else "the body holds no inputs")}'
    head = f'"model":{_quoted(loaded.name)},"version":{_quoted(loaded.version)}'
    return f'{{{head},"predictions":[{",".join(rows)}]{error}}}'.encode("utf-8", "backslashreplace")


def rows_in_json(meaning: Meaning, probabilities: Tensor, top_k: int) -> list[str]:
    """What a model says of each input, written at once: an object for each that is encoded takes five times as long.

    Args:
        meaning: What the outputs are.
        probabilities: From `probabilities_of`.
        top_k: How many classes to list.

    >>> import torch; bees = Meaning(kind="image", preprocessing=None, task="classification", classes=("ant", "bee"))
    >>> rows_in_json(bees, torch.tensor([[0.25, 0.75]]), 1)
    ['{"label":"bee","probability":0.75,"top":[{"label":"bee","probability":0.75}]}']
    """
    if meaning.task == "regression":
        names = output_names(meaning, probabilities.shape[1])
        return [f'{{"values":{_object(zip(names, row, strict=True))}}}' for row in probabilities.tolist()]
    if meaning.task == "multilabel":
        return [
            f'{{"label":{_encode(each.label)},"top":[{",".join(_pair(*pair) for pair in each.top)}],'
            f'"probabilities":{_object(each.values.items())}}}'
            for each in predictions_of(meaning, probabilities, top_k)
        ]
    found = list[str]()
    for shares, places in zip(*best_of(meaning, probabilities, top_k), strict=True):
        top = [_pair(meaning.classes[place], share) for place, share in zip(places, shares, strict=True)]
        found.append(f'{top[0][:-1]},"top":[{",".join(top)}]}}')
    return found


def _pair(name: str, share: float) -> str:
    return f'{{"label":{_quoted(name)},"probability":{_number(share)}}}'


def _object(values: Iterable[tuple[str, float]]) -> str:
    return f"{{{','.join(f'{_quoted(name)}:{_number(value)}' for name, value in values)}}}"


def _number(value: float) -> str:
    """JSON has no NaN and no infinities: null."""
    return repr(value) if math.isfinite(value) else "null"
