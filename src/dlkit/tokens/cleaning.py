"""What is done to a text before it is cut into tokens: each step on or off, and stated in the model file."""

from __future__ import annotations

import html
import re
import unicodedata
from dataclasses import dataclass
from typing import ClassVar

from dlkit._documents import Document

__all__ = ["Cleaning"]

# Every pattern is linear in the text: no part can match the same characters in two ways.
_URL = re.compile(r"(?:https?://|www\.)[!-~]*[0-9A-Za-z/]")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_HIDDEN = re.compile(r"<(?:(script|style)\b|!--)", re.IGNORECASE)
_ENDS = {
    "script": re.compile(r"</script\s*>", re.IGNORECASE),
    "style": re.compile(r"</style\s*>", re.IGNORECASE),
    None: re.compile("-->"),
}


@dataclass(frozen=True, kw_only=True)
class Cleaning(Document):
    """Steps that make texts alike before they are cut into tokens. They run in the order given here.

    Args:
        html: Take out tags, comments, scripts and style sheets, and turn entities such as `&amp;` into characters.
        urls: Put the word `httpurl` in place of each web address (the word that BERTweet uses: Nguyen et al. 2020).
        lower: Lower case.
        nfc: Unicode normal form C, so that the two ways to write `é` (or a Hangul syllable) are one.
        whitespace: One blank for each run of blanks, line ends and zero bytes; none at the ends.

    >>> Cleaning(html=True, urls=True, lower=True)("<p>See  <b>https://x.org/a?b=1</b>, R&amp;D</p>")
    'see httpurl , r&d'
    """

    _title: ClassVar[str] = "this cleaning"

    html: bool = False
    urls: bool = False
    lower: bool = False
    nfc: bool = True
    whitespace: bool = True

    def __call__(self, text: str) -> str:
        """The cleaned text."""
        if self.html:
            text = html.unescape(_without_tags(text))
        if self.urls:
            text = _URL.sub("httpurl", text)
        if self.lower:
            text = text.lower()
        if self.nfc and not text.isascii():
            text = unicodedata.normalize("NFC", text)
        if self.whitespace:
            text = " ".join((text.replace("\0", " ") if "\0" in text else text).split())
        return text


def _without_tags(text: str) -> str:
    if "<" not in text:
        return text
    pieces, begin = [], 0
    while hidden := _HIDDEN.search(text, begin):
        kind = hidden[1] and hidden[1].lower()
        end = _ENDS[kind].search(text, hidden.end())
        if end is None:
            break  # never closed: from here on only the tags themselves go
        pieces.append(text[begin : hidden.start()])
        begin = end.end()
    return _TAG.sub(" ", " ".join([*pieces, text[begin:]]))
