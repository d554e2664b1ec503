"""What `/metrics` shows, in the format of Prometheus."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from dlkit.serving.scheduling import Scheduler
from dlkit.serving.served import Loaded

__all__ = ["Meters"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Meters:
    """Counters of one server, in a registry of their own.

    Args:
        scheduler: Whose queue is shown.

    Attributes:
        media_type: Of what `text` gives.
    """

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, scheduler: Scheduler) -> None:
        self._registry = registry = CollectorRegistry()
        labels = ("route", "status")
        self._requests = Counter("dlkit_requests", "Requests answered.", labels, registry=registry)
        self._seconds = Histogram(
            "dlkit_request_seconds", "Time to the answer.", ("route",), buckets=_SECONDS, registry=registry
        )
        # Looking labels up takes longer than counting; routes and statuses are few.
        self._of_route, self._of_model = functools.cache(self._labelled), functools.cache(self._named)
        self._inputs = Counter("dlkit_inputs", "Inputs answered.", ("model",), registry=registry)
        self._batches = Histogram(
            "dlkit_batch_size", "Inputs computed together.", ("model",), buckets=_SIZES, registry=registry
        )
        self._refused = Counter(
            "dlkit_refused", "Requests refused, by status; 503 is a full queue.", ("status",), registry=registry
        )
        waiting = Gauge("dlkit_queue_inputs", "Inputs that wait.", registry=registry)
        waiting.set_function(lambda: scheduler.waiting)
        computing = Gauge("dlkit_computing_inputs", "Inputs that are being computed.", registry=registry)
        computing.set_function(lambda: scheduler.computing)
        self._reloads = Counter("dlkit_reloads", "Changed files.", ("model", "result"), registry=registry)
        self._model = Gauge("dlkit_model", "The versions in use.", ("model", "version"), registry=registry)

    def _labelled(self, route: str, status: int) -> tuple[Counter, Histogram]:
        return self._requests.labels(route, status), self._seconds.labels(route)

    def _named(self, model: str) -> tuple[Counter, Histogram]:
        return self._inputs.labels(model), self._batches.labels(model)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            route: The name of what answered it.
            status: Of the answer.
            seconds: That it took.
        """
        counter, histogram = self._of_route(route, status)
        counter.inc()
        histogram.observe(seconds)
        if status >= 400:
            self._refused.labels(status).inc()

    def answered(self, loaded: Loaded, inputs: int, together: int) -> None:
        """Count inputs.

        Args:
            loaded: The model that answered.
            inputs: How many.
            together: How many were computed together.
        """
        counter, histogram = self._of_model(loaded.name)
        counter.inc(inputs)
        histogram.observe(together)

    def reloaded(self, name: str, *, good: bool) -> None:
        """Count a changed file.

        Args:
            name: Of the model.
            good: Whether it is in use now.
        """
        self._reloads.labels(name, "good" if good else "failed").inc()

    def text(self, loaded: Iterable[Loaded]) -> bytes:
        """Everything counted so far.

        Args:
            loaded: The versions in use.
        """
        self._model.clear()
        for each in loaded:
            self._model.labels(each.name, each.version).set(1)
        return generate_latest(self._registry)
