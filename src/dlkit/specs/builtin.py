"""The kinds that dlkit itself has: whoever reads a document of any kind imports them from here, all of them known."""

from __future__ import annotations

from dlkit._kinds import KINDS
from dlkit.specs.series import WindowSpec
from dlkit.specs.table import TableSpec
from dlkit.specs.text import TextSpec
from dlkit.transforms.audio.spec import AudioPreprocessing
from dlkit.transforms.spec import Preprocessing

__all__ = ["AudioPreprocessing", "KINDS", "Preprocessing", "TableSpec", "TextSpec", "WindowSpec"]
