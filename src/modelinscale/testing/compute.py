"""What every compute must do. Each function takes one with its settings."""

import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from modelinscale.compute import Compute
from modelinscale.core.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray


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


def _power(exponent: int, x: int) -> int:
    return int(x**exponent)


def _refuses(x: int) -> int:
    raise DataError(f"row {x} is not wanted.", fix="Leave it out.")


def _same(x: "pa.Table") -> "pa.Table":
    return x


def _doubled(x: "NDArray[np.int64]") -> "NDArray[np.int64]":
    x += x
    return x


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


def any_function_will_do(compute: Compute) -> None:
    """Lambdas with what they hold, and functions with some arguments given."""
    added = [10, 20]
    assert list(compute.map(lambda x: x + sum(added), range(3))) == [30, 31, 32]
    assert list(compute.map(partial(_power, 3), range(4))) == [0, 1, 8, 27]


def our_errors_keep_their_advice(compute: Compute) -> None:
    """An error of ours arrives with its own type, message and advice."""
    try:
        list(compute.map(_refuses, [3]))
    except DataError as error:
        assert (error.message, error.fix) == ("row 3 is not wanted.", "Leave it out.")  # noqa: PT017
    else:
        raise AssertionError("the error was swallowed")


def large_values_arrive_whole(compute: Compute) -> None:
    """Tables and arrays of megabytes, which may be changed where they arrive: they are one's own."""
    import numpy as np
    import pyarrow as pa

    table = pa.table({"x": np.arange(500_000), "words": pa.array([None, "é", ""] * 100_000 + ["z"] * 200_000)})
    for found in compute.map(_same, [table, table.slice(7, 1000)]):
        assert found.equals(table) or found.equals(table.slice(7, 1000))
    for i, array in enumerate(compute.map(_doubled, (np.full(300_000, i) for i in range(3)))):
        array += 1
        assert array.sum() == 300_000 * (2 * i + 1)


def two_maps_at_once_do_not_mix(compute: Compute) -> None:
    """Also when one is left in the middle."""
    left = compute.map(_square, range(50))
    results = [(next(left), x) for x in compute.map(_as_list, range(5))]
    assert results == [(x * x, [x]) for x in range(5)]
    close = getattr(left, "close", None)
    if close:
        close()
    assert compute.reduce(_square, _add, range(10), 0) == 285


SUITE = (
    any_function_will_do,
    our_errors_keep_their_advice,
    large_values_arrive_whole,
    two_maps_at_once_do_not_mix,
    order_is_kept,
    no_items_no_results,
    merging_follows_the_order,
    an_error_names_its_item,
    an_error_of_the_items_comes_after_their_results,
    a_bounded_number_is_in_flight,
)
