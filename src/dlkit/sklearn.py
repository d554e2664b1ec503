"""Estimators for scikit-learn: tables and texts as arrays and frames, without a folder (extra `sklearn`).

They are what `dlkit.recipes` chooses for the same data, trained in memory: `fit`, `predict`, `predict_proba` and
`score` in scikit-learn's own pipelines, searches and cross-validations.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import nn

from dlkit import rng
from dlkit._calling import call, evaluating, output_of
from dlkit._nested import map_leaves
from dlkit._optional import require
from dlkit.callbacks import BackToBest, EarlyStopping
from dlkit.datasets.tables.dataset import CSVDataset
from dlkit.datasets.texts.dataset import TextDataset
from dlkit.loader import DataLoader
from dlkit.models import TabularTrees
from dlkit.recipes.choices import Choice, Wish
from dlkit.recipes.choosing import choose
from dlkit.recipes.fitting import trainer_of
from dlkit.recipes.reading import Data
from dlkit.splits import split_indices

_base = require("sklearn.base", extra="sklearn")
_multiclass = require("sklearn.utils.multiclass", extra="sklearn")
_validation = require("sklearn.utils.validation", extra="sklearn")

__all__ = ["TableClassifier", "TableRegressor", "TextClassifier", "TextRegressor"]

Array = npt.NDArray[Any]

_TARGET = "the target"  # no column of anybody is called so
_FEW = 20  # rows, of which none are taken away for validation
_BATCH = 1024


class _Estimator(_base.BaseEstimator):  # type: ignore[misc, name-defined]
    """What all of them are: a choice for the data, trained on most rows and watched on the others.

    Args:
        arch: The model, see `dlkit.recipes.train`; None for what is usual for such data.
        epochs: At most; None for what is usual.
        validation: The share of rows that choose the best epoch.
        random_state: Of everything random; None is 0, so that a fit can be repeated.
        device: See `dlkit.Trainer`.
    """

    model_: Any
    spec_: Any

    def __init__(
        self,
        arch: str | None = None,
        *,
        epochs: int | None = None,
        validation: float = 0.15,
        random_state: int | None = None,
        device: str = "cpu",
    ) -> None:
        self.arch = arch
        self.epochs = epochs
        self.validation = validation
        self.random_state = random_state
        self.device = device

    def _seed(self) -> int:
        state: Any = self.random_state
        return (
            int(state.integers(1 << 31))
            if hasattr(state, "integers")
            else int(state.randint(1 << 31) if hasattr(state, "randint") else state or 0)
        )

    def _cut(self, count: int, labels: Array | None, seed: int) -> tuple[Array, Array]:
        """The training and the validation rows; a class has at least one of the first."""
        if count < _FEW or not self.validation:
            return np.arange(count), np.arange(count)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "class", UserWarning)  # of rare classes, which go to the first part
            train, val = split_indices(count, 1 - self.validation, stratify=labels, seed=seed)
        return train, val

    def _train(self, data: Data, seed: int) -> Any:
        """The data as the model takes it; the model is kept."""
        with rng.isolated(seed):
            choice = choose(data, Wish(arch=self.arch, seed=seed))
            self.model_, data = self._fitted(choice, data, seed)
        self.arch_ = choice.arch
        self.spec_ = data.train.spec
        self.model_ = self.model_.eval().cpu()
        if not any(isinstance(part, TabularTrees) for part in self.model_.modules()):  # which are exact as they are
            self.model_ = self.model_.double()  # answers that depend on no other row, but for the last digits
        return self

    def _fitted(self, choice: Choice, data: Data, seed: int) -> tuple[nn.Module, Data]:
        if choice.fit is not None:
            fitted = choice.fit()
            return fitted.model, fitted.data
        if self.epochs is not None:
            choice.epochs = self.epochs
        train = DataLoader(data.train, min(choice.batch_size, len(data.train)), shuffle=True, seed=seed)
        patient = BackToBest if choice.plateau else EarlyStopping
        trainer = trainer_of(
            choice,
            len(train),
            callbacks=[patient(patience=choice.patience)],
            seed=seed,
            device=self.device,
            progress=False,
        )
        trainer.fit(train, DataLoader(data.val, _BATCH), epochs=choice.epochs)
        return (trainer.model, data) if choice.finish is None else (choice.finish(trainer.model)[0], data)

    def _outputs(self, dataset: Any) -> torch.Tensor:
        parts, kinds = [], {each.dtype for each in self.model_.state_dict().values()}
        kind = torch.float64 if torch.float64 in kinds and torch.float32 not in kinds else torch.float32
        with evaluating(self.model_):
            for inputs in DataLoader(dataset, _BATCH):
                given = map_leaves(inputs, lambda leaf: leaf.to(kind) if leaf.is_floating_point() else leaf)
                parts.append(output_of(call(self.model_, given)).double())
        return torch.cat(parts)


class _Classes(_base.ClassifierMixin):  # type: ignore[misc, name-defined]
    """Answers that are classes."""

    classes_: Array

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803  (scikit-learn's own name)
        """Learn.

        Args:
            X: N rows or texts, see the class.
            y: [N] classes of any kind.

        Raises:
            ValueError: they do not fit each other, or hold what cannot be learnt.
        """
        given = self._read(X, reset=True)
        numbers, names = self._labels(y)
        _validation.check_consistent_length(given, numbers)
        if len(names) == 1:
            self.model_, self.spec_, self.arch_ = None, None, "one class"
            return self
        labels = [names[number] for number in numbers]
        self._learn(given, labels, numbers, task="classification", classes=names)
        return self

    def predict(self, X: Any) -> Array:  # noqa: N803
        """The most probable class of each row.

        Args:
            X: As `fit` takes it.
        """
        found = self.predict_proba(X).argmax(1)
        return np.asarray(self.classes_[found])

    def predict_proba(self, X: Any) -> Array:  # noqa: N803
        """float64 [N, classes], in the order of `classes_`.

        Args:
            X: As `fit` takes it.
        """
        _validation.check_is_fitted(self)
        outputs = self._answers(X)
        if outputs is None:  # there was one class
            return np.ones((_validation._num_samples(X), 1))
        return np.asarray(outputs.softmax(1).numpy())

    def _labels(self, y: Any) -> tuple[Array, list[str]]:
        """Class numbers, and their names in a dataset."""
        given = _validation.column_or_1d(y, warn=True)
        _multiclass.check_classification_targets(given)
        self.classes_, numbers = np.unique(given, return_inverse=True)
        return numbers, [f"class {number}" for number in range(len(self.classes_))]


class _Numbers(_base.RegressorMixin):  # type: ignore[misc, name-defined]
    """Answers that are numbers."""

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Learn.

        Args:
            X: N rows or texts, see the class.
            y: [N] numbers.

        Raises:
            ValueError: they do not fit each other, or hold what cannot be learnt.
        """
        given = self._read(X, reset=True)
        numbers = _validation.column_or_1d(y, warn=True, dtype=np.float64)
        _validation.assert_all_finite(numbers, input_name="y")
        _validation.check_consistent_length(given, numbers)
        self._learn(given, numbers.tolist(), None, task="regression")
        return self

    def predict(self, X: Any) -> Array:  # noqa: N803
        """float64 [N], in the unit of the training targets.

        Args:
            X: As `fit` takes it.
        """
        _validation.check_is_fitted(self)
        return np.asarray(self._answers(X).numpy())


class _Table(_Estimator):
    """Rows of numbers and, in frames, of anything that `CSVDataset` reads."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.non_deterministic = False
        return tags

    def _read(self, X: Any, *, reset: bool) -> pd.DataFrame:  # noqa: N803
        mixed = isinstance(X, pd.DataFrame) and any(
            kind.kind not in "biuf" for kind in X.dtypes if hasattr(kind, "kind")
        )
        if mixed or (isinstance(X, pd.DataFrame) and not all(hasattr(kind, "kind") for kind in X.dtypes)):
            _validation.validate_data(self, X, reset=reset, skip_check_array=True)
            frame: pd.DataFrame = X.rename(columns=str).reset_index(drop=True)
            return frame
        checked = _validation.validate_data(
            self, X, reset=reset, dtype=np.float64, ensure_all_finite="allow-nan", ensure_min_samples=2 if reset else 1
        )
        return pd.DataFrame(checked, columns=[f"x{place}" for place in range(checked.shape[1])])

    def _learn(self, frame: pd.DataFrame, target: Any, labels: Array | None, **options: Any) -> Any:
        seed = self._seed()
        frame = frame.assign(**{_TARGET: target})
        numeric = [str(name) for name in frame if name != _TARGET and getattr(frame[name].dtype, "kind", "O") in "iuf"]
        train, val = self._cut(len(frame), labels, seed)
        fitted = CSVDataset(frame.iloc[train].reset_index(drop=True), target=_TARGET, numeric=numeric, **options)
        watched = CSVDataset(frame.iloc[val].reset_index(drop=True), spec=fitted.spec)
        data = Data(kind="table", name="table", source="a table", how=(), train=fitted, val=watched, seed=seed)
        return self._train(data, seed)

    def _answers(self, X: Any) -> torch.Tensor | None:  # noqa: N803
        frame = self._read(X, reset=False)
        if self.model_ is None:
            return None
        bare = dataclasses.replace(self.spec_, target=None)
        outputs = self._outputs(CSVDataset(frame, spec=bare))
        target = self.spec_.target
        return outputs if target.task != "regression" else target.unscale(outputs)


class TableClassifier(_Classes, _Table):
    """Classes of rows: `dlkit.recipes`' choice for tables as an estimator of scikit-learn.

    Rows are numbers [N, columns], NaN where one is missing; or a DataFrame of numbers, words, dates and so on.

    Args:
        arch: "ensemble", "blend", "boosting", "mlp" or "mixed"; None for what is usual.
        epochs: At most; None for what is usual.
        validation: The share of rows that choose the best epoch.
        random_state: Of everything random; None is 0, so that a fit can be repeated.
        device: See `dlkit.Trainer`.

    Attributes:
        classes_: The classes, sorted.
        model_: The module, in float64; None where there was one class.
        spec_: How rows become its inputs.
        arch_: What was chosen.

    >>> X, y = np.random.default_rng(0).normal(size=(60, 2)), np.array(["no", "yes"] * 30)
    >>> X[:, 0] += 4 * (y == "yes")
    >>> float(TableClassifier("mlp", epochs=20).fit(X, y).score(X, y)) > 0.9
    True
    """


class TableRegressor(_Numbers, _Table):
    """Numbers of rows; else as `TableClassifier`.

    Args:
        arch: See `TableClassifier`.
        epochs: See `TableClassifier`.
        validation: See `TableClassifier`.
        random_state: See `TableClassifier`.
        device: See `TableClassifier`.

    Attributes:
        model_: The module, in float64.
        spec_: How rows become its inputs, and its outputs numbers.
        arch_: What was chosen.
    """


class _Text(_Estimator):
    """Texts, as a list, an array or a Series."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.string = False, True
        return tags

    def _read(self, texts: Any, *, reset: bool) -> list[str]:
        del reset  # texts have no columns
        listed = np.asarray(texts, dtype=object).ravel().tolist()
        if odd := [text for text in listed if not isinstance(text, str)]:
            raise ValueError(f"texts must be strings, not {odd[0]!r:.60} ({type(odd[0]).__name__})")
        return listed

    def _learn(self, texts: list[str], target: list[Any], labels: Array | None, **options: Any) -> Any:
        seed = self._seed()
        train, val = self._cut(len(texts), labels, seed)
        fitted = TextDataset([texts[n] for n in train], target=[target[n] for n in train], **options)
        watched = TextDataset([texts[n] for n in val], target=[target[n] for n in val], spec=fitted.spec)
        data = Data(kind="text", name="texts", source="texts", how=(), train=fitted, val=watched, seed=seed)
        return self._train(data, seed)

    def _answers(self, X: Any) -> torch.Tensor | None:  # noqa: N803
        texts = self._read(X, reset=False)
        return None if self.model_ is None else self._outputs(TextDataset(texts, spec=self.spec_))


class TextClassifier(_Classes, _Text):
    """Classes of texts, in a list, an array or a Series: `dlkit.recipes`' choice as an estimator of scikit-learn.

    Args:
        arch: "linear", "bag", "gru" or "transformer"; None for what is usual.
        epochs: See `TableClassifier`.
        validation: See `TableClassifier`.
        random_state: See `TableClassifier`.
        device: See `TableClassifier`.

    Attributes:
        classes_: The classes, sorted.
        model_: The module, in float64; None where there was one class.
        spec_: How texts become its inputs.
        arch_: What was chosen.

    >>> texts = ["a good film", "good fun", "a bad film", "bad, bad"] * 8
    >>> TextClassifier().fit(texts, ["+", "+", "-", "-"] * 8).predict(["good", "so bad"]).tolist()
    ['+', '-']
    """


class TextRegressor(_Numbers, _Text):
    """Numbers of texts; else as `TextClassifier`.

    Args:
        arch: See `TextClassifier`.
        epochs: See `TableClassifier`.
        validation: See `TableClassifier`.
        random_state: See `TableClassifier`.
        device: See `TableClassifier`.

    Attributes:
        model_: The module, in float64.
        spec_: How texts become its inputs.
        arch_: What was chosen.
    """
