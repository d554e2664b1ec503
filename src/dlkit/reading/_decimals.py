"""The one decimal mark of a file: what its first rows show, and whether all of it agrees."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dlkit.errors import DataError
from dlkit.reading.cells import DecimalMark
from dlkit.reading.parsing import decimal_mark, looks_like_number
from dlkit.reading.policy import ReadOptions

__all__ = ["MarksSeen", "decimal_of", "one_mark", "said_decimal"]

_FEW = 20


def decimal_of(
    rows: Sequence[Sequence[str]], names: Sequence[str], read: Sequence[str], options: ReadOptions, origin: str
) -> DecimalMark:
    """The decimal mark of a file by what the caller says, or by a cell of its first rows.

    Raises:
        DataError: one column proves a comma and another a point; both cells are named.
    """
    if options.said_decimal:
        return said_decimal(options)
    proofs: dict[str, str] = {}
    for name, cells in zip(names, zip(*(row for row in rows if len(row) == len(names)), strict=True), strict=False):
        together = "".join(cells)
        if name not in read or not options.may_hold_numbers(name) or ("," not in together and "." not in together):
            continue
        # Where no cell has a comma, a few cells tell whether the points are those of numbers.
        some = cells if "," in together or options.thousands != "auto" else cells[:_FEW]
        marks = _marks_of(some, options, strict=True)
        if len(marks) == 1:
            mark, cell = marks.popitem()
            proofs.setdefault(mark, f"{cell!r} in column {name!r}")
    if len(proofs) == 2:
        raise _contradicting(origin, proofs[","], proofs["."])
    if proofs:
        return DecimalMark(*proofs.popitem())
    return DecimalMark(options.usual_decimal, "the data that was trained on" if options.usual_decimal else "")


def _marks_of(cells: Iterable[str], options: ReadOptions, *, strict: bool) -> dict[str, str]:
    """The marks that the numbers of a column prove, each with a cell; if `strict`, none where a cell is not a
    number."""
    marks: dict[str, str] = {}
    for text in map(str.strip, dict.fromkeys(cells)):
        if not text or text in options.missing:
            continue
        if looks_like_number(text):
            if mark := decimal_mark(text, options.thousands):
                marks.setdefault(mark, text)
        elif strict:
            return {}
    return marks


class MarksSeen:
    """The decimal marks that the columns of numbers of a whole table prove, asked at the end."""

    def __init__(self, options: ReadOptions) -> None:
        self._options = options
        self._proofs: dict[str, str] = {}

    @property
    def commas(self) -> bool:
        """Whether a column proves a decimal comma."""
        return "," in self._proofs

    def add(self, name: str, texts: Iterable[str]) -> None:
        """Take in cells of a column of numbers; one that has both marks proves nothing."""
        if not self._options.may_hold_numbers(name):
            return
        marks = _marks_of(texts, self._options, strict=False)
        if len(marks) == 1:
            mark, cell = marks.popitem()
            self._proofs.setdefault(mark, f"{cell!r} in column {name!r}")

    def add_point(self, name: str, fraction: str) -> None:
        """Take in a column whose cells were read as numbers with a decimal point.

        Args:
            name: Of the column.
            fraction: One of them; "" where all are whole.
        """
        if fraction and self._options.may_hold_numbers(name):
            self._proofs.setdefault(".", f"{fraction!r} in column {name!r}")

    def check(self, known: DecimalMark, origin: str) -> None:
        """Refuse a table whose columns prove two marks, or another one than is known.

        Raises:
            DataError: both cells are named.
        """
        proofs = {**self._proofs, **({known.sign: known.proof} if known.sign else {})}
        if len(proofs) == 2:
            found = "," if known.sign != "," else "."
            raise _contradicting(origin, proofs.pop(found), *proofs.values())


def one_mark(before: DecimalMark, here: DecimalMark, origin: str) -> DecimalMark:
    """The mark of tables under each other.

    Raises:
        DataError: it has another mark.
    """
    if before.sign and here.sign and before.sign != here.sign:
        raise _contradicting(origin, here.proof, before.proof)
    return before if before.sign or not here.sign else here


def _contradicting(origin: str, one: str, other: str) -> DataError:
    return DataError(
        f"{origin}: two decimal marks: {one} contradicts {other}, so one of them would be read wrong; name a "
        "column that holds no numbers in categorical= or drop=, or leave it out by columns="
    )


def said_decimal(options: ReadOptions, *, typed: bool = False) -> DecimalMark:
    """The decimal mark that the caller says.

    Args:
        options: How to read.
        typed: Whether the cells of numbers have types already.
    """
    if not options.said_decimal:
        return DecimalMark(typed=typed)
    said = "decimal" if options.decimal != "auto" else "thousands"
    return DecimalMark(options.said_decimal, f"{said}={getattr(options, said)!r}", typed)
