"""This process's random streams, lent to the fetch of a batch and taken back as they were.

Saving and restoring all of them would cost some 60 µs a batch, so each is lent in its own way. torch's state is a
cheap copy. numpy's generator is replaced by another one meanwhile. `random` offers neither, and starting it from a
seed takes as long as everything else together, so it is only lent to datasets that draw from it. A second stream shows
who does: it draws the same numbers beside `random`, before and after each fetch, and once they differ, somebody else
has drawn. A fetch that did is repeated from its own seed, and all later ones of its loader start from theirs at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.random import mtrand

from dlkit import rng

__all__ = ["Lender", "pass_by", "start"]

_CPU = torch.default_generator
_T = TypeVar("_T")
_lent = False  # while a fetch has the streams, a loader that it reads from in turn takes them from it


class Lender:
    """Lends the streams to the fetches of one loader.

    Args:
        draws: Whether fetches draw from `random`; None finds out, at the price of one fetch that is repeated.

    >>> lender, before = Lender(), random.getstate()
    >>> lender.lend(7, random.random) == lender.lend(7, random.random) != lender.lend(8, random.random)
    True
    >>> lender.draws
    True
    """

    def __init__(self, draws: bool | None = None) -> None:
        self.draws = draws
        self._numpy = np.random.MT19937(0)

    def lend(self, seed: int, fetch: Callable[..., _T], *args: Any) -> _T:
        """What `fetch(*args)` returns when all streams start from `seed`.

        Args:
            seed: 64 bits, usually from `rng.derive`.
            fetch: Called once; twice when it is the first one that is seen to draw from `random`.
            *args: What it is called with.
        """
        global _lent
        if _lent:
            return _within(seed, fetch, *args)
        own, cpu = mtrand.get_bit_generator(), _CPU.get_state()
        _lent = True
        mtrand.set_bit_generator(self._numpy)
        try:
            rng.twin.catch_up()
            return self._seeded(seed, fetch, *args) if self.draws else self._watched(seed, fetch, *args)
        finally:
            mtrand.set_bit_generator(own)
            _CPU.set_state(cpu)
            _lent = False

    def _watched(self, seed: int, fetch: Callable[..., _T], *args: Any) -> _T:
        rng.set_streams(seed, python=False)
        try:
            batch = fetch(*args)
        except BaseException as error:
            # What failed may have failed for what it drew, and is then called again.
            if not rng.twin.put_back() or not isinstance(error, Exception):
                raise
        else:
            if not rng.twin.put_back():
                return batch
        self.draws = True
        return _from(seed, fetch, *args)

    @staticmethod
    def _seeded(seed: int, fetch: Callable[..., _T], *args: Any) -> _T:
        rng.twin.step()
        return _from(seed, fetch, *args)


def _from(seed: int, fetch: Callable[..., _T], *args: Any) -> _T:
    state = random.getstate()
    rng.set_streams(seed)
    try:
        return fetch(*args)
    finally:
        random.setstate(state)


def _within(seed: int, fetch: Callable[..., _T], *args: Any) -> _T:
    rng.set_streams(seed)
    try:
        return fetch(*args)
    finally:
        pass_by(seed)


def start(seed: int) -> None:
    """In a worker process, which has its own streams: let the fetch draw from `seed` on.

    Args:
        seed: 64 bits, usually from `rng.derive`.
    """
    global _lent
    _lent = True
    rng.set_streams(seed)


def pass_by(seed: int) -> None:
    """What a loan leaves behind in this process, for a batch that was fetched in another one.

    Args:
        seed: What the fetch started from.
    """
    if _lent:
        rng.set_streams(rng.derive(seed, 0))
    else:
        rng.twin.catch_up()
        rng.twin.step()
        mtrand.set_bit_generator(mtrand.get_bit_generator())  # forgets the second half of a pair of normals
