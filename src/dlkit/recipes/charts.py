"""Charts of a report, as bare HTML and SVG: no program, no picture file, nothing to install."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from dlkit._html import escaped, number
from dlkit._language import Message, here

__all__ = ["bars", "heat_table", "line_chart"]

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#8A8A8A")  # Okabe & Ito (2008)
_HIT, _MISS = "0,114,178", "213,94,0"
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 420, 250, 52, 38

Curve = Sequence[tuple[float, float]]


def heat_table(names: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """A confusion matrix: true classes in rows, predicted ones in columns; shades follow the share of the row.

    Args:
        names: Of the classes.
        counts: [true][predicted].
    """
    head = "".join(f'<th scope="col">{escaped(name)}</th>' for name in names)
    rows = []
    for place, (name, row) in enumerate(zip(names, counts, strict=True)):
        cells = [_heat(count, count / (sum(row) or 1), hit=place == other) for other, count in enumerate(row)]
        rows.append(f'<tr><th scope="row">{escaped(name)}</th>{"".join(cells)}</tr>')
    corner = f'<th scope="col">{escaped(Message("true"))} \\ {escaped(Message("predicted"))}</th>'
    return f'<div class="wide"><table class="heat"><tr>{corner}{head}</tr>{"".join(rows)}</table></div>'


def _heat(count: int, share: float, *, hit: bool) -> str:
    ink = ";color:#fff" if share > 0.5 else ""
    shade = f"background:rgba({_HIT if hit else _MISS},{share:.2f}){ink}"
    return f'<td class="n" style="{shade}">{count or ""}</td>'


def bars(values: Mapping[str, float]) -> str:
    """Horizontal bars of some `values`, each with its name and figure."""
    most = max((abs(value) for value in values.values()), default=0) or 1
    rows = [
        f'<tr><th scope="row">{escaped(name)}</th><td class="bar">'
        f'<span style="width:{100 * max(value, 0) / most:.1f}%"></span></td><td class="n">{number(value)}</td></tr>'
        for name, value in values.items()
    ]
    return f'<div class="wide"><table class="bars">{"".join(rows)}</table></div>'


def line_chart(
    curves: Mapping[str, Curve],
    *,
    across: str,
    up: str,
    diagonal: bool = False,
    dots: bool = False,
    square: bool = False,
) -> str:
    """Curves in one picture.

    Args:
        curves: Points (x, y) by name; points that are not numbers are left out.
        across: What x is.
        up: What y is.
        diagonal: Draw where y is x.
        dots: Points without lines between them.
        square: Both axes go from 0 to 1.
    """
    points = {name: [p for p in curve if all(map(math.isfinite, p))] for name, curve in curves.items()}
    xs, ys = ([p[axis] for curve in points.values() for p in curve] for axis in (0, 1))
    if not xs:
        return ""
    x, y = _Axis(0, 1) if square else _Axis(min(xs), max(xs)), _Axis(0, 1) if square else _Axis(min(ys), max(ys))

    def place(point: tuple[float, float]) -> str:
        left = _LEFT + x.share(point[0]) * (_WIDTH - _LEFT - 10)
        return f"{left:.1f},{10 + (1 - y.share(point[1])) * (_HEIGHT - _BOTTOM - 10):.1f}"

    parts = [_grid(x, y, across, up)]
    if diagonal:
        low, high = max(x.low, y.low), min(x.high, y.high)
        parts.append(f'<polyline class="diagonal" points="{place((low, low))} {place((high, high))}"/>')
    for color, (name, curve) in zip(_colors(len(points)), points.items(), strict=True):
        parts.append(f"<g><title>{escaped(name)}</title>{_marks(curve, place, color, lines=not dots)}</g>")
    legend = "".join(
        f'<li><span style="background:{color}"></span>{escaped(name)}</li>'
        for color, name in zip(_colors(len(points)), points, strict=True)
    )
    label = escaped(Message("{up} by {across}: {names}", up=up, across=across, names=", ".join(map(here, points))))
    svg = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    return f'<figure>{svg}<ul class="legend">{legend}</ul></figure>'


class _Axis:
    def __init__(self, low: float, high: float) -> None:
        room = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
        unit = (low, high) == (0, 1)
        self.low, self.high = (low, high) if unit else (low - room, high + room)

    def share(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        step = 10 ** math.floor(math.log10((self.high - self.low) / 2))
        step = next(step * factor for factor in (1, 2, 5, 10) if (self.high - self.low) / (step * factor) <= 6)
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _colors(count: int) -> list[str]:
    return [_COLORS[place % len(_COLORS)] for place in range(count)]


def _grid(x: _Axis, y: _Axis, across: str, up: str) -> str:
    right, foot = _WIDTH - 10, _HEIGHT - _BOTTOM
    parts = []
    for tick in x.ticks():
        at = _LEFT + x.share(tick) * (right - _LEFT)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="10" y2="{foot}"/>')
        parts.append(f'<text x="{at:.1f}" y="{foot + 14}" text-anchor="middle">{tick:.4g}</text>')
    for tick in y.ticks():
        at = 10 + (1 - y.share(tick)) * (foot - 10)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{at + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    middle = (_LEFT + right) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">{escaped(across)}</text>')
    parts.append(f'<text transform="translate(12 {foot / 2}) rotate(-90)" text-anchor="middle">{escaped(up)}</text>')
    return "".join(parts)


def _marks(curve: Curve, place: Callable[[tuple[float, float]], str], color: str, *, lines: bool) -> str:
    spots = [place(point) for point in curve]
    dots = "".join(
        '<circle cx="{}" cy="{}" r="2.5" fill="{}" fill-opacity="{}"/>'.format(
            *spot.split(","), color, 1 if lines else 0.4
        )
        for spot in (spots if len(spots) <= 40 or not lines else ())
    )
    return dots + (f'<polyline stroke="{color}" points="{" ".join(spots)}"/>' if lines else "")
