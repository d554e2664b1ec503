"""`evaluate_file`: the part that a run held out, found again; other data, with a word on what the model knows of it."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dlkit.cli import app
from dlkit.errors import ArgumentError, DataError
from dlkit.recipes import Trained, evaluate_file, train


def frame(size: int = 120, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    size_of, kind = rng.normal(size=size), rng.choice(["a", "b"], size)
    return pd.DataFrame({"size": size_of, "kind": kind, "price": 50 * size_of + 9 * (kind == "a") + 100})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("prices of houses")
    frame().to_csv(folder / "prices.csv", index=False)
    settings: dict[str, Any] = {"epochs": 2, "device": "cpu", "progress": False, "arch": "mlp"}
    return train(folder / "prices.csv", target="price", seed=3, out=folder / "run", **settings)


def test_the_part_that_a_run_held_out_gives_the_figures_of_the_training(trained: Trained) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = evaluate_file(trained.folder)
        assert found == evaluate_file(trained.folder, trained.data.source, part="test")
        assert evaluate_file(trained.folder, part="val")["samples"] == 12
    assert found.pop("samples") == len(trained.data.test)
    assert found.keys() == trained.metrics.keys()
    assert found == pytest.approx(dict(trained.metrics), rel=1e-4)


def test_other_data_is_told_to_hold_what_was_trained_on(trained: Trained, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"96 of 120 samples equal one that the model was trained on"):
        evaluate_file(trained.folder, trained.data.source)
    new = frame(40, seed=9)
    new.to_csv(tmp_path / "new.csv", index=False)
    pd.concat([new, trained.data.train.to_pandas()[:5]]).to_csv(tmp_path / "both.csv", index=False)
    assert evaluate_file(trained.folder, tmp_path / "new.csv")["samples"] == 40
    with pytest.warns(UserWarning, match=r"5 of 45 samples equal one"):
        evaluate_file(trained.folder, tmp_path / "both.csv")
    with pytest.raises(ArgumentError, match=r"part='test': this is not the data of the model's run"):
        evaluate_file(trained.folder, tmp_path / "new.csv", part="test")
    with pytest.raises(ArgumentError, match=r"part='tset': there are train, val, test"):
        evaluate_file(trained.folder, part="tset")
    with pytest.raises(ArgumentError, match=r"target='size': the part of a run is read as the run did"):
        evaluate_file(trained.folder, target="size")
    alone = shutil.copy(trained.folder / "model.safetensors", tmp_path)
    with pytest.raises(ArgumentError, match=r"say which data to evaluate on: .* is not the folder of a run"):
        evaluate_file(alone)


def test_a_changed_file_is_not_cut_as_it_was(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "prices.csv", index=False)
    settings: dict[str, Any] = {"epochs": 1, "device": "cpu", "progress": False, "arch": "mlp"}
    done = train(tmp_path / "prices.csv", target="price", out=tmp_path / "run", **settings)
    frame(seed=1).to_csv(tmp_path / "prices.csv", index=False)
    with pytest.raises(DataError, match=r"is not what it was when the run in .* held out a part of it"):
        evaluate_file(done.folder)


def test_texts_and_images_are_found_again(tmp_path: Path) -> None:
    rows = [f"{'good' if n % 2 else 'bad'} film {n},{'pos' if n % 2 else 'neg'}" for n in range(40)]
    (tmp_path / "films.csv").write_text("\n".join(["words,mood", *rows]) + "\n")
    done = train(tmp_path / "films.csv", text="words", target="mood", out=tmp_path / "texts", progress=False)
    assert evaluate_file(done.folder)["accuracy"] == done.metrics["accuracy"]
    with pytest.warns(UserWarning, match=r"32 of 40 samples equal"):
        evaluate_file(done.folder, tmp_path / "films.csv", text="words", target="mood")
    rng = np.random.default_rng(0)
    for name, shade in (("dark", 40), ("light", 200)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(10):
            pixels = np.clip(rng.normal(shade, 20, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    done = train(tmp_path / "photos", arch="small", epochs=1, out=tmp_path / "run", device="cpu", progress=False)
    found = evaluate_file(done.folder, tmp_path / "photos", part="test")
    assert (found["samples"], found["accuracy"]) == (len(done.data.test), done.metrics["accuracy"])
    with pytest.warns(UserWarning, match=r"16 of 20 samples equal"):
        evaluate_file(done.folder, tmp_path / "photos")


def test_the_command_line_says_the_same(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        app(["evaluate", str(trained.folder)], prog_name="dlkit")
    told = capsys.readouterr().out
    assert all(f"{name} {value:.4g}" in told for name, value in trained.metrics.items())
    with pytest.raises(SystemExit), pytest.warns(UserWarning, match="96 of 120 samples"):
        app(["evaluate", str(trained.folder), trained.data.source], prog_name="dlkit")
    with pytest.raises(SystemExit):
        app(["evaluate", str(trained.folder), "--part", "tset"], prog_name="dlkit")
    assert "--part tset: there are train, val, test" in capsys.readouterr().err
