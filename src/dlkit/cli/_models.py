"""The commands that use a model file: `predict`, `evaluate`, `info`, `export`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dlkit._showing import Lines
from dlkit.cli._options import DebugFlag, Device, JsonFlag, Model, OnError, Source, Target, Text, column, reading
from dlkit.cli._talking import guarded, show, tell

__all__ = ["evaluate", "export", "info", "predict"]

_SHOWN = 50  # rows on the screen; a file gets all of them
_ENDINGS = {"onnx": ".onnx", "torch.export": ".pt2", "state_dict": ".pth"}


@guarded
def predict(
    model: Model,
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT", help="Images, folders, a table, or texts.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all predictions to this CSV.")] = None,
    text: Text = None,
    top_k: Annotated[int, typer.Option(help="So many classes for each input.", min=1)] = 1,
    batch_size: Annotated[int, typer.Option(help="Inputs at a time.", min=1)] = 64,
    on_error: OnError = "raise",
    device: Device = "cpu",
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Say what MODEL makes of something new.

    \b
    Examples:
      dlkit predict model.safetensors photo.jpg --top-k 3
      dlkit predict model.safetensors photos --out predictions.csv
      dlkit predict model.safetensors passengers.csv --out predictions.csv
      dlkit predict model.safetensors "call this number now"
      dlkit predict model.safetensors messages.csv --text message
    """
    import dlkit

    predictor = dlkit.load(model, device=device)
    source: Any = inputs[0] if len(inputs) == 1 else list(inputs)
    columns = {} if text is None else {"text": column(text)}
    found = predictor.predict(source, top_k=top_k, batch_size=batch_size, on_error=on_error, **columns)
    rows = _rows(found)
    if out is not None:
        import pandas as pd

        (found if hasattr(found, "to_csv") else pd.DataFrame(rows)).to_csv(out, index=False)
        tell(f"{len(rows)} predictions: {out}")
    show(_text(found, len(rows)), rows, as_json=json)


@guarded
def evaluate(
    model: Model,
    data: Source,
    target: Target = None,
    text: Text = None,
    part: Annotated[str | None, typer.Option(help="Of a folder with train, val and test: which to take.")] = None,
    on_error: OnError = "raise",
    device: Device = "cpu",
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Measure how right MODEL is on labelled DATA.

    Classes are matched by name, columns by name too; what the model needs to know of the data is in its file.

    \b
    Examples:
      dlkit evaluate model.safetensors photos --part test
      dlkit evaluate model.safetensors adult.test --target income
      dlkit evaluate model.safetensors messages.csv --text message --target label
    """
    from dlkit import recipes

    options = reading(target, text, None, on_error)
    measured = recipes.evaluate_file(model, data, part=part, device=device, **options)
    show(", ".join(f"{name} {value:.4g}" for name, value in measured.items()), measured, as_json=json)


@guarded
def info(model: Model, json: JsonFlag = False, debug: DebugFlag = False) -> None:
    """Say what is in the file MODEL, without loading its weights.

    \b
    Example:
      dlkit info model.safetensors
    """
    from dlkit.artifact import read_header

    head = read_header(model)
    numbers = sum(math.prod(shape) for shape in head.shapes.values())
    size = model.expanduser().stat().st_size
    document = {"file": model, **head.document, "numbers": numbers, "bytes": size}
    show(Lines.of(*_described(document)), document, as_json=json)


def _described(document: dict[str, Any]) -> list[str]:
    """A model file's document in lines; whatever is missing in it is left out."""
    made, means = document.get("architecture") or {}, document.get("meaning") or {}
    lines = {
        "file": f"{document['file']}, format {document['version']}, {document['bytes']:,} bytes",
        "model": f"{made.get('name')} ({made.get('library')}), {document['numbers']:,} numbers",
        "takes": f"{means.get('kind')}s" + _shape(means),
        "gives": f"{means.get('task')} of {', '.join(map(str, means.get('classes') or ()))[:300] or 'numbers'}",
        "reached": _listed(document.get("metrics")),
        "made with": _listed(document.get("versions")),
    }
    return [f"{name:10} {value}" for name, value in lines.items() if value]


def _shape(means: dict[str, Any]) -> str:
    spec = means.get("spec") or {}
    size, columns = spec.get("size"), spec.get("columns")
    if isinstance(size, list):
        return f" of {' x '.join(map(str, size))} pixels, {spec.get('color')}"
    used = [str(column.get("name")) for column in columns if isinstance(column, dict)] if columns else []
    return f" with the columns {', '.join(used)}"[:300] if used else ""


def _listed(values: Any) -> str:
    shown = {n: f"{v:.4g}" if isinstance(v, float) else v for n, v in (values or {}).items()}
    return ", ".join(f"{name} {value}" for name, value in shown.items())


@guarded
def export(
    model: Model,
    to: Annotated[Literal["onnx", "torch.export", "state_dict"], typer.Option(help="The kind of file.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Beside the model, if not given.")] = None,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Write MODEL for other programs.

    \b
    Examples:
      dlkit export model.safetensors --to onnx
      dlkit export model.safetensors --to state_dict --out weights.pth
    """
    import dlkit

    predictor = dlkit.load(model)
    path = out or model.with_suffix(_ENDINGS[to])
    written = dlkit.save(
        predictor.model,
        path,
        format=to,
        classes=predictor.classes,
        preprocessing=predictor.preprocessing,
        task=predictor.task,
    )
    show(f"{written} ({written.stat().st_size:,} bytes)", {"path": written, "format": to}, as_json=json)


def _rows(found: Any) -> list[dict[str, Any]]:
    """Predictions as one mapping each, whether there is one or a table of them."""
    if hasattr(found, "to_dict"):
        return list(found.to_dict("records"))
    if found.values:
        return [dict(found.values)]
    return [{"prediction": found.label, "probability": found.probability, "top": dict(found.top)}]


def _text(found: Any, count: int) -> str:
    if not hasattr(found, "head"):
        numbers = dict(found.top) or found.values
        return Lines.of(*(f"{name}  {value:.6g}" for name, value in numbers.items())) or "no label"
    more = [f"and {count - _SHOWN:,} more; --out FILE writes all"] if count > _SHOWN else []
    return Lines.of(*found.head(_SHOWN).to_string(index=False).split("\n"), *more)
