"""The simulated world: the same for its seed, never changed by what comes later, honest about what is known when."""

from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from numpy.typing import NDArray

from modelinscale.core.errors import SourceError, SpecError
from modelinscale.data.sources import Chunk, Source
from modelinscale.data.sources._payments import Day, World, days
from modelinscale.data.sources._payments.frauds import SCENARIOS
from modelinscale.data.sources.simulator import Simulator

SMALL = {"customers": 250, "terminals": 300, "fraud": 5.0}
DAY_S = 86_400


def rows(source: Source, after: dict[str, Any] | None = None) -> pa.Table:
    chunks = list(source.read(after, source.columns()))
    assert chunks, "nothing was read"
    return pa.Table.from_batches([c.batch for c in chunks])


@pytest.fixture(scope="module")
def simulated() -> pa.Table:
    return rows(Simulator.model_validate({**SMALL, "days": 60}))


@pytest.fixture(scope="module")
def short() -> pa.Table:
    return rows(Simulator.model_validate({**SMALL, "days": 20}))


@pytest.fixture(scope="module")
def world() -> World:
    return World(seed=7, customers=250, shops=300, weekday=3)


@pytest.fixture(scope="module")
def lived(world: World) -> list[Day]:
    return list(islice(days(world, fraud=5.0, report_within_s=7.0 * DAY_S), 60))


def numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    return np.asarray(table[name].cast(pa.float64()).to_numpy(zero_copy_only=False))


def test_the_same_settings_give_the_same_rows(short: pa.Table) -> None:
    assert rows(Simulator.model_validate({**SMALL, "days": 20})).equals(short)


def test_another_seed_gives_other_rows(short: pa.Table) -> None:
    assert not rows(Simulator.model_validate({**SMALL, "days": 20, "seed": 8})).equals(short)


def test_more_days_leave_the_earlier_rows_as_they_are(short: pa.Table, simulated: pa.Table) -> None:
    assert simulated.slice(0, len(short)).equals(short)
    assert len(simulated) > len(short) > 0


@pytest.mark.parametrize(("deliver", "n_days"), [("labelled", 14), ("at_once", 7)])
def test_a_reader_resumed_from_any_cursor_sees_the_rest_once(deliver: str, n_days: int) -> None:
    source = Simulator.model_validate({**SMALL, "days": n_days, "deliver": deliver})
    chunks: list[Chunk] = list(source.read(None, source.columns()))
    assert len(chunks) == 7
    for i, chunk in enumerate(chunks):
        rest = list(source.read(chunk.cursor, source.columns()))
        assert [c.cursor for c in rest] == [c.cursor for c in chunks[i + 1 :]]
        assert all(a.batch.equals(b.batch) for a, b in zip(rest, chunks[i + 1 :], strict=True))


def test_time_that_passes_between_two_reads_brings_exactly_the_new_days() -> None:
    early, late = (Simulator.model_validate({**SMALL, "days": n}) for n in (20, 23))
    *_, last = early.read(None, early.columns())
    new = list(late.read(last.cursor, late.columns()))
    assert [c.where for c in new] == ["day 14", "day 15", "day 16"]
    assert early.fingerprint() != late.fingerprint()


def test_days_of_another_world_are_not_continued() -> None:
    source = Simulator.model_validate({**SMALL, "days": 12})
    first = next(source.read(None, source.columns()))
    with pytest.raises(SourceError, match="other settings"):
        list(source.but(seed=8).read(first.cursor, source.columns()))


def test_before_the_first_label_is_settled_there_is_nothing() -> None:
    source = Simulator.model_validate({**SMALL, "days": 7})
    assert list(source.read(None, source.columns())) == []


def test_chunks_have_the_columns_of_the_schema_and_may_be_fewer() -> None:
    from modelinscale.data.arrow import arrow_schema

    source = Simulator.model_validate({**SMALL, "days": 9})
    schema = source.columns()
    for chunk in source.read(None, schema):
        assert chunk.batch.schema.equals(arrow_schema(schema))
    few = schema.only(["amount", "is_fraud"])
    assert next(source.read(None, few)).batch.schema.names == ["amount", "is_fraud"]


def test_columns_that_are_never_missing_are_never_null(simulated: pa.Table) -> None:
    for column in Simulator().columns().columns:
        assert column.nullable or simulated[column.name].null_count == 0, f"{column.name} has nulls"


def test_labels_delivered_at_once_are_null_for_everybody_until_they_are_settled() -> None:
    source = Simulator.model_validate({**SMALL, "days": 14, "deliver": "at_once"})
    table = rows(source)
    settled = pc.less_equal(table["paid_at"], pc.subtract(pc.max(table["paid_at"]), pa.scalar(7 * DAY_S * 10**6, pa.duration("us"))))
    known = table["is_fraud"].is_valid()
    # A label known early only for frauds would tell the model which of the newest rows are frauds.
    assert pc.all(pc.or_(pc.invert(settled), known)).as_py()
    newest = table.filter(pc.greater(table["paid_at"], pc.add(pc.min(table["paid_at"]), pa.scalar(8 * DAY_S * 10**6, pa.duration("us")))))
    assert newest["is_fraud"].null_count == len(newest) > 0
    assert newest["reported_at"].null_count == len(newest)
    once = rows(source.but(days=21, deliver="labelled"))
    assert once.drop_columns(["is_fraud", "reported_at"]).equals(table.drop_columns(["is_fraud", "reported_at"]))


def test_frauds_are_rare_and_reported_within_the_delay() -> None:
    table = rows(Simulator(days=47))
    fraud = table["is_fraud"]
    assert 0.004 < pc.mean(fraud.cast(pa.float64())).as_py() < 0.011
    reported = pc.subtract(table.filter(fraud)["reported_at"], table.filter(fraud)["paid_at"]).cast(pa.int64()).to_numpy()
    assert reported.min() > 0
    assert reported.max() < 7 * DAY_S * 10**6
    assert table.filter(pc.invert(fraud))["reported_at"].null_count == len(table.filter(pc.invert(fraud)))


def test_scenarios_come_and_go(lived: list[Day]) -> None:
    seen = np.stack([np.bincount(d.paid.scenario, minlength=len(SCENARIOS)) for d in lived])
    assert (seen[:, 1:].sum(0) > 0).all(), dict(zip(SCENARIOS, seen.sum(0), strict=True))
    testing = seen[:, SCENARIOS.index("card_testing")]
    quiet = max(len(run) for run in "".join("x" if n else "." for n in testing).split("x"))
    assert quiet >= 7, "card testing was never away for a week"


def test_payments_are_in_order_of_time_with_names_of_their_own(simulated: pa.Table) -> None:
    moments = simulated["paid_at"].cast(pa.int64()).to_numpy()
    assert (np.diff(moments) >= 0).all()
    assert pc.count_distinct(simulated["payment_id"]).as_py() == len(simulated)


def test_what_is_known_at_a_payment_equals_a_replay_of_the_payments_before_it(world: World, lived: list[Day]) -> None:
    """The fast day-by-day books against the definition, payment by payment."""
    log: list[tuple[int, float]] = []
    reports: list[tuple[int, float]] = []
    last: dict[int, tuple[int, Any]] = {}
    spent: dict[int, list[tuple[int, float]]] = {}
    for day in lived[:25]:
        paid = day.paid
        reports += [(int(s), float(r)) for s, r, f in zip(paid.shop, paid.reported, paid.scenario, strict=True) if f]
        for i in range(len(paid)):
            card, moment, shop = int(paid.card[i]), int(paid.moment[i]), int(paid.shop[i])
            before = spent.setdefault(card, [])
            assert day.n_last_hour[i] == sum(m >= moment - 3600 for m, _ in before)
            recent = [a for m, a in before if m >= moment - DAY_S]
            assert day.n_last_day[i] == len(recent)
            assert day.amount_last_day[i] == pytest.approx(sum(recent), abs=0.011)
            if before:
                assert day.s_since_last[i] == moment - before[-1][0]
                assert day.mean_amount[i] == pytest.approx(sum(a for _, a in before) / len(before), abs=0.011)
            else:
                assert np.isnan(day.s_since_last[i])
                assert np.isnan(day.mean_amount[i])
            xy = world.shop_xy[shop]
            if shop < world.n_local and card in last:
                assert day.km_from_last[i] == pytest.approx(float(np.hypot(*(xy - last[card][1]))), abs=0.051)
            else:
                assert np.isnan(day.km_from_last[i])
            told = sum(s == shop and moment - 28 * DAY_S <= int(r) < moment for s, r in reports)
            assert day.terminal_reports[i] == told
            before.append((moment, float(paid.amount[i])))
            if shop < world.n_local:
                last[card] = (moment, xy)
        log.append((day.number, len(paid)))
    assert len(reports) > 30


def test_online_payments_have_a_device_and_no_place(simulated: pa.Table) -> None:
    online = pc.equal(simulated["channel"], "online")
    for name in ("place", "km_from_home"):
        assert pc.all(pc.equal(simulated[name].is_null(), online)).as_py(), name
    for name in ("device", "device_country", "device_age_days"):
        assert pc.all(pc.equal(simulated[name].is_valid(), online)).as_py(), name
    assert np.nanmin(numbers(simulated, "device_age_days")) >= 0


def test_shops_sell_only_while_they_are_open(simulated: pa.Table) -> None:
    clothing = simulated.filter(pc.and_(pc.equal(simulated["category"], "clothing"), pc.not_equal(simulated["channel"], "online")))
    honest = clothing.filter(pc.invert(clothing["is_fraud"]))
    hours = set(pc.hour(honest["paid_at"]).to_pylist())
    assert hours <= set(range(10, 20)), sorted(hours)


def test_a_mistake_in_the_settings_is_refused() -> None:
    with pytest.raises((ValueError, SpecError), match="days"):
        Source.parse({"type": "simulator", "days": 0})


def test_faulty_terminals_deliver_some_rows_wrong_and_leave_the_others_alone(simulated: pa.Table) -> None:
    table = rows(Simulator.model_validate({**SMALL, "days": 60, "faults": 0.05}))
    assert table["card_id"].null_count > 0
    assert table["amount"].null_count > 0
    assert pc.min(table["amount"]).as_py() < 0
    assert "unknown" in table["channel"].unique().to_pylist()
    n_twice = len(table) - pc.count_distinct(table["payment_id"]).as_py()
    assert n_twice == len(table) - len(simulated) > 0
    assert 0.03 < (table["amount"].null_count + table["card_id"].null_count + n_twice) / len(table) * 5 / 3 < 0.07


def test_payments_not_settled_yet_are_those_after_the_delivered_ones() -> None:
    source = Simulator.model_validate({**SMALL, "days": 14})
    newest = source.unsettled()
    assert newest["is_fraud"].null_count == 0
    longer = rows(source.but(days=21))
    assert longer.slice(len(longer) - len(newest)).equals(newest)
    assert len(longer) == len(rows(source)) + len(newest)


def test_time_passing_is_the_same_feed_and_another_seed_is_not() -> None:
    assert Simulator(days=30).feed() == Simulator(days=60).feed()
    assert Simulator(days=30).feed() != Simulator(days=30, seed=8).feed()
