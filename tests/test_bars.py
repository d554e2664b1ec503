"""Bars where they can be seen: a terminal, a notebook, a log."""

from __future__ import annotations

import io
import re
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from dlkit import _progress
from dlkit._progress import Bar
from screens import new_screen


def test_a_terminal_gets_a_bar_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = new_screen(monkeypatch)
    with Bar(4, desc="reading", unit="files", delay=0) as bar:
        bar.update(2)
        bar.at(3, "a note")
    assert "reading:   0%|" in screen.shown
    assert "3/4" in screen.shown
    assert "a note" in screen.shown
    assert not screen.shown.rsplit("\r", 1)[-1].strip()


def test_what_is_done_soon_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = new_screen(monkeypatch)
    with Bar(4, desc="reading", unit="files") as bar:
        bar.update(4)
    assert screen.shown.strip() == ""


def test_a_log_gets_a_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now)
    monkeypatch.setattr(sys, "stderr", log := io.StringIO())
    with Bar(1000, desc="storing features", unit="samples", initial=100) as bar:
        for _ in range(180):  # three minutes
            now += 1
            bar.update(2)
    assert log.getvalue().splitlines() == [
        "storing features: 220 of 1,000 samples, 2/s, 6:30 left",
        "storing features: 340 of 1,000 samples, 2/s, 5:30 left",
        "storing features: 460 of 1,000 samples, 2/s, 4:30 left",
    ]


def test_a_bar_that_nobody_wants_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = new_screen(monkeypatch)
    with Bar(2, desc="reading", unit="files", delay=0, enabled=False) as bar:
        bar.update()
        assert not bar.due
    assert screen.shown == ""


def test_a_notebook_shows_a_bar() -> None:
    """Its kernel's stderr is no terminal."""
    code = """
import sys
from dlkit._progress import Bar
assert not sys.stderr.isatty()
with Bar(3, desc="reading", unit="files", delay=0) as bar:
    bar.update(3)
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, kernel_name="python3", timeout=60).execute()
    shown = "".join(output.get("text", "") + str(output.get("data", "")) for output in notebook.cells[0].outputs)
    assert re.search("reading", shown)
