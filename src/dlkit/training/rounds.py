"""A step on shares of a model: batches go in rounds, of which each process works on one batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dlkit.runs.state import Run
from dlkit.training.counting import samples_of
from dlkit.training.dealing import borrowed
from dlkit.training.exchanging import Notice
from dlkit.training.forward import Forward
from dlkit.training.sharding import Sharding, unused
from dlkit.training.steps import Done, Group, Hook, StandardStep, start_stream, trained_parameters
from dlkit.training.summing import Sum, times

__all__ = ["ShardedStep"]


class ShardedStep(StandardStep):
    """The standard step on shares: batches go in rounds, and their gradients become a sum of rows.

    Args:
        forward: Model and loss.
        on_gradients: Hooks to call between the backward pass and the optimizer.
        sharding: Whose shares these are.
    """

    def __init__(self, forward: Forward, on_gradients: Sequence[Hook], sharding: Sharding) -> None:
        super().__init__(forward, on_gradients)
        self._sharding = sharding

    def _evaluated(self, run: Run, group: Group) -> Done | None:
        try:
            return self._summed(run, group)
        except torch.OutOfMemoryError as error:
            error.add_note('with parallel="shard" batches are not cut into parts: use more and smaller ones')
            raise

    def _leaves(self, run: Run, group: Group, step: Sum) -> tuple[Notice, float]:
        rounds = self._rounds(run, group)
        self._counted_together.restart()
        counts = {place: self._counted_together(batch) for place, batch in group.items()}
        for number, places in enumerate(rounds):
            own = places[run.world.rank]
            batch = self._company(run, group, places)
            for reduction in self._sharding.reductions:
                reduction.places, reduction.last = places, number == len(rounds) - 1
            place = next(each for each in places if each is not None) if own is None else own
            step.start()
            start_stream(run, place)
            loss, _, _ = self.forward(batch)
            summed = loss if self.counting.sums else times(loss, counts.get(place, 1))
            self._backward(run, summed, batch)
            if own is not None:
                step.take(place, summed, counts[place])
            if number < len(rounds) - 1:
                self._drop(run)
        if any(reduction.waits for reduction in self._sharding.reductions):
            raise unused()
        return Notice(sum(map(samples_of, group.values())), run.asked, self._pieces), 1.0

    def _rounds(self, run: Run, group: Group) -> list[list[int | None]]:
        """For each round the place of each process's batch; None where a process has none, and only keeps company."""
        size = run.world.size
        longest = -(-run.accumulate // size)
        own = [int(number * size + run.world.rank in group) for number in range(longest)]
        there = run.world.numbers(own)
        rounds = [
            [number * size + rank if there[rank][number] else None for rank in range(size)] for number in range(longest)
        ]
        return [places for places in rounds if any(place is not None for place in places)]

    def _company(self, run: Run, group: Group, places: Sequence[int | None]) -> Any:
        """This process's batch of a round; where one has none, the first that there is, whose numbers are dropped."""
        own = places[run.world.rank]
        if None not in places:
            return group[own]  # type: ignore[index]
        first = next(rank for rank, place in enumerate(places) if place is not None)
        return borrowed(run, None if own is None else group[own], first)

    def _drop(self, run: Run) -> None:
        for sharded_parameter, _ in self._sharding.gradients():
            sharded_parameter.grad = None

    def _parameters(self, run: Run) -> list[nn.Parameter]:
        return [each for each in trained_parameters(run) if not self._sharding.holds(each)]

    def _more_gradients(self, run: Run) -> Sequence[Tensor]:
        """Those of the shares, which optimizers get."""
        gradients = list[Tensor]()
        for sharded_parameter, share in self._sharding.gradients():
            share.grad = sharded_parameter.grad.to_local()  # type: ignore[union-attr]
            gradients.append(share.grad)
        return gradients

    def _update(self, run: Run) -> None:
        super()._update(run)
        self._drop(run)
