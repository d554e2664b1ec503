"""What is wrong with a request, as a status and a sentence for whoever sent it."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["ClientGoneError", "RefusedError", "sentence_of"]

_LONGEST = 600


class RefusedError(Exception):
    """A request that is not answered as it wished.

    Args:
        status: Of HTTP.
        sentence: What was given, what is expected, what to do; without a path or a secret.
        headers: More for the answer.
        closing: Whether the connection ends, because the rest of the body is not read.
    """

    def __init__(
        self, status: int, sentence: str, headers: Mapping[str, str] | None = None, *, closing: bool = False
    ) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence
        self.headers = {**(headers or {}), **({"connection": "close"} if closing else {})}


class ClientGoneError(Exception):
    """The client went away; there is nobody to answer."""


def sentence_of(error: Exception) -> str:
    """What an error says, without the end of a list of a hundred thousand names.

    Args:
        error: One of the library's.
    """
    told = str(error)
    return told if len(told) <= _LONGEST else f"{told[:_LONGEST]} ..."
