"""What every request passes: its id, the token, security headers, errors as sentences, a line in the log, meters."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import random
import re
import time
from collections.abc import Awaitable, Callable, Collection

from dlkit.serving.asgi import Message, Receive, Reply, Request, Routes, Scope, Send, json_reply
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
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]
_NOTHING = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_GONE = 499  # in the log, for a client that got no answer
_FULL = 503
_PAUSE = 0.003  # seconds that a refusal for lack of room is kept back: who comes again at once takes others' time


class Gate:
    """The application around the routes.

    Args:
        routes: Which function answers which address.
        token: What clients must send as `Authorization: Bearer ...`; None for a server that anybody may ask.
        public: The paths that need no token.
        meters: What counts.
        before_refusal: Is awaited before somebody is told that there is no room.
    """

    def __init__(
        self,
        routes: Routes,
        *,
        token: str | None,
        public: Collection[str],
        meters: Meters,
        before_refusal: Callable[[], Awaitable[None]],
    ) -> None:
        self._routes, self._public, self._meters = routes, frozenset(public), meters
        self._before_refusal = before_refusal
        self._token = None if token is None else _digest(token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI asks for it."""
        begun, route, reply = time.perf_counter(), "none", None
        request = Request(scope, receive, f"{_ids.getrandbits(128):032x}")
        if _ID.fullmatch(given := request.headers.get("x-request-id", "")):
            request.told["id"] = given
        try:
            self._check(request)
            endpoint = self._routes.find(request)
            route = endpoint.__name__.removeprefix("_")
            reply = await endpoint(request)
        except ClientGoneError:
            pass
        except Exception as error:  # noqa: BLE001  (of the server's own errors nothing is said but that there was one)
            fault, name = _fault(error, request.told["id"]), request.told["id"]
            if fault.status == _FULL:
                await asyncio.sleep(_PAUSE)
                await self._before_refusal()
            reply = json_reply({"error": fault.sentence, "request_id": name}, fault.status, fault.headers)
        if reply is not None:
            await send(_start(reply, request.told["id"]))
            await send({"type": "http.response.body", "body": reply.body})
        status, seconds = _GONE if reply is None else reply.status, time.perf_counter() - begun
        self._meters.request(route, status, seconds)
        event("request", method=request.method, route=route, status=status, ms=round(seconds * 1000, 2), **request.told)

    def _check(self, request: Request) -> None:
        headers = request.headers
        if request.method == "POST" and headers.get("sec-fetch-site") == "cross-site":
            raise RefusedError(403, "pages of other sites may not send requests to this server", closing=True)
        if self._token is None or request.path in self._public:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if not hmac.compare_digest(_digest(given.strip()), self._token) or scheme.lower() != "bearer":
            raise RefusedError(
                401,
                "this server requires a token: send the header 'Authorization: Bearer TOKEN'",
                {"www-authenticate": "Bearer"},
                closing=True,
            )


async def body_in(request: Request, limits: Limits) -> bytes:
    """The body of a request, which may neither be too long nor take too long.

    Args:
        request: Whose body is still to come.
        limits: What is allowed.

    Raises:
        RefusedError: it is too long, by its header or by what comes; or too slow.
        ClientGoneError: the client left in the middle.
    """
    length = request.headers.get("content-length")
    if length is not None and (not length.isascii() or not length.isdigit()):
        raise RefusedError(400, "Content-Length is not a number", closing=True)
    if length is not None and int(length[:20]) > limits.body:
        raise _too_long(limits)
    try:
        async with asyncio.timeout(limits.body_seconds):
            return await _collected(request.receive, limits)
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


def _start(reply: Reply, name: str) -> Message:
    """The head of an answer, with what protects the reader."""
    policy = () if any(key == _NOTHING[0] for key, _ in reply.headers) else (_NOTHING,)
    length = (b"content-length", b"%d" % len(reply.body))
    headers = [*reply.headers, length, *_SAFE, *policy, (b"x-request-id", name.encode())]
    return {"type": "http.response.start", "status": reply.status, "headers": headers}


def _fault(error: Exception, name: str) -> RefusedError:
    if isinstance(error, RefusedError):
        return error
    event("failed", level=logging.ERROR, id=name, error=type(error).__name__, at=place_of(error))
    return RefusedError(500, "the server failed on this request; its log has the request_id")
