"""The examples with tables: from beginning to end on made-up rows, and on the real ones as good as the docs say."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import warm

ROOT = Path(__file__).resolve().parents[2]
MODELS = {"TabularMLP", "logistic regression", "HistGradientBoosting"}


def accuracies(folder: Path, name: str, *arguments: str) -> dict[str, float]:
    """What an example prints, by model."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DLKIT_OFFLINE": "1", "PYTHONPATH": str(ROOT / "src")}
    done = warm.run([ROOT / "examples" / name, *arguments], cwd=folder, env=environment, timeout=1200)
    assert done.returncode == 0, done.stderr
    return {model: float(value) for model, value in re.findall(r"^  (\w[\w ]*?) +(0\.\d+)", done.stdout, re.M)}


@pytest.mark.parametrize("name", ["titanic.py", "adult.py"])
def test_smoke(tmp_path: Path, name: str) -> None:
    assert set(accuracies(tmp_path, name, "--smoke")) == MODELS


@pytest.mark.proof
@pytest.mark.timeout(1200)
def test_adult_and_titanic_are_learnt_as_well_as_the_docs_say(shared_data: Path, tmp_path: Path) -> None:
    adult = accuracies(tmp_path, "adult.py", str(shared_data / "csv"))
    assert adult["TabularMLP"] >= 0.85
    assert adult["TabularMLP"] > adult["logistic regression"]
    titanic = accuracies(tmp_path, "titanic.py", str(shared_data / "csv" / "titanic.csv"))
    assert titanic["TabularMLP"] >= 0.79
