"""The language in which dlkit speaks to people; data, files, JSON and code are the same in all of them.

A text is written in English where it is used, and that is its key in the catalogue of each language, a `.po` file below
the folder `locale`; what has no translation is shown in English. The catalogue is read unchanged, without a compiled
`.mo` beside it, so there is nothing to build and nothing to forget, and only when its language is spoken.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

__all__ = ["LANGUAGES", "VARIABLE", "Message", "here", "language", "speaking", "translated"]

LANGUAGES = ("en", "ko")
#: The environment variable that names the language, for this process and for those that it starts.
VARIABLE = "DLKIT_LANG"


class Message(str):
    """A text that dlkit says. As a string it is English, for JSON, files and programs; `here` is what people read.

    Whatever shows text to people (`dlkit._showing.safe`, and by it the commands, `Run.say`, reports) asks for that.

    Args:
        template: English, with `{names}` in the way of `str.format` where there are values.
        **values: What stands there; one that is a `Message` is translated as well.

    >>> said = Message("{count:,} files", count=1200)
    >>> said, said.here()
    ('1,200 files', '1,200 files')
    """

    _template: str
    _values: Mapping[str, Any]

    def __new__(cls, template: str, /, **values: Any) -> Self:
        made = super().__new__(cls, template.format(**values) if values else template)
        made._template, made._values = template, values
        return made

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, Any]]:
        return (self._template,), dict(self._values)

    def here(self) -> str:
        """The text in the language of this process."""
        if language() == "en":
            return str(self)
        template = translated(self._template)
        return (
            template.format(**{name: here(value) for name, value in self._values.items()}) if self._values else template
        )


def here(value: Any) -> Any:
    """A message in the language of this process; anything else as it is.

    Args:
        value: Of any kind.
    """
    return value.here() if isinstance(value, Message) else value


def language() -> str:
    """The language of this process: that of `DLKIT_LANG`, else English. The commands go by `--lang` and `LANG`, too."""
    named = os.environ.get(VARIABLE, "").lower()[:2]
    return named if named in LANGUAGES else "en"


@contextlib.contextmanager
def speaking(name: str) -> Iterator[None]:
    """Speak a language, also in processes that are started meanwhile.

    Args:
        name: One of `LANGUAGES`.
    """
    earlier = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = name
    try:
        yield
    finally:
        if earlier is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = earlier


def translated(text: str) -> str:
    """The translation of an English text into the language of this process, or the text where there is none.

    Args:
        text: As it is in the code.
    """
    return _catalogue(language()).get(text, text)


@functools.cache
def _catalogue(name: str) -> dict[str, str]:
    """English to the language."""
    if name == "en":
        return {}
    file = Path(__file__).with_name("locale") / name / "LC_MESSAGES" / "messages.po"
    texts: dict[str, dict[str, str]] = {"msgid": {}, "msgstr": {}}
    entry, of = 0, ""
    for line in file.read_text(encoding="utf-8").splitlines():
        kind, _, quoted = line.partition(" ") if line.startswith("msg") else (of, "", line)
        if not quoted.startswith('"'):
            continue  # a comment, or the empty line between entries
        entry, of = entry + (line.startswith("msgid ")), kind
        texts[kind][str(entry)] = texts[kind].get(str(entry), "") + json.loads(quoted)
    return {english: texts["msgstr"][entry] for entry, english in texts["msgid"].items() if english}
