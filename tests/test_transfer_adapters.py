"""Adapters, tied weights, models that keep caches, tokens without decay, parameters that nobody trains."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from dlkit import Trainer
from dlkit.errors import ArgumentError
from dlkit.transfer import create_model, find_heads, freeze, frozen_modules, param_groups, replace_head, unfreeze


def trainable(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


class Lora(nn.Module):
    """As PEFT puts one around a linear layer: frozen inside, two thin layers beside it, a dropout in front of those."""

    adapter_layer_names = ("lora_A", "lora_B")

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base_layer = layer.requires_grad_(False)
        self.lora_dropout = nn.ModuleDict({"default": nn.Dropout(0.5)})
        self.lora_A = nn.ModuleDict({"default": nn.Linear(layer.in_features, rank, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(rank, layer.out_features, bias=False)})

    @property
    def weight(self) -> Tensor:
        return self.base_layer.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + self.lora_B["default"](self.lora_A["default"](self.lora_dropout["default"](x)))


class Saved(nn.Module):
    """As PEFT keeps a head that is trained as a whole: the original, and a copy that is used."""

    adapter_layer_names = ("modules_to_save",)

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.original_module = layer.requires_grad_(False)
        self.modules_to_save = nn.ModuleDict({"default": copy.deepcopy(layer).requires_grad_(True)})

    def forward(self, x: Tensor) -> Tensor:
        return self.modules_to_save["default"](x)


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.a, self.b = nn.Embedding(9, 8), nn.Linear(8, 16), nn.Linear(16, 16)
        self.drop, self.head = nn.Dropout(0.1), nn.Linear(16, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.drop(self.b(self.a(self.words(ids).mean(1)).relu()).relu()))


def adapted(rank: int, head: str) -> nn.Module:
    model = Classifier().requires_grad_(False)
    model.a, model.b = Lora(model.a, rank), Lora(model.b, rank)  # type: ignore[assignment]
    if head == "saved":
        model.head = Saved(model.head)  # type: ignore[assignment]
    elif head == "adapted":
        model.head = Lora(model.head, rank)  # type: ignore[assignment]
    return model


def by_peft(rank: int, head: str) -> nn.Module:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        r=rank,
        lora_dropout=0.5,
        target_modules=["a", "b", *(["head"] if head == "adapted" else [])],
        modules_to_save=["head"] if head == "saved" else None,
    )
    return peft.get_peft_model(Classifier(), config).base_model.model  # type: ignore[no-any-return]


@pytest.mark.parametrize("make", [adapted, by_peft])
@pytest.mark.parametrize("head", ["saved", "adapted", "left"])
@pytest.mark.parametrize("rank", [3, 4, 9])
def test_an_adapter_stays_as_trainable_as_it_is(make: Any, head: str, rank: int) -> None:
    model = make(rank, head)
    before = trainable(model)
    assert freeze(model.train()) is model
    assert trainable(model) == before
    assert model.a.lora_dropout["default"].training
    assert model.a.training
    assert not model.a.base_layer.training
    assert model.a.lora_B["default"].training
    assert not model.words.training
    assert "a.base_layer" in frozen_modules(model)
    assert find_heads(model).main == ({"saved": "head.modules_to_save.default"}.get(head, "head"),)
    freeze(model, "all")
    assert trainable(model) == []
    assert trainable(unfreeze(model)) == before


def test_a_boundary_that_is_named_counts_for_adapters_too() -> None:
    model = freeze(adapted(4, "saved"), "b")
    assert trainable(model) == [name for name in trainable(adapted(4, "saved")) if not name.startswith("a.")]


def test_an_adapted_head_is_replaced_by_its_owner_alone() -> None:
    with pytest.raises(ArgumentError, match="the head is a Lora"):
        replace_head(adapted(4, "adapted"), 7)
    assert replace_head(adapted(4, "saved"), 7).head(torch.zeros(1, 16)).shape == (1, 7)


class Language(nn.Module):
    """As GPT-2 and BERT are built: what gives the words' scores is the table of their embeddings."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(20, 8), nn.Embedding(16, 8)
        self.block = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
        self.lm_head = nn.Linear(8, 20, bias=bias)
        self.lm_head.weight = self.wte.weight

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        x = self.wte(input_ids) + self.wpe(torch.arange(input_ids.shape[1], device=input_ids.device))
        return {"logits": self.lm_head(x + self.block(x))}


def gpt2() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=16, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config)  # type: ignore[no-any-return]


def bert() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    return transformers.BertForMaskedLM(config)  # type: ignore[no-any-return]


TIED = {
    "gpt2-like": (lambda: Language(bias=False), "lm_head", ["wte.weight"]),
    "bert-like": (lambda: Language(bias=True), "lm_head", ["wte.weight", "lm_head.bias"]),
    "gpt2": (gpt2, "lm_head", ["transformer.wte.weight"]),
    "bert": (bert, "cls.predictions.decoder", ["bert.embeddings.word_embeddings.weight", "cls.predictions.bias"]),
}


@pytest.mark.parametrize("kind", TIED)
def test_a_tied_head_is_found_and_stays_trainable(kind: str) -> None:
    make, head, own = TIED[kind]
    model = make()
    assert find_heads(model).main == (head,)
    assert trainable(freeze(model)) == own
    assert own[0].rpartition(".")[0] not in frozen_modules(model)
    groups = param_groups(model, 0.1)
    assert {id(p) for p in groups[0]["params"]} == {id(p) for p in model.head_parameters()}  # type: ignore[operator]
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(map(id, model.parameters()))
    torch.optim.SGD(groups, 0.1)


class Caching(nn.Module):
    """Keeps what it has computed from its weights while it is not trained, as LeViT and Swin do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bias, self.head = nn.Conv2d(3, 4, 3), nn.Parameter(torch.randn(4)), nn.Linear(4, 10)
        self.cache: dict[str, Tensor] = {}
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if str(x.device) not in self.cache:
            self.cache[str(x.device)] = self.bias * 2
        x = self.conv(x).mean((2, 3)) + self.cache[str(x.device)]
        self.last = x
        return self.head(x)


def test_models_of_create_model_can_be_copied() -> None:
    model = create_model(Caching(), classes=3, pretrained=False)
    freeze(model)
    copied = copy.deepcopy(model)
    assert copied.head_parameters.args[0] is copied  # type: ignore[union-attr]
    assert {id(p) for p in copied.parameters()}.isdisjoint(id(p) for p in model.parameters())
    unfreeze(copied)
    assert len(trainable(model)) < len(trainable(copied))
    assert model.cache == {}
    assert model.last is None


def no_decay(model: nn.Module) -> set[str]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = param_groups(model, 1e-3, weight_decay=0.1)
    assert {group["weight_decay"] for group in groups} == {0.0, 0.1}
    return {names[id(each)] for group in groups if not group["weight_decay"] for each in group["params"]}


def test_tokens_and_positions_do_not_decay() -> None:
    settings = {"img_size": 32, "patch_size": 16, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 3}
    model = timm.models.VisionTransformer(**settings, reg_tokens=2)
    model.no_weight_decay = set  # type: ignore[method-assign]
    tokens = {"cls_token", "reg_token", "pos_embed"}
    assert no_decay(model) == tokens | {name for name, p in model.named_parameters() if p.dim() == 1}
    vit = torchvision.models.VisionTransformer(32, 16, 1, 2, 16, 16, num_classes=3)
    found = no_decay(vit)
    assert found == {"class_token", "encoder.pos_embedding"} | {n for n, p in vit.named_parameters() if p.dim() == 1}


def test_what_a_model_names_itself_and_tables_of_positions_and_scales_do_not_decay() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.own = nn.Conv2d(3, 1, 1), nn.Parameter(torch.ones(3, 3))
            self.positional_embedding = nn.Parameter(torch.zeros(9, 4))
            self.relative_position_bias_table = nn.Parameter(torch.zeros(9, 4))
            self.layer_scale, self.matrix = nn.Parameter(torch.ones(4, 1, 1)), nn.Parameter(torch.ones(2, 2))
            self.in_proj_weight, self.head = nn.Parameter(torch.ones(1, 3, 3)), nn.Linear(1, 1)

        def no_weight_decay(self) -> set[str]:
            return {"own"}

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.first(x).mean((2, 3)))

    expected = {"first.bias", "own", "positional_embedding", "relative_position_bias_table", "layer_scale", "head.bias"}
    assert no_decay(Model()) == expected


def test_parameters_in_no_optimizer_are_named() -> None:
    class Learned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            return self.scale * nn.functional.cross_entropy(output, target)

    model, loss = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)), Learned()
    loader = DataLoader(TensorDataset(torch.randn(8, 2), torch.arange(8) % 2), 4)
    trainer = Trainer(model, loss, torch.optim.SGD(model[2].parameters(), 0.1), device="cpu", progress=False)
    with pytest.warns(UserWarning, match=r"in no optimizer, so never changed: 0\.weight, 0\.bias, loss\.scale; hand"):
        trainer.fit(loader)
    optim = torch.optim.SGD([*model[2].parameters(), loss.scale], 0.1)
    model[0].requires_grad_(False)
    Trainer(model, loss, optim, device="cpu", progress=False).fit(loader)
