"""`dlkit new`: the templates of projects, written out."""

from __future__ import annotations

import re
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from dlkit.errors import ArgumentError

__all__ = ["TASKS", "create"]

TASKS = ("audio", "image", "mixed", "tabular", "text")
# What every kind of project has, and then its own; the latter wins.
_COMMON = "common"


def create(folder: str | Path, task: str, *, here: bool = False) -> list[Path]:
    """Write a new project, and return its files.

    Args:
        folder: Made if needed.
        task: "audio", "image", "mixed" (a table with texts and images), "tabular" or "text".
        here: The folder may hold files already; if one of the project's is among them, nothing is written.

    Raises:
        ArgumentError: no such task, a folder that holds something, or a file that is there already.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "mine"
    >>> sorted(path.name for path in create(folder, "text") if path.suffix == ".toml")
    ['config.toml', 'pyproject.toml']
    """
    if task not in TASKS:
        raise ArgumentError(f"task must be one of {', '.join(TASKS)}, not {task!r}")
    folder = Path(folder).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ArgumentError(f"{folder} is a file; name a folder for the project")
    if not here and folder.is_dir() and any(folder.iterdir()):
        raise ArgumentError(f"{folder} is not empty: name a new folder, or say here=True to write beside what is there")
    texts = {folder / name: text for name, text in _texts(task).items()}
    if taken := [str(path) for path in texts if path.exists()]:
        raise ArgumentError(f"nothing was written, because these files are there already: {', '.join(taken)}")
    name = re.sub(r"[^\w-]+", "-", folder.resolve().name).strip("-") or "project"
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "x", encoding="utf-8") as file:
            file.write(text.replace("{{name}}", name))
    return sorted(texts)


def _texts(task: str) -> dict[str, str]:
    """The project's files by their place in it. Templates end in .txt, so that no tool takes them for source code."""
    home = resources.files(__package__) / "templates"
    return _below(home / _COMMON, "") | _below(home / task, "")


def _below(folder: Traversable, prefix: str) -> dict[str, str]:
    texts: dict[str, str] = {}
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            texts |= _below(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".txt"):
            name = entry.name.removesuffix(".txt").replace("dot-", ".", 1)
            texts[f"{prefix}{name}"] = entry.read_text(encoding="utf-8")
    return texts
