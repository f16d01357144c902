"""This machine, with threads: Arrow, Polars, Lance and NumPy all let go of the interpreter while they work."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from pydantic import Field

from modelinscale.compute import Compute, Item, Result


class Local(Compute):
    """Runs partitions on threads of this process."""

    workers: int = Field(2, ge=1)
    """Partitions in work at once; each holds its own memory."""

    @property
    def in_process(self) -> int:
        return self.workers

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        flying: deque[tuple[str, Future[Result]]] = deque()
        with ThreadPoolExecutor(self.workers, thread_name_prefix="compute") as pool:
            try:
                source, number = iter(items), 0
                while True:
                    try:
                        item = next(source)
                    except StopIteration:
                        break
                    except Exception:
                        # What came before the items' own error is still worth having.
                        while flying:
                            yield _result(*flying.popleft())
                        raise
                    flying.append((_name(item, number), pool.submit(function, item)))
                    number += 1
                    del item  # what the pool holds is enough: it may be large
                    if len(flying) > self.workers:
                        yield _result(*flying.popleft())
                while flying:
                    yield _result(*flying.popleft())
            finally:
                for _, waiting in flying:  # an item failed, or nobody wants the rest
                    waiting.cancel()

    def reduce(self, function: Callable[[Item], Result], merge: Callable[[Result, Result], Result], items: Iterable[Item], empty: Result) -> Result:
        total = empty
        for result in self.map(function, items):
            total = merge(total, result)
        return total


def _result(name: str, future: "Future[Result]") -> Result:
    try:
        return future.result()
    except Exception as error:
        error.add_note(f"while working on {name}")
        raise


def _name(item: object, number: int) -> str:
    """What an error calls an item. Never its content, which may be rows: only names and numbers, or its place."""
    if isinstance(item, str | int | float | Path):
        return str(item)[:200]
    where = getattr(item, "where", None)
    return where[:200] if isinstance(where, str) else f"item {number} ({type(item).__name__})"
