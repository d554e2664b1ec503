"""The command `cache`: what dlkit keeps on this machine."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Literal

import typer

from dlkit._language import Message, here
from dlkit._showing import Lines
from dlkit.cli._lines import fitted
from dlkit.cli._options import DebugFlag, JsonFlag
from dlkit.cli._talking import guarded, show, tell

__all__ = ["cache"]

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SIZES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


Action = Annotated[Literal["list", "size", "clear"], typer.Argument(help="What to do.")]
Kinds = Annotated[list[str] | None, typer.Argument(metavar="[KIND]...", help="Kind, such as features; all by default.")]
OlderThan = Annotated[
    str | None, typer.Option(metavar="AGE", help="clear: only entries unused for this long: 12h, 30d.")
]
Keep = Annotated[str | None, typer.Option(metavar="SIZE", help="clear: until this much is left, such as 10GB.")]


@guarded
def cache(
    action: Action = "list",
    kinds: Kinds = None,
    older_than: OlderThan = None,
    keep: Keep = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="clear: only show what would be removed.")] = False,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """List, measure or clear dlkit's caches: downloads, decoded files, features, scans.

    It lies in one folder, which the environment variable DLKIT_HOME moves. What a process is using stays, and the exit
    code is then 1. Everything is fetched or made again when it is next needed.

    \b
    Examples:
      dlkit cache
      dlkit cache size
      dlkit cache clear features --older-than 30d
      dlkit cache clear --keep 10GB --dry-run
    """
    from dlkit.storage import clear, entries, home

    if action != "clear":
        found = entries(kinds or None)
        _show(found, str(home()), one_by_one=action == "list", as_json=json)
        return
    done = clear(
        kinds or None,
        older_than=None if older_than is None else _age(older_than),
        keep_bytes=None if keep is None else _bytes(keep),
        dry_run=dry_run,
    )
    freed = {"size": _size(done.size), "count": len(done.removed), "place": home()}
    text = Message("freed {size} ({count} entries) in {place}", **freed)
    if dry_run:
        text = Message("would free {size} ({count} entries) in {place}", **freed)
    document = {"home": home(), "dry_run": dry_run, "size": done.size, "removed": _plain(done.removed)}
    show(text, document | {"in_use": _plain(done.in_use)}, as_json=json)
    for entry in done.in_use:
        tell(
            Message(
                "in use, so it stays: {kind} {name} ({size})", kind=entry.kind, name=entry.name, size=_size(entry.size)
            )
        )
    if done.in_use:
        raise typer.Exit(1)


def _show(found: Any, place: str, *, one_by_one: bool, as_json: bool) -> None:
    total = sum(entry.size for entry in found)
    lines, kinds = [f"{place}: {_size(total)}"], list(dict.fromkeys(entry.kind for entry in found))
    for kind in kinds:
        own = [entry for entry in found if entry.kind == kind]
        lines.append(f"{kind:10}{_size(sum(entry.size for entry in own)):>10}  {here(own[0].purpose)}")
        shown = own if one_by_one else []
        lines += [
            f"  {_size(entry.size):>18}  {fitted(_ago(entry.age), 12, right=True)}  {entry.name}" for entry in shown
        ]
    sizes = {kind: sum(entry.size for entry in found if entry.kind == kind) for kind in kinds}
    show(Lines.of(*lines), {"home": place, "size": total, "kinds": sizes, "entries": _plain(found)}, as_json=as_json)


def _plain(found: Any) -> list[dict[str, Any]]:
    return [
        {"kind": entry.kind, "name": entry.name, "size": entry.size, "seconds": round(entry.age.total_seconds())}
        for entry in found
    ]


def _size(count: int) -> str:
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.3g} {unit}" if value < 999.5 else f"{value:.0f} {unit}"


def _ago(age: timedelta) -> str:
    seconds = int(age.total_seconds())
    if seconds < 60:
        return Message("just now")
    minutes, hours, days = seconds // 60, seconds // 3_600, seconds // 86_400
    if days:
        return Message("{count} days", count=days) if days > 1 else Message("1 day")
    if hours:
        return Message("{count} hours", count=hours) if hours > 1 else Message("1 hour")
    return Message("{count} minutes", count=minutes) if minutes > 1 else Message("1 minute")


def _age(text: str) -> timedelta:
    if (found := re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", text.strip())) is None:
        raise typer.BadParameter(f"--older-than: {text!r} is not an age such as 12h, 30d or 2w")
    try:
        return timedelta(**{_UNITS[found[2]]: float(found[1])})
    except OverflowError:
        return timedelta.max


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?b?)", text.strip().lower())
    unit = "" if found is None else found[2].upper()
    if found is None or (unit := unit if unit in _SIZES else f"{unit}B") not in _SIZES:
        raise typer.BadParameter(f"--keep: {text!r} is not a size such as 500MB or 10GB")
    return int(float(found[1]) * _SIZES[unit])
