"""Ctrl-C, SIGTERM and SIGUSR1: finish the step, save, leave."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

from dlkit.runs.state import Run

__all__ = ["EXIT_TERMINATED", "in_notebook", "listening"]

#: 128 + SIGTERM, what a shell reports for a process that SIGTERM ended.
EXIT_TERMINATED = 143


@contextlib.contextmanager
def listening(run: Run) -> Iterator[set[int]]:
    """Turn signals into a request to stop while the block runs; gives the set of the signals that came.

    A second Ctrl-C is a `KeyboardInterrupt` at once. Only the main thread can listen; elsewhere nothing changes.

    Args:
        run: Who is asked to stop.
    """
    came: set[int] = set()
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def handle(number: int, frame: Any) -> None:
        del frame
        if number == signal.SIGINT and signal.SIGINT in came:
            raise KeyboardInterrupt
        came.add(number)
        interrupted = number == signal.SIGINT
        reason = "interrupted" if interrupted else f"{signal.Signals(number).name} received"
        run.ask_stop(reason, ends=not interrupted)

    wanted = [signal.SIGINT, signal.SIGTERM]
    if sys.platform != "win32":
        wanted.append(signal.SIGUSR1)
    earlier = {number: signal.signal(number, handle) for number in wanted}
    try:
        yield came
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def in_notebook() -> bool:
    """Whether an interactive IPython (Jupyter, Colab) runs this code, which must not be ended by `SystemExit`."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None
