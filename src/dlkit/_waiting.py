"""Processes that wait for each other: how long, and what is said when one of them is gone or hangs."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

from dlkit.errors import ArgumentError, TrainingError

__all__ = [
    "GONE",
    "LONG",
    "MEETING",
    "TIMEOUT",
    "await_words",
    "entered",
    "left",
    "note_failure",
    "patience",
    "talking",
]

#: Of the environment: seconds that processes wait for each other in a step.
TIMEOUT = "DLKIT_TIMEOUT"
_PATIENCE = 600.0
MEETING = 1800.0  # seconds until all processes have begun: one may have read its data for longer
LONG = 24 * 3600.0  # seconds that the others wait for what one process does for all
_ANSWER = 2.0  # seconds that the store may take for a word, which a process that hangs may keep
GONE = "another process of the run has ended or does not answer"
_FAILED = "failed"
_lost = threading.Event()  # a process is gone or hangs: nothing more is to be waited for
_notes: list[Any] = []  # the store of the group that this process is in


def entered(store: Any) -> None:
    """This process is in a group now, whose notes lie in `store`."""
    _notes.append(store)
    _lost.clear()


def left() -> None:
    """This process is in no group any more."""
    _notes.clear()


@contextlib.contextmanager
def talking() -> Iterator[None]:
    """Explain what a backend says when a process has gone or hangs: which one, where that is known."""
    try:
        yield
    except RuntimeError as error:
        _lost.set()
        raise TrainingError(f"{GONE}, so this one cannot continue; {_reason(str(error))}") from error


def _reason(said: str) -> str:
    first = said.strip().splitlines()[0][:200]
    if failure := _failure():
        return f"{failure}; its own error says more ({first})"
    if "timed out" in said.lower():
        return (
            "nothing came from it for as long as processes wait for each other: it hangs, in its data for example, or "
            f"is that much slower; py-spy dump --pid ... shows where it is, and {TIMEOUT}=SECONDS in the environment "
            f"of all processes makes the wait another one than {patience():g} seconds ({first})"
        )
    return f"its own error says why ({first})"


def _failure() -> str:
    """What a process has noted of its end; nothing where the store's process hangs or is gone, and no answer comes."""
    found = list[str]()

    def look() -> None:
        with contextlib.suppress(RuntimeError):
            if _notes and _notes[-1].check([_FAILED]):
                found.append(_notes[-1].get(_FAILED).decode())

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(_ANSWER)
    return found[0] if found else ""


def patience() -> float:
    """Seconds after which a process that waits for another one takes it to hang.

    Raises:
        ArgumentError: `DLKIT_TIMEOUT` is not a number above 0.

    >>> patience()
    600.0
    """
    given = os.environ.get(TIMEOUT, "").strip() or str(_PATIENCE)
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(given)) <= LONG:
            return seconds
    raise ArgumentError(f"{TIMEOUT} must be a number of seconds above 0, of a day at most, not {given!r}")


def note_failure(rank: int, error: BaseException) -> None:
    """Let the others say who failed first, and with what; those that fail for it have nothing to say."""
    if isinstance(error, SystemExit | GeneratorExit) or str(error).startswith(GONE) or not _notes:
        return
    lines = str(error).strip().splitlines() or [""]
    with contextlib.suppress(RuntimeError):
        _notes[-1].compare_set(_FAILED, "", f"process {rank} has failed: {type(error).__name__}: {lines[0]:.300}")


def await_words(store: Any, keys: list[str], seconds: float) -> None:
    """Look for words in a store from time to time, so that signals are heard meanwhile."""
    pause, end = 0.005, time.monotonic() + seconds
    while not store.check(keys):
        if time.monotonic() > end or _lost.is_set():
            missing = [key for key in keys if not store.check([key])]
            raise RuntimeError(f"after {seconds / 60:.0f} minutes at most there is no word of {', '.join(missing)}")
        time.sleep(pause)
        pause = min(1.0, 2 * pause)
