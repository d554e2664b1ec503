"""The tutorials as a reader runs them: a fresh kernel, an empty folder, no network; and what they keep of it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(ROOT.glob("docs/**/*.ipynb"))


def name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def outputs(path: Path) -> list[dict[str, Any]]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_what_is_kept_has_run_and_is_free_of_this_machine(path: Path) -> None:
    kept = outputs(path)
    assert kept
    assert [each for each in kept if each["output_type"] == "error" or each.get("name") == "stderr"] == []
    assert not [word for word in ("/home/", "/root/", "/tmp/", "/Users/") if word in path.read_text(encoding="utf-8")]


@pytest.mark.proof
@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_runs_from_top_to_bottom(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    monkeypatch.setenv("DLKIT_OFFLINE", "1")
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    import notebooks

    ran = notebooks.run(path, str(tmp_path))
    assert [cell.outputs for cell in ran.cells if cell.cell_type == "code" and not cell.execution_count] == []
