"""Tick batching, without a network."""

import asyncio
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from modelinscale.core.errors import RequestError
from modelinscale.package import Answer, Package, open_package
from modelinscale.serve._batch import INLINE_S, Batcher, Pace, Work
from modelinscale.serve._message import Reply, Request
from modelinscale.serve._stats import Stats


class Asked(Request):
    """A request whose answer is kept here."""

    def __init__(self) -> None:
        super().__init__(cast(Any, None), "POST", "/predict", {}, "id", keep_alive=True)
        self.got: list[Reply] = []

    def answer(self, reply: Reply) -> None:
        if self.alive:
            self.got.append(reply)


def work(rows: list[dict[str, Any]]) -> tuple[Asked, Work]:
    request = Asked()

    def write(answer: Answer) -> Reply:
        return Reply(200, repr(answer.prediction.tolist()).encode())

    return request, Work(request, len(rows), rows, None, write, lambda error: Reply(error.status, error.message.encode()))


class Counting(Package):
    """Notes how many rows each run got."""

    runs: list[int]

    def run(self, tensors: Any) -> Answer:
        self.runs.append(len(next(iter(tensors.values()))))
        return super().run(tensors)


async def all_answered(asked: list[tuple[Asked, Work]]) -> None:
    """Waits, at most 10 s, until every request that is alive has its answer."""
    for _ in range(2000):
        if all(request.got or not request.alive for request, _ in asked):
            return
        await asyncio.sleep(0.005)
    raise AssertionError("no answer")


def counting(folder: Path) -> Counting:
    opened = open_package(folder)
    package = Counting(opened.manifest, opened._session, folder)
    package.runs = []
    return package


def run(package: Package, steps: Any, **settings: Any) -> Stats:
    stats = Stats()

    async def main() -> None:
        batcher = Batcher(package, stats, asyncio.get_running_loop(), **{"batch_rows": 100, **settings})
        await steps(batcher)
        batcher.close()

    asyncio.run(main())
    return stats


def test_what_arrives_in_one_turn_goes_through_the_model_together(packages: dict[str, Path]) -> None:
    package = counting(packages["binary"])
    asked = [work([{"amount": 100}] * n) for n in (1, 2, 3)]

    async def steps(batcher: Batcher) -> None:
        for _, one in asked:
            batcher.put(one)
        assert package.runs == []
        await all_answered(asked)

    run(package, steps)
    assert package.runs == [6]
    assert [request.got for request, _ in asked] == [[Reply(200, repr([True] * n).encode())] for n in (1, 2, 3)]


def test_a_batch_holds_no_more_rows_than_asked_and_a_large_request_goes_alone(packages: dict[str, Path]) -> None:
    package = counting(packages["binary"])
    asked = [work([{}] * n) for n in (3, 3, 3, 9, 1)]

    async def steps(batcher: Batcher) -> None:
        for _, one in asked:
            batcher.put(one)
        await all_answered(asked)

    run(package, steps, batch_rows=7)
    assert package.runs == [6, 3, 9, 1]
    assert all(len(request.got) == 1 for request, _ in asked)


def test_a_turn_in_which_all_clients_have_gone_runs_nothing(packages: dict[str, Path]) -> None:
    package = counting(packages["binary"])
    asked = [work([{}]) for _ in range(3)]

    async def steps(batcher: Batcher) -> None:
        for request, one in asked:
            batcher.put(one)
            request.alive = False
        await asyncio.sleep(0)
        last = work([{}])
        batcher.put(last[1])
        await all_answered([last])

    run(package, steps)
    assert package.runs == [1]


def test_a_batch_that_fails_is_taken_apart(packages: dict[str, Path]) -> None:
    package = counting(packages["binary"])
    asked = [work([{"amount": 1}]), work([{"amount": "x"}]), work([{"nothing": 1}]), work([{"amount": 2}])]

    async def steps(batcher: Batcher) -> None:
        for _, one in asked:
            batcher.put(one)
        await all_answered(asked)

    run(package, steps)
    assert [request.got[0].status for request, _ in asked] == [200, 422, 422, 200]
    assert b"row 0, column 'amount'" in asked[1][0].got[0].body


def test_a_model_that_breaks_is_a_500_for_that_request_and_logged(packages: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Counting):
        def run(self, tensors: Any) -> Answer:
            if 7 in tensors["amount"]:
                raise MemoryError("inside the graph")
            return super().run(tensors)

    opened = open_package(packages["binary"])
    package = Broken(opened.manifest, opened._session)
    package.runs = []
    asked = [work([{"amount": 1}]), work([{"amount": 7}])]

    async def steps(batcher: Batcher) -> None:
        for _, one in asked:
            batcher.put(one)
        await all_answered(asked)

    run(package, steps)
    assert [request.got[0].status for request, _ in asked] == [200, 500]
    assert b"inside the graph" not in asked[1][0].got[0].body
    assert "a request could not be answered" in caplog.text


def test_a_batch_that_takes_long_runs_in_the_thread_and_what_comes_meanwhile_is_the_next(packages: dict[str, Path]) -> None:
    release = threading.Event()

    class Held(Counting):
        def run(self, tensors: Any) -> Answer:
            release.wait(10)
            return super().run(tensors)

    opened = open_package(packages["binary"])
    package = Held(opened.manifest, opened._session)
    package.runs = []
    asked = [work([{}]) for _ in range(4)]

    async def steps(batcher: Batcher) -> None:
        batcher._pace.set(1, 10 * INLINE_S)
        batcher.put(asked[0][1])
        await asyncio.sleep(0.01)  # the loop is free, although the model is not
        for _, one in asked[1:]:
            batcher.put(one)
        await asyncio.sleep(0.01)
        assert batcher.waiting_s > 0
        release.set()
        await all_answered(asked)

    run(package, steps)
    assert package.runs == [1, 3]


def test_the_pace_of_a_size_not_seen_follows_from_the_nearest() -> None:
    pace = Pace()
    assert pace.expect(1000) == 0.0
    assert pace.floor(1000) == 0.0
    pace.set(64, 0.001)
    assert pace.expect(64) == pace.expect(65) == 0.001
    assert pace.expect(1024) == pytest.approx(0.016)
    assert pace.expect(1) == 0.001
    assert pace.floor(1024) == 0.001
    assert pace.floor(1) == 0.0
    pace.saw(64, 0.002)
    assert pace.expect(64) == pytest.approx(0.0012)


def test_an_error_is_told_in_the_words_of_whoever_asked(packages: dict[str, Path]) -> None:
    request, one = work([{"amount": "x"}])
    told: list[RequestError] = []

    def refuse(error: RequestError) -> Reply:
        told.append(error)
        return Reply(418, b"")

    one.refuse = refuse

    async def steps(batcher: Batcher) -> None:
        batcher.put(one)
        await all_answered([(request, one)])

    run(counting(packages["binary"]), steps)
    assert request.got == [Reply(418, b"")]
    assert told[0].status == 422
