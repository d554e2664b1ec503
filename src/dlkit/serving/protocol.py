"""The Open Inference Protocol, version 2, as KServe and Triton speak it, with its extension for binary tensors.

A model of images, recordings or texts takes one tensor of BYTES (in JSON, files are base64); a table takes a tensor for
each of its columns. Classes come as "label" and "probabilities", a regression as one tensor for each output.
"""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dlkit import _bounds
from dlkit._version import __version__
from dlkit.errors import ArgumentError
from dlkit.inference.outputs import Prediction
from dlkit.inference.predictor import Predictor
from dlkit.serving.answers import as_json
from dlkit.serving.bodies import Asked, from_json
from dlkit.serving.kinds import TAKES
from dlkit.serving.limits import Limits
from dlkit.serving.refusals import RefusedError
from dlkit.serving.scheduling import Answer
from dlkit.serving.served import Loaded

__all__ = ["DATATYPES", "InferRequest", "model", "read", "server", "write"]

_LENGTH = "inference-header-content-length"
#: The datatypes of numbers, as numpy calls them.
DATATYPES = {"BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8"}
DATATYPES |= {"INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class InferRequest:
    """A request of the protocol.

    Attributes:
        asked: The inputs.
        name: The request's own id, which the answer repeats; None without one.
        outputs: The outputs that are wanted, and whether each comes as bytes; None for all.
        binary: Whether outputs come as bytes where nothing else is said of them.
    """

    asked: Asked
    name: str | None
    outputs: Mapping[str, bool] | None
    binary: bool


def server() -> dict[str, Any]:
    """What the server is."""
    return {"name": "dlkit", "version": __version__, "extensions": ["binary_tensor_data"]}


def model(loaded: Loaded) -> dict[str, Any]:
    """What a model takes and gives.

    Args:
        loaded: The version in use.
    """
    predictor = loaded.predictor
    inputs: list[dict[str, Any]]
    if predictor.kind == "table":
        inputs = [_tensor(name, "BYTES", [-1]) for name in predictor.info["columns"]]
    elif TAKES[predictor.kind] is TAKES["tensor"]:
        described = predictor.info["input"]
        shape = described.get("shape", []) if isinstance(described, Mapping) else []
        inputs = [_tensor("input", "FP32", [-1, *shape[1:]])]
    else:
        inputs = [_tensor(predictor.kind, "BYTES", [-1])]
    if predictor.task == "regression":
        outputs = [_tensor(name, "FP64", [-1]) for name in predictor.classes or ["prediction"]]
    else:
        outputs = [_tensor("label", "BYTES", [-1]), _tensor("probabilities", "FP64", [-1, len(predictor.classes)])]
    return {
        "name": loaded.name,
        "versions": [loaded.version],
        "platform": "dlkit",
        "inputs": inputs,
        "outputs": outputs,
    }


def _tensor(name: str, datatype: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape}


def read(headers: Mapping[str, str], body: bytes, predictor: Predictor, limits: Limits) -> InferRequest:
    """A request of the protocol, from its body.

    Args:
        headers: Of the request.
        body: JSON, and behind it the bytes of tensors, where a header says how long the JSON is.
        predictor: The model that is to answer.
        limits: What is allowed.

    Raises:
        RefusedError: it is not such a request.
    """
    length = headers.get(_LENGTH)
    if length is not None and not (length.isascii() and length.isdigit() and int(length[:12]) <= len(body)):
        raise RefusedError(400, "Inference-Header-Content-Length is not the length of the JSON at the body's beginning")
    end = len(body) if length is None else int(length)
    try:
        document = _bounds.parse(body[:end], "the body")
    except ArgumentError as error:
        raise RefusedError(400, str(error)) from error
    tensors = document.get("inputs") if isinstance(document, Mapping) else None
    if not isinstance(tensors, list) or not tensors or not all(isinstance(each, Mapping) for each in tensors):
        raise RefusedError(400, "the body needs 'inputs', a list of tensors with name, shape, datatype and data")
    values, rest = dict[str, list[Any]](), body[end:]
    for each in tensors:
        name, found, rest = _values(each, rest, limits)
        values[name] = found
    if rest:
        raise RefusedError(400, f"{len(rest):,} bytes follow the last tensor")
    name = document.get("id")
    return InferRequest(
        asked=from_json(_inputs(values, predictor), predictor, limits),
        name=name if isinstance(name, str) else None,
        outputs=_outputs(document.get("outputs")),
        binary=_flag(document, "binary_data_output"),
    )


def _flag(document: Mapping[str, Any], name: str) -> bool:
    parameters = document.get("parameters")
    return isinstance(parameters, Mapping) and parameters.get(name) is True


def _outputs(wanted: Any) -> dict[str, bool] | None:
    if not wanted:
        return None
    if not isinstance(wanted, list) or not all(
        isinstance(each, Mapping) and isinstance(each.get("name"), str) for each in wanted
    ):
        raise RefusedError(400, "'outputs' must be a list of objects with a name")
    return {each["name"]: _flag(each, "binary_data") for each in wanted}


def _values(tensor: Mapping[str, Any], rest: bytes, limits: Limits) -> tuple[str, list[Any], bytes]:
    """A tensor's name, its values along the first dimension, and the bytes that are left for the next tensor."""
    name, shape, datatype = tensor.get("name"), tensor.get("shape"), tensor.get("datatype")
    if not isinstance(name, str) or datatype not in ("BYTES", *DATATYPES):
        raise RefusedError(400, f"a tensor needs a name and a datatype, BYTES or one of {', '.join(DATATYPES)}")
    if not isinstance(shape, list) or not shape or not all(type(n) is int and 0 <= n <= 1 << 31 for n in shape):
        raise RefusedError(400, f"the tensor {name!r:.80} needs a shape, a list of whole numbers")
    count = math.prod(shape)
    parameters = tensor.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, Mapping) else None
    if size is not None:
        if type(size) is not int or not 0 <= size <= len(rest):
            raise RefusedError(400, f"binary_data_size of the tensor {name!r:.80} is more than the body has")
        flat, rest = _unpacked(rest[:size], datatype, name), rest[size:]
    else:
        flat = _flat(tensor.get("data"))
    if len(flat) != count or not count:
        raise RefusedError(
            400, f"the tensor {name!r:.80} has {len(flat):,} values, and its shape {shape} is of {count:,}"
        )
    if math.prod(shape[1:]) == 1:
        return name, flat, rest
    rows: list[Any] = np.array(flat, dtype=object).reshape(shape).tolist()
    return name, rows, rest


def _flat(given: Any) -> list[Any]:
    if not isinstance(given, list):
        raise RefusedError(400, "a tensor needs 'data', a list of its values")
    data: list[Any] = given
    while data and isinstance(data[0], list):
        if not all(isinstance(each, list) for each in data):
            raise RefusedError(400, "a tensor's 'data' has lists beside values")
        data = [value for each in data for value in each]
    return data


def _unpacked(data: bytes, datatype: str, name: str) -> list[Any]:
    found: list[Any]
    if datatype != "BYTES":
        try:
            found = np.frombuffer(data, DATATYPES[datatype]).tolist()
        except ValueError as error:
            raise RefusedError(
                400, f"the bytes of the tensor {name!r:.80} are not valid {datatype}: {error}"
            ) from error
        return found
    found, place = [], 0
    while place < len(data):
        size = int.from_bytes(data[place : place + 4], "little")
        place += 4 + size
        if place > len(data):
            raise RefusedError(400, f"the tensor {name!r:.80} is cut off within a value")
        found.append(data[place - size : place])
    return found


def _inputs(values: Mapping[str, list[Any]], predictor: Predictor) -> list[Any]:
    """The inputs unchanged in the JSON of `/predict`, or ready to be used."""
    if predictor.kind != "table":
        if len(values) != 1:
            raise RefusedError(400, f"this model takes one tensor of {TAKES[predictor.kind].nouns}, not {len(values)}")
        return list(next(iter(values.values())))
    if lacking := [name for name in predictor.info["columns"] if name not in values]:
        raise RefusedError(400, f"a tensor for the column {lacking[0]!r} is missing")
    if len({len(each) for each in values.values()}) > 1:
        raise RefusedError(400, "the tensors of a table must have the same first dimension, the rows")
    texts = {name: [_text(value) for value in each] for name, each in values.items()}
    return [dict(zip(texts, row, strict=True)) for row in zip(*texts.values(), strict=True)]


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def write(wish: InferRequest, loaded: Loaded, answer: Answer) -> tuple[dict[str, str], bytes]:
    """The answer: headers and body.

    Args:
        wish: The request.
        loaded: The version that computed it.
        answer: With a `Prediction` for each input.

    Raises:
        RefusedError: an input cannot be used; the protocol has no place for a single error.
    """
    if answer.errors:
        place = min(answer.errors)
        raise RefusedError(400, f"input {place}: {answer.errors[place]}")
    there = _answers(loaded.predictor, answer.rows)
    wanted = dict.fromkeys(there, wish.binary) if wish.outputs is None else wish.outputs
    if unknown := [name for name in wanted if name not in there]:
        raise RefusedError(400, f"the model has no output {unknown[0]!r:.80}; it has {', '.join(there)}")
    outputs, tail = list[dict[str, Any]](), b""
    for name, binary in wanted.items():
        datatype, shape, flat = there[name]
        told: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
        if binary:
            packed = _packed(datatype, flat)
            told["parameters"] = {"binary_data_size": len(packed)}
            tail += packed
        else:
            told["data"] = [None if value != value else value for value in flat]
        outputs.append(told)
    document = {"model_name": loaded.name, "model_version": loaded.version, "outputs": outputs}
    body = as_json(document | ({} if wish.name is None else {"id": wish.name}))
    if not tail:
        return {"content-type": "application/json"}, body
    return {"content-type": "application/octet-stream", _LENGTH: str(len(body))}, body + tail


def _answers(predictor: Predictor, predictions: Sequence[Prediction]) -> dict[str, tuple[str, list[int], list[Any]]]:
    """Every output with its type, its shape and its values."""
    rows = len(predictions)
    if predictor.task == "regression":
        names = list(predictions[0].values) if predictions else []
        return {name: ("FP64", [rows], [each.values[name] for each in predictions]) for name in names}
    shares = [each.values or dict(each.top) for each in predictions]
    flat = [row[name] for row in shares for name in predictor.classes]
    return {
        "label": ("BYTES", [rows], [each.label for each in predictions]),
        "probabilities": ("FP64", [rows, len(predictor.classes)], flat),
    }


def _packed(datatype: str, flat: Sequence[Any]) -> bytes:
    if datatype != "BYTES":
        return np.array(flat, dtype=DATATYPES[datatype]).tobytes()
    texts = [value.encode("utf-8", "backslashreplace") for value in flat]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)
