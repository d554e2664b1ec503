"""Run the tutorials and keep what they show: `python tools/notebooks.py` (all), or with the names of some.

Each runs in an empty folder, as a reader runs it. What is kept is free of this machine: no paths, no times of cells.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbclient
import nbformat

TUTORIALS = sorted((Path(__file__).parent.parent / "docs").glob("*/*.ipynb"))


def run(path: Path, folder: str) -> nbformat.NotebookNode:
    """A notebook with the outputs of a fresh kernel, which works in `folder`."""
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": folder}}, record_timing=False
    ).execute()
    return notebook


def main() -> None:
    """Run the notebooks that are named, or all, and write them back."""
    os.environ.update(OMP_NUM_THREADS="1", DLKIT_OFFLINE="1")
    for path in TUTORIALS:
        if not sys.argv[1:] or path.stem in sys.argv[1:]:
            with tempfile.TemporaryDirectory() as folder:
                text = nbformat.writes(run(path, folder)) + "\n"
                path.write_text(text.replace(f"{folder}/", ""), encoding="utf-8")
                print(path.name)


if __name__ == "__main__":
    main()
