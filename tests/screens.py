"""A terminal for tests: where a bar is seen."""

from __future__ import annotations

import io
import re
import sys

import pytest


class Screen(io.StringIO):
    """A stderr that says it is a terminal."""

    def isatty(self) -> bool:
        return True

    @property
    def shown(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue())


def new_screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """To be called inside the test, because pytest puts its own stderr there before each."""
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    return screen
