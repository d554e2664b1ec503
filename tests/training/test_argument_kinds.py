"""Arguments of the wrong kind, for the Trainer, `fit` and the loader: each is refused with name, value and remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import SequentialSampler, TensorDataset

import dlkit
from dlkit import Trainer
from dlkit.callbacks import Checkpoint, EarlyStopping, LearningRate
from dlkit.collate import PadCollate
from dlkit.errors import ArgumentError
from dlkit.metrics import Mean, Metrics
from dlkit.models import SmallConvNet
from dlkit.transforms import for_evaluation

X, Y = torch.randn(8, 3), torch.randint(0, 2, (8,))
NAN = float("nan")
WHOLE = "must be a whole number"
NOT_WHOLE = [2.0, 1.5, NAN, "3", None, True, np.float64(2), np.True_, [1]]


def trainer(model: Any = None, loss: Any = None, optim: Any = None, **settings: Any) -> Trainer:
    model = nn.Linear(3, 2) if model is None else model
    optim = torch.optim.SGD((model if isinstance(model, nn.Module) else nn.Linear(3, 2)).parameters(), 0.1)
    optim = settings.pop("optimizer", optim)
    loss = nn.CrossEntropyLoss() if loss is None else loss
    return Trainer(model, loss, optim, **{"device": "cpu", "progress": False, **settings})


def step(run, batch):
    raise AssertionError("never called")


@pytest.mark.parametrize("value", [*NOT_WHOLE, 0, -1, np.int64(0)], ids=repr)
def test_numbers_that_are_not_whole(value):
    batches = [(X, Y)]
    for call, name in (
        (lambda: trainer().fit(batches, epochs=value), "epochs"),
        (lambda: trainer(accumulate=value), "accumulate"),
        (lambda: trainer().lr_find(batches, steps=value), "steps"),
        (lambda: EarlyStopping(patience=value), "patience"),
        (lambda: Checkpoint("never made", keep_last=value), "keep_last"),
    ):
        with pytest.raises(ArgumentError, match=f"^{name} {WHOLE} of at least [12]"):
            call()


@pytest.mark.parametrize("value", NOT_WHOLE, ids=repr)
def test_numbers_that_may_be_anything_but_not_a_fraction(value):
    for call, name in (
        (lambda: trainer(seed=value), "seed"),
        (lambda: trainer().overfit([(X, Y)], value), "batches"),
        (lambda: LearningRate(warmup=value), "warmup"),
        (lambda: dlkit.DataLoader(range(3), num_workers=value), "num_workers"),
    ):
        with pytest.raises(ArgumentError, match=f"^{name} {WHOLE}"):
            call()


def test_numbers_of_numpy_are_numbers():
    one, two = np.int64(1), np.int32(2)
    made = trainer(accumulate=two, seed=np.uint8(7))
    loader = dlkit.DataLoader(TensorDataset(X, Y), two, num_workers=np.int64(0), seed=two)
    assert made.fit(loader, epochs=one, steps_per_epoch=one)["step"] == [1]
    assert type(made.run.epochs) is type(made.run.accumulate) is type(loader.batch_size) is int


@pytest.mark.parametrize("value", ["no", "false", 0, 1, None], ids=repr)
def test_switches_that_are_not_true_or_false(value):
    for call, name in (
        (lambda: trainer(progress=value), "progress"),
        (lambda: trainer(compile=value), "compile"),
        (lambda: dlkit.DataLoader(range(3), shuffle=value), "shuffle"),
        (lambda: dlkit.DataLoader(range(3), drop_last=value), "drop_last"),
        (lambda: dlkit.DataLoader(range(3), pin_memory=value), "pin_memory"),
    ):
        with pytest.raises(ArgumentError, match=f"^{name} must be True or False, not "):
            call()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": nn.Linear}, r"^model is the class Linear; make an object of it: Linear\(\.\.\.\)"),
        ({"model": len}, "^model must be a torch.nn.Module, not builtin_function"),
        ({"loss": nn.CrossEntropyLoss}, r"^loss is the class CrossEntropyLoss; make an object of it: CrossEntropyLoss"),
        ({"loss": "cross_entropy"}, r"^loss must be something that is called as loss\(output, target\), or None .*not"),
        ({"optimizer": torch.optim.SGD}, r"^optimizer is the class SGD; make an object of it: SGD\(\.\.\.\)"),
        ({"optimizer": nn.Linear(3, 2).parameters()}, "^optimizer must be a torch.optim.Optimizer, .*not generator"),
        ({"optimizer": {"a": torch.optim.Adam}}, "^a is the class Adam; make an object of it"),
        ({"optimizer": None}, "^optimizer must be a torch.optim.Optimizer, .*not NoneType"),
        ({"metrics": [Mean]}, r"^a metric is the class Mean; make an object of it: Mean\(\.\.\.\)"),
        ({"metrics": Mean(len, higher_is_better=True)}, "^metrics must be a list of names and objects, or a mapping"),
        ({"callbacks": [EarlyStopping]}, "^callbacks: each is the class EarlyStopping; make an object of it"),
        ({"callbacks": EarlyStopping()}, "^callbacks must be a list of dlkit.callbacks.Callback objects, not <dlkit"),
        ({"callbacks": "EarlyStopping"}, "^callbacks must be a list of dlkit.callbacks.Callback objects, not 'Early"),
        ({"scheduler": torch.optim.lr_scheduler.StepLR}, "^scheduler is the class StepLR; make an object of it"),
        ({"step": "mine"}, r"^step must be something that is called as step\(run, batch\) or step\(run\), not 'mine'"),
        ({"precision": 16}, "^precision must be one of fp32, bf16, fp16, not 16"),
        ({"precision": ["bf16"]}, r"^precision must be one of fp32, bf16, fp16, not \['bf16'\]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_classes_and_names_in_the_place_of_objects(settings, message):
    with pytest.raises(ArgumentError, match=message):
        trainer(**settings)


def test_a_metric_class_by_name():
    with pytest.raises(ArgumentError, match=r"^a metric is the class Mean"):
        Metrics({"mine": Mean})


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    grey = for_evaluation(28, color="L", mean=0.0, std=1.0)
    path = tmp_path_factory.mktemp("models") / "letters.safetensors"
    return dlkit.save(SmallConvNet(num_classes=2), path, classes=["A", "B"], preprocessing=grey)


@pytest.mark.parametrize("device", ["gpu", "GPU:0", "cuda0", "auto ", None, 1.5, True, ["cpu"], "meta", "cuda:99", 99])
def test_devices_that_are_not_there(device, file):
    with pytest.raises(ArgumentError, match=r"device.* may be 'auto'"):
        trainer(device=device)
    if "gpu" in str(device).lower():
        with pytest.raises(ArgumentError, match=r"torch calls a GPU of NVIDIA or AMD 'cuda', one of Apple 'mps'"):
            trainer(device=device)
    with pytest.raises(ArgumentError, match=r"device.* may be 'auto'"):
        dlkit.load(file, device=device)


@pytest.mark.parametrize("resume", [None, 1, 0, 3.5, ["auto"]], ids=repr)
def test_what_cannot_be_resumed(resume):
    with pytest.raises(ArgumentError, match=r"^resume must be 'auto', True, False, or the path of a checkpoint, not"):
        trainer().fit([(X, Y)], resume=resume)


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ("data.csv", "^'data.csv' is a path or a name, not batches; open it as a dataset"),
        (b"data", "is a path or a name, not batches"),
        (X, r"^Tensor is data, whose rows or names would be taken for batches; pass DataLoader\(TensorDataset"),
        (X.numpy(), "^ndarray is data, whose rows"),
        ({"x": X}, "^dict is data, whose rows or names"),
        ({1, 2}, "^set is data, whose rows or names"),
        (TorchDataLoader, "^expected a DataLoader or an iterable of batches, not the class DataLoader"),
        (Path("data.csv"), r"Path\('data\.csv'\) is a path .* predicts from files is a model file: .*predict_file"),
        (["a.jpg", "b.jpg"], "^'a.jpg' is a path or a name, not batches"),
        ((Path("a.jpg"),), "is a path or a name, not batches"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_gives_no_batches(loader, message):
    for call in (
        lambda: trainer().fit(loader),
        lambda: trainer().fit([(X, Y)], loader),
        lambda: trainer().evaluate(loader),
        lambda: trainer().predict(loader),
    ):
        with pytest.raises(ArgumentError, match=message):
            call()


def test_a_frame_gives_no_batches():
    pandas = pytest.importorskip("pandas")
    with pytest.raises(ArgumentError, match=r"^DataFrame is data, whose rows or names would be taken for batches"):
        trainer().fit(pandas.DataFrame({"a": [1]}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 2.0}, f"^batch_size {WHOLE} of at least 1, not 2.0"),
        ({"batch_size": -4}, f"^batch_size {WHOLE} of at least 1, not -4"),
        ({"batch_size": True}, f"^batch_size {WHOLE} of at least 1, not True"),
        ({"num_workers": -1}, f"^num_workers {WHOLE} of at least 0, not -1"),
        ({"num_workers": 1, "prefetch_factor": 0}, f"^prefetch_factor {WHOLE} of at least 1 batches per worker, not 0"),
        ({"seed": 1.5}, f"^seed {WHOLE}, not 1.5"),
        ({"timeout": -1}, "^timeout must be a number of seconds, 0 for none, not -1"),
        ({"timeout": NAN}, "^timeout must be a number of seconds, 0 for none, not nan"),
        ({"multiprocessing_context": "thread"}, "^multiprocessing_context must be one of .*spawn.*, not 'thread'"),
        ({"persistent_workers": "yes"}, "^persistent_workers must be True or False, not 'yes'"),
        ({"worker_init_fn": 3}, r"^worker_init_fn must be something that is called as worker_init_fn\(worker_id\)"),
        ({"collate_fn": "pad"}, r"^collate_fn must be something that is called as collate_fn\(samples\), not 'pad'"),
        ({"collate_fn": PadCollate}, r"^collate_fn is the class PadCollate; make an object of it: collate_fn=PadColl"),
        ({"sampler": SequentialSampler}, "^sampler is the class SequentialSampler; make an object of it"),
        ({"sampler": 3}, "^sampler must be an iterable of indices, not int"),
        ({"batch_sampler": 3}, "^batch_sampler must be an iterable of lists of indices, or a planner, not int"),
        ({"dataset": TensorDataset}, "^dataset is the class TensorDataset; make an object of it"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_loaders_that_cannot_be_meant(settings, message):
    with pytest.raises(ArgumentError, match=message):
        dlkit.DataLoader(settings.pop("dataset", range(4)), **settings)


def test_a_type_that_makes_a_batch_is_a_function():
    assert list(dlkit.DataLoader(range(3), 2, collate_fn=list)) == [[0, 1], [2]]
