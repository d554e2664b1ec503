"""Models of every kind in files, made once, and a server of each in this process."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

import dlkit
from dlkit.datasets import CSVDataset, TextDataset
from dlkit.models import AudioClassifier, SmallConvNet, TabularMLP, TextClassifier
from dlkit.serving import app
from dlkit.transforms import for_evaluation
from dlkit.transforms.audio import AudioPreprocessing

WORDS = ["call", "this", "number", "now", "please", "win", "a", "prize", "lunch", "at", "noon", "see", "you", "there"]


def picture(number: int, kind: str = "JPEG") -> bytes:
    """The bytes of an image of an odd size."""
    drawn = np.random.default_rng(number)
    height, width = drawn.integers(40, 90, 2)
    file = io.BytesIO()
    Image.fromarray(drawn.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(file, kind)
    return file.getvalue()


def recording(number: int, kind: str = "WAV") -> bytes:
    """The bytes of a tone, of an odd length and rate."""
    import soundfile

    drawn = np.random.default_rng(number)
    rate, file = int(drawn.choice([8_000, 11_025, 16_000])), io.BytesIO()
    time = np.arange(int(rate * drawn.uniform(0.1, 0.4))) / rate
    soundfile.write(file, 0.4 * np.sin(2 * np.pi * drawn.uniform(200, 3_000) * time), rate, format=kind)
    return file.getvalue()


def passengers(count: int, seed: int = 0) -> pd.DataFrame:
    """A table with numbers, categories, truth values, and missing values."""
    drawn = np.random.default_rng(seed)
    age = drawn.integers(1, 80, count).astype(float)
    age[::7] = np.nan
    return pd.DataFrame(
        {
            "age": age,
            "fare": drawn.normal(30, 9, count).round(2),
            "sex": drawn.choice(["male", "female"], count),
            "port": drawn.choice(["S", "C", "Q"], count),
            "alone": drawn.choice(["true", "false"], count),
        }
    )


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of every kind and task, by name."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    table = passengers(200)
    numbered, named = table.assign(price=table["fare"] * 3), table.assign(survived=["no", "yes"] * 100)
    messages = [" ".join(WORDS[number % 9 : number % 9 + 4]) for number in range(40)]
    texts = TextDataset(messages, target=["ham", "spam"] * 20, min_freq=1)
    mails = TextDataset(
        pd.DataFrame({"subject": messages, "kind": ["ham", "spam"] * 20}), text="subject", target="kind"
    )
    heard = AudioPreprocessing(sample_rate=8_000, seconds=0.25)
    priced, survived = CSVDataset(numbered, target="price"), CSVDataset(named, target="survived")
    ready = for_evaluation(32)
    made = {
        "insects": (SmallConvNet(3, in_chans=3), {"classes": ["ant", "bee", "fly"], "preprocessing": ready}),
        "titanic": (TabularMLP(survived.spec), {"preprocessing": survived}),
        "prices": (TabularMLP(priced.spec), {"preprocessing": priced}),
        "mails": (TextClassifier(len(mails.vocabulary), 2), {"preprocessing": mails}),
        "calls": (AudioClassifier(2, 8_000, width=4), {"classes": ["high", "low"], "preprocessing": heard}),
        "spam": (TextClassifier(len(texts.vocabulary), 2), {"preprocessing": texts}),
        "tags": (
            SmallConvNet(2, in_chans=3),
            {"classes": ["wet", "old"], "preprocessing": ready, "task": "multilabel"},
        ),
        "bare": (SmallConvNet(2, in_chans=1), {"classes": ["no", "yes"], "example": torch.rand(2, 1, 16, 16)}),
    }
    return {name: dlkit.save(model, folder / name, **more) for name, (model, more) in made.items()}


@pytest.fixture(scope="session")
def predictors(models: dict[str, Path]) -> dict[str, dlkit.Predictor]:
    """The loaded models: what the server's answers are compared with."""
    return {name: dlkit.load(file) for name, file in models.items()}


@pytest.fixture(scope="session")
def clients(predictors: dict[str, dlkit.Predictor]) -> Iterator[dict[str, TestClient]]:
    """A server for each model, for tests that change nothing of it."""
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(TestClient(app({name: predictor}, workers=1)))
            for name, predictor in predictors.items()
        }
