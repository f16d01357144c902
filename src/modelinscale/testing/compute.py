"""What every compute must do. Each function takes one with its settings."""

import time
from collections.abc import Iterator

from modelinscale.compute import Compute


def _square(x: int) -> int:
    time.sleep(0.002 * (x % 3))  # later items may be ready earlier
    return x * x


def _fails_at_seven(x: int) -> int:
    if x == 7:
        raise ValueError("seven is refused")
    return x


def _add(a: int, b: int) -> int:
    return a + b


def _as_list(x: int) -> list[int]:
    return [x]


def _concatenate(a: list[int], b: list[int]) -> list[int]:
    return [*a, *b]


def order_is_kept(compute: Compute) -> None:
    """Results come in the order of the items."""
    assert list(compute.map(_square, range(30))) == [x * x for x in range(30)]


def no_items_no_results(compute: Compute) -> None:
    """Nothing in, nothing out, the empty value for a reduction."""
    assert list(compute.map(_square, [])) == []
    assert compute.reduce(_square, _add, [], 5) == 5


def merging_follows_the_order(compute: Compute) -> None:
    """A merge that depends on order gives one answer, however many workers there are."""
    empty: list[int] = []
    assert compute.reduce(_as_list, _concatenate, range(20), empty) == list(range(20))


def an_error_names_its_item(compute: Compute) -> None:
    """The error is the function's own, with the item in its notes; results before it were given."""
    results = []
    try:
        for result in compute.map(_fails_at_seven, range(20)):
            results.append(result)
    except ValueError as error:
        notes = " ".join(getattr(error, "__notes__", []))
        assert "seven is refused" in str(error)  # noqa: PT017
        assert "7" in notes, f"the item is not named: {notes!r}"
    else:
        raise AssertionError("the error was swallowed")
    assert results == list(range(7))


def an_error_of_the_items_comes_after_their_results(compute: Compute) -> None:
    """What could be read before a source broke is not lost."""

    def breaks() -> Iterator[int]:
        yield from range(10)
        raise OSError("the source broke")

    results = []
    try:
        for result in compute.map(_square, breaks()):
            results.append(result)
    except OSError as error:
        assert "the source broke" in str(error)  # noqa: PT017
    else:
        raise AssertionError("the error was swallowed")
    assert results == [x * x for x in range(10)]


def a_bounded_number_is_in_flight(compute: Compute) -> None:
    """Items are taken as results are, so an endless source is fine."""
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    results = compute.map(_square, endless())
    assert [next(results) for _ in range(5)] == [1, 4, 9, 16, 25]
    assert taken < 5 + 64
    close = getattr(results, "close", None)
    if close:
        close()


SUITE = (
    order_is_kept,
    no_items_no_results,
    merging_follows_the_order,
    an_error_names_its_item,
    an_error_of_the_items_comes_after_their_results,
    a_bounded_number_is_in_flight,
)
