"""This machine, with threads: Arrow, Polars, Lance and NumPy all let go of the interpreter while they work."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from pydantic import Field

from modelinscale.compute import Compute, Item, Result


class Local(Compute):
    """Runs partitions on threads of this process."""

    workers: int = Field(2, ge=1)
    """Partitions in work at once; each holds its own memory."""

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        with ThreadPoolExecutor(self.workers) as pool:
            flying: deque[tuple[Item, Future[Result]]] = deque()
            for item in items:
                flying.append((item, pool.submit(function, item)))
                if len(flying) > self.workers:
                    yield _result(*flying.popleft())
            while flying:
                yield _result(*flying.popleft())

    def reduce(self, function: Callable[[Item], Result], merge: Callable[[Result, Result], Result], items: Iterable[Item], empty: Result) -> Result:
        total = empty
        for result in self.map(function, items):
            total = merge(total, result)
        return total


def _result(item: Item, future: "Future[Result]") -> Result:
    try:
        return future.result()
    except Exception as error:
        error.add_note(f"while working on {str(item)[:200]}")
        raise
