"""A real HTTP server on 127.0.0.1 that serves files and folders, and fails the way it is told to.

with Server() as server:
    server.files["/a.bin"] = b"..."                       # bytes, a Path to a file, or a Path to a folder
    server.script("/a.bin", Reply(break_after=100))       # the first request; later ones get a good answer
    fetch(server.url("/a.bin"), tmp_path / "a.bin")
    assert server.requests[1].headers["Range"] == "bytes=100-"
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import ssl
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote

_LIBRARY_AGENTS = ("python-requests/", "python-urllib/", "curl/")
_CHUNK = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Reply:
    """How one request is answered; what is not said is done as a good server would."""

    status: int | None = None  # an answer without the file
    reason: str | None = None  # the words beside the status
    headers: Mapping[str, str | None] = field(default_factory=dict)  # added or replaced; None: left out
    content: bytes | None = None  # another file than usual
    ignore_range: bool = False  # the whole file with 200, although a part was asked for
    ignore_if_range: bool = False  # the asked part of the file, although it is another file by now
    break_after: int | None = None  # the connection is closed after so many bytes of the body
    hold_after: int | None = None  # after so many bytes of the body nothing comes until `release()`, then the rest
    claim_length: int | None = None  # the Content-Length that is sent instead of the true one
    chunked: bool = False  # without a length, in chunks


@dataclass
class Seen:
    """One request that arrived, and how much of a body it got."""

    path: str
    headers: dict[str, str]
    status: int = 0
    sent: int = 0
    length: int = -1  # of the file

    @property
    def whole(self) -> bool:
        """Whether every byte of the file went out with this one answer."""
        return self.sent == self.length


class Server:
    """The server, running inside a `with` block."""

    def __init__(self) -> None:
        self.files: dict[str, bytes | Path] = {}
        self.requests: list[Seen] = []
        self.picky = False  # whether the default User-Agents of libraries are answered with 406
        self.held = threading.Event()  # set while a `hold_after` reply holds its connection open
        self._released = threading.Event()
        self._scripts: defaultdict[str, list[Reply]] = defaultdict(list)
        self._lock = threading.Lock()
        self._http = _Quiet(("127.0.0.1", 0), _Handler)
        self._http.owner = self
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def secure(self, certificate: Path, key: Path) -> None:
        """Speak TLS from now on, with this certificate; addresses then begin with https."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)

    def url(self, path: str) -> str:
        """The address of a path, percent-encoded."""
        return f"http://127.0.0.1:{self._http.server_port}{quote(path)}"

    def script(self, path: str, *replies: Reply) -> None:
        """Answer the next requests for `path` so, one after the other."""
        self._scripts[path] += replies

    def release(self) -> None:
        """Let all held replies go on, these and later ones."""
        self._released.set()

    def sent(self, path: str) -> int:
        """Bytes of bodies that went out for `path`."""
        return sum(seen.sent for seen in self.requests if seen.path == path)

    def next_reply(self, path: str) -> Reply:
        with self._lock:
            script = self._scripts[path]
            return script.pop(0) if script else Reply()

    def find(self, path: str) -> bytes | Path | None:
        if path in self.files:
            return self.files[path]
        for prefix, folder in self.files.items():
            inside = path.removeprefix(prefix).lstrip("/")
            if isinstance(folder, Path) and path.startswith(prefix) and (folder / inside).is_file():
                return folder / inside
        return None

    def hold(self) -> None:
        self.held.set()
        self._released.wait(60)


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    owner: Server

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Quiet

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.close_connection = True
        server, path = self.server.owner, unquote(self.path.partition("?")[0])
        seen = Seen(path, dict(self.headers.items()))
        server.requests.append(seen)
        reply = server.next_reply(path)
        agent = self.headers.get("User-Agent", "").lower()
        found = reply.content if reply.content is not None else server.find(path)
        if server.picky and (not agent or agent.startswith(_LIBRARY_AGENTS)):
            reply = Reply(status=406)
        elif found is None and reply.status is None:
            reply = Reply(status=404)
        if reply.status is not None:
            self._start(seen, reply.status, {"Content-Length": "0"}, reply)
            return
        assert found is not None
        self._serve(seen, found if isinstance(found, bytes) else found.read_bytes(), reply)

    def _serve(self, seen: Seen, content: bytes, reply: Reply) -> None:
        etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        start = 0 if reply.ignore_range else self._range_start(etag, reply)
        headers = {"ETag": etag, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        if start is None or (start and start >= len(content)):
            self._start(seen, 416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"}, reply)
            return
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        if reply.chunked:
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers["Content-Length"] = str(len(body) if reply.claim_length is None else reply.claim_length)
        seen.length = len(content)
        self._start(seen, 206 if start else 200, headers, reply)
        self._send(seen, body, reply)

    def _range_start(self, etag: str, reply: Reply) -> int | None:
        condition = self.headers.get("If-Range")
        etag = reply.headers.get("ETag") or etag
        if condition not in (None, etag, reply.headers.get("Last-Modified")) and not reply.ignore_if_range:
            return 0
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))
        return int(found[1]) if found else None

    def _start(self, seen: Seen, status: int, headers: dict[str, str], reply: Reply) -> None:
        seen.status = status
        self.send_response(status, reply.reason)
        for name, value in {**headers, **reply.headers}.items():
            if value is not None:
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()

    def _send(self, seen: Seen, body: bytes, reply: Reply) -> None:
        goes_out = body if reply.break_after is None else body[: reply.break_after]
        before = len(goes_out) if reply.hold_after is None else reply.hold_after
        with contextlib.suppress(ConnectionError):
            self._write(seen, goes_out[:before], reply)
            if reply.hold_after is not None:
                self.server.owner.hold()
            self._write(seen, goes_out[before:], reply)
            if reply.chunked and reply.break_after is None:
                self.wfile.write(b"0\r\n\r\n")

    def _write(self, seen: Seen, body: bytes, reply: Reply) -> None:
        for piece in _pieces(body):
            seen.sent += len(piece)  # before the client has it, and may ask how much was sent
            try:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if reply.chunked else piece)
            except ConnectionError:
                seen.sent -= len(piece)
                raise


def _pieces(body: bytes) -> Iterator[bytes]:
    return (body[start : start + _CHUNK] for start in range(0, len(body), _CHUNK))
