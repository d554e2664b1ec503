"""Text that came from elsewhere, made fit for a terminal and a log: it can neither act there nor betray a secret.

Names of files, classes and columns, the words of a server, and the messages of other libraries may hold escape
sequences that recolour, erase or retitle a terminal, line breaks that forge a line of a log, and marks that turn the
order of characters around. A signed address holds a password in its query. `safe` takes care of all of these; errors,
`Run.say`, and the commands pass through it, so no place that makes a message has to think of it. A `Message` is
translated here, for the same reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from dlkit._language import Message

__all__ = ["Lines", "escaped_json", "few", "public", "safe", "without_secrets"]

_MOST = 8000  # characters of one message: some screens full
_ACTIVE = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # control characters: those that begin an escape sequence, those that end a line
    "\u2028\u2029"  # ends of lines and of paragraphs
    "\u202a-\u202e\u2066-\u2069"  # the bidirectional controls of CVE-2021-42574
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # unseen characters that can carry text
    "\ud800-\udfff]"  # bytes of a name that are not UTF-8, which a terminal refuses to write
)
_ADDRESS = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]+:/{1,2}[^\s'\"<>]*[^\s'\"<>:;,.)]")
# What requests and urllib3 say: "Max retries exceeded with url: /file?token=...".
_REQUEST = re.compile(r"\b(url: |path: )(/[^\s'\"<>]*)")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:)?/{0,2}")
_VALUE = re.compile(r"(?<==)[^&;]+")


class Lines(str):
    """Text whose line breaks dlkit itself has set. In any other text they came from elsewhere, and are escaped."""

    __slots__ = ()

    def __str__(self) -> str:
        return self

    def plain(self) -> str:
        """The same as what `str` is and nothing else, as `repr` and `str` of objects must be: others send that to other
        processes (pytest-xdist) or write it down (YAML), and refuse what is more."""
        return str.__str__(self)

    @classmethod
    def said_by(cls, shown: object) -> Lines:
        """What one of dlkit's own objects says of itself, whose lines are safe already.

        Args:
            shown: A dataset, a spec, a report.
        """
        return cls(str(shown))

    @classmethod
    def of(cls, *parts: str) -> Lines:
        """Several lines as one text, each made safe.

        Args:
            parts: The lines; a part that is `Lines` itself stays as it is.

        >>> print(Lines.of("first", "second \\n still the second"))
        first
        second \\n still the second
        """
        return cls("\n".join(part if isinstance(part, Lines) else _one(part) for part in parts))


def safe(text: str, *, most: int = _MOST) -> str:
    """A text with its control characters escaped as Python writes them, without secrets, and not too long.

    Args:
        text: Anything; only the line breaks of `Lines` stay.
        most: Characters, of which the middle is left out beyond; 0 for all.

    >>> safe("red: \\x1b[31m, new line: \\n"), safe("https://eve:pw@host/a.csv?key=abc")
    ('red: \\\\x1b[31m, new line: \\\\n', 'https://host/a.csv?key=***')
    """
    whole = Lines.of(*text.split("\n")) if isinstance(text, Lines) else _one(text)
    if not most or len(whole) <= most:
        return whole
    left_out = len(whole) - most
    cut = f"{whole[: most * 3 // 4]} ... ({left_out:,} characters left out) ... {whole[-most // 4 :]}"
    return Lines(cut) if isinstance(whole, Lines) else cut


def few(items: Sequence[Any], most: int = 10) -> str:
    """The first of some things in one line, and how many more there are.

    Args:
        items: All of them.
        most: How many are shown.

    >>> few([1, 2, 3], most=2)
    '1, 2 and 1 more'
    """
    shown = ", ".join(map(str, items[:most]))
    return Message("{names} and {more} more", names=shown, more=len(items) - most) if len(items) > most else shown


def escaped_json(document: str) -> str:
    """A JSON document with what could act in a terminal written as JSON writes it; a reader gets the same values.

    Args:
        document: Made by `json.dumps`; its own line breaks stay.

    >>> print(escaped_json('{"a": "\x9b31m"}'))
    {"a": "\\u009b31m"}
    """
    return _ACTIVE.sub(lambda found: found[0] if found[0] == "\n" else json.dumps(found[0])[1:-1], document)


def without_secrets(text: str) -> str:
    """The text with user names, passwords, and the values of the queries of all addresses in it hidden.

    Args:
        text: An address, or a message with some in it.

    >>> without_secrets("https://host/a.zip?X-Amz-Signature=abc&part=1#token=2 failed")
    'https://host/a.zip?X-Amz-Signature=***&part=***#*** failed'
    """
    if "/" not in text:
        return text
    text = _ADDRESS.sub(lambda found: public(found[0]), text)
    return _REQUEST.sub(lambda found: found[1] + _without_query(found[2]), text)


def public(address: str) -> str:
    """One address without user name, password, and the values of its query, whatever characters these have.

    Args:
        address: A URL.

    >>> public("https://eve:pw@host/a.zip?id=1")
    'https://host/a.zip?id=***'
    """
    start = _SCHEME.match(address)
    scheme = start[0] if start else ""
    return scheme + _without_query(_without_user(address[len(scheme) :]))


def _without_user(rest: str) -> str:
    """What follows the scheme, without `user:password@`, which ends before the first slash."""
    host, slash, path = rest.partition("/")
    return host.rpartition("@")[2] + slash + path


def _without_query(rest: str) -> str:
    path, mark, query = rest.partition("?") if "?" in rest.partition("#")[0] else (rest, "", "")
    if mark:
        query, fragment, _ = query.partition("#")
        query = _VALUE.sub("***", query) if "=" in query else "***"
    else:
        path, fragment, _ = path.partition("#")
    return f"{path}{mark}{query}{fragment and '#***'}"


def _one(text: str) -> str:
    text = text.here() if isinstance(text, Message) else text
    return _ACTIVE.sub(lambda found: found[0].encode("unicode_escape").decode(), without_secrets(text))
