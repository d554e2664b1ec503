"""What a model's inputs mean: one protocol, which the model file and the registry know, and no kind by its name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest
import torch
from torch import nn

import dlkit
import warm
from artifact.rewriting import at, rewritten
from dlkit.datasets import CSVDataset
from dlkit.errors import ArgumentError, ModelFileError
from dlkit.models import SmallConvNet, TabularMLP, TextClassifier
from dlkit.specs import Spec, TableSpec, TextSpec, values
from dlkit.specs.builtin import KINDS
from dlkit.tokens import Vocabulary
from dlkit.transforms import for_evaluation


@dataclass(frozen=True, kw_only=True)
class Waves(Spec):
    """A kind that dlkit does not have."""

    kind: ClassVar[str] = "waves"
    _title: ClassVar[str] = "the waves"

    rate: int
    low: float = 20.0

    def example(self, *, small: bool = False) -> Any:
        return values([2, 40 if small else self.rate], "float32", -1.0, 1.0)


@dlkit.register("tests.specs.Listener")
class Listener(nn.Module):
    def __init__(self, waves: Waves, outputs: int = 2) -> None:
        super().__init__()
        self.layer = nn.Linear(1, outputs)
        self.preprocessing = waves

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        return self.layer(sound.mean(1, keepdim=True))


def test_a_kind_of_ones_own_goes_into_the_model_file_and_back(tmp_path: Path) -> None:
    path = dlkit.save(Listener(Waves(rate=400)), tmp_path / "m.safetensors", classes=["hum", "hiss"])
    predictor = dlkit.load(path)
    assert (predictor.kind, predictor.preprocessing, predictor.classes) == ("waves", Waves(rate=400), ["hum", "hiss"])
    assert predictor.model.preprocessing == Waves(rate=400)  # an argument of the model as well
    with pytest.raises(ModelFileError, match="rate of the waves must be a whole number, not 'fast'"):
        dlkit.load(rewritten(path, at("meaning", "spec", "rate", value="fast")))


def test_a_kind_that_nobody_defined_is_refused(tmp_path: Path) -> None:
    path = dlkit.save(Listener(Waves(rate=400)), tmp_path / "m.safetensors", classes=["hum", "hiss"])
    with pytest.raises(ModelFileError, match=r"of the kind 'smells', which is not known here: there are .*image"):
        dlkit.load(rewritten(path, at("meaning", "kind", value="smells")))
    dlkit.save(Listener(Waves(rate=400)), path, classes=["hum", "hiss"])
    unknown = at("architecture", "arguments", "waves", value={"$kind": "smells", "json": "{}"})
    with pytest.raises(ModelFileError, match="an argument of the kind 'smells' is not known"):
        dlkit.load(rewritten(path, unknown))


def test_a_kind_has_one_owner() -> None:
    with pytest.raises(ArgumentError, match=r"the kind 'image' is taken by dlkit\.transforms\.spec\.Preprocessing"):

        class Image(Spec):
            kind: ClassVar[str] = "image"

    assert KINDS["image"].__name__ == "Preprocessing"


FRESH = """
import sys, json, dlkit
assert [name for name in sys.modules if name.startswith("dlkit.")] == []
found = {}
for path in sys.argv[1:]:
    predictor = dlkit.load(path)
    found[path] = [predictor.kind, type(predictor.model).__name__]
print(json.dumps([found, [name for name in ("training", "datasets.tables.dataset") if f"dlkit.{name}" in sys.modules]]))
"""


def test_dlkits_own_models_load_in_a_process_that_imported_dlkit_alone(tmp_path: Path) -> None:
    table = CSVDataset(pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0], "c": list("abab"), "y": list("pqpq")}), target="y")
    words = TextSpec(encoder=Vocabulary.fit(["good film", "bad film"]), classes=("neg", "pos"))
    grey = for_evaluation(28, color="L", mean=0.0, std=1.0)
    made = {
        "image": dlkit.save(SmallConvNet(2), tmp_path / "i", classes=["a", "b"], preprocessing=grey),
        "table": dlkit.save(TabularMLP(table.spec, hidden=(8,)), tmp_path / "t", preprocessing=table),
        "text": dlkit.save(TextClassifier(len(words.encoder), 2, width=8), tmp_path / "w", preprocessing=words),
    }
    script = tmp_path / "fresh.py"
    script.write_text(warm.FORGET_DLKIT + FRESH)
    done = warm.run([str(script), *map(str, made.values())])
    assert done.returncode == 0, done.stderr
    found, loaded = json.loads(done.stdout)
    assert [found[str(path)] for path in made.values()] == [
        ["image", "SmallConvNet"],
        ["table", "TabularMLP"],
        ["text", "TextClassifier"],
    ]
    assert loaded == []


SPECS = {"image": for_evaluation(8), "table": TableSpec(columns=()), "text": TextSpec(encoder=Vocabulary(["a"]))}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_every_kind_keeps_the_protocol(spec: Spec) -> None:
    assert KINDS[spec.kind] is type(spec)
    assert type(spec).from_json(spec.to_json()) == spec
    assert type(spec).from_document(json.loads(spec.to_json())) == spec
    with pytest.raises(ArgumentError, match=r"has no field 'zoom'; it was written by a newer dlkit or by hand"):
        type(spec).from_document(spec.document() | {"zoom": 2})
    with pytest.raises(ArgumentError, match="must be JSON"):
        type(spec).from_json("[" * 100_000)
    with pytest.raises(ArgumentError, match="must be an object"):
        type(spec).from_json("[]")
