"""Fetch files and unpack them: whole, verified and only once, however often the network or the process breaks.

`fetch` puts a file under its name only after its size and hash were checked. What arrived of it waits beside it in
`<name>.part`, with `<name>.part.json` saying where it came from; the next attempt, mirror or process continues there.
The empty `.<name>.lock` stays: removing it would let two processes hold two locks.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dlkit._opening import open_regular
from dlkit._progress import Bar
from dlkit._showing import Lines, public, safe
from dlkit.download.archives import put_in_place, staged, unpack_lock
from dlkit.download.disk import disk_trouble, remove
from dlkit.download.http import (
    AttemptError,
    DownloadRequest,
    PartFile,
    RefusedDownloadError,
    StartOverError,
    WrongFileError,
    receive,
)
from dlkit.download.limits import USUAL_LIMITS, USUAL_PATIENCE, DownloadLimits, Patience
from dlkit.download.members import plain_name
from dlkit.download.urls import checked_urls, is_local, known_as
from dlkit.errors import ArgumentError, DownloadError, IntegrityError, OfflineError
from dlkit.storage.files import FileLock, sha256_of, write_json

__all__ = ["fetch"]

_REASON = 400  # characters of a server's words that an error repeats


def fetch(
    urls: str | Sequence[str],
    to: str | os.PathLike[str],
    *,
    sha256: str | None = None,
    size: int | None = None,
    extract: bool = False,
    progress: bool = True,
    patience: Patience = USUAL_PATIENCE,
    limits: DownloadLimits = USUAL_LIMITS,
) -> Path:
    """Make sure that a file is there, whole and right; get it from the first mirror that gives it if it is not.

    A file that is there and has the promised size and hash is returned without any network; one that is not
    fetched again and replaced only by one that does. Without `sha256` and `size` any file under that name will do, and
    that a download is whole can be told only as far as the server announces its length: give the hash if you know it.

    A broken connection, a 5xx, 408, 425 or 429 is tried again after a pause; other refusals end it for that mirror.
    A partial file is continued, by this call or the next one, also after Ctrl-C or a kill; it is started over
    if the server cannot continue or its file changed. Processes that want the same file wait for the one that is
    fetching it.

    With the environment variable `DLKIT_OFFLINE=1` nothing is fetched but `file:` URLs.

    Args:
        urls: One address or several mirrors: `http:`, `https:` or `file:` (for a path, `Path(...).as_uri()`).
        to: The path of the file to make. Missing folders above it are made.
        sha256: The file's SHA-256 as 64 hexadecimal digits.
        size: The file's length in bytes.
        extract: Also unpack the file, which must then be named like an archive, into a folder beside it that has its
            name without the ending: `data/letters.tar.gz` into `data/letters`. See `dlkit.download.extract`. A folder
            that was unpacked from the right archive is returned as it is, also when the archive was removed since.
        progress: Show a bar while downloading.
        patience: Timeouts and retries.
        limits: How much may be fetched where `size` is not known (64 GB), be unpacked, and stay free on the disk.

    Returns:
        The path of the file, or of the folder if `extract` is set.

    Raises:
        ArgumentError: An invalid argument, or the folder to unpack to exists and was not made by `fetch`.
        IntegrityError: What a mirror gave has not the promised size or hash, and no other mirror had it.
        OfflineError: The file is not there and `DLKIT_OFFLINE` is set.
        DownloadError: No mirror gave the file (each is listed with its reason), or the disk refused.
        UnsafeArchiveError: The archive would write outside its folder or more than `limits` allow.
        ArchiveError: The archive is damaged.

    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "source.txt").write_text("hello")
    >>> fetch((folder / "source.txt").as_uri(), folder / "copy.txt", size=5, progress=False).read_text()
    'hello'
    """
    target = _checked_target(to)
    job = _Job(checked_urls(urls), target, _Promise(sha256=sha256, size=size), patience, limits, progress)
    if extract:
        return _fetch_folder(job)
    _fetch_file(job)
    return target


@dataclass(frozen=True, kw_only=True)
class _Promise:
    """What is known of a file before it is there."""

    sha256: str | None
    size: int | None

    def __post_init__(self) -> None:
        if self.sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", self.sha256):
            raise ArgumentError(f"sha256 must be 64 hexadecimal digits, not {self.sha256!r}")
        if self.size is not None and (type(self.size) is not int or self.size < 0):
            raise ArgumentError(f"size must be a number of bytes, not {self.size!r}")

    def problem(self, path: Path) -> str:
        """What about the file is not as promised, or nothing."""
        with disk_trouble(path, "read"):
            if self.size is not None and path.stat().st_size != self.size:
                return f"has {path.stat().st_size:,} bytes, not {self.size:,}"
            if self.sha256 is not None and (actual := sha256_of(path)) != self.sha256.lower():
                return f"has the SHA-256 {actual}, not {self.sha256.lower()}"
        return ""

    def is_kept_by(self, path: Path) -> bool:
        """Whether the file is there and right."""
        return os.path.isfile(path) and not self.problem(path)


@dataclass(frozen=True)
class _Job:
    """One call of `fetch`."""

    urls: list[str]
    target: Path
    promise: _Promise
    patience: Patience
    limits: DownloadLimits
    progress: bool


def _checked_target(to: str | os.PathLike[str]) -> Path:
    target = Path(to).expanduser()
    if target.name in ("", "..") or os.path.isdir(target):
        raise ArgumentError(f"to={str(to)!r} is a folder; give the path of the file to make, its name included")
    return target


# ---- one file


def _fetch_file(job: _Job) -> None:
    """Bring the file in place, waiting while another process does; hashing what that one made needs no lock."""
    while not job.promise.is_kept_by(job.target):
        urls = _reachable(job)
        lock = FileLock(job.target.with_name(f".{job.target.name}.lock"))
        with disk_trouble(job.target.parent, "write to"):
            at_once = lock.acquire(timeout=0)
            if not at_once:
                lock.acquire()  # another process is at it: wait until it ends, then look again
        try:
            if at_once:
                if not job.promise.is_kept_by(job.target):
                    _download(job, urls)
                return
        finally:
            lock.release()


def _reachable(job: _Job) -> list[str]:
    if os.environ.get("DLKIT_OFFLINE", "").strip().lower() in ("", "0", "false", "no", "off"):
        return job.urls
    local = [url for url in job.urls if is_local(url)]
    if local:
        return local
    state = "is not there"
    if os.path.exists(job.target):
        state = f"is there, but it {job.promise.problem(job.target)}"
    raise OfflineError(
        f"{job.target} {state}, and DLKIT_OFFLINE forbids downloading it; unset that variable, "
        f"or put the file there yourself from {public(job.urls[0])}"
    )


@dataclass
class _Mirror:
    """One address and how it fared so far."""

    url: str
    failures: int = 0
    ready_at: float = 0.0
    restarted: bool = False

    def wait(self) -> None:
        """Let the pause after its last failure pass."""
        if (pause := self.ready_at - time.monotonic()) > 0:
            time.sleep(pause)

    def is_hopeless(self, trouble: AttemptError, patience: Patience, *, progressed: bool) -> bool:
        """Note a failure; whether the mirror is to be given up."""
        self.failures = 1 if progressed else self.failures + 1
        pause = min(patience.backoff * 2.0 ** min(self.failures - 1, 60), patience.longest_pause)
        asked = trouble.pause or 0.0
        self.ready_at = time.monotonic() + max(pause, asked)
        return (
            isinstance(trouble, RefusedDownloadError)
            or self.failures >= patience.attempts
            or asked > patience.longest_pause
        )


def _download(job: _Job, urls: list[str]) -> None:
    """Try the mirrors until one of them completes the part; the caller holds the lock."""
    part = PartFile(job.target)
    waiting = [_Mirror(url) for url in urls]
    given_up: dict[str, AttemptError] = {}
    most = part.size
    desc = safe(job.target.name, most=60)
    with Bar(None, desc=desc, unit="B", delay=0, scaled=True, leave=True, enabled=job.progress) as bar:
        while waiting:
            mirror = _next_mirror(waiting, part, job.promise)
            mirror.wait()
            try:
                _attempt(mirror, part, job, bar)
                return
            except StartOverError:
                part.clear()
            except AttemptError as trouble:
                if mirror.is_hopeless(trouble, job.patience, progressed=part.size > most):
                    waiting.remove(mirror)
                    given_up[mirror.url] = trouble
                most = max(most, part.size)
    raise _failure(job, given_up, part)


def _next_mirror(waiting: list[_Mirror], part: PartFile, promise: _Promise) -> _Mirror:
    """The one that may be asked soonest; without a hash only the part's own mirror can continue it."""
    if promise.sha256 is None:
        for mirror in waiting:
            if part.continues(known_as(mirror.url), hashed=False):
                return mirror
    return min(waiting, key=lambda mirror: mirror.ready_at)


def _attempt(mirror: _Mirror, part: PartFile, job: _Job, bar: Bar) -> None:
    promise, patience = job.promise, job.patience
    hashed = promise.sha256 is not None
    request = DownloadRequest(patience=patience, limits=job.limits, size=promise.size, hashed=hashed)
    receive(mirror.url, part, request, bar)
    if problem := promise.problem(part.path):
        patched = part.continued and not mirror.restarted
        part.clear()
        if patched:  # perhaps only the seam is wrong: once more, in one piece
            mirror.restarted = True
            raise StartOverError(problem)
        raise WrongFileError(f"gave a file that {problem}")
    part.finish()


def _failure(job: _Job, given_up: dict[str, AttemptError], part: PartFile) -> DownloadError:
    told = [f"could not download {job.target}:"]
    told += [f"  {public(url)}: {safe(str(trouble), most=_REASON)}" for url, trouble in given_up.items()]
    if part.origin is not None and part.size:
        told.append(f"the {part.size:,} bytes that arrived are kept in {part.path}; calling again resumes there")
    wrong = any(isinstance(trouble, WrongFileError) for trouble in given_up.values())
    return (IntegrityError if wrong else DownloadError)(Lines.of(*told))


# ---- one folder


def _fetch_folder(job: _Job) -> Path:
    """Bring the archive and its folder in place.

    `.<folder>.unpacked.json` says which archive the folder was made from. It changes only while the folder is away, so
    the two fit together at every moment of a kill.
    """
    name = plain_name(job.target.name)
    if name in (job.target.name, "", ".", ".."):
        raise ArgumentError(
            f"to={str(job.target)!r} cannot be unpacked: with extract=True `to` is the path of the archive, such as "
            "'data/letters.tar.gz', and its name without the ending (.zip, .tar, .tar.gz, .gz, ...) that of the folder"
        )
    folder = job.target.with_name(name)
    notes = folder.with_name(f".{folder.name}.unpacked.json")
    if not _is_unpacked(folder, notes, job):
        _fetch_file(job)
        with unpack_lock(folder):
            if not _is_unpacked(folder, notes, job):
                _unpack(folder, notes, job.target, job.limits)
    return folder


def _is_unpacked(folder: Path, notes: Path, job: _Job) -> bool:
    """Whether the folder was made from the archive that is asked for."""
    record = _read_record(notes) if os.path.isdir(folder) else None
    if record is None or job.promise.size not in (None, record.size):
        return False
    if job.promise.sha256 is not None:
        return record.sha256 == job.promise.sha256.lower()
    if not os.path.exists(job.target):
        return True
    with disk_trouble(job.target, "read"):
        return job.target.stat().st_size == record.size and sha256_of(job.target) == record.sha256


def _unpack(folder: Path, notes: Path, archive: Path, limits: DownloadLimits) -> None:
    """Unpack beside the folder, then swap; only a folder that was made here before is ever replaced."""
    ours = folder.is_dir() and (notes.exists() or not any(folder.iterdir()))
    if os.path.lexists(folder) and not ours:
        raise ArgumentError(
            f"cannot unpack {archive}: {folder} exists and was not made by fetch; "
            "move that away, or name another file in `to`"
        )
    old = folder.with_name(f".{folder.name}.old")
    with staged(archive, folder, limits) as new:
        with disk_trouble(archive, "read"):
            record = _Promise(sha256=sha256_of(archive), size=archive.stat().st_size)
        remove(old)
        with disk_trouble(folder, "replace"):
            if os.path.lexists(folder):
                folder.rename(old)
        with disk_trouble(notes, "write"):
            write_json(notes, asdict(record))
        put_in_place(new, folder)
    remove(old)


def _read_record(notes: Path) -> _Promise | None:
    try:
        with open_regular(notes) as file:
            record = _Promise(**json.loads(file.read()))
    except (OSError, ValueError, TypeError):
        return None
    return record if record.sha256 is not None and record.size is not None else None
