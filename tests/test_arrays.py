"""Files of arrays: every type and shape comes back, damage and other kinds are told, an open one stays what it is."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dlkit.errors import DataError, DataNotFoundError
from dlkit.storage.arrays import Kind, open_arrays, write_arrays

KIND = Kind("list of things", 1)
TYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"]


def test_every_type_and_shape_comes_back_and_any_tool_reads_them(tmp_path: Path) -> None:
    tensors = {name: torch.arange(6).view(2, 3).to(getattr(torch, name)) for name in TYPES}
    tensors |= {"empty": torch.zeros(0, 4), "number": torch.tensor(7), "turned": torch.arange(6).view(2, 3).T}
    write_arrays(tmp_path / "file", KIND, tensors, {"words": ["a", "둘"]})
    found = open_arrays(tmp_path / "file", KIND)
    assert found.about == {"words": ["a", "둘"]}
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
        assert found[name].data_ptr() % tensor.element_size() == 0
    assert set(load_file(tmp_path / "file")) == set(tensors)


def test_what_is_not_there_damaged_or_something_else_is_told(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(DataNotFoundError):
        open_arrays(path, KIND)
    write_arrays(path, KIND, {"x": torch.arange(100)})
    with pytest.raises(DataError, match="is not a pack of images: it holds x"):
        open_arrays(path, Kind("pack of images", 1))
    with pytest.raises(DataError, match="written in version 1 of the format, this is 2"):
        open_arrays(path, Kind(KIND.name, 2))
    content = bytearray(path.read_bytes())
    for damaged in (content[:-1], content[:40], b"", content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="is damaged"):
            open_arrays(path, KIND)


def test_an_open_file_travels_by_its_path_and_is_not_taken_for_its_successor(tmp_path: Path) -> None:
    write_arrays(tmp_path / "file", KIND, {"x": torch.arange(100_000)})
    first = open_arrays(tmp_path / "file", KIND)
    sent = pickle.dumps(first)
    assert len(sent) < 500
    assert torch.equal(pickle.loads(sent)["x"], first["x"])
    write_arrays(tmp_path / "file", KIND, {"x": torch.arange(5)})
    assert len(first["x"]) == 100_000
    with pytest.raises(DataError, match="was rebuilt since this dataset was opened"):
        pickle.loads(sent)
