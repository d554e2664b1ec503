"""`TabularTrees`: gradient boosting of scikit-learn as plain arrays, which predict without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dlkit import _bounds
from dlkit._optional import require
from dlkit.errors import ArgumentError, ModelFileError
from dlkit.models.tabular import check_columns, check_inputs
from dlkit.registry import register
from dlkit.specs.columns import FIRST
from dlkit.specs.table import TableSpec

__all__ = ["TabularTrees"]

_CODES = 255  # different values that scikit-learn takes in a category; those of larger ones are ordered by frequency
_SIZE, _DEPTH = _bounds.Range(0, 1 << 24), _bounds.Range(0, 1 << 9)

Array = npt.NDArray[Any]


@register("dlkit.models.TabularTrees")
class TabularTrees(nn.Module):
    """Gradient boosting for tables: the trees of scikit-learn's HistGradientBoosting, fitted by `for_data`.

    It looks at the same samples as the networks do, with two differences that suit trees: a number that was missing is
    missing again, and not its median; and categories are split by their values. What comes out are logits, or for a
    regression values. The file holds arrays, no pickle, and predicts without scikit-learn. It has no parameters that a
    Trainer could train.

    Args:
        spec: A fitted spec with a target.
        nodes: In all trees.
        trees: How many.
        sets: How many different sets of values categories are split by.
        depth: Of the deepest tree.

    Raises:
        ArgumentError: the spec has text or images, or no target; or an invalid number.
        TrainingError: in `forward`, inputs that are not the spec's.
        ModelFileError: when weights are loaded whose arrays are not those of trees.

    >>> import pandas as pd
    >>> from dlkit.datasets import CSVDataset
    >>> train = CSVDataset(pd.DataFrame({"x": [n / 2 for n in range(80)], "y": ["no"] * 40 + ["yes"] * 40}), target="y")
    >>> TabularTrees.for_data(train)(train.numeric[:2]).argmax(1)
    tensor([0, 0])
    """

    feature: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    missing: Tensor
    group: Tensor
    value: Tensor
    root: Tensor
    output: Tensor
    baseline: Tensor
    sets: Tensor

    def __init__(self, spec: TableSpec, *, nodes: int = 1, trees: int = 0, sets: int = 1, depth: int = 0) -> None:
        super().__init__()
        check_columns(spec, "TabularTrees")
        if spec.target is None:
            raise ArgumentError("the spec has no target, so there is nothing to learn")
        for name, number in (("nodes", nodes), ("trees", trees), ("sets", sets)):
            _bounds.whole(number, name, _SIZE)
        self.spec, self.depth = spec, _bounds.whole(depth, "depth", _DEPTH)
        outputs = spec.target.num_outputs
        self.single = outputs == 1 and spec.target.task != "multilabel"
        self.few = [place for place, each in enumerate(spec.categories) if len(each.vocabulary) < _CODES]
        self.many = [place for place in range(len(spec.categories)) if place not in self.few]
        self.flags = _flags(spec)
        for name in ("feature", "left", "right", "missing", "group"):
            self.register_buffer(name, torch.zeros(nodes, dtype=torch.int64))
        for name in ("root", "output"):
            self.register_buffer(name, torch.zeros(trees, dtype=torch.int64))
        self.register_buffer("sets", torch.zeros(sets, _CODES + FIRST, dtype=torch.int64))
        for name, size in (("threshold", nodes), ("value", nodes), ("baseline", outputs)):
            self.register_buffer(name, torch.zeros(size))
        # The arrays may come from anywhere.
        self.register_load_state_dict_post_hook(_check)  # type: ignore[no-untyped-call]

    @classmethod
    def for_data(cls, *parts: Any, seed: int = 0, **settings: Any) -> Self:
        """Fit trees on training rows.

        Args:
            *parts: A labelled `CSVDataset` in memory, the training part alone; or several with one spec.
            seed: For the rows that scikit-learn sets aside where it decides itself when to stop.
            **settings: Of scikit-learn's `HistGradientBoostingClassifier` or `Regressor`; its defaults without any.
                `class_weight` of several labels may be a list, one for each.

        Raises:
            ArgumentError: it is a stream, has no target, or cannot be learnt by this model.
            MissingExtraError: scikit-learn is not installed.
        """
        empty = cls(parts[0].spec)
        if any(getattr(part, "targets", None) is None for part in parts) or not sum(map(len, parts)):
            raise ArgumentError("the training data has no rows with targets to fit trees on")
        targets, numeric, codes = (_joined(parts, name) for name in ("targets", "numeric", "categorical"))
        assert targets is not None
        rows = empty.features(numeric, None if codes is None else codes.long())
        settings |= {"categorical_features": list(range(len(empty.few))) or None, "random_state": seed}
        columns = _columns(targets, empty.spec)
        given = settings.pop("class_weight", None)
        weights = given if isinstance(given, list) else [given] * len(columns)
        fitted = [
            _fitted(rows, each, empty.spec, settings if weight is None else {**settings, "class_weight": weight})
            for each, weight in zip(columns, weights, strict=True)
        ]
        arrays, depth = _arrays(fitted, len(empty.few), len(empty.baseline))
        shape = {"nodes": len(arrays["value"]), "trees": len(arrays["root"]), "sets": len(arrays["sets"])}
        model = cls(empty.spec, depth=depth, **shape)
        model.load_state_dict({name: torch.from_numpy(values) for name, values in arrays.items()})
        return model.eval()

    def features(self, numeric: Tensor | None, categorical: Tensor | None) -> Tensor:
        """What the trees look at: categories of few values, numbers, and those of many; NaN for what is missing.

        Args:
            numeric: See `forward`.
            categorical: See `forward`.

        Returns:
            float32 [B, features].
        """
        parts = []
        if categorical is not None:
            codes = torch.where(categorical < FIRST, torch.nan, categorical.float())
            parts = [codes[:, self.few], codes[:, self.many]]
        if numeric is not None:
            numbers = numeric.float()
            if self.flags:
                values, flags = zip(*self.flags, strict=True)
                absent = numbers[:, list(flags)] > 0.5
                numbers = numbers.index_copy(
                    1,
                    torch.tensor(values, device=numbers.device),
                    numbers[:, list(values)].masked_fill(absent, torch.nan),
                )
            parts.insert(1, numbers)
        return torch.cat(parts, 1)

    def forward(self, numeric: Tensor | None = None, categorical: Tensor | None = None) -> Tensor:
        """Outputs for a batch of rows.

        Args:
            numeric: float [B, numbers]; None where the spec has none.
            categorical: int64 [B, codes]; None where the spec has none.

        Returns:
            float32 [B, outputs], or [B] for a single output.
        """
        check_inputs(self.spec, numeric, categorical)
        rows = self.features(numeric, categorical)
        node = self.root.expand(len(rows), -1)
        for _ in range(self.depth):
            seen = rows.gather(1, self.feature[node])
            group = self.group[node]
            code = seen.nan_to_num(0.0).clamp(0, self.sets.shape[1] - 1).long()
            goes = torch.where(group > 0, self.sets[group, code] > 0, seen <= self.threshold[node])
            goes = torch.where(seen.isnan(), self.missing[node] > 0, goes)
            node = torch.where(goes, self.left[node], self.right[node])
        to_output = (self.output[:, None] == torch.arange(len(self.baseline), device=rows.device)).float()
        outputs = self.baseline + self.value[node] @ to_output
        return outputs.squeeze(1) if self.single else outputs


def _flags(spec: TableSpec) -> list[tuple[int, int]]:
    """For each number that may be missing its place among the numbers, and that of the number that says so."""
    found, place = list[tuple[int, int]](), 0
    for column in spec.numbers:
        count = len(column.features())
        if column.indicator:
            found += [(each, place + count - 1) for each in range(place, place + count - 1)]
        place += count
    return found


def _joined(parts: Sequence[Any], name: str) -> Tensor | None:
    return None if getattr(parts[0], name) is None else torch.cat([getattr(part, name) for part in parts])


def _columns(targets: Tensor, spec: TableSpec) -> list[Array]:
    """The targets to fit an estimator on each."""
    assert spec.target is not None
    if targets.dim() == 1:
        return [targets.numpy()]
    return [column.numpy() for column in targets.unbind(1)]


def _fitted(rows: Tensor, target: Array, spec: TableSpec, settings: dict[str, Any]) -> Any:
    ensemble: Any = require("sklearn.ensemble", extra="boosting")
    assert spec.target is not None
    regression = spec.target.task == "regression"
    kind = ensemble.HistGradientBoostingRegressor if regression else ensemble.HistGradientBoostingClassifier
    if not regression and len(np.unique(target)) < 2:
        raise ArgumentError("all training rows have one class, and trees need at least two")
    return kind(**settings).fit(rows.numpy().astype(np.float64), target)


def _arrays(fitted: list[Any], categories: int, outputs: int) -> tuple[dict[str, Array], int]:
    """The trees of all estimators, one after the other, and the depth of the deepest."""
    parts: dict[str, list[Array]] = {name: [] for name in ("feature", "threshold", "left", "right", "missing")}
    parts |= {"group": [], "value": [], "sets": [np.zeros((1, _CODES + FIRST), dtype=np.int64)]}
    root, output, depth, sets = list[int](), list[int](), 0, 1
    baseline = np.zeros(outputs, dtype=np.float32)
    nodes = 0
    for number, estimator in enumerate(fitted):
        base = np.ravel(estimator._baseline_prediction)
        place = _places(estimator, number, outputs, len(base))
        baseline[place] = base
        seen = _values_of(estimator, categories)
        for trees in estimator._predictors:
            for at, tree in zip(place, trees, strict=True):
                found, own = _tree(tree, seen, nodes, sets)
                for name, values in found.items():
                    parts[name].append(values)
                parts["sets"].append(own)
                root.append(nodes)
                output.append(at)
                nodes, sets, depth = nodes + len(found["value"]), sets + len(own), max(depth, int(tree.get_max_depth()))
    empty = {"root": np.array(root, dtype=np.int64), "output": np.array(output, dtype=np.int64)}
    return {name: np.concatenate(each) for name, each in parts.items()} | empty | {"baseline": baseline}, depth


def _places(estimator: Any, number: int, outputs: int, given: int) -> list[int]:
    """The outputs that an estimator's trees add to; of two classes the second one's, beside a first that stays 0."""
    classes = getattr(estimator, "classes_", None)
    if classes is None or outputs == 1:
        return [number]
    if given > 1:
        return [int(each) for each in classes]
    return [number] if set(classes) <= {0.0, 1.0} and classes.dtype.kind == "f" else [int(classes[1])]


def _values_of(estimator: Any, categories: int) -> list[Array]:
    """For each category the codes in the order that scikit-learn has numbered them in."""
    if not categories:
        return []
    encoder = estimator._preprocessor.named_transformers_["encoder"]
    return [np.asarray(each)[~np.isnan(each)].astype(np.int64) for each in encoder.categories_]


def _tree(tree: Any, seen: list[Array], first: int, sets: int) -> tuple[dict[str, Array], Array]:
    nodes, here = tree.nodes, np.arange(first, first + len(tree.nodes))
    leaf, split = nodes["is_leaf"].astype(bool), nodes["is_categorical"].astype(bool)
    threshold = nodes["num_threshold"].astype(np.float32)
    # The largest float32 that is not above it: numbers are float32, so each goes where scikit-learn sends it.
    above = threshold.astype(np.float64) > nodes["num_threshold"]
    threshold[above] = np.nextafter(threshold[above], np.float32(-np.inf))
    group, own = np.zeros(len(nodes), dtype=np.int64), list[Array]()
    for place in np.flatnonzero(split & ~leaf):
        group[place] = sets + len(own)
        own.append(_set(tree.raw_left_cat_bitsets[nodes["bitset_idx"][place]], seen[nodes["feature_idx"][place]]))
    end = np.finfo(np.float32).max
    return {
        "feature": np.where(leaf, 0, nodes["feature_idx"]).astype(np.int64),
        "threshold": np.clip(np.where(leaf | split, 0, threshold), -end, end).astype(np.float32),
        "left": np.where(leaf, here, nodes["left"].astype(np.int64) + first),
        "right": np.where(leaf, here, nodes["right"].astype(np.int64) + first),
        "missing": nodes["missing_go_to_left"].astype(np.int64),
        "group": group,
        "value": np.where(leaf, nodes["value"], 0).astype(np.float32),
    }, np.array(own, dtype=np.int64).reshape(-1, _CODES + FIRST)


def _set(bits: Array, seen: Array) -> Array:
    """Which codes go to the left: bit number `n` stands for the n-th code that the training rows have."""
    chosen = np.zeros(_CODES + FIRST, dtype=np.int64)
    numbers = np.arange(len(seen))
    chosen[seen] = (bits[numbers // 32].astype(np.int64) >> (numbers % 32)) & 1
    return chosen


def _check(model: TabularTrees, loaded: Any) -> None:
    """What was loaded may come from anywhere: each way down ends at a leaf, and points to what there is."""
    count, here = len(model.value), torch.arange(len(model.value), device=model.value.device)
    features = len(model.few) + len(model.many) + len(model.spec.numeric_features)
    for name, bound in (
        ("feature", features),
        ("left", count),
        ("right", count),
        ("group", len(model.sets)),
        ("root", count),
        ("output", len(model.baseline)),
    ):
        values = getattr(model, name)
        if len(values) and not 0 <= int(values.min()) <= int(values.max()) < bound:
            raise ModelFileError(
                f"the trees' {name} must lie from 0 to {bound - 1}, and one is {_outside(values, bound)}"
            )
    leaf = (model.left == here) & (model.right == here)
    inner = (model.left > here) & (model.right > here)
    if not bool((leaf | inner).all()):
        raise ModelFileError("the trees have a node whose branches do not lead down")
    if not all(bool(torch.isfinite(each).all()) for each in (model.value, model.threshold, model.baseline)):
        raise ModelFileError("the trees have values or thresholds that are not finite numbers")


def _outside(values: Tensor, bound: int) -> int:
    return int(values[(values < 0) | (values >= bound)][0])
