"""What `/metrics` shows, in the format of Prometheus."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from dlkit.serving.scheduling import Scheduler
from dlkit.serving.served import Loaded

__all__ = ["Meters"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class _Spread:
    """How many values are below each of some bounds."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds, self._counts, self._sum = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        self._counts[bisect.bisect_left(self._bounds, value)] += 1
        self._sum += value

    def shown(self) -> dict[str, Any]:
        """As Prometheus counts: each bound with all below it."""
        bounds = [*(repr(float(bound)) for bound in self._bounds), "+Inf"]
        below = [sum(self._counts[: place + 1]) for place in range(len(bounds))]
        return {"buckets": list(zip(bounds, below, strict=True)), "sum_value": self._sum}


class Meters:
    """What one server has counted. To be called by its event loop, which needs no locks.

    Plain numbers, which are put into the form of Prometheus on request: its own counters and
    histograms take a tenth of the time of a small request.

    Args:
        scheduler: Whose queue is shown.

    Attributes:
        media_type: Of what `text` gives.
    """

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler, self._loaded = scheduler, list[Loaded]()
        self._requests, self._inputs, self._reloads = Counter[tuple[str, int]](), Counter[str](), Counter[Any]()
        self._seconds, self._batches = dict[str, _Spread](), dict[str, _Spread]()
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            route: The name of what answered it.
            status: Of the answer.
            seconds: That it took.
        """
        self._requests[route, status] += 1
        if route not in self._seconds:
            self._seconds[route] = _Spread(_SECONDS)
        self._seconds[route].add(seconds)

    def answered(self, loaded: Loaded, inputs: int, together: int) -> None:
        """Count inputs.

        Args:
            loaded: The model that answered.
            inputs: How many.
            together: How many were computed together.
        """
        self._inputs[loaded.name] += inputs
        if loaded.name not in self._batches:
            self._batches[loaded.name] = _Spread(_SIZES)
        self._batches[loaded.name].add(together)

    def reloaded(self, name: str, *, good: bool) -> None:
        """Count a changed file.

        Args:
            name: Of the model.
            good: Whether it is in use now.
        """
        self._reloads[name, "good" if good else "failed"] += 1

    def text(self, loaded: Iterable[Loaded]) -> bytes:
        """Everything counted so far.

        Args:
            loaded: The versions in use.
        """
        self._loaded = list(loaded)
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Any]:
        """What was counted, as the registry asks for it."""
        refused = Counter[int]()
        for (_, status), count in self._requests.items():
            refused[status] += count * (status >= 400)
        yield _counted("dlkit_requests", "Requests answered.", ("route", "status"), self._requests)
        yield _counted("dlkit_refused", "Requests refused, by status; 503 is a full queue.", ("status",), +refused)
        yield _spread("dlkit_request_seconds", "Time to the answer.", "route", self._seconds)
        yield _counted("dlkit_inputs", "Inputs answered.", ("model",), self._inputs)
        yield _spread("dlkit_batch_size", "Inputs computed together.", "model", self._batches)
        yield GaugeMetricFamily("dlkit_queue_inputs", "Inputs that wait.", self._scheduler.waiting)
        yield GaugeMetricFamily("dlkit_computing_inputs", "Inputs that are being computed.", self._scheduler.computing)
        yield _counted("dlkit_reloads", "Changed files.", ("model", "result"), self._reloads)
        versions = GaugeMetricFamily("dlkit_model", "The versions in use.", labels=("model", "version"))
        for each in self._loaded:
            versions.add_metric((each.name, each.version), 1)
        yield versions


def _counted(name: str, text: str, labels: Sequence[str], counts: Counter[Any]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, count in counts.items():
        family.add_metric([*map(str, key)] if isinstance(key, tuple) else [str(key)], count)
    return family


def _spread(name: str, text: str, label: str, spreads: dict[str, _Spread]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=(label,))
    for key, spread in spreads.items():
        family.add_metric((key,), **spread.shown())
    return family
