"""One optimizer step: accumulation, full memory, precision, own steps, and batches of every shape."""

from __future__ import annotations

import copy
import warnings
from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import warm
from dlkit import Trainer
from dlkit.callbacks import Callback, Checkpoint, ClipGradients, LearningRate
from dlkit.errors import TrainingError
from dlkit.runs.checkpointfile import load_checkpoint


class Gradients(Callback):
    """Keeps the gradients and losses of each step."""

    order = 999

    def __init__(self) -> None:
        self.seen: list[list[torch.Tensor]] = []

    def on_gradients(self, run) -> None:
        self.seen.append([parameter.grad.clone() for parameter in run.model.parameters()])


def train(model, loss, batches, *, callbacks=(), epochs=1, lr=0.1, **settings):
    gradients = Gradients()
    optimizer = torch.optim.SGD(model.parameters(), lr)
    trainer = Trainer(
        model, loss, optimizer, callbacks=[*callbacks, gradients], progress=False, **{"device": "cpu", **settings}
    )
    history = trainer.fit(batches, epochs=epochs)
    return SimpleNamespace(trainer=trainer, history=history, gradients=gradients.seen, model=trainer.model)


def cut(batch: tuple[torch.Tensor, ...], sizes: list[int]) -> list[tuple[torch.Tensor, ...]]:
    return list(zip(*(tensor.split(sizes) for tensor in batch), strict=True))


def close(found, expected, **tolerance) -> None:
    torch.testing.assert_close(found, expected, **{"rtol": 1e-5, "atol": 1e-7, **tolerance})


# --------------------------------------------------------------------------------------------------------- accumulation

WEIGHT = torch.tensor([0.2, 1.0, 3.0])
LOSSES = {
    "cross entropy": nn.CrossEntropyLoss(),
    "weights": nn.CrossEntropyLoss(weight=WEIGHT),
    "ignored": nn.CrossEntropyLoss(ignore_index=1),
    "weights and ignored": nn.CrossEntropyLoss(weight=WEIGHT, ignore_index=1),
    "smoothed": nn.CrossEntropyLoss(weight=WEIGHT, ignore_index=2, label_smoothing=0.2),
    "sum": nn.CrossEntropyLoss(reduction="sum", ignore_index=1),
    "nll": nn.NLLLoss(weight=WEIGHT),
    "function": nn.functional.cross_entropy,
}


@settings(max_examples=25)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=7),
    accumulate=st.integers(2, 4),
    name=st.sampled_from(sorted(LOSSES)),
    seed=st.integers(0, 1000),
)
def test_accumulation_is_the_big_batch(sizes, accumulate, name, seed):
    """Batches of any sizes, the short last group included, and batches in which every target is ignored."""
    torch.manual_seed(seed)
    big = (torch.randn(sum(sizes), 4), torch.randint(0, 3, (sum(sizes),)))
    batches = cut(big, sizes)
    groups = [batches[start : start + accumulate] for start in range(0, len(batches), accumulate)]
    joined = [tuple(torch.cat(parts) for parts in zip(*group, strict=True)) for group in groups]
    if any((target == LOSSES[name].ignore_index).all() for _, target in joined if hasattr(LOSSES[name], "weight")):
        return  # the mean of nothing, with accumulation or without
    model = nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(1) if name == "nll" else nn.Identity())
    whole = train(copy.deepcopy(model), LOSSES[name], joined)
    parts = train(copy.deepcopy(model), LOSSES[name], batches, accumulate=accumulate)
    close(parts.gradients, whole.gradients)
    close(list(parts.model.parameters()), list(whole.model.parameters()))
    assert parts.history["train_loss"] == pytest.approx(whole.history["train_loss"], rel=1e-5)
    assert parts.trainer.run.step == len(groups) == whole.trainer.run.step
    assert parts.trainer.run.cursor.samples == sum(sizes)


@pytest.mark.parametrize("name", ["ignored", "weights and ignored", "smoothed"])
def test_a_batch_with_nothing_to_learn_counts_nothing(name):
    """Its mean is 0 / 0, which must reach neither the gradients nor the loss that is shown."""
    torch.manual_seed(0)
    ignored = LOSSES[name].ignore_index
    big = (torch.randn(5, 4), torch.tensor([0, ignored, ignored, 2 - ignored // 2, 0]))
    model = nn.Linear(4, 3)
    whole = train(copy.deepcopy(model), LOSSES[name], [big])
    parts = train(copy.deepcopy(model), LOSSES[name], cut(big, [1, 2, 2]), accumulate=3)
    close(parts.gradients, whole.gradients)
    assert parts.history["train_loss"] == pytest.approx(whole.history["train_loss"])


def test_a_class_that_does_not_exist_is_named_by_the_loss_with_accumulation_too():
    batches = [(torch.randn(2, 4), torch.tensor([0, 3]))] * 2
    with pytest.raises(
        TrainingError, match=r"the model gave \[2, 3\] float32, the target is \[2\] int64: .*out of bounds"
    ):
        train(nn.Linear(4, 3), LOSSES["weights"], batches, accumulate=2)


def test_accumulation_over_pixels_with_ignored_ones():
    torch.manual_seed(0)
    big = (torch.randn(6, 2, 5, 5), torch.randint(-1, 3, (6, 5, 5)))
    big[1][0] = -1  # nothing to learn from in the first image
    model, loss = nn.Conv2d(2, 3, 1), nn.CrossEntropyLoss(ignore_index=-1)
    whole = train(copy.deepcopy(model), loss, [big])
    parts = train(copy.deepcopy(model), loss, cut(big, [1, 2, 3]), accumulate=3)
    close(parts.gradients, whole.gradients)
    assert parts.history["train_loss"] == pytest.approx(whole.history["train_loss"])


def test_accumulation_of_a_regression_and_of_soft_targets():
    torch.manual_seed(0)
    for loss, target in ((nn.MSELoss(), torch.randn(7, 3)), (nn.CrossEntropyLoss(), torch.rand(7, 3).softmax(1))):
        model = nn.Linear(4, 3)
        big = (torch.randn(7, 4), target)
        whole = train(copy.deepcopy(model), loss, [big])
        parts = train(copy.deepcopy(model), loss, cut(big, [3, 3, 1]), accumulate=3)
        close(parts.gradients, whole.gradients)


def test_clipping_sees_the_gradient_of_the_whole_step():
    torch.manual_seed(0)
    big, model = (torch.randn(6, 4) * 9, torch.randn(6, 3) * 9), nn.Linear(4, 3)
    parts = train(model, nn.MSELoss(), cut(big, [2, 2, 2]), accumulate=3, callbacks=[ClipGradients(0.5)])
    assert len(parts.gradients) == 1
    assert float(torch.cat([g.flatten() for g in parts.gradients[0]]).norm()) == pytest.approx(0.5, rel=1e-4)


# ---------------------------------------------------------------------------------------------------------- full memory


class Small(nn.Linear):
    """A device on which no more than so many samples have room."""

    def __init__(self, room: int, where: str = "forward") -> None:
        super().__init__(4, 3)
        self.room, self.where, self.tries = room, where, []

    def forward(self, x):
        self.tries.append(len(x))
        output = super().forward(x)
        if len(x) > self.room and self.where == "forward":
            raise torch.OutOfMemoryError("CUDA out of memory")
        if len(x) > self.room:
            output.register_hook(self.full)
        return output

    @staticmethod
    def full(gradient):
        raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize(("room", "accumulate"), [(4, 1), (3, 1), (1, 1), (4, 3), (3, 2)])
@pytest.mark.parametrize("name", ["weights and ignored", "sum", "function"])
def test_full_memory_changes_nothing_but_the_pieces(room, accumulate, where, name, capsys):
    torch.manual_seed(0)
    big = (torch.randn(29, 4), torch.randint(0, 3, (29,)))
    batches = cut(big, [7, 7, 7, 8])
    model = Small(room, where)
    free = copy.deepcopy(model)
    free.room = 99
    whole = train(free, LOSSES[name], batches, epochs=2, accumulate=accumulate)
    parts = train(model, LOSSES[name], batches, epochs=2, accumulate=accumulate)
    close(parts.gradients, whole.gradients)
    close(list(parts.model.parameters()), list(whole.model.parameters()))
    assert parts.history["train_loss"] == pytest.approx(whole.history["train_loss"], rel=1e-5)
    assert parts.trainer.run.cursor == whole.trainer.run.cursor
    wanted = {4: 2, 3: 4, 1: 8}[room]  # pieces, found by halving
    assert max(size for size in model.tries[-wanted:]) <= room
    assert sum(size > room for size in model.tries) == {2: 1, 4: 2, 8: 3}[wanted]  # it does not try again and again


def test_full_memory_is_told(capsys):
    optimizer = torch.optim.SGD((model := Small(2)).parameters(), 0.1)
    trainer = Trainer(model, nn.MSELoss(), optimizer, device="cpu")
    trainer.fit([(torch.randn(4, 4), torch.randn(4, 3))])
    assert (
        "out of memory: from now on each batch is processed in 2 parts; the step stays the same"
        in capsys.readouterr().err
    )


def test_a_single_sample_that_has_no_room_is_an_error():
    with pytest.raises(torch.OutOfMemoryError):
        train(Small(0), nn.MSELoss(), [(torch.randn(4, 4), torch.randn(4, 3))])


def test_an_optimizer_that_has_no_room_is_not_stepped_twice():
    """Half of the parameters may have moved already: doing the step again would move them twice."""

    class Full(torch.optim.SGD):
        calls = 0

        def step(self, closure=None):
            self.calls += 1
            super().step(closure)
            raise torch.OutOfMemoryError("CUDA out of memory")

    model = nn.Linear(4, 3)
    optimizer = Full(model.parameters(), 0.1)
    trainer = Trainer(model, nn.MSELoss(), optimizer, progress=False, device="cpu")
    with pytest.raises(torch.OutOfMemoryError):
        trainer.fit([(torch.randn(4, 4), torch.randn(4, 3))])
    assert optimizer.calls == 1


# --------------------------------------------------------------------------------------------------------- batch shapes

Sample = namedtuple("Sample", ["left", "right", "label"])


class Two(nn.Module):
    """Takes two inputs by place or by name."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, left, right):
        return self.layer(left + 2 * right)


X, Y, TARGET = torch.randn(6, 4), torch.randn(6, 4), torch.randint(0, 3, (6,))


@pytest.mark.parametrize(
    "batch",
    [
        ((X, Y), TARGET),
        [[X, Y], TARGET],
        (X, Y, TARGET),
        ({"left": X, "right": Y}, TARGET),
        {"left": X, "right": Y, "label": TARGET},
        {"right": Y, "labels": TARGET, "left": X},
        {"left": X, "right": Y, "target": TARGET},
        {"left": X, "right": Y, "y": TARGET},
        Sample(X, Y, TARGET),
    ],
    ids=lambda batch: type(batch).__name__,
)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_batches_of_several_parts(batch, accumulate):
    torch.manual_seed(0)
    model = Two()
    expected = nn.functional.cross_entropy(model(X, Y), TARGET)
    result = train(model, nn.CrossEntropyLoss(), [batch, batch], accumulate=accumulate, lr=0.0)
    assert result.history["train_loss"] == [pytest.approx(float(expected.detach()))]
    assert result.trainer.run.cursor.samples == 12
    values = result.trainer.evaluate([batch])
    assert values["loss"] == pytest.approx(float(expected.detach()))


class Losing(nn.Module):
    """Returns its loss itself: alone, as an attribute, or beside the logits, as transformers do."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.layer, self.kind = nn.Linear(4, 3), kind

    def forward(self, x, labels=None):
        logits = self.layer(x)
        if labels is None:
            return SimpleNamespace(logits=logits)
        loss = nn.functional.cross_entropy(logits, labels)
        return loss if self.kind == "alone" else SimpleNamespace(loss=loss, logits=logits)


@pytest.mark.parametrize("kind", ["alone", "with logits"])
@pytest.mark.parametrize("batch", [{"x": X, "labels": TARGET}, (X, TARGET)], ids=["dict", "tuple"])
def test_models_that_return_their_loss(kind, batch):
    torch.manual_seed(0)
    model = Losing(kind)
    expected = float(nn.functional.cross_entropy(model.layer(X), TARGET).detach())
    result = train(model, None, [batch], lr=0.0)
    assert result.history["train_loss"] == [pytest.approx(expected)]
    assert result.trainer.evaluate([batch]) == {"loss": pytest.approx(expected)}


def test_metrics_of_a_model_that_returns_its_loss_and_logits():
    torch.manual_seed(0)
    model = Losing("with logits")
    batch = {"x": X, "labels": TARGET}
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    trainer = Trainer(model, None, optimizer, metrics=["accuracy"], progress=False, device="cpu")
    share = (model.layer(X).argmax(1) == TARGET).float().mean()
    assert trainer.evaluate([batch])["accuracy"] == pytest.approx(float(share))
    assert torch.equal(trainer.predict([batch]), model.layer(X).detach())


# --------------------------------------------------------------------------------------------------- steps of one's own


def own_step(run, batch):
    x, _ = batch
    values = {}
    for number, name in enumerate(("first", "second")):
        optimizer, layer = run.optimizers[name], run.model[number]
        loss = (layer(x) ** 2).mean() * (number + 1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values[name] = loss
    return values


def two_optimizers(folder=None, **settings):
    torch.manual_seed(3)
    model = nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 2)])
    optimizers = {
        "first": torch.optim.SGD(model[0].parameters(), 0.1),
        "second": torch.optim.Adam(model[1].parameters()),
    }
    callbacks = settings.pop("callbacks", [])
    if folder is not None:
        callbacks = [*callbacks, Checkpoint(folder, every="1 steps")]
    step = settings.pop("step", own_step)
    return Trainer(model, None, optimizers, step=step, callbacks=callbacks, progress=False, device="cpu", **settings)


DATA = [(torch.randn(5, 4), torch.zeros(5)) for _ in range(4)]


def test_a_step_of_ones_own_with_two_optimizers():
    trainer = two_optimizers()
    history = trainer.fit(DATA, epochs=2)
    by_hand = two_optimizers()
    losses = [{name: value.detach() for name, value in own_step(by_hand.run, batch).items()} for batch in DATA * 2]
    assert history["train_first"][0] == pytest.approx(float(torch.stack([v["first"] for v in losses[:4]]).mean()))
    assert history["train_second"][1] == pytest.approx(float(torch.stack([v["second"] for v in losses[4:]]).mean()))
    for mine, theirs in zip(trainer.model.parameters(), by_hand.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert trainer.run.step == 8


def test_a_step_of_ones_own_is_stopped_and_resumed(tmp_path):
    class Stop(Callback):
        def on_step_end(self, run) -> None:
            if run.step == 5:
                run.request_stop("test")

    whole = two_optimizers()
    whole.fit(DATA, epochs=3)
    two_optimizers(tmp_path, callbacks=[Stop()]).fit(DATA, epochs=3)
    resumed = two_optimizers(tmp_path)
    resumed.fit(DATA, epochs=3)
    assert resumed.history.rows == whole.history.rows
    for mine, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_step_of_ones_own_may_return_one_number():
    def step(run, batch):
        return own_step(run, batch)["first"]

    history = two_optimizers(step=step).fit(DATA)
    assert list(history) == ["epoch", "step", "train_loss", "lr"]


def test_a_schedule_per_optimizer():
    trainer = two_optimizers()
    first, second = trainer.run.optimizers.values()
    trainer.callbacks += [
        LearningRate(torch.optim.lr_scheduler.StepLR(first, 1, 0.5)),
        LearningRate(torch.optim.lr_scheduler.StepLR(second, 1, 0.1), every="step"),
    ]
    trainer.fit(DATA, epochs=2)
    assert first.param_groups[0]["lr"] == pytest.approx(0.025)
    assert second.param_groups[0]["lr"] == pytest.approx(1e-11)


# ---------------------------------------------------------------------------------- precision, compiling, memory format


def dtype_of(model: nn.Module) -> list[torch.dtype]:
    seen: list[torch.dtype] = []
    model.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    return seen


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_lower_precision(precision, dtype, tmp_path):
    torch.manual_seed(0)
    x = torch.randn(64, 4)
    batches = cut((x, (x[:, 0] > 0).long()), [16] * 4)
    model = nn.Linear(4, 2)
    plain = train(copy.deepcopy(model), nn.CrossEntropyLoss(), batches, epochs=5, lr=1.0)
    seen = dtype_of(model)
    checkpoint = Checkpoint(tmp_path)
    low = train(model, nn.CrossEntropyLoss(), batches, epochs=5, lr=1.0, precision=precision, callbacks=[checkpoint])
    assert set(seen) == {dtype}
    assert low.model.weight.dtype == torch.float32
    assert low.history["train_loss"][-1] == pytest.approx(plain.history["train_loss"][-1], rel=0.05)
    close(low.gradients[0], plain.gradients[0], rtol=0.05, atol=0.02)  # unscaled before the hooks
    assert (low.trainer.run.scaler is not None) == (precision == "fp16")
    assert low.trainer.predict(batches).dtype == torch.float32
    state = load_checkpoint(checkpoint.last)
    assert (state["scaler"] is not None) == (precision == "fp16")
    values = low.trainer.evaluate(batches)
    assert values["loss"] == pytest.approx(low.history["train_loss"][-1], rel=0.2)


def test_fp16_skips_a_step_that_overflows_and_goes_on():
    model = nn.Linear(4, 2)
    batches = [(torch.full((4, 4), 3e4), torch.zeros(4, 2)), (torch.randn(4, 4), torch.zeros(4, 2))]
    before = model.weight.detach().clone()
    scales = []

    class Look(Callback):
        def on_step_end(self, run) -> None:
            scales.append((run.scaler.get_scale(), torch.equal(run.model.weight, before)))

    train(model, nn.MSELoss(), batches, precision="fp16", callbacks=[Look()], lr=0.01)
    assert scales[0] == (2.0**15, True)  # half of where it starts, and nothing has moved
    assert scales[1][1] is False


def test_a_schedule_per_step_takes_a_step_that_was_left_out_without_a_warning():
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    schedule = LearningRate(torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5), every="step")
    trainer = Trainer(
        model, nn.MSELoss(), optimizer, scheduler=schedule, precision="fp16", device="cpu", progress=False
    )
    trainer.fit([(torch.full((4, 4), 3e4), torch.zeros(4, 2))])  # torch would tell the user to swap two calls
    assert optimizer.param_groups[0]["lr"] == 0.05


def test_fp16_resumes_bit_for_bit(tmp_path):
    class Stop(Callback):
        def on_step_end(self, run) -> None:
            if run.step == 3:
                run.request_stop("test")

    def fit(*callbacks):
        torch.manual_seed(0)
        model = nn.Linear(4, 2)
        batches = [(torch.full((4, 4), 3e4 if n == 1 else 1.0), torch.zeros(4, 2)) for n in range(5)]
        return train(model, nn.MSELoss(), batches, precision="fp16", callbacks=callbacks, lr=0.01, epochs=2)

    whole = fit()
    fit(Stop(), Checkpoint(tmp_path))
    resumed = fit(Checkpoint(tmp_path))
    assert torch.equal(resumed.model.weight, whole.model.weight)
    assert resumed.trainer.run.scaler.state_dict() == whole.trainer.run.scaler.state_dict()


def test_images_come_in_the_memory_format_of_the_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
    batch = (torch.randn(2, 3, 8, 8), torch.tensor([0, 1]))
    formats = []

    def look(module, inputs):
        formats.append(inputs[0].is_contiguous(memory_format=torch.channels_last))

    plain = train(copy.deepcopy(model), nn.CrossEntropyLoss(), [batch])
    changed = copy.deepcopy(model).to(memory_format=torch.channels_last)
    changed[0].register_forward_pre_hook(look)
    result = train(changed, nn.CrossEntropyLoss(), [batch])
    result.trainer.evaluate([batch])
    assert formats == [True, True]
    close(result.gradients, plain.gradients)
    model[0].register_forward_pre_hook(look)
    train(model, nn.CrossEntropyLoss(), [batch])
    assert formats[2:] == [False]


COMPILED = """
import functools, sys, torch
from torch import nn
from dlkit import Trainer
from dlkit.callbacks import Checkpoint
from dlkit.training import load_checkpoint

def fit(folder, model, **settings):
    batches = [(torch.randn(4, 4, generator=g), torch.randn(4, 2, generator=g))
               for g in [torch.Generator().manual_seed(n) for n in range(3)]]
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    checkpoint = Checkpoint(folder)
    trainer = Trainer(model, nn.MSELoss(), optimizer, callbacks=[checkpoint], progress=False, device="cpu", **settings)
    trainer.fit(batches, epochs=2)
    return load_checkpoint(checkpoint.last), trainer

def new():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))

# What the default backend makes of a model is torch's; it takes a compiler, and seconds.
torch.compile = functools.partial(torch.compile, backend="aot_eager")
plain, _ = fit(sys.argv[1] + "/plain", new())
ours, trainer = fit(sys.argv[1] + "/ours", new(), compile=True)
assert type(trainer._forward.model).__name__ == "OptimizedModule"
theirs, _ = fit(sys.argv[1] + "/theirs", torch.compile(new()))
for state in (ours, theirs):
    assert list(state["model"]) == list(plain["model"]) == list(new().state_dict())
    for name, value in plain["model"].items():
        torch.testing.assert_close(state["model"][name], value)
print("clean keys")
"""


def test_a_compiled_model_keeps_clean_keys(tmp_path):
    done = warm.run(["-c", COMPILED, tmp_path])  # torch.compile leaves much behind in a process
    assert "clean keys" in done.stdout, done.stderr[-3000:]


def test_targets_that_are_no_tensors_reach_a_loss_of_ones_own():
    def loss(output, target):
        return (output.sum(1) - torch.tensor([len(text) for text in target])).square().mean()

    result = train(nn.Linear(4, 3), loss, [(torch.randn(2, 4), ["ab", "abc"])])
    assert len(result.gradients) == 1


def test_a_loss_that_is_no_scalar_but_has_one_value():
    result = train(nn.Linear(4, 2), lambda output, target: output.mean().reshape(1), [(X, TARGET)])
    assert len(result.gradients) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TrainingError, match=r"the loss returned \[6\] values instead of one number"):
            train(nn.Linear(4, 2), lambda output, target: output[:, 0], [(X, TARGET)])
