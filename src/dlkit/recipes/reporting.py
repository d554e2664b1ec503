"""`report.html`: what a training came to, in one file that needs nothing else; its frame is beside this file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

import dlkit._version as version
from dlkit._answers import calibration, ranked
from dlkit._calling import call, evaluating, output_of
from dlkit._html import escaped, number, table
from dlkit._language import Message, language
from dlkit.errors import ArgumentError
from dlkit.inference.outputs import probabilities_of, weighed
from dlkit.inference.predictor import Predictor, load
from dlkit.recipes.charts import bars, heat_table, line_chart
from dlkit.recipes.fold_scores import FoldScores
from dlkit.recipes.kinds import Kind
from dlkit.recipes.mistakes import mistakes
from dlkit.recipes.outcome import Outcome, outcome_of
from dlkit.recipes.reading import Data
from dlkit.recipes.standing import r2
from dlkit.storage.files import atomic_write

__all__ = ["report", "write_report"]

_FRAME = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
_CLASSES = 30  # rows and columns of a confusion matrix; curves are drawn for fewer
_CURVES = 6
_POINTS = 200  # of a cloud of points
_SHUFFLED = 2_000  # rows that importance is measured on


def write_report(
    path: str | os.PathLike[str],
    *,
    outcome: Outcome,
    predictor: Predictor,
    data: Data,
    judged_on: str,
    history: Sequence[Mapping[str, Any]],
    choices: Sequence[str],
    settings: Mapping[str, Any],
) -> None:
    """Write a report: one HTML file with everything in it, which runs no program and loads nothing.

    Args:
        path: Of the file.
        outcome: What the model said of the samples that judge it.
        predictor: The model.
        data: What it was trained on.
        judged_on: "test" or "val".
        history: Rows of the training.
        choices: What was chosen and why, in sentences.
        settings: Of the run.
    """
    sections = {
        "Folds": "" if data.folds is None else _folds(data.folds),
        Message("Result"): _result(outcome, judged_on),
        Message("Training"): _curves(history),
        Message("Values") if outcome.task == "regression" else Message("Classes"): _classes(outcome),
        Message("Missed most") if outcome.task == "regression" else Message("Mistakes"): mistakes(outcome, data.kind),
        Message("Which columns matter"): _importance(outcome, predictor),
        Message("Data"): _list(data.how),
        Message("Choices"): _list(choices),
        Message("Again"): _again(data, predictor, settings),
    }
    body = "".join(f"<section><h2>{escaped(name)}</h2>{text}</section>" for name, text in sections.items() if text)
    before, after = _FRAME.replace("TITLE", escaped(data.name)).replace("LANG", language()).split("BODY")
    with atomic_write(Path(path)) as file:
        file.write(f"{before}{body}{after}".encode())


def report(
    model: str | os.PathLike[str],
    train: Any,
    test: Any,
    history: Sequence[Mapping[str, Any]] = (),
    *,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    """Write `report.html` beside a model file that you have trained yourself: one file with everything in it.

    Args:
        model: What `dlkit.save` wrote.
        train: The dataset that it was trained on, for what is usual there.
        test: The one that judges it.
        history: Rows of the training: `history.rows`.
        settings: Anything that says how to do it again.

    Returns:
        The report.

    Raises:
        ArgumentError: the model takes bare tensors, of which nothing can be shown.
    """
    predictor = load(model)
    if predictor.kind not in _KINDS:
        raise ArgumentError(f"a report shows samples, and this model takes inputs of the kind {predictor.kind!r}")
    path = Path(predictor.info["file"])
    how = tuple(line.strip() for line in repr(train).splitlines())
    kind = _KINDS[predictor.kind]
    data = Data(kind=kind, name=path.parent.name, source="", how=how, train=train, val=test, test=test)
    write_report(
        path.with_name("report.html"),
        outcome=outcome_of(predictor, data, test),
        predictor=predictor,
        data=data,
        judged_on="test",
        history=history,
        choices=(),
        settings=settings,
    )
    return path.with_name("report.html")


_KINDS: dict[str, Kind] = {"image": "images", "audio": "sounds", "table": "table", "text": "text"}


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escaped(line)}</li>' for line in lines)}</ul>" if lines else ""


def _result(outcome: Outcome, judged_on: str) -> str:
    standing = outcome.standing
    sure = Message(
        "95 %: {low} to {high}, on {samples:,} samples of the part {part}.",
        low=number(standing.low),
        high=number(standing.high),
        samples=standing.samples,
        part=judged_on,
    )
    without = Message(
        "Without a model, {says} gives {baseline}.", says=standing.baseline_says, baseline=number(standing.baseline)
    )
    head = (
        f'<p class="big">{escaped(standing.measure)} {number(standing.score)}</p>'
        f"<p>{escaped(sure)} {escaped(without)}</p>"
    )
    warnings = "".join(f'<p class="warning">{escaped(line)}</p>' for line in standing.warnings)
    if judged_on == "val":
        flattering = Message("The same part chose the best epoch, so the figures are slightly optimistic.")
        warnings += f'<p class="warning">{escaped(flattering)}</p>'
    return head + warnings + table([Message("measure"), Message("value")], list(standing.others.items()))


def _folds(scores: FoldScores) -> str:
    """What says how good the model is: it was trained on all of the data, as those of the folds on most of it."""
    main, (low, high) = scores.names[0], scores.interval(scores.names[0])
    head = ["fold", "train", "val", "test", *scores.names]
    rows: list[list[object]] = [[row[name] for name in head] for row in scores.rows]
    rows.append([Message("mean"), "", "", "", *scores.mean.values()])
    rows.append([Message("deviation"), "", "", "", *scores.std.values()])
    said = Message(
        "The mean of {folds} folds and the deviation between them; 95 % of the mean: {low} to {high}. "
        "This model was then trained in the same way on all of the data, a tenth of which chose the epoch.",
        folds=len(scores.rows),
        low=number(low),
        high=number(high),
    )
    return (
        f'<p class="big">{main} {number(scores.mean[main])} &plusmn; {number(scores.std[main])}</p>'
        f"<p>{escaped(said)}</p>{table(head, rows)}"
    )


def _curves(history: Sequence[Mapping[str, Any]]) -> str:
    names = dict.fromkeys(name for row in history for name in row if name not in ("epoch", "step", "samples", "lr"))
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.removeprefix("train_").removeprefix("val_"), []).append(name)
    pictures = []
    for quantity, members in groups.items():
        curves = {
            name: [(float(row["epoch"]), float(row[name])) for row in history if isinstance(row.get(name), float)]
            for name in members
        }
        pictures.append(line_chart(curves, across=Message("epoch"), up=quantity))
    return f'<div class="grid">{"".join(pictures)}</div>' if any(pictures) else ""


def _classes(outcome: Outcome) -> str:
    """One row per class, who is treated as whom, and how far probabilities can be believed."""
    if outcome.task == "regression":
        return _values(outcome)
    rows = [
        (row.name, row.samples, row.predicted, row.precision, row.recall, row.f1, row.auroc)
        for row in outcome.standing.classes
    ]
    counted = [Message("class"), Message("samples"), Message("predicted")]
    text = table([*counted, Message("precision"), Message("recall"), "F1", "AUROC"], rows)
    if outcome.task != "multilabel" and len(outcome.names) <= _CLASSES:
        size = len(outcome.names)
        counts = torch.bincount(outcome.true * size + outcome.weighed.argmax(1), minlength=size * size)
        text += f"<h3>{escaped(Message('Confusion matrix'))}</h3>" + heat_table(
            outcome.names, counts.view(size, size).tolist()
        )
    return text + f'<div class="grid">{"".join(_trust(outcome))}</div>'


def _trust(outcome: Outcome) -> Iterator[str]:
    there = outcome.true > 0.5 if outcome.task == "multilabel" else torch.eye(len(outcome.names))[outcome.true] > 0.5
    shown = range(len(outcome.names)) if len(outcome.names) <= _CURVES else range(0)
    if len(outcome.names) == 2 and outcome.task != "multilabel":
        shown = range(1, 2)
    roc, pr = dict[str, Any](), dict[str, Any]()
    for place in shown:
        if 0 < int(there[:, place].sum()) < len(there):
            roc[outcome.names[place]], pr[outcome.names[place]] = ranked(outcome.said[:, place], there[:, place])
    if roc:
        others, found = Message("false positive rate"), Message("recall (true positive rate)")
        yield line_chart(roc, across=others, up=found, diagonal=True, square=True)
        yield line_chart(pr, across=found, up=Message("precision (share that is right)"), square=True)
    if outcome.task == "multilabel":
        surest, hits = outcome.said.flatten(), there.flatten()
    else:
        surest, answers = outcome.said.max(1)
        hits = answers == outcome.true
    curve: dict[str, Any] = {Message("calibration: the diagonal is perfect"): calibration(surest, hits)}
    yield line_chart(curve, across=Message("probability"), up=Message("share"), diagonal=True, square=True)


def _values(outcome: Outcome) -> str:
    some = torch.linspace(0, len(outcome.true) - 1, min(_POINTS, len(outcome.true))).round().long()
    pictures = []
    for place, name in enumerate(outcome.names[:_CURVES]):
        points = zip(outcome.true[some, place].tolist(), outcome.said[some, place].tolist(), strict=True)
        across = Message("true {name}", name=name)
        picture = line_chart({name: list(points)}, across=across, up=Message("predicted"), diagonal=True, dots=True)
        pictures.append(picture)
    return f'<div class="grid">{"".join(pictures)}</div>'


def _importance(outcome: Outcome, predictor: Predictor) -> str:
    """How much worse a table's model answers when one column is shuffled among its rows (Breiman 2001; Fisher 2019)."""
    if predictor.kind != "table":
        return ""
    spec, part = predictor.preprocessing, outcome.part
    rows = torch.linspace(0, len(part) - 1, min(_SHUFFLED, len(part))).round().long()
    inputs = {name: getattr(part, name)[rows] for name in ("numeric", "categorical") if getattr(part, name) is not None}
    if set(spec.parts) - inputs.keys():
        return ""  # texts and images in a table are not in memory
    drawn = torch.Generator().manual_seed(0)
    before, found = _score(outcome, predictor, inputs, rows), dict[str, float]()
    for name, kind, columns in _columns(spec):
        other = inputs[kind].clone()
        other[:, columns] = inputs[kind][torch.randperm(len(rows), generator=drawn)][:, columns]
        found[name] = before - _score(outcome, predictor, {**inputs, kind: other}, rows)
    ranked = dict(sorted(found.items(), key=lambda pair: -pair[1])[:20])
    said = Message(
        "How much lower the {measure} is when a column is shuffled among {rows:,} rows. "
        "Columns that say the same share their worth.",
        measure=outcome.standing.measure,
        rows=len(rows),
    )
    return f"<p>{escaped(said)}</p>{bars(ranked)}"


def _columns(spec: Any) -> Iterator[tuple[str, str, list[int]]]:
    start = 0
    for column in spec.numbers:
        width = len(column.features())
        yield column.name, "numeric", list(range(start, start + width))
        start += width
    for place, column in enumerate(spec.categories):
        yield column.name, "categorical", [place]


def _score(outcome: Outcome, predictor: Predictor, inputs: Mapping[str, Tensor], rows: Tensor) -> float:
    parts = []
    with evaluating(predictor.model):
        for start in range(0, len(rows), 512):
            some = {name: value[start : start + 512].to(predictor.device) for name, value in inputs.items()}
            parts.append(output_of(call(predictor.model, some)).float().cpu())
    said, true = probabilities_of(predictor.meaning, torch.cat(parts)), outcome.true[rows]
    if outcome.task == "regression":
        return r2(said, true)
    said = weighed(predictor.meaning, said)
    answers = said > 0.5 if outcome.task == "multilabel" else said.argmax(1)
    return float((answers == (true > 0.5 if outcome.task == "multilabel" else true)).double().mean())


def _again(data: Data, predictor: Predictor, settings: Mapping[str, Any]) -> str:
    file = Path(predictor.info["file"]).name
    versions = {"dlkit": version.__version__, "torch": torch.__version__, **predictor.info["versions"]}
    lines = Message(
        "The same command resumes this run, or trains nothing if it is finished. The model is {file}; "
        "dlkit.load({file!r}) predicts with it.",
        file=file,
    )
    text = json.dumps(dict(settings), indent=1, ensure_ascii=False, default=str)
    shown = "\n".join(escaped(line) for line in text.splitlines())
    return f"<p>{escaped(lines)}</p><pre>{shown}</pre>" + table(
        [Message("package"), Message("version")], list(versions.items())
    )
