"""Prediction from a model file: the same numbers as in validation, for files, tables and texts, and clear refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import dlkit
import warm
from dlkit.datasets import CSVDataset, Glyphs, ImageFolder, TextDataset
from dlkit.errors import ArgumentError, DataError
from dlkit.inference import Prediction
from dlkit.models import SmallConvNet, TabularMLP, TextClassifier
from dlkit.transforms import for_evaluation

SIZE = for_evaluation(32)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of four pictures of odd sizes."""
    drawn = np.random.default_rng(0)
    for name in ("bee", "ant"):
        for number in range(4):
            folder = tmp_path / "photos" / name
            folder.mkdir(parents=True, exist_ok=True)
            height, width = drawn.integers(40, 90, 2)
            pixels = drawn.integers(0, 255, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{name}{number}.jpg")
    return tmp_path / "photos"


@pytest.fixture
def insects(tmp_path: Path) -> dlkit.Predictor:
    torch.manual_seed(0)
    model = SmallConvNet(2, in_chans=3)
    return dlkit.load(dlkit.save(model, tmp_path / "insects", classes=["ant", "bee"], preprocessing=SIZE))


class TestImages:
    def test_the_logits_are_those_of_validation_bit_for_bit(self, photos: Path, insects: dlkit.Predictor) -> None:
        data = ImageFolder(photos, transform=SIZE)
        with torch.inference_mode():
            seen = torch.cat([insects.model(images) for images, _ in DataLoader(data, 3)])
        paths = [data.path(number) for number in range(len(data))]
        assert torch.equal(insects.logits(paths, batch_size=3), seen)

    def test_one_file_many_files_and_a_folder(self, photos: Path, insects: dlkit.Predictor) -> None:
        file = photos / "bee" / "bee0.jpg"
        one = insects.predict_one(file, top_k=2)
        assert isinstance(one, Prediction)
        assert [name for name, _ in one.top] in (["ant", "bee"], ["bee", "ant"])
        assert sum(share for _, share in one.top) == pytest.approx(1)
        assert (one.label, one.probability) == one.top[0]
        many = insects.predict([file, photos / "ant" / "ant1.jpg"], top_k=2)
        assert list(many) == ["file", "prediction", "probability", "prediction_2", "probability_2"]
        assert many["prediction"][0] == one.label
        assert insects.predict_file(str(photos))["file"].map(lambda name: Path(name).name).tolist() == [
            *(f"ant{n}.jpg" for n in range(4)),
            *(f"bee{n}.jpg" for n in range(4)),
        ]

    def test_pictures_in_memory_are_prepared_like_files(self, tmp_path: Path, insects: dlkit.Predictor) -> None:
        pixels = np.random.default_rng(1).integers(0, 255, (50, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "a.png")
        wanted = insects.logits(tmp_path / "a.png")
        assert torch.equal(insects.logits(pixels), wanted)
        assert torch.equal(insects.logits(Image.fromarray(pixels)), wanted)
        assert len(insects.predict([pixels, pixels])) == 2

    def test_bad_files_by_policy(self, photos: Path, insects: dlkit.Predictor) -> None:
        (photos / "ant" / "ant1.jpg").write_bytes(b"no picture")
        with pytest.raises(DataError, match=r"ant1\.jpg"):
            insects.predict(photos)
        found = insects.predict(photos, on_error="skip")
        assert len(found) == 8
        bad = found[found["error"] != ""]
        assert bad["file"].map(lambda name: Path(name).name).tolist() == ["ant1.jpg"]
        assert bad["prediction"].isna().all()
        assert found["prediction"].notna().sum() == 7
        one = insects.predict(photos / "ant" / "ant1.jpg", on_error="skip")
        assert one["prediction"].isna().tolist() == [True]
        assert "ant1.jpg" in one["error"][0]

    def test_wrong_sources(self, tmp_path: Path, insects: dlkit.Predictor) -> None:
        with pytest.raises(DataError, match=r"there is no file .*none\.jpg"):
            insects.predict(tmp_path / "none.jpg")
        with pytest.raises(ArgumentError, match="top_k"):
            insects.predict(torch.rand(1, 3, 32, 32), top_k=0)
        with pytest.raises(ArgumentError, match="on_error"):
            insects.predict(tmp_path / "x.jpg", on_error="ignore")  # type: ignore[arg-type]

    def test_evaluation_matches_classes_by_name(self, photos: Path, insects: dlkit.Predictor) -> None:
        usual = insects.evaluate(photos)
        assert usual["samples"] == 8
        turned = ImageFolder(photos, transform=SIZE, classes={"bee": 0, "ant": 1})
        assert insects.evaluate(turned) == pytest.approx(usual)
        own = ImageFolder(photos, size=64)  # prepared another way: prepared anew, the model's way
        assert insects.evaluate(own) == pytest.approx(usual)
        (photos / "wasp").mkdir()
        (photos / "wasp" / "w.jpg").write_bytes((photos / "bee" / "bee0.jpg").read_bytes())
        with pytest.raises(DataError, match="wasp, which the model does not know; it knows ant, bee"):
            insects.evaluate(photos)

    def test_letters_from_memory_and_from_their_file(self, tmp_path: Path) -> None:
        letters = Glyphs(20, seed=0)
        model = SmallConvNet(len(letters.classes))
        again = dlkit.load(dlkit.save(model, tmp_path / "m", preprocessing=letters))
        Image.fromarray(letters.images[3].numpy()).save(tmp_path / "letter.png")
        with torch.inference_mode():
            assert torch.equal(again.logits(tmp_path / "letter.png"), again.model(letters[3][0][None]))


@pytest.fixture
def table() -> pd.DataFrame:
    drawn = np.random.default_rng(0)
    x, group = drawn.normal(size=60), drawn.choice(list("pqr"), 60)
    return pd.DataFrame({"x": x, "group": group, "y": np.where(x > 0, "yes", "no"), "price": 100 + 20 * x})


class TestTables:
    def test_rows_files_and_frames_with_the_target_or_without(self, table: pd.DataFrame, tmp_path: Path) -> None:
        data = CSVDataset(table.drop(columns="price"), target="y", task="classification")
        again = dlkit.load(dlkit.save(TabularMLP(data.spec), tmp_path / "m", preprocessing=data))
        with torch.inference_mode():
            seen = again.model(**next(iter(DataLoader(data, 60)))[0])
        assert torch.equal(again.logits(table), seen)
        table.drop(columns=["y", "price"]).to_csv(tmp_path / "new.csv", index=False)
        found = again.predict(tmp_path / "new.csv")
        assert found["prediction"].tolist() == again.predict(table)["prediction"].tolist()
        assert set(found["prediction"]) <= {"yes", "no"}
        one = again.predict_one({"x": table["x"][0], "group": "never seen"})
        assert one.label in ("yes", "no")
        scores = again.evaluate(table)
        expected = float((np.array(found["prediction"]) == table["y"].to_numpy()).mean())
        assert scores["accuracy"] == pytest.approx(expected)

    def test_a_missing_column_is_named(self, table: pd.DataFrame, tmp_path: Path) -> None:
        data = CSVDataset(table.drop(columns="price"), target="y")
        again = dlkit.load(dlkit.save(TabularMLP(data.spec), tmp_path / "m", preprocessing=data))
        with pytest.raises(DataError, match="'group'"):
            again.predict(table.drop(columns="group"))

    def test_regression_comes_back_in_its_own_units(self, table: pd.DataFrame, tmp_path: Path) -> None:
        data = CSVDataset(table.drop(columns="y"), target="price")
        again = dlkit.load(dlkit.save(TabularMLP(data.spec), tmp_path / "m", preprocessing=data))
        found = again.predict(table)
        assert list(found) == ["price"]
        with torch.inference_mode():
            scaled = again.model(**next(iter(DataLoader(data, 60)))[0])
        wanted = scaled * table["price"].std(ddof=0) + table["price"].mean()
        torch.testing.assert_close(torch.tensor(found["price"], dtype=torch.float32), wanted, rtol=1e-3, atol=1e-2)
        off = (torch.tensor(found["price"]) - torch.tensor(table["price"])).abs().mean()
        assert again.evaluate(table)["mae"] == pytest.approx(float(off), rel=1e-3)
        assert set(again.predict_one(dict(table.iloc[0])).values) == {"price"}

    def test_binary_and_several_labels(self, table: pd.DataFrame, tmp_path: Path) -> None:
        data = CSVDataset(table.drop(columns="price"), target="y", task="binary")
        again = dlkit.load(dlkit.save(TabularMLP(data.spec), tmp_path / "m", preprocessing=data))
        assert again.task == "binary"
        shares = again.probabilities(table)
        assert shares.shape == (60, 2)
        torch.testing.assert_close(shares.sum(1), torch.ones(60))
        torch.testing.assert_close(shares[:, 1], again.logits(table).sigmoid().reshape(-1))
        labels = pd.DataFrame({"x": [1.0, 2.0, 3.0], "tags": ["red|big", "big", "red"]})
        several = CSVDataset(labels, target="tags", task="multilabel", label_separator="|")
        model = TabularMLP(several.spec)
        with torch.no_grad():
            model.layers[-1].weight.zero_()
            model.layers[-1].bias.copy_(torch.tensor([5.0, 5.0]))
        tagged = dlkit.load(dlkit.save(model, tmp_path / "n", preprocessing=several))
        assert tagged.predict_one({"x": 1.0}).label == "|".join(several.classes)
        assert list(tagged.predict({"x": 1.0})) == ["prediction", "big", "red"]
        assert tagged.predict_one({"x": 1.0}).values == pytest.approx({"big": 0.99331, "red": 0.99331}, abs=1e-4)
        assert tagged.evaluate(labels)["accuracy"] == pytest.approx(4 / 6)


class TestTexts:
    @pytest.fixture
    def reader(self, tmp_path: Path) -> dlkit.Predictor:
        data = TextDataset(["good film", "bad film", "good"], target=["pos", "neg", "pos"], min_freq=1)
        model = TextClassifier(len(data.vocabulary), 2)
        return dlkit.load(dlkit.save(model, tmp_path / "m", preprocessing=data))

    def test_a_text_a_list_and_a_file(self, reader: dlkit.Predictor, tmp_path: Path) -> None:
        assert reader.predict_one("a good film").label in ("pos", "neg")
        many = reader.predict(["good", "bad film"])
        assert many["text"].tolist() == ["good", "bad film"]
        (tmp_path / "new.csv").write_text("id,comment\n1,good\n2,bad film\n")
        found = reader.predict(tmp_path / "new.csv", text="comment")
        assert found["prediction"].tolist() == many["prediction"].tolist()

    def test_bytes_are_one_text_as_a_file_holds_it(self, reader: dlkit.Predictor, tmp_path: Path) -> None:
        wanted = reader.predict(["good", "bad film"])
        kinds = [str.encode, lambda text: bytearray(text.encode("utf-8-sig")), lambda text: text.encode("utf-16")]
        for kind in (*kinds, lambda text: memoryview(f"{text}\n".encode())):
            given = [kind(text) for text in wanted["text"]]
            pd.testing.assert_frame_equal(reader.predict(given), wanted)
            pd.testing.assert_frame_equal(reader.predict(given[0]), wanted[:1])
            assert reader.predict_one(given[1]).label == wanted["prediction"][1]
            rows = reader.predict([{"comment": each} for each in given], text="comment")
            pd.testing.assert_frame_equal(rows, wanted)
        (tmp_path / "lines").write_bytes(b"good\nbad film\n")
        with open(tmp_path / "lines", "rb") as lines:
            pd.testing.assert_frame_equal(reader.predict(lines), wanted)

    def test_bytes_that_are_not_a_text_get_an_error_in_their_place(self, reader: dlkit.Predictor) -> None:
        given = [b"good", b"%PDF-1.7 \n1 0 obj", "bad film", b"\x89PNG\r\n\x1a\n0000"]
        found = reader.predict(given, on_error="skip")
        assert found["prediction"].notna().tolist() == [True, False, True, False]
        assert "PDF" in found["error"][1]
        assert "PNG" in found["error"][3]
        with pytest.raises(DataError, match=r"item 1 .*PDF"):
            reader.predict(given)
        with pytest.raises(ArgumentError, match="this model takes texts: a string, bytes, a list of these"):
            reader.predict(7)

    def test_padding_beside_a_longer_text_changes_nothing(self, reader: dlkit.Predictor) -> None:
        alone = reader.logits(["good"])
        together = reader.logits(["good", "bad film " * 20])
        torch.testing.assert_close(together[:1], alone)

    def test_evaluation(self, reader: dlkit.Predictor) -> None:
        data = TextDataset(["good", "bad"], target=["pos", "neg"], spec=reader.preprocessing)
        assert set(reader.evaluate(data)) == {"samples", "accuracy", "loss"}
        other = TextDataset(["so", "so"], target=["pos", "neg"], min_freq=1)
        with pytest.raises(ArgumentError, match="prepared by another spec"):
            reader.evaluate(other)


class TestOpening:
    def test_opening_imports_no_training_code_and_is_quick(self, tmp_path: Path) -> None:
        model = dlkit.transfer.create_model("torchvision/resnet18", classes=["a", "b"], pretrained=False)
        path = dlkit.save(model, tmp_path / "m")
        code = (
            f"{warm.FORGET_DLKIT}import time, torch\n"
            "heavy = 'matplotlib', 'pandas', 'pyarrow', 'requests', 'sklearn', 'timm', 'torchmetrics'\n"
            "for name in [name for name in sys.modules if name.partition('.')[0] in heavy]: del sys.modules[name]\n"
            "began = time.process_time()\n"
            f"import dlkit; dlkit.load({str(path)!r})\n"
            "print(time.process_time() - began)\n"
            "print([name for name in sys.modules if name.startswith(('dlkit.training', 'dlkit.callbacks'))])\n"
            "print([name for name in heavy if name in sys.modules])"
        )
        seconds, training, heavy = warm.run(["-c", code], check=True).stdout.splitlines()
        assert training == heavy == "[]"
        assert float(seconds) < 2  # of a busy machine, torchvision being there; bench/open_model.py has the quiet one

    def test_another_device_is_used(self, insects: dlkit.Predictor, tmp_path: Path) -> None:
        wanted = torch.device("cpu", 0)  # the one other name for a device that every machine has
        assert dlkit.load(tmp_path / "insects", device="cpu:0").device == wanted
        assert dlkit.load(tmp_path / "insects", device="auto").device.type in ("cpu", "cuda", "mps")
