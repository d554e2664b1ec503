"""What a model takes and gives, as plain data; and all of it as a document of OpenAPI 3.1."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from dlkit._version import __version__
from dlkit.serving.kinds import TAKES
from dlkit.serving.limits import Limits
from dlkit.serving.protocol import DATATYPES
from dlkit.serving.served import Loaded
from dlkit.specs.columns import CategoryColumn, Column, NumberColumn
from dlkit.specs.table import TableSpec

__all__ = ["described", "openapi"]

_MOST_VALUES = 1000  # of a category, that are listed


def described(loaded: Loaded, limits: Limits) -> dict[str, Any]:
    """What a model takes and gives.

    Args:
        loaded: The version in use.
        limits: Of the server.
    """
    predictor = loaded.predictor
    takes = TAKES[predictor.kind]
    found: dict[str, Any] = {
        "name": loaded.name,
        "version": loaded.version,
        "kind": predictor.kind,
        "task": predictor.task,
        "classes": predictor.classes,
        "takes": {"media": [*takes.raw, *takes.files, "application/json"], "json": takes.json},
        "metrics": predictor.info["metrics"],
        "versions": predictor.info["versions"],
        "architecture": (predictor.info["architecture"] or {}).get("name"),
        "limits": dataclasses.asdict(limits),
    }
    if isinstance(spec := predictor.preprocessing, TableSpec):
        found["columns"] = [_column(column) for column in spec.columns if column.used]
        found["example"] = {column.name: _example(column) for column in spec.columns if column.used}
    return found


def _column(column: Column) -> dict[str, Any]:
    """A column as a form needs it: of numbers what is usual, of categories the values."""
    told: dict[str, Any] = {"name": column.name, "kind": column.kind}
    if isinstance(column, CategoryColumn):
        told["values"] = list(column.vocabulary[:_MOST_VALUES])
    elif isinstance(column, NumberColumn) and column.kind == "number":
        part = column.parts[0]
        told |= {"median": part.fill, "usual": [part.center - part.scale, part.center + part.scale]}
    return told


def _example(column: Column) -> Any:
    """A value that the column could have: the usual one."""
    if isinstance(column, CategoryColumn):
        return column.vocabulary[0] if column.vocabulary else None
    if isinstance(column, NumberColumn) and column.kind == "number":
        return column.parts[0].fill
    return {"boolean": "true", "text": "a text"}.get(column.kind)


def openapi(models: Sequence[Loaded], limits: Limits) -> dict[str, Any]:
    """The document of OpenAPI.

    Args:
        models: The versions in use.
        limits: Of the server.
    """
    names = [loaded.name for loaded in models]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": ", ".join(names),
            "version": "-".join(loaded.version for loaded in models),
            "description": f"Served by dlkit {__version__}.",
        },
        "paths": _own(models, limits) | _of_protocol(names),
        "components": {
            "schemas": _schemas(models),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _own(models: Sequence[Loaded], limits: Limits) -> dict[str, Any]:
    names = [loaded.name for loaded in models]
    model = {
        "name": "model",
        "in": "query",
        "required": len(names) > 1,
        "schema": {"type": "string", "enum": names},
    }
    top_k = {"name": "top_k", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 1}}
    predictions = _answer("One prediction for each input, in its place.", "Predictions")
    predictions["headers"] = {
        "x-dlkit-version": {"schema": {"type": "string"}, "description": "The version that answered."},
        "x-dlkit-batch": {"schema": {"type": "string"}, "description": "How many inputs were computed together."},
    }
    post = {
        "summary": "Predict",
        "operationId": "predict",
        "parameters": [model, top_k, _timeout(limits)],
        "requestBody": {"required": True, "content": _contents(models)},
        "responses": {
            "200": predictions,
            "422": _answer("No input can be used.", "Predictions", "Error"),
            **_refusals("400", "401", "403", "404", "408", "413", "415", "500", "503"),
        },
    }
    described = _answer("What the model takes and gives.", "Model")
    listed = {
        "type": "object",
        "required": ["models"],
        "properties": {"models": {"type": "array", "items": _ref("Model")}},
    }
    return {
        "/predict": {"post": post},
        "/model": {
            "get": {
                "summary": "What a model takes and gives",
                "operationId": "model",
                "parameters": [model],
                "responses": {"200": described, **_refusals("400", "401", "404")},
            }
        },
        "/models": {"get": _get("All models", "models", listed)},
        "/metrics": {
            "get": {
                "summary": "Counters, in the format of Prometheus",
                "operationId": "metrics",
                "responses": {
                    "200": {"description": "Counters.", "content": {"text/plain": {"schema": {"type": "string"}}}},
                    **_refusals("401"),
                },
            }
        },
        "/openapi.json": {"get": _get("This document", "openapi", {"type": "object"})},
        "/": {
            "get": {
                "summary": "The page",
                "operationId": "page",
                "responses": {
                    "200": {"description": "A page.", "content": {"text/html": {"schema": {"type": "string"}}}}
                },
            }
        },
    }


def _of_protocol(names: Sequence[str]) -> dict[str, Any]:
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "enum": list(names)}}
    infer = {
        "summary": "Predict, by the Open Inference Protocol",
        "operationId": "infer",
        "parameters": [name],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref("InferRequest")}}},
        "responses": {
            "200": _answer("The outputs.", "InferAnswer"),
            **_refusals("400", "401", "403", "404", "408", "413", "415", "422", "500", "503"),
        },
    }
    ready = {"type": "object", "properties": {"ready": {"type": "boolean"}}}
    not_ready = {"503": {"description": "Not ready.", "content": {"application/json": {"schema": ready}}}}
    metadata = _get("What a model takes and gives, by the protocol", "v2_model", {"type": "object"})
    model_ready = _get("Whether a model is ready", "v2_model_ready", ready)
    for each in (metadata, model_ready):
        each["parameters"] = [name]
        each["responses"] |= _refusals("404")
    model_ready["responses"] |= not_ready
    readiness = _get("Whether to send requests here", "v2_ready", ready)
    readiness["responses"] |= not_ready
    return {
        "/v2": {"get": _get("The server, by the Open Inference Protocol", "v2_server", {"type": "object"})},
        "/v2/health/live": {"get": _get("Whether the process answers", "v2_live", {"type": "object"})},
        "/v2/health/ready": {"get": readiness},
        "/v2/models/{name}": {"get": metadata},
        "/v2/models/{name}/ready": {"get": model_ready},
        "/v2/models/{name}/infer": {"post": infer},
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _answer(what: str, *schemas: str) -> dict[str, Any]:
    found = [_ref(name) for name in schemas]
    schema: dict[str, Any] = {"anyOf": found} if len(found) > 1 else dict(found[0])
    return {"description": what, "content": {"application/json": {"schema": schema}}}


def _get(summary: str, name: str, schema: dict[str, Any]) -> dict[str, Any]:
    good = {"description": summary, "content": {"application/json": {"schema": schema}}}
    return {"summary": summary, "operationId": name, "responses": {"200": good, **_refusals("401")}}


def _refusals(*statuses: str) -> dict[str, Any]:
    words = {
        "400": "The request cannot be read.",
        "401": "The token is missing or wrong.",
        "403": "Sent by a page of another site.",
        "404": "There is no such model.",
        "408": "The body came too slowly, or the time that the request gave was over.",
        "413": "The body is too large, or has too many inputs.",
        "415": "The model takes other media types.",
        "422": "No input can be used.",
        "500": "The model failed.",
        "503": "The queue is full, or the request's time was over; Retry-After says when to come again.",
    }
    return {status: _answer(words[status], "Error") for status in statuses}


def _timeout(limits: Limits) -> dict[str, Any]:
    return {
        "name": "timeout",
        "in": "query",
        "description": "Seconds after which the answer is of no use: then the request is not computed any more.",
        "schema": {"type": "number", "exclusiveMinimum": 0, "default": limits.seconds},
    }


def _contents(models: Sequence[Loaded]) -> dict[str, Any]:
    """The media types of all models, each with what a body of it is."""
    found: dict[str, Any] = {}
    for loaded in models:
        takes = TAKES[loaded.predictor.kind]
        one: dict[str, Any] = {"schema": {}}
        found |= dict.fromkeys(takes.raw, one) | {
            media: {"schema": {"type": "string", "minLength": 1}} for media in takes.files
        }
        if takes.raw or takes.files:
            part = {"contentMediaType": "application/octet-stream"}  # bytes, which have no type in JSON
            parts = {
                "type": "object",
                "properties": {"file": part if takes.files else {"type": "array", "items": part}},
            }
            found["multipart/form-data"] = {"schema": parts}
    inputs = [_ref(f"Input-{loaded.name}") for loaded in models]
    one_of: dict[str, Any] = dict(inputs[0]) if len(inputs) == 1 else {"anyOf": inputs}
    many = {"type": "array", "items": one_of, "minItems": 1}
    envelope = {
        "type": "object",
        "required": ["inputs"],
        "properties": {"inputs": many, "top_k": {"type": ["integer", "null"], "minimum": 1}},
        "additionalProperties": False,
    }
    found["application/json"] = {"schema": {"anyOf": [many, envelope, one_of]}}
    return found


def _schemas(models: Sequence[Loaded]) -> dict[str, Any]:
    number = {"type": ["number", "null"]}
    shares = {"type": "object", "additionalProperties": number}
    ranked = {"type": "object", "required": ["label", "probability"], "properties": {"label": {"type": "string"}}}
    ranked["properties"] |= {"probability": number}  # type: ignore[operator]
    prediction = {
        "type": "object",
        "properties": {
            "label": {"type": "string"},
            "probability": number,
            "top": {"type": "array", "items": ranked},
            "probabilities": shares,
            "values": shares,
            "error": {"type": "string"},
        },
        "additionalProperties": False,
    }
    tensor = {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
            "datatype": {"type": "string", "enum": ["BYTES", *DATATYPES]},
            "data": {"type": "array"},
        },
    }
    tensors = {"type": "array", "items": _ref("Tensor")}
    text = {"type": "string"}
    return {
        "Error": {"type": "object", "required": ["error"], "properties": {"error": text, "request_id": text}},
        "Model": {"type": "object", "required": ["name", "version", "kind", "task", "classes"]},
        "Prediction": prediction,
        "Predictions": {
            "type": "object",
            "required": ["model", "version", "predictions"],
            "properties": {
                "model": text,
                "version": text,
                "predictions": {"type": "array", "items": _ref("Prediction")},
                "error": text,
            },
        },
        "Tensor": tensor,
        "InferRequest": {
            "type": "object",
            "required": ["inputs"],
            "properties": {"id": text, "inputs": tensors | {"minItems": 1}},
        },
        "InferAnswer": {"type": "object", "required": ["outputs"], "properties": {"outputs": tensors}},
        **{f"Input-{loaded.name}": _input(loaded) for loaded in models},
    }


def _input(loaded: Loaded) -> dict[str, Any]:
    """One input of a model in JSON."""
    predictor = loaded.predictor
    if not isinstance(spec := predictor.preprocessing, TableSpec):
        return {"description": TAKES[predictor.kind].json, **TAKES[predictor.kind].schema}
    used = [column for column in spec.columns if column.used]
    return {
        "type": "object",
        "description": TAKES[predictor.kind].json,
        "required": [column.name for column in used],
        "properties": {column.name: _schema_of(column) for column in used},
        "example": {column.name: _example(column) for column in used},
    }


def _schema_of(column: Column) -> dict[str, Any]:
    if isinstance(column, CategoryColumn):
        return {"type": ["string", "number", "boolean", "null"], "examples": list(column.vocabulary[:10])}
    if column.kind == "number":
        return {"type": ["number", "string", "null"]}
    return {"type": ["string", "number", "boolean", "null"]}
