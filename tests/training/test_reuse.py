"""Features are stored only where a sample is a function of its place, and where the model can be trained from there."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate, get_worker_info

from dlkit import Trainer
from dlkit.errors import ArgumentError
from dlkit.training import ReuseFeatures
from dlkit.transfer import freeze
from dlkit.transfer._cut import SecondHalf, check_training, find_cut

GLOBAL = np.random.default_rng(5)


def closure() -> Callable[[Tensor], Tensor]:
    own = np.random.default_rng(3)
    return lambda x: x + float(own.normal())


def counter() -> Callable[[Tensor], Tensor]:
    calls = itertools.count()
    return lambda x: x + next(calls)


class Deep:
    """A generator that the loader can just reach: dataset, transform, list, this object, its generator."""

    def __init__(self) -> None:
        self.steps = [self.step]
        self.rng = random.Random(0)

    def step(self, x: Tensor) -> Tensor:
        return x + self.rng.random()

    def __call__(self, x: Tensor) -> Tensor:
        return self.steps[0](x)


class Samples(Dataset[Any]):
    def __init__(self, transform: Callable[[Tensor], Tensor] | None, size: int = 12) -> None:
        self.transform = transform
        self.x = torch.randn(size, 4, generator=torch.Generator().manual_seed(0))
        self.fetched = 0

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        self.fetched += 1
        x = self.x[index]
        return x if self.transform is None else self.transform(x), index % 2


def fit(train: Any, val: Any = None, views: int | None = None, epochs: int = 3, **settings: Any) -> tuple[Any, Any]:
    torch.manual_seed(0)
    model = freeze(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
    optim = torch.optim.SGD(model[2].parameters(), 0.1)
    reuse = ReuseFeatures(views=views, cache=None)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim, reuse_features=reuse, device="cpu", progress=False)
    said: list[str] = []
    trainer.run.say = said.append  # type: ignore[method-assign]
    trainer.fit(DataLoader(train, 4, **settings), None if val is None else DataLoader(val, 4), epochs=epochs)
    return model, " ".join(said)


UNKNOWN = {
    "closure": closure,
    "counter": counter,
    "module": lambda: lambda x: x + float(GLOBAL.normal()),
    "anew": lambda: lambda x: x + float(np.random.default_rng().normal()),
    "sometimes": lambda: lambda x: x + float(GLOBAL.random() < 0.3),
}


@pytest.mark.parametrize("kind", UNKNOWN)
@pytest.mark.parametrize("views", [None, 2])
def test_a_generator_that_nobody_knows_is_found_by_fetching_twice(kind: str, views: int | None) -> None:
    data = Samples(UNKNOWN[kind]())
    _, said = fit(data, views=views)
    assert (
        "features of the training data are not stored: the samples differ when fetched again with the same seed" in said
    )
    assert data.fetched >= 3 * 12  # every epoch from the data


def test_it_is_found_in_workers_in_collate_functions_and_in_validation_data() -> None:
    _, said = fit(Samples(closure()), num_workers=1, multiprocessing_context="fork")
    assert "differ when fetched again with the same seed" in said
    shift = closure()
    _, said = fit(Samples(None), collate_fn=lambda rows: (shift(default_collate(rows)[0]), default_collate(rows)[1]))
    assert "differ when fetched again with the same seed" in said
    _, said = fit(Samples(None), Samples(closure()))
    assert "features of the validation data are not stored: the samples differ when fetched again" in said
    assert "runs once over 12 training samples" in said


@pytest.mark.filterwarnings("ignore:the loss")  # of NaN samples, which are nevertheless the same each time
@pytest.mark.parametrize(
    "transform",
    [
        None,
        lambda x: x * float("nan"),
        lambda x: x + float(np.random.default_rng(int(x[0] * 1000) % 7).normal()),
    ],
)
def test_a_function_of_the_sample_is_stored(transform: Any) -> None:
    data = Samples(transform)
    _, said = fit(data, epochs=9)
    assert "runs once over 12 training samples" in said
    assert data.fetched <= 2 * 12 + 2 * 4


@pytest.mark.parametrize("draw", [Deep, lambda: lambda x: x + torch.rand(()), lambda: lambda x: x + np.random.rand()])
def test_known_randomness_is_stored_as_views_that_hang_on_the_seed(draw: Any) -> None:
    (first, said), (again, _) = (fit(Samples(draw()), views=2) for _ in range(2))
    assert "2 views of each" in said
    assert torch.equal(first[2].weight, again[2].weight)


def test_data_that_say_themselves_that_nothing_is_drawn_are_fetched_once() -> None:
    class Own(Samples):
        draws_random = False

    data = Own(None)
    fit(data, epochs=9)
    assert data.fetched <= 12 + 4


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = nn.Linear(4, 8), nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.head, self.seen = nn.Linear(8, 2), 0

    def forward(self, x: Tensor) -> Any:
        self.seen += 0 if x.is_meta else len(x)
        return self.head(checkpoint(self.block, self.stem(x), use_reentrant=False))


def test_a_cut_that_cannot_be_trained_through_is_not_used() -> None:
    def run(enabled: bool) -> tuple[Checkpointed, str]:
        torch.manual_seed(0)
        model = freeze(Checkpointed(), "block")
        optim = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
        reuse = enabled and ReuseFeatures(cache=None)
        trainer = Trainer(model, nn.CrossEntropyLoss(), optim, reuse_features=reuse, device="cpu", progress=False)
        said: list[str] = []
        trainer.run.say = said.append  # type: ignore[method-assign]
        trainer.fit(DataLoader(Samples(None), 4, shuffle=True), epochs=2)
        return model, " ".join(said)

    (slow, _), (model, said) = run(False), run(True)
    assert "features are not stored: the model cannot be trained from 'block' on alone" in said
    assert all(torch.equal(left, right) for left, right in zip(slow.parameters(), model.parameters(), strict=True))


def test_a_model_that_trains_its_first_layer_has_no_features_to_store() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 2))
    freeze(model[2], "all")
    with pytest.raises(ArgumentError, match="computes nothing before '0', which is trained"):
        find_cut(model, torch.zeros(2, 4))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Linear(4, 8), nn.BatchNorm1d(8)
        self.lstm, self.head = nn.LSTM(8, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(self.norm(self.stem(x)).unsqueeze(1))[0][:, 0])


def test_the_trial_leaves_nothing_behind() -> None:
    model = freeze(Recurrent(), "norm")
    stepped: list[Any] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(stepped.append)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images, stream = torch.randn(2, 4), torch.get_rng_state()
    cut = find_cut(model, images)
    half = SecondHalf(model, cut, images[:2])
    check_training(cut, images, cut.features(images), half)
    with pytest.raises(ArgumentError, match=r"trained from 'norm' on alone, norm\.weight would get another gradient"):
        check_training(cut, images, cut.features(images), lambda features: 2 * half(features))
    assert stepped == []
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), stream)


def test_the_data_in_a_worker_is_the_users_own() -> None:
    class Set(TensorDataset):
        shift = 0.0

        def __getitem__(self, index: int) -> Any:
            assert get_worker_info().dataset is self
            return super().__getitem__(index)[0] + self.shift

    def init(worker: int) -> None:
        get_worker_info().dataset.shift = 5.0 + worker

    from dlkit import DataLoader as Own

    loader = Own(Set(torch.zeros(4)), 2, num_workers=2, worker_init_fn=init, multiprocessing_context="fork")
    values = torch.cat(list(loader))
    assert values.tolist() == [5, 5, 6, 6]
