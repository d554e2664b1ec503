"""The samples that a model answered most wrongly, as HTML, each as a person would want to see it."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from dlkit._answers import mistaken
from dlkit._html import cards, escaped, number, table
from dlkit._language import Message
from dlkit.recipes.outcome import Outcome

__all__ = ["mistakes"]

_SHOWN = 12
_CELLS, _CELL = 20, 60  # columns of a row, and characters of each


def mistakes(outcome: Outcome, kind: str) -> str:
    """Those that it was surest of, and wrong; of a regression those it missed most.

    Args:
        outcome: Answers and truth.
        kind: Of the data, see `Data.kind`.
    """
    wrong = _wrongness(outcome)
    worst = [place for place in wrong.argsort(descending=True, stable=True)[:_SHOWN].tolist() if wrong[place] > 0]
    if not worst:
        return f"<p>{escaped(Message('No sample was predicted wrongly.'))}</p>"
    if kind == "table":
        return _rows(outcome, worst)
    show: Callable[[int], str] = outcome.part.sample_html
    shown = [
        f"{show(place)}<p><b>{escaped(_said(outcome, place))}</b><br>"
        f"{escaped(Message('true: {answer}', answer=_true(outcome, place)))}</p>"
        for place in worst
    ]
    return cards(shown, kind=kind)


def _rows(outcome: Outcome, worst: list[int]) -> str:
    part = outcome.part
    used = list(part.spec.input_columns)[:_CELLS]
    frame = part.to_pandas()[used].iloc[worst]
    rows = [
        [int(part.rows[place]), _said(outcome, place), _true(outcome, place), *(str(value)[:_CELL] for value in values)]
        for place, values in zip(worst, frame.itertuples(index=False, name=None), strict=True)
    ]
    return table([Message("row"), Message("answer"), Message("true"), *used], rows)


def _wrongness(outcome: Outcome) -> Tensor:
    """How wrong each answer is; 0 for those that are right."""
    said, true = outcome.weighed.double(), outcome.true
    if outcome.task == "regression":
        return ((said - true).abs() / true.double().std(0, correction=0).clamp_min(1e-12)).amax(1)
    if outcome.task == "multilabel":
        off = (said - true).abs()
        return torch.where((off > 0.5).any(1), off.amax(1), 0.0)
    return mistaken(said, true)


def _said(outcome: Outcome, place: int) -> str:
    row = outcome.said[place]
    if outcome.task in ("regression", "multilabel"):
        return _named(outcome, outcome.weighed[place])
    answer = int(outcome.weighed[place].argmax())
    return f"{outcome.names[answer]} {float(row[answer]):.3f}"


def _true(outcome: Outcome, place: int) -> str:
    row = outcome.true[place]
    return _named(outcome, row) if outcome.task in ("regression", "multilabel") else outcome.names[int(row)]


def _named(outcome: Outcome, row: Tensor) -> str:
    if outcome.task == "regression":
        return ", ".join(f"{name} {number(value)}" for name, value in zip(outcome.names, row.tolist(), strict=True))
    return ", ".join(itertools.compress(outcome.names, (row > 0.5).tolist())) or Message("no label")
