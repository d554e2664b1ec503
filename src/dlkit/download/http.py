"""One attempt to receive a file, by HTTP or from this machine, into a part that a later attempt can continue."""

from __future__ import annotations

import contextlib
import email.utils
import json
import os
import re
import time
import urllib.parse
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from dlkit._opening import open_regular, regular
from dlkit._showing import without_secrets
from dlkit.download.disk import check_room, disk_trouble, remove
from dlkit.download.limits import DownloadLimits, Patience
from dlkit.download.urls import is_local, known_as, local_path
from dlkit.errors import DataError
from dlkit.storage.files import give_name, write_json

if TYPE_CHECKING:
    import requests

_CHUNK = 1 << 16  # bytes; at most so much is lost when the process is killed
_AGENT = "dlkit-torch/1 (downloads public datasets)"  # some servers refuse the default one of a library
_LOOK_EACH = 64 << 20  # bytes after which the disk is asked again how much room it has
_RAISE_LIMIT = "if that is right, give its size=, or limits=DownloadLimits(max_file=...)"
_TEMPORARY = frozenset((408, 425, 429))  # and all of 5xx
_DECODED = frozenset(("gzip", "x-gzip", "deflate"))  # Content-Encodings that every urllib3 undoes


class AttemptError(Exception):
    """The attempt failed; a later one may succeed, after `pause` seconds if the server said so."""

    def __init__(self, reason: str, *, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause


class RefusedDownloadError(AttemptError):
    """This mirror will not give the file, however often it is asked."""


class WrongFileError(RefusedDownloadError):
    """This mirror has another file under that name."""


class StartOverError(AttemptError):
    """What was received so far cannot be continued; a fresh attempt may be made at once."""


class Listener(Protocol):
    """Who is told how the transfer goes."""

    def restart(self, done: int, total: int | None) -> None:
        """Bytes will follow from `done` on, up to `total` where that is known."""

    def update(self, number: int) -> None:
        """So many more bytes are in the part."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where the bytes of a part came from, and what the server said to recognise the same file again."""

    url: str
    etag: str | None = None
    last_modified: str | None = None
    total: int | None = None

    @property
    def validator(self) -> str | None:
        """What `If-Range` may carry: a strong ETag or else the date (RFC 9110, section 13.1.5)."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified

    def contradicts(self, other: Provenance) -> bool:
        """Whether both speak of the same URL or length, but not of the same file."""
        pairs: list[tuple[object, object]] = [(self.total, other.total)]
        if self.url == other.url:
            pairs += [(self.etag, other.etag), (self.last_modified, other.last_modified)]
        return any(None not in pair and pair[0] != pair[1] for pair in pairs)


class PartFile:
    """The bytes of `target` received so far, `<name>.part`, and their origin, `<name>.part.json`.

    The order of writing makes every kill harmless: the part is emptied before a new origin is written, and the origin
    is on the disk before the first byte that came from it.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self._notes = target.with_name(f"{target.name}.part.json")
        self.origin = _read_origin(self._notes) if os.path.isfile(self.path) else None
        self.continued = self.size > 0  # whether the bytes came from more than one answer

    @property
    def size(self) -> int:
        """Bytes received so far."""
        with disk_trouble(self.path, "read"):
            return self.path.stat().st_size if os.path.exists(self.path) else 0

    def continues(self, url: str, *, hashed: bool) -> bool:
        """Whether `url` may continue where the part ends: the same file for sure, or a hash will tell in the end."""
        if self.origin is None or self.size == 0:
            return False
        return hashed or (self.origin.url == url and self.origin.validator is not None)

    def is_complete(self) -> bool:
        """Whether it is as long as its origin said."""
        return self.origin is not None and self.origin.total == self.size

    def begin(self, origin: Provenance | None) -> None:
        """Empty the part for bytes from `origin`; None where they can never be continued."""
        with disk_trouble(self.path, "write"):
            remove(self._notes)
            open(self.path, "wb").close()
        self.origin, self.continued = origin, False
        if origin is not None:
            self._note(origin)

    def go_on_from(self, url: str) -> None:
        """Bytes from `url` come next. Where it is another mirror than before, only a hash can tell if they fit."""
        self.continued = True
        if self.origin is not None and self.origin.url != url:
            self.origin = Provenance(url=url, total=self.origin.total)
            self._note(self.origin)

    def _note(self, origin: Provenance) -> None:
        with disk_trouble(self._notes, "write"):
            write_json(self._notes, asdict(origin))

    def append(self, chunks: Generator[bytes, None, None], listener: Listener, request: DownloadRequest) -> None:
        """Write the chunks behind what is there, each at once; stop when there are more bytes than there may be."""
        size = self.size
        at_most = request.limits.max_file if request.size is None else request.size
        total = request.size if self.origin is None or self.origin.total is None else self.origin.total
        check_room(self.path, max(0, (total or 0) - size), request.limits.keep_free, "download to")
        look_at = size + _LOOK_EACH
        writing = disk_trouble(self.path, "write")
        with contextlib.closing(chunks), writing, open(self.path, "ab", buffering=0) as file:
            for chunk in chunks:
                rest = memoryview(chunk)
                while rest:
                    rest = rest[file.write(rest) :]
                size += len(chunk)
                listener.update(len(chunk))
                if size > at_most:
                    return
                if size >= look_at:
                    look_at = size + _LOOK_EACH
                    check_room(self.path, 0, request.limits.keep_free, "download to")

    def clear(self) -> None:
        """Forget everything received so far."""
        remove(self.path)
        remove(self._notes)
        self.origin, self.continued = None, False

    def finish(self) -> None:
        """Put the complete part under the name of the target, for good."""
        with disk_trouble(self.target, "write"):
            give_name(self.path, self.target)
        remove(self._notes)


def _read_origin(path: Path) -> Provenance | None:
    """What a process before this one noted; None if that is missing or no longer makes sense."""
    try:
        with open_regular(path) as file:
            notes = json.loads(file.read())
        origin = Provenance(**notes)
    except (OSError, ValueError, TypeError):
        return None
    texts_fit = all(value is None or isinstance(value, str) for value in (origin.etag, origin.last_modified))
    total_fits = origin.total is None or (type(origin.total) is int and origin.total >= 0)
    return origin if isinstance(origin.url, str) and texts_fit and total_fits else None


@dataclass(frozen=True, kw_only=True)
class DownloadRequest:
    """What is required of a mirror, and what is known about the file."""

    patience: Patience
    limits: DownloadLimits
    size: int | None
    hashed: bool


def receive(url: str, part: PartFile, request: DownloadRequest, listener: Listener) -> None:
    """Receive the file from `url` into `part`, continuing where it ends if that is safe.

    Raises:
        AttemptError: It did not work this time; what arrived is in the part.
        DownloadError: The disk refused.
    """
    if part.continues(known_as(url), hashed=request.hashed) and part.is_complete():
        return
    if is_local(url):
        _receive_file(url, part, request, listener)
    else:
        _receive_http(url, part, request, listener)
    if request.size is None and part.size > request.limits.max_file:
        part.clear()
        raise RefusedDownloadError(f"sent more than {request.limits.max_file:,} bytes; {_RAISE_LIMIT}")
    if part.origin is not None and part.origin.total is not None and part.size < part.origin.total:
        raise AttemptError(f"broke off after {part.size:,} of {part.origin.total:,} bytes")


def _receive_file(url: str, part: PartFile, request: DownloadRequest, listener: Listener) -> None:
    source = local_path(url)
    try:
        total = regular(source).st_size
    except DataError as error:
        raise RefusedDownloadError(str(error)) from error
    origin = Provenance(url=known_as(url), total=total)
    _check_size(origin, request)
    part.begin(origin)
    listener.restart(0, origin.total)
    part.append(_file_chunks(source), listener, request)


def _file_chunks(source: Path) -> Generator[bytes, None, None]:
    try:
        with open_regular(source) as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except DataError as error:
        raise RefusedDownloadError(str(error)) from error
    except OSError as error:
        raise RefusedDownloadError(f"cannot be read: {error.strerror or error}") from error


def _receive_http(url: str, part: PartFile, request: DownloadRequest, listener: Listener) -> None:
    offset = part.size if part.continues(known_as(url), hashed=request.hashed) else 0
    with _answer(url, _headers(url, part, offset), request) as response:
        _check_status(response, offset)
        decode = _is_encoded(response, url, part.target.name)
        origin = _origin(url, response, decode=decode)
        _check_size(origin, request)
        if response.status_code == 206:
            _continue_part(part, origin, response, offset, decode=decode)
        else:
            offset = 0
            part.begin(None if decode else origin)
        listener.restart(offset, origin.total)
        part.append(_body(response, request, decode=decode), listener, request)


def _headers(url: str, part: PartFile, offset: int) -> dict[str, str]:
    # A compressed answer would be another file: its bytes, length and ranges are not those that were promised.
    headers = {"User-Agent": _AGENT, "Accept-Encoding": "identity"}
    if offset and part.origin is not None:
        headers["Range"] = f"bytes={offset}-"
        if part.origin.url == known_as(url) and part.origin.validator is not None:
            headers["If-Range"] = part.origin.validator
    return headers


@contextlib.contextmanager
def _answer(url: str, headers: dict[str, str], request: DownloadRequest) -> Iterator[requests.Response]:
    import requests  # here, because it takes a tenth of a second and most calls find the file on the disk

    hopeless = (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.TooManyRedirects)
    try:
        response = requests.get(
            url, headers=headers, stream=True, timeout=(request.patience.connect, request.patience.read)
        )
    except (*hopeless, requests.exceptions.SSLError, ValueError) as error:  # ValueError: a redirect to "http://[x"
        raise RefusedDownloadError(_brief(error)) from error
    except requests.Timeout as error:
        raise AttemptError(
            f"did not answer within {request.patience.connect:g} s (connect) and {request.patience.read:g} s (read)"
        ) from error
    except requests.RequestException as error:
        raise AttemptError(_brief(error)) from error
    with response:
        yield response


def _body(response: requests.Response, request: DownloadRequest, *, decode: bool) -> Generator[bytes, None, None]:
    import urllib3

    try:
        yield from response.raw.stream(_CHUNK, decode_content=decode)
    except urllib3.exceptions.ReadTimeoutError as error:
        raise AttemptError(f"sent nothing for {request.patience.read:g} s") from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise AttemptError(f"broke off: {_brief(error)}") from error


def _brief(error: Exception) -> str:
    """The innermost reason: requests wraps it in the words of two libraries."""
    inner = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
    return without_secrets(f"{type(error).__name__}: {getattr(inner, 'reason', None) or inner}")


def _check_status(response: requests.Response, offset: int) -> None:
    status = response.status_code
    if status == 200 or (status == 206 and offset):
        return
    if status == 416 and offset:
        raise StartOverError("has no bytes where the part ends")
    reason = f"answered {status} {response.reason}"
    if status in _TEMPORARY or status >= 500:
        pause = _retry_after(response.headers.get("Retry-After", ""))
        raise AttemptError(reason if pause is None else f"{reason} and asks to wait {pause:,.0f} s", pause=pause)
    raise RefusedDownloadError(reason)


def _retry_after(text: str) -> float | None:
    """Seconds to wait: the header holds either these or a date."""
    if (seconds := _number(text)) is not None:
        return float(seconds)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch("[0-9]{1,18}", text.strip()) else None


def _is_encoded(response: requests.Response, url: str, name: str) -> bool:
    """Whether the body must be decompressed, although the server was asked not to compress it."""
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return False
    if encoding not in _DECODED:
        raise RefusedDownloadError(f"sends it with Content-Encoding {encoding!r}, although asked for none")
    # Many servers label a .gz file as gzip-encoded: the file itself is meant.
    names = (urllib.parse.urlsplit(url).path.lower(), name.lower())
    return not (encoding.endswith("gzip") and any(name.endswith((".gz", ".tgz")) for name in names))


def _origin(url: str, response: requests.Response, *, decode: bool) -> Provenance:
    headers = response.headers
    total = None if decode or "Transfer-Encoding" in headers else _number(headers.get("Content-Length", ""))
    if response.status_code == 206:
        _, total = _content_range(response)
    etag, last_modified = headers.get("ETag"), headers.get("Last-Modified")
    return Provenance(url=known_as(url), etag=etag, last_modified=last_modified, total=total)


def _content_range(response: requests.Response) -> tuple[int | None, int | None]:
    """The first byte of a partial answer and the length of the whole file."""
    found = re.fullmatch(
        r"bytes +([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)", response.headers.get("Content-Range", "")
    )
    return (None, None) if found is None else (int(found[1]), _number(found[2]))


def _check_size(origin: Provenance, request: DownloadRequest) -> None:
    if None not in (origin.total, request.size) and origin.total != request.size:
        raise WrongFileError(f"offers {origin.total:,} bytes, not the expected {request.size:,}")
    if origin.total is not None and request.size is None and origin.total > request.limits.max_file:
        raise RefusedDownloadError(
            f"offers {origin.total:,} bytes, more than {request.limits.max_file:,}; {_RAISE_LIMIT}"
        )


def _continue_part(
    part: PartFile, origin: Provenance, response: requests.Response, offset: int, *, decode: bool
) -> None:
    """Accept a partial answer only if it is exactly the rest of the file that the part is the beginning of."""
    start, _ = _content_range(response)
    if decode or start != offset or part.origin is None or origin.contradicts(part.origin):
        raise StartOverError("the file changed since its first part was received, or the server sent another range")
    part.go_on_from(origin.url)
