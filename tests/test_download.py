"""`fetch` against a real server that breaks off, stalls, lies and refuses, against kills, full disks and company."""

from __future__ import annotations

import contextlib
import email.utils
import errno
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from disks import as_nobody, open_folder, resize, small_disk
from dlkit.download import DownloadLimits, Patience, fetch
from dlkit.errors import ArchiveError, ArgumentError, DownloadError, IntegrityError, OfflineError, UnsafeArchiveError
from screens import new_screen
from servers import Reply, Server

QUICK = Patience(connect=5, read=5, attempts=3, backoff=0)
BODY = random.Random(7).randbytes(300_000)
OTHER = random.Random(8).randbytes(300_000)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def get(urls: str | list[str], to: Path, **options: Any) -> Path:
    return fetch(urls, to, **{"progress": False, "patience": QUICK, **options})


def names(folder: Path) -> list[str]:
    """What lies in the folder, lock files left out."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as server:
        server.files["/a.bin"] = BODY
        yield server


# ---- the plain case


def test_a_file_comes_whole_and_alone(server: Server, tmp_path: Path) -> None:
    to = tmp_path / "new" / "folder" / "a.bin"
    assert get(server.url("/a.bin"), to, sha256=digest(BODY).upper(), size=len(BODY)) == to
    assert to.read_bytes() == BODY
    assert names(to.parent) == ["a.bin"]


def test_it_has_its_own_user_agent_and_asks_for_no_compression(server: Server, tmp_path: Path) -> None:
    server.picky = True  # like the home of notMNIST: 406 to the default of urllib
    get(server.url("/a.bin"), tmp_path / "a.bin")
    [seen] = server.requests
    assert seen.headers["User-Agent"].startswith("dlkit")
    assert seen.headers["Accept-Encoding"] == "identity"
    assert "Range" not in seen.headers


def test_redirects_are_followed(server: Server, tmp_path: Path) -> None:
    server.script("/old", Reply(status=302, headers={"Location": "/a.bin"}))
    assert get(server.url("/old"), tmp_path / "a.bin").read_bytes() == BODY


@pytest.mark.parametrize("content", [b"", b"x"])
def test_tiny_files(server: Server, tmp_path: Path, content: bytes) -> None:
    server.files["/tiny"] = content
    assert get(server.url("/tiny"), tmp_path / "tiny", size=len(content)).read_bytes() == content


@pytest.mark.parametrize("promise", [{}, {"size": len(BODY)}, {"sha256": digest(BODY)}])
def test_a_good_file_needs_no_network(server: Server, tmp_path: Path, promise: dict[str, Any]) -> None:
    to = tmp_path / "a.bin"
    to.write_bytes(BODY)
    assert get(server.url("/a.bin"), to, **promise) == to
    assert server.requests == []
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("promise", [{"size": len(BODY)}, {"sha256": digest(BODY)}])
def test_a_wrong_file_is_fetched_again(server: Server, tmp_path: Path, promise: dict[str, Any]) -> None:
    to = tmp_path / "a.bin"
    to.write_bytes(OTHER[:-1])
    assert get(server.url("/a.bin"), to, **promise).read_bytes() == BODY


def test_a_wrong_file_is_neither_used_nor_lost_if_the_new_one_fails(server: Server, tmp_path: Path) -> None:
    to = tmp_path / "a.bin"
    to.write_bytes(b"mine")
    with pytest.raises(DownloadError, match="404"):
        get(server.url("/nowhere"), to, sha256=digest(BODY))
    with pytest.raises(IntegrityError):
        get(server.url("/a.bin"), to, sha256=digest(OTHER))
    assert to.read_bytes() == b"mine"
    assert names(tmp_path) == ["a.bin"]


def test_the_bar_shows_only_if_wanted(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = new_screen(monkeypatch)
    get(server.url("/a.bin"), tmp_path / "silent.bin")
    assert screen.shown == ""
    server.script("/a.bin", Reply(break_after=100_000))
    get(server.url("/a.bin"), tmp_path / "shown.bin", progress=True)
    assert "shown.bin: 100%" in screen.shown
    assert "293k/293k" in screen.shown


# ---- refusals and retries


@pytest.mark.parametrize("status", [400, 403, 404, 406, 410, 204, 304])
def test_what_will_not_get_better_is_asked_once(server: Server, tmp_path: Path, status: int) -> None:
    server.script("/a.bin", Reply(status=status))
    with pytest.raises(DownloadError, match=f"answered {status}"):
        get(server.url("/a.bin"), tmp_path / "a.bin")
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_get_better_is_asked_again(server: Server, tmp_path: Path, status: int) -> None:
    server.script("/a.bin", Reply(status=status), Reply(status=status))
    assert get(server.url("/a.bin"), tmp_path / "a.bin").read_bytes() == BODY
    assert len(server.requests) == 3


def test_attempts_are_counted(server: Server, tmp_path: Path) -> None:
    server.script("/a.bin", *[Reply(status=500)] * 9)
    with pytest.raises(DownloadError, match=r"(?s)could not download .*a\.bin.*/a\.bin: answered 500") as caught:
        get(server.url("/a.bin"), tmp_path / "a.bin", patience=Patience(attempts=4, backoff=0))
    assert len(server.requests) == 4
    assert not isinstance(caught.value, IntegrityError)


def test_pauses_double_up_to_the_longest(server: Server, tmp_path: Path) -> None:
    server.script("/a.bin", *[Reply(status=500)] * 4)
    patience = Patience(attempts=5, backoff=0.05, longest_pause=0.15)
    start = time.monotonic()
    get(server.url("/a.bin"), tmp_path / "a.bin", patience=patience)
    assert time.monotonic() - start >= 0.05 + 0.1 + 0.15 + 0.15


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_obeyed(server: Server, tmp_path: Path, form: str) -> None:
    after = "1" if form == "seconds" else email.utils.formatdate(time.time() + 2, usegmt=True)  # rounded down
    server.script("/a.bin", Reply(status=429, headers={"Retry-After": after}))
    start = time.monotonic()
    get(server.url("/a.bin"), tmp_path / "a.bin")
    assert time.monotonic() - start >= 0.95


def test_too_long_a_retry_after_ends_it(server: Server, tmp_path: Path) -> None:
    server.script("/a.bin", Reply(status=503, headers={"Retry-After": "3600"}))
    with pytest.raises(DownloadError, match=r"503.*asks to wait 3,600 s"):
        get(server.url("/a.bin"), tmp_path / "a.bin")


def test_a_senseless_retry_after_is_ignored(server: Server, tmp_path: Path) -> None:
    server.script("/a.bin", *[Reply(status=429, headers={"Retry-After": text}) for text in ("soon", "-5")])
    assert get(server.url("/a.bin"), tmp_path / "a.bin").read_bytes() == BODY


def test_mirrors_are_tried_in_turn_and_all_named(server: Server, tmp_path: Path) -> None:
    closed = "http://127.0.0.1:9/a.bin"  # the discard port: nobody listens
    server.script("/500", *[Reply(status=500)] * 9)
    urls = [server.url("/gone"), closed, server.url("/500"), server.url("/a.bin")]
    assert get(urls, tmp_path / "a.bin").read_bytes() == BODY
    assert [seen.path for seen in server.requests] == ["/gone", "/500", "/a.bin"]
    with pytest.raises(DownloadError) as caught:
        get(urls[:3], tmp_path / "b.bin")
    for text in (str(tmp_path / "b.bin"), "/gone: answered 404", closed, "refused", "/500: answered 500"):
        assert text in str(caught.value)


def test_one_dead_mirror_costs_no_pause(server: Server, tmp_path: Path) -> None:
    server.script("/busy", *[Reply(status=503)] * 9)
    patience = Patience(attempts=5, backoff=30)
    start = time.monotonic()
    get([server.url("/busy"), server.url("/a.bin")], tmp_path / "a.bin", patience=patience)
    assert time.monotonic() - start < 10


def test_a_server_that_is_not_http(tmp_path: Path) -> None:
    with contextlib.closing(__import__("socket").create_server(("127.0.0.1", 0))) as socket:

        def answer() -> None:
            for _ in range(QUICK.attempts):
                connection, _ = socket.accept()
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(b"220 welcome to ftp\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(DownloadError, match="could not download"):
            get(f"http://127.0.0.1:{socket.getsockname()[1]}/a", tmp_path / "a")
        thread.join()


def test_a_password_is_sent_but_never_shown(server: Server, tmp_path: Path) -> None:
    url = server.url("/a.bin").replace("//", "//eve:secret@")
    server.script("/a.bin", Reply(break_after=100_000), Reply(status=403))
    with pytest.raises(DownloadError) as caught:
        get(url, tmp_path / "a.bin")
    assert server.requests[0].headers["Authorization"].startswith("Basic ")
    assert "secret" not in str(caught.value)
    assert "secret" not in (tmp_path / "a.bin.part.json").read_text()
    assert get(url, tmp_path / "a.bin").read_bytes() == BODY
    assert server.requests[2].headers["Range"] == "bytes=100000-"


# ---- going on where it broke off


@pytest.mark.parametrize("chunked", [False, True])
def test_a_broken_connection_is_continued(server: Server, tmp_path: Path, chunked: bool) -> None:
    server.script("/a.bin", Reply(break_after=131_072, chunked=chunked))
    assert get(server.url("/a.bin"), tmp_path / "a.bin").read_bytes() == BODY
    first, second = server.requests
    assert second.headers["Range"] == "bytes=131072-"
    assert second.headers["If-Range"].startswith('"')
    assert first.sent + second.sent == len(BODY)


def test_progress_renews_the_attempts(server: Server, tmp_path: Path) -> None:
    server.script("/a.bin", *[Reply(break_after=20_000)] * 14)
    assert get(server.url("/a.bin"), tmp_path / "a.bin").read_bytes() == BODY
    assert len(server.requests) == 15
    assert server.sent("/a.bin") == len(BODY)


def test_only_what_was_never_reached_before_is_progress(server: Server, tmp_path: Path) -> None:
    server.script("/a.bin", *[Reply(break_after=point, ignore_range=True) for point in (20_000, 10_000) * 9])
    with pytest.raises(DownloadError, match=r"broke off"):
        get(server.url("/a.bin"), tmp_path / "a.bin")
    assert len(server.requests) == QUICK.attempts


def test_a_server_that_gives_piece_by_piece(server: Server, tmp_path: Path) -> None:
    piece = Reply(headers={"Content-Range": "bytes 100000-149999/300000"}, claim_length=50_000, break_after=50_000)
    server.script("/a.bin", Reply(break_after=100_000), piece)
    assert get(server.url("/a.bin"), tmp_path / "a.bin").read_bytes() == BODY
    assert [seen.sent for seen in server.requests] == [100_000, 50_000, 150_000]


def test_a_stalled_server_is_left_and_continued(server: Server, tmp_path: Path) -> None:
    server.script("/a.bin", Reply(hold_after=65_536))
    patience = Patience(read=0.5, backoff=0)
    assert get(server.url("/a.bin"), tmp_path / "a.bin", patience=patience).read_bytes() == BODY
    assert server.requests[1].headers["Range"] == "bytes=65536-"


def test_a_stall_is_named(server: Server, tmp_path: Path) -> None:
    server.script("/a.bin", Reply(hold_after=70_000))
    with pytest.raises(DownloadError, match=r"sent nothing for 1 s(?s:.*)65,536 bytes that arrived are kept in .*part"):
        get(server.url("/a.bin"), tmp_path / "a.bin", patience=Patience(read=1, attempts=1))
    assert names(tmp_path) == ["a.bin.part", "a.bin.part.json"]


def test_a_later_call_goes_on(server: Server, tmp_path: Path) -> None:
    server.script("/a.bin", Reply(break_after=200_000), *[Reply(status=500)] * 2)
    with pytest.raises(DownloadError, match="calling again resumes there"):
        get(server.url("/a.bin"), tmp_path / "a.bin")
    assert get(server.url("/a.bin"), tmp_path / "a.bin").read_bytes() == BODY
    assert server.requests[-1].headers["Range"] == "bytes=200000-"
    assert server.sent("/a.bin") == len(BODY)
    assert names(tmp_path) == ["a.bin"]


def test_a_complete_part_needs_no_more_bytes(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(BODY)
    origin = {"url": server.url("/a.bin"), "etag": '"1"', "last_modified": None, "total": len(BODY)}
    (tmp_path / "a.bin.part.json").write_text(json.dumps(origin))
    assert get(server.url("/a.bin"), tmp_path / "a.bin", sha256=digest(BODY)).read_bytes() == BODY
    assert server.requests == []


def test_a_server_that_ignores_range_starts_over(server: Server, tmp_path: Path) -> None:
    server.script("/a.bin", Reply(break_after=100_000), Reply(ignore_range=True))
    assert get(server.url("/a.bin"), tmp_path / "a.bin").read_bytes() == BODY
    assert [seen.status for seen in server.requests] == [200, 200]


@pytest.mark.parametrize("hashed", [False, True])
@pytest.mark.parametrize("ignore_if_range", [False, True])
def test_a_file_that_changed_starts_over(server: Server, tmp_path: Path, ignore_if_range: bool, hashed: bool) -> None:
    server.script("/a.bin", Reply(content=BODY, break_after=100_000), Reply(ignore_if_range=ignore_if_range))
    server.files["/a.bin"] = OTHER
    promise = {"sha256": digest(OTHER)} if hashed else {}
    assert get(server.url("/a.bin"), tmp_path / "a.bin", **promise).read_bytes() == OTHER
    assert [seen.status for seen in server.requests] == ([200, 206, 200] if ignore_if_range else [200, 200])


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Range": "bytes 5-299999/300000"},
        {"Content-Range": "bytes 100000-299999/300001"},
        {"Content-Range": "chapters 1-2/3"},
        {"Content-Range": None},
        {"Last-Modified": "Tue, 01 Jan 2030 00:00:00 GMT"},
    ],
)
def test_a_partial_answer_that_does_not_fit_starts_over(
    server: Server, tmp_path: Path, headers: dict[str, str | None]
) -> None:
    old = {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
    server.script("/a.bin", Reply(break_after=100_000, headers=old), Reply(headers={**old, **headers}))
    assert get(server.url("/a.bin"), tmp_path / "a.bin").read_bytes() == BODY
    assert [seen.status for seen in server.requests] == [200, 206, 200]


def test_a_file_that_shrank_starts_over(server: Server, tmp_path: Path) -> None:
    server.script("/a.bin", Reply(content=BODY, break_after=200_000), Reply(ignore_if_range=True))
    server.files["/a.bin"] = OTHER[:1000]
    assert get(server.url("/a.bin"), tmp_path / "a.bin").read_bytes() == OTHER[:1000]
    assert [seen.status for seen in server.requests] == [200, 416, 200]


@pytest.mark.parametrize("headers", [{"ETag": None}, {"ETag": 'W/"1"'}])
def test_what_cannot_be_recognised_is_not_continued(
    server: Server, tmp_path: Path, headers: dict[str, str | None]
) -> None:
    server.script("/a.bin", Reply(break_after=100_000, headers=headers))
    assert get(server.url("/a.bin"), tmp_path / "a.bin").read_bytes() == BODY
    assert "Range" not in server.requests[1].headers


def test_the_date_serves_where_there_is_no_strong_etag(server: Server, tmp_path: Path) -> None:
    headers = {"ETag": None, "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
    server.script("/a.bin", *[Reply(break_after=100_000, headers=headers)] * 3)
    assert get(server.url("/a.bin"), tmp_path / "a.bin").read_bytes() == BODY
    assert server.requests[1].headers["If-Range"] == headers["Last-Modified"]
    assert server.sent("/a.bin") == len(BODY)


@pytest.mark.parametrize(
    "notes",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"url": 5}',
        '{"url": "x", "evil": 1}',
        '{"url": "%s", "etag": 7}',
        '{"url": "%s", "etag": "\\"1\\"", "total": -1}',
    ],
)
def test_a_part_of_unknown_origin_is_not_used(server: Server, tmp_path: Path, notes: str) -> None:
    (tmp_path / "a.bin.part").write_bytes(OTHER[:1000])
    (tmp_path / "a.bin.part.json").write_text(notes.replace("%s", server.url("/a.bin")))
    assert get(server.url("/a.bin"), tmp_path / "a.bin", sha256=digest(BODY)).read_bytes() == BODY
    assert "Range" not in server.requests[0].headers
    assert names(tmp_path) == ["a.bin"]


def test_with_a_hash_another_mirror_goes_on(server: Server, tmp_path: Path) -> None:
    server.files["/b.bin"] = BODY
    server.script("/a.bin", Reply(break_after=100_000), Reply(status=404))
    urls = [server.url("/a.bin"), server.url("/b.bin")]
    assert get(urls, tmp_path / "a.bin", sha256=digest(BODY)).read_bytes() == BODY
    assert server.sent("/a.bin") + server.sent("/b.bin") == len(BODY)


def test_without_a_hash_another_mirror_starts_over(server: Server, tmp_path: Path) -> None:
    server.files["/b.bin"] = OTHER
    server.script("/a.bin", Reply(break_after=100_000), Reply(status=404))
    urls = [server.url("/a.bin"), server.url("/b.bin")]
    assert get(urls, tmp_path / "a.bin").read_bytes() == OTHER
    assert [seen.path for seen in server.requests] == ["/a.bin", "/a.bin", "/b.bin"]
    assert "Range" not in server.requests[2].headers


@pytest.mark.parametrize(("mirror", "content"), [(0, BODY), (1, OTHER)])
def test_bytes_of_two_mirrors_are_never_taken_without_a_hash(
    server: Server, tmp_path: Path, mirror: int, content: bytes
) -> None:
    server.files["/b.bin"] = OTHER
    server.script("/a.bin", Reply(break_after=100_000), Reply(status=404))
    server.script("/b.bin", Reply(break_after=100_000), Reply(status=404))
    urls = [server.url("/a.bin"), server.url("/b.bin")]
    with pytest.raises(DownloadError):
        get(urls, tmp_path / "a.bin", sha256=digest(BODY))
    assert (tmp_path / "a.bin.part").stat().st_size == 200_000
    assert get(urls[mirror], tmp_path / "a.bin").read_bytes() == content


def test_a_wrong_seam_is_mended_by_starting_over(server: Server, tmp_path: Path) -> None:
    server.files["/b.bin"] = BODY
    server.script("/a.bin", Reply(break_after=100_000, content=OTHER), Reply(status=404))
    urls = [server.url("/a.bin"), server.url("/b.bin")]
    assert get(urls, tmp_path / "a.bin", sha256=digest(BODY)).read_bytes() == BODY
    assert [(seen.path, seen.status) for seen in server.requests] == [("/a.bin", 200), ("/b.bin", 206), ("/b.bin", 200)]


# ---- lies


def test_more_announced_than_sent(server: Server, tmp_path: Path) -> None:
    server.script("/a.bin", *[Reply(claim_length=len(BODY) + 10, ignore_range=True)] * 9)
    with pytest.raises(DownloadError, match="broke off"):
        get(server.url("/a.bin"), tmp_path / "a.bin")
    assert not (tmp_path / "a.bin").exists()


@pytest.mark.parametrize("promise", [{"size": len(BODY)}, {"sha256": digest(BODY)}])
def test_less_announced_than_there_is(server: Server, tmp_path: Path, promise: dict[str, Any]) -> None:
    server.script("/a.bin", Reply(claim_length=1000))
    with pytest.raises(IntegrityError):
        get(server.url("/a.bin"), tmp_path / "a.bin", **promise)
    assert names(tmp_path) == []


def test_a_wrong_hash_is_refused_and_not_kept(server: Server, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError) as caught:
        get(server.url("/a.bin"), tmp_path / "a.bin", sha256=digest(OTHER))
    for text in (digest(OTHER), digest(BODY), server.url("/a.bin"), str(tmp_path / "a.bin")):
        assert text in str(caught.value)
    assert len(server.requests) == 1
    assert names(tmp_path) == []


def test_a_mirror_with_the_right_file_is_found(server: Server, tmp_path: Path) -> None:
    server.files["/wrong"] = OTHER
    urls = [server.url("/wrong"), server.url("/a.bin")]
    assert get(urls, tmp_path / "a.bin", sha256=digest(BODY)).read_bytes() == BODY


def test_a_wrong_length_is_refused_before_the_transfer(server: Server, tmp_path: Path) -> None:
    server.script("/a.bin", Reply(break_after=100_000))
    server.files["/long"] = BODY * 2
    (tmp_path / "a.bin.part").write_bytes(BODY[:1000])
    origin = {"url": server.url("/a.bin"), "etag": '"1"', "last_modified": None, "total": len(BODY)}
    (tmp_path / "a.bin.part.json").write_text(json.dumps(origin))
    with pytest.raises(IntegrityError, match=r"offers 600,000 bytes, not the expected 300,000"):
        get(server.url("/long"), tmp_path / "a.bin", size=len(BODY))
    assert (tmp_path / "a.bin.part").read_bytes() == BODY[:1000]  # still good for the right mirror


def test_an_endless_answer_ends_at_the_promised_size(server: Server, tmp_path: Path) -> None:
    server.files["/endless"] = bytes(20_000_000)
    server.script("/endless", Reply(chunked=True, hold_after=1_000_000))
    with pytest.raises(IntegrityError, match="bytes, not 300,000"):
        get(server.url("/endless"), tmp_path / "a.bin", size=len(BODY))
    assert names(tmp_path) == []


def test_an_answer_without_a_length(server: Server, tmp_path: Path) -> None:
    server.script("/a.bin", Reply(headers={"Content-Length": None}))
    assert get(server.url("/a.bin"), tmp_path / "a.bin", size=len(BODY)).read_bytes() == BODY


def test_a_length_beside_chunks_does_not_count(server: Server, tmp_path: Path) -> None:
    server.script("/a.bin", Reply(chunked=True, headers={"Content-Length": "5"}))
    assert get(server.url("/a.bin"), tmp_path / "a.bin", size=len(BODY)).read_bytes() == BODY


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_answer_is_undone(server: Server, tmp_path: Path, encoding: str) -> None:
    packed = gzip.compress(BODY) if encoding == "gzip" else __import__("zlib").compress(BODY)
    reply = Reply(content=packed, headers={"Content-Encoding": encoding})
    server.script("/a.bin", Reply(content=packed, headers=reply.headers, break_after=200_000), reply)
    assert get(server.url("/a.bin"), tmp_path / "a.bin", sha256=digest(BODY)).read_bytes() == BODY
    assert "Range" not in server.requests[1].headers  # ranges would be of the compressed bytes


def test_undone_bytes_are_not_taken_for_those_of_an_earlier_answer(server: Server, tmp_path: Path) -> None:
    packed = Reply(content=gzip.compress(OTHER), headers={"Content-Encoding": "gzip"}, break_after=200_000)
    server.script("/a.bin", Reply(break_after=100_000), packed, Reply(status=403))
    with pytest.raises(DownloadError):
        get(server.url("/a.bin"), tmp_path / "a.bin")
    assert (tmp_path / "a.bin.part").stat().st_size > 100_000
    assert get(server.url("/a.bin"), tmp_path / "a.bin").read_bytes() == BODY
    assert "Range" not in server.requests[-1].headers


@pytest.mark.parametrize("name", ["a.csv.gz", "a.TGZ"])
def test_a_gz_file_labelled_as_encoding_stays_as_it_is(server: Server, tmp_path: Path, name: str) -> None:
    packed = gzip.compress(BODY)
    server.files[f"/{name}"] = packed
    label = {"Content-Encoding": "x-gzip"}
    server.script(f"/{name}", Reply(headers=label, break_after=100_000), Reply(headers=label))
    assert get(server.url(f"/{name}"), tmp_path / "a", sha256=digest(packed)).read_bytes() == packed
    assert server.sent(f"/{name}") == len(packed)


def test_an_unknown_compression_is_refused(server: Server, tmp_path: Path) -> None:
    server.script("/a.bin", Reply(headers={"Content-Encoding": "br"}))
    with pytest.raises(DownloadError, match="Content-Encoding 'br'"):
        get(server.url("/a.bin"), tmp_path / "a.bin")


FAULTS = st.builds(
    Reply,
    status=st.sampled_from([None, None, None, 404, 429, 500]),
    content=st.sampled_from([None, None, None, OTHER[:5000], b""]),
    ignore_range=st.booleans(),
    ignore_if_range=st.booleans(),
    break_after=st.none() | st.integers(0, 6000),
    claim_length=st.none() | st.integers(0, 6000),
    chunked=st.booleans(),
    headers=st.sampled_from([{}, {}, {"ETag": None}, {"ETag": '"same"'}, {"Content-Range": "bytes 7-9/5000"}]),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scripts=st.tuples(st.lists(FAULTS, max_size=6), st.lists(FAULTS, max_size=3)), calls=st.integers(1, 2))
def test_whatever_the_servers_do_only_the_right_file_appears(
    server: Server, tmp_path: Path, scripts: tuple[list[Reply], list[Reply]], calls: int
) -> None:
    body = BODY[:5000]
    number = len(server.requests)
    urls = []
    for side, script in zip("ab", scripts, strict=True):
        server.files[f"/{side}{number}"] = body
        server.script(f"/{side}{number}", *script)
        urls.append(server.url(f"/{side}{number}"))
    to = tmp_path / f"{number}.bin"
    for _ in range(calls):
        with contextlib.suppress(DownloadError):
            get(urls, to, sha256=digest(body), size=5000)
        assert not to.exists() or to.read_bytes() == body
    assert len(server.requests) - number < 100


# ---- without a network


def test_offline_asks_nobody(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLKIT_OFFLINE", "1")
    to = tmp_path / "folder" / "a.bin"
    with pytest.raises(OfflineError, match=r"a\.bin is not there, and DLKIT_OFFLINE forbids"):
        get(server.url("/a.bin"), to)
    assert not to.parent.exists()
    to.parent.mkdir()
    to.write_bytes(OTHER)
    with pytest.raises(OfflineError, match=f"is there, but it has the SHA-256 {digest(OTHER)}"):
        get(server.url("/a.bin"), to, sha256=digest(BODY))
    assert get(server.url("/a.bin"), to, sha256=digest(OTHER)) == to
    (tmp_path / "source").write_bytes(BODY)
    urls = [server.url("/a.bin"), (tmp_path / "source").as_uri()]
    assert get(urls, to, sha256=digest(BODY)).read_bytes() == BODY
    assert server.requests == []
    monkeypatch.setenv("DLKIT_OFFLINE", "0")
    get(server.url("/a.bin"), tmp_path / "b.bin")


@pytest.mark.parametrize("name", ["plain.bin", "a b#c?d%41.bin", "한글.bin", "caf\udce9.bin"])
def test_file_urls(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(BODY)
    assert get((tmp_path / name).as_uri(), tmp_path / "copy", sha256=digest(BODY)).read_bytes() == BODY
    assert (tmp_path / name).exists()


def test_file_urls_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "wrong").write_bytes(OTHER)
    for url, reason in (
        ((tmp_path / "missing").as_uri(), "there is no file"),
        (tmp_path.as_uri(), "is a folder, not a file"),
        ("file:///dev/zero", "is a device, not a file"),
        ("file:///a%00b", "there is no file"),
    ):
        with pytest.raises(DownloadError, match=reason):
            get(url, tmp_path / "copy")
    with pytest.raises(IntegrityError):
        get((tmp_path / "wrong").as_uri(), tmp_path / "copy", sha256=digest(BODY))
    assert names(tmp_path) == ["wrong"]


@pytest.mark.parametrize(
    ("urls", "text"),
    [
        ([], "urls is empty"),
        ("data/a.zip", "must begin with http:, https: or file:"),
        ("ftp://host/a.zip", "must begin with http:, https: or file:"),
        ("http:///a.zip", "names no server"),
        ("http://[::1/a.zip", "Invalid IPv6"),
        ("file://host/a.zip", "another machine"),
        ("file:a.zip", "must be absolute"),
        ("file:///a#1.zip", "%23"),
        ("file:///a?1.zip", "%3F"),
        ([Path("a.zip")], "must be a string"),
    ],
)
def test_urls_that_cannot_be_meant(tmp_path: Path, urls: Any, text: str) -> None:
    with pytest.raises(ArgumentError, match=text.replace("?", r"\?")):
        get(urls, tmp_path / "a")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sha256": "abc"}, "64 hexadecimal digits, not 'abc'"),
        ({"size": -1}, "number of bytes, not -1"),
        ({"size": 1.5}, "number of bytes, not 1.5"),
        ({"sha256": "g" * 64}, "64 hexadecimal digits"),
        ({"size": True}, "number of bytes, not True"),
    ],
)
def test_promises_that_cannot_be_meant(server: Server, tmp_path: Path, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        get(server.url("/a.bin"), tmp_path / "a.bin", **options)
    assert server.requests == []


@pytest.mark.parametrize("name", ["letters", "letters.csv", ".zip", "..gz"])
def test_what_to_unpack_must_be_named_like_an_archive(server: Server, tmp_path: Path, name: str) -> None:
    with pytest.raises(ArgumentError, match=r"cannot be unpacked: with extract=True .*letters\.tar\.gz"):
        get(server.url("/a.bin"), tmp_path / name, extract=True)
    assert server.requests == []


def test_a_folder_is_no_target(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="is a folder; give the path of the file"):
        get(server.url("/a.bin"), tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"connect": 0},
        {"read": -1},
        {"read": float("inf")},
        {"backoff": "1"},
        {"longest_pause": float("nan")},
        {"attempts": 0},
        {"attempts": True},
    ],
)
def test_patience_is_checked_where_it_is_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=f"Patience: {next(iter(wrong))} must be"):
        Patience(**wrong)


# ---- a disk that refuses


def test_a_full_disk_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").symlink_to("/dev/full")
    with pytest.raises(DownloadError, match=r"cannot write .*a\.bin\.part: No space left on device; free some space"):
        get(server.url("/a.bin"), tmp_path / "a.bin")
    assert len(server.requests) == 1  # another try would not help


def test_a_small_disk_that_gets_room_again_is_continued(server: Server, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "256k") as disk:
        with pytest.raises(DownloadError, match=r"No space left on device: [0-9,]+ more bytes are needed"):
            get(server.url("/a.bin"), disk / "a.bin")
        assert (disk / "a.bin.part").stat().st_size == 0  # refused by what was announced
        server.script("/a.bin", Reply(chunked=True))  # which does not announce it
        with pytest.raises(DownloadError, match="No space left on device") as caught:
            get(server.url("/a.bin"), disk / "a.bin")
        assert caught.value.errno == errno.ENOSPC
        assert str(disk / "a.bin.part") in str(caught.value)
        assert not (disk / "a.bin").exists()
        resize(disk, "1m")
        assert get(server.url("/a.bin"), disk / "a.bin").read_bytes() == BODY
        assert server.requests[2].headers["Range"]


def test_the_disk_keeps_what_shall_stay_free(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlkit.download.http._LOOK_EACH", 100_000)
    with small_disk(tmp_path / "disk", "1m") as disk:
        limits = DownloadLimits(keep_free=900_000)
        for reply in (Reply(), Reply(chunked=True)):
            server.script("/a.bin", reply)
            with pytest.raises(
                DownloadError, match=r"and 900,000 of them stay free \(DownloadLimits\(keep_free=\)\); free some"
            ):
                get(server.url("/a.bin"), disk / "a.bin", limits=limits)
            assert (disk / "a.bin.part").stat().st_size < len(BODY)
        assert get(server.url("/a.bin"), disk / "a.bin", limits=DownloadLimits(keep_free=0)).read_bytes() == BODY


def test_a_file_of_unknown_size_has_a_limit(server: Server, tmp_path: Path) -> None:
    assert DownloadLimits().max_file == 64_000_000_000
    few = DownloadLimits(max_file=len(BODY) - 1)
    with pytest.raises(DownloadError, match=rf"offers {len(BODY):,} bytes, more than {len(BODY) - 1:,}; .*max_file"):
        get(server.url("/a.bin"), tmp_path / "a.bin", limits=few)
    server.script("/a.bin", Reply(chunked=True))
    with pytest.raises(DownloadError, match=rf"sent more than {len(BODY) - 1:,} bytes; .*give its size=") as caught:
        get(server.url("/a.bin"), tmp_path / "a.bin", limits=few)
    assert "are kept in" not in str(caught.value)
    assert not (tmp_path / "a.bin").exists()
    server.script("/b", Reply(content=gzip.compress(BODY + BODY), headers={"Content-Encoding": "gzip"}))
    with pytest.raises(DownloadError, match="sent more than"):
        get(server.url("/b"), tmp_path / "b", limits=few)
    (tmp_path / "local").write_bytes(BODY)
    with pytest.raises(DownloadError, match="offers"):
        get((tmp_path / "local").as_uri(), tmp_path / "copy", limits=few)
    assert get(server.url("/a.bin"), tmp_path / "a.bin", limits=few, size=len(BODY)).read_bytes() == BODY
    assert get(server.url("/a.bin"), tmp_path / "c", limits=DownloadLimits(max_file=len(BODY))).read_bytes() == BODY


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_self_signed_certificate_is_refused_by_name(server: Server, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    asked = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
    ]
    names_of_it = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = subprocess.run([*asked, *names_of_it, "-keyout", key, "-out", certificate], capture_output=True)
    if made.returncode:
        pytest.skip(f"openssl makes no certificate here: {made.stderr.decode()[-200:]}")
    server.secure(certificate, key)
    url = f"{server.url('/a.bin').replace('http:', 'https:')}?token=secret"
    with pytest.raises(DownloadError, match=r"(?s)SSLError: .*certificate.*self.signed") as caught:
        get(url, tmp_path / "a.bin", patience=Patience(attempts=5, backoff=60))  # another try would not help
    assert "secret" not in str(caught.value)
    assert server.requests == []
    assert not (tmp_path / "a.bin").exists()
    code = f"from dlkit.download import fetch; fetch({url!r}, {str(tmp_path / 'a.bin')!r}, progress=False)"
    trusting = os.environ | {"REQUESTS_CA_BUNDLE": str(certificate)}  # who trusts it says so
    subprocess.run([sys.executable, "-c", code], env=trusting, check=True)
    assert (tmp_path / "a.bin").read_bytes() == BODY


@pytest.mark.skipif(sys.platform == "win32", reason="no POSIX rights")
@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_folder_without_rights_is_named(server: Server, mode: int) -> None:
    denied = pytest.raises(DownloadError, match=r"cannot write to .*closed: Permission denied; use a folder")
    with open_folder() as folder:
        (folder / "closed").mkdir(mode=mode)
        with as_nobody(), denied:
            get(server.url("/a.bin"), folder / "closed" / "a.bin")


@pytest.mark.skipif(sys.platform == "win32", reason="no POSIX rights")
def test_a_good_file_in_a_read_only_folder_is_used(server: Server) -> None:
    with open_folder() as folder:
        (folder / "a.bin").write_bytes(BODY)
        folder.chmod(0o555)
        with as_nobody():
            get(server.url("/a.bin"), folder / "a.bin", sha256=digest(BODY))
        assert [path.name for path in folder.iterdir()] == ["a.bin"]


# ---- kills and company


SCRIPT = """
import signal, sys
from dlkit.download import fetch
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background of a shell
print("ready", flush=True)
print(fetch(sys.argv[1], sys.argv[2], sha256=sys.argv[3] or None, progress=False), flush=True)
"""


def start_fetch(url: str, to: Path, sha256: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, url, str(to), sha256]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline, "it did not happen within a minute"
        time.sleep(0.005)


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_after_a_kill_the_next_call_completes_the_file(server: Server, tmp_path: Path, blow: signal.Signals) -> None:
    server.script("/a.bin", Reply(hold_after=196_608))
    part = tmp_path / "a.bin.part"
    with start_fetch(server.url("/a.bin"), tmp_path / "a.bin") as process:
        assert server.held.wait(60)
        wait_for(lambda: part.exists() and part.stat().st_size == 196_608)
        process.send_signal(blow)
        _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert ("KeyboardInterrupt" in errors) == (blow == signal.SIGINT)
    assert names(tmp_path) == ["a.bin.part", "a.bin.part.json"]
    assert get(server.url("/a.bin"), tmp_path / "a.bin").read_bytes() == BODY
    assert server.requests[1].headers["Range"] == "bytes=196608-"
    assert server.requests[1].sent == len(BODY) - 196_608
    assert names(tmp_path) == ["a.bin"]


def test_eight_processes_make_one_transfer(server: Server, tmp_path: Path) -> None:
    server.script("/a.bin", Reply(hold_after=100_000))
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(start_fetch(server.url("/a.bin"), tmp_path / "a.bin", digest(BODY))) for _ in range(8)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        assert server.held.wait(60)
        server.release()
        for process in processes:
            output, errors = process.communicate(timeout=60)
            assert (output, errors, process.returncode) == (f"{tmp_path / 'a.bin'}\n", "", 0)
    assert [seen.whole for seen in server.requests] == [True]
    assert (tmp_path / "a.bin").read_bytes() == BODY
    assert names(tmp_path) == ["a.bin"]


def test_eight_threads_make_one_transfer(server: Server, tmp_path: Path) -> None:
    server.script("/a.bin", Reply(hold_after=100_000))
    paths: list[Path] = []
    threads = [
        threading.Thread(target=lambda: paths.append(get(server.url("/a.bin"), tmp_path / "a.bin"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    assert server.held.wait(60)
    server.release()
    for thread in threads:
        thread.join()
    assert paths == [tmp_path / "a.bin"] * 8
    assert len(server.requests) == 1


def test_one_that_waits_takes_over_from_one_that_dies(server: Server, tmp_path: Path) -> None:
    server.script("/a.bin", Reply(hold_after=131_072))
    part = tmp_path / "a.bin.part"
    with start_fetch(server.url("/a.bin"), tmp_path / "a.bin") as first:
        assert server.held.wait(60)
        wait_for(lambda: part.exists() and part.stat().st_size == 131_072)
        with start_fetch(server.url("/a.bin"), tmp_path / "a.bin") as second:
            assert second.stdout is not None
            assert second.stdout.readline() == "ready\n"
            first.kill()
            assert second.communicate(timeout=60)[1] == ""
    assert (tmp_path / "a.bin").read_bytes() == BODY
    assert server.requests[1].headers["Range"] == "bytes=131072-"


# ---- archives


def tar_gz(**files: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(f"inner/{name}.txt")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


@pytest.fixture
def letters(server: Server) -> Server:
    server.files["/letters.tar.gz"] = tar_gz(a="hello")
    return server


def test_an_archive_comes_unpacked(letters: Server, tmp_path: Path) -> None:
    url, to = letters.url("/letters.tar.gz"), tmp_path / "letters.tar.gz"
    folder = get(url, to, extract=True)
    assert folder == tmp_path / "letters"
    assert (folder / "inner" / "a.txt").read_text() == "hello"
    made = folder.stat().st_ino
    assert get(url, to, extract=True) == folder
    assert get(url, to, extract=True, sha256=digest(to.read_bytes())) == folder
    assert folder.stat().st_ino == made
    assert len(letters.requests) == 1
    assert names(tmp_path) == [".letters.unpacked.json", "letters", "letters.tar.gz"]


@pytest.mark.parametrize("promised", [False, True])
def test_the_archive_may_be_thrown_away(
    letters: Server, tmp_path: Path, promised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, to = letters.url("/letters.tar.gz"), tmp_path / "letters.tar.gz"
    get(url, to, extract=True)
    promise: dict[str, Any] = {"sha256": digest(to.read_bytes()), "size": to.stat().st_size} if promised else {}
    to.unlink()
    monkeypatch.setenv("DLKIT_OFFLINE", "1")
    assert (get(url, to, extract=True, **promise) / "inner" / "a.txt").read_text() == "hello"
    assert len(letters.requests) == 1


def test_another_archive_replaces_the_folder(letters: Server, tmp_path: Path) -> None:
    url, to = letters.url("/letters.tar.gz"), tmp_path / "letters.tar.gz"
    get(url, to, extract=True)
    letters.files["/letters.tar.gz"] = newer = tar_gz(b="world")
    folder = get(url, to, extract=True, sha256=digest(newer))
    assert [path.name for path in (folder / "inner").iterdir()] == ["b.txt"]
    to.write_bytes(tar_gz(c="by hand"))
    assert [path.name for path in (get(url, to, extract=True) / "inner").iterdir()] == ["c.txt"]
    assert names(tmp_path) == [".letters.unpacked.json", "letters", "letters.tar.gz"]


def test_a_folder_of_another_size_of_archive_is_replaced(letters: Server, tmp_path: Path) -> None:
    url, to = letters.url("/letters.tar.gz"), tmp_path / "letters.tar.gz"
    get(url, to, extract=True)
    to.unlink()
    letters.files["/letters.tar.gz"] = newer = tar_gz(b="world" * 99)
    folder = get(url, to, extract=True, size=len(newer))
    assert [path.name for path in (folder / "inner").iterdir()] == ["b.txt"]


def test_a_folder_of_somebody_else_stays(letters: Server, tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine").touch()
    with pytest.raises(ArgumentError, match="letters exists and was not made by fetch"):
        get(letters.url("/letters.tar.gz"), tmp_path / "letters.tar.gz", extract=True)
    assert [path.name for path in (tmp_path / "letters").iterdir()] == ["mine"]
    (tmp_path / "letters" / "mine").unlink()
    get(letters.url("/letters.tar.gz"), tmp_path / "letters.tar.gz", extract=True)


def test_a_bad_archive_leaves_the_good_folder(letters: Server, tmp_path: Path) -> None:
    url, to = letters.url("/letters.tar.gz"), tmp_path / "letters.tar.gz"
    folder = get(url, to, extract=True)
    bad = tar_gz(b="world")[:-9]
    letters.files["/letters.tar.gz"] = bad
    with pytest.raises(ArchiveError, match=r"letters\.tar\.gz was not unpacked: it is damaged"):
        get(url, to, extract=True, sha256=digest(bad))
    assert (folder / "inner" / "a.txt").read_text() == "hello"
    assert names(tmp_path) == [".letters.unpacked.json", "letters", "letters.tar.gz"]


def test_limits_reach_the_unpacking(letters: Server, tmp_path: Path) -> None:
    with pytest.raises(UnsafeArchiveError, match=r"'inner/a\.txt' goes beyond max_bytes=4"):
        get(
            letters.url("/letters.tar.gz"),
            tmp_path / "letters.tar.gz",
            extract=True,
            limits=DownloadLimits(max_bytes=4),
        )
    assert names(tmp_path) == ["letters.tar.gz"]


def test_a_kill_in_the_middle_of_replacing_a_folder(letters: Server, tmp_path: Path) -> None:
    url, to = letters.url("/letters.tar.gz"), tmp_path / "letters.tar.gz"
    folder = get(url, to, extract=True)
    folder.rename(tmp_path / ".letters.old")  # the old one is away, the new one is not yet there
    assert (get(url, to, extract=True) / "inner" / "a.txt").read_text() == "hello"
    assert names(tmp_path) == [".letters.unpacked.json", "letters", "letters.tar.gz"]


@pytest.mark.parametrize("name", ["a.zip", "a.ZIP", "a.gz"])
def test_other_kinds_of_archives(server: Server, tmp_path: Path, name: str) -> None:
    buffer = io.BytesIO()
    if name == "a.gz":
        buffer.write(gzip.compress(b"hello"))
    else:
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr("a", "hello")
    server.files["/it"] = buffer.getvalue()
    assert (get(server.url("/it"), tmp_path / name, extract=True) / "a").read_text() == "hello"


def test_eight_threads_unpack_once(letters: Server, tmp_path: Path) -> None:
    folders: list[Path] = []

    def unpack() -> None:
        folders.append(get(letters.url("/letters.tar.gz"), tmp_path / "letters.tar.gz", extract=True))

    threads = [threading.Thread(target=unpack) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert folders == [tmp_path / "letters"] * 8
    assert len(letters.requests) == 1


def test_notmnist_look_alike(server: Server, tmp_path: Path, shared_data: Path) -> None:
    server.files["/data"] = shared_data / "notmnist"
    server.picky = True
    name = "notMNIST_small_lookalike.tar.gz"
    server.script(f"/data/{name}", Reply(status=429, headers={"Retry-After": "0"}), Reply(break_after=1_000_000))
    folder = get(server.url(f"/data/{name}"), tmp_path / name, extract=True)
    assert len(list(folder.glob("notMNIST_small/[A-J]/*.png"))) == 10_002
    assert (tmp_path / name).read_bytes() == (shared_data / "notmnist" / name).read_bytes()
    assert server.sent(f"/data/{name}") == (tmp_path / name).stat().st_size


def test_the_slow_imports_wait_until_they_are_needed() -> None:
    code = "import sys, dlkit.download; print({'torch', 'requests', 'tqdm'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
