"""The notebooks of examples/: one for each kind of data, each run from the top, each of whose cells shows something."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

import kernels

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "examples" / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KernelManager]:
    """One kernel for all; what each leaves is taken away."""
    with kernels.kernel(tmp_path_factory.mktemp("notebooks")) as manager:
        yield manager


def shown(cell: Any) -> set[str]:
    return {kind for output in cell.outputs for kind in output.get("data", {})}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_a_notebook_runs_and_shows_what_it_makes(kernel: KernelManager, path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs for cell in cells), "saved with outputs"
    notebook.cells = [nbformat.v4.new_code_cell("%reset -f"), *notebook.cells]
    client = NotebookClient(notebook, km=kernel, timeout=120)
    try:
        client.execute()
    finally:
        client.kc.stop_channels()
    kinds = [shown(cell) for cell in cells]
    assert all(kinds), [cell.source for cell, kind in zip(cells, kinds, strict=True) if not kind]
    assert "text/html" in kinds[0]  # the data shows itself
    for cell, kind in zip(cells, kinds, strict=True):
        if cell.source.splitlines()[-1].startswith(("plots.", "trainer.history.plot")):
            assert "image/png" in kind  # without %matplotlib inline
    assert len(NOTEBOOKS) == 7
