"""Where batches come from in several processes: streams, blocks of a file, lengths, stored features."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from worlds import SOURCES, ends, results, start

import dlkit
from dlkit.cli import app


def trained(size: int, tmp_path: Path, **case: object) -> list[dict[str, Any]]:
    return results(size, {"folder": str(tmp_path), **case}, tmp_path, SOURCES)


SOME = [("rows", 3, "replicate"), ("texts", 2, "replicate"), ("stream", 3, "replicate"), ("windows", 2, "replicate")]
SOME += [("rows", 2, "shard"), ("frozen", 3, "shard"), ("features", 3, "shard")]
MORE = [(kind, 4, "replicate") for kind in ("rows", "texts", "stream", "windows", "frozen")]
MORE += [("features", 2, "replicate"), ("features", 4, "replicate"), ("features", 2, "shard"), ("frozen", 2, "shard")]
MORE += [(kind, size, "shard") for kind in ("rows", "texts", "stream", "windows") for size in (3, 4)]


@pytest.mark.parametrize(
    ("kind", "size", "parallel"), [*SOME, *(pytest.param(*each, marks=pytest.mark.proof) for each in MORE)]
)
def test_the_bits_of_one_process(kind: str, size: int, parallel: str, tmp_path: Path) -> None:
    """A CSV file read in blocks, batches of texts by length, a stream without a length, epochs of so many steps.

    And a frozen backbone without stored features, which are computed in other batches, and so rounded otherwise; and
    with three stored views. Of the table, also what `trainer.save` writes.
    """
    rows = (f"{n},{n % 7},{'ab'[n % 2]},{n % 3 > 1}" for n in range(75))
    (tmp_path / "rows.csv").write_text("\n".join(["u,v,w,y", *rows]), encoding="utf-8")
    (whole,) = trained(1, tmp_path, kind=kind, reuse=False)
    found = trained(size, tmp_path, kind=kind, reuse=False, parallel=parallel)
    assert [each | {"passed": 0} for each in found] == [whole | {"passed": 0}] * size


def test_a_checkpoint_in_shares_becomes_a_model_file_by_one_command(tmp_path: Path) -> None:
    """The file is the one that `trainer.save` has written in the first process, byte for byte."""
    rows = (f"{n},{n % 7},{'ab'[n % 2]},{n % 3 > 1}" for n in range(75))
    (tmp_path / "rows.csv").write_text("\n".join(["u,v,w,y", *rows]), encoding="utf-8")
    first, _ = trained(2, tmp_path, kind="rows", parallel="shard", run=str(tmp_path / "run"))
    assert len([*(tmp_path / "run").glob("*.rows-*-of-2.safetensors")]) >= 2
    made = CliRunner().invoke(app, ["checkpoint", str(tmp_path / "run"), "--model", str(tmp_path / "m.safetensors")])
    assert made.exit_code == 0, made.output
    assert hashlib.sha256((tmp_path / "m.safetensors").read_bytes()).hexdigest() == first["file"]
    assert dlkit.load(tmp_path / "m.safetensors").classes == ["False", "True"]


def test_a_stream_that_ends_earlier_in_one_process_lets_the_others_go_on(tmp_path: Path) -> None:
    """Nobody hangs, and all have as many steps as the longest."""
    found = trained(3, tmp_path, kind="stream", samples={"1": 30})
    assert found[0]["rows"] == found[1]["rows"] == found[2]["rows"]
    assert found[0]["rows"][-1]["step"] == 10


def test_a_stream_that_is_split_by_rank_already_is_refused(tmp_path: Path) -> None:
    case = {"folder": str(tmp_path), "kind": "stream", "split": True}
    for code, _, errors in ends(start(2, case, tmp_path, SOURCES)):
        assert code == 1
        assert "process 1 reads another stream than process 0: leave out what splits it by rank" in errors


def test_a_stream_that_says_how_is_read_in_shares(tmp_path: Path) -> None:
    """Each process reads its files only, whichever end first; 1 to 4 processes, the same bits."""
    (whole,) = trained(1, tmp_path, kind="shares")
    assert whole.pop("read") == list(range(7))
    assert whole["rows"][0]["step"] == 6  # the longest share has 5 + 13 rows, in batches of 3
    for size in (2, 3, 4):
        found = trained(size, tmp_path, kind="shares")
        read = [each.pop("read") for each in found]
        assert sorted(name for names in read for name in names) == list(range(7))
        assert found == [whole] * size


@pytest.mark.parametrize("cache", [True, False])
def test_each_process_computes_the_features_of_its_share(cache: bool, tmp_path: Path) -> None:
    """With random views; what one process has stored is what three find, and the other way round."""
    where = [str(tmp_path / name) if cache else None for name in ("one", "three")]
    (whole,) = trained(1, tmp_path, kind="features", cache=where[0])
    parts = trained(3, tmp_path, kind="features", cache=where[1])
    few = 60  # for looking at first batches and comparing the halves of the model
    assert 4 * 75 < whole.pop("passed") < 4 * 75 + few
    assert all(each["passed"] < 4 * 75 / 3 + few for each in parts)
    assert [each | {"passed": 0} for each in parts] == [whole | {"passed": 0}] * 3
    if cache:
        for size, place in ((1, where[1]), (3, where[0])):
            found = trained(size, tmp_path, kind="features", cache=place)
            assert all(each["passed"] < few for each in found)
            assert [each | {"passed": 0} for each in found] == [whole | {"passed": 0}] * size


def test_only_the_first_process_tells_of_features(tmp_path: Path) -> None:
    first, second = ends(start(2, {"folder": str(tmp_path), "kind": "features"}, tmp_path, SOURCES))
    assert "the frozen backbone runs once over 75 training samples (3 views of each" in first[2]
    assert second[2] == ""
