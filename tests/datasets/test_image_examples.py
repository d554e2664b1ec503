"""The examples with images run from beginning to end in their smoke mode."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.parametrize("name", ["image_folder.py", "image_table.py"])
def test_smoke(name: str) -> None:
    run = subprocess.run(
        [sys.executable, str(EXAMPLES / name), "--smoke"],
        capture_output=True,
        text=True,
        cwd=EXAMPLES.parent,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "accuracy" in run.stdout
