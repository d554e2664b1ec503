"""Text cells to numbers and booleans, in the ways people write them; each distinct text is looked at once."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from dlkit.reading.cells import Array, Numbers, Strings

__all__ = [
    "CODE",
    "DEFAULT_MISSING",
    "as_numbers",
    "boolean_words",
    "decimal_mark",
    "fitting_form",
    "is_code",
    "looks_like_number",
    "mostly_numbers",
    "number_format",
    "parse_number",
    "spelled",
    "truth_of",
    "under_mark",
    "without_marks",
]

#: What counts as missing in its own cell, blanks around it aside. An empty cell always does.
DEFAULT_MISSING = (
    "",
    "?",
    "-",
    "NA",
    "N/A",
    "n/a",
    "#N/A",
    "<NA>",
    "NaN",
    "nan",
    "NULL",
    "Null",
    "null",
    "None",
)

_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity|nan)", re.I | re.A)
_COMMA = re.compile(r"[+-]?(\d+,?\d*|,\d+)([eE][+-]?\d+)?", re.A)  # as Arrow reads numbers with a decimal comma
#: A code and not a quantity, see `is_code`, in any case of letters.
CODE = r"[+-]?0([0-9]+|x[0-9a-f]+)"
_CODE = re.compile(CODE, re.I | re.A)
_HAS_DIGIT = re.compile(r"\d|^[+-]?inf", re.I | re.A)
_GROUPED = {
    # "1,234.5"; "1 234.5" with the blanks that typesetters and Excel use; "1'234.5"; "1.234,5" and "0,5"
    # Nobody groups the digits of "0,545", so a comma in such a column is a decimal one.
    "thousands ,": (re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?", re.A), {",": None}),
    "thousands blank": (
        re.compile(r"[+-]?[1-9]\d{0,2}([ \u00a0\u202f]\d{3})+(\.\d*)?", re.A),
        dict.fromkeys(" \u00a0\u202f"),
    ),
    "thousands '": (re.compile(r"[+-]?[1-9]\d{0,2}(['\u2019]\d{3})+(\.\d*)?", re.A), dict.fromkeys("'\u2019")),
    "decimal ,": (
        re.compile(
            r"[+-]?(\d{1,3}(?P<by>[. \u00a0\u202f'\u2019])\d{3}((?P=by)\d{3})*|\d+|(?=,\d))(,\d*)?([eE][+-]?\d+)?",
            re.A,
        ),
        dict.fromkeys(". \u00a0\u202f'\u2019") | {",": "."},
    ),
}
_FORMS = ("plain", *_GROUPED)
_SIGNS = "€$£¥₩₹₽%‰"  # one of them may stand before or after every number of a column
_TABLES = {name: str.maketrans(change) for name, (_, change) in _GROUPED.items()}

_LONGEST = 300  # letters of a whole number
_FEW_VALUES = 20  # different numbers, up to which they may be names
_FEW_ODD = 0.05  # of the rows, up to which cells that are not numbers are mistakes


_BOOLEANS = (("false", "true"), ("f", "t"), ("no", "yes"), ("n", "y"), ("off", "on"))


def is_code(text: str) -> bool:
    """Whether `text` is a code and not a quantity: `01234`, or `0x1F`, which Arrow would take for 31."""
    return _CODE.fullmatch(text) is not None


def without_marks(strings: Sequence[str], missing: Collection[str]) -> list[str | None]:
    """Each string as it is compared, see `spelled`; None where it is a missing mark.

    Args:
        strings: As they were read.
        missing: Missing marks.
    """
    return [None if (text := spelled(string)) == "" or text in missing else text for string in strings]


def spelled(string: str) -> str:
    """A name as it is compared: without blanks around it and in Unicode's NFC.

    Programs and file systems spell one name in two ways, a letter with its accent as one character or as two.

    Args:
        string: As it was read.
    """
    text = string.strip()
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def fitting_form(texts: Collection[str], form: str, decimal: str) -> str:
    """A spec's way of writing numbers, unless this file plainly has another one; a sign may change what is meant.

    Args:
        texts: Those of the column in this file, missing marks left out.
        form: The spec's, see `number_format`.
        decimal: The decimal mark of this file; "" where nothing tells.
    """
    form = under_mark(form, decimal)
    if form != "plain":
        return form
    found = number_format(list(texts), decimal)
    return form if found is None or found[-1] in _SIGNS else found


def under_mark(form: str, decimal: str) -> str:
    """A form of numbers in a file with this decimal mark: behind a decimal comma "1.234" is a thousand.

    Args:
        form: See `number_format`.
        decimal: The decimal mark of the file; "" where nothing tells, and the form stays.

    >>> under_mark("plain", ","), under_mark("decimal , €", "."), under_mark("plain", ".")
    ('decimal ,', 'thousands , €', 'plain')
    """
    bare, sign = (form[:-2], form[-2:]) if form[-1] in _SIGNS else (form, "")
    if decimal == "," and bare in ("plain", "thousands ,"):
        return f"decimal ,{sign}"
    return f"thousands ,{sign}" if decimal == "." and bare == "decimal ," else form


def boolean_words(values: Collection[str]) -> bool:
    """Whether values are one pair of words for false and true, in any case of letters."""
    if not 2 <= len(values) <= 6:  # both words, in at most three spellings each
        return False
    return {value.lower() for value in values} in [set(pair) for pair in _BOOLEANS]


def truth_of(text: str) -> float | None:
    """A word for false or true, in any case of letters, as 0 or 1; None for anything else.

    Args:
        text: Without blanks around it.
    """
    word = text.lower()
    for false, true in (*_BOOLEANS, ("0", "1"), ("0.0", "1.0")):
        if word in (false, true):
            return float(word == true)
    return None


def number_format(values: Sequence[str], decimal: str = "") -> str | None:
    """How all of `values` are written as numbers: "plain", a name with the separator in it, or None.

    A sign that every value has, such as € or %, follows the name; the number before "%" stays unchanged there.

    Args:
        values: Texts, missing marks left out.
        decimal: The decimal mark of their file; "" where nothing tells.

    >>> number_format(["1,234", "12"]), number_format(["0,5"]), number_format(["x"]), number_format(["01"])
    ('thousands ,', 'decimal ,', None, None)
    >>> number_format(["€1,234.50", "€12"]), number_format(["3 %", "5 $"]), number_format(["1.234"], ",")
    ('thousands , €', None, 'decimal ,')
    """
    if not all(_HAS_DIGIT.search(text) for text in spread(values)):
        return None  # most columns of text are recognised by a few cells
    if not values or any(_CODE.fullmatch(text) for text in values):
        return None
    if sign := next((sign for sign in _SIGNS if sign in values[0]), ""):
        bare = [_without(text, sign) for text in values]
        form = _format([text for text in bare if text is not None], decimal) if None not in bare else None
        return None if form is None else f"{form} {sign}"
    return _format(values, decimal)


def _without(text: str, sign: str) -> str | None:
    return text.replace(sign, "").strip() if text.count(sign) == 1 else None


def _format(values: Sequence[str], decimal: str) -> str | None:
    if decimal == "," and any("," in text or "." in text for text in values) and _comma_decimals(values):
        return "decimal ,"
    odd = [text for text in values if not _PLAIN.fullmatch(text)]
    if not odd:
        return "plain"
    for name, (pattern, _) in _GROUPED.items():
        if all(pattern.fullmatch(text) for text in odd) and (name != "decimal ," or _comma_decimals(values)):
            return name
    return None


def mostly_numbers(counts: Mapping[str, int], decimal: str = "") -> str | None:
    """The form of a column of numbers with a few cells that are none, or None where it is not such a column.

    Few numbers that differ, as in "0", "1", "2", "3+", are names of categories like any others.

    Args:
        counts: Rows by text, missing marks left out.
        decimal: The decimal mark of their file; "" where nothing tells.

    >>> cells = {f"{i / 4}": 1 for i in range(100)}
    >>> mostly_numbers(cells | {"unknown": 2}), mostly_numbers(cells | {"unknown": 20})
    ('plain', None)
    """
    few = spread(list(counts))
    if sum(map(looks_like_number, few)) < 0.8 * len(few) or any(map(_CODE.fullmatch, counts)):
        return None  # as most columns of text
    signs = {sign: sum(rows for text, rows in counts.items() if sign in text) for sign in _SIGNS}
    sign = max(signs, key=signs.__getitem__)
    ending = f" {sign}" if 2 * signs[sign] > sum(counts.values()) else ""
    forms = dict.fromkeys([under_mark("plain", decimal), *_FORMS])
    read = {form: [text for text in counts if parse_number(text, form + ending) is not None] for form in forms}
    form = max(read, key=lambda form: len(read[form]))
    odd = sum(counts.values()) - sum(counts[text] for text in read[form])
    fits = len(read[form]) > _FEW_VALUES and odd <= _FEW_ODD * sum(counts.values())
    return form + ending if fits else None


def looks_like_number(text: str) -> bool:
    """Whether a text is a number in some form, with or without a sign such as €.

    Args:
        text: Without blanks around it.
    """
    bare = text.strip(_SIGNS + " ") if text[:1] in _SIGNS or text[-1:] in _SIGNS else text
    return _PLAIN.fullmatch(bare) is not None or any(pattern.fullmatch(bare) for pattern, _ in _GROUPED.values())


def decimal_mark(text: str, thousands: str = "auto") -> str:
    """The decimal mark that a number proves: "," or "."; "" where it has none, or could be read with both.

    Args:
        text: A number, see `looks_like_number`.
        thousands: What groups digits in its file, where that is known.

    >>> decimal_mark("0,545"), decimal_mark("1.5"), decimal_mark("1.234"), decimal_mark("1.234", " ")
    (',', '.', '', '.')
    """
    bare = text.strip(_SIGNS + " ")
    if "," not in bare and "." not in bare:
        return ""
    comma = _GROUPED["decimal ,"][0].fullmatch(bare) is not None
    point = _PLAIN.fullmatch(bare) is not None or any(
        pattern.fullmatch(bare) for name, (pattern, _) in _GROUPED.items() if name != "decimal ,"
    )
    if comma and point and thousands in (" ", "'"):
        return "," if "," in bare else "."
    return "" if comma == point else "," if comma else "."


def _comma_decimals(values: Sequence[str]) -> bool:
    """With commas as decimals, a point may only group thousands: "1.5" beside "0,5" is not a number format."""
    pattern = _GROUPED["decimal ,"][0]
    return all(pattern.fullmatch(text) for text in values)


def spread(values: Sequence[str], count: int = 50) -> Sequence[str]:
    return values[:: max(1, len(values) // count)]


def parse_number(text: str, form: str) -> float | int | None:
    """A number written in a form of `number_format`, or plainly; None where it is neither.

    Args:
        text: Without blanks around it.
        form: See `number_format`.
    """
    if form[-1] in _SIGNS:
        bare = _without(text, form[-1])
        return None if bare is None else parse_number(bare, form[:-2])
    if form != "decimal ," and _PLAIN.fullmatch(text):
        return _plain_number(text)
    if form in _GROUPED and _GROUPED[form][0].fullmatch(text):
        return _plain_number(text.translate(_TABLES[form]))
    return _plain_number(text) if _PLAIN.fullmatch(text) else None


def _plain_number(text: str) -> float | int:
    if len(text) > _LONGEST:  # more digits than a float has room for, or than Python makes an integer of
        return float(text)
    try:
        return int(text)
    except ValueError:
        return float(text)


def as_numbers(cells: Strings, form: str, missing: Collection[str]) -> tuple[Numbers, Array]:
    """Text as numbers, and which strings of the pool are neither a number nor a missing mark (bool [len(pool)]).

    Args:
        cells: The column.
        form: "boolean", or a form of `number_format`.
        missing: Missing marks.
    """
    parse: Callable[[str], Any] = truth_of if form == "boolean" else lambda text: parse_number(text, form)
    texts = without_marks(cells.pool.tolist(), missing)
    parsed = [None if text is None else parse(text) for text in texts]
    for place in cells.typed if form != "boolean" else ():
        parsed[place] = parse_number(texts[place] or "", "plain")
    bad = np.array([value is None and text is not None for value, text in zip(parsed, texts, strict=True)], dtype=bool)
    used = cells.counts() > 0
    whole = all(type(value) is int and abs(value) < 1 << 63 for value, use in zip(parsed, used, strict=True) if use)
    if whole and form != "boolean" and not (cells.codes < 0).any():
        integers = [value if type(value) is int and abs(value) < 1 << 63 else 0 for value in parsed]
        return Numbers(cells.mapped(integers, 0, np.int64)), bad & used
    floats = [np.nan if value is None else float(value) for value in parsed]
    return Numbers(cells.mapped(floats, np.nan, np.float64)), bad & used


def arrow_reads(texts: Sequence[str], decimal: str) -> bool:
    """Whether Arrow takes all texts for numbers.

    Args:
        texts: Missing marks left out.
        decimal: The decimal mark that it is told.
    """
    pattern = _COMMA if decimal == "," else _PLAIN
    return number_format(texts) in ("plain", "decimal ,") and all(pattern.fullmatch(text) for text in texts)


def exceeds_float(values: Array) -> bool:
    """Whether some numbers may be whole ones of 54 to 64 bits that were rounded, as long identifiers are.

    Args:
        values: As they were read.
    """
    if values.dtype.kind != "f":
        return False
    if not len(values) or max(-values.min(), values.max()) < 2**53:  # not so where some are missing
        return False
    with np.errstate(invalid="ignore"):
        sizes = np.abs(values)
        return bool(((sizes >= 2**53) & (sizes < 2**64)).any())


def whole_numbers(values: Array) -> bool:
    """Whether no number has a fraction; missing ones do not count."""
    finite = values[np.isfinite(values)]
    return bool((finite == np.floor(finite)).all())
