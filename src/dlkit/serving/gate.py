"""What every request passes: its id, the token, security headers, errors as sentences, a line in the log, meters."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import random
import re
import time
from collections.abc import Collection, Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dlkit.serving.answers import as_json
from dlkit.serving.limits import Limits
from dlkit.serving.logs import event, place_of
from dlkit.serving.measuring import Meters
from dlkit.serving.refusals import ClientGoneError, RefusedError

__all__ = ["Gate", "body_in"]

_ids = random.Random()  # of names, which protect nothing
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SAFE = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]
_NOTHING = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_SENTENCES = {
    404: "there is nothing at this address; GET /openapi.json lists what there is",
    405: "this address does not take this method; GET /openapi.json lists what there is",
}


class Heads(dict[str, str]):
    """A request's headers by name, in small letters; of one that comes twice the first. Read once, as several ask.

    Args:
        pairs: As ASGI gives them.
    """

    def __init__(self, pairs: Any) -> None:
        super().__init__((name.decode("latin-1"), value.decode("latin-1")) for name, value in reversed(list(pairs)))


class Gate:
    """The application around the routes.

    Args:
        inner: The routes.
        token: What clients must send as `Authorization: Bearer ...`; None for a server that anybody may ask.
        public: The paths that need no token.
        meters: What counts.
    """

    def __init__(self, inner: ASGIApp, *, token: str | None, public: Collection[str], meters: Meters) -> None:
        self._inner, self._public, self._meters = inner, frozenset(public), meters
        self._token = None if token is None else _digest(token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI asks for it."""
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        begun, headers = time.perf_counter(), Heads(scope["headers"])
        given = headers.get("x-request-id", "")
        told: dict[str, Any] = {"id": given if _ID.fullmatch(given) else f"{_ids.getrandbits(128):032x}"}
        scope["dlkit"], scope["dlkit-heads"], status = told, headers, 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _with_safety(message["headers"], told["id"])
            await send(message)

        try:
            self._check(scope, headers)
            scope.setdefault("app", self)  # so that the router raises what it does not find
            await self._inner(scope, receive, answer)
        except ClientGoneError:
            status = 499
        except Exception as error:
            fault = _fault(error, told["id"])
            if status:  # the answer has begun: nothing can be said any more
                raise
            await _refuse(answer, fault, told["id"])
        self._note(scope, told, status, time.perf_counter() - begun)

    def _check(self, scope: Scope, headers: Heads) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if scope["method"] == "POST" and headers.get("sec-fetch-site") == "cross-site":
            raise RefusedError(403, "pages of other sites may not send requests to this server", closing=True)
        if self._token is None or path in self._public:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if not hmac.compare_digest(_digest(given.strip()), self._token) or scheme.lower() != "bearer":
            raise RefusedError(
                401,
                "this server wants a token: send the header 'Authorization: Bearer TOKEN'",
                {"www-authenticate": "Bearer"},
                closing=True,
            )

    def _note(self, scope: Scope, told: dict[str, Any], status: int, seconds: float) -> None:
        route = getattr(scope.get("endpoint"), "__name__", "none").removeprefix("_")
        self._meters.request(route, status, seconds)
        event("request", method=scope["method"], route=route, status=status, ms=round(seconds * 1000, 2), **told)


async def body_in(headers: Mapping[str, str], receive: Receive, limits: Limits) -> bytes:
    """The body of a request, which may neither be too long nor take too long.

    Args:
        headers: Of the request.
        receive: Of ASGI.
        limits: What is allowed.

    Raises:
        RefusedError: it is too long, by its header or by what comes; or too slow.
        ClientGoneError: the client left in the middle.
    """
    length = headers.get("content-length")
    if length is not None and (not length.isascii() or not length.isdigit()):
        raise RefusedError(400, "Content-Length is not a number", closing=True)
    if length is not None and int(length[:20]) > limits.body:
        raise _too_long(limits)
    try:
        async with asyncio.timeout(limits.body_seconds):
            return await _collected(receive, limits)
    except TimeoutError:
        raise RefusedError(
            408, f"the body did not come within {limits.body_seconds:g} s; send it again", closing=True
        ) from None


async def _collected(receive: Receive, limits: Limits) -> bytes:
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        first: bytes = message.get("body", b"")
        if len(first) > limits.body:
            raise _too_long(limits)
        return first
    parts = bytearray()
    while True:
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        parts += message.get("body", b"")
        if len(parts) > limits.body:
            raise _too_long(limits)
        if not message.get("more_body"):
            return bytes(parts)
        message = await receive()


def _too_long(limits: Limits) -> RefusedError:
    return RefusedError(413, f"the body is longer than the {limits.body:,} bytes this server takes", closing=True)


def _digest(token: str) -> bytes:
    """Of equal length for any token, so that comparing takes equally long."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _with_safety(headers: Any, name: str) -> list[tuple[bytes, bytes]]:
    own = {key for key, _ in headers}
    more = [pair for pair in (*_SAFE, _NOTHING) if pair[0] not in own]
    return [*headers, *more, (b"x-request-id", name.encode())]


def _fault(error: Exception, name: str) -> RefusedError:
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, HTTPException):
        sentence = _SENTENCES.get(error.status_code, str(error.detail))
        return RefusedError(error.status_code, sentence, error.headers)
    event("failed", level=logging.ERROR, id=name, error=type(error).__name__, at=place_of(error))
    return RefusedError(500, "the server failed on this request; its log has the request_id")


async def _refuse(send: Send, fault: RefusedError, name: str) -> None:
    body = as_json({"error": fault.sentence, "request_id": name})
    headers = [(key.lower().encode(), value.encode("latin-1", "replace")) for key, value in fault.headers.items()]
    headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": fault.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
