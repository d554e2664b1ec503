"""A photograph cut off in its middle, met in the midst of an epoch: by any decoder, loader and number of workers."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader as StockLoader

from dlkit.datasets import ImageFolder
from dlkit.datasets.images import decoding
from dlkit.errors import DataError
from dlkit.loader import DataLoader

SIZE, BATCH = 64, 4


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 photographs of 500 x 375 pixels, some 100 KB each."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(24):
        noise = np.random.default_rng(number).integers(0, 256, (32, 42, 3), dtype=np.uint8)
        image = Image.fromarray(noise).resize((500, 375), Image.Resampling.BICUBIC)
        path = root / ("ants" if number < 12 else "bees") / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        image.save(path, quality=95)
    return root


@pytest.fixture(scope="module")
def good(photos: Path) -> torch.Tensor:
    """All of them as they are while they are whole, but for the one that will be cut."""
    whole = ImageFolder(photos, size=SIZE)
    return torch.stack([whole[index][0] for index in range(24) if index != 13])


@pytest.fixture(scope="module")
def cut(photos: Path, good: torch.Tensor) -> Path:
    path = photos / "bees" / "13.jpg"
    data = path.read_bytes()
    assert len(data) > 30_000
    path.write_bytes(data[: len(data) // 2])
    return path


@pytest.fixture(params=["simplejpeg", "Pillow alone"], autouse=True)
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "simplejpeg":
        pytest.importorskip("simplejpeg")
    else:
        monkeypatch.setattr(decoding, "_simplejpeg", lambda: None)  # workers are forked, and have it, too


@pytest.fixture(params=[(kind, workers) for kind in (DataLoader, StockLoader) for workers in (0, 2)], ids=str)
def make(request: pytest.FixtureRequest) -> Any:
    """Makes a loader of a dataset."""
    kind, workers = request.param
    return lambda ds: kind(ds, BATCH, num_workers=workers, multiprocessing_context="fork" if workers else None)


def test_it_is_named(photos: Path, cut: Path, make: Any) -> None:
    seen: list[int] = []

    def go_through(batches: Any) -> None:
        for x, _ in batches:
            seen.append(len(x))

    with pytest.raises(DataError, match=rf"{re.escape(str(cut))}: cannot be decoded: .*truncated.*on_error='skip'"):
        go_through(make(ImageFolder(photos, size=SIZE)))
    assert seen == [4, 4, 4], "the batches before it"


def test_it_is_left_out_for_good_and_counted(photos: Path, good: torch.Tensor, cut: Path, make: Any) -> None:
    ds = ImageFolder(photos, size=SIZE, on_error="skip", max_errors=0.05)
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where it is said, here or in a worker, is for other tests
            batches = list(make(ds))
        assert [len(x) for x, _ in batches] == [4, 4, 4, 3, 4, 4]
        assert torch.equal(torch.cat([x for x, _ in batches]), good)
        (left,) = ds.skipped
        assert (left.file, left.row) == (str(cut), None)
        assert str(left).startswith(f"{cut} cannot be decoded")
        assert ds.skipped_by_class() == {"bees": (1, 12)}
    assert "1 left out" in repr(ds)
    assert len(ds.without_errors()) == 23
