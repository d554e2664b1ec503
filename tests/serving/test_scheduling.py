"""One queue counted in inputs: what waits is batched, what nobody waits for is dropped, what is too much is refused."""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import dlkit
from dlkit.errors import ArgumentError
from dlkit.serving import Limits, app, scheduling
from dlkit.serving import gate as gate_of_all
from serving.asking import Client, gated, post, until
from serving.conftest import passengers, picture

ROWS = json.loads(passengers(40, seed=3).to_json(orient="records"))


def test_what_waits_is_batched_without_a_timer(models: dict[str, Path]) -> None:
    predictor, gate = gated(models["titanic"])
    application = app(predictor, workers=1)

    async def ask() -> None:
        first = asyncio.create_task(post(application, ROWS[0]).answer())
        await until(lambda: gate.sizes)
        rest = [asyncio.create_task(post(application, row).answer()) for row in ROWS[1:9]]
        other = asyncio.create_task(post(application, ROWS[9], "/predict?top_k=2").answer())
        await until(lambda: application.scheduler.waiting == 9)
        gate.open.set()
        answers = [await task for task in (first, *rest, other)]
        assert gate.sizes == [1, 8, 1]  # one that wants something else is computed by itself
        assert [done.headers["x-dlkit-batch"] for done in answers] == ["1", *["8"] * 8, "1"]
        wanted = [*predictor.predict_each(ROWS[:1]), *predictor.predict_each(ROWS[1:9], batch_size=8)]
        found = [done.json["predictions"][0]["probability"] for done in answers[:9]]
        assert found == [each.probability for each in wanted]  # bit for bit

    asyncio.run(ask())
    application.scheduler.stop()


@pytest.mark.parametrize("quick", [math.inf, 0.0])
def test_a_small_model_is_computed_where_requests_are_answered(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, quick: float
) -> None:
    monkeypatch.setattr(scheduling, "_QUICK", quick)
    predictor, threads = dlkit.load(models["titanic"]), list[int]()
    predictor.model.register_forward_pre_hook(lambda *_: threads.append(threading.get_ident()))
    application = app(predictor, workers=1)

    async def ask() -> None:
        assert (await post(application, ROWS[0]).answer()).status == 200  # how long it takes is not known yet
        many = await asyncio.gather(*(post(application, row).answer() for row in ROWS[:8]))
        if quick:
            assert {done.headers["x-dlkit-batch"] for done in many} == {"8"}  # all that had arrived
        wanted = list(predictor.predict_each(ROWS[:8], batch_size=8))
        for done, prediction in zip(many, wanted, strict=True):
            found = done.json["predictions"][0]["probability"]
            assert found == pytest.approx(prediction.probability, abs=0 if quick else 1e-6)
        assert (await post(application, ROWS[:3]).answer()).status == 200  # several rows are another thread's

    asyncio.run(ask())
    mine = [thread == threading.get_ident() for thread in threads]
    assert mine == ([False, True, True, False] if quick else [False] * (len(mine) - 2) + [True, False])
    application.scheduler.stop()


def test_images_on_the_cpu_are_computed_one_by_one(models: dict[str, Path]) -> None:
    predictor, gate = gated(models["insects"])
    application, alone = app(predictor, workers=1), dlkit.load(models["insects"])
    pictures = [picture(number) for number in range(6)]

    async def ask() -> None:
        clients = [Client(application, "POST", "/predict", {"content-type": "image/*"}).send(p) for p in pictures]
        tasks = [asyncio.create_task(client.answer()) for client in clients]
        await until(lambda: application.scheduler.waiting == 5)
        gate.open.set()
        found = [(await task).json["predictions"][0]["probability"] for task in tasks]
        assert found == [alone.predict_one(each).probability for each in pictures]

    asyncio.run(ask())
    assert gate.sizes == [1] * 6
    application.scheduler.stop()


def test_a_full_queue_refuses_at_once_and_says_when_to_come_again(models: dict[str, Path]) -> None:
    predictor, gate = gated(models["titanic"])
    application = app(predictor, workers=1, limits=Limits(queue=32))

    async def ask() -> None:
        first = asyncio.create_task(post(application, ROWS[0]).answer())
        await until(lambda: gate.sizes)
        many = asyncio.create_task(post(application, ROWS[:6]).answer())  # counted in inputs
        await until(lambda: application.scheduler.waiting == 6)
        large = asyncio.create_task(post(application, ROWS).answer())  # of 40 rows, but counts for a 16th: 2
        pairs = [asyncio.create_task(post(application, ROWS[:2]).answer()) for _ in range(13)]
        await until(lambda: application.scheduler.waiting == 72)
        last = asyncio.create_task(post(application, ROWS[0]).answer())  # one place is left, and then there is none
        await until(lambda: application.scheduler.waiting == 73)
        too_many = await post(application, ROWS[:2]).answer()  # found when its body is read
        assert (too_many.status, "73 inputs wait" in too_many.json["error"]) == (503, True)
        second = asyncio.create_task(post(application, ROWS[1]).answer())
        await until(lambda: application.scheduler.waiting == 74)
        begun = time.monotonic()
        refused = await post(application, ROWS[:1]).answer()
        assert (refused.status, int(refused.headers["retry-after"]) >= 1) == (503, True)
        assert "74 inputs wait" in refused.json["error"]
        assert time.monotonic() - begun >= gate_of_all._PAUSE  # who comes again at once does not take others' time
        unread = await Client(application, "POST", "/predict").answer()  # of which no body has come
        assert (unread.status, int(unread.headers["retry-after"]) >= 1) == (503, True)
        gate.open.set()
        assert [(await task).status for task in (first, many, large, *pairs, last, second)] == [200] * 18
        assert len((await large).json["predictions"]) == 40
        assert application.scheduler.waiting == application.scheduler.computing == 0

    asyncio.run(ask())
    application.scheduler.stop()


def test_a_refusal_goes_out_behind_the_answers(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduling, "_QUICK", math.inf)
    monkeypatch.setattr(gate_of_all, "_PAUSE", 0)
    application, seen = app(models["titanic"], workers=1, limits=Limits(queue=2)), list[int]()

    async def asked(row: object) -> None:
        seen.append((await post(application, row).answer()).status)

    async def ask() -> None:
        await asked(ROWS[0])  # how long it takes is not known yet
        await asyncio.gather(*map(asked, ROWS[1:5]))
        await asked(ROWS[5])

    asyncio.run(ask())
    assert seen == [200, 200, 200, 503, 503, 200]
    application.scheduler.stop()


def test_what_nobody_waits_for_is_not_computed(models: dict[str, Path]) -> None:
    predictor, gate = gated(models["titanic"])
    application = app(predictor, workers=1)

    async def ask() -> None:
        first = asyncio.create_task(post(application, ROWS[0]).answer())
        await until(lambda: gate.sizes)
        late = asyncio.create_task(post(application, ROWS[:2], "/predict?timeout=0.001").answer())
        left = asyncio.create_task(post(application, ROWS[:3]).leave().answer())
        assert (await left).status == 0  # noticed while it waits
        gate.open.set()
        assert (await first).status == 200
        assert ((await late).status, "time" in (await late).json["error"]) == (408, True)

    asyncio.run(ask())
    assert gate.sizes == [1]
    application.scheduler.stop()


def test_an_input_that_the_model_fails_on_fails_alone(models: dict[str, Path]) -> None:
    predictor, gate = gated(models["titanic"])
    application = app(predictor, workers=1)
    inner = gate.inner

    class Picky(type(inner)):  # type: ignore[misc]
        def forward(self, *inputs: object, **named: object) -> object:
            found = super().forward(*inputs, **named)
            if gate.sizes[-1] == 3 or len(gate.sizes) == 3:
                raise RuntimeError("/secret/path")
            return found

    inner.__class__ = Picky

    async def ask() -> None:
        first = asyncio.create_task(post(application, ROWS[0]).answer())
        await until(lambda: gate.sizes)
        rest = [asyncio.create_task(post(application, row).answer()) for row in ROWS[1:4]]
        await until(lambda: application.scheduler.waiting == 3)
        gate.open.set()
        assert [(await task).status for task in (first, *rest)] == [200, 500, 200, 200]
        assert b"secret" not in (await rest[0]).body

    asyncio.run(ask())
    assert gate.sizes == [1, 3, 1, 1, 1]
    application.scheduler.stop()


def test_stopping_answers_what_waits(models: dict[str, Path]) -> None:
    predictor, gate = gated(models["titanic"])
    application = app(predictor, workers=1)

    async def ask() -> None:
        tasks = [asyncio.create_task(post(application, ROWS[: 2 + n]).answer()) for n in range(5)]
        await until(lambda: gate.sizes and application.scheduler.waiting == 18)
        gate.open.set()
        await asyncio.to_thread(application.scheduler.stop)
        assert [(await task).status for task in tasks] == [200] * 5

    asyncio.run(ask())


@pytest.mark.parametrize(
    "wrong",
    [{"threads": 0}, {"workers": 0}, {"batch": 0}, {"token": " "}, {"workers": 1000}, {"workers": True}],
)
def test_arguments_that_cannot_be_meant(models: dict[str, Path], wrong: dict[str, object]) -> None:
    with pytest.raises(ArgumentError):
        app(models["spam"], **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"body": 0}, {"seconds": 0}, {"body_seconds": np.inf}, {"pixels": 1.5}])
def test_limits_that_cannot_be_meant(wrong: dict[str, float]) -> None:
    with pytest.raises(ArgumentError):
        Limits(**wrong)  # type: ignore[arg-type]
