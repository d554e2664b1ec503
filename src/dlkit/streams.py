"""Batches from anything that can be iterated: from the start, or from the middle after a restart.

A stream continues from its own saved state where that state is exact, and is fast-forwarded otherwise: what comes
before the position is fetched again and discarded. `Stream.how` says which.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import random
import warnings
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import IterableDataset
from torch.utils.data.dataloader import _BaseDataLoaderIter

from dlkit import rng
from dlkit._fetching import LEFT_OUT, Mine, dealt, end_workers
from dlkit._nested import same, tensors_in
from dlkit.errors import ArgumentError, EmptyBatchError
from dlkit.lending import Lender

__all__ = ["Stream"]

_END = object()
_FACTORS = np.random.default_rng(0).integers(1, 1 << 63, 1024, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_FROM_ITS_STATE = "restored from its own state"
#: Where iterators stand that are their own iterable (`iter(x) is x`): batches given since their start, 0 at an end.
_stands: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


class Stream:
    """Any iterable of batches. Each is drawn with the global streams started from (seed, epoch, batch).

    Args:
        iterable: What gives the batches.
        seed: What the random streams are derived from; a resumed run puts the saved seed here.
    """

    def __init__(self, iterable: Iterable[Any], seed: int) -> None:
        self.iterable, self.seed = iterable, seed
        self._stateful = _stateful_part(iterable)
        self._inexact = "" if self._stateful is None else _loses(self._stateful)
        self._given, self._repeats = 0, _repeats_of(iterable)
        #: The first batch, for who compares it with that of other processes, and then lets it go.
        self.begins: Any = None
        self._saved: dict[str, Any] = {}
        self._lender = Lender(draws=True)  # an iterator cannot be asked for a batch twice
        self.how = "fast-forwarded"

    @property
    def num_batches(self) -> int | None:
        """Batches per epoch, None where it is not known."""
        try:
            return len(self.iterable)  # type: ignore[arg-type]
        except TypeError:
            return None

    def batches(self, epoch: int, start: int = 0, mine: Mine = None) -> Iterator[Any]:
        """The batches of an epoch.

        Args:
            epoch: 0 for the first one.
            start: The number of the first batch to give.
            mine: Which numbers this process works on; each process draws all of a stream, and skips the others.
        """
        return dealt(self._batches(epoch, start), start, mine)

    def _batches(self, epoch: int, start: int) -> Iterator[Any]:
        stream = rng.derive(self.seed, rng.FETCH, epoch)
        for part in (self.iterable, getattr(self.iterable, "dataset", None), getattr(self.iterable, "sampler", None)):
            if callable(set_epoch := getattr(part, "set_epoch", None)):
                set_epoch(epoch)
        first = self._restored(start)
        with rng.isolated(stream):
            iterator = iter(self.iterable)
        if iterator is self.iterable:
            first = first or _place_of(iterator, start)
        try:
            yield from self._numbered(iterator, epoch, first, start)
        finally:
            if iterator is not self.iterable:
                end_workers(iterator)

    def _numbered(self, iterator: Iterator[Any], epoch: int, first: int, start: int) -> Iterator[Any]:
        stream = rng.derive(self.seed, rng.FETCH, epoch)
        for number in itertools.count(first):
            batch = self._next(iterator, rng.derive(stream, number), first=number == first)
            if batch is _END:
                if iterator is self.iterable and number == 0 and (epoch > 0 or self._given):
                    raise _used_up(self.iterable, epoch)
                if first == 0:
                    self._look_for_repeats(_END)
                return
            self._given = number + 1
            if number == 0:
                self.begins = batch
            if first == 0:
                self._look_for_repeats(batch)
            if number >= start:
                yield batch

    def _next(self, iterator: Iterator[Any], seed: int, *, first: bool) -> Any:
        fetch = functools.partial(_next, iterator)
        if first and self._stateful is not None and not self._inexact:
            fetch = functools.partial(self._watched, fetch)
        batch = self._lender.lend(seed, fetch)
        if iterator is self.iterable:
            if first and batch is _END and callable(reset := getattr(iterator, "reset", None)):
                reset()  # as DALI's iterators have it, where they do not do it themselves at the end of an epoch
                batch = self._lender.lend(seed, fetch)
            _note(iterator, 0 if batch is _END else 1)
        return batch

    def _look_for_repeats(self, batch: Any) -> None:
        """In the first epoch that is iterated over whole: an `IterableDataset` may give each worker everything."""
        if self._repeats is None:
            return
        found = self._repeats.found() if batch is _END else self._repeats.see(batch)
        if found:
            name, workers = type(self.iterable.dataset).__name__, self._repeats.workers  # type: ignore[attr-defined]
            warnings.warn(
                f"{found}: {name} seems to give all its samples to every worker, so each would count {workers} times. "
                "Let its __iter__ take every n-th, itertools.islice(samples, info.id, None, info.num_workers) with "
                "torch.utils.data.get_worker_info(), or use one worker",
                stacklevel=2,
            )
        if found or batch is _END:
            self._repeats = None

    def _watched(self, fetch: Any) -> Any:
        before = _positions()
        batch = fetch()
        if before != _positions():
            self._inexact = "its own state does not hold the random numbers that it draws"
        return batch

    def indices(self, epoch: int, number: int) -> None:
        """Not known.

        Args:
            epoch: Any.
            number: Any.
        """
        del epoch, number

    def describe(self) -> dict[str, Any]:
        """What must be the same when a run is resumed."""
        known = {"batches": self.num_batches, "batch size": getattr(self.iterable, "batch_size", None)}
        return {name: value for name, value in known.items() if isinstance(value, int)}

    def state_dict(self) -> dict[str, Any]:
        """The iterable's own state, where it has one that is exact, and how many batches it had given."""
        if self._stateful is None or self._inexact:
            return {"inexact": self._inexact}
        return {"state": copy.deepcopy(self._stateful.state_dict()), "given": self._given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back the state before `batches` is called for that position.

        Args:
            state: What `state_dict` gave.
        """
        self._saved, reason = dict(state), self._inexact or state.get("inexact", "")
        usable = self._stateful is not None and "state" in state and not reason
        self.how = _FROM_ITS_STATE if usable else f"fast-forwarded ({reason})" if reason else "fast-forwarded"

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """A block after which an iterable with its own state stands where it stood before."""
        before = None if self._stateful is None else copy.deepcopy(self._stateful.state_dict())
        try:
            yield
        finally:
            if self._stateful is not None and not same(self._stateful.state_dict(), before):
                self._stateful.load_state_dict(before)

    def _restored(self, start: int) -> int:
        """Restore the iterable's own state, if it is that of the position; returns the number of its next batch."""
        saved, self._saved = self._saved, {}
        # A batch that was fetched ahead of its use is in the state already, and would be lost.
        if self._stateful is None or self._inexact or "state" not in saved or not start == saved.get("given", 0) > 0:
            return 0
        self._stateful.load_state_dict(saved["state"])
        return start


def _stateful_part(iterable: Any) -> Any:
    """The loader, or its dataset, if it can save its position; a dataset in worker processes cannot tell it to us."""
    candidates = [iterable]
    if getattr(iterable, "num_workers", 0) == 0:
        candidates.append(getattr(iterable, "dataset", None))
    for part in candidates:
        if callable(getattr(part, "state_dict", None)) and callable(getattr(part, "load_state_dict", None)):
            return part
    return None


def _loses(part: Any) -> str:
    """Why the state of a streamed Hugging Face dataset, or of a loader over one, is not exact; "" where it is.

    Its documentation names both cases ("Stream", "Save a dataset checkpoint and resume iteration").
    """
    waiting = [getattr(each, "_ex_iterable", None) for each in (part, getattr(part, "dataset", None))]
    while waiting:
        step = waiting.pop()
        if "Shuffled" in type(step).__name__ and hasattr(step, "buffer_size"):
            return "its own state loses what its shuffle buffer holds"
        if getattr(step, "batched", False) and getattr(step, "formatting", None) is not None:
            return "its own state may lose a batch of a batched map"
        inner = getattr(step, "ex_iterable", None)
        waiting += [*([] if inner is None else [inner]), *getattr(step, "ex_iterables", ())]
    return ""


def _positions() -> tuple[Any, ...]:
    state: Any = np.random.get_state(legacy=False)
    torchs = torch.default_generator.get_state().numpy().tobytes()
    return random.getstate(), state["state"]["pos"], state["state"]["key"].tobytes(), torchs


def _note(iterator: Any, given: int) -> None:
    try:
        _stands[iterator] = given and _stands.get(iterator, 0) + given
    except TypeError:  # it cannot be looked up, so it is believed to stand where it is asked to start
        return


def _place_of(iterator: Any, start: int) -> int:
    """The number of the next batch of an iterator that dlkit may have used before."""
    try:
        given = _stands.get(iterator, 0)
    except TypeError:
        return 0
    if given not in (0, start):
        raise ArgumentError(
            f"{type(iterator).__name__} was left after {given} batches, and is to start at number {start}, which an "
            "iterator cannot do; pass an object whose __iter__ starts again (a DataLoader, a list, a class)"
        )
    return given


def _used_up(iterable: Any, epoch: int) -> ArgumentError:
    which = f"epoch {epoch + 1}" if epoch > 0 else "the second time"
    return ArgumentError(
        f"{type(iterable).__name__} can be iterated only once, and this is {which}; "
        "pass an object whose __iter__ starts again (a DataLoader, a list, a class), not an iterator"
    )


def _next(iterator: Iterator[Any]) -> Any:
    """The next batch, `_END` after the last. A loader of torch continues after a batch that nothing is left of."""
    try:
        return next(iterator, _END)
    except EmptyBatchError:
        if isinstance(iterator, _BaseDataLoaderIter):
            return LEFT_OUT
        raise


class _Repeats:
    """Compares what each worker gives: its first batch, and all its samples, in whatever order each shuffles them.

    A loader takes a batch of each worker in turn, and workers that give the same samples come to an end together. Of
    each sample a number is made of its bytes; a sum of those does not depend on the order. What each worker changes in
    its own way (augmentation, noise) is not found.

    Args:
        workers: More than one.
    """

    def __init__(self, workers: int) -> None:
        self.workers, self._number = workers, 0
        self._sums, self._counts, self._kinds = [0] * workers, [0] * workers, set[int]()
        self._first: Any = None

    def see(self, batch: Any) -> str:
        """Take account of a batch; says what was found by its first two."""
        number, self._number = self._number, self._number + 1
        marks = _marks(batch)
        self._sums[number % self.workers] = (self._sums[number % self.workers] + int(marks.sum())) % (1 << 64)
        self._counts[number % self.workers] += len(marks)
        if len(self._kinds) < 2:
            self._kinds.update(marks[:2].tolist(), marks[-1:].tolist())
        if number > 1:
            return ""
        first, self._first = self._first, batch if number == 0 else None
        alike = number == 1 and len(self._kinds) > 1 and same(first, batch)
        return f"two of the {self.workers} workers gave the same first batch" if alike else ""

    def found(self) -> str:
        """At the end of an epoch: says what was found by all batches."""
        alike = len(set(zip(self._sums, self._counts, strict=True))) == 1 and self._number % self.workers == 0
        if not alike or len(self._kinds) < 2:  # samples that are all the same tell nothing
            return ""
        return f"each of the {self.workers} workers gave the same {self._counts[0]} samples"


def _repeats_of(iterable: Any) -> _Repeats | None:
    workers, dataset = getattr(iterable, "num_workers", 0), getattr(iterable, "dataset", None)
    known = workers > 1 and isinstance(dataset, IterableDataset) and getattr(iterable, "in_order", True)
    return _Repeats(workers) if known else None


def _marks(batch: Any) -> npt.NDArray[np.uint64]:
    """A number for each sample of a batch, of up to 512 of its bytes in each tensor."""
    marks = np.zeros(0, np.uint64)
    for leaf in tensors_in(batch):
        if leaf.dim() and len(leaf) and leaf.layout is torch.strided:
            raw = leaf.detach().cpu().reshape(len(leaf), -1).contiguous().view(torch.uint8).numpy()
            few = raw[:, :: max(1, raw.shape[1] // 512)].astype(np.uint64)
            sums: npt.NDArray[np.uint64] = few @ _FACTORS[: few.shape[1]]
            marks = (sums if len(marks) != len(sums) else marks * np.uint64(31) + sums) * _FACTORS[0]
            marks ^= marks >> np.uint64(29)
    return marks
