"""However batches are cut, mean loss and gradient are those that plain torch gives for one big batch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.data import DataLoader, TensorDataset

from dlkit import Trainer
from dlkit.callbacks import Callback
from dlkit.errors import ArgumentError, TrainingError
from dlkit.training import counting
from dlkit.training.counting import Counting, samples_of
from dlkit.transfer import freeze


class Gradients(Callback):
    def on_gradients(self, run: Any) -> None:
        self.seen = [parameter.grad.clone() for parameter in run.model.parameters()]


def check(model: nn.Module, loss: Any, batches: list[Any], whole: tuple[Tensor, float], *, count: Any = None) -> None:
    """One step over all batches, and an evaluation over them, against the loss of one big batch.

    Args:
        whole: Its loss with a graph, and what it is divided by to be a mean (1 if it is one).
    """
    whole[0].backward()
    wanted = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    gradients, mean = Gradients(), float(whole[0].detach()) / whole[1]
    trainer = Trainer(
        model,
        loss,
        torch.optim.SGD(model.parameters(), 0.0),
        callbacks=[gradients],
        accumulate=len(batches),
        count=count,
        progress=False,
        device="cpu",
    )
    assert trainer.evaluate(batches)["loss"] == pytest.approx(mean, rel=1e-5)
    history = trainer.fit(batches, batches)
    assert [*history["train_loss"], *history["val_loss"]] == pytest.approx([mean, mean], rel=1e-5)
    assert {type(value) for value in history.rows[0].values()} <= {int, float}
    for found, expected in zip(gradients.seen, wanted, strict=True):
        torch.testing.assert_close(found, expected)
    singly = Trainer(model, loss, torch.optim.SGD(model.parameters(), 0.0), count=count, progress=False, device="cpu")
    assert singly.fit(batches)["train_loss"] == [pytest.approx(mean, rel=1e-5)]  # the mean over the steps of an epoch


class Recurrent(nn.Module):
    """Takes [T, B, F] or a PackedSequence; gives [B, C], or [T, B] numbers for `each=True`."""

    def __init__(self, each: bool = False) -> None:
        super().__init__()
        self.rnn, self.head, self.each = nn.GRU(3, 4), nn.Linear(4, 1 if each else 2), each

    def forward(self, inputs: Any) -> Tensor:
        outputs, last = self.rnn(inputs)
        return self.head(outputs).squeeze(-1) if self.each else self.head(last[0])


SIZES = (2, 5, 1)


def test_time_first_sequences() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(6, 8, 3), torch.randint(0, 2, (8,))
    model, loss = Recurrent(), nn.CrossEntropyLoss()
    batches = list(zip(x.split(SIZES, 1), y.split(SIZES), strict=True))
    check(model, loss, batches, (loss(model(x), y), 1))
    check(model, lambda output, target: F.cross_entropy(output, target), batches, (loss(model(x), y), 1))


@pytest.mark.parametrize("count", [None, lambda batch: batch[0].shape[1]])
def test_time_first_targets(count: Any) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(6, 8, 3), torch.randn(6, 8)
    model, own = Recurrent(each=True), lambda output, target: ((output - target) ** 2).mean()
    batches = list(zip(x.split(SIZES, 1), y.split(SIZES, 1), strict=True))
    check(model, nn.MSELoss() if count is None else own, batches, (own(model(x), y), 1), count=count)


def test_sequences_of_other_lengths_with_ignored_positions() -> None:
    torch.manual_seed(0)
    lengths, longest = [2, 7, 3, 5, 1], 7
    x = torch.randint(0, 9, (5, longest))
    y = torch.randint(0, 3, (5, longest))
    for row, length in enumerate(lengths):
        y[row, length:] = -100
    y[4] = -100  # a batch of which nothing counts

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = nn.Embedding(9, 4), nn.Linear(4, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.head(self.words(inputs)).transpose(1, 2)

    model = Tagger()
    batches = [(x[a:b, : max(lengths[a:b])], y[a:b, : max(lengths[a:b])]) for a, b in ((0, 1), (1, 4), (4, 5))]
    for loss in (nn.CrossEntropyLoss(), F.cross_entropy, nn.CrossEntropyLoss(torch.tensor([0.2, 1.0, 3.0]))):
        check(model, loss, batches, (loss(model(x), y), 1))
    own = lambda output, target: F.cross_entropy(output, target)  # noqa: E731
    check(model, own, batches, (own(model(x), y), 1), count=lambda batch: (batch[1] != -100).sum())
    with pytest.raises(TrainingError, match=r"the count of a batch is not known: .*count=function"):
        check(model, own, batches, (own(model(x), y), 1))
    with pytest.raises(TrainingError, match="with ignored targets"):
        check(model, own, [(x, y), (x, y)], (own(model(x), y), 1))


DENSE: dict[str, tuple[Any, Callable[[], Tensor]]] = {
    "cross entropy of probabilities": (nn.CrossEntropyLoss(), lambda: torch.rand(8, 2).softmax(1)),
    "weighted, of probabilities": (nn.CrossEntropyLoss(torch.tensor([1.0, 5.0])), lambda: torch.rand(8, 2).softmax(1)),
    "smoothed and weighted": (
        nn.CrossEntropyLoss(torch.tensor([1.0, 5.0]), label_smoothing=0.2),
        lambda: torch.randint(0, 2, (8,)),
    ),
    "partial": (functools.partial(F.cross_entropy, ignore_index=1), lambda: torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])),
    "nll": (nn.NLLLoss(ignore_index=0), lambda: torch.tensor([0, 1, 1, 0, 1, 0, 1, 1])),
    "margin": (nn.MultiMarginLoss(), lambda: torch.randint(0, 2, (8,))),
    "labels": (nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 3.0])), lambda: torch.rand(8, 2)),
    "soft margin": (nn.MultiLabelSoftMarginLoss(), lambda: torch.rand(8, 2).round()),
    "mse": (nn.MSELoss(), lambda: torch.randn(8, 2)),
    "huber": (F.huber_loss, lambda: torch.randn(8, 2)),
    "poisson": (nn.PoissonNLLLoss(), lambda: torch.rand(8, 2)),
    "kl": (nn.KLDivLoss(), lambda: torch.rand(8, 2).softmax(1)),
    "kl per row": (nn.KLDivLoss(reduction="batchmean"), lambda: torch.rand(8, 2).softmax(1)),
    "own": (lambda output, target: (output - target).abs().mean(), lambda: torch.randn(8, 2)),
}


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
def test_losses_of_torch(name: str) -> None:
    torch.manual_seed(0)
    loss, make = DENSE[name]
    x, y, model = torch.randn(8, 3), make(), nn.Sequential(nn.Linear(3, 2), nn.LogSoftmax(1))
    batches = list(zip(x.split(SIZES), y.split(SIZES), strict=True))
    check(model, loss, batches, (loss(model(x), y), 1))


@pytest.mark.parametrize("kind", ["mean", "sum"])
def test_a_sum_is_reported_as_a_mean(kind: str) -> None:
    """The gradient is the loss's own; what is shown does not depend on how many samples a batch holds."""
    torch.manual_seed(0)
    x, y, model = torch.randn(8, 3), torch.randint(0, 2, (8,)), nn.Linear(3, 2)
    loss = nn.CrossEntropyLoss(reduction=kind)
    batches = list(zip(x.split(SIZES), y.split(SIZES), strict=True))
    check(model, loss, batches, (loss(model(x), y), 1 if kind == "mean" else 8))


class Graphs:
    """As torch_geometric's: nodes of all graphs in one tensor, and to which graph each belongs."""

    def __init__(self, nodes: Tensor, graph: Tensor, y: Tensor, *, by: str) -> None:
        self.nodes, self.graph, self.y, self.by = nodes, graph, y, by
        if by == "num_graphs":
            self.num_graphs = len(y)

    def __len__(self) -> int:
        return len(self.y) if self.by == "length" else 3

    def to(self, device: Any) -> Graphs:
        return self


class OnGraphs(nn.Module):
    def __init__(self, *, with_loss: bool) -> None:
        super().__init__()
        self.layer, self.with_loss = nn.Linear(3, 2), with_loss

    def forward(self, batch: Graphs) -> Tensor:
        pooled = torch.zeros(len(batch.y), 2).index_add(0, batch.graph, self.layer(batch.nodes))
        return F.cross_entropy(pooled, batch.y) if self.with_loss else pooled


@pytest.mark.parametrize("by", ["num_graphs", "length"])
def test_graph_batches(by: str) -> None:
    torch.manual_seed(0)

    def part(first: int, last: int, shift: int) -> Graphs:
        return Graphs(nodes[first:last], graph[first:last] - shift, y[shift : int(graph[last - 1]) + 1], by=by)

    nodes, graph, y = torch.randn(9, 3), torch.tensor([0, 0, 1, 2, 2, 2, 3, 4, 4]), torch.randint(0, 2, (5,))
    parts = [part(0, 2, 0), part(2, 9, 1)]
    check(model := OnGraphs(with_loss=True), None, parts, (model(part(0, 9, 0)), 1))
    model, loss = OnGraphs(with_loss=False), nn.CrossEntropyLoss()
    check(model, loss, [(each, each.y) for each in parts], (loss(model(part(0, 9, 0)), y), 1))


def test_packed_sequences() -> None:
    torch.manual_seed(0)
    sequences, y = [torch.randn(length, 3) for length in (5, 4, 4, 2, 1)], torch.randint(0, 2, (5,))
    model, loss = Recurrent(), nn.CrossEntropyLoss()
    batches = [(pack_sequence(sequences[a:b]), y[a:b]) for a, b in ((0, 3), (3, 4), (4, 5))]
    check(model, loss, batches, (loss(model(pack_sequence(sequences)), y), 1))
    assert samples_of(pack_sequence(sequences)) == 5

    class Returns(Recurrent):
        def forward(self, inputs: PackedSequence) -> Tensor:
            return super().forward(inputs).square().mean()

    model = Returns()
    check(model, None, [batch[0] for batch in batches], (model(pack_sequence(sequences)), 1))


def test_lists_of_images_of_any_size() -> None:
    torch.manual_seed(0)
    images = [torch.randn(3, 4 + number, 5) for number in range(6)]
    y = torch.randint(0, 2, (6,))

    class OnLists(nn.Module):
        def __init__(self, with_loss: bool = False) -> None:
            super().__init__()
            self.head, self.with_loss = nn.Linear(3, 2), with_loss

        def forward(self, images: list[Tensor], targets: Any = None) -> Tensor:
            output = self.head(torch.stack([image.mean((1, 2)) for image in images]))
            return output if targets is None else F.cross_entropy(output, torch.stack([each["y"] for each in targets]))

    spans = ((0, 3), (3, 4), (4, 6))
    model, loss = OnLists(), nn.CrossEntropyLoss()
    check(model, loss, [(images[a:b], y[a:b]) for a, b in spans], (loss(model(images), y), 1))
    targets = [{"y": each} for each in y]  # as of a detector
    model = OnLists()
    check(model, None, [(images[a:b], targets[a:b]) for a, b in spans], (model(images, targets), 1))


class Speaks(nn.Module):
    """Returns its loss, as models of transformers do: a mean over the tokens that are not ignored."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(9, 4), nn.Linear(4, 9)

    def forward(self, input_ids: Tensor, labels: Tensor) -> Any:
        logits = self.head(self.words(input_ids))
        loss = F.cross_entropy(logits.flatten(0, 1) if labels.dim() > 1 else logits[:, 0], labels.flatten())
        return {"loss": loss, "logits": logits}


def test_losses_that_the_model_returns() -> None:
    torch.manual_seed(0)
    ids = torch.randint(0, 9, (8, 5))
    model, cuts = Speaks(), list(zip([0, 2, 7], [2, 7, 8], strict=True))
    one_each = [{"input_ids": ids[a:b], "labels": ids[a:b, 0]} for a, b in cuts]
    check(model, None, one_each, (model(ids, ids[:, 0])["loss"], 1))
    all_tokens = [{"input_ids": ids[a:b], "labels": ids[a:b]} for a, b in cuts]
    check(model, None, all_tokens, (model(ids, ids)["loss"], 1))
    some = ids.clone()
    some[:3, 2:] = -100
    tokens = [{"input_ids": ids[a:b], "labels": some[a:b]} for a, b in cuts]
    count = lambda batch: int((batch["labels"] != -100).sum())  # noqa: E731
    check(model, None, tokens, (model(ids, some)["loss"], 1), count=count)
    for unknown in (tokens, [{"input_ids": ids[:2, :3], "labels": ids[:2, :3]}, all_tokens[1]]):
        with pytest.raises(TrainingError, match="the count of a batch is not known"):
            check(model, None, unknown, (model(ids, some)["loss"], 1))
    # One batch, or steps on one batch each, need no count.
    trainer = Trainer(model, None, torch.optim.SGD(model.parameters(), 0.0), progress=False, device="cpu")
    trainer.fit(tokens, tokens[:1])


def test_a_subclass_with_a_forward_of_its_own_is_a_loss_of_its_own() -> None:
    class Focal(nn.CrossEntropyLoss):
        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            each = F.cross_entropy(output, target, reduction="none")
            return ((1 - (-each).exp()) ** 2 * each).mean()

    assert not Counting(Focal()).known
    assert Counting(nn.CrossEntropyLoss()).known
    torch.manual_seed(0)
    x, y, model, loss = torch.randn(8, 3), torch.randint(0, 2, (8,)), nn.Linear(3, 2), Focal()
    check(model, loss, list(zip(x.split(SIZES), y.split(SIZES), strict=True)), (loss(model(x), y), 1))


def test_what_the_user_says_is_checked() -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(ArgumentError, match=r"count must be a function of a batch, not 'labels'"):
        Trainer(model, nn.MSELoss(), torch.optim.SGD(model.parameters(), 0.1), count="labels")  # type: ignore[arg-type]
    for wrong in (-1, "3", torch.ones(2), None):
        with pytest.raises(TrainingError, match=r"count\(batch\) must give a number above or equal to 0"):
            Counting(nn.MSELoss(), lambda batch, wrong=wrong: wrong)((torch.zeros(2), torch.zeros(2)))


# ------------------------------------------------------------------------------------------------------- full memory


class Full(nn.Module):
    """A device on which no batch of more than two samples has room."""

    def __init__(self, model: nn.Module, dim: int = 0) -> None:
        super().__init__()
        self.model, self.dim = model, dim

    def forward(self, inputs: Any) -> Tensor:
        if (inputs.shape[self.dim] if isinstance(inputs, Tensor) else len(inputs)) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.model(inputs)


def full(model: nn.Module, loss: Any, batches: list[Any], **options: Any) -> list[Tensor]:
    gradients = Gradients()
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    Trainer(model, loss, optimizer, callbacks=[gradients], progress=False, device="cpu", **options).fit(batches)
    return gradients.seen


def test_parts_of_a_batch_count_as_batches_do() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(7, 3), torch.tensor([0, -100, -100, 1, 1, 0, -100])
    model, loss = Full(nn.Linear(3, 2)), nn.CrossEntropyLoss()
    found = full(model, loss, [(x, y)])
    loss(model.model(x), y).backward()
    torch.testing.assert_close(found, [parameter.grad for parameter in model.model.parameters()])
    own = lambda output, target: F.cross_entropy(output, target)  # noqa: E731
    said = full(model, own, [(x, y)], count=lambda batch: int((batch[1] != -100).sum()))
    torch.testing.assert_close(said, found)
    with pytest.raises(TrainingError, match="the count of a batch is not known"):
        full(model, own, [(x, y)])


def test_a_batch_that_cannot_be_cut_is_not_cut() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(6, 4, 3), torch.randint(0, 2, (4,))
    with pytest.raises(torch.OutOfMemoryError) as caught:
        full(Full(Recurrent(), dim=1), nn.CrossEntropyLoss(), [(x, y)])
    assert "no first dimension that all its tensors share" in "".join(caught.value.__notes__)
    images = [torch.randn(3, 4, 4) for _ in range(3)]
    with pytest.raises(torch.OutOfMemoryError):
        full(Full(nn.Linear(3, 2)), nn.CrossEntropyLoss(), [(images, y[:3])])
    square, each = torch.randn(4, 4, 3), torch.randn(4, 4)  # time first, as long as wide: only the user can say
    with pytest.raises(TrainingError, match="cannot be processed in parts along its first dimension"):
        full(Full(Recurrent(each=True), dim=1), nn.MSELoss(), [(square, each)], count=lambda batch: batch[0].shape[1])


def test_what_counts_batches_gets_them_as_the_loader_gives_them() -> None:
    """Not as stored features of a frozen first part."""
    model = freeze(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    data = DataLoader(TensorDataset(torch.randn(8, 3), torch.randint(0, 2, (8,))), 3)
    optimizer = torch.optim.SGD(model[2].parameters(), 0.1)
    trainer = Trainer(
        model, nn.CrossEntropyLoss(), optimizer, count=lambda batch: len(batch[0]), progress=False, device="cpu"
    )
    assert len(trainer.fit(data, data, epochs=2).rows) == 2


def test_ignored_targets_on_a_gpu_are_told_without_waiting_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The flags are read many at a time, and at the end; here those of the CPU are taken for a GPU's."""
    model, own = nn.Linear(3, 2), lambda output, target: F.cross_entropy(output, target)
    x, y = torch.randn(4, 3), torch.tensor([0, 1, -100, 1])
    monkeypatch.setattr(counting, "_waits", lambda flag: False)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    trainer = Trainer(model, own, optimizer, accumulate=2, progress=False, device="cpu")
    trainer.fit([(x[:2], y[:2])] * 6)
    assert trainer.evaluate([(x, y)])["loss"] > 0  # one batch is not averaged
    for run in (lambda: trainer.evaluate([(x, y), (x, y)]), lambda: trainer.fit([(x, y)] * 2, epochs=2)):
        with pytest.raises(TrainingError, match=r"of the last 2 batches some have ignored targets \(-100\); say what"):
            run()
    with pytest.raises(TrainingError, match="of the last 64 batches some have ignored"):
        trainer.evaluate([(x, y)] * 99)
