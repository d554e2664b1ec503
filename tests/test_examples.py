"""Every example runs, in its smoke mode, from an empty folder; run twice, it goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted(ROOT.glob("examples/*.py"))


def run(example: Path, folder: Path) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DLKIT_HOME": str(folder / "home"), "DLKIT_OFFLINE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(ROOT / "src"), environment.get("PYTHONPATH", "")]
    )  # from any folder
    done = subprocess.run(
        [sys.executable, str(example), "--smoke"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_examples():
    assert EXAMPLES


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_says_something(example, tmp_path):
    assert run(example, tmp_path).strip()


def test_the_gan_goes_on_where_it_was(tmp_path):
    example = ROOT / "examples" / "gan.py"
    assert run(example, tmp_path) == run(example, tmp_path)
    assert (tmp_path / "runs" / "gan" / "history.csv").read_text().count("\n") == 3
