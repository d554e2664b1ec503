"""A request, a reply, and which function answers which address, straight on ASGI.

A framework's layers for these three take as long as a small model does for a row.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from dlkit.serving.answers import as_json
from dlkit.serving.refusals import RefusedError

__all__ = ["Endpoint", "Message", "Receive", "Reply", "Request", "Routes", "Scope", "Send", "json_reply"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_JSON = (b"content-type", b"application/json")
_LONGEST_NUMBER = 9
_LISTED = "GET /openapi.json lists what there is"


class Request:
    """A request, with its body still to come.

    Args:
        scope: Of ASGI.
        receive: Of ASGI.
        name: What its answer and its line in the log are called.

    Attributes:
        method: Of HTTP.
        path: Below the place where the application is mounted.
        headers: By name, in small letters; of one that comes twice the first.
        query: What is behind the question mark.
        parts: The parts of the path that a route has names for.
        told: What the log says of it.
    """

    __slots__ = ("headers", "method", "parts", "path", "query", "receive", "told")

    def __init__(self, scope: Scope, receive: Receive, name: str) -> None:
        self.method, self.path = scope["method"], scope["path"].removeprefix(scope.get("root_path", ""))
        self.headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(list(scope["headers"]))
        }
        self.receive, self.parts = receive, dict[str, str]()
        self.told: dict[str, Any] = {"id": name}
        given: bytes = scope["query_string"]
        self.query = dict(parse_qsl(given.decode("latin-1"), keep_blank_values=True)) if given else {}

    def whole(self, name: str, *, most: int) -> int | None:
        """A whole number of the query; None where it is not there.

        Args:
            name: Of the parameter.
            most: Its largest value; the smallest is 1.

        Raises:
            RefusedError: it is not such a number.
        """
        if (given := self.query.get(name)) is None:
            return None
        if not (given.isascii() and given.isdigit() and 1 <= int(given[:_LONGEST_NUMBER]) <= most):
            raise RefusedError(400, f"{name} must be a whole number from 1 to {most}, not {given!r:.40}")
        return int(given)


class Reply:
    """An answer.

    Args:
        body: All of it.
        status: Of HTTP.
        headers: By name, in small letters, with the content's type among them.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(self, body: bytes, status: int = 200, headers: Iterable[tuple[bytes, bytes]] = (_JSON,)) -> None:
        self.body, self.status, self.headers = body, status, headers


def json_reply(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """Plain data as an answer.

    Args:
        document: Without NaN and infinities.
        status: Of HTTP.
        headers: More of them.
    """
    more = [(key.lower().encode(), value.encode("latin-1", "replace")) for key, value in (headers or {}).items()]
    return Reply(as_json(document), status, (_JSON, *more))


Endpoint = Callable[[Request], Awaitable[Reply]]


class Routes:
    """Which function answers which address.

    Args:
        fixed: By path and method.
        named: A pattern of paths with named parts, a method, and a function, for each of the others.
    """

    def __init__(
        self, fixed: Mapping[str, tuple[str, Endpoint]], named: Iterable[tuple[str, str, Endpoint]] = ()
    ) -> None:
        self._fixed = fixed
        self._named = [(re.compile(pattern), method, endpoint) for pattern, method, endpoint in named]

    def find(self, request: Request) -> Endpoint:
        """The function that answers, which finds the path's parts in the request.

        Args:
            request: Any.

        Raises:
            RefusedError: there is nothing at its address, or not for its method.
        """
        found = self._fixed.get(request.path)
        for pattern, method, endpoint in self._named if found is None else ():
            if (match := pattern.fullmatch(request.path)) is not None:
                found, request.parts = (method, endpoint), match.groupdict()
                break
        if found is None:
            raise RefusedError(404, f"there is nothing at this address; {_LISTED}")
        method, endpoint = found
        if request.method != method and (request.method, method) != ("HEAD", "GET"):
            allowed = "GET, HEAD" if method == "GET" else method
            raise RefusedError(405, f"this address does not take this method; {_LISTED}", {"allow": allowed})
        return endpoint
