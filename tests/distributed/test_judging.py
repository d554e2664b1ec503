"""Validation, evaluation and prediction by several processes: each looks at its share, all know all of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from worlds import JUDGE, ends, results, start


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    (found,) = results(1, {}, tmp_path_factory.mktemp("alone"), JUDGE)
    return found


@pytest.mark.parametrize("size", [2, 3, 4])
def test_every_process_has_the_numbers_of_one(size: int, alone: dict[str, object], tmp_path: Path) -> None:
    """19 batches, or one, or a stream; a model that draws, and metrics that hang on the order of the batches."""
    assert results(size, {}, tmp_path, JUDGE) == [alone] * size


def test_objects_of_torchmetrics_and_what_cannot_be_averaged(tmp_path: Path) -> None:
    """They would sum up by themselves; where outputs are large they do, and it is said. The end is a refusal."""
    (whole,) = ends(start(1, {"torchmetrics": True}, tmp_path, JUDGE))
    parts = ends(start(2, {"torchmetrics": True}, tmp_path, JUDGE))
    expected, *found = (json.loads(out) for _, out, _ in (whole, *parts))
    close = expected.pop("close")
    assert [each.pop("close") for each in found] == pytest.approx([close] * 2, rel=1e-5)
    assert found == [expected] * 2
    assert "whose states are then put together" in parts[0][2]
    assert "put together" not in whole[2] + parts[1][2]
    for code, _, errors in (whole, *parts):
        assert code == 1
        assert "the count of a batch is not known" in errors
