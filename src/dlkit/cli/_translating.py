"""The commands in the language of who reads them: which one that is, their help, and what typer says of wrong usage."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand, TyperGroup

from dlkit._language import LANGUAGES, VARIABLE, Message, here, language, speaking, translated

__all__ = ["ERRORS", "WORDS", "Command", "LangOption", "Program", "language_of"]

LangOption = Annotated[
    Literal["en", "ko"] | None,
    typer.Option("--lang", help="Language of help, messages and reports; by default that of DLKIT_LANG or LANG."),
]
#: Words of typer's help, which it does not ask anybody to translate.
WORDS = (
    *("Usage: ", "Arguments", "Options", "Commands", "default: ", "required"),
    *("Examples:", "Example:", "Show this message and exit.", "Install completion for the current shell."),
    "Show completion for the current shell, to copy it or customize the installation.",
)
#: What typer says of wrong usage, as it says it; the first that fits is taken.
ERRORS = (
    "Invalid value for {name}: {message}",
    "Invalid value: {message}",
    "Missing argument {name}.",
    "Missing option {name}.",
    "Missing option {name}. Choose from:{names}",
    "Missing command.",
    "No such command {name}. Did you mean {names}?",
    "No such command {name}.",
    "No such option {name}. (Did you mean one of: {names}?)",
    "No such option {name}. Did you mean {names}?",
    "No such option {name}.",
    "No such option: {name} (Possible options: {names})",
    "No such option: {name} Did you mean {names}?",
    "No such option: {name}",
    "Got unexpected extra argument(s) ({names})",
    "Got unexpected extra argument ({names})",
    "Got unexpected extra arguments ({names})",
    "Option {name} requires an argument.",
    "Option {name} does not take a value.",
    "Value error, {name} is not one of {names}.",
    "{name} is not one of {names}.",
    "Input should be a valid integer, unable to parse string as an integer",
    "Input should be a valid number, unable to parse string as a number",
    "Input should be greater than or equal to {name}",
    "Input should be less than or equal to {name}",
    "{name} is not a valid int.",
    "{name} is not a valid integer.",
    "{name} is not a valid float.",
    "{name} is not a valid integer range.",
    "{name} is not a valid float range.",
    "{name} is not in the range {names}.",
)
_LOCALE = ("LC_ALL", "LC_MESSAGES", "LANG")  # of which POSIX asks the first that is set
_NO_WRAP = "\b"  # typer keeps the lines of a paragraph that begins with it
_WIDE = re.compile("[\u1100-\uffdc]")
_SECOND = "\ufdd0"  # no character: stands for the second column of a wide one while lines are broken


def language_of(words: Sequence[str], environ: Mapping[str, str]) -> str:
    """The language that is asked for: by `--lang`, wherever it stands; else by the environment; else English.

    Args:
        words: Of the command line.
        environ: The environment.

    >>> language_of(["train", "--help", "--lang", "ko"], {}), language_of([], {"LANG": "ko_KR.UTF-8"})
    ('ko', 'ko')
    """
    words = words[: words.index("--")] if "--" in words else words
    said = [after for word, after in itertools.pairwise(words) if word == "--lang"]
    said += [word.removeprefix("--lang=") for word in words if word.startswith("--lang=")]
    for name in (*said[-1:], environ.get(VARIABLE, ""), next(filter(None, map(environ.get, _LOCALE)), "")):
        if (short := name.lower()[:2]) in LANGUAGES:
            return short
    return "en"


class _Translated:
    """What writes its help and usage in the language of the process; stands before a class of typer."""

    def get_help(self, ctx: Any) -> str:
        _translate(ctx)
        return super().get_help(ctx)  # type: ignore[misc, no-any-return]

    def get_usage(self, ctx: Any) -> str:
        _translate(ctx)
        return super().get_usage(ctx)  # type: ignore[misc, no-any-return]


class Command(_Translated, TyperCommand):
    """A command whose help is in the language of the process."""

    def get_short_help_str(self, limit: int = 45) -> str:
        if language() == "en":
            return super().get_short_help_str(limit)
        sentence, dot, _ = _paragraph((self.help or "").partition("\n\n")[0]).partition(". ")
        return sentence + dot.rstrip()


class Program(_Translated, TyperGroup):
    """The program: it finds out which language is spoken before anything is parsed."""

    def main(self, args: Sequence[str] | None = None, *others: Any, **settings: Any) -> Any:
        words = sys.argv[1:] if args is None else list(args)
        with speaking(language_of(words, os.environ)):
            return super().main(args, *others, **settings)

    def make_context(self, *args: Any, **settings: Any) -> Any:
        with _translated_errors():
            return super().make_context(*args, **settings)

    def invoke(self, ctx: Any) -> Any:
        with _translated_errors():
            return super().invoke(ctx)


def _translate(ctx: Any) -> None:
    """Let a command's help be written by a formatter that translates what it is given."""
    if language() != "en" and not issubclass(ctx.formatter_class, _Translating):
        ctx.formatter_class = type("Formatter", (_Translating, ctx.formatter_class), {})


class _Translating:
    """What is put before typer's formatter, whose class is another in each version of typer."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        super().write_usage(prog, args, _spaced(translated("Usage: ")))  # type: ignore[misc]

    def write_heading(self, heading: str) -> None:
        super().write_heading(_spaced(translated(heading)))  # type: ignore[misc]

    def write_text(self, text: str) -> None:
        super().write_text(_spaced("\n\n".join(map(_paragraph, text.split("\n\n")))))  # type: ignore[misc]

    def write_dl(self, rows: Any, *more: Any, **settings: Any) -> None:
        rows = [(first, _spaced(_explained(second))) for first, second in rows]
        super().write_dl(rows, *more, **settings)  # type: ignore[misc]

    def getvalue(self) -> str:
        written: str = super().getvalue()  # type: ignore[misc]
        return written.replace(_SECOND, "")


def _paragraph(text: str) -> str:
    """A paragraph of a command's help; of one that keeps its lines each is translated."""
    lines = text.strip("\n").split("\n")
    if lines[0].strip() == _NO_WRAP:
        return "\n".join([_NO_WRAP, *map(translated, lines[1:])])
    return translated(" ".join(line.strip() for line in lines))


def _explained(text: str) -> str:
    """The help of an option, with what typer adds in brackets: [default: 64; x>=1]."""
    found = re.fullmatch(r"(?P<own>.*?)(?P<added>(?:  |^)\\?\[[^\[]*\])?", text, re.DOTALL)
    own, added = (found["own"], found["added"] or "") if found else (text, "")
    return translated(own) + re.sub(r"default: |required", lambda word: translated(word[0]), added)


def _spaced(text: str) -> str:
    """The text with a second character behind each that takes two columns, so that lines are broken in time."""

    def two(found: re.Match[str]) -> str:
        return found[0] + _SECOND if unicodedata.east_asian_width(found[0]) in "WF" else found[0]

    return _WIDE.sub(two, text)


@contextlib.contextmanager
def _translated_errors() -> Iterator[None]:
    """Let errors of typer about wrong usage show themselves in the language of the process."""
    try:
        yield
    except Exception as error:
        if language() != "en" and hasattr(error, "format_message") and type(error).__name__ != "NoArgsIsHelpError":
            error.show = functools.partial(_show, error)  # type: ignore[attr-defined]
        raise


def _show(error: Any) -> None:
    if (ctx := getattr(error, "ctx", None)) is not None:
        hint = Message("Try '{command}' for help.", command=f"{ctx.command_path} {ctx.help_option_names[0]}")
        typer.echo(f"{ctx.get_usage()}\n{hint.here()}\n", err=True)
    own = getattr(error, "message", "")
    told = str(error.format_message())
    told = told.replace(own, here(own)) if isinstance(own, Message) else told
    typer.echo(Message("Error: {message}", message=_error(told)).here(), err=True)


def _error(told: str) -> str:
    """What typer says of wrong usage, and what stands in that, in the language of the process."""
    for template in ERRORS:
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+)", re.escape(template))
        if found := re.fullmatch(pattern, told, re.DOTALL):
            return translated(template).format(**{name: _error(value) for name, value in found.groupdict().items()})
    return told
