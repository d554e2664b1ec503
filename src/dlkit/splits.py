"""Cut samples into parts, and prove that no sample lies on both sides.

Everything here works on indices, labels and keys and knows no dataset. A split is a pure function of its arguments:
samples are ordered by SplitMix64 (Steele, Lea, Flood 2014) of (seed, index), which no release of numpy or torch can
change, so that a test set stays a test set after an upgrade.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dlkit import rng
from dlkit.errors import ArgumentError

__all__ = ["LeakReport", "check_leaks", "content_keys", "part_of_keys", "split_indices"]

Ints = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]
Values = Tensor | npt.NDArray[Any] | Sequence[Any]


def split_indices(
    n: int,
    fractions: float | Sequence[float],
    *,
    stratify: Values | None = None,
    groups: Values | None = None,
    dedupe: Values | None = None,
    seed: int = 0,
) -> list[Ints]:
    """Cut the indices `0 .. n-1` into parts, each in ascending order; every index falls into exactly one part.

    The sizes follow `fractions` exactly, rounded by the largest remainder; with `stratify` the parts have these sizes
    too, and each class is cut in the same shares to within one sample (two, in rare cases of more than two parts).
    `groups` and `dedupe` come first: their members stay together, so the sizes are only as near as they permit.
    Groups are placed greedily, largest first, where the counts per class and part deviate least from the wanted ones
    in the sense of chi-square; the plan of scikit-learn's `StratifiedGroupKFold`, for unequal parts.

    Args:
        n: The number of samples.
        fractions: The share of the first part, the second one getting the rest; or all shares, which sum to 1.
        stratify: [n] labels (numbers, strings or a tensor) whose shares every part keeps. None and NaN are a class.
        groups: [n] keys (a patient, a speaker, a font); samples with equal keys never fall into different parts.
        dedupe: [n] content keys, usually `content_keys(data)`; equal samples never fall into different parts. Joined
            with `groups` where both are given.
        seed: Another seed gives another split of the same sizes.

    Returns:
        One int64 array of indices per part.

    Raises:
        ArgumentError: shares that do not sum to 1, a wrong length, a class with fewer samples than there are parts,
            fewer groups than parts, or a part that would be empty.

    >>> train, test = split_indices(10, 0.8, seed=0)
    >>> len(train), len(test), sorted([*train.tolist(), *test.tolist()]) == list(range(10))
    (8, 2, True)
    >>> labels = ["a", "b"] * 10
    >>> [sum(labels[i] == "a" for i in part) for part in split_indices(20, [0.5, 0.3, 0.2], stratify=labels)]
    [5, 3, 2]
    """
    shares = _shares(fractions)
    if n < len(shares):
        raise ArgumentError(f"{n} samples cannot be cut into {len(shares)} parts")
    classes = np.zeros(n, np.int64) if stratify is None else _codes(stratify, n, "stratify")
    sizes = np.bincount(classes)
    if stratify is not None and sizes.min() < len(shares):
        raise ArgumentError(_too_small(stratify, classes, sizes, len(shares)))
    order = _order(n, seed)
    counts = _counts(sizes, shares, _order(len(sizes), seed, salt=1))
    if (empty := np.flatnonzero(counts.sum(0) == 0)).size:
        raise ArgumentError(f"part {empty[0]} (share {shares[empty[0]]:g}) of {n} samples would be empty")
    bound = _bound_together(n, groups, dedupe)
    if bound is None:
        parts = np.empty(n, np.int64)
        _deal(parts, order, classes, counts)
    else:
        parts = _place_groups(order, classes, bound, counts)
    return [np.flatnonzero(parts == part) for part in range(len(shares))]


def _shares(fractions: float | Sequence[float]) -> list[float]:
    shares = [float(share) for share in (fractions if isinstance(fractions, Iterable) else (fractions, 1 - fractions))]
    if not shares or not all(0 < share <= 1 for share in shares) or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise ArgumentError(
            f"fractions must be one number between 0 and 1 or shares above 0 that sum to 1, not {fractions!r}"
        )
    return [share / sum(shares) for share in shares]


def _too_small(stratify: Any, classes: Ints, sizes: Ints, parts: int) -> str:
    smallest = int(sizes.argmin())
    label = _as_array(stratify)[int(np.argmax(classes == smallest))]
    return (
        f"stratify: class {label!s} has {sizes[smallest]} of {len(classes)} samples, fewer than the {parts} parts; "
        "merge or drop rare classes, or leave stratify out"
    )


def _order(n: int, seed: int, salt: int = 0) -> Ints:
    """A permutation of `n`: the indices sorted by the numbers of the SplitMix64 stream that starts at the seed."""
    start = np.uint64(rng.derive(seed, rng.SPLIT, salt))
    return np.argsort(
        _mixed(start + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)), kind="stable"
    )


def _mixed(values: Keys) -> Keys:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _apportion(total: int, shares: Sequence[float]) -> Ints:
    """Whole numbers that sum to `total`, by the largest remainder; ties go to the earlier part."""
    quotas = np.round(total * np.asarray(shares), 9)  # 0.29 * 100 is 28.999999999999996
    counts = np.floor(quotas).astype(np.int64)
    counts[np.argsort(counts - quotas, kind="stable")[: total - counts.sum()]] += 1
    return counts


def _counts(sizes: Ints, shares: Sequence[float], order: Ints) -> Ints:
    """How many samples of each class go to each part [classes, parts]: exact in both sums."""
    quotas = np.round(np.outer(sizes, shares), 9)
    counts = np.floor(quotas).astype(np.int64)
    left = _apportion(int(sizes.sum()), shares) - counts.sum(0)
    rest = sizes - counts.sum(1)
    for row in np.repeat(order, rest[order]).tolist():
        part = max(np.flatnonzero(left), key=lambda part: (quotas[row, part] > counts[row, part], left[part]))
        counts[row, part] += 1
        left[part] -= 1
    return counts


def _deal(parts: Ints, order: Ints, classes: Ints, counts: Ints) -> None:
    """Write the part of each sample of `order` to `parts`: the first of each class to part 0, and so on."""
    by_class = order[np.argsort(classes[order], kind="stable")]
    parts[by_class] = np.repeat(np.tile(np.arange(counts.shape[1]), len(counts)), counts.ravel())


def _bound_together(n: int, groups: Values | None, dedupe: Values | None) -> Ints | None:
    given = {"groups": groups, "dedupe": dedupe}
    codes = [_codes(values, n, name) for name, values in given.items() if values is not None]
    return _joined(*codes) if len(codes) == 2 else codes[0] if codes else None


def _joined(first: Ints, second: Ints) -> Ints:
    """Groups of samples that are linked by either key, directly or through others (union-find)."""
    parent = list(range(int(first.max()) + 1))

    def root(group: int) -> int:
        while parent[group] != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    seen: dict[int, int] = {}
    for group, key in zip(first.tolist(), second.tolist(), strict=True):
        parent[root(group)] = root(seen.setdefault(key, group))
    roots = np.array([root(group) for group in range(len(parent))], dtype=np.int64)
    return np.unique(roots[first], return_inverse=True)[1].astype(np.int64)


def _place_groups(order: Ints, classes: Ints, groups: Ints, counts: Ints) -> Ints:
    """The part of each sample, with groups kept whole and `counts` met as nearly as they permit."""
    sizes = np.bincount(groups)
    if len(sizes) < counts.shape[1]:
        raise ArgumentError(
            f"{len(sizes)} groups cannot be cut into {counts.shape[1]} parts (samples that share a key are one group)"
        )
    parts = np.empty(len(groups), np.int64)
    large = sizes[groups] > 1
    place = _greedy(order[large[order]], classes, groups, counts)
    parts[large] = place[groups[large]]
    have = np.zeros_like(counts)
    np.add.at(have, (classes[large], parts[large]), 1)
    single = order[~large[order]]
    _deal(parts, single, classes, _remaining(np.bincount(classes[single], minlength=len(counts)), counts - have))
    _fill_empty(parts, groups, counts.shape[1])
    return parts


def _remaining(sizes: Ints, wanted: Ints) -> Ints:
    """What the samples that are in no group fill up: exactly what is missing, where no part has too many already."""
    wanted = wanted.copy()
    for row in np.flatnonzero((wanted < 0).any(1)).tolist():
        lacking = wanted[row].clip(0)
        wanted[row] = _apportion(int(sizes[row]), (lacking / max(1, lacking.sum())).tolist())
    return wanted


def _greedy(order: Ints, classes: Ints, groups: Ints, counts: Ints) -> Ints:
    """The part of each group with a member in `order`, largest first, equal ones in the order of `order`."""
    members: dict[int, dict[int, int]] = {}
    for group, label in zip(groups[order].tolist(), classes[order].tolist(), strict=True):
        held = members.setdefault(group, {})
        held[label] = held.get(label, 0) + 1
    place = np.zeros(int(groups.max()) + 1, np.int64)
    wanted = np.maximum(counts, 0.5).tolist()  # a part that wants none of a class is not forbidden to get some
    filled = [[0] * counts.shape[1] for _ in wanted]
    for group, held in sorted(members.items(), key=lambda item: -sum(item[1].values())):
        # By how much the sum of (filled - wanted)² / wanted grows, less what is the same for every part.
        growth = [
            sum(size * (2 * filled[label][part] + size) / wanted[label][part] for label, size in held.items())
            for part in range(counts.shape[1])
        ]
        place[group] = part = growth.index(min(growth))
        for label, size in held.items():
            filled[label][part] += size
    return place


def _fill_empty(parts: Ints, groups: Ints, count: int) -> None:
    """Give a part that got nothing, because the groups are large, the smallest group of a part that has several."""
    sizes = np.bincount(groups)
    for part in np.flatnonzero(np.bincount(parts, minlength=count) == 0):
        place = np.empty(len(sizes), np.int64)
        place[groups] = parts
        shared = np.bincount(place, minlength=count)[place] > 1
        parts[groups == np.where(shared, sizes, sizes.max() + 1).argmin()] = part


def _codes(values: Values, n: int, name: str) -> Ints:
    """Equal values to equal numbers 0, 1, ...; for one value per sample."""
    array = _as_array(values)
    if array.ndim != 1 or len(array) != n:
        raise ArgumentError(f"{name} must have one value for each of the {n} samples, not shape {list(array.shape)}")
    if array.dtype != object:
        return np.unique(array, return_inverse=True)[1].astype(np.int64)
    seen: dict[Any, int] = {}  # sorting would compare a string with None
    return np.array([seen.setdefault(_hashable(value), len(seen)) for value in array.tolist()], dtype=np.int64)


def _hashable(value: Any) -> Any:
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, list | tuple):
        return tuple(_hashable(part) for part in value)
    return value


def _as_array(values: Any) -> npt.NDArray[Any]:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return np.asarray(values.float() if values.dtype == torch.bfloat16 else values)
    if isinstance(values, np.ndarray) or not isinstance(values, Sequence):
        array = np.asarray(values)
        return array if array.dtype.kind in "biufcSUmMO" else array.astype(object)
    if all(type(value) in (int, bool) for value in values):
        return np.asarray(values)
    array = np.empty(len(values), dtype=object)  # np.asarray would turn [1, None, "1"] into strings
    array[:] = values
    return array


def part_of_keys(keys: Keys, fractions: float | Sequence[float], *, seed: int = 0) -> Ints:
    """The part that each key falls into, whatever other keys there are: for data that is never seen as a whole.

    The shares are met on average: of n keys, a part gets its share to within a few times the root of n.

    Args:
        keys: uint64 [N], such as row numbers or `content_keys`; equal keys fall into one part.
        fractions: As in `split_indices`.
        seed: Another seed gives another split.

    Returns:
        int64 [N], the number of the part.

    >>> part_of_keys(np.arange(6, dtype=np.uint64), [0.5, 0.5], seed=1).tolist()
    [1, 1, 0, 1, 0, 1]
    """
    start = np.uint64(rng.derive(seed, rng.SPLIT, 2))
    places = _mixed((keys + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) ^ start) / 2.0**64
    return np.searchsorted(np.cumsum(_shares(fractions))[:-1], places, side="right").astype(np.int64)


def content_keys(data: Any) -> Keys:
    """A 64-bit key for each sample; equal samples have equal keys, in every process and on every machine.

    Two different samples of half a million share a key with a chance of 1 in 100 million.

    Args:
        data: Tensor or array [N, ...]; a `CSVDataset`, DataFrame or dict of columns [N], whose rows are the samples; or
            a sequence of strings, bytes, numbers or tuples. In columns and tuples 1, 1.0 and True are equal, and so are
            missing values; in arrays and tensors NaN equals NaN.

    Returns:
        uint64 [N].

    >>> keys = content_keys(np.array([[1, 2], [3, 4], [1, 2]]))
    >>> bool(keys[0] == keys[2]), bool(keys[0] == keys[1])
    (True, False)
    """
    columns = _columns(data)
    if columns is not None:
        return _keys_of_columns(columns)
    if isinstance(data, Tensor | np.ndarray) and (array := _as_array(data)).dtype.kind not in "OSU":
        return _keys_of_rows(array)
    return _digests(_encoded(value) for value in (data.tolist() if isinstance(data, np.ndarray) else data))


def _columns(data: Any) -> dict[str, Any] | None:
    if callable(inputs := getattr(data, "comparable", None)):
        data = inputs()  # a table of dlkit gives its inputs as columns
    if isinstance(data, Mapping):
        return {str(name): values for name, values in data.items()}
    if hasattr(data, "columns") and hasattr(data, "iloc"):
        return {str(name): data.iloc[:, place] for place, name in enumerate(data.columns)}
    return None


def _keys_of_rows(array: npt.NDArray[Any]) -> Keys:
    if array.dtype.kind == "f":
        array = np.where(np.isnan(array), array.dtype.type(np.nan), array + array.dtype.type(0))  # -0.0 is 0.0
    if array.ndim == 0:
        raise ArgumentError("data must have the samples as its first dimension; it has no dimension")
    return _digests(np.ascontiguousarray(row).tobytes() for row in array)


def _digests(rows: Iterable[bytes]) -> Keys:
    return np.frombuffer(b"".join(hashlib.blake2b(row, digest_size=8).digest() for row in rows), dtype="<u8").astype(
        np.uint64
    )


def _keys_of_columns(columns: Mapping[str, Any]) -> Keys:
    keys = [_column_keys(values) for values in columns.values()]
    if len(lengths := {len(column) for column in keys}) != 1:
        raise ArgumentError(f"the columns must have one length, not {sorted(lengths)}")
    mixed = np.zeros(lengths.pop(), np.uint64)
    for column in keys:
        mixed = _mixed(mixed * np.uint64(3) + column)
    return mixed


def _column_keys(values: Any) -> Keys:
    array = _as_array(values)
    if array.dtype.kind in "mM":
        array = array.astype(f"{array.dtype.kind}8[us]").astype(object)  # the same instant in another unit is equal
    if array.dtype.kind in "biuf":
        unique, codes = np.unique(array, return_inverse=True)
        return _digests(_encoded(value) for value in unique.tolist())[codes]
    seen: dict[bytes, int] = {}
    rows = [seen.setdefault(_encoded(value), len(seen)) for value in array.tolist()]
    return _digests(seen)[rows]


def _encoded(value: Any) -> bytes:
    return repr(_canonical(value)).encode("utf-8", "surrogatepass")


def _canonical(value: Any) -> Any:
    """One form for equal values: missing ones are None, whole numbers are integers."""
    if isinstance(value, list | tuple):
        return tuple(_canonical(part) for part in value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool | float):
        return None if value != value else int(value) if float(value).is_integer() else value
    return None if type(value).__name__ in ("NAType", "NaTType") else value


@dataclass(frozen=True, eq=False, repr=False)
class LeakReport:
    """What `check_leaks` found. True when something leaks; `repr` says how much and where.

    Attributes:
        train: int64, the positions in the training data that also lie in the test data.
        test: int64, the positions in the test data that also lie in the training data.
        num_train: How many training samples were compared.
        num_test: How many test samples were compared.
        matches: For each sample that lies on both sides its positions, `(in train, in test)`, in the order of the test.
    """

    train: Ints
    test: Ints
    num_train: int
    num_test: int
    matches: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]

    def __bool__(self) -> bool:
        return len(self.test) > 0

    def __len__(self) -> int:
        return len(self.test)

    def __repr__(self) -> str:
        if not self:
            return f"LeakReport: none of {self.num_test:,} test samples lies in the {self.num_train:,} training samples"
        share = 100 * len(self.test) / max(1, self.num_test)
        lines = [
            f"LeakReport: {len(self.test):,} of {self.num_test:,} test samples ({share:.3g} %) "
            f"equal one of {len(self.train):,} training samples",
            *(f"  test {_places(test)} = train {_places(train)}" for train, test in self.matches[:5]),
        ]
        return "\n".join([*lines, f"  and {len(self.matches) - 5:,} more"] if len(self.matches) > 5 else lines)


def _places(positions: Sequence[int]) -> str:
    shown = ", ".join(str(position) for position in positions[:4])
    return shown if len(positions) <= 4 else f"{shown} and {len(positions) - 4:,} more"


def check_leaks(train: Any, test: Any) -> LeakReport:
    """Find the samples of `test` that are, value for value, also in `train`.

    Give the inputs without the labels: the same text with another label is a leak too.

    Args:
        train: Samples as `content_keys` takes them: a tensor or array [N, ...], a DataFrame or dict of columns, or a
            sequence of strings or tuples. Or keys: `check_leaks(train_patients, test_patients)`.
        test: The same kind, with the same columns or the same shape and dtype of a sample.

    Returns:
        A report that is true when something leaks, with the positions on both sides.

    Raises:
        ArgumentError: the two cannot be compared.

    >>> report = check_leaks(["spam", "ham", "eggs"], ["toast", "eggs"])
    >>> bool(report), report.test.tolist(), report.matches
    (True, [1], (((2,), (1,)),))
    >>> check_leaks(np.zeros((4, 2)), np.ones((3, 2)))
    LeakReport: none of 3 test samples lies in the 4 training samples
    """
    train, test = _comparable(train, test)
    train_keys, test_keys = content_keys(train), content_keys(test)
    in_train = np.flatnonzero(np.isin(train_keys, test_keys))
    in_test = np.flatnonzero(np.isin(test_keys, train_keys))
    found: dict[int, tuple[list[int], list[int]]] = {}
    for side, positions, keys in ((1, in_test, test_keys), (0, in_train, train_keys)):
        for position, key in zip(positions.tolist(), keys[positions].tolist(), strict=True):
            found.setdefault(key, ([], []))[side].append(position)
    matches = tuple((tuple(first), tuple(second)) for first, second in found.values())
    return LeakReport(in_train, in_test, len(train_keys), len(test_keys), matches)


def _comparable(train: Any, test: Any) -> tuple[Any, Any]:
    first, second = _columns(train), _columns(test)
    if first is not None and second is not None:
        if odd := sorted(set(first) ^ set(second)):
            raise ArgumentError(f"train and test must have the same columns; only one of them has {', '.join(odd)}")
        return first, {name: second[name] for name in first}
    kinds = [isinstance(part, Tensor | np.ndarray) for part in (train, test)]
    if (first is None) != (second is None) or kinds[0] != kinds[1]:
        raise ArgumentError(f"train and test must be of one kind, not {type(train).__name__} and {type(test).__name__}")
    if kinds[0]:
        train, test = _as_array(train), _as_array(test)
        if train.dtype != test.dtype and not {train.dtype.kind, test.dtype.kind} <= set("SUO"):
            raise ArgumentError(f"train is {train.dtype} and test {test.dtype}: convert one to the other's dtype")
        if train.shape[1:] != test.shape[1:]:
            raise ArgumentError(f"samples differ in shape: train {list(train.shape[1:])}, test {list(test.shape[1:])}")
    return train, test
