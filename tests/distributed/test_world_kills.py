"""A process of a run is lost at any moment, and another number of processes goes on: no bit differs, nobody stays."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import warm

HERE = Path(__file__).parent


def kill_worlds(kills: int) -> str:
    done = warm.run([HERE / "kill_worlds.py", kills], timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_few_losses_change_nothing() -> None:
    assert re.search(r"in all: 3 kills, .*: 0 differences, 0 orphans, 0 that hung", kill_worlds(3))


@pytest.mark.proof
@pytest.mark.timeout(1800)
def test_forty_losses_change_nothing() -> None:
    assert re.search(r"in all: 40 kills, .*: 0 differences, 0 orphans, 0 that hung", kill_worlds(40))
