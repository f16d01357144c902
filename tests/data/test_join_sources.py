"""A list of sources in model.yaml: the first gives the rows, the others what was known of them."""

import json
import sqlite3
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from modelinscale.api import Project
from modelinscale.core.errors import DataError, SpecError
from modelinscale.data.clean import clean
from modelinscale.data.sources import Source
from modelinscale.spec import loads
from modelinscale.spec._source import settings_of
from modelinscale.testing import sources as suite


def joined(*parts: Any) -> Source:
    return Source.parse(settings_of(list(parts)))


def rows(source: Source) -> list[dict[str, Any]]:
    schema = source.columns()
    return [row for chunk in source.read(None, schema) for row in clean(chunk.batch, schema).batch.to_pylist()]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Orders in a file; customers in another; balances, some known only later, in a database."""
    (tmp_path / "orders.csv").write_text(
        "order,customer,at,amount\n" + "".join(f"{i},{i % 7},2026-01-{1 + i // 24:02} {i % 24:02}:00:00,{i * 1.5}\n" for i in range(200))
    )
    (tmp_path / "customers.csv").write_text("id,country,amount\n" + "".join(f"{i},{'AB'[i % 2]},{i}\n" for i in range(6)))
    with sqlite3.connect(tmp_path / "bank.db") as db:
        db.execute("CREATE TABLE balances (id integer PRIMARY KEY, customer integer, known text, balance real)")
        start = datetime(2026, 1, 1, 0, 30)
        db.executemany("INSERT INTO balances VALUES (?, ?, ?, ?)", [(i, i % 7, str(start + timedelta(hours=5 * i)), i) for i in range(60)])
    db.close()
    return tmp_path


def orders(shop: Path) -> dict[str, Any]:
    return {"type": "csv", "path": str(shop / "orders.csv"), "block": "1KiB"}


def customers(shop: Path, **join: Any) -> dict[str, Any]:
    return {"type": "csv", "path": str(shop / "customers.csv"), "join": {"on": {"customer": "id"}, "prefix": "c_", **join}}


def balances(shop: Path, **join: Any) -> dict[str, Any]:
    return {
        "type": "sql",
        "url": f"sqlite:///{shop / 'bank.db'}",
        "table": "balances",
        "join": {"on": "customer", "as_of": {"at": "known"}, "columns": ["balance"], **join},
    }


def test_each_row_gets_what_was_known_of_it_by_then(shop: Path) -> None:
    source = joined(orders(shop), customers(shop), balances(shop))
    found = rows(source)
    assert [r["order"] for r in found] == list(range(200))
    for row in found:
        i, customer = row["order"], row["customer"]
        assert row["c_country"] == ("AB"[customer % 2] if customer < 6 else None)
        known = [b for b in range(60) if b % 7 == customer and datetime(2026, 1, 1, 0, 30) + timedelta(hours=5 * b) <= row["at"]]
        assert row["balance"] == (max(known) if known else None)
        assert row["amount"] == i * 1.5


def test_joined_sources_are_a_source_like_any_other(shop: Path) -> None:
    source = joined(orders(shop), customers(shop), balances(shop))
    suite.from_every_cursor_the_rest_comes_once(source)
    suite.reading_twice_gives_the_same_chunks(source)
    suite.chunks_match_the_schema(source)
    suite.only_asked_columns_come(source)
    suite.at_the_end_nothing_comes(source)
    suite.the_fingerprint_is_plain_and_still(source)
    suite.settings_round_trip(source)

    def grow() -> int:
        with (shop / "orders.csv").open("a") as file:
            file.write("900,3,2026-02-01 00:00:00,1\n")
        return 1

    suite.new_rows_come_once(source, grow)


def test_small_memory_gives_the_same_rows(shop: Path) -> None:
    source = joined(orders(shop), customers(shop), balances(shop))
    small = source.but(memory=1 << 16)
    assert rows(small) == rows(source)


def test_the_budget_of_a_collect_bounds_what_others_take_also_where_a_source_lies_in_another(shop: Path) -> None:
    source = joined(orders(shop), customers(shop))
    outer = joined(source.plain(), balances(shop))
    settings = {"source": source.plain(), "by": ["customer"], "order_by": "order", "values": ["amount"]}
    sequences = Source.parse(settings_of({"type": "sequences", **settings}))
    cases: list[tuple[Source, Callable[[Any], Any]]] = [(source, lambda s: s), (outer, lambda s: s.main), (sequences, lambda s: s.source)]
    for one, inner in cases:
        less = one.within(1 << 20, one.columns())
        assert inner(one).memory == 512 << 20
        assert inner(less).memory == 16 << 20
        assert less.feed() == one.feed()


def test_rows_too_young_wait(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelinscale.data.sources import joined as module

    monkeypatch.setattr(module, "now", lambda: datetime(2026, 1, 6, tzinfo=None))
    source = joined(orders(shop), balances(shop, wait="1d"))
    chunks = list(source.read(None, source.columns()))
    n = sum(c.batch.num_rows for c in chunks)
    assert 40 < n < 5 * 24
    monkeypatch.setattr(module, "now", lambda: datetime(2027, 1, 6, tzinfo=None))
    rest = list(source.read(chunks[-1].cursor, source.columns()))
    assert n + sum(c.batch.num_rows for c in rest) == 200


def test_what_does_not_fit_together_is_told_at_once(shop: Path) -> None:
    (shop / "words.csv").write_text("customer,amount\nx1,1\nx2,2\n")
    words = {"type": "csv", "path": str(shop / "words.csv"), "join": {"on": "customer"}}
    with pytest.raises(SpecError) as caught:
        joined(orders(shop), words, customers(shop, on="custommer")).columns()
    assert "'customer' is int in the first source, 'customer' is string in" in str(caught.value)
    assert "a column 'amount' is there already: give these a `prefix`" in str(caught.value)
    assert "the first source has no column 'custommer'. Did you mean 'customer'?" in str(caught.value)


def test_a_key_that_names_several_rows_stops_the_collect(shop: Path) -> None:
    with (shop / "customers.csv").open("a") as file:
        file.write("3,B,9\n")
    with pytest.raises(DataError, match=r"customers.csv: 1 keys name several rows"):
        rows(joined(orders(shop), customers(shop)))


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ([{"type": "csv", "path": "a.csv"}], "a list of one source joins nothing"),
        ([{"type": "csv", "path": "a.csv", "join": {"on": "x"}}, {"type": "csv", "path": "b.csv"}], "Remove its `join`"),
        ([{"type": "csv", "path": "a.csv"}, {"type": "csv", "path": "b.csv"}], "source 2 does not say how it is joined"),
        ([{"type": "csv", "path": "a.csv"}, {"type": "csv", "path": "b.csv", "join": {"on": "x", "within": "1d"}}], "are about moments"),
        ([{"type": "csv", "path": "a.csv"}, {"type": "csv", "path": "b.csv", "join": {"on": "x", "colums": ["y"]}}], "colums"),
    ],
)
def test_slips_in_a_list_are_told(written: list[Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        loads(json.dumps({"data": {"source": written}, "target": "y"}))


@pytest.mark.slow
def test_a_list_of_sources_goes_all_the_way(shop: Path) -> None:
    """Orders in a file, balances in a database: one model, whose lineage and card name both."""
    (shop / "orders.csv").write_text(
        "order,customer,at,late\n" + "".join(f"{i},{i % 7},2026-01-{1 + i // 24:02} {i % 24:02}:00:00,{'yes' if (i // 9) % 2 else 'no'}\n" for i in range(600))
    )
    (shop / "model.yaml").write_text("""
name: late
data:
  source:
    - {type: csv, path: orders.csv}
    - {type: csv, path: customers.csv, join: {on: {customer: id}, prefix: c_}}
    - {type: sql, url: "sqlite:///bank.db", table: balances, join: {on: customer, as_of: {at: known}, columns: [balance]}}
  key: order
target: late
model: linear
""")
    outcome = Project(shop).run()
    assert outcome.collected["n_rows"] == 600
    names = {c["name"] for c in outcome.collected["schema"]["columns"]}
    assert outcome.package is not None
    card = (outcome.package / "card.md").read_text(encoding="utf-8")
    assert "Rows from `orders.csv`, joined with `customers.csv`, `sqlite:///bank.db.balances`." in card
    assert names == {"order", "customer", "at", "late", "c_country", "c_amount", "balance"}
    again = Project(shop).run()
    assert again.version == outcome.version
    assert again.collected["n_added"] == 0


def test_moments_of_any_zone_meet_in_utc_and_rows_without_a_key_join_nothing(tmp_path: Path) -> None:
    (tmp_path / "left.csv").write_text(
        "id,k,at\n1,a,2026-01-01T12:00:00+02:00\n2,a,2026-01-01T12:00:00Z\n3,a,2026-01-01 09:59:59\n4,,2026-01-01T12:00:00Z\n5,a,\n6,b,2026-01-01T12:00:00Z\n"
    )
    (tmp_path / "right.csv").write_text(
        "k,known,v\na,2026-01-01T05:00:00-05:00,10\na,2026-01-01T11:00:00+00:00,11\n,2026-01-01T01:00:00Z,12\n,2026-01-01T01:00:00Z,13\na,,14\nb,2025-12-31T12:00:00Z,15\n"
    )
    left = {"type": "csv", "path": str(tmp_path / "left.csv")}

    def found(**join: Any) -> list[int | None]:
        right = {"type": "csv", "path": str(tmp_path / "right.csv"), "join": {"on": "k", "as_of": {"at": "known"}, **join}}
        return [row["v"] for row in rows(joined(left, right))]

    assert found() == [10, 11, None, None, None, 15]
    assert found(allow_exact=False) == [None, 11, None, None, None, 15]
    assert found(within="1d") == [10, 11, None, None, None, 15]
    assert found(within="23h") == [10, 11, None, None, None, None]
    (tmp_path / "alone.csv").write_text("k,w\na,1\n,2\n,3\n")
    alone = {"type": "csv", "path": str(tmp_path / "alone.csv"), "join": {"on": "k"}}
    assert [row["w"] for row in rows(joined(left, alone))] == [1, 1, 1, None, 1, None]
