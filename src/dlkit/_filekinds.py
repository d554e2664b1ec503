"""What a file is by its first bytes, so that an error can say that the table is a PDF and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["HEAD", "FileKind", "kind_of", "told"]

#: So many bytes of a file's beginning are enough for every kind.
HEAD = 4096


@dataclass(frozen=True)
class FileKind:
    """A kind of file.

    Attributes:
        name: With its article: "a PDF document".
        advice: What to do where another kind was expected; may be empty.
        family: "document", "page", "pointer", "archive", "image", "table", "weights", "media" or "program".
    """

    name: str
    advice: str
    family: str


_EXPORT = "export the table or the text that is in it as CSV or .txt"
_UNPACK = "unpack it first, for example with dlkit.download.extract"
_PANDAS = "read it with pandas and give the DataFrame"
_SHEET = "save it as .xlsx or CSV first"
_PAGE = "perhaps the answer of a server in place of the file: open it in a browser, and download the file again"
_HTML = re.compile(
    rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body|script|title|meta|table)\b", re.I | re.S
)
_BZIP2 = re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)")  # "BZh" alone may begin a name
_OFFICE = {
    b"word/": "a Word document (.docx)",
    b"xl/": "an Excel workbook (.xlsx)",
    b"ppt/": "a PowerPoint presentation (.pptx)",
    b"opendocument.text": "an OpenDocument text (.odt)",
    b"opendocument.spreadsheet": "an OpenDocument spreadsheet (.ods)",
    b"opendocument.presentation": "an OpenDocument presentation (.odp)",
    b"epub+zip": "an EPUB book",
}


def _starts(*marks: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(marks)


def _at(place: int, *marks: bytes) -> Callable[[bytes], bool]:
    return lambda head: head[place:].startswith(marks)


def _box(*brands: bytes) -> Callable[[bytes], bool]:
    return lambda head: head[:2] == b"\x00\x00" and head[4:8] == b"ftyp" and head[8:].startswith(brands or b"")


def _riff(kind: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(b"RIFF") and head[8:12] == kind


def _binary(mark: bytes) -> Callable[[bytes], bool]:
    """A mark that is also the beginning of a word: text has no zero byte soon after it."""
    return lambda head: head.startswith(mark) and 0 in head[:64]


_KINDS: list[tuple[Callable[[bytes], bool], FileKind]] = [
    (_starts(b"%PDF-"), FileKind("a PDF document", _EXPORT, "document")),
    (_starts(b"{\\rtf"), FileKind("an RTF document", _EXPORT, "document")),
    (_starts(b"%!PS"), FileKind("a PostScript document", _EXPORT, "document")),
    (
        _starts(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
        FileKind(
            "an Office document of the old kind (.xls, .doc, .ppt)", f"a sheet: {_SHEET}; a text: {_EXPORT}", "document"
        ),
    ),
    (
        _starts(b"version https://git-lfs.github.com/spec/"),
        FileKind("a Git LFS pointer, which only names the file", "'git lfs pull' fetches the file itself", "pointer"),
    ),
    (
        _starts(b"/annex/objects/"),
        FileKind(
            "a git-annex pointer, which only names the file", "'git annex get' fetches the file itself", "pointer"
        ),
    ),
    (_starts(b"\x1f\x8b"), FileKind("a gzip file", _UNPACK, "archive")),
    (lambda head: _BZIP2.match(head) is not None, FileKind("a bzip2 file", _UNPACK, "archive")),
    (_starts(b"\xfd7zXZ\x00"), FileKind("an xz file", _UNPACK, "archive")),
    (_starts(b"\x28\xb5\x2f\xfd"), FileKind("a Zstandard file", "unpack it first with zstd -d", "archive")),
    (_starts(b"7z\xbc\xaf\x27\x1c"), FileKind("a 7-Zip archive", "unpack it first with 7z x", "archive")),
    (_starts(b"Rar!\x1a\x07"), FileKind("a RAR archive", "unpack it first with unrar x", "archive")),
    (_at(257, b"ustar"), FileKind("a tar archive", _UNPACK, "archive")),
    (_starts(b"ARROW1\x00\x00"), FileKind("an Arrow file", _PANDAS, "table")),
    (_binary(b"FEA1"), FileKind("a Feather file", _PANDAS, "table")),
    (_binary(b"Obj\x01"), FileKind("an Avro file", _PANDAS, "table")),
    (_starts(b"SQLite format 3\x00"), FileKind("an SQLite database", _PANDAS, "table")),
    (_starts(b"\x89HDF\r\n\x1a\n"), FileKind("an HDF5 file", "read it with h5py", "table")),
    (_binary(b"PAR1"), FileKind("a Parquet file", "", "table")),
    (_starts(b"\x93NUMPY"), FileKind("a NumPy array (.npy)", "read it with numpy.load", "table")),
    (_starts(b"\x89PNG\r\n\x1a\n"), FileKind("a PNG image", "", "image")),
    (_starts(b"\xff\xd8\xff"), FileKind("a JPEG image", "", "image")),
    (_starts(b"GIF87a", b"GIF89a"), FileKind("a GIF image", "", "image")),
    (_riff(b"WEBP"), FileKind("a WebP image", "", "image")),
    (_starts(b"II*\x00", b"MM\x00*"), FileKind("a TIFF image", "", "image")),
    (_binary(b"BM"), FileKind("a BMP image", "", "image")),
    (_binary(b"8BPS"), FileKind("a Photoshop image", "export it as PNG or JPEG", "image")),
    (_box(b"heic", b"heix", b"mif1"), FileKind("a HEIC image", "convert it to JPEG first", "image")),
    (_box(b"avif"), FileKind("an AVIF image", "", "image")),
    (_box(), FileKind("an MP4 or QuickTime video", "", "media")),
    (_riff(b"WAVE"), FileKind("a WAV sound", "", "media")),
    (_riff(b"AVI "), FileKind("an AVI video", "", "media")),
    (_starts(b"fLaC\x00", b"OggS\x00", b"ID3\x03\x00", b"ID3\x04\x00"), FileKind("a sound file", "", "media")),
    (_starts(b"\x7fELF"), FileKind("a program", "", "program")),
    (_binary(b"MZ"), FileKind("a Windows program", "", "program")),
    (
        lambda head: len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32,
        FileKind("a safetensors file", "", "weights"),
    ),
    (
        lambda head: head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"),
        FileKind("a Python pickle", "dlkit reads none, because opening one may run any program", "weights"),
    ),
    (lambda head: b"<svg" in head[:1024] and head.lstrip()[:1] == b"<", FileKind("an SVG drawing", "", "page")),
    (lambda head: _HTML.match(head.removeprefix(b"\xef\xbb\xbf")) is not None, FileKind("an HTML page", _PAGE, "page")),
    (_starts(b"<?xml", b"\xef\xbb\xbf<?xml"), FileKind("an XML document", _EXPORT, "page")),
]


def kind_of(head: bytes) -> FileKind | None:
    """The kind of a file that is unmistakable by its beginning; None for text, and for what is not known here.

    Args:
        head: The first bytes of the file, `HEAD` of them or all.

    >>> kind_of(b"%PDF-1.7 ...").name, kind_of(b"a,b")
    ('a PDF document', None)
    """
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_kind(head)
    return next((kind for fits, kind in _KINDS if fits(head)), None)


def _zip_kind(head: bytes) -> FileKind:
    for mark, name in _OFFICE.items():
        if mark in head:
            return FileKind(name, _SHEET if "sheet" in name or "Excel" in name else _EXPORT, "document")
    if b"[Content_Types].xml" in head[:64]:
        return FileKind("an Office document", _EXPORT, "document")
    if b"/data.pkl" in head[:256]:
        return FileKind("a file of PyTorch (.pt, .pth)", "", "weights")
    if b".npy" in head[:256]:
        return FileKind("NumPy arrays (.npz)", "read them with numpy.load", "table")
    return FileKind("a zip archive", _UNPACK, "archive")


def told(head: bytes, wanted: str) -> str:
    """What a file is in place of what was expected, for the end of an error's sentence; empty where that is unknown.

    Args:
        head: The first bytes of the file.
        wanted: With its article, such as "a table".

    >>> told(b"%PDF-1.7", "a table")
    'is a PDF document, not a table; export the table or the text that is in it as CSV or .txt'
    """
    kind = kind_of(head)
    if kind is None:
        return ""
    return f"is {kind.name}, not {wanted}" + (f"; {kind.advice}" if kind.advice else "")
