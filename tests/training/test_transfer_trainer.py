"""Frozen models in the Trainer: stages, resuming, the check, and features that are computed once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import StopAt
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from dlkit import Trainer
from dlkit.callbacks import EMA, Callback, Checkpoint, Unfreeze
from dlkit.errors import ArgumentError, TrainingError
from dlkit.training import ReuseFeatures
from dlkit.training.reuse import Reuse
from dlkit.transfer import freeze, is_frozen, param_groups
from dlkit.transfer._cut import find_cut


class Net(nn.Module):
    """Two blocks with everything that behaves differently while training, and a head behind a dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout2d(0.3))
        self.layer1 = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(8, 3)
        self.ran = 0

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.stem(x)))
        return self.fc(self.drop(x.mean((2, 3))))


class Counting(nn.Module):
    """Counts the samples that really pass."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += 0 if x.is_meta else len(x)
        return x


def make(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    model = Net()
    model.stem.append(Counting())
    return model


def data(samples: int = 20) -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    return TensorDataset(torch.randn(samples, 3, 8, 8, generator=generator), torch.arange(samples) % 3)


def loaders() -> tuple[Any, Any]:
    return DataLoader(data(), 8, shuffle=True), DataLoader(data(12), 5)


def train(
    model: nn.Module, *callbacks: Callback, epochs: int = 4, optim: Any = None, reuse: Any = True, **settings: Any
) -> Trainer:
    optim = optim or torch.optim.AdamW(model.head_parameters(), 1e-2, weight_decay=0.1)
    trainer = Trainer(
        model, nn.CrossEntropyLoss(), optim, callbacks=callbacks, reuse_features=reuse, device="cpu", progress=False
    )
    loader, val = settings.pop("loaders", None) or loaders()
    trainer.fit(loader, val, epochs=epochs, **settings)
    return trainer


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def test_features_are_computed_once_and_the_result_is_that_of_the_slow_way() -> None:
    slow, fast = freeze(make()), freeze(make())
    trainer = train(slow, reuse=False)
    again = train(fast)
    assert slow.stem[4].count == 4 * (20 + 12)
    assert fast.stem[4].count <= 20 + 12 + 2 + 2 * 8  # the check of the two halves, and no more
    images = torch.randn(16, 3, 8, 8)
    assert torch.allclose(slow.eval()(images), fast.eval()(images), atol=1e-5)
    for left, right in zip(trainer.history.rows, again.history.rows, strict=True):
        assert left["train_loss"] == pytest.approx(right["train_loss"], abs=1e-5)
        assert left["val_loss"] == pytest.approx(right["val_loss"], abs=1e-5)


def test_features_of_another_device_or_precision_have_another_key() -> None:
    model = freeze(make())
    optim = torch.optim.AdamW(model.head_parameters(), 1e-2)
    keys = set()
    for device, precision in (("cpu", "fp32"), ("cpu", "bf16"), ("cuda", "fp32")):
        trainer = Trainer(model, nn.CrossEntropyLoss(), optim, device="cpu", precision=precision, progress=False)
        trainer.run.device = torch.device(device)
        reuse = Reuse(trainer.run, trainer._forward, ReuseFeatures())
        reuse._cut = find_cut(model, torch.zeros(2, 3, 8, 8))
        keys.add(reuse.key("samples", views=1, seed=None))
    assert len(keys) == 3


def test_an_inner_boundary_is_cut_as_well() -> None:
    models = [freeze(make(), until="layer2") for _ in range(2)]
    for model, enabled in zip(models, (False, True), strict=True):
        train(model, reuse=enabled, optim=torch.optim.SGD(param_groups(model, 0.05), momentum=0.9))
    assert models[1].stem[4].count < models[0].stem[4].count / 2
    images = torch.randn(16, 3, 8, 8)
    assert torch.allclose(models[0].eval()(images), models[1].eval()(images), atol=1e-4)
    assert not torch.equal(models[1].layer2[0].weight, make().layer2[0].weight)


def test_the_frozen_part_is_bit_identical_after_training_and_says_what_it_saves(capsys: Any) -> None:
    model = freeze(make())
    before = weights(model)
    loader, val = loaders()
    optim = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.5)
    Trainer(model, nn.CrossEntropyLoss(), optim, device="cpu").fit(loader, val, epochs=3)
    after = weights(model)
    assert_equal({name: value for name, value in before.items() if not name.startswith("fc")}, after)
    assert not torch.equal(before["fc.weight"], after["fc.weight"])
    message = capsys.readouterr().err
    assert (
        "runs once over 20 training samples and 12 validation samples; 64 forward passes saved in 3 epochs" in message
    )


class Noisy(Dataset[Any]):
    """Random augmentation."""

    def __init__(self, samples: int = 12) -> None:
        self.base, self.fetched = data(samples), 0

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, index: int) -> Any:
        self.fetched += 1
        image, target = self.base[index]
        return image + torch.randn(3, 8, 8), target


def test_random_training_data_is_not_stored_unless_views_are_asked_for() -> None:
    for views, expected in ((None, 4 * 12), (2, 2 * 12)):
        model, noisy = freeze(make()), Noisy()
        train(model, reuse=ReuseFeatures(views=views), loaders=(DataLoader(noisy, 6), DataLoader(data(6), 6)))
        assert model.stem[4].count <= expected + 6 + 2 + 12
        assert model.stem[4].count >= expected + 6


class ByEpoch(Noisy):
    """Other samples in every epoch, without a random number."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = 0.0

    def set_epoch(self, epoch: int) -> None:
        self.shift = float(epoch)

    def __getitem__(self, index: int) -> Any:
        image, target = self.base[index]
        return image + self.shift, target


def test_samples_that_change_from_epoch_to_epoch_are_not_taken_for_constant() -> None:
    model = freeze(make())
    train(model, loaders=(DataLoader(ByEpoch(), 6), None))
    assert model.stem[4].count >= 4 * 12


def test_where_nothing_is_random_one_view_is_stored() -> None:
    model = freeze(make())
    train(model, reuse=ReuseFeatures(views=4), epochs=6)
    assert model.stem[4].count <= 20 + 12 + 2 + 2 * 8


@pytest.mark.parametrize("until", [None, "layer2"])
def test_views_are_mixed_or_maps_taken_in_turn_and_the_same_in_every_run(until: str | None) -> None:
    seen: list[Any] = []

    class Look(Callback):
        def on_step_end(self, run: Any) -> None:
            seen.append(run.losses.latest())

    results = []
    for _ in range(2):
        model = freeze(make(), until=until)
        model.drop.p = 0.0
        trained = [each for each in model.parameters() if each.requires_grad]
        optim = torch.optim.SGD(trained, 0.0)  # nothing learns, so losses tell the inputs
        train(model, Look(), reuse=ReuseFeatures(views=2), optim=optim, loaders=(DataLoader(Noisy(), 12), None))
        results.append(list(seen))
        seen.clear()
    assert results[0] == results[1]
    losses = results[0]
    if until is None:
        assert len(set(losses)) == 4
    else:
        assert losses[0] == losses[2] != losses[1] == losses[3]


def test_stored_features_are_found_again_and_forgotten_when_anything_differs(own_cache: Path) -> None:
    def passed(change: Callable[[Net], Any] = lambda model: None, samples: int = 20) -> int:
        model = make()
        change(model)
        freeze(model)
        train(model, loaders=(DataLoader(data(samples), 8, shuffle=True), None))
        return model.stem[4].count

    first = passed()
    assert first >= 20
    assert passed() <= 2 + 3 * 8  # the halves, and two rows
    assert len(list((own_cache / "features").iterdir())) == 1
    assert passed(lambda model: model.layer1[1].running_mean.add_(1.0)) == first  # a buffer
    assert passed(lambda model: model.stem[0].weight.data.mul_(1.01)) == first  # a parameter
    assert passed(samples=21) == first + 1  # data


def test_a_store_is_found_by_where_the_model_is_cut_and_by_precision(own_cache: Path) -> None:
    def stores(until: str | None = None, **settings: Any) -> int:
        model = freeze(make(), until=until)
        optim = torch.optim.SGD(param_groups(model, 0.01))
        loader = DataLoader(data(), 8)
        trainer = Trainer(model, nn.CrossEntropyLoss(), optim, device="cpu", progress=False, **settings)
        trainer.fit(loader, None, epochs=2)
        return len(list((own_cache / "features").iterdir()))

    assert [stores(), stores(), stores("layer2"), stores(precision="bf16")] == [1, 1, 2, 3]


def test_features_beyond_the_budget_are_not_stored_and_it_is_said(capsys: Any) -> None:
    model = freeze(make(), until="layer2")
    loader, val = loaders()
    optim = torch.optim.SGD(param_groups(model, 0.01))
    reuse = ReuseFeatures(cache_bytes=20 * 8 * 64 * 4 - 1)  # one byte less than the maps of layer1 take
    Trainer(model, nn.CrossEntropyLoss(), optim, reuse_features=reuse, device="cpu").fit(loader, val, epochs=2)
    message = capsys.readouterr().err
    assert "features of the training data are not stored: they would take 0.0 GB" in message
    assert "runs once over 12 validation samples" in message


def test_a_stage_with_a_wrong_name_is_refused_before_anything_is_trained() -> None:
    model = freeze(make())
    before = weights(model)
    with pytest.raises(ArgumentError, match="has no module 'layer4'; there are layer2, layer1"):
        train(model, Unfreeze({0: "head", 1: "layer4"}))
    assert_equal(before, weights(model))


def test_features_that_no_longer_are_what_the_model_computes_are_computed_anew(own_cache: Path) -> None:
    train(freeze(make()), loaders=(DataLoader(data(), 8), None))
    (file,) = (own_cache / "features").glob("*/features.bin")
    file.write_bytes(bytes(len(file.read_bytes())))
    model = freeze(make())
    train(model, loaders=(DataLoader(data(), 8), None))
    assert model.stem[4].count >= 20
    assert any(file.read_bytes())


STAGES = {1: "layer2", 2: "all"}


def stage_run(folder: Path, *callbacks: Callback, epochs: int = 3, reuse: bool = False) -> Net:
    model = freeze(make())
    train(
        model,
        Checkpoint(folder, every="1 steps", restore_best=False),
        Unfreeze(STAGES),
        *callbacks,
        reuse=reuse,
        epochs=epochs,
    )
    return model


@pytest.mark.parametrize("reuse", [False, True])
def test_a_run_in_stages_resumes_bit_for_bit_at_any_step(tmp_path: Path, reuse: bool) -> None:
    whole = weights(stage_run(tmp_path / "whole", reuse=reuse))
    for step in range(1, 9):  # each goes on from where the one before was stopped
        stage_run(tmp_path / "stopped", StopAt(step), reuse=reuse)
    assert_equal(whole, weights(stage_run(tmp_path / "stopped", reuse=reuse)))


@pytest.mark.parametrize("views", [None, 2])
def test_a_run_on_stored_features_resumes_bit_for_bit_however_few_epochs_are_left(
    tmp_path: Path, views: int | None
) -> None:
    def run(folder: str, *callbacks: Callback, epochs: int = 3) -> Net:
        model = freeze(make())
        checkpoint = Checkpoint(tmp_path / folder, every="1 steps", restore_best=False)
        loader = DataLoader(data(12) if views is None else Noisy(), 5, shuffle=True)
        train(model, checkpoint, *callbacks, reuse=ReuseFeatures(views=views), epochs=epochs, loaders=(loader, None))
        return model

    whole = run("whole")
    assert whole.stem[4].count < 3 * 12  # features were stored
    for step in (1, 3, 4, 6, 8):  # within each of the epochs, and between them
        run(f"stopped-{step}", StopAt(step))
        assert_equal(weights(whole), weights(run(f"stopped-{step}")))
    run("longer", epochs=1)
    assert_equal(weights(whole), weights(run("longer")))
    assert run("longer").stem[4].count == 0  # nothing is computed for a run that is finished


def test_each_stage_is_told() -> None:
    model, messages = freeze(make()), list[str]()
    trainer = Trainer(
        model, nn.CrossEntropyLoss(), torch.optim.AdamW(model.head_parameters(), 1e-2), device="cpu", progress=False,
        callbacks=[Unfreeze({1: "layer2", 2: "all"})], reuse_features=False,
    )  # fmt: skip
    trainer.run.say = messages.append  # type: ignore[method-assign]
    trainer.fit(loaders()[0], epochs=3)
    told = [message for message in messages if "trainable" in message]
    assert told[0].startswith("epoch 2: trainable from 'layer2' on, ")
    assert told[1].startswith("epoch 3: everything is trainable, ")


def test_each_stage_trains_what_it_says_and_every_parameter_is_in_one_group() -> None:
    model = freeze(make())
    states: list[Any] = []

    class Look(Callback):
        def on_gradients(self, run: Any) -> None:
            held = [id(p) for group in run.optimizer.param_groups for p in group["params"]]
            assert len(held) == len(set(held)) == len(list(run.model.parameters()))
            states.append({name for name, p in run.model.named_parameters() if p.grad is not None})
            assert run.model.layer2[1].training == (run.epoch >= 1)
            assert run.model.stem[1].training == (run.epoch >= 2)

    trainer = train(model, Unfreeze(STAGES), Look(), epochs=3)
    assert {name.split(".")[0] for name in states[0]} == {"fc"}
    assert {name.split(".")[0] for name in states[3]} == {"fc", "layer2"}
    assert {name.split(".")[0] for name in states[6]} == {"fc", "layer2", "layer1", "stem"}
    assert not is_frozen(model)
    rates = {group.get("name", "head"): group["lr"] for group in trainer.run.optimizer.param_groups}
    assert rates["head"] == 1e-2
    assert rates["layer2.0"] == pytest.approx(1e-3)
    assert rates["layer1.0"] == pytest.approx(0.8e-3)


def test_a_scheduler_that_would_not_know_the_new_groups_is_refused() -> None:
    model = freeze(make())
    optim = torch.optim.AdamW(model.head_parameters(), 1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optim, 3)
    trainer = Trainer(
        model, nn.CrossEntropyLoss(), optim, scheduler=scheduler, callbacks=[Unfreeze(STAGES)], progress=False
    )
    with pytest.raises(ArgumentError, match="param_groups"):
        trainer.fit(*loaders(), epochs=3)


def test_a_frozen_tensor_that_changes_is_noticed_at_once() -> None:
    class Meddle(Callback):
        def on_gradients(self, run: Any) -> None:
            run.model.layer1[0].weight.data[0, 0, 0, 0] += 1e-6

    with pytest.raises(TrainingError, match=r"frozen tensors have changed by step 1: layer1\.0\.weight"):
        train(freeze(make()), Meddle())


def test_a_frozen_buffer_that_changes_later_is_noticed_at_the_end() -> None:
    class Meddle(Callback):
        def on_step_end(self, run: Any) -> None:
            if run.step == 3:
                run.model.stem[1].running_mean += 1

    with pytest.raises(TrainingError, match=r"stem\.1\.running_mean"):
        train(freeze(make()), Meddle(), epochs=2)


def test_trainable_parameters_without_gradient_or_optimizer_are_named() -> None:
    model = make()
    freeze(model)
    model.unused = nn.Linear(2, 2)
    with pytest.warns(UserWarning, match="trainable") as caught:
        train(model, reuse=False, epochs=1)
    messages = " ".join(str(each.message) for each in caught)
    assert "without a gradient in the first step: unused.weight, unused.bias" in messages
    assert "in no optimizer, so never changed: unused.weight, unused.bias; hand them to it" in messages


def test_a_moving_average_validates_on_stored_features() -> None:
    histories = []
    for enabled in (False, True):
        model = freeze(make())
        model.drop.p = 0.0
        histories.append(train(model, EMA(0.9), reuse=enabled).history["val_loss"])
    assert histories[0] == pytest.approx(histories[1], abs=1e-5)


def test_a_model_whose_second_half_uses_the_first_half_elsewhere_is_trained_the_slow_way() -> None:
    class Skip(Net):
        def forward(self, x: Tensor) -> Tensor:
            early = self.layer1(self.stem(x))
            return self.fc(self.layer2(early).mean((2, 3)) + early.mean((2, 3)))

    torch.manual_seed(0)
    model = Skip()
    model.stem.append(Counting())
    freeze(model, until="layer2")
    train(model, optim=torch.optim.SGD(param_groups(model, 0.1)))
    assert model.stem[4].count >= 4 * (20 + 12)


def test_a_dry_run_leaves_a_staged_model_as_it_was() -> None:
    model = freeze(make())
    before = weights(model)
    optim = torch.optim.AdamW(model.head_parameters(), 1e-2)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim, callbacks=[Unfreeze(STAGES)], device="cpu", progress=False)
    trainer.dry_run(*loaders())
    assert_equal(before, weights(model))
    assert optim.state_dict()["state"] == {}
    copied = copy.deepcopy(model)
    assert is_frozen(copied)
