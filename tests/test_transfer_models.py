"""Backbones by name, weights from anywhere, grey and small images."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader

from dlkit import Trainer
from dlkit.datasets import Glyphs, NotMNIST
from dlkit.errors import ArgumentError, DataNotFoundError, IntegrityError, ModelFileError
from dlkit.models import SmallConvNet
from dlkit.storage.files import sha256_of
from dlkit.transfer import (
    create_model,
    freeze,
    frozen_tensors,
    head_parameters,
    load_weights,
    param_groups,
    rebuild,
    replace_head,
    unfreeze,
)
from dlkit.transfer.inputs import take_channels
from dlkit.transforms import Augment, from_model
from servers import Server


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 900, 5))


def same(left: nn.Module, right: nn.Module) -> bool:
    other = right.state_dict()
    return all(torch.equal(value, other[name]) for name, value in left.state_dict().items())


WRAPPINGS = {
    "plain": lambda state: state,
    "nested": lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"state": {}}},
    "deep": lambda state: {"a": {"b": {"model": state}}},
    "module": lambda state: {f"module.{name}": value for name, value in state.items()},
    "compiled, parallel and nested": lambda state: {
        "model": {f"module._orig_mod.{name}": value for name, value in state.items()}
    },
    "lightning": lambda state: {"state_dict": {f"net.{name}": value for name, value in state.items()}},
}


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS.keys())
def test_weights_are_found_whatever_they_are_wrapped_in(tmp_path: Path, wrap: Any) -> None:
    source, target = network(), network()
    torch.save(wrap(source.state_dict()), tmp_path / "weights.pth")
    report = load_weights(target, tmp_path / "weights.pth")
    assert same(source, target)
    assert report.missing == report.unexpected == report.mismatched == ()


def test_safetensors_hash_and_file_url(tmp_path: Path) -> None:
    source, path = network(), tmp_path / "weights.safetensors"
    save_file(source.state_dict(), path)
    for weights in (
        path,
        f"{path}#sha256={sha256_of(path)}",
        path.as_uri(),
        f"{path.as_uri()}#sha256={sha256_of(path)}",
    ):
        target = network()
        load_weights(target, weights, progress=False)
        assert same(source, target)
    for weights in (f"{path}#sha256={'0' * 64}", f"{path.as_uri()}#sha256={'0' * 64}"):
        with pytest.raises(IntegrityError):
            load_weights(network(), weights, progress=False)
    named = tmp_path / "net-01234567.safetensors"
    named.write_bytes(path.read_bytes())
    with pytest.raises(IntegrityError, match=r"its name promises 01234567"):
        load_weights(network(), named.as_uri(), progress=False)


def test_weights_from_an_address_are_fetched_once_and_checked_against_their_name(tmp_path: Path) -> None:
    source = network()
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    start = sha256_of(tmp_path / "weights.pth")[:8]
    with Server() as server:
        server.files[f"/net-{start}.pth"] = server.files["/net-00000000.pth"] = tmp_path / "weights.pth"
        for _ in range(2):
            target = network()
            load_weights(target, server.url(f"/net-{start}.pth"), progress=False)
            assert same(source, target)
        assert len(server.requests) == 1
        with pytest.raises(IntegrityError, match="its name promises 00000000"):
            load_weights(network(), server.url("/net-00000000.pth"), progress=False)


def test_what_does_not_fit_is_reported(tmp_path: Path) -> None:
    state = network().state_dict()
    state["extra.weight"] = torch.zeros(1)
    state["3.weight"] = torch.zeros(7, 3600)
    del state["1.bias"]
    torch.save(state, tmp_path / "weights.pth")
    report = load_weights(network(), tmp_path / "weights.pth")
    assert report.missing == ("1.bias",)
    assert report.unexpected == ("extra.weight",)
    assert report.mismatched == ("3.weight: file [7, 3600], model [5, 3600]",)
    assert "7 of 9 tensors loaded" in str(report)


class Evil:
    def __reduce__(self) -> Any:
        return print, ("this must never run",)


def test_what_is_no_file_of_weights_is_refused(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"weight": Evil()}, path)
    with pytest.raises(ModelFileError, match=r"weights\.pth is not a weights file"):
        load_weights(network(), path)
    assert capsys.readouterr().out == ""
    for content in (b"", b"hello", b"\xff" * 100, b"\x08\0\0\0\0\0\0\0{nothing"):
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match="is not a weights file"):
            load_weights(network(), path)
    torch.save([1, 2], path)
    with pytest.raises(ModelFileError, match="holds no tensors by name, but list"):
        load_weights(network(), path)
    torch.save(torchvision.models.alexnet(weights=None, num_classes=2).features.state_dict(), path)
    with pytest.raises(ModelFileError, match=r"nothing in .* fits Linear"):
        load_weights(nn.Linear(3, 3), path)
    with pytest.raises(DataNotFoundError, match="there is no file of weights"):
        load_weights(network(), tmp_path / "gone.pth")


def test_create_model_with_real_weights(shared_data: Path) -> None:
    path = shared_data / "weights" / "mobilenet_v2_imagenet.pth"
    model = create_model("torchvision/mobilenet_v2", classes=["ants", "bees"], weights=path)
    original = torch.load(path, weights_only=True)
    own = model.state_dict()
    assert all(torch.equal(own[name], value) for name, value in original.items() if not name.startswith("classifier"))
    assert model.classes == ["ants", "bees"]
    assert own["classifier.1.weight"].shape == (2, 1280)
    assert model.preprocessing.document() == {
        "kind": "Preprocessing",
        "size": [224, 224],
        "resize": 256,
        "fit": "crop",
        "interpolation": "bilinear",
        "color": "RGB",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "augment": None,
        "then": [],
    }
    assert len(model.weights_report.mismatched) == 2
    assert [each.shape for each in model.head_parameters()] == [(2, 1280), (2,)]


def test_weights_of_another_model_are_refused_or_warned_of(shared_data: Path, tmp_path: Path, caplog: Any) -> None:
    with pytest.raises(ModelFileError, match="do they belong to another model"):
        create_model("timm/resnet10t", classes=2, weights=shared_data / "weights" / "mobilenet_v2_imagenet.pth")
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    create_model("torchvision/resnet18", classes=2, weights=tmp_path / "resnet18.pth")
    assert caplog.records == []
    create_model("torchvision/resnet34", classes=2, weights=tmp_path / "resnet18.pth")
    assert "80 tensors of the backbone stay random" in caplog.text
    assert "not in the file: layer1.2.conv1.weight" in caplog.text


def test_names_of_either_library() -> None:
    bare = create_model("resnet10t", classes=3, pretrained=False)
    assert type(bare).__module__.startswith("timm.")
    assert type(create_model("torchvision/resnet18", classes=3, pretrained=False)).__module__.startswith("torchvision.")
    assert type(create_model("shufflenet_v2_x0_5", classes=3, pretrained=False)).__module__.startswith("torchvision.")
    with pytest.raises(ArgumentError, match="no model 'resnet19' in timm or torchvision; did you mean resnet1"):
        create_model("resnet19", classes=2)


def test_a_hub_repository_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "hubconf.py").write_text(
        "from torch import nn\n"
        "def small(pretrained=False):\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1000))\n"
    )
    model = create_model(f"hub/{tmp_path}:small", classes=2, pretrained=False)
    assert model[3].out_features == 2


def test_a_module_of_ones_own() -> None:
    model = freeze(create_model(network(), classes=2))
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 2)
    assert len(list(head_parameters(model))) == 2


@pytest.mark.parametrize("name", ["torchvision/shufflenet_v2_x0_5", "timm/test_efficientnet", "timm/test_nfnet"])
def test_grey_images_give_what_three_equal_channels_give(name: str) -> None:
    torch.manual_seed(0)
    colour = create_model(name, classes=5, pretrained=False).eval()
    torch.manual_seed(0)
    grey = create_model(name, classes=5, pretrained=False, in_chans=1).eval()
    image = torch.rand(4, 1, 160, 160)
    spec = colour.preprocessing
    mean, std = (torch.tensor(getattr(spec, key)).reshape(1, 3, 1, 1) for key in ("mean", "std"))
    normal = (image.expand(-1, 3, -1, -1) - mean) / std
    batch = torch.nn.functional.mse_loss
    with torch.no_grad():
        for module, inputs in ((colour, normal), (grey, image)):  # statistics with which differences can be seen
            for each in module.modules():
                if isinstance(each, nn.BatchNorm2d):
                    each.momentum = None
                    each.reset_running_stats()
            module.train()(inputs)
            module.eval()
        expected, found = colour(normal), grey(image)
    assert torch.allclose(expected, found, atol=1e-3 * float(expected.abs().max()))
    assert batch(expected, expected.mean(0, keepdim=True).expand_as(expected)) > 0
    assert grey.preprocessing.color == "L"
    assert (grey.preprocessing.mean, grey.preprocessing.std) == ((0.0,), (1.0,))


def test_the_fold_is_exact_at_the_border_too() -> None:
    torch.manual_seed(0)
    conv = nn.Sequential(nn.Conv2d(3, 4, 5, padding=2), nn.Flatten(), nn.Linear(4 * 64, 2))
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    image = torch.rand(3, 1, 8, 8)
    normal = (image.expand(-1, 3, -1, -1) - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    expected = conv[0](normal)
    take_channels(conv, 1, mean=mean, std=std, example=torch.zeros(2, 3, 8, 8))
    assert torch.allclose(conv[0](image), expected, atol=1e-5)


def test_other_channels_repeat_the_kernels() -> None:
    model = create_model(network(), classes=2, in_chans=6)
    assert model[0].weight.shape == (4, 6, 3, 3)
    assert torch.equal(model[0].weight[:, 0], model[0].weight[:, 3])


@pytest.mark.parametrize("name", ["timm/resnet10t", "torchvision/mobilenet_v2", "timm/test_vit"])
@pytest.mark.parametrize("in_chans", [1, 4])
def test_a_model_of_other_channels_is_frozen_unfrozen_and_grouped_as_any_other(name: str, in_chans: int) -> None:
    image_size = None if name == "timm/test_vit" else 96  # its own size is small enough, and the only one
    model = create_model(name, classes=3, pretrained=False, in_chans=in_chans, image_size=image_size)
    last = [each for each, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)][-2]
    unfreeze(freeze(model), last)
    assert 0 < sum(parameter.requires_grad for parameter in model.parameters()) < len(list(model.parameters()))
    unfreeze(model)
    held = [id(each) for group in param_groups(model, 1e-3, layer_decay=0.8) for each in group["params"]]
    assert sorted(held) == sorted(id(each) for each in model.parameters())
    assert replace_head(model, 5)(torch.rand(2, in_chans, *model.preprocessing.size)).shape == (2, 5)


def test_small_images_are_enlarged_and_it_is_said_once(caplog: Any) -> None:
    model = create_model("timm/resnet10t", classes=10, in_chans=1, pretrained=False).eval()
    seen: list[Any] = []
    model.conv1.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    with caplog.at_level(logging.WARNING, "dlkit"), torch.no_grad():
        model(torch.rand(2, 1, 28, 28))
        model(torch.rand(2, 1, 28, 56))
        model(torch.rand(2, 1, 160, 160))
    assert [tuple(each[2:]) for each in seen] == [(96, 96), (96, 192), (160, 160)]
    assert sum("enlarges images of 28 x 28 to 96 x 96" in each.message for each in caplog.records) == 1


def test_image_size_goes_into_the_preprocessing() -> None:
    small = create_model("timm/resnet10t", classes=2, pretrained=False, image_size=28).preprocessing
    assert (small.size, small.resize) == ((96, 96), 96)
    fixed = create_model("timm/test_vit", classes=2, pretrained=False, image_size=28).preprocessing
    assert fixed.size == (160, 160)
    with pytest.raises(ArgumentError, match="number of pixels"):
        create_model("timm/resnet10t", classes=2, pretrained=False, image_size=0)


REBUILT = [
    ("torchvision/squeezenet1_1", 3, None),
    ("torchvision/shufflenet_v2_x0_5", 1, 28),
    ("torchvision/mobilenet_v3_small", 1, None),
    ("torchvision/vit_b_16", 1, 28),
    ("timm/test_efficientnet", 3, 28),
    ("timm/test_vit", 1, 224),
    ("timm/test_vit", 1, 28),
    ("timm/test_nfnet", 1, 28),  # its first convolution standardises its weights: copied to three channels instead
    ("timm/test_convnext2", 6, 224),
    ("resnet10t", 1, 28),
]


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's transformers with two layers instead of twelve and more: they differ in nothing else."""
    module = torchvision.models.vision_transformer
    original = module._vision_transformer
    monkeypatch.setattr(module, "_vision_transformer", lambda **settings: original(**settings | {"num_layers": 2}))


@pytest.mark.parametrize(("name", "in_chans", "image_size"), REBUILT)
def test_a_model_is_rebuilt_from_what_it_says_of_itself(
    name: str, in_chans: int, image_size: int | None, shallow: None
) -> None:
    model = create_model(name, classes=["a", "b", "c"], in_chans=in_chans, pretrained=False, image_size=image_size)
    before = torch.get_rng_state()
    again = rebuild(json.loads(json.dumps(model.architecture)))
    assert torch.equal(before, torch.get_rng_state())
    again.load_state_dict(model.state_dict())
    assert again.architecture == model.architecture
    assert again.preprocessing == model.preprocessing
    size = image_size or model.preprocessing.size[0]
    images = torch.rand(2, in_chans, size, size)
    with torch.no_grad():
        expected, found = model.eval()(images), again.eval()(images)
    assert torch.equal(expected, found)
    assert found.shape == (2, 3)


def test_the_architecture_follows_the_head_and_names_the_weights_tag() -> None:
    model = create_model("resnet10t", classes=["a", "b"], pretrained=False)
    assert model.architecture == {
        "library": "timm",
        "name": "resnet10t.c3_in1k",
        "num_classes": 2,
        "in_chans": 3,
        "image_size": None,
    }
    replace_head(model, 5)
    assert (model.architecture["num_classes"], model.classes) == (5, None)
    assert rebuild(model.architecture).num_classes == 5
    assert create_model(network(), classes=2).architecture is None


def test_a_registered_model_keeps_its_architecture_while_that_still_holds() -> None:
    assert create_model(SmallConvNet(2), classes=2).architecture["name"] == SmallConvNet(2).architecture["name"]
    assert create_model(SmallConvNet(2), classes=3).architecture is None
    assert replace_head(SmallConvNet(2), 3).architecture is None


@pytest.mark.parametrize(
    "change",
    [
        {"library": "pickle"},
        {"name": 3},
        {"num_classes": 0},
        {"num_classes": True},
        {"num_classes": 1 << 40},
        {"in_chans": None},
        {"image_size": "28"},
        {"more": 1},
    ],
)
def test_an_architecture_that_create_model_did_not_write_is_refused(change: dict[str, Any]) -> None:
    good = {"library": "timm", "name": "test_vit", "num_classes": 2, "in_chans": 3, "image_size": None}
    with pytest.raises(ArgumentError, match="must be what create_model wrote"):
        rebuild(good | change)
    with pytest.raises(ArgumentError, match="must be what create_model wrote"):
        rebuild("resnet18")
    with pytest.raises(ArgumentError, match="no model 'hf-hub:somebody/model' in timm"):
        rebuild(good | {"name": "hf-hub:somebody/model"})


def test_no_code_of_a_hub_repository_runs_unasked(tmp_path: Path) -> None:
    (tmp_path / "hubconf.py").write_text(
        "from torch import nn\n"
        "def small():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1000))\n"
    )
    architecture = create_model(f"hub/{tmp_path}:small", classes=2, pretrained=False).architecture
    with pytest.raises(ArgumentError, match="trust_hub=True"):
        rebuild(architecture)
    assert rebuild(architecture, trust_hub=True)[3].out_features == 2


def test_the_model_says_how_its_images_are_prepared() -> None:
    for in_chans, image_size in ((3, None), (1, 28)):
        model = create_model("timm/test_vit", classes=2, pretrained=False, in_chans=in_chans, image_size=image_size)
        prepare = from_model(model)
        assert prepare == model.preprocessing
        pixels = torch.randint(0, 256, (in_chans, 200, 300), dtype=torch.uint8)
        assert model(prepare(pixels)[None]).shape == (1, 2)
        assert from_model(model, augment=Augment()).draws_random


@pytest.mark.parametrize("letters", ["Glyphs", "NotMNIST"])
def test_letters_in_grey_work_on_a_frozen_backbone_for_colour_photos(
    letters: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if letters == "Glyphs":
        whole: Any = Glyphs(400)
    else:
        archive = request.getfixturevalue("shared_data") / "notmnist" / "notMNIST_small_lookalike.tar.gz"
        with Server() as server:
            server.files["/notMNIST_small.tar.gz"] = archive
            address = server.url("/notMNIST_small.tar.gz")
            whole = NotMNIST(tmp_path, download=True, mirror=address, sha256=sha256_of(archive))
        whole, _ = whole.split([0.04, 0.96])
    train, val = whole.split(0.8)
    model = freeze(create_model("timm/test_efficientnet", classes=train.classes, in_chans=1, pretrained=False))
    before = {name: value.clone() for name, value in frozen_tensors(model).items()}
    optim = torch.optim.AdamW(model.head_parameters(), 1e-2)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim, metrics=["accuracy"], device="cpu", progress=False)
    history = trainer.fit(DataLoader(train, 64, shuffle=True), DataLoader(val, 64), epochs=3)
    assert history["val_accuracy"][-1] >= 0.1  # weights that have seen nothing: it runs, and learns a little
    assert history["train_loss"][-1] < history["train_loss"][0]
    assert all(torch.equal(value, before[name]) for name, value in frozen_tensors(model).items())
