"""The contract: which rows are good, every reason why others are not, and keys across rows, batches and versions."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from modelinscale.core.errors import SpecError
from modelinscale.core.schema import Column, Schema
from modelinscale.data._keys import KeyIndex, Keys, keys_of, open_index, ordered, repeated
from modelinscale.data.arrow import arrow_schema
from modelinscale.data.checks.between import Between
from modelinscale.data.checks.matches import Matches
from modelinscale.data.contract import Contract, Judged, contract, open_indexes, parse_checks
from modelinscale.data.lake import create_table, open_table

SCHEMA = Schema(
    columns=(Column(name="id", type="string"), Column(name="n", type="int"), Column(name="x", type="float"), Column(name="v", type="vector", width=2))
)
NO_FAULTS = pa.table({"row": pa.array([], pa.int64()), **{n: pa.array([], pa.string()) for n in ("column", "reason", "value")}})


def table(**cells: list[Any]) -> pa.Table:
    n_rows = len(next(iter(cells.values())))
    return pa.table({name: cells.get(name, [None] * n_rows) for name in SCHEMA.names}, schema=arrow_schema(SCHEMA))


def lines(judged: Judged) -> list[tuple[int, str, str, str]]:
    return [tuple(line.values()) for line in judged.entries.to_pylist()]


def test_good_rows_pass_untouched() -> None:
    rows = table(id=["a", "b"], n=[1, None])
    judged = contract(SCHEMA, parse_checks({"id": "present", "n": {"between": [0, 5]}}), ("id",)).apply(rows, NO_FAULTS)
    assert judged.good.equals(rows)
    assert (judged.n_bad, judged.entries.num_rows, judged.rows.tolist()) == (0, 0, [0, 1])


def test_a_row_with_several_faults_has_several_entries_and_counts_once() -> None:
    rules = contract(SCHEMA, parse_checks({"n": ["present", {"between": [0, 5]}], "x": "positive", "id": {"matches": "[a-z]"}}), ("id",))
    judged = rules.apply(table(id=["A", "b", "c"], n=[9, None, 1], x=[-1.0, 1.0, 1.0]), NO_FAULTS)
    assert judged.n_bad == 2
    assert judged.rows.tolist() == [2]
    assert lines(judged) == [
        (0, "id", "not like [a-z]", "A"),
        (0, "n", "not between 0 and 5", "9"),
        (0, "x", "not above 0", "-1"),
        (1, "n", "missing", ""),
    ]


def test_faults_of_reading_count_and_are_not_told_as_missing_too() -> None:
    faults = pa.table({"row": [1, 2], "column": ["n", ""], "reason": ["not a number", "3 cells, expected 4"], "value": ["zz", ""]})
    rules = contract(SCHEMA, parse_checks({"n": "present", "x": "present"}), ("id",))
    judged = rules.apply(table(id=["a", "b", None], n=[1, None, None], x=[1.0, None, None]), faults)
    assert lines(judged) == [(1, "n", "not a number", "zz"), (1, "x", "missing", ""), (2, "", "3 cells, expected 4", "")]
    assert judged.rows.tolist() == [0]


def test_a_missing_cell_is_a_fault_only_where_the_column_or_the_key_forbids_it() -> None:
    schema = Schema(columns=(Column(name="a", type="int", nullable=False), Column(name="b", type="int"), Column(name="c", type="int")))
    rows = pa.table({"a": [None, 1], "b": [1, None], "c": [None, None]}, schema=arrow_schema(schema))
    assert lines(contract(schema).apply(rows, NO_FAULTS)) == [(0, "a", "missing", "")]
    assert lines(contract(schema, key=("b",)).apply(rows, NO_FAULTS)) == [(0, "a", "missing", ""), (1, "b", "missing, but it is the key", "")]


def test_a_second_key_goes_and_the_first_stays() -> None:
    judged = contract(SCHEMA, key=("id",)).apply(table(id=["a", "b", "a", "c", "a"]), NO_FAULTS)
    assert judged.rows.tolist() == [0, 1, 3]
    assert lines(judged) == [(2, "id", "an earlier row has the same key", "a"), (4, "id", "an earlier row has the same key", "a")]


def test_a_key_of_several_columns_is_the_tuple_not_the_text() -> None:
    judged = contract(SCHEMA, key=("id", "n")).apply(table(id=["a", "a1", "a", "a"], n=[11, 1, 2, 11]), NO_FAULTS)
    assert lines(judged) == [(3, "id, n", "an earlier row has the same key", "a, 11")]


def test_a_bad_row_takes_no_key() -> None:
    rules = contract(SCHEMA, parse_checks({"n": "positive"}), ("id",))
    assert rules.apply(table(id=["a", "a", "a"], n=[-1, 1, 1]), NO_FAULTS).rows.tolist() == [1]


def test_a_row_refused_for_one_value_takes_no_other() -> None:
    rules = contract(SCHEMA, parse_checks({"n": "unique", "x": "unique"}), ("id",))
    judged = rules.apply(table(id=["a", "a", "b", "c"], n=[1, 2, 2, 3], x=[1.0, 2.0, 3.0, 3.0]), NO_FAULTS)
    # Row 1 goes for its key, so row 2 may have its n; row 3 goes for the x of row 2.
    assert judged.rows.tolist() == [0, 2]
    assert [line[:2] for line in lines(judged)] == [(1, "id"), (3, "x")]


def test_missing_values_are_never_twice() -> None:
    assert contract(SCHEMA, parse_checks({"n": "unique"})).apply(table(n=[None, None, 1]), NO_FAULTS).n_bad == 0


def brute(rules: Contract, rows: list[dict[str, Any]]) -> list[int]:
    """What the contract means, row by row."""
    used: list[set[Any]] = [set() for _ in rules.unique]
    good = []
    for i, row in enumerate(rows):
        values = [tuple(row[c] for c in one.columns) for one in rules.unique]
        bad = any(row[c] is None for c in rules.key) or (row["n"] is not None and row["n"] < 0)
        if bad or any(v in u for one, v, u in zip(rules.unique, values, used, strict=True) if one.drops or None not in v):
            continue
        for v, u in zip(values, used, strict=True):
            u.add(v)
        good.append(i)
    return good


@pytest.mark.parametrize("seed", range(6))
def test_what_arrives_together_makes_no_difference(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    n_rows = 300
    cells = {
        "id": [chance.choice([None, *(f"k{i}" for i in range(150))]) for _ in range(n_rows)],
        "n": [chance.choice([None, -1, *range(80)]) for _ in range(n_rows)],
        "x": [chance.choice([None, *(i / 4 for i in range(200))]) for _ in range(n_rows)],
    }
    rows = table(**cells)
    drops = (("n", "x"), SCHEMA.names)[: seed % 3]
    rules = contract(SCHEMA, parse_checks({"n": ["unique", {"at_least": 0}], "x": "unique"}), ("id",), drops)
    expected = brute(rules, rows.to_pylist())
    assert rules.apply(rows, NO_FAULTS).rows.tolist() == expected
    indexes = open_indexes(rules, tmp_path, None)
    good, start, commits = [], 0, 0
    while start < n_rows:
        size = chance.randint(1, 60)
        judged = rules.apply(rows.slice(start, size), NO_FAULTS, indexes)
        good += (judged.rows + start).tolist()
        start += size
        commits += 1
        if chance.random() < 0.7:  # else the claim waits for the next commit
            for index in indexes.values():
                while index._claimed:
                    index.keep(commits, len(good))
    assert good == expected


# The index.


def ints(*values: int) -> Keys:
    column = Column(name="k", type="int")
    return keys_of(pa.table({"k": pa.array(values, pa.int64())}), (column,))


def words(*values: str) -> Keys:
    return keys_of(pa.table({"k": pa.array(values)}), (Column(name="k", type="string"),))


def test_whole_numbers_keep_their_order_and_are_exact() -> None:
    assert ints(2**63 - 1, 0, -1, -(2**63)).rows.tolist() == [3, 2, 1, 0]
    assert ints(1).two is None
    assert words("a").two is not None


def found_in(index: KeyIndex, keys: Keys) -> list[bool]:
    """The verdict for each row."""
    back = np.zeros(len(keys.one), dtype=np.bool_)
    back[keys.rows] = index.find(keys)
    return [bool(b) for b in back]


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("make", [ints, lambda *values: words(*(f"user {v}" for v in values))], ids=["exact", "hashed"])
def test_an_index_equals_a_set(tmp_path: Path, make: Any, filtered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelinscale.data._keys._BLOCK", 64)  # many blocks, so that every road is taken
    monkeypatch.setattr("modelinscale.data._keys._FAN", 3)  # few commits, and runs of runs of runs all the same
    monkeypatch.setattr("modelinscale.data._keys._FILTER_FROM", 100 if filtered else 10**9)
    monkeypatch.setattr("modelinscale.data._keys._FILTER_MOST", 1 << 11)
    kind = "int" if make is ints else "string"
    index = open_index(tmp_path, (Column(name="k", type=kind),), None)
    generator, known = np.random.default_rng(7), set[int]()
    for commit in range(1, 46):
        asked = generator.integers(-5000, 5000, generator.integers(1, 300))
        keys = make(*asked.tolist())
        assert found_in(index, keys) == [int(v) in known for v in asked]
        new = np.array([v for v in dict.fromkeys(asked.tolist()) if v not in known], dtype=np.int64)
        index.claim(make(*new.tolist()))
        known |= set(new.tolist())
        index.keep(commit, len(known))
    assert len(index._runs) < 10
    assert max(run.level for run in index._runs) >= 3
    again = KeyIndex(tmp_path, index.columns)
    assert again._load()
    everything = make(*range(-5000, 5000))
    assert found_in(again, everything) == [v in known for v in range(-5000, 5000)]


def test_equal_first_halves_of_different_keys_are_told_apart(tmp_path: Path) -> None:
    index = open_index(tmp_path, (Column(name="k", type="string"),), None)
    index.claim(ordered(np.array([5, 5, 5, 9], np.uint64), np.array([1, 2, 3, 4], np.uint64)))
    asked = ordered(np.array([5, 5, 9, 5, 7], np.uint64), np.array([3, 4, 4, 1, 1], np.uint64))
    assert found_in(index, asked) == [True, False, True, True, False]
    index.keep(1, 4)
    assert found_in(index, asked) == [True, False, True, True, False]
    assert repeated(ordered(np.array([5, 5, 5], np.uint64), np.array([1, 2, 1], np.uint64))).tolist() == [False, False, True]


KEYED = Schema(columns=(Column(name="k", type="string"), Column(name="u", type="int")))


def keyed(*values: str) -> pa.Table:
    return pa.table({"k": values, "u": [None] * len(values)}, schema=arrow_schema(KEYED))


def test_an_index_is_built_from_the_table_when_it_is_missing_behind_ahead_or_damaged(tmp_path: Path) -> None:
    uri, folder, columns = str(tmp_path / "t"), tmp_path / "keys", KEYED.columns[:1]
    create_table(uri, KEYED, keyed("a", "b"), batch="1")
    asked = words("a", "b", "c", "d")

    def found() -> list[bool]:
        return found_in(open_index(folder, columns, open_table(uri)), asked)

    assert found() == [True, True, False, False]  # missing
    open_table(uri).append(keyed("c"), batch="2")
    assert found() == [True, True, True, False]  # behind
    run = next(folder.glob("*.keys"))
    run.write_bytes(run.read_bytes()[:3])
    assert found() == [True, True, True, False]  # damaged
    (folder / "index.json").write_text("{", encoding="utf-8")
    assert found() == [True, True, True, False]
    index = open_index(folder, columns, open_table(uri))
    index.claim(words("d"))
    index.keep(3, 4)  # a commit that the table has not
    assert found() == [True, True, True, False]  # ahead
    open_table(uri).drop_after(1)
    assert found() == [True, True, False, False]  # rows went


def test_missing_values_of_a_table_are_in_no_index(tmp_path: Path) -> None:
    uri = str(tmp_path / "t")
    create_table(uri, KEYED, keyed("a", "b"), batch="1")
    index = open_index(tmp_path / "keys", KEYED.columns[1:], open_table(uri))
    assert (index.n_rows, len(index._runs)) == (2, 0)
    assert open_index(tmp_path / "keys", KEYED.columns[1:], open_table(uri)).n_rows == 2


# Mistakes.


def test_all_that_does_not_fit_the_columns_is_told_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        contract(SCHEMA, {"idd": (), "id": (Between(low=0, high=1),), "n": (Matches(pattern="a"),), "x": (Between(low=0, high=1),)}, ("nn", "v"))
    message = str(caught.value)
    for expected in (
        "`key` names 'nn', which is not a column. Did you mean 'n'?",
        "`key` names 'v', a vector",
        "`checks` names 'idd', which is not a column. Did you mean 'id'?",
        "`checks`: id: `between` cannot be held against a column of type string",
        "`checks`: n: `matches` cannot be held against a column of type int",
    ):
        assert expected in message


def test_a_key_that_names_a_column_twice_is_refused() -> None:
    with pytest.raises(SpecError, match="names a column twice"):
        contract(SCHEMA, key=("id", "id"))
