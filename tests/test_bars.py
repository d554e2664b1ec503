"""Bars where they can be seen: a terminal, a notebook, a log."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
import torch
from nbclient import NotebookClient

import dlkit
from dlkit import _progress
from dlkit._progress import Bar
from dlkit.datasets import CSVDataset, TextDataset
from dlkit.models import TabularMLP
from dlkit.reading import _text_rows
from dlkit.recipes import train
from screens import Screen, new_screen


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


def screen_at_once(monkeypatch: pytest.MonkeyPatch) -> tuple[Screen, list[tuple[str, int, int | None]]]:
    """A terminal on which every bar is seen, however short the work; and what each came to: name, done, in all."""
    usual, done = Bar.__init__, list[tuple[str, int, int | None]]()

    def now(self: Bar, *args: Any, **kwargs: Any) -> None:
        usual(self, *args, **{**kwargs, "delay": 0})

    monkeypatch.setattr(Bar, "__init__", now)
    monkeypatch.setattr(
        Bar, "__exit__", lambda self, *_: (done.append((self.desc, self.done, self.total)), self.close())
    )
    return new_screen(monkeypatch), done


FRAME = pd.DataFrame({"x": [n % 97 / 4 for n in range(3_000)], "said": ["a word"] * 3_000, "y": ["no", "yes"] * 1_500})


def test_reading_a_table_and_encoding_texts_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen, done = screen_at_once(monkeypatch)
    FRAME.to_csv(tmp_path / "rows.csv", index=False)
    size = (tmp_path / "rows.csv").stat().st_size - len("x,said,y\n")
    table = CSVDataset(tmp_path / "rows.csv", target="y")
    assert screen.shown == ""  # not worth it for some kilobytes
    monkeypatch.setattr(_text_rows, "_LONG", 100)
    again = CSVDataset(tmp_path / "rows.csv", target="y")
    assert done == [("reading", size, size)]
    assert torch.equal(again.numeric, table.numeric)
    assert f"reading:   0%|          | 0.00/{size / 1024:.1f}k" in screen.shown
    CSVDataset(tmp_path / "rows.csv", target="y", streaming=True)
    assert ("reading rows.csv", size, size) in done
    done.clear()
    TextDataset(tmp_path / "rows.csv", text="said", target="y")
    assert ("reading rows.csv", size, size) in done
    assert ("encoding", 3_000, 3_000) in done


def test_what_asks_for_no_progress_gets_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen, _ = screen_at_once(monkeypatch)
    monkeypatch.setattr(_text_rows, "_LONG", 100)
    FRAME.to_csv(tmp_path / "rows.csv", index=False)
    how: dict[str, Any] = {"target": "y", "drop": ["said"], "arch": "mlp", "epochs": 1, "device": "cpu"}
    train(tmp_path / "rows.csv", out=tmp_path / "run", progress=False, **how)
    assert screen.shown == ""


def test_an_export_says_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen, _ = screen_at_once(monkeypatch)
    table = CSVDataset(FRAME, target="y", drop="said")
    model = TabularMLP(table.spec, hidden=(4,))
    dlkit.save(model, tmp_path / "model.pt2", preprocessing=table, format="torch.export")
    assert "export:   0%|          | 0/1" in screen.shown
    assert "the model becomes a program" in screen.shown
