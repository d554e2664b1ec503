"""The process of a server: its address, its signals, connections that never say anything, and its end."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from dlkit._malloc import keep_memory
from dlkit.errors import ArgumentError
from dlkit.serving.http import Application
from dlkit.serving.logs import LOGGER, event, line, write_to

__all__ = ["log_to_stderr", "serve"]

_HEAD_SECONDS = 10.0  # in which a connection must have sent a whole head, and after which a silent one is closed
_LOOK = 1.0
_LINES = 10_000  # of the log, that may wait for a slow reader; more are left out
_LINGER = 0.02  # seconds that lines are gathered
_CONNECTIONS = 1000
_SWITCH = 0.0005  # seconds after which a thread that runs Python lets the one that answers have its turn


def serve(
    application: Application,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    drain: float = 35.0,
    started: Callable[[str], None] | None = None,
) -> int:
    """Answer requests until SIGTERM or Ctrl-C: then say "not ready", finish what was begun, and return.

    Args:
        application: From `app`.
        host: The address to listen at; "127.0.0.1" is reached from this machine only.
        port: 0 takes a free one.
        drain: How long to wait at the end for requests that were begun.
        started: Called with the server's address once it answers.

    Returns:
        The signal that ended it.

    Raises:
        ArgumentError: the address cannot be listened at.
    """
    listener = _listener(host, port)
    address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}/"
    config = uvicorn.Config(
        application,
        http=_Protocol,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=True,
        lifespan="on",
        ws="none",
        limit_concurrency=_CONNECTIONS,
        backlog=_CONNECTIONS,
        timeout_keep_alive=int(_HEAD_SECONDS),
        timeout_graceful_shutdown=max(1, int(drain)),
        proxy_headers=False,
    )
    keep_memory()
    server = _Server(config, application, lambda: started(address) if started else None)
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH)
    # What is loaded stays: looking through all of it for garbage would stop the answers for 0.4 s now and then.
    frozen = gc.get_freeze_count()
    gc.collect()
    gc.freeze()
    try:
        server.run(sockets=[listener])
    finally:
        if not frozen:  # else it is not ours alone to look through again
            gc.unfreeze()
        sys.setswitchinterval(before)
        listener.close()
    return server.ended_by


def log_to_stderr(*, errors_only: bool = False) -> None:
    """Write the log, also that of the HTTP server, to stderr: a line of JSON for each event.

    Args:
        errors_only: Leave out what went well.
    """
    handler = _Writer()
    handler.setFormatter(_Lines())
    write_to(handler.put)
    logging.getLogger(LOGGER).setLevel(logging.ERROR if errors_only else logging.INFO)
    others = logging.getLogger("uvicorn")
    others.handlers, others.propagate = [handler], False
    others.setLevel(logging.ERROR if errors_only else logging.WARNING)
    warnings.showwarning = _warned


def _warned(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning as an event, without the place in the source that raised it."""
    event("warning", level=logging.WARNING, kind=category.__name__, text=str(message))


class _Writer(logging.Handler):
    """Writes lines in its own thread: whoever reads them may be slow or stand still, and the server continues.

    The thread takes all lines of some time at once. Woken for each, it would take the interpreter from the thread that
    answers as often, which costs more than the answer to a small request.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines, self._there, self._ended = deque[str](), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._write, args=(sys.stderr,), name="dlkit-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        self.put(self.format(record))

    def put(self, text: str) -> None:
        """Take a line.

        Args:
            text: Without its end.
        """
        if len(self._lines) < _LINES:  # else the reader stands still, and nothing else can be done
            self._lines.append(text)
            if not self._there.is_set():
                self._there.set()

    def _write(self, stream: TextIO) -> None:
        while not self._ended.is_set() or self._lines:
            self._there.wait()
            self._ended.wait(_LINGER)
            self._there.clear()
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            with contextlib.suppress(OSError, ValueError):  # the reader has gone
                stream.write("".join(f"{line}\n" for line in lines))
                stream.flush()

    def close(self) -> None:
        """Write what is left, unless nobody reads it."""
        self._ended.set()
        self._there.set()
        self._thread.join(1.0)
        super().close()


class _Lines(logging.Formatter):
    """What others log, as lines of JSON, without their tracebacks, which name paths."""

    def format(self, record: logging.LogRecord) -> str:
        what = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        return line(record.getMessage(), record.levelno, {"error": what} if what else {})


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise ArgumentError(f"cannot listen at {host} port {port}: {error}; give another --port, or 0") from error
    listener.setblocking(False)
    return listener


class _Server(uvicorn.Server):
    """A server whose end by SIGTERM is an orderly one: it returns, and the process ends with 0."""

    def __init__(self, config: uvicorn.Config, application: Application, started: Callable[[], None]) -> None:
        super().__init__(config)
        self.ended_by = 0
        self._application, self._told = application, started

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._end) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, number: int, frame: Any) -> None:
        self.force_exit = self.should_exit and number == signal.SIGINT  # a second Ctrl-C waits for nothing
        self.should_exit, self._application.ready = True, False
        self.ended_by = self.ended_by or number

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            event(
                "started", pid=os.getpid(), models={n: each.now.version for n, each in self._application.models.items()}
            )
            self._told()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        event("draining", waiting=self._application.scheduler.waiting)
        await super().shutdown(sockets)
        event("ended", level=logging.INFO)


class _Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """HTTP that closes connections on which no request is being made: uvicorn waits for a head forever."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._idle, self._last = 0.0, None
        self._looking = self.loop.call_later(_LOOK, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._looking.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        busy = self.cycle is not self._last or (self.cycle is not None and not self.cycle.response_complete)
        self._last = self.cycle
        self._idle = 0.0 if busy else self._idle + _LOOK
        if self._idle >= _HEAD_SECONDS:
            self.transport.close()
        else:
            self._looking = self.loop.call_later(_LOOK, self._look)
