"""Spoken digits: the example runs, and on the real recordings the command's defaults learn them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import warm
from dlkit.recipes import train

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_smoke(tmp_path: Path) -> None:
    run = warm.run([EXAMPLES / "spoken_digits.py", "--smoke"], cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "36 training recordings; held out by take: {'loss':" in run.stdout
    assert "probability_2" in run.stdout


@pytest.mark.proof
@pytest.mark.timeout(900)  # a minute on two cores that do nothing else
@pytest.mark.parametrize(
    ("held_out", "least"),
    [
        (lambda speaker, take: take == 4, 0.97),
        (lambda speaker, take: speaker in ("lucas", "theo"), 0.8),  # 0.89 was reached
    ],
    ids=["takes", "speakers"],
)
def test_spoken_digits_are_learnt_with_the_defaults(
    held_out: object, least: float, shared_data: Path, tmp_path: Path
) -> None:
    """Test folders hold out takes, or speakers that the network has never heard; take 3 watches."""
    for file in sorted((shared_data / "audio" / "fsdd").glob("*.wav")):
        digit, speaker, take = file.stem.split("_")
        part = "test" if held_out(speaker, int(take)) else "val" if take == "3" else "train"  # type: ignore[operator]
        place = tmp_path / "digits" / part / digit
        place.mkdir(parents=True, exist_ok=True)
        os.symlink(file, place / file.name)
    trained = train(tmp_path / "digits", out=tmp_path / "run", device="cpu", progress=False)
    assert trained.judged_on == "test"
    assert trained.metrics["accuracy"] >= least
