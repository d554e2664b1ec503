"""The installed command, as a person has it: from a wheel, in a fresh environment, outside of the source tree.

The environment is new and holds dlkit from the wheel alone. Torch and the rest are not installed a second time: a
`.pth` file in it names the site-packages of the Python that runs the tests. Files like it in there are not read, so
that a dlkit installed for development is not seen.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from programs import ROOT, Done, finish, start

pytestmark = [pytest.mark.proof, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder]
    subprocess.run([*map(str, command), str(ROOT)], check=True, capture_output=True)
    return next(folder.glob("dlkit_torch-*.whl"))


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of the command `dlkit`."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False, symlinks=True)
    own = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(own), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    site = next(home.glob("lib/python*/site-packages"))
    paths = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    (site / "libraries-of-the-tests.pth").write_text("\n".join(paths) + "\n")
    where = finish(start([own, "-c", "import dlkit; print(dlkit.__file__)"], home, PYTHONPATH=""))
    assert Path(where.out.strip()).is_relative_to(home), where
    return home / "bin" / "dlkit"


def dlkit(program: Path, folder: Path, *arguments: object) -> Done:
    done = finish(start([program, *arguments], folder, PYTHONPATH=""), timeout=600)
    assert done.code == 0, done.err
    return done


def moved(folder: Path, model: str) -> Path:
    """The model file somewhere else, and nothing left of the run."""
    other = folder / "elsewhere"
    other.mkdir()
    path = Path(shutil.move(folder / model, other / "mine.safetensors"))
    shutil.rmtree(folder / "runs")
    return path


def test_the_wheel_carries_what_is_no_code(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    templates = {path.relative_to(ROOT / "src") for path in (ROOT / "src/dlkit/cli/templates").rglob("*.txt")}
    assert len(templates) > 15
    assert {path.as_posix() for path in templates} <= set(names)
    assert "dlkit/py.typed" in names
    assert not any(name.startswith("tests") for name in names)


def test_ants_and_bees_from_folder_to_predictions(program: Path, shared_data: Path, tmp_path: Path) -> None:
    photos = shared_data / "images/hymenoptera"
    weights = shared_data / "weights/mobilenet_v2_imagenet.pth"
    chosen = ["--arch", "torchvision/mobilenet_v2", "--weights", weights]
    trained = dlkit(program, tmp_path, "train", photos, *chosen, "--epochs", 5, "--device", "cpu", "--json").document
    assert trained["judged_on"] == "val"
    assert trained["metrics"]["accuracy"] >= 0.9
    lines = dlkit(program, tmp_path, "predict", trained["model"], photos / "val", "--json").out.splitlines()
    before = [json.loads(line) for line in lines]
    model = moved(tmp_path, trained["model"])
    dlkit(program, tmp_path, "predict", model, photos / "val", "--out", "all.csv")
    after = pd.read_csv(tmp_path / "all.csv")
    assert [row["prediction"] for row in before] == after["prediction"].tolist()
    right = after["file"].str.split("/").str[-2] == after["prediction"]
    assert right.mean() == pytest.approx(trained["metrics"]["accuracy"], abs=1e-6)
    measured = dlkit(program, tmp_path, "evaluate", model, photos, "--part", "val", "--json").document
    assert measured["accuracy"] == pytest.approx(trained["metrics"]["accuracy"], abs=1e-6)


TABLES: list[Any] = [
    ("titanic.csv", ["--target", "survived", "--drop", "alive"], "survived", 0.75),
    ("adult.data", ["--target", "classification", "--epochs", 4], "classification", 0.84),
]


@pytest.mark.parametrize(("file", "options", "target", "least"), TABLES, ids=["titanic", "adult"])
def test_a_table_from_csv_to_predictions(
    program: Path, shared_data: Path, tmp_path: Path, file: str, options: list[object], target: str, least: float
) -> None:
    table = shared_data / "csv" / file
    trained = dlkit(program, tmp_path, "train", table, *options, "--device", "cpu", "--json").document
    assert trained["metrics"]["accuracy"] >= least
    model = moved(tmp_path, trained["model"])
    dlkit(program, tmp_path, "predict", model, table, "--out", "all.csv")
    wanted = pd.read_csv(table, skipinitialspace=True)[target].astype(str)
    found = pd.read_csv(tmp_path / "all.csv", dtype={"prediction": str})
    assert (found["prediction"] == wanted).mean() >= least
    assert target in dlkit(program, tmp_path, "info", model, "--json").out


def test_spam_from_texts_to_predictions(program: Path, shared_data: Path, tmp_path: Path) -> None:
    options = ["--text", 1, "--target", 0, "--on-error", "skip", "--out", "runs/sms"]
    file = shared_data / "text/SMSSpamCollection"
    trained = dlkit(program, tmp_path, "train", file, *options, "--device", "cpu", "--json").document
    assert trained["metrics"]["accuracy"] >= 0.97
    model = moved(tmp_path, trained["model"])
    text = "URGENT! You have won a 1 week FREE membership. Call 09061701461 now to claim your prize"
    said = dlkit(program, tmp_path, "predict", model, text, "are you coming home for dinner").out
    assert pd.read_csv(io.StringIO(said))["prediction"].tolist() == ["spam", "ham"]


def test_a_project_starts_from_the_wheel(program: Path, tmp_path: Path) -> None:
    dlkit(program, tmp_path, "new", "mine", "--task", "tabular")
    own = program.with_name("python")
    trained = finish(start([own, "train.py", "--epochs", 2, "--device", "cpu"], tmp_path / "mine", PYTHONPATH=""))
    assert trained.code == 0, trained.err
    assert (tmp_path / "mine/runs/mine/model.safetensors").is_file()
