"""The commands that use a model file: `predict`, `evaluate`, `info`, `export`."""

from __future__ import annotations

import functools
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dlkit._language import Message, here
from dlkit._malloc import keep_memory
from dlkit._showing import Lines
from dlkit.cli._lines import FIRST, Written, check_out, fitted, show_first, write_lines
from dlkit.cli._options import DATA, READING, DebugFlag, Device, Fuse, JsonFlag, Model, OnError, takes
from dlkit.cli._talking import guarded, show, tell

__all__ = ["evaluate", "export", "info", "predict"]

# What decides on training data alone.
_FITTED = ("drop", "task", "tokenizer", "strip_html", "lower", "fractions")
_Tta = Annotated[bool, typer.Option("--tta", help="Average the predictions of images and their mirror images.")]
_INPUTS = {"audio": Message("sounds"), "image": Message("images"), "table": Message("tables"), "text": Message("texts")}
_ENDINGS = {"onnx": ".onnx", "torch.export": ".pt2", "state_dict": ".pth"}


@guarded
@takes(options=("text", "pair", "image", "audio", *READING))
def predict(
    model: Model,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT", help="Images, sounds, folders, a table; for a text model texts."),
    ] = None,
    file: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="A file of texts, or any other; again for several.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write to this file: CSV, or JSON lines if it ends in .jsonl.")
    ] = None,
    options: Any = None,
    id: Annotated[  # noqa: A002
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Column that names each line, instead of its number; again for several."),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep all columns of the inputs beside the predictions.")
    ] = False,
    top_k: Annotated[int, typer.Option(help="Number of classes for each input.", min=1)] = 1,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Add the probabilities of all classes.")
    ] = False,
    tta: _Tta = False,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Inputs at a time; by default 64, 1,024 rows of a table, 8 photos on a CPU.", min=1),
    ] = None,
    on_error: OnError = "raise",
    fuse: Fuse = False,
    device: Device = "cpu",
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Predict with MODEL, one line for each input, as soon as it is computed.

    For a model of texts an INPUT is a text, and --file names a file of texts; for others an INPUT is a file. Lines are
    CSV, or with --json one JSON object each, and begin with the file or the row they are of; a terminal shows the first
    ten. --on-error skip puts an error into the line of an input that is broken.

    \b
    Examples:
      dlkit predict model.safetensors photo.jpg --top-k 3
      dlkit predict model.safetensors photos --out predictions.csv
      dlkit predict model.safetensors sound.wav
      dlkit predict runs/titanic passengers.csv --out predictions.csv --id PassengerId
      dlkit predict runs/titanic passengers.csv --out predictions.csv --keep --probabilities
      dlkit predict model.safetensors "call this number now"
      dlkit predict model.safetensors --file messages.csv --json
    """
    import dlkit

    check_out(out, [model, *(inputs or ()), *(file or ())])
    keep_memory()
    predictor = dlkit.load(model, device=device, fuse=fuse)
    options |= {"keep": True if keep else id} if keep or id else {}
    asked = _asked(predictor.kind, inputs or [], file or [], bool(options.keys() & {"text", "pair"}))
    screen = sys.stdout.isatty() and not json
    ask = functools.partial(
        predictor.predict_batches,
        top_k=top_k,
        probabilities=probabilities,
        tta=tta,
        batch_size=batch_size,
        on_error=on_error,
        progress=out is not None or not screen,  # else the lines show it
        **options,
    )
    tables, written = _named(predictor.kind, asked, ask, by_id=bool(id) and not keep), Written()
    if screen and out is None:
        if show_first(tables):
            tell(Message("the first {count}; --out predictions.csv writes all", count=FIRST))
        return
    try:
        as_json = out.suffix == ".jsonl" if out is not None else json
        write_lines(tables, out, written, as_json=as_json, skipping=on_error == "skip")
    finally:
        if screen:
            show_first(written.first)
        if out is not None and written.lines:
            failed = Message(" ({count} with an error in its place)", count=written.errors) if written.errors else ""
            tell(Message("{count} predictions{failed}: {file}", count=written.lines, failed=failed, file=out))
    if out is not None and json:
        show("", {"out": out, "lines": written.lines, "errors": written.errors}, as_json=True)


def _asked(kind: str, inputs: list[str], files: list[str], columns: bool) -> Any:
    """What the words of a command mean, by the model's kind alone: texts or files."""
    from dlkit.inference.inputs import files_named

    if kind != "text":
        inputs, files = [], [*inputs, *files]
    if bool(inputs) == bool(files):
        both = "give texts or --file FILE, not both" if inputs else "give at least one INPUT, or --file FILE"
        raise typer.BadParameter(both)
    if inputs and columns:
        raise typer.BadParameter(
            f"--text names a column of a file, and a file of texts is named by --file {shlex.quote(inputs[0])}"
        )
    if inputs and Path(inputs[0][:255]).is_file():
        tell(
            Message(
                "note: {text!r} is taken as a text; --file {file} reads the file of that name",
                text=inputs[0],
                file=shlex.quote(inputs[0]),
            )
        )
    return inputs or files_named(files[0] if len(files) == 1 else files)


def _named(kind: str, asked: Any, ask: Callable[[Any], Iterator[Any]], *, by_id: bool) -> Iterator[Any]:
    """Predictions in tables whose every line says what it is of: its file, or its row and, of several, the file."""
    from dlkit.inference.inputs import FileName
    from dlkit.inference.outputs import free

    def first(table: Any, heading: str, values: Any) -> None:
        table.insert(0, free(heading, list(table.columns)), values)

    several = kind in ("table", "text") and isinstance(asked, list) and isinstance(asked[0], FileName)
    for each in asked if several else [asked]:
        for table in ask(each):
            named = "file" in table.columns or by_id or (kind == "text" and isinstance(each, list))
            if kind in ("table", "text") and not named:
                first(table, "row", table.index)
            if several and "file" not in table.columns:
                first(table, "file", os.fspath(each))
            yield table


@guarded
@takes(options=tuple(name for name in DATA if name not in _FITTED))
def evaluate(
    model: Model,
    data: Annotated[
        str | None, typer.Argument(metavar="[DATA]", help="Data, if not what the run of MODEL held out.")
    ] = None,
    options: Any = None,
    part: Annotated[
        str | None, typer.Option(help="train, val or test: a part of the run's data, or a folder of DATA.")
    ] = None,
    tta: _Tta = False,
    device: Device = "cpu",
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Evaluate MODEL on labelled DATA.

    Classes are matched by name, columns by name too; what the model needs to know of the data is in its file. The
    measures and their units are those of `dlkit train`. Without DATA it is the part that the run of MODEL held out; a
    warning says how much of other data the model has been trained on.

    \b
    Examples:
      dlkit evaluate runs/titanic
      dlkit evaluate runs/titanic --part val
      dlkit evaluate model.safetensors photos --part test
      dlkit evaluate model.safetensors adult.test --target income
      dlkit evaluate model.safetensors messages.csv --text message --target label
    """
    from dlkit import recipes

    measured = recipes.evaluate_file(model, data, part=part, tta=tta, device=device, **options)
    show(", ".join(f"{name} {value:.4g}" for name, value in measured.items()), measured, as_json=json)


@guarded
def info(model: Model, json: JsonFlag = False, debug: DebugFlag = False) -> None:
    """Describe the file MODEL, without loading its weights.

    \b
    Example:
      dlkit info model.safetensors
    """
    from dlkit.artifact import read_header

    head = read_header(model)
    numbers = sum(math.prod(shape) for shape in head.shapes.values())
    size = head.path.stat().st_size
    document = {"file": head.path, **head.document, "numbers": numbers, "bytes": size}
    show(Lines.of(*_described(document)), document, as_json=json)


def _described(document: dict[str, Any]) -> list[str]:
    """A model file's document in lines; whatever is missing in it is left out."""
    made, means = document.get("architecture") or {}, document.get("meaning") or {}
    kind = str(means.get("kind"))
    lines = {
        Message("file"): Message(
            "{file}, format {version}, {bytes:,} bytes", **{n: document[n] for n in ("file", "version", "bytes")}
        ),
        Message("model"): Message(
            "{name} ({library}), {count:,} numbers",
            name=made.get("name"),
            library=made.get("library"),
            count=document["numbers"],
        ),
        Message("takes"): Message("{kind}{shape}", kind=_INPUTS.get(kind, f"{kind}s"), shape=_shape(means)),
        Message("gives"): Message(
            "{task} of {classes}",
            task=means.get("task"),
            classes=", ".join(map(str, means.get("classes") or ()))[:300] or Message("numbers"),
        ),
        Message("reached"): _listed(document.get("metrics")),
        Message("made with"): _listed(document.get("versions")),
    }
    return [f"{fitted(name, 10)} {here(value)}" for name, value in lines.items() if value]


def _shape(means: dict[str, Any]) -> str:
    spec = means.get("spec") or {}
    size, columns = spec.get("size"), spec.get("columns")
    if isinstance(size, list):
        return Message(" of {size} pixels, {color}", size=" x ".join(map(str, size)), color=spec.get("color"))
    if isinstance(rate := spec.get("sample_rate"), int):
        seconds = spec.get("seconds")
        if isinstance(seconds, float):
            return Message(" at {rate:,} Hz, {seconds:g} seconds", rate=rate, seconds=seconds)
        return Message(" at {rate:,} Hz", rate=rate)
    used = [str(column.get("name")) for column in columns if isinstance(column, dict)] if columns else []
    used = used or [str(name) for name in means.get("columns") or ()]
    return Message(" with the columns {names}", names=", ".join(used)[:280]) if used else ""


def _listed(values: Any) -> str:
    shown = {n: f"{v:.4g}" if isinstance(v, float) else v for n, v in (values or {}).items()}
    return ", ".join(f"{name} {value}" for name, value in shown.items())


@guarded
def export(
    model: Model,
    to: Annotated[Literal["onnx", "torch.export", "state_dict"], typer.Option(help="File format.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Output file; beside the model if not given.")
    ] = None,
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
    from dlkit.artifact.header import model_file
    from dlkit.storage.files import check_writable

    path = out or model_file(model).with_suffix(_ENDINGS[to])
    check_writable(path)
    predictor = dlkit.load(model)
    written = dlkit.save(
        predictor.model,
        path,
        format=to,
        classes=predictor.classes,
        preprocessing=predictor.preprocessing,
        task=predictor.task,
    )
    show(
        Message("{file} ({bytes:,} bytes)", file=written, bytes=written.stat().st_size),
        {"path": written, "format": to},
        as_json=json,
    )
