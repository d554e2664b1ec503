"""Tables and pictures as bare HTML, for reports and notebooks: whatever is in them, they run nothing."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dlkit._showing import safe

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Shown", "cards", "escaped", "facts", "lines", "number", "picture", "table"]

_CARDS = "display:flex;flex-wrap:wrap;gap:.6em;list-style:none;padding:0;margin:.4em 0"


class Shown:
    """What a notebook shows as it is printed; a class with more to show writes `_repr_html_` itself."""

    def _repr_html_(self) -> str:
        return lines(str(self))


def escaped(text: object) -> str:
    """Text from anywhere, so that it can be in a page and does nothing there.

    Args:
        text: Of a class, file, row or message.

    >>> escaped("<b>")
    '&lt;b&gt;'
    """
    return html.escape(safe(text if isinstance(text, str) else str(text)))


def number(value: float) -> str:
    """A figure with four digits; a dash for what is not a number.

    Args:
        value: Any number.

    >>> number(0.98765), number(12345.678), number(float("nan"))
    ('0.9877', '12,346', '–')
    """
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; numbers stand to the right.

    Args:
        head: Headings; none for a table without.
        rows: Cells.
    """

    def cell(value: object) -> str:
        if isinstance(value, float | int) and not isinstance(value, bool):
            return f'<td class="n">{number(value)}</td>'
        return f"<td>{escaped(value)}</td>"

    top = "".join(f'<th scope="col">{escaped(name)}</th>' for name in head)
    top = f"<thead><tr>{top}</tr></thead>" if top else ""
    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return f'<div class="wide"><table>{top}<tbody>{body}</tbody></table></div>'


def facts(title: str, values: Mapping[str, object]) -> str:
    """A title and, below it, what there is to say under each name.

    Args:
        title: One line.
        values: By name.
    """
    return f"<p><b>{escaped(title)}</b></p>{table((), list(values.items()))}"


def lines(text: str) -> str:
    """Text of several lines, each unchanged.

    Args:
        text: What `str` or `repr` of an object gives.
    """
    return f"<pre>{'<br>'.join(escaped(line) for line in text.splitlines())}</pre>"


def cards(shown: Sequence[str], *, kind: str = "") -> str:
    """Samples side by side.

    Args:
        shown: HTML of each.
        kind: What they are, where a page has a style for that.
    """
    items = "".join(f"<li>{each}</li>" for each in shown)
    return f'<ul class="cards {kind}">{items}</ul>' if kind else f'<ul style="{_CARDS}">{items}</ul>'


def picture(image: Image.Image, name: str, *, side: int = 128) -> str:
    """An image inside the page, no larger than it is shown.

    Args:
        image: Of any mode and size.
        name: Shown where the image cannot be.
        side: At most, in pixels.
    """
    image = image.convert("RGB")
    image.thumbnail((side, side))
    file = io.BytesIO()
    image.save(file, "PNG")
    source = base64.b64encode(file.getvalue()).decode()
    return f'<img alt="{escaped(name)}" title="{escaped(name)}" src="data:image/png;base64,{source}">'
