"""`TabularEnsemble`: small networks side by side on numbers encoded piece by piece; the default for tables."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlkit._arguments import whole_number
from dlkit.errors import ArgumentError
from dlkit.models.linear import fit_linear
from dlkit.models.tabular import check_columns, check_inputs
from dlkit.registry import register
from dlkit.specs.columns import FIRST, PADDING
from dlkit.specs.table import TableSpec

__all__ = ["Members", "TabularEnsemble"]

_BELOW, _ABOVE = -3.0, 4.0  # how far the first and the last piece continue, in lengths of the piece
_CLIP = 3.0  # interquartile ranges at which a number begins to count less
_ROWS = 100_000  # of the training data that the pieces are fitted on; evenly spaced where there are more
_ONE_HOT = 128  # values up to which a category has a place for each; more get an embedding that all members share
_LINE_ROWS = 20_000  # that the linear start is fitted on
_FEATURES = 1024  # that all numbers together become at most, so that wide tables stay affordable


class Members(NamedTuple):
    """What an ensemble gives in training: the outputs of its members, each to be trained on the same targets.

    The Trainer takes the mean of the members' losses. In your own loop:
    `loss(output.members.flatten(0, 1), torch.cat([target] * len(output.members)))`.

    Attributes:
        members: float [members, B, outputs], or [members, B] for a single output.
    """

    members: Tensor


@register("dlkit.models.TabularEnsemble")
class TabularEnsemble(nn.Module):
    """The default for tables: independent networks of two hidden layers, whose predictions are averaged.

    A number is scaled robustly, clipped smoothly, and encoded by how far it reaches into each of `bins` intervals
    between quantiles of the training rows (Gorishniy, Rubachev and Babenko 2022, "On embeddings for numerical features
    in tabular deep learning", arXiv:2203.05556); all members share these embeddings, as in TabM (Gorishniy, Kotelnikov
    and Babenko 2025, arXiv:2410.24210), and are computed together, in one batched product. Categories are one-hot;
    values that are missing or that training never saw are all zeros.

    Beside its layers each member has a direct, linear way from the numbers and categories to the outputs. `for_data`
    fits it by itself (logistic or ridge regression) and lets the layers begin at zero, so that training begins at the
    linear model and continues from there: on small tables, and where there is little but lines, that is worth most.

    In training mode it gives `Members`, whose losses are averaged; in evaluation mode the logits of the members' mean
    probability, or for a regression the mean of their values, each kept within the range of the training targets. So a
    loss of torch is the loss of the prediction, and the model file, ONNX and metrics need to know nothing of it.

    Args:
        spec: A fitted spec with a target. `TabularEnsemble.for_data(train)` also fits the intervals and
            the linear start on the training rows; without that the intervals are those of a normal distribution, the
            start is zero, and nothing is clipped.
        members: How many networks.
        width: Of each of the two hidden layers.
        bins: Intervals per number.
        size: What each number becomes; None for 8, and less in tables of more than 128 numbers.

    Raises:
        ArgumentError: the spec has text or images, or no target; or an invalid number.
        TrainingError: in `forward`, inputs that are not the spec's.

    >>> import pandas as pd
    >>> from dlkit.datasets import CSVDataset
    >>> frame = pd.DataFrame({"age": [30, 40, 50, 35], "sex": ["m", "f", "m", "f"], "y": ["no", "yes", "no", "no"]})
    >>> train = CSVDataset(frame, target="y")
    >>> model = TabularEnsemble.for_data(train, members=4).eval()
    >>> inputs, targets = next(iter(torch.utils.data.DataLoader(train, 4)))
    >>> model(**inputs).shape, model.train()(**inputs).members.shape
    (torch.Size([4, 2]), torch.Size([4, 4, 2]))
    """

    low: Tensor
    high: Tensor
    column: Tensor
    value: Tensor

    def __init__(
        self, spec: TableSpec, *, members: int = 8, width: int = 128, bins: int = 32, size: int | None = None
    ) -> None:
        super().__init__()
        check_columns(spec, "TabularEnsemble")
        if spec.target is None:
            raise ArgumentError("the spec has no target, so there is nothing to learn")
        for name, number in (("members", members), ("width", width), ("bins", bins)):
            whole_number(name, number, least=1)
        self.spec, self.task, outputs = spec, spec.target.task, spec.target.num_outputs
        numbers = len(spec.numeric_features)
        size = max(1, min(8, _FEATURES // max(numbers, 1))) if size is None else whole_number("size", size, least=1)
        self.numbers = _Numbers(numbers, bins, size) if numbers else None
        few = [place for place, column in enumerate(spec.categories) if len(column.vocabulary) <= _ONE_HOT]
        values = [(place, code) for place in few for code in range(FIRST, spec.categories[place].num_codes)]
        for name, numbers_of in (("column", [place for place, _ in values]), ("value", [code for _, code in values])):
            # Not in the file: they follow from the spec.
            self.register_buffer(name, torch.tensor(numbers_of, dtype=torch.int64), persistent=False)
        self.many = [place for place in range(len(spec.categories)) if place not in few]
        sizes = [spec.embedding_sizes()[place] for place in self.many]
        self.embeddings = nn.ModuleList(_embedding(codes, dimensions) for codes, dimensions in sizes)
        features = numbers * size + len(values) + sum(dimensions for _, dimensions in sizes)
        self.first = _Shared(members, features, width)
        self.direct = _Shared(members, numbers + len(values), outputs)
        nn.init.zeros_(self.direct.weight)
        nn.init.zeros_(self.direct.bias)
        self.second, self.last = _Layers(members, width, width), _Layers(members, width, outputs)
        # A single number per row comes out as [B], as its targets are; [B, 1] would broadcast with them to [B, B].
        self.single = outputs == 1 and self.task != "multilabel"
        end = torch.finfo(torch.float32).max
        self.register_buffer("low", torch.full((outputs,), -end))
        self.register_buffer("high", torch.full((outputs,), end))

    @classmethod
    def for_data(cls, train: Any, **settings: Any) -> Self:
        """A model whose intervals and range of targets are those of the training rows.

        Args:
            train: A labelled `CSVDataset` in memory: the training part alone.
            **settings: See `TabularEnsemble`.

        Raises:
            ArgumentError: it is a stream, has no target, or cannot be learnt by this model.
        """
        model = cls(train.spec, **settings)
        targets = getattr(train, "targets", None)
        if targets is None or not len(targets):
            raise ArgumentError("the training data has no rows with targets to fit the intervals of the numbers on")
        if model.numbers is not None:
            model.numbers.fit(train.numeric[:: -(-len(train) // _ROWS)])
        model._begin_at_a_line(train.numeric, train.categorical, targets)
        if model.task == "regression":
            wide = targets.float().reshape(len(targets), -1)
            model.low.copy_(wide.amin(0))
            model.high.copy_(wide.amax(0))
        return model

    def forward(self, numeric: Tensor | None = None, categorical: Tensor | None = None) -> Tensor | Members:
        """Outputs for a batch of rows.

        Args:
            numeric: float [B, numbers]; None where the spec has none.
            categorical: int64 [B, codes]; None where the spec has none.

        Returns:
            In evaluation mode float [B, outputs], or [B] for a single output; in training mode `Members`.
        """
        check_inputs(self.spec, numeric, categorical)
        flat, embedded = self._features(numeric, categorical)
        hidden = F.relu(self.first(_joined(embedded)))
        outputs = self.last(F.relu(self.second(hidden))) + self.direct(_joined(flat))
        if self.training:
            return Members(outputs.squeeze(2) if self.single else outputs)
        mean = self._mean(outputs)
        return mean.squeeze(1) if self.single else mean

    def _features(self, numeric: Tensor | None, categorical: Tensor | None) -> tuple[list[Tensor], list[Tensor]]:
        """Numbers and one-hot categories as they are, and with the numbers and larger categories embedded."""
        flat, embedded = list[Tensor](), list[Tensor]()
        if numeric is not None and self.numbers is not None:
            flat.append(self.numbers.scaled(numeric))
            embedded.append(self.numbers(flat[0]))
        if categorical is not None:
            if len(self.value):
                flat.append((categorical.index_select(1, self.column) == self.value).to(self.first.weight.dtype))
                embedded.append(flat[-1])
            embedded += [table(categorical[:, place]) for place, table in zip(self.many, self.embeddings, strict=True)]
        return flat or [embedded[0][:, :0]], embedded

    @torch.no_grad()
    def _begin_at_a_line(self, numeric: Tensor | None, categorical: Tensor | None, targets: Tensor) -> None:
        every = -(-len(targets) // _LINE_ROWS)
        parts = [None if each is None else each[::every] for each in (numeric, categorical)]
        flat = _joined(self._features(parts[0], None if parts[1] is None else parts[1].long())[0])
        losses: dict[str, nn.Module] = {"regression": nn.MSELoss(), "classification": nn.CrossEntropyLoss()}
        loss, targets = losses.get(self.task, nn.BCEWithLogitsLoss()), targets[::every]
        weight, bias = fit_linear(flat, targets, loss, len(self.low), decay=1 / len(targets))
        self.direct.weight.copy_(weight.repeat(1, self.direct.members))
        self.direct.bias.copy_(bias.repeat(self.direct.members))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def _mean(self, outputs: Tensor) -> Tensor:
        """[members, B, outputs] to [B, outputs]; probabilities are averaged, and given as their logits."""
        if self.task == "regression":
            return torch.minimum(torch.maximum(outputs, self.low), self.high).mean(0)
        if self.task == "classification":
            return outputs.log_softmax(2).logsumexp(0).log_softmax(1)
        return F.logsigmoid(outputs).logsumexp(0) - F.logsigmoid(-outputs).logsumexp(0)


class _Numbers(nn.Module):
    """Numbers to features: a linear function on each interval between quantiles, that all intervals add up to.

    Args:
        numbers: How many.
        bins: Intervals per number.
        size: Features per number.
    """

    mid: Tensor
    scale: Tensor
    begin: Tensor
    step: Tensor
    least: Tensor
    most: Tensor

    def __init__(self, numbers: int, bins: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(numbers, bins, size) / bins**0.5)
        self.slope = nn.Parameter(torch.randn(numbers, size))
        self.bias = nn.Parameter(torch.zeros(numbers, size))
        self.register_buffer("mid", torch.zeros(numbers))
        self.register_buffer("scale", torch.ones(numbers))
        # Of the normal distribution, until `fit`: the spec has scaled the numbers already.
        ends = torch.linspace(0.02, 0.98, bins + 1).logit() / 1.7
        for name, values in (
            ("begin", ends[:-1]),
            ("step", ends.diff()),
            ("least", F.pad(torch.zeros(bins - 1), (1, 0), value=_BELOW)),
            ("most", F.pad(torch.ones(bins - 1), (0, 1), value=_ABOVE)),
        ):
            self.register_buffer(name, values.repeat(numbers, 1))

    @torch.no_grad()
    def fit(self, numeric: Tensor) -> None:
        """Take scales and intervals from training rows.

        Args:
            numeric: float [N, numbers], without missing values.
        """
        bins = self.weight.shape[1]
        for place, column in enumerate(numeric.double().unbind(1)):
            first, mid, third = torch.quantile(column, torch.tensor([0.25, 0.5, 0.75], dtype=column.dtype)).tolist()
            spread = float(column.amax() - column.amin())
            width = third - first if third > first else spread / 2
            self.mid[place], self.scale[place] = mid, 1 / width if width > 0 else 0
            clipped = _clipped((column - float(self.mid[place])) * float(self.scale[place]))
            ends = _ends(clipped, bins)
            count = len(ends) - 1
            # A number with fewer different values has fewer intervals; the others stay at zero.
            self.begin[place], self.step[place], self.least[place], self.most[place] = 0, 1, 0, 0
            self.begin[place, :count], self.step[place, :count], self.most[place, :count] = ends[:-1], ends.diff(), 1
            self.least[place, 0], self.most[place, count - 1] = _BELOW, _ABOVE

    def scaled(self, numeric: Tensor) -> Tensor:
        """In interquartile ranges around the median, clipped smoothly.

        Args:
            numeric: float [B, numbers], as the spec gives them.
        """
        return _clipped((numeric - self.mid) * self.scale)

    def forward(self, scaled: Tensor) -> Tensor:
        """[B, numbers] to [B, numbers * size].

        Args:
            scaled: See `scaled`.
        """
        scaled = scaled[..., None]
        reach = torch.minimum(torch.maximum((scaled - self.begin) / self.step, self.least), self.most)
        pieces = torch.bmm(reach.transpose(0, 1), self.weight).transpose(0, 1)
        return (pieces + scaled * self.slope + self.bias).flatten(1)


def _ends(values: Tensor, bins: int) -> Tensor:
    """Where the intervals of a number end, at most `bins` of them, in rising order.

    Where one value takes several quantiles (no capital gain, in nine of ten rows), the intervals that it leaves over go
    to the other values, evenly: they are rare, but may tell most.
    """
    ends = torch.quantile(values, torch.linspace(0, 1, bins + 1, dtype=values.dtype)).float().unique()
    others = values.float().unique()
    others, left = others[~torch.isin(others, ends)], bins + 1 - len(ends)
    if len(others) > left:
        others = others[torch.linspace(0, len(others) - 1, left).round().long()]
    ends = torch.cat([ends, others]).unique()
    return ends if len(ends) > 1 else torch.stack([ends[0] - 0.5, ends[0] + 0.5])


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _clipped(values: Tensor) -> Tensor:
    """Nearly the same within some interquartile ranges, and never above `_CLIP` of them."""
    return values / (1 + (values / _CLIP) ** 2).sqrt()


class _Layers(nn.Module):
    """One linear layer per member: [members, B, inputs] to [members, B, outputs].

    Args:
        members: How many.
        inputs: Features of each.
        outputs: Of each.
    """

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(members, inputs, outputs) * (2 / inputs) ** 0.5)
        self.bias = nn.Parameter(torch.randn(members, 1, outputs) * 0.1)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, inputs, self.weight)


class _Shared(nn.Module):
    """The first layer of all members on the same features, as one product: [B, inputs] to [members, B, width].

    Args:
        members: How many.
        inputs: Features.
        width: Outputs of each member.
    """

    def __init__(self, members: int, inputs: int, width: int) -> None:
        super().__init__()
        self.members = members
        self.weight = nn.Parameter(torch.randn(inputs, members * width) * (2 / max(inputs, 1)) ** 0.5)
        self.bias = nn.Parameter(torch.randn(members * width) * 0.1)

    def forward(self, inputs: Tensor) -> Tensor:
        members: Tensor = torch.addmm(self.bias, inputs, self.weight).unflatten(1, (self.members, -1))
        return members.transpose(0, 1)


def _embedding(codes: int, dimensions: int) -> nn.Embedding:
    """Missing and unseen values begin as zeros, as those of the one-hot categories are."""
    table = nn.Embedding(codes, dimensions, padding_idx=PADDING)
    nn.init.normal_(table.weight, std=0.1)
    with torch.no_grad():
        table.weight[:FIRST] = 0
    return table
