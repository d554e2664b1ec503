"""Files that are whole or not there, and locks that end with their process."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dlkit.storage import files


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with files.atomic_write(path) as file:
            file.write(b"new")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        interrupted()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    with files.atomic_write(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_others_may_read_what_is_shared(tmp_path):
    mask = os.umask(0o022)
    try:
        with files.atomic_write(tmp_path / "a") as file:
            file.write(b"")
    finally:
        os.umask(mask)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_sha256(tmp_path):
    data = os.urandom(3 << 20)
    (tmp_path / "a").write_bytes(data)
    assert files.sha256_of(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("DLKIT_HOME", str(tmp_path / "here"))
    assert files.home() == tmp_path / "here"
    monkeypatch.delenv("DLKIT_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if sys.platform == "linux":
        assert files.home() == tmp_path / "cache" / "dlkit"


HOLD = """
import sys
from dlkit.storage.files import FileLock

lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_lock_ends_with_its_process(tmp_path):
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        lock = files.FileLock(path)
        assert not lock.acquire(timeout=0)
        assert not lock.acquire(timeout=0.05)
        holder.send_signal(signal.SIGKILL)
        assert lock.acquire(timeout=20)
        lock.release()


def test_a_lock_excludes_threads_and_is_not_inherited(tmp_path):
    path = tmp_path / "lock"
    with files.FileLock(path) as lock:
        assert lock.held
        assert not files.FileLock(path).acquire(timeout=0)
        got: list[bool] = []
        thread = threading.Thread(target=lambda: got.append(files.FileLock(path).acquire(timeout=0)))
        thread.start()
        thread.join()
        assert got == [False]
    ready, go = os.pipe(), os.pipe()
    lock = files.FileLock(path)
    lock.acquire()
    child = os.fork()
    if child == 0:
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    lock.release()
    other = files.FileLock(path)
    assert other.acquire(timeout=0), "the living child does not hold it"
    other.release()
    os.write(go[1], b"x")
    os.waitpid(child, 0)


def test_the_folder_of_a_lock_is_made(tmp_path):
    with files.FileLock(Path(tmp_path, "a", "b", "lock")) as lock:
        assert lock.held
