"""What a prediction takes: one line per input in its place, strings that open nothing, columns known by name."""

from __future__ import annotations

import functools
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from PIL import Image, ImageOps

import dlkit
from dlkit._progress import Bar
from dlkit.artifact.inputs import Meaning
from dlkit.datasets import CSVDataset, ImageTable, TextDataset
from dlkit.errors import ArgumentError, DataError, ModelFileError, TrainingError
from dlkit.inference.inputs import FileName
from dlkit.models import SmallConvNet, TabularMLP, TextClassifier
from dlkit.transforms import for_evaluation


@pytest.fixture(scope="module")
def save(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dlkit.Predictor]:
    """A model's file, opened again."""
    folder, count = tmp_path_factory.mktemp("models"), iter(range(1000))

    def through_a_file(model: torch.nn.Module, data: Any, **more: Any) -> dlkit.Predictor:
        return dlkit.load(dlkit.save(model, folder / str(next(count)), preprocessing=data, **more))

    return through_a_file


ROWS = pd.DataFrame({"size": np.arange(20) / 3, "kind": ["a", "b"] * 10, "price": np.arange(20) * 7.0 + 50})


@pytest.fixture(scope="module")
def prices(save: Callable[..., dlkit.Predictor]) -> dlkit.Predictor:
    torch.manual_seed(0)
    data = CSVDataset(ROWS, target="price")
    return save(TabularMLP(data.spec), data)


@pytest.fixture(scope="module")
def reader(save: Callable[..., dlkit.Predictor]) -> dlkit.Predictor:
    torch.manual_seed(0)
    frame = pd.DataFrame({"id": range(3), "comment": ["good film", "bad film", "good"], "mood": ["pos", "neg", "pos"]})
    data = TextDataset(frame, text="comment", target="mood", min_freq=1)
    return save(TextClassifier(len(data.vocabulary), 2), data)


@pytest.fixture(scope="module")
def insects(save: Callable[..., dlkit.Predictor]) -> dlkit.Predictor:
    torch.manual_seed(0)
    return save(SmallConvNet(2, in_chans=3), for_evaluation(32), classes=["ant", "bee"])


def picture(seed: int = 0, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (50, 60, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **more: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestStrings:
    def test_texts_never_open_a_file_of_that_name(
        self, reader: dlkit.Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "secret.txt").write_text("one\ntwo\n")
        (tmp_path / "secret.csv").write_text("comment\none\n")
        for name in ("secret.txt", "secret.csv", str(tmp_path / "secret.csv")):
            for given in (name, [name], pd.Series([name]), np.array([name]), np.array(name), iter([name])):
                assert reader.predict(given)["text"].tolist() == [name]
            assert reader.predict({"comment": name})["text"].tolist() == [name]
            assert str(reader.predict_one(name)) == str(reader.predict_one(name + " "))
        assert reader.predict_file("secret.txt")["text"].tolist() == ["one", "two"]
        assert reader.predict(Path("secret.csv"))["text"].tolist() == ["one"]

    def test_other_models_refuse_strings_and_name_the_way(
        self, insects: dlkit.Predictor, prices: dlkit.Predictor, tmp_path: Path
    ) -> None:
        picture().save(tmp_path / "a.png")
        name = str(tmp_path / "a.png")
        for given in (name, [name], [tmp_path / "a.png", name], pd.Series([name])):
            with pytest.raises(ArgumentError, match=r"opens nothing that a string names: .*Path\(.*predict_file\("):
                insects.predict(given)
        ROWS.to_csv(tmp_path / "new.csv", index=False)
        for given in (str(tmp_path / "new.csv"), [str(tmp_path / "new.csv")]):
            with pytest.raises(ArgumentError, match=r"predict_file"):
                prices.predict(given)
        assert len(insects.predict_file(name)) == 1
        assert len(insects.predict_file([name, tmp_path / "a.png"])) == 2
        assert len(prices.predict_file(str(tmp_path / "new.csv"))) == 20

    def test_names_in_rows_open_files_only_below_a_folder_that_is_stated(
        self, save: Callable[..., dlkit.Predictor], tmp_path: Path
    ) -> None:
        for number in range(4):
            picture(number).save(tmp_path / f"{number}.png")
        frame = pd.DataFrame({"photo": [f"{n}.png" for n in range(4)], "x": [0.1, 0.2, 0.3, 0.4], "y": list("abab")})
        mixed = CSVDataset(frame, target="y", image="photo", image_root=tmp_path, image_size=16)
        model = Mixed()
        again = save(model, mixed, example={"numeric": torch.zeros(1, 1), "image": torch.zeros(1, 3, 224, 224)})
        with pytest.raises(ArgumentError, match=r"'photo' names image files: .*image_root="):
            again.predict(frame)
        with pytest.raises(ArgumentError, match="image_root="):
            again.predict({"photo": str(tmp_path / "0.png"), "x": 1})
        assert len(again.predict(frame, image_root=tmp_path)) == 4
        frame.to_csv(tmp_path / "rows.csv", index=False)
        (tmp_path / "2.png").write_bytes(b"no image")
        (tmp_path / "3.png").unlink()
        found = again.predict(tmp_path / "rows.csv", on_error="skip")
        assert found["error"].str.len().gt(0).tolist() == [False, False, True, True]
        assert found["prediction"].notna().tolist() == [True, True, False, False]

    def test_what_is_no_file_is_not_waited_for(
        self, insects: dlkit.Predictor, prices: dlkit.Predictor, reader: dlkit.Predictor, tmp_path: Path
    ) -> None:
        for name in ("pipe", "pipe.csv"):
            os.mkfifo(tmp_path / name)
            for predictor in (prices, reader):
                with pytest.raises(DataError, match="named pipe"):
                    predictor.predict(tmp_path / name)
        with pytest.raises(DataError, match="named pipe"):
            insects.predict(tmp_path / "pipe")
        picture().save(tmp_path / "a.png")
        found = insects.predict([tmp_path / "a.png", tmp_path / "pipe"], on_error="skip")
        assert ["named pipe" in error for error in found["error"]] == [False, True]

    def test_an_address_stays_as_it_was_written(self) -> None:
        assert os.fspath(FileName("https://example.org/a.csv")) == "https://example.org/a.csv"


@dlkit.register("tests.mixed")
class Mixed(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def forward(self, numeric: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.cat([numeric, image.mean((1, 2, 3))[:, None]], 1))


class TestOneLinePerInput:
    def test_a_filtered_frame_keeps_its_index(self, prices: dlkit.Predictor) -> None:
        whole = prices.predict(ROWS)["price"]
        odd = ROWS[ROWS["kind"] == "b"].sample(frac=1, random_state=0).rename(index=lambda n: f"row {n}")
        odd.index.name = "id"
        found = prices.predict(odd, batch_size=3)
        assert found.index.equals(odd.index)
        assert found.index.name == "id"
        np.testing.assert_allclose(found["price"], whole[[int(n.split()[1]) for n in odd.index]], rtol=1e-5)
        assert odd.assign(found=found["price"])["found"].tolist() == found["price"].tolist()

    @pytest.mark.parametrize("size", [1, 2, 64])
    def test_bad_rows_of_a_file_get_their_error_in_their_place(
        self, prices: dlkit.Predictor, tmp_path: Path, size: int
    ) -> None:
        path = tmp_path / "new.csv"
        path.write_text('size,kind\n1,a\n2,a,3\nmany,b\n4,b\n"broken"x,a\n\n6,z\n')
        found = prices.predict(path, on_error="skip", batch_size=size)
        assert list(found) == ["price", "error"]
        assert found["error"].tolist() == [
            "",
            "has 3 cells where the header has 2",
            "has no number in column 'size' but 'many'",
            "",
            found["error"][4],
            "",
        ]
        assert "broken quote" in found["error"][4]
        good = prices.predict(pd.DataFrame({"size": [1, 4, 6], "kind": ["a", "b", "z"]}))
        np.testing.assert_allclose(found["price"][[0, 3, 5]], good["price"], rtol=1e-6)
        assert found["price"].isna().tolist() == [False, True, True, False, True, False]
        with pytest.raises(
            DataError, match=r"line 3 of new\.csv has 3 cells.*on_error='skip' reports this error in the"
        ):
            prices.predict(path)

    def test_bad_dicts_get_their_error_in_their_place(self, prices: dlkit.Predictor) -> None:
        rows: list[Any] = [
            {"size": 1, "kind": "a"},
            {"size": "x", "kind": "a"},
            {"kind": "a"},
            7,
            {"size": None, "kind": None, "more": 1},
            {"size": [1], "kind": "a"},
            {"size": True, "kind": "a"},
            {"size": 10**400, "kind": "a"},
            {"size": "1", "kind": "a"},
            {"size": np.int64(1), "kind": pd.NA},
            {"size": pd.Timestamp("2020-01-01"), "kind": pd.NaT},
            {"size": float("inf"), "kind": 2**60},
        ]
        found = prices.predict(rows, on_error="skip")
        bad = [False, True, True, True, False, True, True, True, False, False, True, False]
        assert [bool(error) for error in found["error"]] == bad
        assert found["error"][2] == "lacks 'size'; it has 'kind' (None stands for missing)"
        assert found["price"][0] == found["price"][8]
        for place, row in enumerate(rows):  # and alone it gives the same as among others
            alone = prices.predict([row], on_error="skip")
            assert alone["error"][0] == found["error"][place]
            np.testing.assert_allclose(alone["price"][0], found["price"][place], rtol=1e-5)
        with pytest.raises(DataError, match="row 1 has no number in column 'size' but 'x'"):
            prices.predict(rows)

    def test_a_row_means_the_same_whatever_stands_beside_it(self, prices: dlkit.Predictor, tmp_path: Path) -> None:
        """A file whose blocks are written in several ways would else be read in several ways."""
        odd = prices.predict([{"size": "1,234", "kind": "a"}], on_error="skip")
        assert odd["error"].tolist() == ["has no number in column 'size' but '1,234'"]
        dated = pd.DataFrame({"day": ["25.01.2020", "26.02.2021"] * 10, "y": np.arange(20.0)})
        data = CSVDataset(dated, target="y")
        again = dlkit.load(dlkit.save(TabularMLP(data.spec), tmp_path / "m", preprocessing=data))
        found = again.predict([{"day": "03.02.2020"}, {"day": "2020-02-03"}, {"day": "13/02/2020"}], on_error="skip")
        assert [bool(error) for error in found["error"]] == [False, True, True]

    def test_decimal_commas_stay_what_they_are_in_a_file_without_any(self, tmp_path: Path) -> None:
        german = pd.DataFrame({"x": ["1.234,5", "2.000,25", "7,5"] * 10, "y": np.arange(30.0)})
        data = CSVDataset(german, target="y")
        again = dlkit.load(dlkit.save(TabularMLP(data.spec), tmp_path / "m", preprocessing=data))
        (tmp_path / "new.csv").write_text("x\n1.234\n2.500\n")
        wanted = again.predict(pd.DataFrame({"x": [1234.0, 2500.0]}))
        assert again.predict(tmp_path / "new.csv")["y"].tolist() == wanted["y"].tolist()

    def test_bad_texts_get_their_error_in_their_place(self, reader: dlkit.Predictor) -> None:
        given = ["good", None, float("nan"), 3, "bad film", "half \ud800"]
        found = reader.predict(given, on_error="skip", batch_size=2)
        assert [bool(error) for error in found["error"]] == [False, True, True, True, False, True]
        assert found["error"][3] == "has a value of type int where a text is expected"
        assert found["prediction"][[0, 4]].tolist() == reader.predict(["good", "bad film"])["prediction"].tolist()
        with pytest.raises(DataError, match="item 1 of the list has no text"):
            reader.predict(given)
        series = pd.Series(["bad film", "good"], index=["x", "y"])
        assert reader.predict(series).index.tolist() == ["x", "y"]

    def test_one_input_gives_one_prediction_or_one_line(
        self, prices: dlkit.Predictor, reader: dlkit.Predictor, insects: dlkit.Predictor
    ) -> None:
        for predictor, one in ((prices, dict(ROWS.iloc[3])), (reader, "good"), (insects, picture())):
            table = predictor.predict(one)
            assert len(table) == 1
            single = predictor.predict_one(one)
            assert single.label == table.get("prediction", [None])[0]
            many = [one, one]
            with pytest.raises(ArgumentError, match="more than one; predict takes any number"):
                predictor.predict_one(many)
            with pytest.raises(ArgumentError, match="no input"):
                predictor.predict_one([])
        row = ROWS.iloc[3]
        assert prices.predict_one(row).values == pytest.approx({"price": prices.predict(ROWS)["price"][3]}, rel=1e-5)

    def test_nothing_gives_an_empty_table_with_the_same_columns(
        self, prices: dlkit.Predictor, reader: dlkit.Predictor, insects: dlkit.Predictor, tmp_path: Path
    ) -> None:
        (tmp_path / "empty.csv").write_text("kind,size\n")
        for given in ([], ROWS.iloc[:0], tmp_path / "empty.csv"):
            found = prices.predict(given, on_error="skip")
            assert (len(found), list(found)) == (0, ["price", "error"])
        assert list(reader.predict([])) == ["text", "prediction", "probability"]
        assert list(insects.predict([], top_k=2))[-1] == "probability_2"
        assert insects.logits([]).shape == (0, 2)
        assert prices.probabilities([]).shape == (0, 1)
        (tmp_path / "wrong.csv").write_text("kind,weight\n")
        with pytest.raises(DataError, match="lacks the column 'size'"):
            prices.predict(tmp_path / "wrong.csv")

    def test_batches_come_as_they_are_computed(self, prices: dlkit.Predictor) -> None:
        taken = []

        def rows() -> Iterator[dict[str, Any]]:
            for number in range(3000):
                taken.append(number)
                yield {"size": number, "kind": "a"}

        batches = prices.predict_batches(rows(), batch_size=100)
        first = next(batches)
        assert len(taken) < 3000
        whole = pd.concat([first, *batches])
        assert whole.index.tolist() == list(range(3000))
        assert whole["price"].tolist() == prices.predict(rows(), batch_size=100)["price"].tolist()
        assert [len(part) for part in prices.predict_batches(rows())] == [1024, 1024, 952]  # rows are little work

    @pytest.mark.parametrize(("size", "batches"), [(224, [8, 2]), (500, [1] * 10), (32, [10])])
    def test_fewer_large_images_are_computed_at_once(self, tmp_path: Path, size: int, batches: list[int]) -> None:
        model, ready = SmallConvNet(2, in_chans=3), for_evaluation(size)
        points = dlkit.load(dlkit.save(model, tmp_path / "m", classes=["a", "b"], preprocessing=ready))
        given = [np.zeros((8, 8, 3), dtype=np.uint8)] * 10
        assert [len(part) for part in points.predict_batches(given)] == batches

    def test_answers_are_the_numbers_behind_predictions(self, prices: dlkit.Predictor, reader: dlkit.Predictor) -> None:
        given = ["good", "bad", None] * 40
        parts = list(reader.answers(given, on_error="skip"))
        assert [(batch.size, len(batch.errors), len(found)) for batch, found in parts] == [(64, 21, 43), (56, 19, 37)]
        found = torch.cat([found for _, found in parts])
        torch.testing.assert_close(found, reader.probabilities(given[:2] * 40))
        with pytest.raises(ArgumentError, match="on_error"):
            next(prices.answers(ROWS, on_error="ignore"))

    def test_a_bar_on_a_terminal_and_none_in_a_log(
        self, prices: dlkit.Predictor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("dlkit.inference.predictor.Bar", functools.partial(Bar, delay=0))
        for screen, progress, shown in ((Screen(), True, True), (Screen(), False, False), (io.StringIO(), True, False)):
            monkeypatch.setattr(sys, "stderr", screen)
            prices.predict(ROWS, batch_size=5, progress=progress)
            assert ("predicting:" in screen.getvalue() and "/20 [" in screen.getvalue()) == shown

    def test_a_file_is_read_while_it_is_predicted(
        self, prices: dlkit.Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Memory stays that of a block: what is wrong at the end is found at the end."""
        monkeypatch.setattr("dlkit.reading.blocks.BLOCK_BYTES", 1000)
        (tmp_path / "long.csv").write_text("size,kind\n" + "1.5,a\n" * 999 + "many,b\n")
        batches = prices.predict_batches(tmp_path / "long.csv", batch_size=100)
        assert len([next(batches) for _ in range(9)]) == 9
        with pytest.raises(DataError, match=r"line 1001 of long\.csv has no number in column 'size' but 'many'"):
            list(batches)

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp949"])
    def test_the_content_of_a_table_is_read_as_its_file(
        self, prices: dlkit.Predictor, tmp_path: Path, encoding: str
    ) -> None:
        frame = ROWS.assign(kind=["가나", "b"] * 10)
        (tmp_path / "new.csv").write_bytes(frame.to_csv(index=False, sep=";").encode(encoding))
        wanted = prices.predict(tmp_path / "new.csv")
        data = (tmp_path / "new.csv").read_bytes()
        with open(tmp_path / "new.csv", "rb") as file:
            for given in (data, bytearray(data), memoryview(data), file, io.BytesIO(data)):
                assert prices.predict(given).equals(wanted)
        file = io.BytesIO()
        frame.to_parquet(file)
        assert prices.predict(file.getvalue()).equals(wanted)
        bad = prices.predict(b"size,kind\n1,a\n2\nmany,b\n", on_error="skip")
        assert [bool(error) for error in bad["error"]] == [False, True, True]
        with pytest.raises(DataError, match="line 3 of the table has no number in column 'size' but 'many'"):
            prices.predict(b"size,kind\n1,a\nmany,b\n")
        assert len(prices.predict(b"size,kind\n")) == 0
        for content, told in ((b"", "empty"), (b"kind\na\n", "lacks the column 'size'"), (b"PAR1junk", "damaged")):
            with pytest.raises(DataError, match=told):
                prices.predict(content)

    def test_blocks_of_a_file_and_batches_do_not_meet(
        self, prices: dlkit.Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        frame = pd.concat([ROWS] * 40, ignore_index=True)
        frame.to_csv(tmp_path / "long.csv", index=False)
        frame.to_parquet(tmp_path / "long.parquet", row_group_size=70)
        wanted = prices.predict(frame)["price"].tolist()
        monkeypatch.setattr("dlkit.reading.blocks.BLOCK_BYTES", 1000)
        assert prices.predict(tmp_path / "long.csv")["price"].tolist() == wanted
        assert prices.predict(tmp_path / "long.parquet")["price"].tolist() == wanted
        two = prices.predict_file([tmp_path / "long.csv", tmp_path / "long.parquet"])
        assert two["price"].tolist() == [*wanted, *wanted]


class TestColumns:
    def test_a_file_of_texts_is_read_by_the_column_of_the_training(
        self, reader: dlkit.Predictor, tmp_path: Path
    ) -> None:
        wanted = reader.predict(["good", "bad film"])
        assert reader.info["columns"] == ["comment"]
        frame = pd.DataFrame({"id": ["bad", "bad"], "comment": ["good", "bad film"]}, index=[7, 8])
        frame.to_csv(tmp_path / "new.csv")
        frame.to_parquet(tmp_path / "new.parquet")
        frame.to_json(tmp_path / "new.jsonl", orient="records", lines=True)
        sources = [tmp_path / name for name in ("new.csv", "new.parquet", "new.jsonl")]
        for given in (*sources, frame, frame.to_dict("records")):
            found = reader.predict(given)
            assert found["text"].tolist() == ["good", "bad film"]
            assert found["probability"].tolist() == wanted["probability"].tolist()
        assert reader.predict(frame).index.tolist() == [7, 8]

    def test_without_the_column_both_are_listed(self, reader: dlkit.Predictor, tmp_path: Path) -> None:
        frame = pd.DataFrame({"id": ["bad"], "message": ["good"]})
        frame.to_csv(tmp_path / "new.csv", index=False)
        message = "no column 'comment', which held the model's texts; its columns are 'id', 'message'"
        for given in (tmp_path / "new.csv", frame, {"id": "bad", "message": "good"}):
            with pytest.raises(DataError, match=message):
                reader.predict(given)
            assert reader.predict(given, text="message")["text"].tolist() == ["good"]
        with pytest.raises(DataError, match=message):
            reader.evaluate(tmp_path / "new.csv", target="id")

    def test_where_no_column_is_known_none_is_taken(self, save: Callable[..., dlkit.Predictor], tmp_path: Path) -> None:
        data = TextDataset(["good film", "bad film"], target=["pos", "neg"], min_freq=1)
        bare = save(TextClassifier(len(data.vocabulary), 2), data)
        (tmp_path / "new.csv").write_text("id,comment\n1,good\n")
        with pytest.raises(ArgumentError, match=r"has the columns 'id', 'comment': say which .* text='id'"):
            bare.predict(tmp_path / "new.csv")
        assert bare.predict(tmp_path / "new.csv", text="comment")["text"].tolist() == ["good"]
        assert bare.predict(tmp_path / "new.csv", text=1)["text"].tolist() == ["comment", "good"]
        (tmp_path / "texts").mkdir()
        (tmp_path / "texts" / "a.txt").write_text("good\nfilm\n")
        assert bare.predict(tmp_path / "texts")["text"].tolist() == ["good\nfilm"]

    @pytest.mark.parametrize("text", ["comment", 1])
    def test_a_column_asked_for_by_number_has_the_header_s_name(
        self, save: Callable[..., dlkit.Predictor], tmp_path: Path, text: str | int
    ) -> None:
        (tmp_path / "train.csv").write_text("stars,comment\n1.5,good film\n2.5,bad film\n")
        data = TextDataset(tmp_path / "train.csv", text=text, target="stars", min_freq=1)
        assert (data.input_columns, data.target_columns) == (("comment",), ("stars",))
        stars = save(TextClassifier(len(data.vocabulary), 1), data)
        assert list(stars.predict(["good"])) == ["text", "stars"]

    def test_pairs_of_texts(self, save: Callable[..., dlkit.Predictor]) -> None:
        frame = pd.DataFrame({"q": ["who", "what"] * 3, "a": ["me", "that"] * 3, "y": ["yes", "no"] * 3})
        data = TextDataset(frame, text="q", pair="a", target="y", min_freq=1)
        model = TextClassifier(len(data.vocabulary), 2)
        try:
            pairs = save(model, data)
        except ArgumentError:
            pytest.skip("this model takes no pairs")
        found = pairs.predict(frame)
        assert list(found) == ["text", "text_2", "prediction", "probability"]
        assert pairs.predict(list(zip(frame["q"], frame["a"], strict=True))).equals(found)
        assert pairs.predict_one(("who", "me")).label == found["prediction"][0]

    def test_images_named_in_a_table(self, save: Callable[..., dlkit.Predictor], tmp_path: Path) -> None:
        for number in range(4):
            picture(number).save(tmp_path / f"{number}.png")
        frame = pd.DataFrame({"id": list("wxyz"), "photo": [str(n) for n in range(4)], "size": [0.5, 1.5, 2.5, 3.5]})
        data = ImageTable(frame, "photo", "size", root=tmp_path, suffix=".png", transform=for_evaluation(32))
        sizes = save(SmallConvNet(1, in_chans=3), data)
        assert (sizes.task, sizes.classes, sizes.info["columns"]) == ("regression", ["size"], ["photo"])
        wanted = sizes.predict([tmp_path / f"{number}.png" for number in range(4)])["size"].tolist()
        frame.to_csv(tmp_path / "new.csv", index=False)
        found = sizes.predict_file(tmp_path / "new.csv", suffix=".png")
        assert list(found) == ["file", "size"]
        assert found["size"].tolist() == wanted
        few = frame[::2]
        with pytest.raises(ArgumentError, match="pass the folder that holds them, root="):
            sizes.predict(few)
        found = sizes.predict(few, root=tmp_path, suffix=".png")
        assert found.index.tolist() == [0, 2]
        np.testing.assert_allclose(found["size"], wanted[::2], rtol=1e-5)
        lost = sizes.predict(frame.assign(photo=["0", None, "7", "3"]), root=tmp_path, suffix=".png", on_error="skip")
        assert [bool(error) for error in lost["error"]] == [False, True, True, False]
        with pytest.raises(DataError, match=r"no column 'photo', in which .* columns are 'id', 'size'; image="):
            sizes.predict(frame.drop(columns="photo"), root=tmp_path)
        with pytest.raises(ArgumentError, match="tables of images take no option 'rot'; there are image, root, suffix"):
            sizes.predict(frame, rot=tmp_path)

    def test_an_image_model_without_a_table_asks_for_the_column(self, insects: dlkit.Predictor, tmp_path: Path) -> None:
        picture().save(tmp_path / "a.png")
        frame = pd.DataFrame({"n": [1], "path": ["a.png"]})
        with pytest.raises(ArgumentError, match="has the columns 'n', 'path': say which names the files"):
            insects.predict(frame, root=tmp_path)
        assert len(insects.predict(frame, root=tmp_path, image="path")) == 1

    def test_outputs_named_like_other_columns_keep_their_names(self, save: Callable[..., dlkit.Predictor]) -> None:
        frame = pd.DataFrame({"x": [1.0, 2.0, 3.0], "error": [0.5, 1.5, 2.5], "prediction": [5.5, 2.25, 1.5]})
        data = CSVDataset(frame, target=["error", "prediction"])
        both = save(TabularMLP(data.spec), data)
        assert list(both.predict(frame, on_error="skip")) == ["error", "prediction", "error_"]
        assert set(both.predict_one({"x": 1}).values) == {"error", "prediction"}
        labels = pd.DataFrame({"x": [1.0, 2.0, 3.0], "prediction": [0, 1, 1], "late": [1, 0, 1]})
        several = CSVDataset(labels, target=["prediction", "late"], task="multilabel")
        tagged = save(TabularMLP(several.spec), several)
        found = tagged.predict(labels)
        assert list(found) == ["prediction_", "prediction", "late"]
        torch.testing.assert_close(
            torch.tensor(found[["prediction", "late"]].to_numpy(), dtype=torch.float32), tagged.logits(labels).sigmoid()
        )

    def test_outputs_without_names_are_numbered_also_where_no_input_is_good(
        self, save: Callable[..., dlkit.Predictor]
    ) -> None:
        points = save(SmallConvNet(2, in_chans=3), for_evaluation(32), task="regression")
        found = points.predict([b"", picture(), b""], on_error="skip", batch_size=1)
        assert list(found) == ["prediction_0", "prediction_1", "error"]
        assert found["prediction_1"].notna().tolist() == [False, True, False]
        assert list(points.predict([])) == ["prediction_0", "prediction_1"]

    def test_tables_of_other_libraries(self, reader: dlkit.Predictor, prices: dlkit.Predictor) -> None:
        table = pa.Table.from_pandas(ROWS, preserve_index=False)
        assert prices.predict(table)["price"].tolist() == prices.predict(ROWS)["price"].tolist()
        frame = pa.table({"id": [1], "comment": ["good"]})
        assert reader.predict(frame)["text"].tolist() == ["good"]

    def test_evaluation_reads_the_known_column(self, reader: dlkit.Predictor, tmp_path: Path) -> None:
        (tmp_path / "new.csv").write_text("id,comment,mood\n1,good film,pos\n2,bad film,neg\n")
        assert reader.evaluate(tmp_path / "new.csv", target="mood") == reader.evaluate(
            TextDataset(["good film", "bad film"], target=["pos", "neg"], spec=reader.preprocessing)
        )

    @pytest.mark.parametrize("columns", [7, "comment", [1], None])
    def test_columns_of_a_crafted_file(self, reader: dlkit.Predictor, columns: Any) -> None:
        with pytest.raises(ModelFileError, match="columns must be a list of names"):
            Meaning.from_document({**reader.meaning.document(), "columns": columns})
        without = {name: value for name, value in reader.meaning.document().items() if name != "columns"}
        assert Meaning.from_document(without).columns == ()

    def test_several_targets_come_in_their_own_units(self, save: Callable[..., dlkit.Predictor]) -> None:
        frame = pd.DataFrame({"x": np.arange(9.0), "euros": np.arange(9.0) * 1000, "days": np.arange(9.0) / 100})
        data = CSVDataset(frame, target=["euros", "days"])
        both = save(TabularMLP(data.spec), data)
        found = both.predict(frame)
        assert list(found) == ["euros", "days"]
        for place, name in enumerate(found):
            wanted = both.logits(frame)[:, place] * frame[name].std(ddof=0) + frame[name].mean()
            np.testing.assert_allclose(found[name], wanted, rtol=1e-4, atol=1e-3)


class TestImages:
    def test_bytes_files_pictures_and_pixels_are_prepared_like_the_file(
        self, insects: dlkit.Predictor, tmp_path: Path
    ) -> None:
        picture().save(tmp_path / "a.png")
        wanted = insects.logits(tmp_path / "a.png")
        data, pixels = (tmp_path / "a.png").read_bytes(), np.asarray(picture())
        with open(tmp_path / "a.png", "rb") as file:
            for given in (
                data,
                bytearray(data),
                memoryview(data),
                file,
                io.BytesIO(data),
                picture(),
                pixels,
                torch.from_numpy(pixels.copy()).permute(2, 0, 1),
            ):
                assert torch.equal(insects.logits(given), wanted), type(given)
        many = [data, io.BytesIO(data), picture(), tmp_path / "a.png"]
        torch.testing.assert_close(insects.logits(many), wanted.expand(4, -1))
        assert len(insects.predict(np.stack([pixels, pixels]))) == 2

    @pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "I;16", "1"])
    def test_a_picture_of_any_mode_is_what_its_file_is(self, insects: dlkit.Predictor, mode: str) -> None:
        image = picture(1, mode) if mode not in ("I;16", "RGBA", "LA") else picture(1)
        if mode == "I;16":
            image = Image.fromarray((np.arange(3000, dtype=np.uint16) * 20).reshape(50, 60))
        if mode in ("RGBA", "LA"):
            image = image.convert(mode)
            image.putalpha(Image.fromarray((np.arange(3000) % 256).astype(np.uint8).reshape(50, 60)))
        data = encoded(image, "TIFF" if mode == "CMYK" else "PNG")
        assert torch.equal(insects.logits(image), insects.logits(data))

    def test_a_picture_that_lies_on_its_side_is_turned_upright(self, insects: dlkit.Predictor) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        data = encoded(picture(2), "PNG", exif=exif)
        opened = Image.open(io.BytesIO(data))
        wanted = insects.logits(data)
        assert torch.equal(insects.logits(opened), wanted)
        assert torch.equal(insects.logits(ImageOps.exif_transpose(opened)), wanted)

    def test_bad_images_get_their_error_in_their_place(self, insects: dlkit.Predictor, tmp_path: Path) -> None:
        good = encoded(picture())
        given = [b"", good, b"no image", io.BytesIO(good[:200]), Image.open(io.BytesIO(good[:200])), tmp_path / "none"]
        found = insects.predict(given, on_error="skip", batch_size=4)
        odd = tmp_path / os.fsdecode(b"odd\xff.png")
        odd.write_bytes(good)
        assert insects.predict(odd)["file"].tolist() == [str(tmp_path / r"odd\udcff.png")]
        assert found["prediction"].notna().tolist() == [False, True, False, False, False, False]
        assert found["error"][2].startswith("image 2: is not an image")
        assert "there is no file" in found["error"][5]
        with pytest.raises(DataError, match="image 0: the file is empty"):
            insects.predict(given)

    @pytest.mark.parametrize("given", [7, None, {"a": 1}, [7], np.zeros((4, 4, 3)), np.zeros((0, 3), np.uint8)])
    def test_what_is_no_image(self, insects: dlkit.Predictor, given: Any) -> None:
        with pytest.raises(ArgumentError, match="image"):
            insects.predict(given)

    def test_a_file_that_is_open_as_text(self, insects: dlkit.Predictor) -> None:
        with pytest.raises(ArgumentError, match="'rb'"):
            insects.predict(io.StringIO("x"))


class TestRefusals:
    def test_options_that_would_be_ignored(self, prices: dlkit.Predictor, reader: dlkit.Predictor) -> None:
        with pytest.raises(ArgumentError, match="tables take no option 'text'; there are comment"):
            prices.predict(ROWS, text="kind")
        with pytest.raises(ArgumentError, match="texts take no option 'colum'"):
            reader.predict(["good"], colum=1)
        for wrong in (0, 1.5, True):
            with pytest.raises(ArgumentError, match="top_k"):
                reader.predict(["good"], top_k=wrong)  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match="batch_size"):
            reader.predict(["good"], batch_size=0)

    def test_kinds_that_do_not_fit(self, prices: dlkit.Predictor, reader: dlkit.Predictor) -> None:
        for given in (7, None):
            with pytest.raises(ArgumentError, match="takes texts"):
                reader.predict(given)
            with pytest.raises(ArgumentError, match="takes rows of a table"):
                prices.predict(given)
        with pytest.raises(ArgumentError, match="'rb'"):
            prices.predict(io.StringIO("size,kind"))
        with pytest.raises(ArgumentError, match="takes the name of a file, not bytes"):
            reader.predict_file(b"x")  # type: ignore[arg-type]

    def test_tensors_of_another_width(self, save: Callable[..., dlkit.Predictor]) -> None:
        given = {"numeric": torch.zeros(1, 1), "image": torch.zeros(1, 3, 8, 8)}
        bare = save(Mixed(), None, classes=["a", "b"], example=given)
        assert len(bare.predict(given)) == 1
        with pytest.raises(TrainingError, match=r"takes 2 features in the last dimension, but its input is \[1, 6\]"):
            bare.predict({**given, "numeric": torch.zeros(1, 5)})

    def test_tensors_of_different_lengths(self, prices: dlkit.Predictor) -> None:
        with pytest.raises(ArgumentError, match=r"\[3, 1\], \[2, 1\]"):
            prices.predict({"numeric": torch.zeros(3, 1), "categorical": torch.zeros(2, 1, dtype=torch.long)})
