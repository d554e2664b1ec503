"""Tables by name, fetched from a real server."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlkit import recipes
from dlkit.errors import IntegrityError
from dlkit.recipes import samples
from servers import Server


@pytest.fixture
def server(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("DLKIT_HOME", str(tmp_path / "home"))
    with Server() as server:
        for name, sample in samples.SAMPLES.items():
            server.files[f"/{name}.csv"] = (shared_data / "csv" / f"{name}.csv").read_bytes()
            here = dataclasses.replace(sample, url=server.url(f"/{name}.csv"))
            monkeypatch.setitem(samples.SAMPLES, name, here)
        yield server


@pytest.mark.parametrize(("name", "rows", "classes"), [("titanic", 891, ["0", "1"]), ("penguins", 344, None)])
def test_a_name_is_enough(server: Server, name: str, rows: int, classes: list[str] | None) -> None:
    data = recipes.read_data(name)
    assert data.kind == "table"
    assert data.name == name
    assert len(data.train) + len(data.val) + len(data.test) == rows
    assert data.classes == (classes or ["Adelie", "Chinstrap", "Gentoo"])
    recipes.look_at(name)
    assert len(server.requests) == 1  # the second time it is in the cache


def test_another_target_is_taken_as_it_is_asked_for(server: Server) -> None:
    data = recipes.read_data("titanic", target="alive")
    assert "survived" in data.train.spec.input_columns
    assert data.classes == ["no", "yes"]


def test_a_file_of_that_name_comes_first(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("titanic").write_text("x,y\n" + "1,a\n2,b\n" * 20, encoding="utf-8")
    assert recipes.read_data("titanic", target="y").classes == ["a", "b"]
    assert not server.requests


def test_it_is_downloaded_to_where_it_is_wanted(server: Server, tmp_path: Path) -> None:
    assert recipes.download("titanic", tmp_path / "here.csv") == str(tmp_path / "here.csv")
    assert (tmp_path / "here.csv").read_text(encoding="utf-8").startswith("survived,")
    assert recipes.download("penguins", tmp_path) == str(tmp_path / "penguins.csv")


def test_another_file_at_the_address_is_refused(server: Server) -> None:
    server.files["/titanic.csv"] = b"survived\n1\n"
    with pytest.raises(IntegrityError):
        recipes.read_data("titanic")
