"""Indices and keys cut into parts.

A split is a pure function of its arguments: samples are ordered by SplitMix64 (Steele, Lea, Flood 2014) of
(seed, index), which no release of numpy or torch can change, so that a test set stays a test set after an upgrade.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dlkit import rng
from dlkit._language import Message
from dlkit.errors import ArgumentError
from dlkit.splits._values import Ints, Keys, Values, as_array, mixed
from dlkit.splits.fold import Fold

__all__ = ["Fractions", "num_parts", "part_of_keys", "shares_of", "split_indices"]

_USUAL = (0.8, 0.1, 0.1)

#: The share of the first of two parts; the shares of all parts; None for 0.8, 0.1 and 0.1; or a fold of several.
Fractions = float | Sequence[float] | Fold | None


def split_indices(
    n: int,
    fractions: Fractions = None,
    *,
    stratify: Values | None = None,
    group: Values | None = None,
    dedupe: Values | None = None,
    time: Values | None = None,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
) -> tuple[Ints, ...]:
    """Cut the indices `0 .. n-1` into parts, each in ascending order; every index falls into exactly one part.

    The sizes follow `fractions` exactly, rounded by the largest remainder; with `stratify` the parts have these sizes
    too, and each class is cut in the same shares to within one sample (two, in rare cases of more than two parts).
    `group` and `dedupe` come first: their members stay together, so the sizes are only as near as they permit.
    Groups are placed greedily, largest first, where the counts per class and part deviate least from the wanted ones
    in the sense of chi-square; the plan of scikit-learn's `StratifiedGroupKFold`, for unequal parts.

    Args:
        n: The number of samples.
        fractions: The share of the first part, the second one getting the rest; or all shares, which sum to 1; None
            for 0.8, 0.1 and 0.1. Or a `Fold`, whose test part is one of as many equal ones; see `folds`.
        stratify: [n] labels (numbers, strings or a tensor) whose shares every part keeps. None and NaN are a class.
        group: [n] keys (a patient, a speaker, a font); samples with equal keys never fall into different parts.
        dedupe: [n] content keys, usually `content_keys(data)`; equal samples never fall into different parts. Joined
            with `group` where both are given.
        time: [n] moments (dates or numbers): the first part has the earliest samples, the last one the latest, so that
            the past is trained on and the future is the test set. `stratify` and `seed` mean nothing then. Equal
            moments stay together; of samples that `group` or `dedupe` bind together the latest moment counts, so that
            no part holds anything later than what the next one begins with.
        seed: Another seed gives another split of the same sizes.
        class_names: What warnings call the labels 0, 1, ... of `stratify`.

    Returns:
        One int64 array of indices per part.

    Raises:
        ArgumentError: shares that do not sum to 1, a wrong length, fewer groups than parts, moments that are missing or
            none, a part that would be empty, or a class with fewer samples than there are folds.

    Warns:
        UserWarning: a class has fewer samples than there are parts; all of them go to the first part.

    >>> train, test = split_indices(10, 0.8, seed=0)
    >>> len(train), len(test), sorted([*train.tolist(), *test.tolist()]) == list(range(10))
    (8, 2, True)
    >>> labels = ["a", "b"] * 10
    >>> [sum(labels[i] == "a" for i in part) for part in split_indices(20, [0.5, 0.3, 0.2], stratify=labels)]
    [5, 3, 2]
    >>> [part.tolist() for part in split_indices(4, 0.5, time=[2024, 2021, 2023, 2022])]
    [[1, 3], [0, 2]]
    """
    if isinstance(fractions, Fold):
        by = {"stratify": stratify, "group": group, "dedupe": dedupe, "time": time}
        return _of_fold(
            n, fractions, {name: values for name, values in by.items() if values is not None}, seed, class_names
        )
    shares = shares_of(fractions)
    if n < len(shares):
        raise ArgumentError(f"{n} samples cannot be cut into {len(shares)} parts")
    if time is not None:
        parts = _by_time(_moments(time, n), _bound_together(n, group, dedupe), shares)
        return tuple(np.flatnonzero(parts == part) for part in range(len(shares)))
    classes = np.zeros(n, np.int64) if stratify is None else _codes(stratify, n, "stratify")
    sizes = np.bincount(classes)
    rare = np.zeros(len(sizes), dtype=bool) if stratify is None else sizes < len(shares)
    if rare.any():
        warnings.warn(_rare(stratify, classes, sizes, rare, class_names), UserWarning, stacklevel=2)
    order = _order(n, seed)
    counts = _counts(np.where(rare, 0, sizes), shares, _order(len(sizes), seed, salt=1))
    counts[rare, 0] = sizes[rare]
    if (empty := np.flatnonzero(counts.sum(0) == 0)).size:
        raise ArgumentError(f"part {empty[0]} (share {shares[empty[0]]:g}) of {n} samples would be empty")
    bound = _bound_together(n, group, dedupe)
    if bound is None:
        parts = np.empty(n, np.int64)
        _deal(parts, order, classes, counts)
    else:
        parts = _place_groups(order, classes, bound, counts)
    return tuple(np.flatnonzero(parts == part) for part in range(len(shares)))


def _of_fold(
    n: int, fold: Fold, by: Mapping[str, Values], seed: int, class_names: Sequence[str] | None
) -> tuple[Ints, ...]:
    """The samples cut into equal blocks, of which one tests; in time those before it train, else all others."""
    in_time = "time" in by
    blocks = fold.of + in_time
    _check_folds(n, fold.of, blocks, by, class_names)
    cut = split_indices(n, [1 / blocks] * blocks, seed=seed, class_names=class_names, **by)
    place = fold.number - 1 + in_time
    rest = np.sort(np.concatenate([*cut[:place], *(() if in_time else cut[place + 1 :])]))
    if not fold.val:
        return rest, cut[place]
    inner = {name: as_array(values)[rest] for name, values in by.items()}
    train, val = split_indices(len(rest), 1 - fold.val, seed=seed, class_names=class_names, **inner)
    return rest[train], rest[val], cut[place]


def _check_folds(n: int, folds: int, blocks: int, by: Mapping[str, Values], class_names: Sequence[str] | None) -> None:
    """A class or a group that is not in every fold's reach says so by its name."""
    if n < blocks:
        raise ArgumentError(f"{n} samples are too few for {folds} folds, which need {blocks}; take fewer")
    if "stratify" in by and "time" not in by:
        labels, classes = as_array(by["stratify"]), _codes(by["stratify"], n, "stratify")
        sizes = np.bincount(classes)
        if (least := int(sizes.min())) < folds:
            label = labels[int(np.argmax(classes == sizes.argmin()))]
            name = label if class_names is None else class_names[int(label)]
            most = f"at most {least} folds" if least > 1 else "no folds"
            raise ArgumentError(
                f"class {str(name)!r} has {least} samples, which cannot lie in each of {folds} folds: they allow "
                f"{most}; take fewer folds, or join or leave out that class"
            )
    bound = _bound_together(n, by.get("group"), by.get("dedupe"))
    if bound is not None and (groups := int(bound.max()) + 1) < blocks:
        raise ArgumentError(
            f"{groups} groups are too few for {folds} folds, which need {blocks} (samples that share a key are one "
            "group); take fewer folds"
        )


def num_parts(fractions: Fractions = None) -> int:
    """How many parts a split has.

    Args:
        fractions: See `split_indices`.

    >>> num_parts(0.75), num_parts(), num_parts(Fold(1, of=5, val=0.1))
    (2, 3, 3)
    """
    return fractions.num_parts if isinstance(fractions, Fold) else len(shares_of(fractions))


def part_of_keys(keys: Keys, fractions: Fractions = None, *, seed: int = 0) -> Ints:
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
    places = mixed((keys + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) ^ start) / 2.0**64
    return np.searchsorted(np.cumsum(shares_of(fractions))[:-1], places, side="right").astype(np.int64)


def shares_of(fractions: Fractions = None) -> tuple[float, ...]:
    """The shares of all parts.

    Args:
        fractions: See `split_indices`.

    Raises:
        ArgumentError: shares that do not sum to 1; or a fold, which takes all samples to be known.

    >>> shares_of(0.75), shares_of()
    ((0.75, 0.25), (0.8, 0.1, 0.1))
    """
    if isinstance(fractions, Fold):
        raise ArgumentError(
            "this data is dealt row by row, or in windows of one series, and folds need all samples at once: leave out "
            "streaming=, or write the parts of each fold to files of their own"
        )
    given = _USUAL if fractions is None else fractions
    try:
        shares = [float(share) for share in (given if isinstance(given, Iterable) else (given, 1 - given))]
    except (TypeError, ValueError):
        shares = []
    if not shares or not all(0 < share <= 1 for share in shares) or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise ArgumentError(
            f"fractions must be one number between 0 and 1 or shares above 0 that sum to 1, not {fractions!r}"
        )
    return tuple(share / sum(shares) for share in shares)


def _moments(time: Values, n: int) -> Ints:
    """The rank of each moment, equal ones with the same."""
    array = as_array(time)
    if array.ndim != 1 or len(array) != n:
        raise ArgumentError(f"time must have one value for each of the {n} samples, not shape {list(array.shape)}")
    if array.dtype.kind in "OUS":
        numbers = all(isinstance(value, int | float) for value in array.tolist())
        try:
            array = array.astype(np.float64 if numbers else "datetime64[us]")
        except (ValueError, TypeError) as error:
            raise ArgumentError(f"time must hold dates or numbers: {error}") from error
    if (missing := array != array).any():
        raise ArgumentError(f"time has no value for sample {int(np.argmax(missing))}")
    return np.unique(array, return_inverse=True)[1].astype(np.int64)


def _by_time(ranks: Ints, bound: Ints | None, shares: Sequence[float]) -> Ints:
    """The part of each sample, cut between the moments at which the sizes come nearest to the shares."""
    if bound is not None:
        last = np.zeros(int(bound.max()) + 1, np.int64)
        np.maximum.at(last, bound, ranks)
        ranks = last[bound]
    upto = np.cumsum(np.bincount(ranks))
    wanted = np.cumsum(_apportion(len(ranks), shares))[:-1]
    cuts = np.abs(upto - wanted[:, None]).argmin(1)
    parts = np.searchsorted(np.sort(cuts), ranks, side="left").astype(np.int64)
    if (empty := np.flatnonzero(np.bincount(parts, minlength=len(shares)) == 0)).size:
        raise ArgumentError(
            f"part {empty[0]} (share {shares[empty[0]]:g}) would be empty: the samples have only "
            f"{len(np.unique(ranks))} times at which they can be split, or one of them has too many"
        )
    return parts


def _rare(stratify: Any, classes: Ints, sizes: Ints, rare: Any, names: Sequence[str] | None) -> str:
    labels = [as_array(stratify)[int(np.argmax(classes == code))] for code in np.flatnonzero(rare)[:5]]
    told = [str(label) if names is None else names[int(label)] for label in labels]
    few = ", ".join(f"{name!r} ({size})" for name, size in zip(told, sizes[rare].tolist(), strict=False))
    return Message(
        "stratify: {rare} of {count} classes have fewer samples than there are parts, and go to the first part as a "
        "whole: {names}; the other parts cannot evaluate them",
        rare=int(rare.sum()),
        count=len(sizes),
        names=few + (", ..." if rare.sum() > 5 else ""),
    )


def _order(n: int, seed: int, salt: int = 0) -> Ints:
    """A permutation of `n`: the indices sorted by the numbers of the SplitMix64 stream that starts at the seed."""
    start = np.uint64(rng.derive(seed, rng.SPLIT, salt))
    return np.argsort(
        mixed(start + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)), kind="stable"
    )


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


def _bound_together(n: int, group: Values | None, dedupe: Values | None) -> Ints | None:
    given = {"group": group, "dedupe": dedupe}
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
    array = as_array(values)
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
