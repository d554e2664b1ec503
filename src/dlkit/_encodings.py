"""Which encoding bytes are text in: known by marks or by its letters, else guessed, and then said to be a guess."""

from __future__ import annotations

import codecs
import re
import unicodedata
import warnings
from typing import Any

import numpy as np

from dlkit._language import Message
from dlkit.errors import DataError

__all__ = ["Buffer", "detect_encoding", "find_encoding", "find_name_encoding", "first_bad_byte", "is_ascii"]

Buffer = Any  # bytes, mmap or memoryview: whatever numpy and Arrow read without a copy

_PIECE = 1 << 24
_MOST = 1 << 26  # bytes that are looked at, beyond the question whether all are UTF-8
_SAMPLE = 1 << 18
_MIXED = 1 << 21  # bytes in which lines of another encoding are looked for, which takes as long as all else together
_FEW = 8  # characters beyond ASCII that a language is not recognised by
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BEYOND = re.compile("[\x80-\x9f]")
_KANA = ("\u3041", "\u30fe")
# What files are in beside UTF-8; DOS, Macintosh and EBCDIC code pages would only win at random.
_LEGACY = [
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258", "koi8_r", "koi8_u"),
    *("cp874", "big5", "gb18030", "cp949", "cp932", "euc_jp"),
]
# Written in cp1250, of which cp1252 makes other letters that are as plausible one by one.
_CENTRAL = ("Croatian", "Czech", "Hungarian", "Polish", "Romanian", "Slovak", "Slovene")


def detect_encoding(data: Buffer, origin: str) -> str:
    """The codec that reads `data`, see `find_encoding`.

    Args:
        data: The file's bytes.
        origin: The file, for errors and warnings.

    Warns:
        UserWarning: the encoding is a guess; names it, and the next ones.

    >>> detect_encoding("가나다".encode("cp949"), "x")
    'cp949'
    """
    name, doubt = find_encoding(data, origin)
    if doubt is not None:
        warnings.warn(doubt, UserWarning, stacklevel=2)
    return name


def find_encoding(data: Buffer, origin: str) -> tuple[str, str | None]:
    """The codec of `data` by byte order mark, as UTF-8 or UTF-16, by Hangul or kana, else by a guess, which is told.

    UTF-8 is nearly impossible to hit by accident, so it goes first. cp949 (which contains euc-kr) is believed when the
    text then consists of Hangul, Shift-JIS and EUC-JP when it has kana, as all Japanese has. Everything else is the
    guess of charset-normalizer, among whose equals cp1252 goes first.

    Args:
        data: The file's bytes.
        origin: The file, for errors.

    >>> find_encoding("déjà".encode("latin-1"), "x.csv")[0]
    'cp1252'
    """
    head = bytes(data[:4096])
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name, None
    if (wide := _utf16_without_mark(head)) is not None:
        return wide, None
    bad = first_bad_byte(data)
    if bad is None:
        return "utf-8", None
    raw = _around(data, bad)
    if _mostly_utf8(raw):
        line = 1 + sum(bytes(data[at : min(at + _PIECE, bad)]).count(b"\n") for at in range(0, bad, _PIECE))
        raise DataError(
            f"{origin} is UTF-8 but for some damaged bytes, the first in line {line}; "
            "repair it, leave such lines out by encoding='utf-8' and on_error='skip', or give encoding='latin-1' (or "
            "what it is) to read it as it stands"
        )
    if 0 in raw:
        raise DataError(f"{origin} is neither UTF-8 nor marked as UTF-16 and holds zero bytes; give encoding=...")
    known = _by_script(raw)
    name, doubt = (known, None) if known is not None else _guessed(raw, origin)
    _refuse_mixture(raw[:_MIXED], name, origin)
    return name, doubt


def _around(data: Buffer, bad: int) -> bytes:
    """All bytes, or of very many the first ones and whole lines around one that is not UTF-8."""
    if len(data) <= _MOST:
        return bytes(data)
    half = _MOST // 2
    start = max(half, min(bad - half // 2, len(data) - half))
    piece = bytes(data[start : start + half])
    return bytes(data[:half]).rpartition(b"\n")[0] + piece[piece.find(b"\n") : piece.rfind(b"\n") + 1]


def _refuse_mixture(raw: bytes, name: str, origin: str) -> None:
    """A file whose lines are in several encodings can be read as latin-1, like any bytes, but would be garbage."""
    foreign = [(number, line) for number, line in enumerate(raw.split(b"\n"), 1) if not line.isascii()]
    for other, share in (("utf-8", 0.2 if name == "cp949" else 0.01), ("cp949", 0.5)):
        strangers = [number for number, line in foreign if not _is_of(line, other)]
        if other != name and len(foreign) - len(strangers) > share * len(foreign) and strangers:
            raise DataError(
                f"{origin}, line {strangers[0]}: not {other}, while {len(foreign) - len(strangers)} other lines are; "
                f"the file mixes encodings. Repair it, or read it with encoding={other!r} and on_error='skip'"
            )


def _is_of(line: bytes, encoding: str) -> bool:
    try:
        text = line.decode(encoding)
    except UnicodeDecodeError:
        return False
    # Two bytes of another encoding may look like one odd character of this one; a word of them is not an accident.
    foreign = [character for character in text if character > "\x7f"]
    return encoding != "cp949" or sum("가" <= character <= "힣" for character in foreign) > 0.7 * len(foreign)


def find_name_encoding(raw: bytes) -> tuple[str, bool]:
    """The codec of file names that do not say theirs, as in zip archives of Windows, and whether it is certain.

    UTF-8 where they are; the old standard, cp437, where they then consist of Latin letters; else Korean, Japanese,
    Russian as DOS wrote it, or what charset-normalizer guesses.

    Args:
        raw: All names, one a line.

    >>> find_name_encoding("강아지".encode("cp949")), find_name_encoding("été".encode("cp437"))
    (('cp949', False), ('cp437', True))
    """
    if first_bad_byte(raw) is None:
        return "utf-8", True
    if _letters(raw, "cp437", "LATIN"):
        return "cp437", True
    known = _by_script(raw) or ("cp866" if _letters(raw, "cp866", "CYRILLIC") else None)
    return known or _guessed(raw, "")[0], False


def _letters(raw: bytes, encoding: str, script: str) -> bool:
    return all(unicodedata.name(letter, "").startswith(script) for letter in _foreign(raw, encoding))


def is_ascii(data: Buffer) -> bool:
    """Whether no byte has its highest bit set; a pass at the speed of memory.

    Args:
        data: The bytes.
    """
    array = np.frombuffer(data, dtype=np.uint8)
    whole = len(array) // 8 * 8
    joined = np.bitwise_or.reduce(array[:whole].view(np.uint64), initial=0)
    return not int(joined) & 0x8080808080808080 and not bool((array[whole:] & 0x80).any())


def first_bad_byte(data: Buffer) -> int | None:
    """The place of the first byte that is not UTF-8.

    Args:
        data: The bytes.
    """
    if is_ascii(data):
        return None
    decoder = codecs.getincrementaldecoder("utf-8")()
    done = 0
    for start in range(0, len(data), _PIECE):
        piece = data[start : start + _PIECE]
        kept = len(decoder.getstate()[0])
        try:
            decoder.decode(bytes(piece), final=start + _PIECE >= len(data))
        except UnicodeDecodeError as error:
            return done - kept + error.start
        done += len(piece)
    return None


def _utf16_without_mark(head: bytes) -> str | None:
    """ASCII characters as UTF-16 have a zero in every second byte, which no other text has."""
    pairs = max(len(head) // 2, 1)
    if head[1::2].count(0) / pairs > 0.3 and head[::2].count(0) == 0:
        return "utf-16-le"
    if head[::2].count(0) / pairs > 0.3 and head[1::2].count(0) == 0:
        return "utf-16-be"
    return None


def _mostly_utf8(raw: bytes) -> bool:
    text = raw.decode("utf-8", "replace")
    strange = text.count("\ufffd")
    foreign = sum(1 for character in text if character > "\x7f")
    return foreign - strange >= 20 * strange


def _by_script(raw: bytes) -> str | None:
    """The encoding in which the text is Korean or Japanese: no other language decodes to their syllables."""
    korean = _foreign(raw, "cp949")
    # Shift-JIS decodes to the rare syllables, and EUC-JP to the single letters, that Korean hardly ever writes.
    common = {
        letter for letter in set(korean) if "가" <= letter <= "힣" and len(letter.encode("euc_kr", "ignore")) == 2
    }
    if korean and sum(letter in common for letter in korean) >= 0.7 * len(korean):
        return "cp949"
    shares = {name: _share(_foreign(raw, name), *_KANA) for name in ("cp932", "euc_jp")}
    best = max(shares, key=shares.__getitem__)
    return best if shares[best] >= 0.3 else None


def _foreign(raw: bytes, encoding: str) -> str:
    """The characters beyond ASCII; none where the bytes are not of that encoding at all."""
    try:
        return "".join(character for character in raw.decode(encoding) if character > "\x7f")
    except UnicodeDecodeError:
        return ""


def _share(text: str, first: str, last: str) -> float:
    return sum(first <= character <= last for character in text) / max(1, len(text))


def _guessed(raw: bytes, origin: str) -> tuple[str, str]:
    import charset_normalizer  # only guesses need it

    sample = raw if len(raw) <= _SAMPLE else raw[: raw.rfind(b"\n", 0, _SAMPLE) + 1] or raw[:_SAMPLE]
    # Bytes that are not letters of Windows are some of DOS; latin-1 has control characters there, which are not text.
    western = "cp1252" if _reads(raw, "cp1252") else "cp850"
    found = (
        list(charset_normalizer.from_bytes(sample, cp_isolation=_LEGACY))
        if sum(byte > 127 for byte in sample) >= _FEW
        else []
    )
    found = [match for match in found if match.encoding != "ascii" and _reads(raw, match.encoding)]
    names = [match.encoding for match in found]
    equals = [match for match in found if _as_good(match, found[0])]
    central = any(match.language in _CENTRAL for match in equals)
    if not found or (western in [match.encoding for match in equals] and not central):
        names.insert(0, western)
    guess, *others = dict.fromkeys([*names, western])
    more = Message(" ({names} would be possible, too)", names=", ".join(others[:4])) if others else ""
    told = Message(
        "{origin} does not say which encoding it has, and is read as {guess}{more}; look at its letters, then say so: "
        "encoding={guess!r}",
        origin=origin,
        guess=guess,
        more=more,
    )
    return guess, told


def _as_good(match: Any, best: Any) -> bool:
    return bool(match.chaos <= best.chaos and match.coherence >= best.coherence)


def _reads(raw: bytes, encoding: str) -> bool:
    """Whether bytes are text in an encoding; a control character beyond ASCII is a letter of another one."""
    try:
        return _BEYOND.search(raw.decode(encoding)) is None
    except (UnicodeDecodeError, LookupError):
        return False
