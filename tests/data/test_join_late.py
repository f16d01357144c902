"""Joined rows that are corrected when what was known of them arrives late: as if everything had been there at once."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelinscale.api import Project
from modelinscale.core.errors import SpecError
from modelinscale.data.clean import clean
from modelinscale.data.collect import Collected, collect, open_quarantine
from modelinscale.data.contract import contract, parse_checks
from modelinscale.data.lake import open_table
from modelinscale.data.sources import Cursor, Source
from modelinscale.data.sources import joined as module
from modelinscale.data.sources._late import MOST_PLACES, begin_again, kept_places
from modelinscale.data.sources.redis import Redis
from modelinscale.spec import loads
from modelinscale.spec._source import settings_of
from modelinscale.testing.examples import examples

START = datetime(2026, 1, 1)


class Shop:
    """Orders and balances in files that grow, and a table of what was collected, by key."""

    def __init__(self, folder: Path, **join: Any) -> None:
        self.orders, self.balances = folder / "orders.csv", folder / "balances.csv"
        self.orders.write_text("order,customer,at\n0,0,2026-01-01T00:00:00\n")
        self.balances.write_text("customer,known,balance\n0,2026-01-01T00:00:00,0\n")
        self.left: list[tuple[int, int, int]] = [(0, 0, 0)]
        self.right: list[tuple[int, int, int]] = [(0, 0, 0)]
        right = {"type": "csv", "path": str(self.balances), "join": {"on": "customer", "as_of": {"at": "known"}, "correct": "9999d", **join}}
        self.source = Source.parse(settings_of([{"type": "csv", "path": str(self.orders), "block": "1KiB"}, right]))
        self.schema = self.source.columns()
        self.cursor: Cursor | None = None
        self.rows: dict[int, dict[str, Any]] = {}
        self.n_read = 0

    def order(self, customer: int, hour: int) -> None:
        self.left.append((len(self.left), customer, hour))
        with self.orders.open("a") as file:
            file.write(f"{len(self.left) - 1},{customer},{(START + timedelta(hours=hour)).isoformat()}\n")

    def balance(self, customer: int, hour: int) -> None:
        self.right.append((customer, hour, len(self.right)))
        with self.balances.open("a") as file:
            file.write(f"{customer},{(START + timedelta(hours=hour)).isoformat()},{len(self.right) - 1}\n")

    def collect(self, chunks: int = 1000) -> None:
        """As the lake does; after some chunks the collect is killed."""
        for i, chunk in enumerate(self.source.read(self.cursor, self.schema)):
            if i == chunks:
                return
            self.n_read += chunk.batch.num_rows
            self.rows |= {row["order"]: row for row in clean(chunk.batch, self.schema).batch.to_pylist()}
            self.cursor = json.loads(json.dumps(chunk.cursor))

    def to_lake(self, folder: Path, checks: dict[str, Any], **how: Any) -> Collected:
        """A collect into a table, by key, whose rows are `lake_rows`."""
        rules = replace(contract(self.schema, parse_checks(checks), ("order",)), replaces=True)
        return collect(self.source, lake=str(folder / "lake"), quarantine=str(folder / "quarantine"), contract=rules, **how)

    def expected(self, within: int | None = None, exact: bool = True) -> dict[int, int | None]:
        """For each order, all balances are looked at."""
        found: dict[int, int | None] = {}
        for order, customer, hour in self.left:
            known = [(h, i) for c, h, i in self.right if c == customer and (h < hour or (exact and h == hour)) and (within is None or hour - h <= within)]
            found[order] = max(known)[1] if known else None
        return found

    def found(self) -> dict[int, int | None]:
        return {order: row["balance"] for order, row in sorted(self.rows.items())}


def lake_rows(folder: Path) -> dict[int, int | None]:
    """The balance of each order in the table."""
    found = [row for block in open_table(str(folder / "lake")).blocks() for row in block.to_pylist()]
    return {row["order"]: row["balance"] for row in sorted(found, key=lambda row: row["order"])}


STEP = st.one_of(
    st.tuples(st.just("order"), st.integers(0, 2), st.integers(0, 20)),
    st.tuples(st.just("balance"), st.integers(0, 2), st.integers(0, 20)),
    st.tuples(st.just("collect"), st.sampled_from([0, 1, 2, 1000, 1000]), st.just(0)),
)


@pytest.mark.slow
@settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=14), within=st.sampled_from([None, 3, 8]), exact=st.booleans())
def test_whatever_comes_when_the_rows_end_as_if_all_had_been_there_at_once(tmp_path: Path, steps: Any, within: int | None, exact: bool) -> None:
    shop = Shop(tmp_path, allow_exact=exact, **({} if within is None else {"within": f"{within}h"}))
    for what, a, b in steps:
        if what == "collect":
            shop.collect(a)
        else:
            getattr(shop, what)(a, b)
    shop.collect()
    assert shop.found() == shop.expected(within, exact)
    n_read = shop.n_read
    shop.collect()
    assert shop.found() == shop.expected(within, exact)
    moments = {i: hour for _, hour, i in shop.right}
    assert all(value is None or moments[value] <= shop.left[order][2] for order, value in shop.found().items()), "a value from the future"
    shop.order(0, 5)  # with it the cursor moves past all that was late
    shop.collect()
    n_read = shop.n_read
    shop.collect()
    assert shop.n_read == n_read, "nothing is new, so nothing comes"


def test_only_rows_that_a_late_row_may_change_come_again(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    for i in range(300):
        shop.order(i % 10, i)
    shop.collect()
    assert shop.n_read == 301
    shop.balance(3, 250)
    shop.collect()
    assert shop.n_read == 301 + len([o for o in shop.left if o[1] == 3 and o[2] >= 250])
    assert shop.found() == shop.expected()


def test_rows_older_than_asked_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(tmp_path, correct="2h")
    monkeypatch.setattr(module, "now", lambda: START + timedelta(hours=11))
    for hour in range(11):
        shop.order(1, hour)
    shop.collect()
    shop.balance(1, 0)
    shop.collect()
    assert [order for order, value in shop.found().items() if value == 1] == [10, 11]


def test_rows_read_before_it_was_asked_for_are_corrected_in_whatever_order_they_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "now", lambda: START + timedelta(hours=20))
    shop = Shop(tmp_path, correct="0s")
    asked = Shop(tmp_path, correct="10h").source
    shop.order(0, 15)
    shop.collect()
    shop.source = asked
    for hour in (2, 3):
        shop.order(0, hour)
        shop.collect()
    shop.balance(0, 14)
    shop.collect()
    assert shop.found() == {0: 0, 1: 1, 2: 0, 3: 0}


def test_rows_too_young_are_not_brought_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(tmp_path, wait="1h")
    monkeypatch.setattr(module, "now", lambda: START + timedelta(hours=3))
    shop.collect()
    shop.balance(0, 0)
    shop.order(0, 3)
    shop.collect()
    assert shop.found() == {0: 1}
    monkeypatch.setattr(module, "now", lambda: START + timedelta(hours=4))
    shop.collect()
    assert shop.found() == {0: 1, 1: 1}


def test_a_cursor_stays_small_and_reading_begins_before_all_that_is_corrected() -> None:
    places: list[tuple[Cursor, int]] = []
    for i in range(1000):
        places = kept_places([*places, ({"row": i}, i)], oldest=500)
        assert len(places) <= MOST_PLACES
        begin = begin_again(places, 500)
        assert begin is None if i < 0 else begin is not None and begin["row"] < 500
    assert begin_again(places, 500) == {"row": 499}
    assert begin_again(places, -1) is None


@pytest.mark.parametrize(
    ("left", "right", "more", "told"),
    [
        ("{type: csv, path: a.csv}", "on: k, as_of: t, correct: 1d", "", "they would be there twice"),
        ("{type: csv, path: a.csv}", "on: k, correct: 1d", "key: k\n  write: upsert\n", "are about moments"),
        ("{type: redis, url: 'redis://h', stream: s}", "on: k, as_of: t, correct: 1d", "key: k\n  write: upsert\n", "what was read of a stream"),
    ],
)
def test_what_cannot_be_corrected_is_told(left: str, right: str, more: str, told: str) -> None:
    text = f"data:\n  source:\n    - {left}\n    - {{type: csv, path: b.csv, join: {{{right}}}}}\n  {more}\ntarget: y\n"
    with pytest.raises(SpecError, match=told):
        loads(text)


def test_what_was_read_of_any_stream_cannot_be_read_again() -> None:
    class Plugin(Redis):
        type = "somebodys"

    side = {"source": {"type": "csv", "path": "b.csv"}, "join": {"on": "k", "as_of": "t", "correct": "1d"}}
    with pytest.raises(ValueError, match="what was read of a stream"):
        module.Joined.model_validate({"main": Plugin(url="redis://h", stream="s"), "others": [side]})


def test_a_bad_row_that_comes_again_stands_in_quarantine_once_and_where_it_is(tmp_path: Path) -> None:
    shop, checks = Shop(tmp_path), {"customer": {"at_most": 5}}
    shop.order(1, 1)
    shop.order(9, 2)
    shop.to_lake(tmp_path, checks)
    for customer in (9, 1):
        shop.balance(customer, 1)
    shop.order(1, 4)
    shop.order(9, 3)  # read with those before it when they come again: the file has grown
    second = shop.to_lake(tmp_path, checks)
    assert (second.n_quarantined, second.n_quarantined_now) == (2, 1)
    assert "customer: not at most 5" in second.notes[0]
    shop.balance(9, 2)
    shop.balance(0, 0)
    third = shop.to_lake(tmp_path, checks)
    assert (third.n_quarantined, third.n_quarantined_now) == (2, 0)
    assert lake_rows(tmp_path) == {order: value for order, value in shop.expected().items() if order not in (2, 4)}
    found = [line for block in open_quarantine(str(tmp_path / "quarantine"), str(tmp_path / "lake")) for line in block.to_pylist()]
    assert [line["row"] for line in found] == [3, 5]
    lines = shop.orders.read_text().splitlines()
    ours = [lines[int(line["place"].rsplit(" ", 1)[1]) + line["row_in_place"] - 2] for line in found]
    assert [one.split(",")[0] for one in ours] == ["2", "4"]


def test_bad_rows_that_come_again_say_nothing_of_what_the_source_gives_now(tmp_path: Path) -> None:
    shop, checks = Shop(tmp_path), {"customer": {"at_most": 5}}
    for i in range(400):
        shop.order(9 if i % 3 == 0 else 1, i % 20)
    n_bad = shop.to_lake(tmp_path, checks).n_quarantined
    shop.balance(9, 0)
    assert shop.to_lake(tmp_path, checks).n_quarantined == n_bad == 134


def test_a_late_value_that_breaks_the_contract_leaves_the_row_as_it_was_and_is_told(tmp_path: Path) -> None:
    shop, checks = Shop(tmp_path), {"balance": {"at_most": 1}}
    shop.order(0, 5)
    shop.to_lake(tmp_path, checks)
    shop.balance(1, 0)
    shop.balance(0, 4)
    found = shop.to_lake(tmp_path, checks)
    assert found.notes == ("1 row that came again breaks the contract, in quarantine or in the table as before: 1 × balance: not at most 1.",)
    assert lake_rows(tmp_path) == {0: 0, 1: 0}
    assert found.n_quarantined == 0


def test_what_late_rows_changed_is_done_with_though_a_commit_ends_there(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.order(0, 5)
    shop.to_lake(tmp_path, {})
    shop.balance(0, 0)
    assert shop.to_lake(tmp_path, {}, commit_rows=1).n_added == 2
    assert shop.to_lake(tmp_path, {}, commit_rows=1).n_added == 0
    assert lake_rows(tmp_path) == shop.expected()


@pytest.mark.slow
def test_a_table_is_corrected_by_key_and_holds_each_row_once(tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_text("order,customer,at,late\n" + "".join(f"{i},{i % 5},2026-01-01T{i % 24:02}:00:00,{i % 2}\n" for i in range(200)))
    balances = tmp_path / "balances.csv"
    balances.write_text("customer,known,balance\n0,2026-01-01T00:00:00,7\n")
    (tmp_path / "model.yaml").write_text("""
name: orders
data:
  source:
    - {type: csv, path: orders.csv}
    - {type: csv, path: balances.csv, join: {on: customer, as_of: {at: known}, correct: 9999d}}
  key: order
  write: upsert
target: late
""")

    def rows() -> dict[int, int | None]:
        Project(tmp_path).run(until="collect")
        table = open_table(Project(tmp_path).describe("lake").facts["uri"])
        found = [row for block in table.blocks() for row in block.to_pylist()]
        assert len(found) == 200
        return {row["order"]: row["balance"] for row in found}

    assert set(rows().values()) == {7, None}
    with balances.open("a") as file:
        file.write("3,2026-01-01T12:00:00,9\n0,2026-01-01T20:00:00,8\n")
    after = rows()
    for i in range(200):
        hour, customer = i % 24, i % 5
        assert after[i] == (9 if customer == 3 and hour >= 12 else (8 if hour >= 20 else 7) if customer == 0 else None)
