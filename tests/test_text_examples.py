"""The examples on texts run as a person would run them, and reach what their pages say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import warm

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def run(folder: Path, script: str, *arguments: object) -> str:
    done = warm.run([EXAMPLES / script, *arguments, "--fast", "--runs", folder / "runs"], cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def last_numbers(output: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d\.\d{4}", output.strip().splitlines()[-1])]


def test_sms_spam(tmp_path: Path, shared_data: Path) -> None:
    pytest.importorskip("sklearn")
    output = run(tmp_path, "sms_spam.py", shared_data / "text/SMSSpamCollection")
    assert "line 6" in output
    ours, by_words = last_numbers(output)
    assert ours >= 0.98
    assert ours >= by_words


def test_nsmc(tmp_path: Path, shared_data: Path) -> None:
    pytest.importorskip("sklearn")
    folder = shared_data / "text" / "nsmc"
    output = run(tmp_path, "nsmc_korean.py", folder / "ratings_train_subset.txt", folder / "ratings_test_subset.txt")
    ours, by_words = last_numbers(output)
    assert ours >= 0.78  # one epoch with a small vocabulary; 0.83 with all of it
    assert ours >= by_words
