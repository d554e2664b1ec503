"""The rows of a source of texts, packed: texts, raw targets, groups, and the place that each row came from."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from dlkit.datasets.texts._sources import Column, Reader, Reading, Row, has_class_folders, open_source
from dlkit.errors import ArgumentError, DataError, TooManyErrorsError
from dlkit.reading.parsing import DEFAULT_MISSING
from dlkit.reading.targets import ClassNumbers, target_text
from dlkit.storage.files import home_of
from dlkit.storage.strings import PackedStrings, StringsWriter

__all__ = ["Policy", "Roles", "TextRows", "encoded_text", "read_rows"]

Array = np.ndarray[Any, Any]
Skipped = tuple[str, str]
_ALWAYS_SKIPPED = 10  # bad rows that a small file may have, whatever share of it they are


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Which columns are what."""

    text: tuple[Column, ...]
    target: Any = None  # a column, or a value for each row
    group: Column | None = None

    @property
    def target_column(self) -> Column | None:
        """The target where it is a column of the source."""
        return self.target if isinstance(self.target, int | str) else None


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What happens with rows that cannot be used."""

    on_error: Literal["raise", "skip"] = "raise"
    max_errors: float = 0.1
    missing: tuple[str, ...] = DEFAULT_MISSING

    def __post_init__(self) -> None:
        if self.on_error not in ("raise", "skip"):
            raise ArgumentError(f"on_error must be 'raise' or 'skip', not {self.on_error!r}")
        if not 0 <= self.max_errors <= 1:
            raise ArgumentError(f"max_errors is a share of the rows, from 0 to 1, not {self.max_errors}")


@dataclass
class Values:
    """One value per row: codes into the distinct values, in the order in which they were first seen."""

    codes: Array
    distinct: list[str]

    def select(self, indices: Array) -> Values:
        """The values of some rows."""
        return Values(self.codes[indices], self.distinct)


@dataclass(frozen=True)
class TextRows:
    """What was read.

    Attributes:
        texts: One or, for pairs, two `PackedStrings`.
        targets: The raw target of each row, None for unlabelled texts.
        groups: The group of each row, None where none was asked for.
        places: int64 [N], the line, row or item of each; or `PackedStrings`, the file of each.
        origin: The file or folder.
        noun: What a place is: "line", "row", "item", "file".
        notes: How the source was understood.
        skipped: `(place, reason)` of each row that was left out.
        columns: The names of the columns of the texts; empty where they have none.
        target_column: The name of the target's column; None where it has none.
    """

    texts: tuple[PackedStrings, ...]
    targets: Values | None
    groups: Values | None
    places: Array | PackedStrings
    origin: str
    noun: str
    notes: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = field(default=(), repr=False)
    columns: tuple[str, ...] = ()
    target_column: str | None = None

    def __len__(self) -> int:
        return len(self.texts[0])

    def select(self, indices: Array) -> TextRows:
        """Some of the rows."""
        return replace(
            self,
            texts=tuple(texts.select(indices) for texts in self.texts),
            targets=self.targets and self.targets.select(indices),
            groups=self.groups and self.groups.select(indices),
            places=self.places.select(indices) if isinstance(self.places, PackedStrings) else self.places[indices],
        )

    def where(self, index: int) -> str:
        """The place of a row, in words."""
        place = self.places[index]
        return f"{self.origin}/{place}" if isinstance(place, str) else f"{self.origin}, {self.noun} {place}"


def read_rows(
    source: Any,
    roles: Roles,
    reading: Reading,
    policy: Policy,
    *,
    classes: Sequence[str] | None = None,
    budget: int = 1 << 30,
) -> TextRows:
    """Read a source to its end.

    Args:
        source: See `TextDataset`.
        roles: Which columns are what.
        reading: How to read a file.
        policy: What to do with bad rows.
        classes: The classes that targets must be of, where they are known already.
        budget: Bytes of text to keep in memory; more go to a file in the cache folder.
    """
    reader, roles = _opened(source, roles, reading)
    collected = _Collected(reader, roles, policy, classes, budget)
    for place, row in reader.rows:
        problem = collected.add(place, row)
        if problem is not None:
            collected.refuse(place, problem)
    return collected.finish()


def _opened(source: Any, roles: Roles, reading: Reading) -> tuple[Reader, Roles]:
    labelled = roles.target_column is not None
    if isinstance(source, str | Path) and Path(source).expanduser().is_dir():
        folder = Path(source).expanduser()
        if roles.target is None and has_class_folders(folder, reading.pattern):
            roles, labelled = replace(roles, target="class"), True
    columns = [
        *roles.text,
        *([roles.target_column] if labelled else []),
        *([] if roles.group is None else [roles.group]),
    ]
    reader = open_source(source, [c for c in columns if c is not None], reading, labelled=labelled)
    if roles.target is None or labelled:
        return reader, roles
    after = len(roles.text)
    return reader._replace(rows=_with_targets(reader.rows, _as_list(roles.target), after)), roles


def _as_list(target: Any) -> list[Any]:
    if isinstance(target, Tensor | np.ndarray) or hasattr(target, "tolist"):
        return list(target.tolist())
    if isinstance(target, Mapping | set) or not isinstance(target, Sequence):
        raise ArgumentError(f"target must be a column's name or number, or a value per text, not {target!r:.80}")
    return list(target)


def _with_targets(rows: Iterator[Row], targets: list[Any], after: int) -> Iterator[Row]:
    count = 0
    for place, row in rows:
        if count < len(targets):
            value = targets[count]
            yield place, row if isinstance(row, str) else (*row[:after], value, *row[after:])
        count += 1
    if count != len(targets):
        raise ArgumentError(f"there are {count} texts but {len(targets)} targets")


class _Collected:
    """Rows that were read so far, checked one by one."""

    def __init__(
        self, reader: Reader, roles: Roles, policy: Policy, classes: Sequence[str] | None, budget: int
    ) -> None:
        self.reader, self.roles, self.policy = reader, roles, policy
        self.classes = None if classes is None else ClassNumbers(classes)
        # The name of a folder is a class whatever it is; cells may mean that there is none.
        self.missing = () if reader.noun == "file" else policy.missing
        self.texts = [StringsWriter(budget=budget, folder=home_of("text")) for _ in roles.text]
        self.lines, self.files = array("q"), StringsWriter(folder=home_of("text"))
        self.targets, self.groups = _Interned(), _Interned()
        self.skipped: list[Skipped] = []

    def add(self, place: int | str, row: tuple[Any, ...] | str) -> str | None:
        """Take a row, or say what is wrong with it."""
        if isinstance(row, str):
            return row
        count = len(self.roles.text)
        encoded = [encoded_text(text) for text in row[:count]]
        if problems := [item for item in encoded if isinstance(item, str)]:
            return problems[0]
        rest = list(row[count:])
        if self.roles.target is not None:
            value = _plain(rest.pop(0))
            target = target_text(value, self.missing)
            if (problem := self._target_problem(value, target)) is not None:
                return problem
            self.targets.append(target)
        if self.roles.group is not None:
            self.groups.append(rest[0] if isinstance(rest[0], str | int | float | None) else repr(rest[0]))
        for writer, item in zip(self.texts, encoded, strict=True):
            writer.append(item if isinstance(item, bytes) else b"")
        if isinstance(place, str):
            self.files.append(place.encode("utf-8", "backslashreplace"))
        else:
            self.lines.append(place)
        return None

    def _target_problem(self, value: Any, target: str | None) -> str | None:
        if target is None:
            mark = isinstance(value, str) and value != ""
            return f"no target: {value!r} means that there is none; missing=[] keeps it" if mark else "no target"
        if not isinstance(value, str | int | float):
            return f"a target that is a {type(value).__name__}, not a word or a number"
        if self.classes is not None and self.classes.get(target) < 0:
            return f"the target {value!r}, which is not among the classes {sorted(self.classes)}"[:300]
        return None

    def refuse(self, place: int | str, problem: str) -> None:
        """Stop at a bad row, or leave it out, as the policy says."""
        name = self.reader.name
        where = f"{name}/{place}" if isinstance(place, str) else f"{name}, {self.reader.noun} {place}"
        if self.policy.on_error == "raise":
            raise DataError(f"{where}: {problem}; on_error='skip' leaves such rows out and lists them in .skipped")
        self.skipped.append((where, problem))

    def finish(self) -> TextRows:
        """All that was taken."""
        texts = tuple(writer.finish() for writer in self.texts)
        name, skipped = self.reader.name, self.skipped
        if len(skipped) > max(_ALWAYS_SKIPPED, self.policy.max_errors * (len(texts[0]) + len(skipped))):
            first = "; ".join(f"{place}: {problem}" for place, problem in skipped[:3])
            raise TooManyErrorsError(
                f"{name}: {len(skipped)} of {len(texts[0]) + len(skipped)} rows cannot be used, more than "
                f"max_errors={self.policy.max_errors:g} allows; the first: {first}"
            )
        if not len(texts[0]):
            raise DataError(f"{name} has no text" + (f"; the first row: {skipped[0][1]}" if skipped else ""))
        files, count = self.files.finish(), len(self.roles.text)
        named = self.reader.columns
        columns = tuple(name for name in named[:count] if name is not None)
        return TextRows(
            texts=texts,
            targets=None if self.roles.target is None else self.targets.finish(),
            groups=None if self.roles.group is None else self.groups.finish(),
            places=files if len(files) else np.array(self.lines, dtype=np.int64),
            origin=name,
            noun=self.reader.noun,
            notes=(f"{name}: {self.reader.how}",),
            skipped=tuple(skipped),
            columns=columns if len(columns) == count else (),
            target_column=None if self.roles.target_column is None else named[count],
        )


class _Interned:
    """Values that are kept once each, and a number per row."""

    def __init__(self) -> None:
        self._codes = array("q")
        self._known: dict[Any, int] = {}

    def append(self, value: Any) -> None:
        self._codes.append(self._known.setdefault(value, len(self._known)))

    def finish(self) -> Values:
        return Values(np.array(self._codes, dtype=np.int64), list(self._known))


def encoded_text(text: Any) -> bytes | str:
    """A text as UTF-8, or as a string what is wrong with it.

    Args:
        text: What stands where a text should.
    """
    if not isinstance(text, str):
        return "no text" if text is None or text != text else f"not a text but {type(text).__name__}"
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        if 0xDC80 <= code <= 0xDCFF:  # what `surrogateescape` makes of a byte
            return f"byte {code - 0xDC00:#04x} after {error.start} characters is not UTF-8"
        return f"half a surrogate pair (U+{code:04X}) after {error.start} characters, which is no character"


def _plain(value: Any) -> Any:
    """A number of numpy or torch as one of Python, and a string without blanks around it."""
    if isinstance(value, str):
        return value.strip()
    return value.item() if isinstance(value, Tensor | np.generic) and value.ndim == 0 else value
