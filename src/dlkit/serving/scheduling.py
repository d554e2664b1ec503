"""One queue for all models, counted in inputs, and the threads that take from it whatever waits, without a timer.

A request of several inputs is computed as `Predictor.predict_each` computes them. Requests of one input that wait for
the same model at the same moment are computed together, up to `batch` of them; with `batch=1` an answer never depends
on what else is asked, to the last bit.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlkit.artifact.inputs import Meaning
from dlkit.errors import DlkitError
from dlkit.serving.bodies import Asked, Part
from dlkit.serving.kinds import TAKES
from dlkit.serving.logs import event, place_of
from dlkit.serving.refusals import RefusedError, sentence_of
from dlkit.serving.served import Loaded

__all__ = ["Answer", "Deadline", "Job", "Scheduler", "Write"]

#: Makes rows of an answer from a model's probabilities, given how many classes to list.
Write = Callable[[Meaning, Tensor, int], list[Any]]

_BATCH = 64
_MEMORY = 0.9  # of the average time that an input takes
_QUICK = 0.003  # seconds of the processor for a batch of single inputs, up to which no other thread is asked
_SAMPLE = 16  # of so many batches one is timed: asking for the processor's time takes longer than a row
_SHARE = 1 / 16  # of the queue, the most that one request counts for: a table of many rows keeps nobody out


class Answer:
    """What a request gets.

    Attributes:
        rows: One for each input, in its place, as the request's `write` makes them; None where there is an error.
        errors: Why there is none, by place.
        together: How many inputs the largest batch had that any of them was computed in.
    """

    __slots__ = ("errors", "rows", "together")

    def __init__(self, rows: list[Any], errors: dict[int, str], together: int) -> None:
        self.rows, self.errors, self.together = rows, errors, together


class Deadline(NamedTuple):
    """When the time of a request is over.

    Attributes:
        at: As `time.monotonic` counts.
        asked: Whether the client itself said so.
    """

    at: float
    asked: bool = False


class Job:
    """A request in the queue.

    Args:
        loaded: The version of the model that answers it.
        asked: The inputs.
        write: Makes the rows of its answer, by the thread that computes.
        top_k: How many classes it wants.
        deadline: When its time is over.
        future: Gets an `Answer`, or a `RefusedError`.
    """

    __slots__ = ("asked", "deadline", "future", "loaded", "top_k", "write")

    def __init__(
        self,
        loaded: Loaded,
        asked: Asked,
        write: Write,
        top_k: int,
        deadline: Deadline,
        future: asyncio.Future[Answer],
    ) -> None:
        self.loaded, self.asked, self.write, self.top_k = loaded, asked, write, top_k
        self.deadline, self.future = deadline, future

    @property
    def size(self) -> int:
        """How many inputs it has."""
        return self.asked.size

    @property
    def small(self) -> bool:
        """Whether it is one input, whose bytes say how much work it is."""
        return self.asked.small

    def dropped(self) -> RefusedError | None:
        """Why it need not be computed any more, if so."""
        if self.future.cancelled():
            return RefusedError(499, "the client disconnected")
        if time.monotonic() > self.deadline.at:
            return RefusedError(
                408 if self.deadline.asked else 503,
                "the time of this request was over before it was computed; try again later",
                {"retry-after": "1"},
            )
        return None


class Scheduler:
    """Threads that compute, and the queue before them.

    Args:
        queue: Inputs that may wait.
        workers: Threads that compute.
        threads: Of torch, for each of these.
        batch: Requests of one input that are computed together; None for 1 where images are computed on the CPU, and
            64 elsewhere.

    Attributes:
        waiting: Inputs in the queue.
        computing: Inputs that are being computed.
    """

    def __init__(self, *, queue: int, workers: int, threads: int, batch: int | None = None) -> None:
        self.queue, self.workers, self.threads, self._batch = queue, workers, threads, batch
        self.waiting = self.computing = self._taken = self._batches = 0
        self._most = math.ceil(queue * _SHARE)  # places in the queue that one request takes
        self._jobs, self._ready, self._stopping = deque[Job](), threading.Condition(), False
        self._quick = dict[asyncio.AbstractEventLoop, deque[Job]]()
        self._behind = dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]]()
        self._pace = weakref.WeakKeyDictionary[Loaded, float]()  # seconds of the processor for a batch of single inputs
        self._seconds = 0.01  # that an input takes, on average over the last ones
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads."""
        self._stopping = False
        names = [f"dlkit-serving-{number}" for number in range(self.workers)]
        self._threads = [threading.Thread(target=self._work, name=name, daemon=True) for name in names]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Answer what waits, and end the threads."""
        with self._ready:
            self._stopping = True
            self._ready.notify_all()
        for thread in self._threads:
            thread.join()

    def submit(self, job: Job) -> bool:
        """Put a request into the queue. To be called by the event loop of its future.

        Args:
            job: The request.

        Returns:
            Whether this thread itself computes it, in the event loop's next step.

        Raises:
            RefusedError: the queue is full; it says when to try again.
        """
        with self._ready:
            if self._taken and self._taken + self._places(job) > self.queue:
                raise self.refusal()
            self.waiting += job.size
            self._taken += self._places(job)
            if quick := job.small and self._pace.get(job.loaded, math.inf) < _QUICK:
                loop = job.future.get_loop()
                if loop not in self._quick:
                    self._quick[loop] = deque()
                    loop.call_soon(self._work_here, loop)
                self._quick[loop].append(job)
            else:
                self._jobs.append(job)
                self._ready.notify()
        return quick

    @property
    def full(self) -> bool:
        """Whether not even one input has room."""
        return self._taken >= self.queue

    def _places(self, job: Job) -> int:
        """How much of the queue a request takes while it waits: its inputs, and no more than its share."""
        return min(job.size, self._most)

    def refusal(self) -> RefusedError:
        """What is said when the queue is full."""
        seconds = max(1, math.ceil(self.waiting * self._seconds / self.workers))
        return RefusedError(
            503,
            f"the queue is full: {self.waiting} inputs wait; try again after {seconds} s",
            {"retry-after": str(seconds)},
        )

    def _work(self) -> None:
        torch.set_num_threads(self.threads)
        while jobs := self._awaited():
            _deliver(self._computed(jobs))

    def _work_here(self, loop: asyncio.AbstractEventLoop, seen: int = 0) -> None:
        """Compute what is quick in the event loop's own thread, when a step of the loop has brought nothing more.

        Another thread would take the interpreter from this one and wait for it again at each of a model's layers, which
        takes longer than a small model itself.
        """
        if seen < (count := len(self._quick[loop])) < _BATCH:
            loop.call_soon(self._work_here, loop, count)
            return
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        with self._ready:
            jobs = self._quick.pop(loop)
        while jobs:
            with self._ready:
                batch = self._next(jobs)
            _settle(self._computed(batch))
        for future in self._behind.pop(loop, ()):
            if not future.done():
                future.set_result(None)

    async def answered(self) -> None:
        """Wait until this event loop has answered what it is about to compute: a refusal goes out behind the answers.

        Whoever is refused and comes again at once would else do so while the loop computes, and wait for that and for
        the next batch.
        """
        loop = asyncio.get_running_loop()
        if loop in self._quick:
            future = loop.create_future()
            self._behind.setdefault(loop, []).append(future)
            await future

    def _computed(self, jobs: list[Job]) -> list[tuple[Job, Answer | RefusedError]]:
        """What each request gets, and how long that took."""
        begun, size, first = time.monotonic(), sum(job.size for job in jobs), jobs[0]
        self._batches += 1
        timed = first.small and (first.loaded not in self._pace or not self._batches % _SAMPLE)
        used = time.thread_time() if timed else 0.0
        outcomes = self._answers(jobs)
        if timed:
            used = time.thread_time() - used
            self._pace[first.loaded] = (self._pace.get(first.loaded, used) + used) / 2
        with self._ready:
            self.computing -= size
            each = (time.monotonic() - begun) / max(1, size)
            self._seconds = _MEMORY * self._seconds + (1 - _MEMORY) * each
        return list(zip(jobs, outcomes, strict=True))

    def _awaited(self) -> list[Job]:
        """The next requests to compute; none when the server stops and nothing waits."""
        with self._ready:
            while not self._jobs:
                if self._stopping:
                    return []
                self._ready.wait()
            return self._next(self._jobs)

    def _next(self, waiting: deque[Job]) -> list[Job]:
        """Take the first request, and those that are computed together with it."""
        first = waiting.popleft()
        jobs = [first]
        if waiting and first.size == 1 and first.asked.file is None and (room := self.batch(first.loaded) - 1):
            jobs += [job for job in waiting if _together(job, first)][:room]
            taken = set(map(id, jobs))
            left = [job for job in waiting if id(job) not in taken]
            waiting.clear()
            waiting.extend(left)
        size = sum(job.size for job in jobs)
        self.waiting -= size
        self._taken -= sum(map(self._places, jobs))
        self.computing += size
        return jobs

    def batch(self, loaded: Loaded) -> int:
        """How many requests of one input are computed together.

        Args:
            loaded: The model.
        """
        if self._batch is not None:
            return self._batch
        predictor = loaded.predictor
        return 1 if TAKES[predictor.kind].alone and predictor.device.type == "cpu" else _BATCH

    def _answers(self, jobs: Sequence[Job]) -> list[Answer | RefusedError]:
        """What each request gets; what nobody waits for any more is not computed."""
        dropped = [job.dropped() for job in jobs]
        left = [job for job, fault in zip(jobs, dropped, strict=True) if fault is None]
        answers = iter((_singles(left) if len(left) > 1 else None) or [self._several(job) for job in left])
        return [next(answers) if fault is None else fault for fault in dropped]

    def _several(self, job: Job) -> Answer | RefusedError:
        """All inputs of one request; between two batches it is dropped if its time is over."""
        parts, batch = list[Part](), 1 if self.batch(job.loaded) == 1 else self._batch
        try:
            for part in job.asked.answered(job.loaded.predictor, batch):
                if fault := job.dropped():
                    return fault
                parts.append(part)
            return _answer(job, parts)
        except Exception as error:  # noqa: BLE001  (a thread that ends would leave every request unanswered)
            return _failure(error)


def _together(job: Job, first: Job) -> bool:
    same = job.loaded is first.loaded and job.top_k == first.top_k and job.write == first.write
    return same and job.size == 1 and job.asked.file is None


def _answer(job: Job, parts: Sequence[Part]) -> Answer:
    """All that was computed, written as a request wants it."""
    size, errors = sum(part.size for part in parts), {p: why for part in parts for p, why in part.errors.items()}
    found = [part.probabilities for part in parts if part.probabilities is not None]
    rows = job.write(job.loaded.predictor.meaning, torch.cat(found), job.top_k) if found else []
    if errors:
        good = iter(rows)
        rows = [None if place in errors else next(good) for place in range(size)]
    return Answer(rows, errors, max((part.size for part in parts), default=1))


def _singles(jobs: Sequence[Job]) -> list[Answer | RefusedError] | None:
    """Requests of one input each, computed in one batch; None if that fails, as nobody shall fail for another."""
    asked, size = Asked.joined([job.asked for job in jobs]), len(jobs)
    try:
        found = _answer(jobs[0], list(asked.answered(jobs[0].loaded.predictor, size)))
    except Exception:  # noqa: BLE001  (each is computed alone, which says what is wrong with which)
        return None
    why = found.errors
    return [Answer([row], {0: why[place]} if place in why else {}, size) for place, row in enumerate(found.rows)]


def _failure(error: Exception) -> RefusedError:
    """An error of the library is the request's fault; any other one is ours, and its text stays here."""
    if isinstance(error, DlkitError):
        return RefusedError(422, sentence_of(error))
    event("failed", level=logging.ERROR, error=type(error).__name__, at=place_of(error))
    return RefusedError(500, "the model failed on this input; the server's log says where")


def _deliver(outcomes: Sequence[tuple[Job, Answer | RefusedError]]) -> None:
    """Give outcomes to those who wait for them, in their event loops."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[Job, Answer | RefusedError]]] = {}
    for job, outcome in outcomes:
        loops.setdefault(job.future.get_loop(), []).append((job, outcome))
    for loop, some in loops.items():
        try:
            loop.call_soon_threadsafe(_settle, some)
        except RuntimeError:  # the loop is closed: nobody waits
            continue


def _settle(outcomes: Sequence[tuple[Job, Answer | RefusedError]]) -> None:
    for job, outcome in outcomes:
        if job.future.done():
            continue
        if isinstance(outcome, RefusedError):
            job.future.set_exception(outcome)
        else:
            job.future.set_result(outcome)
