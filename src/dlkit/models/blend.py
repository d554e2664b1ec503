"""`TabularBlend`: the mean of networks and trees; the default for tables of a thousand rows and more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from dlkit.errors import ArgumentError
from dlkit.models.ensemble import Members, TabularEnsemble
from dlkit.models.trees import TabularTrees
from dlkit.registry import register
from dlkit.specs.table import TableSpec

__all__ = ["TabularBlend"]

_SHARES = tuple(step / 10 for step in range(11))
_ROWS = 4096  # that are looked at at a time


@register("dlkit.models.TabularBlend")
class TabularBlend(nn.Module):
    """What a `TabularEnsemble` and `TabularTrees` say of a row, averaged: they err in different places.

    The mean is that of probabilities, given as their logits, or of a regression's values. In training mode it is the
    ensemble alone, since trees have nothing that a Trainer could train.

    Args:
        spec: A fitted spec with a target.
        share: Of the trees in the mean, 0 to 1.
        trees: The sizes of the trees, see `TabularTrees`.
        networks: The sizes of the networks, see `TabularEnsemble`.

    Raises:
        ArgumentError: see `TabularEnsemble` and `TabularTrees`.

    >>> import pandas as pd
    >>> from dlkit.datasets import CSVDataset
    >>> train = CSVDataset(pd.DataFrame({"x": [n / 2 for n in range(80)], "y": ["no"] * 40 + ["yes"] * 40}), target="y")
    >>> ensemble, trees = TabularEnsemble.for_data(train, members=2), TabularTrees.for_data(train)
    >>> TabularBlend.of(ensemble, trees, train, nn.CrossEntropyLoss())(train.numeric[:2]).argmax(1)
    tensor([0, 0])
    """

    def __init__(
        self,
        spec: TableSpec,
        *,
        share: float = 0.5,
        trees: Mapping[str, int] | None = None,
        networks: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= share <= 1:
            raise ArgumentError(f"share must be from 0 to 1, not {share!r}")
        self.spec, self.share = spec, float(share)
        self.ensemble = TabularEnsemble(spec, **networks or {})
        self.trees = TabularTrees(spec, **trees or {})

    @classmethod
    def of(
        cls, ensemble: TabularEnsemble, trees: TabularTrees, val: Any, loss: Callable[[Tensor, Tensor], Tensor]
    ) -> Self:
        """The mean with the smallest loss on some rows.

        Args:
            ensemble: Trained.
            trees: Fitted to the same rows.
            val: A labelled `CSVDataset` in memory that neither was fitted to.
            loss: For the outputs, a mean over rows.
        """
        said = [_answers(each, val) for each in (ensemble, trees)]
        task = ensemble.task

        def value(share: float) -> float:
            return float(loss(_mixed(said[0], said[1], share, task), val.targets))

        return cls.joined(ensemble, trees, min(_SHARES, key=value))

    @classmethod
    def joined(cls, ensemble: TabularEnsemble, trees: TabularTrees, share: float) -> Self:
        """Both in their own model, with these weights.

        Args:
            ensemble: Trained.
            trees: Fitted.
            share: Of the trees.
        """
        made = cls(ensemble.spec, share=share, trees=_sizes(trees), networks=_sizes(ensemble))
        made.ensemble.load_state_dict(ensemble.state_dict())
        made.trees.load_state_dict(trees.state_dict())
        return made.eval()

    def forward(self, numeric: Tensor | None = None, categorical: Tensor | None = None) -> Tensor | Members:
        """Outputs for a batch of rows.

        Args:
            numeric: See `TabularEnsemble`.
            categorical: See `TabularEnsemble`.
        """
        found = self.ensemble(numeric, categorical)
        if self.training:
            return found  # type: ignore[no-any-return]
        return _mixed(found, self.trees(numeric, categorical), self.share, self.ensemble.task)


def _sizes(model: Any) -> dict[str, int]:
    return {name: size for name, size in model.architecture["arguments"].items() if name != "spec"}


def _mixed(first: Tensor, second: Tensor, share: float, task: str) -> Tensor:
    if task == "regression":
        return (1 - share) * first + share * second
    both = torch.stack([first, second])
    weights = both.new_tensor([1 - share, share]).log().reshape(2, *[1] * first.dim())
    if task == "classification":
        return (both.log_softmax(-1) + weights).logsumexp(0)
    yes, no = (nn.functional.logsigmoid(sign * both) + weights for sign in (1, -1))
    return yes.logsumexp(0) - no.logsumexp(0)


@torch.no_grad()
def _answers(model: nn.Module, rows: Any) -> Tensor:
    model.eval()
    parts = [slice(begin, begin + _ROWS) for begin in range(0, len(rows), _ROWS)]
    numeric, codes = rows.numeric, None if rows.categorical is None else rows.categorical.long()
    return torch.cat([model(*(None if each is None else each[part] for each in (numeric, codes))) for part in parts])
