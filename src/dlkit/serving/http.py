"""`app`: the routes of a server, as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Mapping
from typing import Any

from dlkit._arguments import whole_number
from dlkit._cores import default_threads
from dlkit.errors import ArgumentError
from dlkit.inference.outputs import predictions_of
from dlkit.serving import protocol
from dlkit.serving.answers import body_of, rows_in_json
from dlkit.serving.asgi import Receive, Reply, Request, Routes, Scope, Send, json_reply
from dlkit.serving.bodies import Asked, asked_in
from dlkit.serving.describing import described, openapi
from dlkit.serving.gate import Gate, body_in
from dlkit.serving.kinds import TAKES
from dlkit.serving.limits import Limits
from dlkit.serving.measuring import Meters
from dlkit.serving.page import PAGE, POLICY
from dlkit.serving.refusals import ClientGoneError, RefusedError
from dlkit.serving.scheduling import Answer, Deadline, Job, Scheduler, Write
from dlkit.serving.served import Loaded, Served, served

__all__ = ["Application", "app"]

_PATIENCE = 0.1  # seconds until somebody looks whether a client that waits is still there
_PUBLIC = ("/", "/v2/health/live", "/v2/health/ready")
_MOST_CLASSES = 1000
_LARGE = 1 << 16  # bytes
_V2_MODEL = "/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?"
_JSON = ((b"content-type", b"application/json"),)
_PAGE = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-security-policy", POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


def app(
    models: Any,
    *,
    limits: Limits | None = None,
    token: str | None = None,
    workers: int | None = None,
    threads: int = 1,
    batch: int | None = None,
    device: str = "cpu",
    fuse: bool = False,
    watch: float | None = None,
) -> Application:
    """An ASGI application that answers for models: `POST /predict` and what belongs to it, and a page at `/`.

    Args:
        models: A model file or a `Predictor`; a list of those; or a dict of names and those.
        limits: What one client may ask for.
        token: What clients must send as `Authorization: Bearer TOKEN`; None for a server that anybody may ask.
        workers: Threads that compute, each on its own request; by default the cores divided by `threads`.
        threads: Of torch, for each of them; all together at most as many as there are cores.
        batch: How many requests of one input are computed together, at most. 1 gives every input the same bits
            whatever else is asked; that is the default for images on the CPU, 64 for others.
        device: Where to compute, for files: "cpu", "cuda", "auto".
        fuse: Compute with a faster copy, see `dlkit.load`; for files.
        watch: Seconds between two looks whether a file has changed; None for never.

    Returns:
        The application, for any ASGI server. It needs no lifespan: its threads start with the first request.

    Raises:
        ArgumentError: there is no model, two have one name, or threads are more than cores.
        ModelFileError: a file cannot be used.

    >>> import tempfile, dlkit; from dlkit.models import SmallConvNet; from dlkit.transforms import for_evaluation
    >>> file = tempfile.mkdtemp() + "/letters.safetensors"
    >>> file = dlkit.save(SmallConvNet(num_classes=2, in_chans=3), file, classes="AB", preprocessing=for_evaluation(32))
    >>> from starlette.testclient import TestClient
    >>> with TestClient(app(file)) as client:
    ...     client.get("/model").json()["classes"]
    ['A', 'B']
    """
    whole_number("threads", threads, least=1)
    cores = default_threads()
    workers = max(1, cores // threads) if workers is None else whole_number("workers", workers, least=1)
    if workers * threads > max(1, cores):
        raise ArgumentError(
            f"{workers} workers of {threads} threads are more than the {cores} cores there are, and threads that wait "
            f"for each other take several times as long; leave workers out"
        )
    if batch is not None:
        whole_number("batch", batch, least=1)
    if token is not None and not token.strip():
        raise ArgumentError("the token is empty, and would let everybody in; give one, or None for no token")
    limits = limits or Limits()
    scheduler = Scheduler(queue=limits.queue, workers=workers, threads=threads, batch=batch)
    named = served(models, device=device, fuse=fuse)
    for each in named.values():
        if (sample := TAKES[each.now.predictor.kind].sample) is not None:
            list(each.now.predictor.predict_each([sample], on_error="skip"))
    return Application(named, scheduler, limits, token=token, watch=watch)


class Application:
    """A server's state and routes; made by `app`.

    Args:
        models: By name.
        scheduler: Computes.
        limits: What one client may ask for.
        token: See `app`.
        watch: See `app`.

    Attributes:
        models: By name.
        scheduler: Computes.
        ready: Whether `/v2/health/ready` says so; a server that is about to end sets it to False.
    """

    def __init__(
        self,
        models: Mapping[str, Served],
        scheduler: Scheduler,
        limits: Limits,
        *,
        token: str | None = None,
        watch: float | None = None,
    ) -> None:
        self.models, self.scheduler, self.ready = models, scheduler, True
        self._limits, self._watch, self._started = limits, watch, False
        self._meters = Meters(scheduler)
        routes = Routes(
            {
                "/": ("GET", self._page),
                "/predict": ("POST", self._predict),
                "/model": ("GET", self._model),
                "/models": ("GET", self._model_list),
                "/metrics": ("GET", self._metrics),
                "/openapi.json": ("GET", self._openapi),
                "/v2": ("GET", self._v2_server),
                "/v2/health/live": ("GET", self._live),
                "/v2/health/ready": ("GET", self._readiness),
            },
            [
                (_V2_MODEL, "GET", self._v2_model),
                (f"{_V2_MODEL}/ready", "GET", self._v2_ready),
                (f"{_V2_MODEL}/infer", "POST", self._v2_infer),
            ],
        )
        self._gate = Gate(routes, token=token, public=_PUBLIC, meters=self._meters, before_refusal=scheduler.answered)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI asks for it."""
        if scope["type"] == "http":
            self.start()
            await self._gate(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._life(receive, send)
        else:
            await send({"type": "websocket.close"})

    def start(self) -> None:
        """Start the threads that compute, unless they run."""
        if not self._started:
            self._started = True
            self.scheduler.start()

    async def _life(self, receive: Receive, send: Send) -> None:
        """From the start of the server to its end."""
        await receive()
        self.start()
        watching = asyncio.create_task(self._watched(self._watch)) if self._watch else None
        await send({"type": "lifespan.startup.complete"})
        try:
            await receive()
        finally:
            if watching is not None:
                watching.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watching
            await asyncio.to_thread(self.scheduler.stop)
            self._started = False
        await send({"type": "lifespan.shutdown.complete"})

    async def _watched(self, seconds: float) -> None:
        """Look after the files, in a thread: loading takes time, and nobody shall wait for it."""
        while True:
            await asyncio.sleep(seconds)
            for each in self.models.values():
                renewed = await asyncio.to_thread(each.renew)
                if renewed is not False:
                    self._meters.reloaded(each.name, good=bool(renewed))

    async def _page(self, request: Request) -> Reply:
        """The page."""
        return Reply(PAGE.encode(), headers=_PAGE)

    async def _predict(self, request: Request) -> Reply:
        """What a model says of what is in the body."""
        loaded = self._asked_model(request)
        wanted = request.whole("top_k", most=_MOST_CLASSES)
        deadline = self._deadline(request)
        body = await self._body(request)
        given = (request.headers, body, loaded.predictor, self._limits)
        # A large body is parsed in a thread, so that others do not wait.
        asked = asked_in(*given) if len(body) < _LARGE else await asyncio.to_thread(asked_in, *given)
        answer = await self._computed(request, loaded, asked, rows_in_json, wanted or asked.top_k or 1, deadline)
        status = 422 if len(answer.errors) == len(answer.rows) else 200
        told = (b"x-dlkit-version", loaded.version.encode()), (b"x-dlkit-batch", b"%d" % answer.together)
        return Reply(body_of(loaded, answer), status, (*_JSON, *told))

    async def _body(self, request: Request) -> bytes:
        """The body, unless there is no room in the queue: refusing costs little when there is no time."""
        if self.scheduler.full:
            raise self.scheduler.refusal()
        return await body_in(request, self._limits)

    async def _computed(
        self, request: Request, loaded: Loaded, asked: Asked, write: Write, top_k: int, deadline: Deadline
    ) -> Answer:
        """Wait in the queue for the answer."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        at_once = self.scheduler.submit(Job(loaded, asked, write, top_k, deadline, future))
        request.told.update(model=loaded.name, version=loaded.version, inputs=asked.size)
        answer = await (future if at_once else _while_there(request.receive, future))
        self._meters.answered(loaded, len(answer.rows), answer.together)
        return answer

    def _asked_model(self, request: Request) -> Loaded:
        name = request.query.get("model")
        if name is None and len(self.models) == 1:
            return next(iter(self.models.values())).now
        if name is None:
            raise RefusedError(400, f"there are several models; say which: ?model={next(iter(self.models))}")
        return self._named(name)

    def _named(self, name: str) -> Loaded:
        if name not in self.models:
            raise RefusedError(404, f"there is no model {name!r:.80}; there are {', '.join(self.models)}")
        return self.models[name].now

    def _deadline(self, request: Request) -> Deadline:
        """When the time of a request is over: the server's limit, or less if the client says so."""
        given, most = request.query.get("timeout"), self._limits.seconds
        try:
            seconds = most if given is None else float(given)
        except ValueError:
            seconds = math.nan
        if not seconds > 0:
            raise RefusedError(400, f"timeout must be a number of seconds above 0, not {given!r:.40}")
        return Deadline(time.monotonic() + min(seconds, most), asked=seconds < most)

    async def _model(self, request: Request) -> Reply:
        """What a model takes and gives."""
        return json_reply(described(self._asked_model(request), self._limits))

    async def _model_list(self, request: Request) -> Reply:
        """What every model takes and gives."""
        return json_reply({"models": [described(each.now, self._limits) for each in self.models.values()]})

    async def _openapi(self, request: Request) -> Reply:
        """The document of OpenAPI."""
        return json_reply(openapi([each.now for each in self.models.values()], self._limits))

    async def _metrics(self, request: Request) -> Reply:
        """What was counted."""
        text = self._meters.text([each.now for each in self.models.values()])
        return Reply(text, headers=((b"content-type", self._meters.media_type.encode()),))

    async def _live(self, request: Request) -> Reply:
        """Whether the process answers."""
        return json_reply({"live": True})

    async def _readiness(self, request: Request) -> Reply:
        """Whether to send requests here."""
        return json_reply({"ready": self.ready}, 200 if self.ready else 503)

    async def _v2_server(self, request: Request) -> Reply:
        """What the server is, by the Open Inference Protocol."""
        return json_reply(protocol.server())

    async def _v2_model(self, request: Request) -> Reply:
        """What a model takes and gives, by the Open Inference Protocol."""
        return json_reply(protocol.model(self._version(request)))

    async def _v2_ready(self, request: Request) -> Reply:
        """Whether a model is there, by the Open Inference Protocol."""
        loaded = self._version(request)
        return json_reply({"name": loaded.name, "ready": self.ready}, 200 if self.ready else 503)

    async def _v2_infer(self, request: Request) -> Reply:
        """What a model says, by the Open Inference Protocol."""
        loaded, deadline = self._version(request), self._deadline(request)
        body = await self._body(request)
        given = (request.headers, body, loaded.predictor, self._limits)
        wish = protocol.read(*given) if len(body) < _LARGE else await asyncio.to_thread(protocol.read, *given)
        top_k = len(loaded.predictor.classes) or 1
        answer = await self._computed(request, loaded, wish.asked, predictions_of, top_k, deadline)
        head, content = protocol.write(wish, loaded, answer)
        told = {**head, "x-dlkit-batch": str(answer.together)}
        return Reply(content, headers=[(name.encode(), value.encode()) for name, value in told.items()])

    def _version(self, request: Request) -> Loaded:
        loaded = self._named(request.parts["name"])
        wanted = request.parts["version"] or loaded.version
        if wanted != loaded.version:
            raise RefusedError(
                404, f"the version of {loaded.name!r} is {loaded.version}, and there is no {wanted!r:.80}"
            )
        return loaded


async def _while_there(receive: Receive, future: asyncio.Future[Answer]) -> Answer:
    """Wait for an answer; a client that leaves meanwhile takes its request out of the queue."""
    loop, watching = asyncio.get_running_loop(), list[asyncio.Task[None]]()
    later = loop.call_later(_PATIENCE, lambda: watching.append(loop.create_task(_until_gone(receive, future))))
    try:
        return await future
    except asyncio.CancelledError:
        if future.cancelled() and watching and watching[0].done():
            raise ClientGoneError from None
        raise
    finally:
        later.cancel()
        for task in watching:
            task.cancel()


async def _until_gone(receive: Receive, future: asyncio.Future[Answer]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    future.cancel()
