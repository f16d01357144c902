"""Simulated card payments: honest people and fraudsters, drawn from a seed, with labels that become known days later."""

import math
from collections.abc import Iterator
from datetime import UTC, date, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from modelinscale.core.errors import SourceError
from modelinscale.core.identity import identity
from modelinscale.core.schema import Column, Schema
from modelinscale.core.units import Duration
from modelinscale.data.sources import Chunk, Cursor, Source

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from modelinscale.data.sources._payments import Day, World

_DAY_S = 86_400
_COLUMNS = Schema(
    columns=(
        Column(name="payment_id", type="string", nullable=False),
        Column(name="paid_at", type="time", nullable=False),
        Column(name="customer_id", type="string", nullable=False),
        Column(name="card_id", type="string", nullable=False),
        Column(name="terminal_id", type="string", nullable=False),
        Column(name="amount", type="float", nullable=False),
        Column(name="channel", type="string", nullable=False),
        Column(name="category", type="string", nullable=False),
        Column(name="place", type="string"),
        Column(name="country", type="string", nullable=False),
        Column(name="home_country", type="string", nullable=False),
        Column(name="device", type="string"),
        Column(name="device_country", type="string"),
        Column(name="device_age_days", type="float"),
        Column(name="km_from_home", type="float"),
        Column(name="km_from_last", type="float"),
        Column(name="s_since_last", type="float"),
        Column(name="n_last_hour", type="int", nullable=False),
        Column(name="n_last_day", type="int", nullable=False),
        Column(name="amount_last_day", type="float", nullable=False),
        Column(name="mean_amount", type="float"),
        Column(name="terminal_reports", type="int", nullable=False),
        Column(name="reported_at", type="time"),
        Column(name="is_fraud", type="bool"),
    )
)


class Simulator(Source):
    """Simulated card payments: honest people and fraudsters, drawn from a seed, with labels that become known days later.

    The same settings give the same rows. With more ``days`` the earlier rows stay as they are and new ones follow, as in a real feed.
    ``reported_at`` is known only afterwards and must not be a feature: list it in `data.leave_out`. docs/fraud-simulator.md describes the world.
    """

    days: int = Field(120, ge=1, le=3650)
    """Days that have gone by: raise it and collect again to let time pass."""
    start: date = date(2026, 1, 1)
    """The first day."""
    seed: int = 7
    """Another seed is another world: other people, shops and frauds."""
    customers: int = Field(2500, ge=10, le=10_000_000)
    """People; each makes about 0.7 payments a day."""
    terminals: int = Field(900, ge=300, le=1_000_000)
    """Payment terminals, in shops and online."""
    fraud: float = Field(1.0, ge=0, le=50)
    """How busy fraudsters are; 1 makes about 0.7 % of payments fraudulent."""
    label_delay: Duration = Field(7 * _DAY_S, ge=3600, le=60 * _DAY_S)
    """How long after a payment it is settled whether it was fraud: victims report within this time."""
    faults: float = Field(0.0, ge=0, le=0.5)
    """Share of payments that a faulty terminal delivers wrong: without card or amount, with a negative amount, through no known channel, or twice."""
    deliver: Literal["labelled", "at_once"] = "labelled"
    """labelled: a payment is delivered on the first day its label is settled, so the last days are still missing.
    at_once: all payments are delivered, and ``is_fraud`` and ``reported_at`` are null where the label is not settled yet."""

    def columns(self) -> Schema:
        return _COLUMNS

    def read(self, after: Cursor | None, schema: Schema) -> Iterator[Chunk]:
        """One chunk a day. A resumed reader lives through the days before again (about 100 days a second): they decide what is known later."""
        done = self._done(after)
        if done >= self._n_delivered:
            return
        from modelinscale.data.sources._payments import World, days

        world = World(seed=self.seed, customers=self.customers, shops=self.terminals, weekday=self.start.weekday())
        for day in islice(days(world, fraud=self.fraud, report_within_s=self.label_delay), done, self._n_delivered):
            batch = self._spoil(self._batch(day, world), world.chance("faults", day.number))
            yield Chunk(batch.select([c for c in schema.names if c in _COLUMNS]), {"world": self._world, "days": day.number + 1}, f"day {day.number + 1}")

    def feed(self) -> Any:
        return {k: v for k, v in self.plain().items() if k != "days"}

    def fingerprint(self) -> Any:
        return {"world": self._world, "days": self._n_delivered}

    def unsettled(self) -> "pa.Table":
        """The payments of the last days, whose labels nobody can know yet, with the labels they will get: for demonstrations and tests."""
        import pyarrow as pa

        now = self.but(deliver="labelled", faults=0.0)
        later = now.but(days=now.days + now._wait)
        chunks = later.read({"world": later._world, "days": now._n_delivered}, _COLUMNS)
        return pa.Table.from_batches([chunk.batch for chunk in chunks])

    @property
    def _world(self) -> str:
        """Names the world: everything but how long it has gone on."""
        return identity(self.feed())

    @property
    def _n_delivered(self) -> int:
        return max(self.days - (self._wait if self.deliver == "labelled" else 0), 0)

    @property
    def _wait(self) -> int:
        """Days after which the labels of a day are settled."""
        return math.ceil(self.label_delay / _DAY_S)

    def _done(self, after: Cursor | None) -> int:
        """Days delivered before. Raises `SourceError` when they were days of another world."""
        if after is None:
            return 0
        if after.get("world") != self._world:
            raise SourceError(
                "the rows collected so far come from a simulator with other settings; those of this one do not continue them.",
                fix="Only `days` may change. Put the settings back, or name another `store`.",
            )
        return int(after["days"])

    def _batch(self, day: "Day", world: "World") -> "pa.RecordBatch":
        import numpy as np
        import pyarrow as pa

        from modelinscale.data.sources._payments import world as w

        paid = day.paid
        n = len(paid)
        begin = int(datetime(self.start.year, self.start.month, self.start.day, tzinfo=UTC).timestamp())
        owner, fraud = world.owner[paid.card], paid.scenario > 0
        settled = paid.moment + self.label_delay <= self.days * _DAY_S if self.deliver == "at_once" else np.ones(n, np.bool_)

        def words(of: tuple[str, ...], index: "np.ndarray[Any, Any]") -> pa.Array:
            """The words at those places; null where the place is negative."""
            return pa.DictionaryArray.from_arrays(pa.array(index.astype(np.int32), mask=index < 0), pa.array(of)).cast(pa.string())

        def names(letter: str, index: "np.ndarray[Any, Any]", width: int) -> pa.Array:
            different, at = np.unique(index, return_inverse=True)
            return words(tuple(f"{letter}{i:0{width}d}" for i in different), at)

        def moments(seconds: "np.ndarray[Any, Any]", known: "np.ndarray[Any, Any]") -> pa.Array:
            micro = np.where(known, np.nan_to_num(seconds) + begin, 0).astype(np.int64) * 1_000_000
            return pa.array(micro, mask=~known).cast(pa.timestamp("us"))

        columns = {
            "payment_id": pa.array([f"{day.number:04d}-{i:06d}" for i in range(n)], pa.string()),
            "paid_at": moments(paid.moment, np.ones(n, np.bool_)),
            "customer_id": names("C", owner, 6),
            "card_id": names("K", paid.card, 6),
            "terminal_id": names("T", paid.shop, 5),
            "amount": pa.array(paid.amount),
            "channel": words(w.CHANNELS, paid.channel),
            "category": words(w.NAMES, world.shop_kind[paid.shop]),
            "place": words(world.town_names, world.shop_town[paid.shop]),
            "country": words(w.COUNTRIES, world.shop_country[paid.shop]),
            "home_country": words(w.COUNTRIES, world.town_country[world.home[owner]]),
            "device": words(w.DEVICES, paid.device),
            "device_country": words(w.COUNTRIES, paid.from_country),
            "device_age_days": _known(day.device_age_days),
            "km_from_home": _known(day.km_from_home),
            "km_from_last": _known(day.km_from_last),
            "s_since_last": _known(day.s_since_last),
            "n_last_hour": pa.array(day.n_last_hour),
            "n_last_day": pa.array(day.n_last_day),
            "amount_last_day": pa.array(day.amount_last_day),
            "mean_amount": _known(day.mean_amount),
            "terminal_reports": pa.array(day.terminal_reports),
            "reported_at": moments(paid.reported, fraud & settled),
            "is_fraud": pa.array(fraud, mask=~settled),
        }
        return pa.record_batch(columns)

    def _spoil(self, batch: "pa.RecordBatch", chance: "np.random.Generator") -> "pa.RecordBatch":
        """Some rows as faulty terminals deliver them; those delivered twice come again at the end of the day."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        fault = np.where(chance.random(batch.num_rows) < self.faults, chance.integers(1, 6, batch.num_rows), 0)
        if not fault.any():
            return batch

        def where(kind: int, otherwise: pa.Array, name: str) -> None:
            nonlocal batch
            at = batch.schema.get_field_index(name)
            batch = batch.set_column(at, batch.schema.field(at), pc.if_else(pa.array(fault == kind), otherwise, batch.column(at)))

        where(1, pa.scalar(None, pa.string()), "card_id")
        where(2, pa.scalar(None, pa.float64()), "amount")
        where(3, pc.negate(batch["amount"]), "amount")
        where(4, pa.scalar("unknown", pa.string()), "channel")
        twice = batch.take(pa.array(np.flatnonzero(fault == 5)))
        return pa.concat_batches([batch, twice])


def _known(values: Any) -> "pa.Array":
    """Floats, null where NaN."""
    import numpy as np
    import pyarrow as pa

    return pa.array(values, mask=np.isnan(values))
