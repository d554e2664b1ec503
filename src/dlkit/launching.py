"""Start a function in several processes of this machine that train together: torchrun's own launcher, from Python.

`dlkit train --processes 4` is this, and so is a notebook that calls `dlkit.launch`. On several machines, and where lost
processes are to be started again, use `torchrun`.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from dlkit._arguments import callable_object, whole_number
from dlkit._showing import Lines
from dlkit._waiting import GONE
from dlkit.distributed import World
from dlkit.errors import ArgumentError, TrainingError

__all__ = ["launch"]

# Of torch's launcher, which tells at length what the error raised here says.
_TALKERS = ("elastic.agent.server.api", "elastic.agent.server.local_elastic_agent", "elastic.multiprocessing.api")
_LOCAL = "127.0.0.1"
_used = set[int]()  # ports of stores that were held here
_SIGNALS = "SIGTERM,SIGINT" if sys.platform == "win32" else "SIGTERM,SIGINT,SIGHUP,SIGQUIT"


def launch(function: Callable[..., Any], *args: Any, processes: int, **kwargs: Any) -> Any:
    """Call a function in several processes that train together, and give what the first of them returns.

    A `Trainer` in the function shares its steps with the others (`accumulate` at least as many as there are processes).
    Each process has one thread of torch, as with torchrun, or as many as `OMP_NUM_THREADS` says.

    A function of a module is called in new processes. One that only this process knows (of a notebook, a closure) is
    called in copies of this process, which sees the notebook's data and must not have used a GPU before.

    Args:
        function: What each process does; with the same arguments, it must build the same model and data everywhere.
        *args: Its arguments.
        processes: How many.
        **kwargs: Its arguments by name.

    Returns:
        What the function returned in the process of rank 0.

    Raises:
        ArgumentError: the function cannot be called in another process; or this is one of several processes already.
        Exception: what the function raised in the process that failed first; its cause has that process's traceback.
        TrainingError: a process was ended from outside, or its error cannot be sent; the message has the traceback.
        KeyboardInterrupt: after Ctrl-C, when all processes have ended.
        SystemExit: with the code that the function has left with, 143 after SIGTERM.

    >>> launch(max, 3, 5, processes=1)  # doctest: +SKIP
    5
    """
    callable_object("function", function, "a function that each process calls")
    processes = whole_number("processes", processes, least=1)
    if not dist.is_available():
        raise ArgumentError("this torch was built without torch.distributed, so there is one process only")
    if World.of_environment().size > 1:
        raise ArgumentError("this is one of several processes already: call the function itself, without launch")
    call = function, args, kwargs
    method = _start_method(call)
    with tempfile.TemporaryDirectory(prefix="dlkit-launch-") as folder, _quiet():
        return _launched(call if method == "fork" else pickle.dumps(call), processes, method, Path(folder))


def _launched(call: Any, processes: int, method: str, folder: Path, tries: int = 3) -> Any:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    signals: dict[str, Any] = {"signals_to_handle": _SIGNALS}  # torch 2.8 handles two of them, and cannot be told
    store = _store()
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="static",
        rdzv_endpoint=f"{_LOCAL}:{store.port}",
        rdzv_configs={"rank": 0},
        local_addr=_LOCAL,
        max_restarts=0,
        start_method=method,
        logs_specs=DefaultLogsSpecs(log_dir=str(folder)),
        **(signals if "signals_to_handle" in LaunchConfig.__dataclass_fields__ else {}),
    )
    try:
        return elastic_launch(config, _work)(call, str(folder), os.environ.get("OMP_NUM_THREADS", "1"))[0]
    except SignalException as stopped:
        if stopped.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(128 + stopped.sigval) from None
    except dist.DistNetworkError:
        if not tries:
            raise
        return _launched(call, processes, method, folder, tries - 1)  # before a process started: another port
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        failed = _failed(folder, rank, failure.exitcode, processes)
    raise failed from failed.__cause__


def _store() -> Any:
    """A store on a port that no earlier launch of this process had.

    One machine needs no rendezvous that finds others, which takes a second. The store is held here, and the launcher
    shares it, so that nobody can take its port in between. Of a port whose store has ended torch keeps a dead entry,
    by which it would not find a later one on the same port.
    """
    held: list[Any] = []  # until another port is found, so that each is another one
    while not held or held[-1].port in _used:
        store = dist.TCPStore(  # type: ignore[attr-defined]
            _LOCAL, 0, is_master=True, wait_for_workers=False, multi_tenant=True
        )
        held.append(store)
    _used.add(store.port)
    return store


def _work(call: Any, folder: str, threads: str) -> Any:
    """What is done in each process."""
    rank = int(os.environ["RANK"])
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # Ctrl-C reaches the launcher, which passes it on once; a second one would not let it save
    for name in _SIGNALS.split(","):  # a copy of the launcher would raise what its handlers raise
        signal.signal(getattr(signal, name), signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL)
    torch.set_num_threads(max(1, int(threads)) if threads.isdecimal() else 1)
    came = _signals()
    try:
        function, args, kwargs = pickle.loads(call) if isinstance(call, bytes) else call
        result = function(*args, **kwargs)
    except Exception as error:
        _write(Path(folder, str(rank)), error)
        raise
    if number := came():  # else this process would wait for the launcher, which waits for its end
        raise SystemExit(128 + number)
    return result if rank == 0 else None


def _signals() -> Callable[[], int]:
    """Notice signals that end a program, whoever handles them; gives a function that says which came, 0 for none."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def came() -> int:
        with contextlib.suppress(BlockingIOError):
            return next((each for each in os.read(reading, 4096) if each in (signal.SIGINT, signal.SIGTERM)), 0)
        return 0

    return came


def _write(path: Path, error: Exception) -> None:
    """Leave an error for the launcher: the time, the traceback, and itself where it can be sent."""
    behind = error.__traceback__ and error.__traceback__.tb_next
    text = "".join(traceback.format_exception(type(error), error, behind))
    try:
        sent = pickle.dumps(error.with_traceback(None))
        pickle.loads(sent)
    except Exception:  # noqa: BLE001  (an error may refuse in any way)
        sent = b""
    path.with_suffix(".tmp").write_bytes(pickle.dumps((time.time(), text, sent)))
    path.with_suffix(".tmp").rename(path.with_suffix(".error"))


def _failed(folder: Path, rank: int, code: int, processes: int) -> BaseException:
    """The error that says which process failed first, and how; others only say that it is gone."""
    said = {int(path.stem): pickle.loads(path.read_bytes()) for path in folder.glob("*.error")}  # by ourselves
    causes = {number: each for number, each in said.items() if GONE not in each[1]}
    if causes:
        first = min(causes, key=lambda number: float(causes[number][0]))
        _, text, sent = causes[first]
        lines = f"process {first} of {processes} failed, and the others were terminated:", *text.splitlines()
        told = TrainingError(Lines.of(*lines))
        if not sent:
            return told
        error: BaseException = pickle.loads(sent)
        error.__cause__ = told
        return error
    if code >= 0 and not said:  # they have left by themselves
        return SystemExit(code)
    lost = rank if rank not in said else next((each for each in range(processes) if each not in said), rank)
    how = f"by {signal.Signals(-code).name}" if code < 0 and lost == rank else "from outside"
    return TrainingError(f"process {lost} of {processes} was ended {how} (where the memory is full, by the system)")


def _start_method(call: Any) -> str:
    """How the processes start: again where they can find the function, else as copies of this one."""
    function = call[0]
    try:
        pickle.dumps(call)
        known = getattr(function, "__module__", None) != "__main__"
    except (pickle.PicklingError, AttributeError, TypeError):
        known = False
    if known:
        return "spawn"
    if "fork" not in multiprocessing.get_all_start_methods():
        raise ArgumentError(
            f"{getattr(function, '__name__', function)!r} is known in this process only; put it into a module "
            "(a file that is imported), from which other processes can take it"
        )
    if torch.cuda.is_initialized():
        raise ArgumentError(
            "the GPU has been used in this process, whose copies cannot use it any more; call launch before anything "
            "that uses it (in a notebook after a restart of the kernel), or put the function into a module"
        )
    return "fork"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(f"torch.distributed.{name}") for name in _TALKERS]
    loggers.append(logging.getLogger("torch.multiprocessing.spawn"))
    before = [logger.disabled for logger in loggers]
    try:
        for logger in loggers:
            logger.disabled = True
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled
