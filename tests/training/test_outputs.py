"""Models that return more than one output: every part that training needs is trained, or said."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from dlkit import Trainer
from dlkit.callbacks import Callback
from dlkit.errors import TrainingError

X, Y = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 3


class Gradients(Callback):
    def on_gradients(self, run: Any) -> None:
        self.seen = [None if p.grad is None else p.grad.clone() for p in run.model.parameters()]


def train(model: nn.Module, loss: Any, batches: list[Any], **options: Any) -> tuple[list[Any], dict[str, Any]]:
    gradients = Gradients()
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    trainer = Trainer(model, loss, optimizer, callbacks=[gradients], progress=False, device="cpu", **options)
    row = trainer.fit(batches, batches).rows[0]
    return gradients.seen, row


def expected(model: nn.Module, loss: Tensor) -> list[Any]:
    model.zero_grad()
    loss.backward()
    found = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    return found


Two = namedtuple("Two", ["logits", "aux_logits"])
Three = namedtuple("Three", ["logits", "aux_logits2", "aux_logits1"])


class Heads(nn.Module):
    """A trunk with heads; it returns in training what is made of their outputs, else the first one."""

    def __init__(self, heads: int, make: Any, *, always: bool = False) -> None:
        super().__init__()
        self.trunk = nn.Linear(4, 5)
        self.heads = nn.ModuleList(nn.Linear(5, 3) for _ in range(heads))
        self.make, self.always = make, always

    def parts(self, inputs: Tensor) -> list[Tensor]:
        features = self.trunk(inputs).tanh()
        return [head(features) for head in self.heads]

    def forward(self, inputs: Tensor) -> Any:
        parts = self.parts(inputs)
        return self.make(*parts) if self.training or self.always else parts[0]


REFERENCES = {
    "inception": (2, Two, [1, 0.4]),
    "googlenet": (3, Three, [1, 0.3, 0.3]),
    "inception without": (1, lambda first: Two(first, None), [1]),
    "segmentation": (2, lambda first, second: OrderedDict(out=first, aux=second), [1, 0.5]),
    "segmentation without": (1, lambda first: OrderedDict(out=first), [1]),
}


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_auxiliary_heads_are_trained_like_torchvisions_references(name: str, accumulate: int) -> None:
    heads, make, weights = REFERENCES[name]
    torch.manual_seed(0)
    model = Heads(heads, make)
    wanted = sum(weight * F.cross_entropy(part, Y) for weight, part in zip(weights, model.parts(X), strict=True))
    loss = float(wanted.detach())
    gradients = expected(model, wanted)
    batches = [(X, Y)] if accumulate == 1 else [(X[:2], Y[:2]), (X[2:], Y[2:])]
    found, row = train(model, nn.CrossEntropyLoss(), batches, metrics=["accuracy"], accumulate=accumulate)
    torch.testing.assert_close(found, gradients)
    assert row["train_loss"] == pytest.approx(loss, rel=1e-5)
    first = model.parts(X)[0]
    assert row["val_loss"] == pytest.approx(float(F.cross_entropy(first, Y).detach()), rel=1e-5)
    assert row["val_accuracy"] == float((first.argmax(1) == Y).float().mean())


def test_torchvisions_own_outputs_are_those() -> None:
    assert torchvision.models.GoogLeNetOutputs._fields == Three._fields
    assert torchvision.models.InceptionOutputs._fields == Two._fields
    model = torchvision.models.segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=2
    )
    with torch.no_grad():
        assert list(model.eval()(torch.zeros(1, 3, 32, 32))) == ["out"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda a, b: {"logits": a, "attributes": b}, r"'attributes' \(leads to heads.1.bias, which would not be"),
        (namedtuple("Own", ["logits", "boxes"]), r"'boxes' \(leads to heads.1"),
        (lambda a, b: {"logits": a, "penalty": b.square().mean()}, r"'penalty' \(leads to heads.1"),
        (lambda a, b: {"logits": a, "router": a.mean()}, r"'router' \(one number: a loss that is not in the sum\?"),
        (lambda a, b: [a, b], "the model gave several outputs, list of .* pass a custom loss that takes them all"),
        (lambda a, b: (a, b), "the model gave several outputs, tuple of"),
        (lambda a, b: {"coarse": a, "fine": b}, "the model gave several outputs, {coarse: "),
    ],
)  # fmt: skip
def test_what_would_be_left_out_is_refused(make: Any, message: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(TrainingError, match=message):
        train(Heads(2, make, always=True), nn.CrossEntropyLoss(), [(X, Y)])


def test_parts_that_need_no_training_are_let_be() -> None:
    """Hidden states lead to nothing that the prediction does not lead to; shown numbers are detached."""

    class Output(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

        def forward(self, inputs: Tensor) -> Any:
            hidden = self.trunk(inputs).tanh()
            return {"logits": self.head(hidden), "hidden_states": (inputs, hidden), "norm": hidden.norm().detach()}

    model = Output()
    wanted = F.cross_entropy(model(X)["logits"], Y)
    found, row = train(model, nn.CrossEntropyLoss(), [(X, Y)])
    torch.testing.assert_close(found, expected(model, F.cross_entropy(model(X)["logits"], Y)))
    assert row["train_loss"] == row["val_loss"] == float(wanted.detach())


DEEP = {
    "list": (
        lambda a, b: [a, b],
        lambda outputs, y: F.cross_entropy(outputs[0], y) + 0.5 * F.cross_entropy(outputs[1], y),
    ),
    "dict": (
        lambda a, b: {"logits": a, "fine": b},
        lambda outputs, y: F.cross_entropy(outputs["logits"], y) + 0.5 * F.cross_entropy(outputs["fine"], y),
    ),
}


@pytest.mark.parametrize("name", DEEP)
def test_a_loss_of_ones_own_gets_all_parts(name: str) -> None:
    make, loss = DEEP[name]
    torch.manual_seed(0)
    model = Heads(2, make, always=True)
    found, row = train(model, loss, [(X, Y)])
    wanted = loss(model(X), Y)
    assert row["train_loss"] == row["val_loss"] == float(wanted.detach())
    torch.testing.assert_close(found, expected(model, wanted))


class Returns(nn.Module):
    """Returns its losses itself."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.first, self.second, self.make = nn.Linear(4, 3), nn.Linear(4, 3), make

    def losses(self, x: Tensor, y: Tensor) -> list[Tensor]:
        return [F.cross_entropy(layer(x), y) for layer in (self.first, self.second)]

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.make(*self.losses(x, y))


RETURNED = {
    "dict of losses, as of torchvision's detectors": lambda a, b: {"loss_classifier": a, "loss_box_reg": b},
    "total and parts": lambda a, b: {"loss": a + b, "loss_first": a, "loss_second": b},
    "attribute": lambda a, b: namedtuple("Out", ["loss", "logits"])(a + b, a.detach()),
}


@pytest.mark.parametrize("name", RETURNED)
def test_losses_that_a_model_returns_are_all_trained(name: str) -> None:
    torch.manual_seed(0)
    model = Returns(RETURNED[name])
    found, row = train(model, None, [(X, Y)])
    assert row["train_loss"] == row["val_loss"] == float(sum(model.losses(X, Y)).detach())
    torch.testing.assert_close(found, expected(model, sum(model.losses(X, Y))))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda a, b: {"loss": a, "second": b}, r"the loss leaves out 'second' \(leads to second."),
        (lambda a, b: {"loss": a + b, "extra": a * 2}, r"'extra' \(one number"),
        (lambda a, b: {"a": a, "logits": b.expand(3)}, "in which there is no loss"),
        (lambda a, b: (a, b), "the model returned tuple of .* in which there is no loss"),
    ],
)
def test_losses_that_would_be_left_out_are_refused(make: Any, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        train(Returns(make), None, [(X, Y)])


class Writes(nn.Module):
    """As T5: the target is an input, too, unless it writes by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        if labels is None:
            raise ValueError("You have to specify decoder_input_ids")
        logits = self.layer(x)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


class Generates(Writes):
    def generate(self, x: Tensor) -> Tensor:
        return self.layer(x).argmax(1)


def test_a_model_that_needs_the_target_to_predict_is_told_how() -> None:
    for kind, hint in [(Writes, ""), (Generates, "; model.generate")]:
        model = kind()
        made = Trainer(model, None, torch.optim.SGD(model.parameters(), 0.1), device="cpu", progress=False)
        made.fit([{"x": X, "labels": Y}], [{"x": X, "labels": Y}])
        assert made.evaluate([{"x": X, "labels": Y}])["loss"] > 0
        with pytest.raises(
            TrainingError,
            match=r"cannot be called without 'labels', which predict leaves out \(ValueError: You have to specify "
            rf"decoder_input_ids\); has_targets=False gives it the whole batch{hint}",
        ):
            made.predict([{"x": X, "labels": Y}])
        whole = made.predict([{"x": X, "labels": Y}], has_targets=False)
        torch.testing.assert_close(whole["logits"], model.layer(X).detach())
        error, match = (
            (TrainingError, r"inputs alone .*; model\.generate") if hint else (ValueError, "decoder_input_ids")
        )
        with pytest.raises(error, match=match):
            made.predict([{"x": X}])


# Real ones, which take seconds to import and to run; what is done with their outputs is in the tests above.


@pytest.mark.proof
@pytest.mark.parametrize(("name", "side"), [("inception_v3", 299), ("googlenet", 96)])
def test_torchvisions_models_with_auxiliary_heads_train_all_of_them(name: str, side: int) -> None:
    make = torchvision.models.get_model
    model = make(name, weights=None, num_classes=3, aux_logits=True, init_weights=False)
    batches = [
        (torch.randn(2, 3, side, side), torch.tensor([0, 1])),
        (torch.randn(2, 3, side, side), torch.tensor([2, 0])),
    ]
    seen, row = train(model, nn.CrossEntropyLoss(), batches, metrics=["accuracy"])
    assert all(each is not None and bool(each.any()) for each in seen[:4] + seen[-4:])
    assert None not in [each if each is None else 1 for each in seen]
    assert 0 <= row["val_accuracy"] <= 1
    assert row["train_loss"] > row["val_loss"]  # with the auxiliary ones


@pytest.mark.proof
@pytest.mark.parametrize("hidden", [False, True])
def test_a_model_of_transformers_is_trained_on_its_logits_or_on_its_own_loss(hidden: bool) -> None:
    transformers = pytest.importorskip("transformers")
    settings = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.BertConfig(vocab_size=50, num_labels=3, output_hidden_states=hidden, **settings)
    model = transformers.BertForSequenceClassification(config).eval()
    ids, target = torch.randint(1, 50, (4, 8)), torch.arange(4) % 3
    wanted = float(F.cross_entropy(model(ids).logits, target).detach())
    for loss, batch in [
        (nn.CrossEntropyLoss(), ({"input_ids": ids}, target)),
        (None, {"input_ids": ids, "labels": target}),
    ]:
        seen, row = train(model, loss, [batch], metrics=["accuracy"])
        assert None not in [each if each is None else 1 for each in seen]
        assert row["val_loss"] == pytest.approx(wanted)
    config.num_labels = 2
    answering = transformers.BertForQuestionAnswering(config)
    with pytest.raises(TrainingError, match=r"the model gave several outputs, \{start_logits.*end_logits"):
        train(answering, nn.CrossEntropyLoss(), [({"input_ids": ids}, target)])


@pytest.mark.proof
def test_a_model_of_transformers_that_writes_texts() -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, decoder_start_token_id=0))
    batches = [{"input_ids": torch.randint(1, 40, (4, 6)), "labels": torch.randint(1, 40, (4, 5))} for _ in range(2)]
    made = Trainer(model, None, torch.optim.SGD(model.parameters(), 0.1), device="cpu", progress=False)
    made.fit(batches, batches)
    with pytest.raises(TrainingError, match=r"without 'labels', which predict leaves out .*; model\.generate"):
        made.predict(batches)
    assert made.predict(batches, has_targets=False).shape == (8, 5, 40)
