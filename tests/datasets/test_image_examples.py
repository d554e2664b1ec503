"""The examples with images run from beginning to end in their smoke mode."""

from __future__ import annotations

from pathlib import Path

import pytest

import warm

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.parametrize("name", ["image_folder.py", "image_table.py"])
def test_smoke(name: str, tmp_path: Path) -> None:
    run = warm.run([EXAMPLES / name, "--smoke"], cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "accuracy" in run.stdout
