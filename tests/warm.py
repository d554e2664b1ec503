"""Python programs in processes of their own that need not import torch and dlkit again: forked from one that has them.

A test that kills, interrupts or measures a program needs a real process, and most of a small program's time goes into
importing torch, pandas, dlkit and the like. So the first call starts one server for all processes of a test run. It
imports them once, forks itself for every program, and runs it there as `python` would: arguments, folder, environment,
standard streams, signals and the exit status are the program's own. The server hashes with another seed than the tests'
process. What a test of imports or of the start itself needs is a fresh interpreter, or a program that begins with
`FORGET_DLKIT`.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["FORGET_DLKIT", "Program", "run", "spent"]

# Without some of them a program runs as well, and imports them itself.
PRELOADED = ["torch.utils.data", "torch._dynamo", "torchvision", "timm", "numpy", "pandas", "pyarrow", "PIL.Image"]
PRELOADED += ["safetensors.torch", "tokenizers", "simplejpeg", "matplotlib.figure", "matplotlib.backends.backend_agg"]
PRELOADED += ["sklearn.ensemble", "sklearn.linear_model", "typer", "requests", "pytest"]
SOURCE = Path(__file__).resolve().parent.parent / "src"

# The first line of a program that shall import dlkit itself.
FORGET_DLKIT = "import sys; [sys.modules.pop(name) for name in [*sys.modules] if name.split('.')[0] == 'dlkit']\n"


class Program:
    """A running program, with the part of `subprocess.Popen` that tests use.

    Args:
        arguments: What would stand behind `python`: a script, "-m" and a module, or "-c" and code; then its own.
        cwd: Its folder; by default the current one.
        env: Its environment; by default the current one.
    """

    def __init__(
        self, arguments: Sequence[object], *, cwd: object = None, env: Mapping[str, str] | None = None
    ) -> None:
        self.args = [str(argument) for argument in arguments]
        self.returncode: int | None = None
        pipes = [os.pipe() for _ in range(2)]
        self.stdout, self.stderr = (os.fdopen(reading, encoding="utf-8") for reading, _ in pipes)
        self._texts, self._threads = ["", ""], list[threading.Thread]()
        environment = dict(os.environ if env is None else env)
        asked = {"arguments": self.args, "cwd": str(cwd or os.getcwd()), "env": environment}
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(_server())
        with open(os.devnull) as nothing:
            socket.send_fds(self._connection, [b"x"], [nothing.fileno(), *(writing for _, writing in pipes)])
        for _, writing in pipes:
            os.close(writing)
        self._connection.sendall(json.dumps(asked).encode() + b"\n")
        self._answers = self._connection.makefile()
        self.pid = int(self._answers.readline())

    def send_signal(self, number: int) -> None:
        """As `Popen.send_signal`."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """As `Popen.kill`."""
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        """As `Popen.poll`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0.0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """As `Popen.wait`."""
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            status, seconds = self._answers.readline().split()
            self.returncode = os.waitstatus_to_exitcode(int(status))
            global _spent
            _spent += float(seconds)
            self._answers.close()
            self._connection.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """As `Popen.communicate`, for text."""
        if not self._threads:
            self._threads = [threading.Thread(target=self._read, args=(place,)) for place in range(2)]
            for thread in self._threads:
                thread.start()
        self.wait(timeout)
        for thread in self._threads:
            thread.join()
        return self._texts[0], self._texts[1]

    def _read(self, place: int) -> None:
        with (self.stdout, self.stderr)[place] as stream:
            self._texts[place] = stream.read()


def run(
    arguments: Sequence[object],
    *,
    cwd: object = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 280,
    check: bool = False,
) -> subprocess.CompletedProcess[str]:
    """A program to its end, as `subprocess.run(..., capture_output=True, text=True)`.

    Args:
        arguments: See `Program`.
        cwd: See `Program`.
        env: See `Program`.
        timeout: Seconds after which it is killed.
        check: Raise where it fails.
    """
    program = Program(arguments, cwd=cwd, env=env)
    try:
        out, err = program.communicate(timeout)
    finally:
        program.kill()
    done = subprocess.CompletedProcess(program.args, program.wait(), out, err)
    if check:
        done.check_returncode()
    return done


def spent() -> float:
    """Seconds of processor time of all programs that have ended, with all that they waited for."""
    return _spent


_address: str | None = None
_spent = 0.0


def _server() -> str:
    """The address of the server, which the first call in a test run starts."""
    global _address
    if _address is None:
        run = os.environ.get("PYTEST_XDIST_TESTRUNUID")  # the same in all of its test processes
        folder = Path(tempfile.gettempdir(), f"warm-{run or uuid.uuid4().hex}")
        folder.mkdir(0o700, exist_ok=True)
        address = str(folder / "socket")
        with open(folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.path.exists(address):
                _start(address, owner=os.getppid() if run else os.getpid())
        _address = address
    return _address


def _start(address: str, owner: int) -> None:
    """Start a server that ends after its owner, and wait until it has imported everything."""
    path = os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")])
    # Another hash seed than in this process: what shall be the same in every process can be compared with it.
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": seed}
    reading, writing = os.pipe()
    os.posix_spawn(
        sys.executable,
        [sys.executable, __file__, address, str(owner)],
        environment,
        file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, writing, 1)],
    )
    os.close(writing)
    with open(reading, "rb") as said:
        assert said.readline() == b"ready\n"


def _serve(address: str, owner: int) -> None:
    """Fork for everybody who asks, until the tests' first process ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C for the tests, which then end
    for name in [*PRELOADED, *_files_of_dlkit()]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # so that children share these objects' pages
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(16)
        os.write(1, b"ready\n")
        os.dup2(2, 1)  # so that the pipe of who started it closes
        while _is_alive(owner):
            ready = select.select([listener], [], [], 1.0)[0]
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            if ready:
                connection, _ = listener.accept()
                if os.fork() == 0:
                    listener.close()
                    _attend(connection)
                connection.close()
    shutil.rmtree(os.path.dirname(address), ignore_errors=True)  # the tests' first process removes it as well
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, 0):
            pass


def _files_of_dlkit() -> list[str]:
    """All modules but those that are programs, which run anew each time."""
    files = [path.relative_to(SOURCE).with_suffix("") for path in SOURCE.glob("dlkit/**/*.py")]
    names = [".".join(file.parts).removesuffix(".__init__") for file in files]
    return [name for name in names if name.rpartition(".")[2] not in ("__main__", "demo")]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _attend(connection: socket.socket) -> NoReturn:
    """Start one program, and tell its number and then its end."""
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    asked = json.loads(connection.makefile().readline())
    pid = os.fork()
    if pid == 0:
        connection.close()
        for place, stream in enumerate(streams):
            os.dup2(stream, place)
            os.close(stream)
        _become(asked)
    for stream in streams:
        os.close(stream)
    with contextlib.suppress(OSError):
        connection.sendall(f"{pid}\n".encode())
        _, status, used = os.wait4(pid, 0)
        connection.sendall(f"{status} {used.ru_utime + used.ru_stime}\n".encode())
    os._exit(0)


def _become(asked: dict[str, Any]) -> NoReturn:
    """Run the program in this process, and end as `python` does."""
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    tempfile.tempdir = None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout, sys.stderr = (os.fdopen(place, "w", encoding="utf-8", buffering=1, closefd=False) for place in (1, 2))
    sys.modules["numpy"].random.seed()
    code = 0
    try:
        _execute(asked["arguments"], asked["env"].get("PYTHONPATH", "").split(os.pathsep))
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
        if isinstance(left.code, str):
            print(left.code, file=sys.stderr)
    except KeyboardInterrupt:
        traceback.print_exc()
        code = -signal.SIGINT
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code & 0xFF)


def _execute(arguments: list[str], path: list[str]) -> None:
    first, *rest = arguments
    sys.path[:] = [*filter(None, path), *(entry for entry in sys.path[1:] if entry not in path)]
    if first == "-c":
        sys.path.insert(0, "")
        sys.argv = ["-c", *rest[1:]]
        main = type(sys)("__main__")
        sys.modules["__main__"] = main
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    elif first == "-m":
        sys.path.insert(0, os.getcwd())
        sys.argv = ["-m", *rest[1:]]
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(first).resolve().parent))
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
