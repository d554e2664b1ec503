"""`extract` against archives that lie, climb, link, burst and break off; whatever comes, all of it or nothing."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import random
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from disks import as_nobody, open_folder, small_disk
from dlkit.download import DownloadLimits, extract
from dlkit.download.archives import _name_problem
from dlkit.errors import ArchiveError, ArgumentError, DataNotFoundError, DownloadError, UnsafeArchiveError

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".tar": bytes,
    ".tar.gz": gzip.compress,
    ".tgz": gzip.compress,
    ".tar.bz2": bz2.compress,
    ".tar.xz": lzma.compress,
}
Entry = tuple[str, str, Any]  # name; kind; content, or target of a link


def make_tar(entries: list[Entry], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A plain tar with exactly these members, good or bad."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, kind, content in entries:
            info = tarfile.TarInfo(name)
            info.type = {
                "file": tarfile.REGTYPE,
                "folder": tarfile.DIRTYPE,
                "symlink": tarfile.SYMTYPE,
                "hardlink": tarfile.LNKTYPE,
                "fifo": tarfile.FIFOTYPE,
                "character": tarfile.CHRTYPE,
                "block": tarfile.BLKTYPE,
                "unknown": b"Z",
            }[kind]
            if kind in ("symlink", "hardlink"):
                info.linkname = content
            data = content if kind == "file" else b""
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def make_zip(entries: list[Entry], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip with exactly these members, good or bad."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, kind, content in entries:
            info = zipfile.ZipInfo("x")
            info.filename = info.orig_filename = name + ("/" if kind == "folder" else "")
            info.create_system = 3
            info.compress_type = compression
            modes = {"file": stat.S_IFREG, "folder": stat.S_IFDIR, "symlink": stat.S_IFLNK, "fifo": stat.S_IFIFO}
            info.external_attr = (modes.get(kind, stat.S_IFCHR) | 0o644) << 16
            data = content if kind == "file" else str(content or "").encode()
            file.writestr(info, data)
    return buffer.getvalue()


def make(suffix: str, entries: list[Entry]) -> bytes:
    return make_zip(entries) if suffix == ".zip" else PACKERS[suffix](make_tar(entries))


def put(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def tree(folder: Path) -> dict[str, Any]:
    """Everything in the folder: the bytes of files, the targets of links, None for folders."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = None if path.is_dir() else path.read_bytes()
    return found


def names(folder: Path) -> list[str]:
    """What lies in the folder, lock files left out."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def refuses(archive: Path, text: str, error: type[ArchiveError] = UnsafeArchiveError, **options: Any) -> None:
    """The archive is refused in these words, and nothing of it is left."""
    before = names(archive.parent)
    with pytest.raises(error, match=text) as caught:
        extract(archive, archive.parent / "out", **options)
    assert str(archive) in str(caught.value)
    assert names(archive.parent) == before


GOOD: list[Entry] = [
    ("./", "folder", None),
    ("./a.txt", "file", b"hello"),
    ("empty", "folder", None),
    ("deep/er/b.bin", "file", bytes(range(256)) * 9),
    ("deep//./c", "file", b""),
    ("한글/" + "long" * 40, "file", b"long"),
]
GOOD_TREE = {
    "a.txt": b"hello",
    "empty": None,
    "deep": None,
    "deep/er": None,
    "deep/er/b.bin": bytes(range(256)) * 9,
    "deep/c": b"",
    "한글": None,
    "한글/" + "long" * 40: b"long",
}


# ---- good archives


@pytest.mark.parametrize("suffix", [*PACKERS, ".zip"])
def test_good_archives_come_out_as_they_are(tmp_path: Path, suffix: str) -> None:
    archive = put(tmp_path, f"good{suffix}", make(suffix, GOOD))
    to = tmp_path / "new" / "out"
    assert extract(archive, to) == to
    assert tree(to) == GOOD_TREE
    assert names(tmp_path / "new") == ["out"]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_dialect_of_tar(tmp_path: Path, form: int) -> None:
    entries = [entry for entry in GOOD if form != tarfile.USTAR_FORMAT or len(entry[0]) < 100]
    extract(put(tmp_path, "x.tar", make_tar(entries, form)), tmp_path / "out")
    assert (tmp_path / "out" / "deep" / "er" / "b.bin").read_bytes() == bytes(range(256)) * 9


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_compression_of_zip(tmp_path: Path, compression: int) -> None:
    extract(put(tmp_path, "x.zip", make_zip(GOOD, compression)), tmp_path / "out")
    assert tree(tmp_path / "out") == GOOD_TREE


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".XZ", lzma.compress)])
def test_a_single_packed_file(tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    content = random.Random(1).randbytes(1_200_000)  # more than is unpacked at once
    extract(put(tmp_path, f"data.idx{suffix}", pack(content)), tmp_path / "out")
    assert tree(tmp_path / "out") == {"data.idx": content}


def test_the_content_says_what_it_is(tmp_path: Path) -> None:
    extract(put(tmp_path, "is-a.zip", gzip.compress(make_tar(GOOD))), tmp_path / "tar")
    extract(put(tmp_path, "is-a.tar.gz", make_zip(GOOD)), tmp_path / "zip")
    assert tree(tmp_path / "tar") == tree(tmp_path / "zip") == GOOD_TREE
    zeros = put(tmp_path, "zeros.gz", gzip.compress(bytes(10_240)))  # what an empty tar looks like
    assert tree(extract(zeros, tmp_path / "single")) == {"zeros": bytes(10_240)}


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".zip"])
def test_an_empty_archive_is_an_empty_folder(tmp_path: Path, suffix: str) -> None:
    assert tree(extract(put(tmp_path, f"empty{suffix}", make(suffix, [])), tmp_path / "out")) == {}


def test_links_that_stay_inside(tmp_path: Path) -> None:
    entries: list[Entry] = [
        ("sub/up", "symlink", "../a.txt"),  # before what it points to
        ("sub", "folder", None),
        ("a.txt", "file", b"hello"),
        ("chain", "symlink", "./sub/up"),
        ("door", "symlink", "sub"),
        ("around", "symlink", "door/../sub/.."),
        ("dangling", "symlink", "sub/later"),
        ("copy", "hardlink", "./a.txt"),
    ]
    out = extract(put(tmp_path, "x.tar", make_tar(entries)), tmp_path / "out")
    assert (out / "chain").read_text() == (out / "sub" / "up").read_text() == (out / "copy").read_text() == "hello"
    assert (out / "around").resolve() == out.resolve()
    assert not (out / "dangling").exists()
    assert not (out / "copy").samefile(out / "a.txt")
    out = extract(put(tmp_path, "x.zip", make_zip(entries[:-1])), tmp_path / "zip")
    assert (out / "chain").read_text() == "hello"


@pytest.mark.skipif(sys.platform == "win32", reason="no POSIX rights")
@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_rights_are_those_of_new_files(tmp_path: Path, suffix: str) -> None:
    buffer = io.BytesIO()
    modes = {"plain": 0o600, "run": 0o755, "root": 0o6777, "none": 0o000}
    if suffix == ".tar":
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, mode in modes.items():
                info = tarfile.TarInfo(name)
                info.mode = mode
                tar.addfile(info)
    else:
        with zipfile.ZipFile(buffer, "w") as file:
            for name, mode in modes.items():
                member = zipfile.ZipInfo(name)
                member.external_attr = (stat.S_IFREG | mode) << 16
                file.writestr(member, "")
    was = os.umask(0o027)
    try:
        out = extract(put(tmp_path, f"x{suffix}", buffer.getvalue()), tmp_path / "out")
    finally:
        os.umask(was)
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()}
    assert found == {"plain": 0o640, "run": 0o750, "root": 0o750, "none": 0o640}
    assert stat.S_IMODE(out.stat().st_mode) == 0o750


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_two_files_with_one_name_the_later_wins(tmp_path: Path, suffix: str) -> None:
    entries: list[Entry] = [("a", "file", b"a longer first"), ("b", "file", b"b"), ("./a", "file", b"second")]
    assert tree(extract(put(tmp_path, f"x{suffix}", make(suffix, entries)), tmp_path / "out"))["a"] == b"second"


def test_the_later_file_does_not_inherit_the_right_to_run(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for mode in (0o755, 0o644):
            info = tarfile.TarInfo("a")
            info.mode = mode
            tar.addfile(info)
    out = extract(put(tmp_path, "x.tar", buffer.getvalue()), tmp_path / "out")
    assert not os.access(out / "a", os.X_OK)


def test_a_copy_of_a_file_keeps_its_content_when_that_is_replaced(tmp_path: Path) -> None:
    entries: list[Entry] = [("a", "file", b"first"), ("copy", "hardlink", "a"), ("a", "file", b"second")]
    assert tree(extract(put(tmp_path, "x.tar", make_tar(entries)), tmp_path / "out")) == {
        "a": b"second",
        "copy": b"first",
    }


# ---- names


def legacy_zip(names: list[str], encoding: str) -> bytes:
    """A zip as Windows writes it: names in a code page, and no mark that says so."""
    content = io.BytesIO()
    stand_ins = [f"{number:<{len(name.encode(encoding))}}".replace(" ", "_") for number, name in enumerate(names)]
    with zipfile.ZipFile(content, "w") as file:
        for stand_in in stand_ins:
            file.writestr(stand_in, "1")
    data = content.getvalue()
    for stand_in, name in zip(stand_ins, names, strict=True):
        data = data.replace(stand_in.encode(), name.encode(encoding))
    return data


@pytest.mark.parametrize(
    ("encoding", "names"),
    [
        ("cp949", ["강아지/귀여운 강아지.txt", "고양이/1.txt"]),
        ("cp932", ["いぬ/こいぬの写真.txt", "ねこ/1.txt"]),
        ("cp866", ["собака/щенок.txt", "кошка/1.txt"]),
    ],
)
def test_names_in_the_code_page_of_a_country(tmp_path: Path, encoding: str, names: list[str]) -> None:
    archive = put(tmp_path, "x.zip", legacy_zip(names, encoding))
    with pytest.warns(UserWarning, match=rf"is read as {encoding} .*extract\(\.\.\., encoding="):
        found = extract(archive, tmp_path / "out")
    assert sorted(tree(found)) == sorted({*names, *(name.split("/")[0] for name in names)})
    assert sorted(tree(extract(archive, tmp_path / "said", encoding=encoding))) == sorted(tree(found))


@pytest.mark.parametrize("encoding", ["utf-8", "cp437"])
def test_names_that_leave_no_doubt(tmp_path: Path, encoding: str) -> None:
    archive = put(tmp_path, "x.zip", legacy_zip(["été/Über uns.txt"], encoding))
    assert sorted(tree(extract(archive, tmp_path / "out"))) == ["été", "été/Über uns.txt"]
    with pytest.raises(ArchiveError, match="damaged, cut off or of a kind that is not supported"):
        extract(archive, tmp_path / "wrong", encoding="ascii")
    with pytest.raises(ArgumentError, match="is not an encoding"):
        extract(archive, tmp_path / "wrong", encoding="klingon")


def test_backslashes_of_windows_are_folders(tmp_path: Path) -> None:
    made = make_zip([("animals\\dog\\1.txt", "file", b"1"), ("animals\\cat\\", "folder", None)])
    found = tree(extract(put(tmp_path, "x.zip", made), tmp_path / "out"))
    assert found == {"animals": None, "animals/dog": None, "animals/dog/1.txt": b"1", "animals/cat": None}


def test_the_archives_of_the_report(tmp_path: Path) -> None:
    cases = Path(__file__).resolve().parents[1].parent / "shared" / "cases"
    if not cases.is_dir():
        pytest.skip(f"the small inputs that were read wrong are not at {cases}")
    with pytest.warns(UserWarning, match="cp949"):
        assert set(tree(extract(cases / "names_cp949.zip", tmp_path / "a"))) == {"강아지", "강아지/1.txt"}
    assert {"animals/dog/1.txt", "animals/cat/1.txt"} < set(tree(extract(cases / "backslash.zip", tmp_path / "b")))


# ---- hostile archives


def test_the_collected_nasty_archives(tmp_path: Path, shared_data: Path) -> None:
    archives = sorted((shared_data / "nasty" / "archives").iterdir())
    assert len(archives) >= 10
    for archive in archives:
        with pytest.raises(UnsafeArchiveError, match=r"was not unpacked: its member '.+' (has|is|would)"):
            extract(archive, tmp_path / "out")
    assert names(tmp_path) == []


BAD_NAMES = {
    "/abs": "an absolute path",
    "//server/share": "an absolute path",
    "../evil": "through '..'",
    "a/../../evil": "through '..'",
    "a/..": "through '..'",
    "..": "through '..'",
    "C:/evil": "a Windows drive",
    "./c:evil": "a Windows drive",
    "..\\evil": "a backslash",
    "a\\b": "a backslash",
    "\\\\server\\share": "a backslash",
    "a/" * 101 + "b": "more than 100 folders deep",
}


KINDS = [(".zip", kind) for kind in ("file", "folder", "symlink")]
KINDS += [(".tar", kind) for kind in ("file", "folder", "symlink", "hardlink")]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize(("suffix", "kind"), KINDS)
def test_names_that_lead_elsewhere(tmp_path: Path, suffix: str, kind: str, name: str) -> None:
    content = {"file": b"evil", "folder": None}.get(kind, "good")
    archive = put(tmp_path, f"x{suffix}", make(suffix, [("good", "file", b"good"), (name, kind, content)]))
    in_zip = {"a\\b": "", "..\\evil": "through '..'", "\\\\server\\share": "an absolute path"}  # as Windows writes it
    if problem := in_zip.get(name, BAD_NAMES[name]) if suffix == ".zip" else BAD_NAMES[name]:
        refuses(archive, problem)
    else:
        assert extract(archive, tmp_path / "out").is_dir()


def test_the_member_is_named_in_full_or_shortened(tmp_path: Path) -> None:
    refuses(put(tmp_path, "x.tar", make_tar([("../evil", "file", b"")])), r"its member '\.\./evil' would leave")
    with pytest.raises(UnsafeArchiveError) as caught:
        extract(put(tmp_path, "y.tar", make_tar([("../" + "e" * 5000, "file", b"")])), tmp_path / "out")
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


@pytest.mark.parametrize("name", ["", ".", "./."])
def test_a_member_without_a_name(tmp_path: Path, name: str) -> None:
    refuses(put(tmp_path, "x.zip", make_zip([(name, "symlink", "good")])), "stands for the folder itself")
    refuses(put(tmp_path, "x.tar", make_tar([(name, "file", b"")])), "stands for the folder itself")


def test_a_nul_in_a_name_of_a_zip(tmp_path: Path) -> None:
    content = make_zip([("goodXevil", "file", b"")]).replace(b"goodXevil", b"good\0evil")
    refuses(put(tmp_path, "x.zip", content), r"'good\\x00evil' has a NUL")


@pytest.mark.parametrize("kind", ["fifo", "character", "block", "unknown"])
@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_special_files(tmp_path: Path, suffix: str, kind: str) -> None:
    archive = put(tmp_path, f"x{suffix}", make(suffix, [("strange", kind, None)]))
    refuses(archive, "its member 'strange' is a device, a pipe")


BAD_LINKS: dict[str, list[Entry]] = {
    "absolute": [("l", "symlink", "/etc")],
    "drive": [("l", "symlink", "C:/windows")],
    "backslash": [("l", "symlink", "..\\evil")],
    "parent": [("l", "symlink", "..")],
    "sibling": [("l", "symlink", "../x.tar")],
    "out and in again": [("l", "symlink", "../.out.unpacking/a")],
    "beyond a folder": [("a/l", "symlink", "../../evil")],
    "beyond a missing folder": [("l", "symlink", "missing/../../evil")],
    "chain": [("a", "symlink", "b"), ("b", "symlink", "c"), ("c", "symlink", "../evil")],
    "through a link": [("root", "symlink", "."), ("l", "symlink", "root/..")],
    "through a deep link": [("d/e", "folder", None), ("d/e/up", "symlink", "../.."), ("l", "symlink", "d/e/up/../x")],
    "through a later link": [("l", "symlink", "a/b/../../x"), ("a", "symlink", ".")],
    "circle": [("a", "symlink", "b"), ("b", "symlink", "a")],
    "itself": [("a", "symlink", "a")],
}


@pytest.mark.parametrize("case", BAD_LINKS)
@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_links_that_leave_the_folder(tmp_path: Path, suffix: str, case: str) -> None:
    archive = put(tmp_path, f"x{suffix}", make(suffix, [("good", "file", b""), *BAD_LINKS[case]]))
    refuses(archive, r"its member '.*' is a link (that leaves|to)")


THROUGH_LINKS: dict[str, list[Entry]] = {
    "file in its place": [("l", "symlink", "good"), ("l", "file", b"evil")],
    "file behind it": [("l", "symlink", "folder"), ("l/f", "file", b"evil")],
    "folder in its place": [("l", "symlink", "folder"), ("l", "folder", None)],
    "folder behind it": [("l", "symlink", "folder"), ("l/f/g", "folder", None)],
    "link behind it": [("l", "symlink", "folder"), ("l/m", "symlink", "x")],
    "link in its place": [("l", "symlink", "folder"), ("./l", "symlink", "good")],
    "link in place of a file": [("good", "symlink", "folder")],
    "link in place of a folder": [("folder", "symlink", "good")],
}


@pytest.mark.parametrize("case", THROUGH_LINKS)
@pytest.mark.parametrize("suffix", [".tar", ".zip"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_nothing_is_written_through_a_link(tmp_path: Path, suffix: str, case: str) -> None:
    entries: list[Entry] = [("good", "file", b"good"), ("folder/x", "file", b"x"), *THROUGH_LINKS[case]]
    refuses(put(tmp_path, f"x{suffix}", make(suffix, entries)), "(through a link|is a link where another member)")


@pytest.mark.parametrize("target", ["/etc/passwd", "../x.tar", "missing", "copy", "folder", "soft", "C:good", "..\\x"])
def test_hard_links_to_what_is_no_file_of_the_archive(tmp_path: Path, target: str) -> None:
    entries: list[Entry] = [("folder", "folder", None), ("soft", "symlink", "x"), ("copy", "hardlink", target)]
    refuses(
        put(tmp_path, "x.tar", make_tar(entries)), "its member 'copy' is a hard link to .* not a file that came before"
    )


def test_a_hard_link_from_a_file_to_itself(tmp_path: Path) -> None:
    entries: list[Entry] = [("a", "file", b"content"), ("a", "hardlink", "./a")]
    refuses(put(tmp_path, "x.tar", make_tar(entries)), "'a' is a hard link to './a'")


CLASHES: dict[str, list[Entry]] = {
    "file then folder": [("a", "file", b""), ("a", "folder", None)],
    "folder then file": [("a", "folder", None), ("a", "file", b"")],
    "file then file below": [("a", "file", b""), ("a/b", "file", b"")],
    "folder then hard link": [("b", "file", b""), ("a", "folder", None), ("a", "hardlink", "b")],
}


@pytest.mark.parametrize("case", CLASHES)
def test_file_and_folder_of_one_name(tmp_path: Path, case: str) -> None:
    refuses(put(tmp_path, "x.tar", make_tar(CLASHES[case])), "where another member is already")


def test_names_that_differ_in_capitals_where_the_disk_takes_them_for_one(tmp_path: Path) -> None:
    (tmp_path / ".OUT.UNPACKING").touch()  # such a disk answers to this name, too
    archive = put(tmp_path, "x.tar", make_tar([("a", "file", b"1"), ("a", "file", b"2")]))
    refuses(archive, "its member 'a' is where another member is already")


@pytest.mark.parametrize("name", ["con", "a/NUL.txt", "com1", "a.", "b ", "a/x:stream"])
def test_names_that_mean_something_else_on_windows(name: str) -> None:
    assert "Windows" in _name_problem(name, windows=True)
    assert _name_problem(name, windows=False) == ""


@pytest.mark.parametrize("name", ["console", "nulls/a", ".hidden", "a..b", "..a", "a b", "한글"])
def test_names_that_only_look_strange(name: str) -> None:
    assert _name_problem(name, windows=True) == ""


# ---- too much


def test_bytes_are_counted_over_all_files(tmp_path: Path) -> None:
    entries: list[Entry] = [("a", "file", bytes(60)), ("b", "hardlink", "a"), ("c", "file", bytes(40))]
    archive = put(tmp_path, "x.tar", make_tar(entries))
    refuses(archive, r"'c' goes beyond max_bytes=159; if you trust the archive", limits=DownloadLimits(max_bytes=159))
    extract(archive, tmp_path / "out", limits=DownloadLimits(max_bytes=160))


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.xz", ".zip", ".gz"])
def test_a_bomb_is_stopped_while_it_bursts(tmp_path: Path, suffix: str) -> None:
    content = (
        gzip.compress(bytes(50_000_000), 1) if suffix == ".gz" else make(suffix, [("b", "file", bytes(50_000_000))])
    )
    archive = put(tmp_path, f"b{suffix}", content)
    assert archive.stat().st_size < 500_000
    refuses(archive, "'b' goes beyond max_bytes=1000000", limits=DownloadLimits(max_bytes=1_000_000))


def test_members_are_counted_with_the_folders_they_need(tmp_path: Path) -> None:
    entries: list[Entry] = [
        ("a/b/c", "file", b""),
        ("a/b", "folder", None),
        ("l", "symlink", "a"),
        ("d", "folder", None),
    ]
    archive = put(tmp_path, "x.tar", make_tar(entries))
    refuses(archive, "'d' goes beyond max_members=4", limits=DownloadLimits(max_members=4))
    extract(archive, tmp_path / "out", limits=DownloadLimits(max_members=5))


@pytest.mark.parametrize("wrong", [{"max_bytes": 0}, {"max_members": -1}, {"max_bytes": 1e9}, {"max_members": True}])
def test_limits_are_checked_where_they_are_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=f"DownloadLimits: {next(iter(wrong))} must be a whole number"):
        DownloadLimits(**wrong)


def header(name: str, kind: bytes, size: bytes) -> bytes:
    """A tar header with a size field of one's own."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
    block[124:136], block[148:157] = size.ljust(12, b"\0"), b" " * 8 + kind
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def test_a_header_that_claims_to_be_huge_is_not_read_into_memory(tmp_path: Path) -> None:
    before = make_tar([("first", "file", b"1")])[:1024]
    for kind in (b"x", b"L", b"g"):
        content = before + header("long", kind, b"%011o" % 40_000_000) + bytes(40_000_000) + make_tar(GOOD)
        refuses(put(tmp_path, "x.tar.gz", gzip.compress(content, 1)), "a header of more than", ArchiveError)


def test_a_header_that_points_backwards_is_no_endless_loop(tmp_path: Path) -> None:
    content = make_tar([("first", "file", b"1")])[:1024]
    content += header("again", b"0", b"\xff" * 10 + struct.pack(">h", -512)) + make_tar(GOOD)
    refuses(put(tmp_path, "x.tar", content), "is damaged", ArchiveError)


def test_thousands_of_headers_for_one_member(tmp_path: Path) -> None:
    content = header("x", b"x", b"0" * 11) * 900 + make_tar(GOOD)
    refuses(put(tmp_path, "x.tar", content), "is damaged", ArchiveError)


# ---- broken archives


def test_what_is_no_archive(tmp_path: Path) -> None:
    refuses(put(tmp_path, "page.tar.gz", b"<html>not found</html>"), "is not a zip, tar", ArchiveError)
    refuses(put(tmp_path, "empty.zip", b""), "is not a zip, tar", ArchiveError)
    refuses(put(tmp_path, "empty.tar", b""), "is damaged", ArchiveError)
    with pytest.raises(DataNotFoundError, match=r"there is no archive .*missing\.zip"):
        extract(tmp_path / "missing.zip", tmp_path / "out")
    with pytest.raises(ArchiveError, match="is a folder, not a file"):
        extract(tmp_path, tmp_path / "out")


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.bz2", ".tar.xz", ".zip"])
def test_every_cut_is_noticed(tmp_path: Path, suffix: str) -> None:
    content = make(suffix, GOOD)
    end = content.rindex(b"long") + 512 + 511 if suffix == ".tar" else len(content)  # behind it comes only padding
    cuts = {1, 5, 9, end - 1, *(end * step // 40 for step in range(1, 40))}
    for cut in sorted(cuts):
        refuses(put(tmp_path, f"x{suffix}", content[:cut]), "was not unpacked: it is", ArchiveError)


def test_a_damaged_header_is_not_the_end(tmp_path: Path) -> None:
    content = bytearray(make_tar([(name, "file", b"x") for name in "abc"]))
    content[1024] ^= 1
    refuses(put(tmp_path, "x.tar", bytes(content)), "neither a header nor the end mark at byte 1024", ArchiveError)


def test_a_wrong_checksum_behind_the_end_of_the_tar(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(make_tar(GOOD)))
    content[-6] ^= 1
    refuses(put(tmp_path, "x.tar.gz", bytes(content)), "CRC check failed", ArchiveError)


def test_a_tar_that_never_ends(tmp_path: Path) -> None:
    content = gzip.compress(make_tar(GOOD) + bytes(80_000_000), 1)
    refuses(put(tmp_path, "x.tar.gz", content), "behind its end mark", ArchiveError)


@pytest.mark.parametrize(("offset", "value", "text"), [(0, 1, "encrypted"), (2, 99, "compression method")])
def test_zips_that_cannot_be_read(tmp_path: Path, offset: int, value: int, text: str) -> None:
    content = bytearray(make_zip([("secret", "file", b"secret")]))
    for start in (6, content.index(b"PK\1\2") + 8):  # flags and method in the member's header and in the directory
        content[start + offset] = value
    refuses(put(tmp_path, "x.zip", bytes(content)), text, ArchiveError)


def test_a_zip_with_a_wrong_size_or_checksum(tmp_path: Path) -> None:
    good = make_zip([("a", "file", b"content of a")], zipfile.ZIP_STORED)
    refuses(put(tmp_path, "x.zip", good.replace(b"content", b"CONTENT")), "CRC", ArchiveError)
    refuses(
        put(tmp_path, "y.zip", good.replace(struct.pack("<L", 12), struct.pack("<L", 11))), "is damaged", ArchiveError
    )


def test_an_endless_link_in_a_zip(tmp_path: Path) -> None:
    refuses(put(tmp_path, "x.zip", make_zip([("l", "symlink", "a" * 5000)])), "longer than 4096 bytes", ArchiveError)


def test_a_name_that_no_disk_can_hold(tmp_path: Path) -> None:
    archive = put(tmp_path, "x.tar", make_tar([("n" * 300, "file", b"")]))
    refuses(archive, "file system cannot hold its member 'nnn.*too long", ArchiveError)


# ---- all kinds of members, all kinds of damage

PARTS = st.sampled_from(["a", "b", "A", "..", ".", "", "c d", "ü"])
PATHS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
ENTRIES = st.lists(
    st.one_of(
        st.tuples(PATHS, st.just("file"), st.binary(max_size=20)),
        st.tuples(PATHS, st.just("folder"), st.none()),
        st.tuples(PATHS, st.sampled_from(["symlink", "hardlink"]), PATHS.filter(bool)),
    ),
    max_size=7,
)
SLOWLY = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SLOWLY
@given(entries=ENTRIES, suffix=st.sampled_from([".tar", ".zip"]))
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_whatever_the_members_are_nothing_gets_out(tmp_path: Path, entries: list[Entry], suffix: str) -> None:
    inner = tmp_path / "inner"
    inner.mkdir(exist_ok=True)
    for name in ("a", "b"):
        (tmp_path / name).write_text("outside")
    archive = put(
        tmp_path, f"x{suffix}", make(suffix, [entry for entry in entries if entry[1] != "hardlink" or suffix == ".tar"])
    )
    outside = tree(tmp_path)
    try:
        out = extract(archive, inner / "out")
    except UnsafeArchiveError:
        assert names(inner) == []
    else:
        for path in out.rglob("*"):
            assert path.resolve().is_relative_to(out.resolve())
            assert path.is_symlink() or path.is_file() or path.is_dir()
        shutil.rmtree(out)
    assert {**tree(tmp_path), "inner/.out.lock": b""} == {**outside, "inner/.out.lock": b""}


FOLDERS = st.lists(st.sampled_from(["a", "b", "c d", "é", ".x"]), min_size=1, max_size=3).map("/".join)
FILES = st.dictionaries(FOLDERS.map("{}/f".format), st.binary(max_size=2000), max_size=6)


@settings(SLOWLY, max_examples=50)
@given(files=FILES, suffix=st.sampled_from([*PACKERS, ".zip"]))
def test_packed_and_unpacked_is_the_same(tmp_path: Path, files: dict[str, bytes], suffix: str) -> None:
    archive = put(tmp_path, f"x{suffix}", make(suffix, [(name, "file", content) for name, content in files.items()]))
    out = extract(archive, tempfile.mkdtemp(dir=tmp_path), limits=DownloadLimits(max_bytes=12_001))
    assert {name: content for name, content in tree(out).items() if content is not None} == files


BASES = {suffix: make(suffix, [*GOOD, ("l", "symlink", "a.txt")]) for suffix in (*PACKERS, ".zip")}


@settings(SLOWLY, max_examples=300)
@given(data=st.data(), suffix=st.sampled_from(sorted(BASES)))
def test_damage_is_an_error_that_says_so(tmp_path: Path, data: st.DataObject, suffix: str) -> None:
    content = bytearray(BASES[suffix])
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
        content[position] = data.draw(st.integers(0, 255))
    del content[data.draw(st.just(len(content)) | st.integers(0, len(content))) :]
    inner = tmp_path / "inner"
    inner.mkdir(exist_ok=True)
    archive = put(tmp_path, f"x{suffix}", bytes(content))
    message = str(archive)
    try:
        out = extract(archive, inner / "out")
    except ArchiveError as error:
        message = str(error)
    else:
        if suffix not in (".tar", ".zip"):  # these two have no checksum over everything
            assert tree(out) == {**GOOD_TREE, "l": "a.txt"}
        shutil.rmtree(out)
    assert str(archive) in message
    assert names(inner) == []


# ---- where it goes


def test_an_empty_folder_may_be_there(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert tree(extract(put(tmp_path, "x.zip", make_zip(GOOD)), tmp_path / "out")) == GOOD_TREE


def test_nothing_that_is_there_is_touched(tmp_path: Path) -> None:
    archive = put(tmp_path, "x.zip", make_zip(GOOD))
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("empty")
    before = tree(tmp_path)
    for name in ("full", "file", "link"):
        with pytest.raises(ArgumentError, match=f"to .*{name}: that exists; remove it or name another"):
            extract(archive, tmp_path / name)
        before[f".{name}.lock"] = b""
    assert tree(tmp_path) == before
    with pytest.raises(ArgumentError, match="has no name of its own"):
        extract(archive, "/")


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_a_killed_process_left_is_removed(tmp_path: Path, kind: str) -> None:
    stale = tmp_path / ".out.unpacking"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "stays").touch()
    if kind == "folder":
        stale.mkdir()
        (stale / "old").touch()
    elif kind == "file":
        stale.touch()
    else:
        stale.symlink_to("other")
    assert tree(extract(put(tmp_path, "x.zip", make_zip(GOOD)), tmp_path / "out")) == GOOD_TREE
    assert names(tmp_path) == ["other", "out", "x.zip"]
    assert names(tmp_path / "other") == ["stays"]


def test_a_kill_leaves_nothing_half_unpacked(tmp_path: Path) -> None:
    entries: list[Entry] = [(f"{number % 7}/{number}.txt", "file", b"x" * 99) for number in range(4_000)]
    archive = put(tmp_path, "x.tar", make_tar(entries, tarfile.USTAR_FORMAT))
    code = "import sys; from dlkit.download.archives import extract; extract(*sys.argv[1:])"
    with subprocess.Popen([sys.executable, "-c", code, archive, tmp_path / "out"]) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / ".out.unpacking" / "3").exists():
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert names(tmp_path) == [".out.unpacking", "x.tar"]
    out = extract(archive, tmp_path / "out")
    assert names(tmp_path) == ["out", "x.tar"]
    assert sum(path.is_file() for path in out.rglob("*")) == 4_000


def test_of_several_at_once_one_unpacks(tmp_path: Path) -> None:
    archive = put(tmp_path, "x.zip", make_zip(GOOD))
    outcomes: list[str] = []

    def unpack() -> None:
        try:
            outcomes.append(extract(archive, tmp_path / "out").name)
        except ArgumentError:
            outcomes.append("there already")

    threads = [threading.Thread(target=unpack) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["out"] + ["there already"] * 5
    assert tree(tmp_path / "out") == GOOD_TREE


def test_a_full_disk_is_named_and_freed(tmp_path: Path) -> None:
    entries: list[Entry] = [("a", "file", bytes(50_000)), ("b/c", "file", bytes(900_000))]
    archive = put(tmp_path, "x.tar.gz", make(".tar.gz", entries))
    with small_disk(tmp_path / "disk", "400k") as disk:
        with pytest.raises(DownloadError, match=r"cannot unpack .*x\.zip to .*: No space left on device: 950,000 more"):
            extract(put(tmp_path, "x.zip", make_zip(entries)), disk / "out")  # by what it claims
        with pytest.raises(DownloadError, match=r"cannot write .*b/c: No space left on device; free some") as caught:
            extract(archive, disk / "out")
        assert caught.value.errno == errno.ENOSPC
        assert names(disk) == []
        extract(put(disk, "x.zip", make_zip(GOOD)), disk / "out")


@pytest.mark.skipif(sys.platform == "win32", reason="no POSIX rights")
def test_missing_rights_are_named() -> None:
    with open_folder() as folder:
        archive = put(folder, "x.zip", make_zip(GOOD))
        archive.chmod(0o600)
        (folder / "open").mkdir()
        (folder / "open").chmod(0o777)
        with as_nobody():
            with pytest.raises(
                DownloadError, match=r"cannot write to .*: Permission denied; use a folder that you may"
            ):
                extract(archive, folder / "out")
            if os.geteuid() != archive.stat().st_uid:
                with pytest.raises(ArchiveError, match=r"x\.zip cannot be read: Permission denied"):
                    extract(archive, folder / "open" / "out")
                assert names(folder / "open") == []


# ---- claims


def test_what_archives_claim_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    entries: list[Entry] = [("a", "file", bytes(5000)), ("b", "file", bytes(6000))]
    for suffix in (".zip", ".tar", ".tar.gz"):
        archive = put(tmp_path, f"x{suffix}", make(suffix, entries))
        with pytest.raises(UnsafeArchiveError, match=r"its member 'b' goes beyond max_bytes=10000"):
            extract(archive, tmp_path / "out", limits=DownloadLimits(max_bytes=10_000))
        extract(archive, tmp_path / f"good{suffix}", limits=DownloadLimits(max_bytes=11_000))


def test_a_zip_whose_members_overlap_is_refused(tmp_path: Path) -> None:
    content = bytearray(make_zip([("a", "file", os.urandom(5000)), ("b", "file", os.urandom(5000))]))
    first, second = (place.start() for place in re.finditer(rb"PK\x01\x02", bytes(content)))
    content[second + 42 : second + 46] = content[first + 42 : first + 46]  # where the file begins
    for place in (first, second):
        content[place + 20 : place + 24] = (9000).to_bytes(4, "little")
    with pytest.raises(UnsafeArchiveError, match="its members overlap, so it claims more than it holds"):
        extract(put(tmp_path, "x.zip", bytes(content)), tmp_path / "out")


def test_a_member_that_claims_more_than_the_archive_can_hold_is_refused(tmp_path: Path) -> None:
    content = bytearray(make_zip([("a", "file", bytes(5000))]))
    for mark, place in ((rb"PK\x01\x02", 24), (rb"PK\x03\x04", 22)):
        found = re.search(mark, bytes(content))
        assert found is not None
        content[found.start() + place : found.start() + place + 4] = (4_000_000_000).to_bytes(4, "little")
    with pytest.raises(
        UnsafeArchiveError, match=r"member 'a' claims 4,000,000,000 bytes, and [0-9,]+ packed ones cannot"
    ):
        extract(put(tmp_path, "x.zip", bytes(content)), tmp_path / "out")
    info = tarfile.TarInfo("a")
    info.size = 10**15
    claim = info.tobuf(tarfile.GNU_FORMAT) + bytes(10_240)
    for name, packed in (("x.tar", claim), ("x.tar.gz", gzip.compress(claim))):
        with pytest.raises(
            UnsafeArchiveError, match=r"member 'a' claims 1,000,000,000,000,000 bytes, and the whole archive"
        ):
            extract(put(tmp_path, name, packed), tmp_path / "out")
    # Nothing bounds what xz packs: there the limits decide, and then the disk.
    archive = put(tmp_path, "x.tar.xz", lzma.compress(claim))
    with pytest.raises(UnsafeArchiveError, match="goes beyond max_bytes"):
        extract(archive, tmp_path / "out")
    with pytest.raises(DownloadError, match=r"No space left on device: 1,000,000,000,000,000 more bytes"):
        extract(archive, tmp_path / "out", limits=DownloadLimits(max_bytes=10**16))
    assert not (tmp_path / "out").exists()


def test_a_sparse_tar_may_hold_more_than_it_has(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 20)
    made = subprocess.run(["tar", "-S", "-cf", "x.tar", "sparse"], cwd=tmp_path, capture_output=True)
    if made.returncode:
        pytest.skip("this tar makes no sparse files")
    assert (tmp_path / "x.tar").stat().st_size < 1 << 20
    assert (extract(tmp_path / "x.tar", tmp_path / "out") / "sparse").stat().st_size == 1 << 20
