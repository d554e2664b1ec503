"""The import graph that `tools/import_graph.py` prints: rooms, floors, arrows, cycles."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from test_layers import LAYERS, SRC, imports

PATH = Path(__file__).resolve().parent.parent / "tools" / "import_graph.py"
# Rooms that import from each other, file by file in one direction: one less is progress, one more is not allowed.
TANGLED = [["specs", "tokens", "transforms"]]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("import_graph", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_prints_all_rooms_and_that_nothing_points_upwards(tool: ModuleType, capsys: pytest.CaptureFixture[str]):
    assert tool.main([]) == 0
    printed = capsys.readouterr().out
    assert {file.split("/")[0] for file in LAYERS} == set(re.findall(r"(?m)^[ \d]+  (\w+): ", printed))
    assert re.search(r"\d+ rooms, \d+ floors, \d+ arrows between rooms, \d+ lines", printed)
    assert "upward arrows between files: none" in printed


def test_no_new_rooms_are_tangled(tool: ModuleType) -> None:
    rooms = tool.rooms_of({file: imports(SRC, file) for file in LAYERS})
    assert [group for group in tool.cycles(rooms) if group not in TANGLED] == []


def test_one_room_file_by_file(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["lending"]) == 0
    assert "lending <- rng\nused by " in capsys.readouterr().out
    assert tool.main(["attic"]) == 2
    assert "there is no room attic" in capsys.readouterr().err


def test_floors_and_cycles(tool: ModuleType) -> None:
    graph = {"a": set(), "b": {"a", "c"}, "c": {"b"}, "d": {"c", "a"}, "e": {"a"}}
    assert tool.cycles(graph) == [["b", "c"]]
    assert tool.floors(graph) == {"a": 0, "b": 1, "c": 1, "d": 2, "e": 1}
