"""How far something is: a bar in a terminal, a widget or text in a notebook, a line a minute in a log."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self

from dlkit._language import Message, here

__all__ = ["SHOWN_AFTER", "Bar", "bars"]

SHOWN_AFTER = 2.0  # seconds: what is done sooner needs no bar
_LOGGED_EVERY = 60.0  # seconds between the lines of a log
_SHOWN: ContextVar[bool] = ContextVar("bars are shown", default=True)


@contextmanager
def bars(shown: bool) -> Iterator[None]:
    """Whether the bars of what is called within are shown: of readers deep below, which no argument reaches.

    Args:
        shown: False shows none.

    >>> with bars(False), Bar(3, desc="reading", unit="files", delay=0) as bar:
    ...     bar.due
    False
    """
    before = _SHOWN.set(shown and _SHOWN.get())
    try:
        yield
    finally:
        _SHOWN.reset(before)


class Bar:
    """Progress of one phase, shown if it is visible; as a context it closes itself.

    In a log (stderr is a file or a pipe) there is no bar, whose carriage returns would make one endless line, but a
    line a minute with rate and time left. A notebook's kernel has no terminal either, and shows a bar all the same.

    Args:
        total: How many there are; None if that is not known.
        desc: What is done.
        unit: What is counted, in the plural.
        initial: How many were done before.
        delay: Seconds before anything is shown.
        scaled: Write large numbers short, with k and M of 1024: for bytes.
        leave: Leave the full bar on the screen, where it says what was done.
        enabled: False shows nothing.

    >>> with Bar(3, desc="reading", unit="files", enabled=False) as bar:
    ...     bar.update()
    >>> bar.done
    1
    """

    def __init__(
        self,
        total: int | None,
        *,
        desc: str,
        unit: str,
        initial: int = 0,
        delay: float = SHOWN_AFTER,
        scaled: bool = False,
        leave: bool = False,
        enabled: bool = True,
    ) -> None:
        desc, unit = here(desc), here(unit)
        self.total, self.done, self.desc, self.unit, self.note = total, initial, desc, unit, ""
        self._began, self._start = time.monotonic(), initial
        self._bar: Any = None
        self._logs = False
        if not (enabled and _SHOWN.get()):
            return
        make, shown = _kind()
        self._logs = not shown and sys.stderr is not None
        self._next = self._began + _LOGGED_EVERY
        if shown:
            self._bar = make(
                total=total,
                initial=initial,
                desc=desc,
                unit=f" {unit}",
                delay=delay,
                leave=leave,
                file=sys.stderr,
                dynamic_ncols=True,
                unit_scale=scaled,
                unit_divisor=1024 if scaled else 1000,
            )

    @property
    def due(self) -> bool:
        """Whether anything would be seen of what is said now; finding out what to say may cost something."""
        return self._bar is not None or (self._logs and time.monotonic() >= self._next)

    def update(self, number: int = 1) -> None:
        """So many more are done.

        Args:
            number: How many.
        """
        self.done += number
        if self._bar is not None:
            self._bar.update(number)
        elif self._logs:
            self._log()

    def at(self, done: int, note: str = "") -> None:
        """So many are done in all.

        Args:
            done: How many.
            note: Something to say beside it.
        """
        self.done, self.note = done, here(note)
        if self._bar is not None:
            self._bar.n = done
            self._bar.set_postfix_str(self.note)
        elif self._logs:
            self._log()

    def restart(self, done: int, total: int | None) -> None:
        """Continue from another place, which is not counted as speed.

        Args:
            done: How many are done there.
            total: How many there are in all.
        """
        self.done = self._start = done
        self.total, self._began = total, time.monotonic()
        if self._bar is not None:
            self._bar.reset(total)
            self._bar.initial = self._bar.n = done
            self._bar.refresh()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
        self._bar, self._logs = None, False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _log(self) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _LOGGED_EVERY
        rate = (self.done - self._start) / (now - self._began)
        done: str = f"{self.done:,}"
        if self.total is not None:
            done = Message("{done} of {total:,}", done=done, total=self.total).here()
        said = f"{self.desc}: {done} {self.unit}, {rate:.3g}/s"
        if self.total is not None and rate:
            said += f", {Message('{time} left', time=_minutes((self.total - self.done) / rate)).here()}"
        sys.stderr.write(f"{said}{f', {self.note}' if self.note else ''}\n")
        sys.stderr.flush()


def _minutes(seconds: float) -> str:
    return f"{seconds // 60:.0f}:{seconds % 60:02.0f}"


def _kind() -> tuple[Any, bool]:
    """The class of bars that suits where stderr goes, and whether bars can be seen there at all."""
    from tqdm import tqdm  # not above: whoever only downloads a file quietly needs none

    if _in_kernel():
        if importlib.util.find_spec("ipywidgets") is not None:
            from tqdm.notebook import tqdm as widget

            return widget, True
        return tqdm, True
    return tqdm, bool(getattr(sys.stderr, "isatty", bool)())


def _in_kernel() -> bool:
    """Whether this runs in the kernel of a notebook: IPython is loaded then, and says so."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    return shell is not None and "IPKernelApp" in getattr(shell, "config", ())
