"""The samples that a model answered most wrongly, as HTML, each as a person would want to see it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor

from dlkit._answers import mistaken
from dlkit._html import cards, escaped, number, picture, table
from dlkit.declared import spec_in
from dlkit.plots.sound import play
from dlkit.recipes.outcome import Outcome

__all__ = ["mistakes"]

_SHOWN = 12
_TEXT = 400  # characters of a text that is shown
_CELLS, _CELL = 20, 60  # columns of a row, and characters of each
_SIDE = 128  # pixels of a picture
_SECONDS = 5  # of a recording

Show = Callable[[int], str]


def mistakes(outcome: Outcome, kind: str) -> str:
    """Those that it was surest of, and wrong; of a regression those it missed most.

    Args:
        outcome: Answers and truth.
        kind: Of the data, see `Data.kind`.
    """
    wrong = _wrongness(outcome)
    worst = [place for place in wrong.argsort(descending=True, stable=True)[:_SHOWN].tolist() if wrong[place] > 0]
    if not worst:
        return "<p>None of the samples was answered wrongly.</p>"
    if kind == "table":
        return _rows(outcome, worst)
    show = _SHOW[kind](outcome.part)
    shown = [
        f"{show(place)}<p><b>{escaped(_said(outcome, place))}</b><br>true: {escaped(_true(outcome, place))}</p>"
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
    return table(["row", "answer", "true", *used], rows)


def _wrongness(outcome: Outcome) -> Tensor:
    """How wrong each answer is; 0 for those that are right."""
    said, true = outcome.said.double(), outcome.true
    if outcome.task == "regression":
        return ((said - true).abs() / true.double().std(0, correction=0).clamp_min(1e-12)).amax(1)
    if outcome.task == "multilabel":
        off = (said - true).abs()
        return torch.where((off > 0.5).any(1), off.amax(1), 0.0)
    return mistaken(said, true)


def _said(outcome: Outcome, place: int) -> str:
    row = outcome.said[place]
    if outcome.task in ("regression", "multilabel"):
        return _named(outcome, row)
    return f"{outcome.names[int(row.argmax())]} {float(row.max()):.3f}"


def _true(outcome: Outcome, place: int) -> str:
    row = outcome.true[place]
    return _named(outcome, row) if outcome.task in ("regression", "multilabel") else outcome.names[int(row)]


def _named(outcome: Outcome, row: Tensor) -> str:
    if outcome.task == "regression":
        return ", ".join(f"{name} {number(value)}" for name, value in zip(outcome.names, row.tolist(), strict=True))
    return ", ".join(itertools.compress(outcome.names, (row > 0.5).tolist())) or "no label"


def _image(part: Any) -> Show:
    def show(place: int) -> str:
        path = part.path(place)
        try:
            with Image.open(path) as opened:
                opened.draft("RGB", (2 * _SIDE, 2 * _SIDE))
                return picture(ImageOps.exif_transpose(opened), path.name)
        except (OSError, ValueError):  # a format that Pillow needs an extra for
            return f"<p>{escaped(path.name)}</p>"

    return show


def _letter(part: Any) -> Show:
    images = part.images
    return lambda place: picture(Image.fromarray(images[place].numpy()), f"sample {place}")


def _text(part: Any) -> Show:
    def show(place: int) -> str:
        text = part.texts[place]
        return f"<blockquote>{escaped(text[:_TEXT] + ('…' if len(text) > _TEXT else ''))}</blockquote>"

    return show


def _sound(part: Any) -> Show:
    rate = spec_in(part).sample_rate

    def show(place: int) -> str:
        waveform = part[place][0][..., : _SECONDS * rate]
        return f"{play(waveform, rate)._repr_html_()}<p>{escaped(part.path(place).name)}</p>"

    return show


_SHOW: dict[str, Callable[[Any], Show]] = {"images": _image, "letters": _letter, "sounds": _sound, "text": _text}
