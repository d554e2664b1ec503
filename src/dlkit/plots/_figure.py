"""The figure of all pictures: a notebook shows it by itself, without `%matplotlib inline`."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

__all__ = ["ShownFigure"]


class ShownFigure(Figure):
    """A `Figure` that IPython shows as a picture; its own formatter, where there is one, comes first."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", bbox_inches="tight")
        return file.getvalue()
