"""Addresses: which may be fetched, how they are shown, which file of this machine they mean."""

from __future__ import annotations

import hashlib
import os
import sys
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from dlkit._showing import public
from dlkit.errors import ArgumentError


def checked_urls(urls: str | Sequence[str]) -> list[str]:
    """One address or several as a list without repetitions, each of a kind that can be fetched."""
    listed = [urls] if isinstance(urls, str) else list(urls)
    if not listed:
        raise ArgumentError("urls is empty; give at least one address")
    for url in listed:
        if not isinstance(url, str):
            raise ArgumentError(f"a URL must be a string, not {type(url).__name__}; for a path use Path(...).as_uri()")
        if problem := _url_problem(url):
            raise ArgumentError(f"cannot fetch from {public(url)!r}: {problem}")
    return list(dict.fromkeys(listed))


def is_local(url: str) -> bool:
    """Whether it stands for a file on this machine."""
    return urllib.parse.urlsplit(url).scheme == "file"


def _url_problem(url: str) -> str:
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname
    except ValueError as error:
        return str(error)
    if parts.scheme not in ("http", "https", "file"):
        return "it must begin with http:, https: or file:; for a file on this machine use Path(...).as_uri()"
    if parts.scheme != "file":
        return "" if host else "it names no server"
    if sys.platform != "win32" and host not in (None, "localhost"):
        return f"a file: URL of another machine ({host}); there must be three slashes before the path"
    if not parts.path.startswith("/") or parts.query or parts.fragment:
        return "its path must be absolute, with ? and # written as %3F and %23; Path(...).as_uri() does that"
    return ""


def known_as(url: str) -> str:
    """What a URL is noted as on the disk: without its secrets, and yet different for different URLs."""
    shown = public(url)
    return shown if shown == url else f"{shown} {hashlib.sha256(url.encode(errors='surrogateescape')).hexdigest()[:16]}"


def local_path(url: str) -> Path:
    """The file that a `file:` URL stands for."""
    path = urllib.parse.urlsplit(url).path
    if sys.platform == "win32":
        return Path(urllib.request.url2pathname(path))
    return Path(os.fsdecode(urllib.parse.unquote_to_bytes(path)))
