"""From predictions to JSON. Numbers are written with every digit, so that a reader gets the same bits."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from dlkit.inference.outputs import Prediction
from dlkit.serving.served import Loaded

__all__ = ["as_json", "body_of", "plain"]

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def as_json(document: Any) -> bytes:
    """Plain data as JSON in UTF-8.

    Args:
        document: Without NaN and infinities.
    """
    return _encode(document).encode("utf-8", "backslashreplace")


def body_of(loaded: Loaded, predictions: Sequence[Prediction]) -> dict[str, Any]:
    """The answer to a request.

    Args:
        loaded: The version that computed it.
        predictions: One for each input, in its place.
    """
    task = loaded.predictor.task
    return {
        "model": loaded.name,
        "version": loaded.version,
        "predictions": [plain(prediction, task) for prediction in predictions],
    }


def plain(prediction: Prediction, task: str) -> dict[str, Any]:
    """One prediction as plain data.

    Args:
        prediction: What the model says of an input.
        task: Of the model.

    >>> plain(Prediction(label="bee", probability=0.75, top=(("bee", 0.75),)), "classification")
    {'label': 'bee', 'probability': 0.75, 'top': [{'label': 'bee', 'probability': 0.75}]}
    """
    if prediction.error:
        return {"error": prediction.error}
    if task == "regression":
        return {"values": {name: _number(value) for name, value in prediction.values.items()}}
    top = [{"label": name, "probability": _number(value)} for name, value in prediction.top]
    if task == "multilabel":
        shares = {name: _number(value) for name, value in prediction.values.items()}
        return {"label": prediction.label, "top": top, "probabilities": shares}
    return {"label": prediction.label, "probability": _number(prediction.probability), "top": top}


def _number(value: float) -> float | None:
    """JSON has no NaN and no infinities: null."""
    return value if math.isfinite(value) else None
