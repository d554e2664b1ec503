"""How the commands talk: results on stdout (as text, or as JSON), everything else on stderr, exit codes, errors."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import math
import re
import shlex
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ParamSpec, get_args

import typer
from typer.models import OptionInfo

from dlkit._language import Message
from dlkit._showing import Lines, escaped_json, safe, without_secrets
from dlkit.cli._translating import LangOption
from dlkit.errors import DlkitError

__all__ = ["INTERRUPTED", "as_json_line", "guarded", "short_warnings", "show", "tell"]

_P = ParamSpec("_P")

#: 128 + SIGINT, what a shell reports for a program that Ctrl-C ended.
INTERRUPTED = 130


def tell(line: str) -> None:
    """Say something that is not the result: to stderr.

    Args:
        line: One line, or several as `Lines`.
    """
    typer.echo(safe(line), err=True)


def show(text: str, document: Any, *, as_json: bool) -> None:
    """Print the result: to stdout.

    Args:
        text: For people: one line, or several as `Lines`.
        document: The same as plain data; numbers that JSON has not become null, paths text.
        as_json: Print the document instead of the text.
    """
    typer.echo(_json(_plain(document), indent=2) if as_json else safe(text, most=0))


def _json(document: Any, *, indent: int | None = None) -> str:
    """A document as JSON that a terminal may show: what could act there is written as an escape, so nothing is lost."""
    return escaped_json(json.dumps(document, ensure_ascii=False, indent=indent))


def as_json_line(document: Any) -> str:
    """Plain data as one line of JSON.

    Args:
        document: See `show`.
    """
    return _json(_plain(document))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # of numpy, pandas and torch
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | bool | type(None)) else str(value)


def guarded(command: Callable[_P, None]) -> Callable[_P, None]:
    """A command whose errors are told in a sentence, with an exit code: 1, or 130 after Ctrl-C; it takes `--lang`.

    Args:
        command: With parameters `debug` and `json`, of which the latter may be missing.
    """

    _learn(command)

    @functools.wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        kwargs.pop("lang", None)  # heard already, before anything was parsed
        try:
            with short_warnings():
                command(*args, **kwargs)
        except KeyboardInterrupt:
            tell(Message("interrupted"))
            raise typer.Exit(INTERRUPTED) from None
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except Exception as error:
            # Errors of typer about wrong usage print themselves and have an exit code of their own.
            if kwargs.get("debug") or hasattr(error, "exit_code"):
                raise
            tell(_told(error, as_json=bool(kwargs.get("json"))))
            raise typer.Exit(1) from None

    signature = inspect.signature(command, eval_str=True)
    lang = inspect.Parameter("lang", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=LangOption)
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=sorted([*signature.parameters.values(), lang], key=lambda parameter: parameter.kind)
    )
    run.__annotations__ = {name: parameter.annotation for name, parameter in run.__signature__.parameters.items()}  # type: ignore[attr-defined]
    return run


def _told(error: Exception, *, as_json: bool) -> str:
    if as_json:
        return _json({"error": type(error).__name__, "message": without_secrets(_in_shell_words(str(error)))})
    if isinstance(error, DlkitError | OSError):
        message = str(error)
        told = Message("error: {message}", message=_in_shell_words(message))
        return Lines(told.here()) if isinstance(message, Lines) else told
    return Lines.of(
        Message("unexpected error: {error}", error=f"{type(error).__name__}: {error}"),
        Message("(--debug shows where; it may be a bug in dlkit)"),
    )


# Messages name the arguments of functions, which on the command line are options: for each that a command has its name
# there, and how False is said of it.
_OPTIONS: dict[str, tuple[str, str]] = {}


def _learn(command: Callable[..., None]) -> None:
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if parameter.name in (
            "host",
            "port",
        ):  # as errors of the network say them, too: "HTTPSConnection(..., port=443)"
            continue
        kind, *infos = get_args(parameter.annotation) or [None]
        for info in (each for each in infos if isinstance(each, OptionInfo)):
            # In an annotation the first name of an option lies where its usual value would.
            said = [each for each in (info.default, *(info.param_decls or ())) if isinstance(each, str)]
            option = f"--{parameter.name.replace('_', '-')}"
            two_ways = bool in (kind, *get_args(kind)) and all("/" in each for each in said)
            _OPTIONS.setdefault(parameter.name, (option, f"--no-{option[2:]}" if two_ways else ""))


def _in_shell_words(message: str) -> str:
    """The message with options in the place of keyword arguments: on_error='skip' becomes --on-error skip."""

    def option(found: re.Match[str]) -> str:
        value = (found[2] or "").strip("'")
        yes, no = _OPTIONS[found[1]]
        if (found[1], value) == ("missing", "[]"):
            return '--missing ""'
        if (found[1], value) == ("header", "[...]"):
            return "--names ..."
        if value == "True" or (value == "False" and no):
            return yes if value == "True" else no
        return f"{yes} {shlex.quote(value) if ' ' in value and value[0] != '[' else value}".rstrip()

    named = rf"(?<![\w.(])({'|'.join(_OPTIONS)})=('[^']*'|\[[^\]]*\]|[\w./-]+)?"
    return re.sub(named, option, message)


@contextlib.contextmanager
def short_warnings() -> Iterator[None]:
    """Warnings as one line, without the place in the source that raised them."""

    def formatted(message: Any, category: type[Warning], *place: Any, **more: Any) -> str:
        del category, place, more
        told = str(message.args[0].here()) if message.args and isinstance(message.args[0], Message) else str(message)
        return f"{safe(Message('warning: {message}', message=_in_shell_words(told)))}\n"

    earlier, warnings.formatwarning = warnings.formatwarning, formatted
    try:
        yield
    finally:
        warnings.formatwarning = earlier
