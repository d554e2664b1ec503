"""What only a CUDA device can show; skipped where there is none (`make test` runs them on a machine that has one)."""

from __future__ import annotations

import copy
import functools
import gc
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from cases import StopAt
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import dlkit
from dlkit import Trainer
from dlkit.callbacks import EMA, Callback, Checkpoint
from dlkit.training import ReuseFeatures
from dlkit.transfer import create_model, freeze, frozen_tensors, head_parameters, replace_head

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(autouse=True)
def exact_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit on a GPU means deterministic kernels, which torch has to be asked for."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)


def data(samples: int = 64, size: int = 8) -> TensorDataset:
    generator = torch.Generator().manual_seed(3)
    target = torch.arange(samples) % 2
    return TensorDataset(torch.randn(samples, 3, size, size, generator=generator) + target.view(-1, 1, 1, 1), target)


def network(dropout: float = 0.3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Dropout(dropout), nn.Linear(32, 2),
    )  # fmt: skip


def trainer(model: nn.Module, *callbacks: Callback, **settings: Any) -> Trainer:
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.1)
    settings = {"metrics": ["accuracy"], "progress": False, "device": "cuda", **settings}
    return Trainer(model, nn.CrossEntropyLoss(), optimizer, callbacks=callbacks, **settings)


def train_loader(**settings: Any) -> DataLoader[Any]:
    return DataLoader(data(), 16, shuffle=True, **settings)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def different(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name, value in one.items() if not torch.equal(value, other[name])]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path: Path, precision: str) -> None:
    whole = network()
    trainer(whole, precision=precision).fit(train_loader(), epochs=3)
    stopped = network()
    trainer(stopped, StopAt(6), Checkpoint(tmp_path), precision=precision).fit(train_loader(), epochs=3)
    assert different(weights(whole), weights(stopped))
    torch.cuda.manual_seed(1)  # what another process would not know
    resumed = network()
    trainer(resumed, Checkpoint(tmp_path), precision=precision).fit(train_loader(num_workers=2), epochs=3)
    assert different(weights(whole), weights(resumed)) == []


@pytest.mark.parametrize("form", ["module", "partial", "function"])
def test_class_weights_of_a_loss_work_on_the_device(form: str) -> None:
    weight = torch.tensor([0.25, 4.0])
    inner = nn.CrossEntropyLoss(weight=weight)
    loss = {
        "module": inner,
        "partial": functools.partial(nn.functional.cross_entropy, weight=weight),
        "function": lambda output, target: inner(output, target),
    }[form]
    values = []
    for device in ("cuda", "cpu"):
        model = network(dropout=0.0)
        made = Trainer(model, loss, torch.optim.SGD(model.parameters(), 0.1), device=device, progress=False)
        made.fit(train_loader(), epochs=1)
        values.append(made.evaluate(DataLoader(data(), 32))["loss"])
    assert values[0] == pytest.approx(values[1], rel=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("reuse", [False, True])
def test_frozen_stays_bit_identical(precision: str, reuse: bool) -> None:
    model = freeze(network())
    before = {name: value.detach().cpu().clone() for name, value in frozen_tensors(model).items()}
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.1)
    Trainer(
        model, nn.CrossEntropyLoss(), optimizer, reuse_features=reuse, progress=False,
        device="cuda", precision=precision,
    ).fit(train_loader(), epochs=13)  # fmt: skip
    assert different(before, {name: value.cpu() for name, value in frozen_tensors(model).items()}) == []


def test_the_head_from_stored_features_is_that_of_the_slow_way() -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=2)
    images, logits = data(48, 64), []
    for reuse in (True, False):
        one = freeze(copy.deepcopy(model))
        optimizer = torch.optim.AdamW(head_parameters(one), 1e-3)
        seen: list[str] = []
        run = Trainer(
            one, nn.CrossEntropyLoss(), optimizer, reuse_features=reuse and ReuseFeatures(cache=None), device="cuda",
            progress=False,
        )  # fmt: skip
        run.run.say = seen.append  # type: ignore[method-assign]
        run.fit(DataLoader(images, 16, shuffle=True), epochs=4)
        assert any("runs once over 48 training samples" in each for each in seen) == reuse
        with torch.no_grad():
            logits.append(one.eval()(images.tensors[0].cuda()).cpu())
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=1e-5)


def activation_memory(model: nn.Module, images: Tensor) -> int:
    """Bytes that a forward pass keeps for the backward pass."""
    model(images[:2])  # workspaces of cuDNN and cuBLAS stay from the first call on
    gc.collect()
    before = torch.cuda.memory_allocated()
    output = model(images)
    taken = torch.cuda.memory_allocated() - before - output.numel() * output.element_size()
    output.sum().backward()
    return taken


def test_a_frozen_resnet_keeps_no_activations() -> None:
    model, images = torchvision.models.resnet18(num_classes=10).cuda(), torch.randn(32, 3, 224, 224, device="cuda")
    full = activation_memory(model, images)
    model.zero_grad()
    frozen = activation_memory(freeze(model), images)
    assert frozen <= full * 0.01, f"{frozen:,} of {full:,} bytes"


def test_out_of_memory_halves_the_batch_and_leaves_the_step_as_it_was(capsys: Any) -> None:
    """A real one: the process is allowed less memory than the whole batch takes."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4096), nn.ReLU(), nn.Linear(4096, 2))
    samples = 1 << 16  # 1 GiB for each copy of the hidden layer
    many = TensorDataset(torch.randn(samples, 64), torch.arange(samples) % 2)
    ends = []
    for share in (1.0, 2.2 / (torch.cuda.get_device_properties(0).total_memory / 2**30)):
        one = copy.deepcopy(model)
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(share)
        try:
            Trainer(one, nn.CrossEntropyLoss(), torch.optim.SGD(one.parameters(), 0.1), device="cuda").fit(
                DataLoader(many, samples), epochs=2
            )
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        ends.append(weights(one))
    assert "out of memory: from now on each batch is processed in" in capsys.readouterr().err
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_batches_that_are_copied_ahead_are_the_loaders() -> None:
    """The copy runs on another stream than the work: a batch that is used too early, or overwritten, would differ."""
    images = torch.randn(512, 3, 64, 64)
    sums: dict[int, float] = {}

    def step(run: Any, batch: Any) -> Tensor:
        inputs, place = batch
        busy = torch.randn(1024, 1024, device="cuda")
        for _ in range(20):
            busy = busy @ busy / 32
        for value, index in zip(inputs.double().sum((1, 2, 3)).tolist(), place.tolist(), strict=True):
            sums[index] = value
        return busy.mean()

    model = nn.Linear(1, 1)
    Trainer(
        model, None, torch.optim.SGD(model.parameters(), 0.1), step=step, device="cuda", progress=False
    ).fit(DataLoader(TensorDataset(images, torch.arange(512)), 32, shuffle=True, pin_memory=True))  # fmt: skip
    torch.testing.assert_close(torch.tensor([sums[index] for index in range(512)], dtype=torch.float64),
                               images.double().sum((1, 2, 3)), rtol=1e-9, atol=1e-6)  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # torch's exporters warn of what torch itself does
@pytest.mark.parametrize("form", ["onnx", "torch.export", "state_dict"])
def test_other_forms_are_written_from_a_gpu(tmp_path: Path, form: Any) -> None:
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    model = create_model("torchvision/squeezenet1_1", classes=["a", "b"], pretrained=False).cuda()
    path = dlkit.save(model, tmp_path / "model", format=form)
    assert path.stat().st_size > 1_000_000
    assert {parameter.device.type for parameter in model.parameters()} == {"cuda"}
    if form == "torch.export":
        images = torch.rand(3, 3, 96, 96)
        found = torch.export.load(path).module()(images)
        torch.testing.assert_close(found, model.eval()(images.cuda()).cpu(), rtol=1e-2, atol=1e-2)


def test_what_a_gpu_trained_is_opened_and_trained_on_without_one(tmp_path: Path) -> None:
    images = data(32, 64)
    loaders = DataLoader(images, 16, shuffle=True), DataLoader(images, 16)

    def made() -> nn.Module:
        torch.manual_seed(0)
        return create_model("torchvision/squeezenet1_1", classes=["a", "b"], pretrained=False)

    model = made()
    trainer(model, EMA(0.9), Checkpoint(tmp_path / "run")).fit(*loaders, epochs=2)
    dlkit.save(model, tmp_path / "model.safetensors")
    with torch.no_grad():
        expected = model.eval()(images.tensors[0].cuda()).cpu()
    found = dlkit.load(tmp_path / "model.safetensors", device="cpu").logits(images.tensors[0])
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)
    again = made()
    history = trainer(again, EMA(0.9), Checkpoint(tmp_path / "run"), device="cpu").fit(*loaders, epochs=3)
    assert history["epoch"] == [1, 2, 3]


def data_loader() -> DataLoader[Any]:
    return DataLoader(data(), 16)


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_metrics_and_losses_are_those_of_the_cpu(layout: str) -> None:
    histories = []
    for device in ("cpu", "cuda"):
        model = network(dropout=0.0)
        if layout == "channels last":
            model = model.to(memory_format=torch.channels_last)
        histories.append(trainer(model, device=device).fit(train_loader(), data_loader(), epochs=3))
    for name in ("train_loss", "val_loss", "val_accuracy"):
        assert histories[1][name] == pytest.approx(histories[0][name], rel=0.02, abs=0.02), name


def test_random_views_of_a_frozen_backbone() -> None:
    class Noisy(TensorDataset):
        def __getitem__(self, index: Any) -> Any:
            image, target = super().__getitem__(index)
            return image + 0.1 * torch.randn_like(image), target

    model = freeze(network())
    noisy = Noisy(*data().tensors)
    history = Trainer(
        model, nn.CrossEntropyLoss(), torch.optim.AdamW(head_parameters(model), 1e-2), metrics=["accuracy"],
        reuse_features=ReuseFeatures(views=3, cache=None), device="cuda", progress=False,
    ).fit(DataLoader(noisy, 16, shuffle=True), data_loader(), epochs=12)  # fmt: skip
    assert history["val_accuracy"][-1] > 0.8


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of what torch itself does
def test_a_compiled_model_has_the_keys_of_a_plain_one(tmp_path: Path) -> None:
    model = network()
    replace_head(model, 2)
    trainer(model, Checkpoint(tmp_path), compile=True).fit(train_loader(), data_loader(), epochs=1)
    plain = network()
    trainer(plain, Checkpoint(tmp_path)).fit(train_loader(), data_loader(), epochs=2)
    assert plain.state_dict().keys() == network().state_dict().keys()
