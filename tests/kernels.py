"""The kernel of a notebook, forked from a process that has imported torch and dlkit: see `warm`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jupyter_client.connect import write_connection_file
from jupyter_client.manager import KernelManager

from warm import Program

__all__ = ["kernel"]


class _Manager(KernelManager):
    """What nbclient asks of a kernel that it has not started: whether it is there."""

    def __init__(self, program: Program, **settings: Any) -> None:
        super().__init__(owns_kernel=False, **settings)
        self._program = program

    @property
    def has_kernel(self) -> bool:
        return self._program.poll() is None

    def is_alive(self) -> bool:
        return self.has_kernel


@contextlib.contextmanager
def kernel(folder: Path) -> Iterator[KernelManager]:
    """A kernel that runs in a folder, as `NotebookClient(notebook, km=...)` takes it.

    Args:
        folder: Where its notebooks run.
    """
    file, _ = write_connection_file(str(folder / "kernel.json"))
    program = Program(["-m", "ipykernel_launcher", "-f", file], cwd=folder)
    manager = _Manager(program, connection_file=file)
    manager.load_connection_file()
    try:
        yield manager
    finally:
        program.kill()
        program.communicate()
        manager.context.destroy()
