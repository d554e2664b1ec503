"""NotMNIST: from any source to the same pack, whatever is broken, hostile or killed on the way."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import pickle
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader as StockLoader

import warm
from disks import as_nobody, open_folder, resize, small_disk
from dlkit import DataLoader
from dlkit.datasets import NotMNIST
from dlkit.datasets.letters import files as letter_files
from dlkit.errors import (
    ArchiveError,
    ArgumentError,
    DataError,
    DataNotFoundError,
    DownloadError,
    IntegrityError,
    OfflineError,
    TooManyErrorsError,
)
from dlkit.splits import check_leaks
from dlkit.storage.files import sha256_of
from servers import Server

UNREADABLE = ["A/RGVtb2NyYXRpY2FCb2xkT2xkc3R5bGUgQm9sZC50dGY=.png", "F/Q3Jvc3NvdmVyIEJvbGRPYmxpcXVlLnR0Zg==.png"]


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (28, 28), dtype=np.uint8)


def letters(per_class: int = 4) -> dict[str, bytes]:
    return {
        f"{name}/font{place}.png": png(picture(label * 100 + place))
        for label, name in enumerate("ABCDEFGHIJ")
        for place in range(per_class)
    }


def make_folder(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def make_archive(path: Path, files: dict[str, bytes], prefix: str = "notMNIST_small/") -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root whose folder notMNIST_small has four images per class."""
    make_folder(tmp_path / "notMNIST_small", letters())
    return tmp_path


@pytest.fixture(scope="module")
def lookalike(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> NotMNIST:
    """The 10,000 real glyphs, packed once for the tests that only read."""
    folder = tmp_path_factory.mktemp("lookalike")
    (folder / "notMNIST_small.tar.gz").symlink_to(shared_data / "notmnist" / "notMNIST_small_lookalike.tar.gz")
    return NotMNIST(folder)


@contextlib.contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How often a PNG is decoded; the real decoder does the work."""
    calls: list[int] = []
    decode = letter_files.grey_pixels

    def counting(content: bytes) -> bytes:
        calls.append(len(content))
        return decode(content)

    with monkeypatch.context() as patch:
        patch.setattr(letter_files, "grey_pixels", counting)
        yield calls


def test_from_a_server_to_samples(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = shared_data / "notmnist" / "notMNIST_small_lookalike.tar.gz"
    with Server() as server, counted(monkeypatch) as decoded:
        server.picky = True  # as the original's author is
        server.files["/notMNIST_small.tar.gz"] = archive
        arguments = {"mirror": server.url("/notMNIST_small.tar.gz"), "sha256": sha256_of(archive)}
        dataset = NotMNIST(tmp_path, download=True, **arguments)
        assert len(decoded) == 10_002
        assert [request.status for request in server.requests] == [200]
        again = NotMNIST(tmp_path, download=True, **arguments)
        assert (len(decoded), len(server.requests)) == (10_002, 1)
    assert len(dataset) == len(again) == 10_000
    assert dataset.images.shape == (10_000, 28, 28)
    assert dataset.images.dtype == torch.uint8
    assert torch.equal(dataset.images, again.images)
    assert dataset.targets.dtype == torch.int64
    assert torch.bincount(dataset.targets).tolist() == [1000] * 10
    assert dataset.classes == list("ABCDEFGHIJ")
    assert dataset.class_to_idx == {name: label for label, name in enumerate("ABCDEFGHIJ")}
    assert list(map(str, dataset.skipped)) == [f"{name} is empty (0 bytes)" for name in UNREADABLE]
    image, label = dataset[4321]
    assert (image.shape, image.dtype, label.dtype, int(label)) == ((1, 28, 28), torch.float32, torch.int64, 4)
    assert torch.equal(image[0], dataset.images[4321].float() * torch.tensor(1 / 255))
    assert 0 <= image.min() < 0.1 < 0.9 < image.max() <= 1


def test_pixels_and_names_are_those_of_the_files(shared_data: Path, lookalike: NotMNIST, tmp_path: Path) -> None:
    with tarfile.open(shared_data / "notmnist" / "notMNIST_small_lookalike.tar.gz") as tar:
        members = [member for number, member in enumerate(tar) if number % 20 == 0 or member.size == 0]
        tar.extractall(tmp_path, members, filter="data")
    folder = NotMNIST(tmp_path)
    assert len(folder) > 400
    places = {lookalike.file(index): index for index in range(len(lookalike))}
    for index in range(0, len(folder), 10):
        file = folder.file(index)
        with Image.open(tmp_path / "notMNIST_small" / file) as image:
            assert np.array_equal(np.asarray(image), folder.images[index].numpy())
        assert torch.equal(lookalike.images[places[file]], folder.images[index])
        assert folder.classes[folder.targets[index]] == lookalike.classes[lookalike.targets[places[file]]] == file[0]
    assert lookalike.font(0).startswith("glyph-")


def test_opening_again_is_fast_and_needs_no_source(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = NotMNIST(root)
    for file in sorted((root / "notMNIST_small").rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    (root / "notMNIST_small").rmdir()
    with counted(monkeypatch) as decoded:
        again = NotMNIST(root)
    assert decoded == []
    assert torch.equal(first.images, again.images)
    assert [again.file(index) for index in range(40)] == [first.file(index) for index in range(40)]


def test_opening_the_real_size_takes_well_under_a_second(lookalike: NotMNIST) -> None:
    times = []
    for _ in range(3):
        start = time.process_time()
        NotMNIST(lookalike.path.parent)
        times.append(time.process_time() - start)
    assert min(times) < 0.3


def test_archive_folder_and_the_folder_itself_are_one_dataset(tmp_path: Path) -> None:
    files = letters()
    folder = make_folder(tmp_path / "a" / "notMNIST_small", files)
    (tmp_path / "b").mkdir()
    backwards = dict(reversed(files.items()))
    make_archive(tmp_path / "b" / "notMNIST_small.tar.gz", backwards, prefix="./notMNIST_small/")
    first, direct, archived = NotMNIST(tmp_path / "a"), NotMNIST(folder), NotMNIST(str(tmp_path / "b"))
    for other in (direct, archived):
        assert torch.equal(first.images, other.images)
        assert torch.equal(first.targets, other.targets)
        assert [first.file(index) for index in range(40)] == [other.file(index) for index in range(40)]
    assert np.array_equal(first.images[4 * 3 + 1].numpy(), picture(301))


def test_large_is_another_dataset_beside_small(root: Path) -> None:
    make_folder(root / "notMNIST_large", letters(5))
    assert (len(NotMNIST(root)), len(NotMNIST(root, subset="large"))) == (40, 50)
    assert "large" in repr(NotMNIST(root, subset="large"))


@pytest.mark.parametrize("make", ["nothing", "no folder", "empty folder", "other files"])
def test_missing_data_says_what_to_do(tmp_path: Path, make: str) -> None:
    root = tmp_path / "nowhere" if make == "no folder" else tmp_path
    if make == "empty folder":
        (tmp_path / "notMNIST_small").mkdir()
    if make == "other files":
        (tmp_path / "readme.txt").write_text("hello")
    with pytest.raises(DataNotFoundError, match="download=True") as caught:
        NotMNIST(root)
    assert str(root) in str(caught.value)
    assert "notMNIST_small.tar.gz" in str(caught.value)
    assert not (tmp_path / "nowhere").exists()


def test_the_cache_folder_is_the_default_root(own_cache: Path) -> None:
    with pytest.raises(DataNotFoundError, match=str(own_cache / "notmnist")):
        NotMNIST()
    make_folder(own_cache / "notmnist" / "notMNIST_small", letters())
    assert len(NotMNIST()) == 40


def test_offline_the_original_is_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLKIT_OFFLINE", "1")
    with pytest.raises(OfflineError):
        NotMNIST(tmp_path, download=True)


def test_arguments_that_cannot_be_meant(tmp_path: Path, root: Path) -> None:
    with pytest.raises(ArgumentError, match="subset must be 'small' or 'large', not 'medium'"):
        NotMNIST(root, subset="medium")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="on_error must be 'raise' or 'skip', not 'ignore'"):
        NotMNIST(root, on_error="ignore")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="64 hexadecimal digits, not 'abc'"):
        NotMNIST(root, sha256="abc")
    with pytest.raises(ArgumentError, match=r"subset is 'large', but the mirror .*small.tar.gz .* has 'small'"):
        NotMNIST(root, subset="large", mirror="http://localhost/notMNIST_small.tar.gz")
    (tmp_path / "file").touch()
    with pytest.raises(ArgumentError, match="root must be a folder"):
        NotMNIST(tmp_path / "file")


# --- mirrors


@pytest.fixture
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """A server with an archive of 40 letters, and the archive's hash."""
    archive = make_archive(tmp_path_factory.mktemp("mirror") / "any.tar.gz", letters())
    with Server() as server:
        server.files["/notMNIST_small.tar.gz"] = archive
        yield server, sha256_of(archive)


def test_a_mirror_without_hash_warns_and_one_with_hash_does_not(mirror: tuple[Server, str], tmp_path: Path) -> None:
    server, sha256 = mirror
    url = server.url("/notMNIST_small.tar.gz")
    with pytest.warns(UserWarning, match=r"is not checked.*sha256=.*76b2ef7c") as caught:
        NotMNIST(tmp_path / "a", download=True, mirror=url)
    assert caught[0].filename == __file__
    assert len(NotMNIST(tmp_path / "a", mirror=url)) == 40  # opening again has nothing to check
    for number, arguments in enumerate([{"mirror": url, "sha256": sha256}, {"mirror": f"{url}#sha256={sha256}"}]):
        assert len(NotMNIST(tmp_path / str(number), download=True, **arguments)) == 40


def test_the_environment_names_a_mirror(
    mirror: tuple[Server, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, sha256 = mirror
    monkeypatch.setenv("DLKIT_NOTMNIST_URL", f"{server.url('/')}#sha256={sha256}")
    assert len(NotMNIST(tmp_path, download=True)) == 40
    assert server.requests[0].path == "/notMNIST_small.tar.gz"
    assert len(NotMNIST(tmp_path)) == 40


def test_the_wrong_hash_is_refused_and_leaves_nothing(mirror: tuple[Server, str], tmp_path: Path) -> None:
    server, _ = mirror
    url = server.url("/notMNIST_small.tar.gz")
    with pytest.raises(IntegrityError):
        NotMNIST(tmp_path, download=True, mirror=url, sha256="0" * 64)
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".gz", ".safetensors")]


def test_data_of_a_mirror_is_never_taken_for_the_original(mirror: tuple[Server, str], tmp_path: Path) -> None:
    server, sha256 = mirror
    NotMNIST(tmp_path, download=True, mirror=server.url("/notMNIST_small.tar.gz"), sha256=sha256)
    with pytest.raises(DataNotFoundError):
        NotMNIST(tmp_path)
    with pytest.raises(DataNotFoundError):
        NotMNIST(tmp_path, mirror="http://localhost/another.tar.gz")


def test_a_broken_download_does_not_stay_in_the_way(mirror: tuple[Server, str], tmp_path: Path) -> None:
    server, _ = mirror
    good, url = server.files["/notMNIST_small.tar.gz"], server.url("/notMNIST_small.tar.gz")
    for content in (b"<html>please log in</html>", good.read_bytes()[:-100], gzip.compress(b"no tar")):
        server.files["/notMNIST_small.tar.gz"] = content
        with pytest.warns(UserWarning, match="not checked"), pytest.raises((ArchiveError, DataError)):
            NotMNIST(tmp_path, download=True, mirror=url)
    server.files["/notMNIST_small.tar.gz"] = good
    with pytest.warns(UserWarning, match="not checked"):
        assert len(NotMNIST(tmp_path, download=True, mirror=url)) == 40


# --- what is unreadable or hostile


def chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def with_header(width: int, height: int, bits: int = 8, colour: int = 0) -> bytes:
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([bits, colour, 0, 0, 0])
    pixels = zlib.compress(b"\0" * 29 * 28)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


BROKEN: list[tuple[str, Callable[[], bytes], str]] = [
    ("empty", lambda: b"", r"is empty \(0 bytes\)"),
    ("text", lambda: b"A PNG, really" * 10, "is not a PNG file"),
    ("gif", lambda: gif(), "is not a PNG file"),
    ("signature", lambda: b"\x89PNG\r\n\x1a\n", "is not a PNG file"),
    ("small", lambda: png(np.zeros((20, 28), np.uint8)), "is 28x20 pixels large, not 28x28"),
    ("huge", lambda: with_header(2**31 - 1, 2**31 - 1), "is 2147483647x2147483647 pixels large"),
    ("colour", lambda: png(np.zeros((28, 28, 3), np.uint8)), "has colour type 2 with 8 bits, not 8-bit grey"),
    ("deep", lambda: png(np.zeros((28, 28), np.uint16)), "has colour type 0 with 16 bits"),
    ("cut", lambda: png(picture(1))[:400], "is a broken PNG"),
    ("noise", lambda: png(picture(1))[:60] + bytes(range(256)) * 3, "is a broken PNG"),
    ("few pixels", lambda: few_pixels(), "is a broken PNG"),
    ("long", lambda: png(picture(1)) + bytes(1 << 17), "is larger than 65536 bytes"),
]


def gif() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(1)).save(buffer, "GIF")
    return buffer.getvalue()


def few_pixels() -> bytes:
    start = with_header(28, 28)
    return start[:33] + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("make", "reason"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
@pytest.mark.parametrize("source", ["folder", "archive"])
def test_an_unreadable_image_is_left_out_and_named(
    make: Callable[[], bytes], reason: str, source: str, tmp_path: Path
) -> None:
    files = letters() | {"C/odd one.png": make()}
    if source == "folder":
        make_folder(tmp_path / "notMNIST_small", files)
    else:
        make_archive(tmp_path / "notMNIST_small.tar.gz", files)
    for _ in range(2):  # read, and opened again
        dataset = NotMNIST(tmp_path, max_errors=0.5)
        (left,) = dataset.skipped
        name, why = left.file, left.reason
        assert (len(dataset), name) == (40, "C/odd one.png")
        assert why.startswith(reason.replace("\\", "")), why
        with pytest.raises(DataError, match=f"C/odd one.png {reason}.*; repair the file, or on_error='skip'"):
            NotMNIST(tmp_path, on_error="raise")


def test_too_many_unreadable_images(tmp_path: Path) -> None:
    make_folder(tmp_path / "notMNIST_small", letters() | {f"C/odd{number}.png": b"" for number in range(11)})
    assert len(NotMNIST(tmp_path, max_errors=0.5).skipped) == 11
    with pytest.raises(TooManyErrorsError, match=r"11 of 51 images .* max_errors=0.1 .*: C/odd0.png is"):
        NotMNIST(tmp_path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200), cut=st.integers(0, 900), at=st.integers(0, 900))
def test_no_bytes_break_the_decoder(content: bytes, cut: int, at: int) -> None:
    """Whatever stands in a file comes out as 784 bytes or as a DataError."""
    whole = png(picture(3))
    for damaged in (content, whole[:cut], whole[:at] + content + whole[at + len(content) :]):
        try:
            assert len(letter_files.grey_pixels(damaged)) == 784
        except DataError as error:
            assert str(error).startswith(("is ", "has "))  # noqa: PT017


def test_a_class_without_images_is_an_error(tmp_path: Path) -> None:
    files = {name: content for name, content in letters().items() if name[0] not in "CJ"}
    make_folder(tmp_path / "notMNIST_small", files | {"J/broken.png": b""})
    with pytest.raises(DataError, match=r"no readable image of C, J \(32 readable and 1 unreadable"):
        NotMNIST(tmp_path)


def test_other_files_are_not_images(tmp_path: Path) -> None:
    extra = {"A/._font0.png": b"mac", "A/.DS_Store": b"", "A/notes.txt": b"", "K/x.png": b"", "readme.png": b""}
    make_folder(tmp_path / "a" / "notMNIST_small", letters() | extra)
    (tmp_path / "b").mkdir()
    make_archive(tmp_path / "b" / "notMNIST_small.tar.gz", letters() | extra)
    for folder in ("a", "b"):
        dataset = NotMNIST(tmp_path / folder, on_error="raise")
        assert (len(dataset), dataset.skipped) == (40, [])


def test_a_hostile_archive_writes_nothing_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(picture(7)))
    (tmp_path / "root").mkdir()
    with tarfile.open(tmp_path / "root" / "notMNIST_small.tar.gz", "w:gz") as tar:
        for name, content in (letters() | {"../../A/out.png": png(picture(8)), "/A/abs.png": png(picture(9))}).items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for name, kind in (("A/soft.png", tarfile.SYMTYPE), ("A/hard.png", tarfile.LNKTYPE)):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "../../secret.png"
            tar.addfile(link)
    before = sorted(tmp_path.rglob("*"))
    dataset = NotMNIST(tmp_path / "root")
    assert not any("soft" in dataset.file(index) or "hard" in dataset.file(index) for index in range(len(dataset)))
    new = set(tmp_path.rglob("*")) - set(before)
    assert {path.name for path in new} == {"notMNIST_small.safetensors", ".notMNIST_small.lock"}


# --- the pack: damaged, outdated, killed, contended


def damaged(how: str, content: bytes) -> bytes:
    if how == "empty":
        return b""
    if how == "truncated":
        return content[:-1]
    if how == "garbage":
        return os.urandom(len(content))
    if how == "longer":
        return content + b"x"
    place = {"first": 0, "header": 60, "targets": 1000, "pixels": len(content) // 2, "last": len(content) - 1}[how]
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


HOWS = ["empty", "truncated", "garbage", "longer", "first", "header", "targets", "pixels", "last"]


@pytest.mark.parametrize("how", HOWS)
def test_a_damaged_pack_is_noticed_and_built_again(root: Path, how: str) -> None:
    good = NotMNIST(root)
    content = good.path.read_bytes()
    good.path.unlink()  # `good` keeps the old file mapped
    good.path.write_bytes(damaged(how, content))
    with pytest.warns(UserWarning, match=r"notMNIST_small.safetensors is damaged .*built again") as caught:
        again = NotMNIST(root)
    assert caught[0].filename == __file__
    assert torch.equal(again.images, good.images)
    assert again.path.read_bytes() == content
    NotMNIST(root)  # without a warning


def test_a_damaged_pack_without_source_says_both(root: Path) -> None:
    path = NotMNIST(root).path
    (root / "notMNIST_small").rename(root / "elsewhere")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataNotFoundError, match=r"safetensors is damaged.*No notMNIST.*download=True"):
        NotMNIST(root)


def test_a_pack_of_another_version_is_built_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dlkit.datasets.letters import packfile

    with monkeypatch.context() as patch:
        patch.setattr(packfile, "VERSION", 0)
        NotMNIST(root)
    with pytest.warns(UserWarning, match="written in version 0"):
        assert len(NotMNIST(root)) == 40


def test_any_other_safetensors_file_is_no_pack(root: Path) -> None:
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(3)}, root / "notMNIST_small.safetensors")
    with pytest.warns(UserWarning, match="is not a pack of images: it holds weight"):
        assert len(NotMNIST(root)) == 40


def test_a_changed_source_is_read_again(root: Path) -> None:
    folder = root / "notMNIST_small"
    before = NotMNIST(root)
    (folder / "A" / "new.png").write_bytes(png(picture(999)))
    assert len(NotMNIST(root)) == 41
    (folder / "B" / "font0.png").unlink()
    assert len(NotMNIST(root)) == 40
    assert len(before) == 40  # what is open stays as it was
    assert np.array_equal(before.images[4].numpy(), picture(100))
    (folder / "C" / "bad.png").write_bytes(b"")
    assert len(NotMNIST(root, max_errors=1).skipped) == 1
    with open(folder / "C" / "bad.png", "wb") as file:  # in place: the folder's time stays
        file.write(png(picture(998)))
    assert (len(NotMNIST(root)), NotMNIST(root).skipped) == (41, [])


def test_a_replaced_archive_is_read_again(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "notMNIST_small.tar.gz", letters())
    assert len(NotMNIST(tmp_path)) == 40
    make_archive(archive, letters(5))
    assert len(NotMNIST(tmp_path)) == 50


def test_a_copy_with_whole_seconds_is_not_read_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    NotMNIST(root)
    for folder in (root / "notMNIST_small").iterdir():
        seconds = int(folder.stat().st_mtime)
        os.utime(folder, (seconds, seconds))
    with counted(monkeypatch) as decoded:
        NotMNIST(root)
    assert decoded == []


CHILD = """
import os, sys, time
from dlkit.datasets import NotMNIST
from dlkit.datasets.letters import files as letter_files
def stop(*_):
    print("here", flush=True)
    time.sleep(60)
{patch}
NotMNIST(sys.argv[1])
"""
WHILE_READING = """
decode, calls = letter_files.grey_pixels, []
def counting(content):
    calls.append(1)
    return decode(content) if len(calls) < 20 else stop()
letter_files.grey_pixels = counting
"""
WHILE_WRITING = "os.fsync = stop"  # everything is written, nothing is under its name


@pytest.mark.parametrize("patch", [WHILE_READING, WHILE_WRITING], ids=["reading", "writing"])
def test_killed_while_packing(root: Path, patch: str) -> None:
    child = warm.Program(["-c", CHILD.format(patch=patch), root])
    assert child.stdout.readline() == "here\n"
    child.kill()
    child.communicate()
    assert not (root / "notMNIST_small.safetensors").exists()
    assert len(list(root.glob(".notMNIST_small.safetensors.*.tmp"))) == (patch == WHILE_WRITING)
    assert len(NotMNIST(root)) == 40
    assert not list(root.glob(".*.tmp"))


@pytest.mark.skipif(os.name != "posix", reason="forks")
def test_four_processes_download_and_pack_once(mirror: tuple[Server, str], tmp_path: Path) -> None:
    server, sha256 = mirror
    code = """
import os, sys
import dlkit.download
from dlkit.datasets import NotMNIST
from dlkit.datasets.letters import files as letter_files
decode, calls = letter_files.grey_pixels, []
letter_files.grey_pixels = lambda content: calls.append(1) or decode(content)
start, go = os.pipe()
children = []
for _ in range(4):
    if not (child := os.fork()):
        os.close(go)
        os.read(start, 1)  # until the parent has closed its end, for all at once
        dataset = NotMNIST(sys.argv[1], download=True, mirror=sys.argv[2], sha256=sys.argv[3])
        os.write(1, f"{len(dataset)} {int(dataset.images.sum())} {len(calls)}\\n".encode())
        os._exit(0)
    children.append(child)
os.close(go)
sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
"""
    run = warm.run(["-c", code, tmp_path, server.url("/notMNIST_small.tar.gz"), sha256])
    assert run.returncode == 0, run.stderr
    outputs = [line.split() for line in run.stdout.splitlines()]
    assert sum(request.whole for request in server.requests) == 1
    total = str(int(NotMNIST(tmp_path, mirror="http://localhost/", sha256=sha256).images.sum()))
    assert [output[:2] for output in outputs] == [["40", total]] * 4
    assert sorted(int(output[2]) for output in outputs) == [0, 0, 0, 40]


@pytest.mark.skipif(os.name != "posix", reason="POSIX rights")
def test_a_root_that_cannot_be_written_to_is_packed_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_folder() as folder:
        data = make_folder(folder / "data" / "notMNIST_small", letters()).parent
        (folder / "cache").mkdir()
        (folder / "cache").chmod(0o777)
        monkeypatch.setenv("DLKIT_HOME", str(folder / "cache"))
        data.chmod(0o555)
        with as_nobody():
            first, again = NotMNIST(data), NotMNIST(data)
        assert (len(first), len(again)) == (40, 40)
        assert first.path == again.path
        assert first.path.is_relative_to(folder / "cache")
        assert {path.name for path in data.iterdir()} == {"notMNIST_small"}
        (data / "notMNIST_small" / "A" / "new.png").write_bytes(png(picture(999)))
        with as_nobody():
            assert len(NotMNIST(data)) == 41
        (folder / "cache").chmod(0o555)
        first.path.parent.chmod(0o555)
        (data / "notMNIST_small" / "A" / "new.png").unlink()
        with as_nobody(), pytest.raises(DataError, match=f"neither {data} nor .* can be written to; set DLKIT_HOME"):
            NotMNIST(data)
        data.chmod(0o755)


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "256k") as disk:
        (disk / "notMNIST_small").symlink_to(make_folder(tmp_path / "data", letters(40)))
        with pytest.raises(OSError, match=r"cannot write .*notMNIST_small.safetensors.*free some space") as caught:
            NotMNIST(disk)
        assert isinstance(caught.value, DownloadError)
        assert {path.name for path in disk.iterdir()} == {"notMNIST_small", ".notMNIST_small.lock"}
        resize(disk, "4m")
        assert len(NotMNIST(disk)) == 400


# --- batches, parts, transforms


def test_every_loader_gives_what_single_samples_give(lookalike: NotMNIST) -> None:
    part, _ = lookalike.split(0.02)
    single = [part[index] for index in range(len(part))]
    images, labels = torch.stack([sample[0] for sample in single]), torch.stack([sample[1] for sample in single])
    for loader in (
        StockLoader(part, 64),
        StockLoader(part, 64, num_workers=2),
        DataLoader(part, 64),
        StockLoader(part, 64, collate_fn=lambda batch: [torch.stack(column) for column in zip(*batch, strict=True)]),
    ):
        batches = list(loader)
        assert torch.equal(torch.cat([batch[0] for batch in batches]), images)
        assert torch.equal(torch.cat([batch[1] for batch in batches]), labels)


def test_a_split_is_exact_shares_memory_and_knows_its_places(lookalike: NotMNIST) -> None:
    train, val = lookalike.split(0.9, stratify=True, seed=0)
    assert (type(train), len(train), len(val)) == (NotMNIST, 9000, 1000)
    assert torch.bincount(val.targets).tolist() == [100] * 10
    assert sorted([*train.indices.tolist(), *val.indices.tolist()]) == list(range(10_000))
    assert torch.equal(val.images, lookalike.images[val.indices])
    assert torch.equal(val.targets, lookalike.targets[val.indices])
    assert train._store.images.data_ptr() == lookalike._store.images.data_ptr()
    assert val.classes == lookalike.classes
    assert val.skipped == lookalike.skipped
    assert val.file(5) == lookalike.file(int(val.indices[5]))
    assert torch.equal(val[5][0], lookalike[int(val.indices[5])][0])
    assert torch.equal(lookalike.split(0.9)[1].indices, val.indices)
    assert not torch.equal(lookalike.split(0.9, seed=1)[1].indices, val.indices)
    inner, test = val.split([0.7, 0.3])
    assert torch.isin(test.indices, val.indices).all()
    assert torch.equal(test.images, lookalike.images[test.indices])
    assert len(inner) == 700


def test_identical_glyphs_never_fall_on_both_sides(lookalike: NotMNIST) -> None:
    for arguments in ({}, {"stratify": False}, {"seed": 5}):
        train, val = lookalike.split(0.8, **arguments)
        assert not check_leaks(train.images, val.images)
    train, val = lookalike.split(0.8, dedupe=False)
    leaks = check_leaks(train.images, val.images)
    assert len(leaks) > 10
    for position in leaks.test[:3]:
        assert (train.images == val.images[position]).all((1, 2)).any()


def test_a_split_by_font(root: Path) -> None:
    train, val = NotMNIST(root).split(0.75, group="font")
    fonts = [{part.font(index) for index in range(len(part))} for part in (train, val)]
    assert (len(train), len(val), fonts[0] & fonts[1]) == (30, 10, set())
    with pytest.raises(ArgumentError, match="group must be 'font', one key for each sample, or None, not 'letter'"):
        NotMNIST(root).split(0.5, group="letter")


def test_transforms_see_one_image_and_parts_may_have_their_own(root: Path) -> None:
    seen = []

    def invert(image: torch.Tensor) -> torch.Tensor:
        seen.append((image.shape, image.dtype))
        return 1 - image

    dataset = NotMNIST(root)
    assert not dataset.draws_random
    train, val = dataset.split(0.5, transform=[invert, None])
    assert (train.draws_random, val.draws_random, dataset.transform) == (True, False, None)
    batch, _ = next(iter(StockLoader(train, 8)))
    assert set(seen) == {((1, 28, 28), torch.float32)}
    assert torch.equal(batch, torch.stack([train[index][0] for index in range(8)]))
    assert torch.equal(batch[3], 1 - dataset[int(train.indices[3])][0])
    assert torch.equal(val[0][0], dataset[int(val.indices[0])][0])
    assert NotMNIST(root, transform=invert).split(0.5)[1].transform is invert
    assert train.with_transform(None).transform is None
    for wrong in ([invert], invert):
        with pytest.raises(ArgumentError, match="each of its 2 parts"):
            dataset.split(0.5, transform=wrong)  # type: ignore[arg-type]


def test_random_transforms_give_the_same_batches_for_any_number_of_workers(root: Path) -> None:
    dataset = NotMNIST(root, transform=lambda image: image + torch.rand(1))
    loaders = [DataLoader(dataset, 8, shuffle=True, num_workers=workers, seed=3) for workers in (0, 2)]
    for one, other in zip(*loaders, strict=True):
        assert torch.equal(one[0], other[0])


def test_a_transform_that_fails_is_told_where(root: Path) -> None:
    dataset = NotMNIST(root)
    with pytest.raises(ZeroDivisionError) as caught:
        dataset.with_transform(lambda image: 1 // 0)[7]
    assert "in the transform of sample 7 of NotMNIST" in caught.value.__notes__[0]
    with pytest.raises(DataError, match=r"must return a tensor, but returned ndarray \(sample 7\)"):
        dataset.with_transform(lambda image: image.numpy())[7]
    widths = iter(range(20, 40))
    with pytest.raises(DataError, match=r"sample 1 gave \[1, 28, 21\] and another \[1, 28, 20\]"):
        next(iter(StockLoader(dataset.with_transform(lambda image: image[..., : next(widths)]), 8)))


def test_it_travels_to_a_worker_as_a_path(lookalike: NotMNIST, root: Path) -> None:
    part = lookalike.split(0.9)[1]
    sent = pickle.dumps(part)
    assert len(sent) < 100_000
    received = pickle.loads(sent)
    assert torch.equal(received.images, part.images)
    assert received.file(3) == part.file(3)
    dataset = NotMNIST(root)
    sent = pickle.dumps(dataset)
    (root / "notMNIST_small" / "A" / "new.png").write_bytes(png(picture(999)))
    NotMNIST(root)
    with pytest.raises(DataError, match="was rebuilt since this dataset was opened"):
        pickle.loads(sent)


def test_writing_into_the_images_does_not_reach_the_pack(root: Path) -> None:
    dataset = NotMNIST(root)
    before = hashlib.sha256(dataset.path.read_bytes()).hexdigest()
    dataset.images[0] = 0
    assert hashlib.sha256(dataset.path.read_bytes()).hexdigest() == before


def test_repr_tells_what_it_holds(lookalike: NotMNIST) -> None:
    assert repr(lookalike) == (
        "NotMNIST(small: 10,000 grey images of 28x28, 10 classes A to J with 1,000 each, 2 unreadable left out; "
        f"{lookalike.path})"
    )
    assert "9,000 of 10,000 grey images" in repr(lookalike.split(0.9)[0])
