"""The model file: what goes in comes out, nothing hostile gets through, and old files load for ever."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rewriting import at, rewritten
from safetensors import safe_open
from torch import nn

import dlkit
from dlkit.artifact import read_header
from dlkit.artifact.inputs import make_example
from dlkit.artifact.weights import pack
from dlkit.datasets import CSVDataset, Glyphs
from dlkit.errors import ArgumentError, DataNotFoundError, ModelFileError, TrainingError
from dlkit.models import SmallConvNet, TabularMLP, TextClassifier
from dlkit.specs import TextSpec
from dlkit.tokens import Vocabulary
from dlkit.transfer import create_model
from dlkit.transforms import Preprocessing, for_evaluation, for_training

GREY = for_evaluation(28, color="L", mean=0.0, std=1.0)
LETTERS = ["A", "B", "C"]


@dlkit.register("tests.Tied")
class Tied(nn.Module):
    """An output layer that shares the embedding's weight, and a buffer."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, width)
        self.out = nn.Linear(width, 10, bias=False)
        self.out.weight = self.embedding.weight
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.out(self.embedding(ids).mean(1)) * self.scale


@dlkit.register("tests.pair")
def pair(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 1))


def small(seed: int = 0) -> SmallConvNet:
    torch.manual_seed(seed)
    model = SmallConvNet(num_classes=3)
    with torch.no_grad():
        model(torch.rand(8, 1, 28, 28))  # statistics that are not the fresh ones
    return model


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return dlkit.save(small(), tmp_path / "m.safetensors", classes=LETTERS, preprocessing=GREY, metrics={"a": 0.5})


def logits(model: nn.Module, inputs: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(inputs)


class TestRoundTrip:
    def test_weights_buffers_and_outputs_come_back_bit_for_bit(self, file: Path) -> None:
        again = dlkit.load(file)
        state, own = again.model.state_dict(), small().state_dict()
        assert list(state) == list(own)
        assert all(torch.equal(state[name], own[name]) for name in own)
        images = torch.rand(2, 1, 28, 28)
        assert torch.equal(logits(again.model, images), logits(small(), images))
        assert (again.classes, again.task, again.kind, again.preprocessing) == (
            LETTERS,
            "classification",
            "image",
            GREY,
        )
        assert again.info["metrics"] == {"a": 0.5}
        assert {"dlkit", "torch", "python"} <= set(again.info["versions"])

    def test_the_plain_library_reads_the_weights(self, file: Path) -> None:
        with safe_open(file, framework="pt") as content:
            assert set(content.keys()) == set(small().state_dict())

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    def test_other_types_stay_what_they_are(self, tmp_path: Path, dtype: torch.dtype) -> None:
        model = pair(5).to(dtype)
        path = dlkit.save(model, tmp_path / "m", task="regression", example=torch.randn(4, 3))
        again = dlkit.load(path)
        assert {value.dtype for value in again.model.parameters()} == {dtype}
        given = torch.randn(2, 3)
        assert torch.equal(again.logits(given), logits(model, given.to(dtype)).float())

    def test_tied_weights_are_stored_once_and_tied_again(self, tmp_path: Path) -> None:
        model = Tied()
        path = dlkit.save(model, tmp_path / "m", classes=range(10), example=torch.randint(0, 10, (2, 5)))
        with safe_open(path, framework="pt") as content:
            assert sorted(content.keys()) == ["embedding.weight", "scale"]
        again = dlkit.load(path).model
        assert again.out.weight is again.embedding.weight
        assert torch.equal(again.out.weight, model.out.weight)

    def test_weights_tied_by_hand_after_the_model_was_made(self, tmp_path: Path) -> None:
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model.__dict__["architecture"] = dlkit.register("tests.two")(two)().architecture
        model[1].weight = model[0].weight
        again = dlkit.load(dlkit.save(model, tmp_path / "m", task="regression", example=torch.zeros(2, 3))).model
        assert again[1].weight is again[0].weight

    def test_modes_of_the_parts_are_as_before(self, tmp_path: Path) -> None:
        model = small().train()
        model.features.eval()
        dlkit.save(model, tmp_path / "m", classes=LETTERS, preprocessing=GREY)
        assert model.training
        assert not model.features.training
        assert model.dropout.training

    def test_a_pretrained_backbone_brings_its_preprocessing(self, tmp_path: Path) -> None:
        model = create_model("timm/mobilenetv3_small_050", classes=["ant", "bee"], pretrained=False, in_chans=1)
        again = dlkit.load(dlkit.save(model, tmp_path / "m"))
        assert again.classes == ["ant", "bee"]
        assert isinstance(again.preprocessing, Preprocessing)
        assert again.preprocessing.color == "L"
        images = torch.rand(2, 1, 64, 64)
        assert torch.equal(logits(again.model, images), logits(model, images))

    def test_augmentation_is_left_out(self, tmp_path: Path) -> None:
        random = for_training(28, color="L", mean=0.0, std=1.0)
        again = dlkit.load(dlkit.save(small(), tmp_path / "m", classes=LETTERS, preprocessing=random))
        assert again.preprocessing == random.for_evaluation()

    def test_a_table_brings_its_schema_and_a_text_its_vocabulary(self, tmp_path: Path) -> None:
        frame = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0], "c": list("abab"), "y": list("pqpq")})
        table = CSVDataset(frame, target="y")
        again = dlkit.load(dlkit.save(TabularMLP(table.spec), tmp_path / "t", preprocessing=table))
        assert again.preprocessing == table.spec
        assert (again.classes, again.kind) == (["p", "q"], "table")
        spec = TextSpec(encoder=Vocabulary.fit(["good film", "bad film"], min_freq=1), classes=("neg", "pos"))
        model = TextClassifier(len(spec.encoder), 2)
        assert dlkit.load(dlkit.save(model, tmp_path / "x", preprocessing=spec)).preprocessing == spec

    def test_a_compiled_model_is_saved_as_the_one_inside(self, tmp_path: Path) -> None:
        path = dlkit.save(torch.compile(small()), tmp_path / "m", classes=LETTERS, preprocessing=GREY)
        assert all("_orig_mod" not in name for name in read_header(path).shapes)

    def test_saving_over_an_older_file_replaces_it_whole(self, file: Path) -> None:
        before = file.read_bytes()
        dlkit.save(small(1), file, classes=LETTERS, preprocessing=GREY)
        assert file.read_bytes() != before
        assert [path.name for path in file.parent.iterdir()] == [file.name]

    def test_the_same_model_gives_the_same_bytes(self, file: Path, tmp_path: Path) -> None:
        other = dlkit.save(small(), tmp_path / "n", classes=LETTERS, preprocessing=GREY, metrics={"a": 0.5})
        assert other.read_bytes() == file.read_bytes()


def two() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))


class TestRefusedToSave:
    def test_a_model_nobody_registered(self, tmp_path: Path) -> None:
        with pytest.raises(ArgumentError, match=r"ModuleList is not registered.*dlkit\.register"):
            dlkit.save(nn.ModuleList(two()), tmp_path / "m", task="regression", example=torch.zeros(1, 3))

    def test_classes_or_example_that_are_missing_or_do_not_fit(self, tmp_path: Path) -> None:
        with pytest.raises(ArgumentError, match=r'pass classes=\["ant", "bee"\]'):
            dlkit.save(small(), tmp_path / "m", preprocessing=GREY)
        with pytest.raises(ArgumentError, match=r"gives \[3\] values.*2 classes.*needs 2"):
            dlkit.save(small(), tmp_path / "m", classes=["A", "B"], preprocessing=GREY)
        with pytest.raises(ArgumentError, match="names that differ"):
            dlkit.save(small(), tmp_path / "m", classes=["A", "B", "A"], preprocessing=GREY)
        with pytest.raises(ArgumentError, match="example"):
            dlkit.save(small(), tmp_path / "m", classes=LETTERS)
        with pytest.raises(TrainingError, match=r"takes images of shape .* got \[2, 3, 28, 28\]"):
            dlkit.save(small(), tmp_path / "m", classes=LETTERS, preprocessing=for_evaluation(28))
        with pytest.raises(ArgumentError, match="function has none that a file can hold"):
            dlkit.save(small(), tmp_path / "m", classes=LETTERS, preprocessing=two)
        assert list(tmp_path.iterdir()) == []

    def test_a_model_that_was_changed_after_it_was_made(self, tmp_path: Path) -> None:
        model = small()
        model.head = nn.Linear(model.head.in_features, 5)
        with pytest.raises(ModelFileError, match=r"head.bias is \[5\] in the file and \[3\] in the architecture"):
            dlkit.save(model, tmp_path / "m", classes=list("ABCDE"), preprocessing=GREY)
        silent = small()
        silent.pool = nn.AdaptiveAvgPool2d(1)  # no weight tells
        with pytest.raises(ArgumentError, match="changed after it was made"):
            dlkit.save(silent, tmp_path / "m", classes=LETTERS, preprocessing=GREY)

    def test_arguments_that_are_no_plain_data(self, tmp_path: Path) -> None:
        model = dlkit.register("tests.odd")(Odd)(print)
        with pytest.raises(ArgumentError, match=r"tests\.odd.*cannot be stored in a file"):
            dlkit.save(model, tmp_path / "m", task="regression", example=torch.zeros(1, 3))

    def test_a_name_that_is_taken(self) -> None:
        with pytest.raises(ArgumentError, match=r"'tests.pair' is taken by"):
            dlkit.register("tests.pair")(two)

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ArgumentError, match="no folder"):
            dlkit.save(small(), tmp_path / "no" / "m", classes=LETTERS, preprocessing=GREY)


@dlkit.register("tests.Counting")
class Counting(nn.Module):
    """A model that reads a number off a tensor while it is made, which cannot be done without memory."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.layer = nn.Linear(3, int(torch.linspace(1, width, 2)[-1].item()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class Odd(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class TestHostileFiles:
    def test_no_file_and_no_model_file(self, tmp_path: Path) -> None:
        with pytest.raises(DataNotFoundError, match="no model file"):
            dlkit.load(tmp_path / "none")
        for content in (b"", b"\x00" * 9, b"PK\x03\x04" + b"x" * 50, struct.pack("<Q", 1 << 62) + b"{}" * 9):
            (tmp_path / "odd").write_bytes(content)
            with pytest.raises(ModelFileError, match=r"not a safetensors file|is a zip archive"):
                dlkit.load(tmp_path / "odd")

    def test_bare_weights_say_what_to_do(self, tmp_path: Path) -> None:
        from safetensors.torch import save_file

        save_file(pack(small())[0], tmp_path / "w")
        with pytest.raises(ModelFileError, match=r"dlkit\.save writes that.*create_model"):
            dlkit.load(tmp_path / "w")

    def test_a_newer_format_asks_for_an_update(self, file: Path) -> None:
        with pytest.raises(ModelFileError, match=r"format 2.*update"):
            dlkit.load(rewritten(file, at("version", value=2)))

    @pytest.mark.parametrize(
        ("path", "value", "message"),
        [
            (("architecture",), None, "does not say how its model is built"),
            (("architecture", "name"), "os.system", "'os.system' is not registered here; import the module"),
            (("architecture", "arguments"), {"num_classes": 10**12}, "head|allocate|cannot be made|in the file"),
            (("architecture", "arguments"), {"nonsense": 1}, "cannot be made with"),
            (("architecture", "library"), "pickle", "library of"),
            (("meaning", "task"), "world domination", "does not say what the model does"),
            (("meaning", "kind"), "soup", "inputs of the kind 'soup', which is not known here"),
            (("meaning", "spec", "kind"), "Popen", "kind of the preprocessing must be 'Preprocessing', not 'Popen'"),
            (("meaning", "spec", "size"), [10**9, 10**9], "size|example|pixels"),
            (("meaning", "classes"), [1, 2, 3], "must be a list of names"),
            (("aliases",), {"x": "y"}, "x is declared to share y"),
            (("aliases",), ["x"], "names of shared tensors"),
            (("example", "input"), 5, "example cannot be read"),
            (("example", "input", "shape"), [10**6, 10**6], "example cannot be read"),
            (("example", "output"), [1e9] * 6, "does not give the output"),
            (("example",), None, "no example"),
            (("example", "output"), ["x"], "holds no numbers"),
            (("example", "output"), [0.0] * 9, "9 numbers are stored and 6 come out"),
            (("example", "input"), {"inputs": 5}, "example cannot be read"),
        ],
        ids=str,
    )
    def test_a_changed_document_is_an_error_that_says_what(
        self, file: Path, path: tuple[str, ...], value: Any, message: str
    ) -> None:
        with pytest.raises(ModelFileError, match=message):
            dlkit.load(rewritten(file, at(*path, value=value)))

    def test_a_model_that_computes_while_it_is_made_loads_but_not_at_any_size(self, tmp_path: Path) -> None:
        model = Counting(5)
        path = dlkit.save(model, tmp_path / "m", task="regression", example=torch.zeros(2, 3))
        assert torch.equal(dlkit.load(path).model.layer.weight, model.layer.weight)
        with pytest.raises(ModelFileError, match=r"where arguments\.width=1000000000, takes more than"):
            dlkit.load(rewritten(path, at("architecture", "arguments", value={"width": 10**9})))

    def test_a_hub_model_needs_trust(self, file: Path) -> None:
        hub = {"library": "hub", "name": "a/b:c", "num_classes": 3, "in_chans": 1, "image_size": None}
        with pytest.raises(ModelFileError, match="trust_hub=True"):
            dlkit.load(rewritten(file, at("architecture", value=hub)))

    def test_a_hub_model_is_saved_and_comes_back_with_trust(self, tmp_path: Path) -> None:
        (tmp_path / "hubconf.py").write_text(
            "from torch import nn\n"
            "def small():\n"
            "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 9))\n"
        )
        model = create_model(f"hub/{tmp_path}:small", classes=["a", "b"], pretrained=False)
        path = dlkit.save(model, tmp_path / "m", example=torch.zeros(2, 3, 32, 32), classes=["a", "b"])
        with pytest.raises(ModelFileError, match="trust_hub=True"):
            dlkit.load(path)
        assert torch.equal(dlkit.load(path, trust_hub=True).model[3].weight, model[3].weight)


GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "model-0.1.0.safetensors"


def test_the_golden_file_of_this_release_loads_and_predicts_what_it_did() -> None:
    wanted = json.loads(GOLDEN.with_suffix(".json").read_text(encoding="utf-8"))
    again = dlkit.load(GOLDEN)
    assert (again.classes, again.info["metrics"]) == (LETTERS, {"val_accuracy": 0.5})
    torch.testing.assert_close(again.probabilities(wanted["texts"]), torch.tensor(wanted["probabilities"]))


class TestDamage:
    """Whatever bit of a file is another one, wherever a file ends: it is refused, and nothing else happens."""

    @pytest.fixture
    def damaged(self, tmp_path: Path) -> Iterator[BinaryIO]:
        copy = tmp_path / "m.safetensors"
        copy.write_bytes(GOLDEN.read_bytes())
        with open(copy, "r+b", buffering=0) as stream:
            yield stream
        assert copy.read_bytes() == GOLDEN.read_bytes()
        dlkit.load(copy)

    def test_every_bit_of_the_header_and_every_97th_of_the_rest(self, damaged: BinaryIO) -> None:
        content = GOLDEN.read_bytes()
        head = 8 * (8 + int.from_bytes(content[:8], "little"))
        for bit in (*range(head), *range(head, 8 * len(content), 97)):
            self.refused(damaged, bit // 8, bytes([content[bit // 8] ^ (1 << bit % 8)]))
            damaged.seek(bit // 8)
            damaged.write(content[bit // 8 : bit // 8 + 1])

    def test_a_file_that_is_cut_off_anywhere_or_goes_on(self, damaged: BinaryIO) -> None:
        content = GOLDEN.read_bytes()
        for length in range(len(content) - 1, -1, -1):
            damaged.truncate(length)
            self.refused(damaged, 0, b"")
        damaged.write(content)
        self.refused(damaged, len(content), b" ")
        damaged.truncate(len(content))

    def test_the_last_digit_of_a_number_that_reads_as_the_same_one(self, file: Path) -> None:
        rewritten(file, at("metrics", value={"a": 0.12662959098815918}))
        content = file.read_bytes()
        file.write_bytes(content.replace(b"0.12662959098815918", b"0.12662959098815919"))
        assert 0.12662959098815918 == 0.12662959098815919
        with pytest.raises(ModelFileError, match="is damaged"):
            dlkit.load(file)

    @staticmethod
    def refused(damaged: BinaryIO, place: int, change: bytes) -> None:
        damaged.seek(place)
        damaged.write(change)
        try:
            dlkit.load(damaged.name)
        except ModelFileError:
            return
        except Exception as error:  # whatever happens, the reader must hear of a model file
            raise AssertionError(f"{type(error).__name__} for a change at {place}") from error
        raise AssertionError(f"a change at {place} was not noticed")


class TestExample:
    @given(
        st.lists(st.integers(1, 5), max_size=4),
        st.sampled_from(["float32", "int64", "bool"]),
        st.integers(-1000, 1000),
        st.integers(1, 1000),
    )
    def test_values_lie_in_their_range_and_are_the_same_after_json(
        self, shape: list[int], dtype: str, low: int, width: int
    ) -> None:
        description = {"shape": shape, "dtype": dtype, "low": low, "high": low + width}
        values = make_example(description)
        assert list(values.shape) == shape
        if dtype != "bool":
            assert bool((values >= low).all() and (values < low + width + (1e-3 if dtype == "float32" else 0)).all())
        assert torch.equal(values, make_example(json.loads(json.dumps(description))))

    def test_a_stated_value(self) -> None:
        values = make_example({"shape": [4], "dtype": "int64", "low": 0, "high": 256})
        assert values.tolist() == [158, 60, 218, 120]


class TestOtherFormats:
    def test_state_dict(self, tmp_path: Path) -> None:
        path = dlkit.save(small(), tmp_path / "w.pt", format="state_dict")
        state = torch.load(path, weights_only=True)
        assert all(torch.equal(state[name], value) for name, value in small().state_dict().items())

    def test_onnx_takes_pixels_and_normalises_inside(self, tmp_path: Path) -> None:
        runtime = pytest.importorskip("onnxruntime")
        coloured = for_evaluation(28, fit="stretch")  # what the caller of ONNX does by himself
        model = SmallConvNet(3, in_chans=3)
        path = dlkit.save(model, tmp_path / "m.onnx", classes=LETTERS, preprocessing=coloured, format="onnx")
        session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
        pixels = torch.randint(0, 256, (5, 28, 28, 3), dtype=torch.uint8)
        (found,) = session.run(None, {"pixels": pixels.numpy()})
        planes = torch.stack([coloured(image.numpy()) for image in pixels])
        torch.testing.assert_close(torch.from_numpy(found), logits(model, planes), rtol=1e-3, atol=1e-4)
        assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == LETTERS

    def test_exported_program_takes_any_batch(self, tmp_path: Path) -> None:
        path = dlkit.save(small(), tmp_path / "m.pt2", classes=LETTERS, preprocessing=GREY, format="torch.export")
        program = torch.export.load(path).module()
        images = torch.rand(7, 1, 28, 28)
        torch.testing.assert_close(program(images), logits(small(), images))

    def test_a_model_that_was_changed_is_exported_as_it_is_and_not_saved(self, tmp_path: Path) -> None:
        model, images = small(), torch.rand(2, 1, 28, 28)
        model.register_forward_hook(lambda module, args, output: output * 2)
        with pytest.raises(ArgumentError, match="changed after it was made"):
            dlkit.save(model, tmp_path / "m", classes=LETTERS, preprocessing=GREY)
        path = dlkit.save(model, tmp_path / "m.pt2", classes=LETTERS, preprocessing=GREY, format="torch.export")
        torch.testing.assert_close(torch.export.load(path).module()(images), 2 * logits(small(), images))

    def test_another_format(self, tmp_path: Path) -> None:
        with pytest.raises(ArgumentError, match="'pickle'"):
            dlkit.save(small(), tmp_path / "m", format="pickle")  # type: ignore[arg-type]


class TestFromATraining:
    def test_the_trainer_takes_the_rest_from_the_data_and_the_checkpoint_writes_the_best(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        train_part, val = Glyphs(300, seed=0).split([0.8, 0.2])
        model = SmallConvNet(len(train_part.classes))
        checkpoint = dlkit.callbacks.Checkpoint(tmp_path / "run", model_file=tmp_path / "best.safetensors")
        optim = torch.optim.AdamW(model.parameters(), 3e-3)
        trainer = dlkit.Trainer(
            model, nn.CrossEntropyLoss(), optim, metrics=["accuracy"], callbacks=[checkpoint], progress=False
        )
        history = trainer.fit(dlkit.DataLoader(train_part, 64, shuffle=True), dlkit.DataLoader(val, 64), epochs=3)
        best = dlkit.load(tmp_path / "best.safetensors")
        assert best.classes == train_part.classes
        assert best.info["metrics"]["val_loss"] == min(history["val_loss"])
        assert trainer.save(tmp_path / "own").read_bytes() == (tmp_path / "best.safetensors").read_bytes()
        measured = trainer.evaluate(dlkit.DataLoader(val, 64))
        assert best.evaluate(val)["accuracy"] == pytest.approx(measured["accuracy"])

    def test_what_the_file_needs_is_missed_before_the_training(self, tmp_path: Path) -> None:
        model = SmallConvNet(3)
        checkpoint = dlkit.callbacks.Checkpoint(tmp_path / "run", model_file=tmp_path / "m")
        optim = torch.optim.SGD(model.parameters(), 0.1)
        trainer = dlkit.Trainer(model, nn.CrossEntropyLoss(), optim, callbacks=[checkpoint], progress=False)
        with pytest.raises(ArgumentError, match="classes are not known"):
            trainer.fit([(torch.rand(4, 1, 28, 28), torch.tensor([0, 1, 2, 0]))], epochs=1)
        assert trainer.run.step == 0
