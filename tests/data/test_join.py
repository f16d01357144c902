"""Joins by key and as of a moment, against a slow loop in Python."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelinscale.core.errors import DataError
from modelinscale.data.join import Right, Rule
from modelinscale.testing.examples import examples

SCHEMA = pa.schema([("k0", pa.int64()), ("k1", pa.string()), ("moment", pa.timestamp("us")), ("v", pa.int64())])
LEFT = pa.schema([("k0", pa.int64()), ("k1", pa.string()), ("moment", pa.timestamp("us"))])
KEYS = st.tuples(st.none() | st.integers(0, 4), st.none() | st.sampled_from(["", "a", "b"]))
MOMENTS = st.none() | st.integers(0, 12)


def table(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    return pa.table([pa.array([row[i] for row in rows], schema.field(i).type) for i in range(len(schema))], schema=schema)


def joined(rights: Sequence[tuple[Any, ...]], lefts: Sequence[tuple[Any, ...]], rule: Rule, budget: int = 1 << 30, cut: int = 3) -> list[int | None]:
    with Right(rule, SCHEMA, budget) as right:
        for start in range(0, len(rights), cut):
            for batch in table(rights[start : start + cut], SCHEMA).to_batches():
                right.add(batch)
        found = right.lookup(table(lefts, LEFT))
        assert right.on_disk == (budget < 1000 and len(rights) > 0)
    assert found.column_names == ["v"]
    return found.column("v").to_pylist()  # type: ignore[no-any-return]


def slowly(rights: Sequence[tuple[Any, ...]], lefts: Sequence[tuple[Any, ...]], rule: Rule) -> list[int | None]:
    """For each row on the left, all rows on the right are looked at."""
    answer = []
    for a, b, at in lefts:
        best = None
        for position, (c, d, then, value) in enumerate(rights):
            if None in (a, b, at, c, d, then) or (a, b) != (c, d):
                continue
            if then > at or (then == at and not rule.allow_exact) or (rule.within is not None and at - then > rule.within):
                continue
            if best is None or (then, position) > best[0]:
                best = ((then, position), value)
        answer.append(best[1] if best else None)
    return answer


@settings(max_examples=examples(60), deadline=None)
@given(
    rights=st.lists(st.tuples(KEYS, MOMENTS), max_size=25),
    lefts=st.lists(st.tuples(KEYS, MOMENTS), min_size=1, max_size=25),
    allow_exact=st.booleans(),
    within=st.none() | st.integers(1, 6),
    budget=st.sampled_from([1 << 30, 1 << 30, 1 << 30, 1]),
)
def test_as_of_equals_the_loop_in_memory_and_on_disk(rights: Any, lefts: Any, allow_exact: bool, within: int | None, budget: int) -> None:
    right = [(*key, at, i) for i, (key, at) in enumerate(rights)]
    left = [(*key, at) for key, at in lefts]
    rule = Rule(("k0", "k1"), "moment", allow_exact, within)
    found = joined(right, left, rule, budget)
    assert found == slowly(right, left, rule)
    for (*_, at), value in zip(left, found, strict=True):
        assert value is None or right[value][2] <= at, "a value from the future"


@settings(max_examples=examples(30), deadline=None)
@given(st.lists(KEYS, unique=True, max_size=12), st.lists(KEYS, min_size=1, max_size=25), st.sampled_from([1 << 30, 1]))
def test_a_key_alone_finds_its_row(rights: Any, lefts: Any, budget: int) -> None:
    known = {key: i for i, key in enumerate(rights) if None not in key}
    schema, rule = SCHEMA.remove(2), Rule(("k0", "k1"))
    with Right(rule, schema, budget) as right:
        for batch in table([(*key, i) for i, key in enumerate(rights)], schema).to_batches():
            right.add(batch)
        found = right.lookup(table(lefts, LEFT.remove(2))).column("v").to_pylist()
    assert found == [known.get(key) for key in lefts]


def test_a_key_that_names_several_rows_is_refused_with_examples() -> None:
    schema, rule = SCHEMA.remove(2), Rule(("k0", "k1"), label="customers")
    with Right(rule, schema, 1 << 30) as right:
        right.add(table([(1, "a", 0), (2, "b", 1), (1, "a", 2), (1, "a", 3)], schema).to_batches()[0])
        with pytest.raises(DataError, match=r"customers: 1 keys name several rows \(k0 like 9, k1 like a\)"):
            right.lookup(table([(1, "a")], LEFT.remove(2)))


def test_rows_that_arrive_later_win_among_those_of_one_moment() -> None:
    rule = Rule(("k0", "k1"), "moment")
    assert joined([(1, "a", 5, 10), (1, "a", 5, 11), (1, "a", 4, 12)], [(1, "a", 5), (1, "a", 4), (1, "a", 3)], rule) == [11, 12, None]


@pytest.mark.slow
def test_a_side_many_times_the_budget_stays_on_disk() -> None:
    import numpy as np

    n = 100_000
    chance = np.random.default_rng(5)
    keys, times = chance.integers(0, 20_000, n), chance.integers(0, 10**6, n)
    schema = pa.schema([("k0", pa.int64()), ("moment", pa.timestamp("us")), ("v", pa.int64())])
    rule = Rule(("k0",), "moment")
    left = pa.table({"k0": chance.integers(0, 20_000, 50_000), "moment": pa.array(chance.integers(0, 10**6, 50_000)).cast(pa.timestamp("us"))})
    rows = pa.table([pa.array(keys), pa.array(times).cast(pa.timestamp("us")), pa.array(np.arange(n))], schema=schema)
    found = []
    for budget in (1 << 30, 1 << 19, 1 << 16):
        with Right(rule, schema, budget) as right:
            for batch in rows.to_batches(max_chunksize=20_000):
                right.add(batch)
            found.append(right.lookup(left).column("v").to_pylist())
    assert found[0] == found[1] == found[2]
