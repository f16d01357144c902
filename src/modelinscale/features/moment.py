"""Moments: dates and times as numbers a model can use: how long since the first one, and where in the day, week and year.

All arithmetic up to the last step is on whole microseconds and days, so that Python and graph agree from year 1 to year 9999 and beyond.
"""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.bins import Bins
from modelinscale.core.encoded import MISSING_MOMENT, Form, InputType, Layout
from modelinscale.core.graph import Graph
from modelinscale.core.schema import Column
from modelinscale.features import Feature, State
from modelinscale.features._scaling import Scaling, draw

if TYPE_CHECKING:
    import polars as pl

Part = Literal["since", "hour", "weekday", "day", "month", "yearday"]
_EPOCH = datetime(1970, 1, 1)
DAY_US = 86_400_000_000
_MINUTE_US = 60_000_000
_HOUR_US = 3_600_000_000
_ROUNDS: dict[Part, int] = {"hour": 1440, "weekday": 7, "day": 31, "month": 12, "yearday": 366}
"""Steps in the round of each part that goes round: minutes of the day, days of the week, and so on. In the order of the columns."""
_FIRST: dict[Part, int] = {"weekday": 0, "day": 1, "month": 1, "yearday": 1}
"""What people call the first step of each round of days."""
_COUNTED: tuple[Part, ...] = ("weekday", "day", "month")
_STEP = 65_536
"""Moments encoded at once: as many as stay in the processor's cache; fewer, and two threads take the interpreter from each other after every operation."""
_CLIP = 5.0
"""How far from the centre ``since`` is bounded, in spreads."""


class Moment(Feature):
    """A date, or a date with a time of day.

    plain: ``since`` (days since the first day of the training rows, with fraction), ``hour`` (0 up to 24, with fraction), ``weekday`` (Monday 0),
    ``day`` of the month (1 to 31), ``month`` (1 to 12), ``yearday`` (1 to 366); missing NaN. scaled: ``since`` centred and scaled, every other part as
    sine and cosine (hours to the minute), a missing moment all 0; one more column flags missing ones if training rows had any.
    Python and graph give the same bits.

    >>> import polars as pl
    >>> from datetime import datetime, timedelta
    >>> moment = Moment(parts=("since", "hour", "weekday"))
    >>> times = pl.Series([datetime(2024, 5, 1, 6), datetime(2024, 5, 4, 12)]).dt.timestamp("us")
    >>> moment.encode(moment.observe(moment.empty(), times), times, "plain").tolist()
    [[0.25, 6.0, 2.0], [3.5, 12.0, 5.0]]
    """

    input: ClassVar[InputType] = "int64"

    parts: tuple[Part, ...] = ()
    """Which numbers to make. Empty: ``since``; ``hour``, ``weekday`` and ``day`` if they differ between training rows; ``yearday`` if these span a year."""

    @classmethod
    def suits(cls, column: Column) -> bool:
        return column.type == "time"

    def empty(self) -> State:
        return self._state(np.zeros(0, np.int64), 0)

    def observe(self, state: State, values: "pl.Series") -> State:
        x = _int64(values.filter(values.is_not_null()) if values.null_count() else values)
        known = x[x != MISSING_MOMENT] if len(x) and x.min() == MISSING_MOMENT else x
        return self.merge(state, self._state(known, len(values) - len(known)))

    def merge(self, a: State, b: State) -> State:
        if not a["n"] or not b["n"]:
            return dict(b if not a["n"] else a)
        lows, highs = ([s[key] for s in (a, b) if s[key] is not None] for key in ("low", "high"))
        return {
            "n": a["n"] + b["n"],
            "missing": a["missing"] + b["missing"],
            "low": min(lows, default=None),
            "high": max(highs, default=None),
            **{part: [i + j for i, j in zip(a[part], b[part], strict=True)] for part in ("hour", *_COUNTED)},
            "bins": Bins.load(a["bins"]).merged(Bins.load(b["bins"])).plain(),
        }

    def layout(self, state: State, form: Form) -> Layout:
        parts = self._parts(state)
        names = [name for part in parts for name in ([part] if form == "plain" or part == "since" else [f"{part} sine", f"{part} cosine"])]
        if form == "scaled" and state["missing"]:
            names.append("missing")
        return Layout("dense", len(names), tuple(names))

    def encode(self, state: State, values: "pl.Series", form: Form) -> NDArray[np.float32]:
        x = _int64(values)
        block = np.empty((len(x), self.layout(state, form).width), np.float32)
        scaling = self._scaling(state)
        for start in range(0, len(x), _STEP):
            self._fill(state, scaling, x[start : start + _STEP], form, block[start : start + _STEP])
        return block

    def _fill(self, state: State, scaling: Scaling, x: NDArray[np.int64], form: Form, block: NDArray[np.float32]) -> None:
        missing = x == MISSING_MOMENT
        any_missing = bool(missing.any())
        days, us = _split(np.where(missing, 0, x) if any_missing else x)
        parts, rounds, at = self._parts(state), self._rounds(state), 0
        if "since" in parts:
            since = _since(days, us, _first_day(state))
            block[:, 0] = since if form == "plain" else scaling.of(since)
            at = 1
        if form == "plain":
            if "hour" in parts:
                block[:, at] = us / _HOUR_US
                at += 1
            for part, first in _FIRST.items():
                if part in parts:
                    block[:, at] = _steps(part, days, us) + first
                    at += 1
        elif rounds:
            table, starts = _circles(rounds)
            both = table.view(np.int64)[:, 0]  # a step's sine and cosine taken as one
            for part, first in zip(rounds, starts, strict=True):
                turns = _steps(part, days, us, both[first:])
                block[:, at], block[:, at + 1] = turns.view(np.float32)[::2], turns.view(np.float32)[1::2]
                at += 2
        if any_missing:
            block[missing] = np.nan if form == "plain" else 0
        if form == "scaled" and state["missing"]:
            block[:, -1] = missing

    def graph(self, state: State, form: Form, graph: Graph, tensor: str) -> str:
        x = graph.op("Unsqueeze", tensor, graph.constant([1], np.int64))  # (N, 1)
        missing = graph.op("Equal", x, graph.constant(MISSING_MOMENT, np.int64))
        days, us = _drawn_split(_Drawn(graph, graph.op("Where", missing, graph.constant(0, np.int64), x)))
        parts, rounds = self._parts(state), self._rounds(state)
        blocks: list[str] = []
        if "since" in parts:
            since = _drawn_since(days, us, _first_day(state))
            blocks.append(graph.op("Cast", since if form == "plain" else draw(graph, since, [self._scaling(state)]), to=graph.FLOAT32))
        if form == "plain":
            if "hour" in parts:
                hours = graph.op("Div", graph.op("Cast", us.tensor, to=graph.FLOAT64), graph.constant(float(_HOUR_US)))
                blocks.append(graph.op("Cast", hours, to=graph.FLOAT32))
            blocks += [graph.op("Cast", (_step(p, days, us) + first).tensor, to=graph.FLOAT32) for p, first in _FIRST.items() if p in parts]
        elif rounds:
            table, starts = _circles(rounds)
            steps = graph.op("Concat", *(_step(p, days, us).tensor for p in rounds), axis=1)  # (N, R)
            pairs = graph.op("Gather", graph.constant(table), graph.op("Add", steps, graph.constant([starts], np.int64)), axis=0)  # (N, R, 2)
            blocks.append(graph.op("Reshape", pairs, graph.constant([-1, 2 * len(rounds)], np.int64)))
        block = graph.op("Concat", *blocks, axis=1) if len(blocks) > 1 else blocks[0]
        block = graph.op("Where", missing, graph.constant(np.float32("nan" if form == "plain" else 0)), block)
        if form == "plain" or not state["missing"]:
            return block
        return graph.op("Concat", block, graph.op("Cast", missing, to=graph.FLOAT32), axis=1)

    def examples(self, state: State | None = None) -> list[Any]:
        whole = [datetime(*d) for d in ((1970, 1, 1), (2024, 2, 29), (2023, 12, 31), (2000, 2, 29), (1900, 3, 1), (1900, 2, 28), (2100, 3, 1), (2024, 3, 1))]
        timed = [datetime(2024, 5, 1, 13, 59, 59, 999_999), datetime(1969, 12, 31, 23, 59, 59, 999_999), datetime(1970, 1, 1, 0, 0, 0, 1)]
        first, last = datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999_999)
        # A state may hold moments that Python's datetime cannot show: only arithmetic on whole numbers is asked of them.
        ends = [state[key] for key in ("low", "high") if state[key] is not None] if state else []
        shown = [us for end in ends for us in (end - 1, end, end + 1) if _us(first) <= us <= _us(last)]
        return [None, *whole, *timed, first, last, *(_EPOCH + timedelta(microseconds=us) for us in shown)]

    def _state(self, known: NDArray[np.int64], n_missing: int) -> State:
        low, high = (int(known.min()), int(known.max())) if len(known) else (0, -1)
        since, hours = np.empty(len(known)), np.empty(len(known), np.int64)
        for start in range(0, len(known), _STEP):
            here = slice(start, start + _STEP)
            days = np.floor_divide(known[here], _HOUR_US, out=hours[here]) // 24
            since[here] = _since(days, known[here] - days * DAY_US, 0)
        hours, n_hours = _each(hours, low // _HOUR_US, high // _HOUR_US)
        distinct, place = np.unique(hours // 24, return_inverse=True)
        n, none = np.bincount(place, n_hours), np.zeros(len(distinct), np.int64)
        return {
            "n": len(known) + n_missing,
            "missing": n_missing,
            "low": low if len(known) else None,
            "high": high if len(known) else None,
            "hour": np.bincount(hours % 24, n_hours, 24).astype(np.int64).tolist(),
            # Of each day once: a table has far fewer days than rows. Counts as weights stay whole below 2**53.
            **{p: np.bincount(_step(p, distinct, none), n, _ROUNDS[p]).astype(np.int64).tolist() for p in _COUNTED},
            "bins": Bins.of(since).plain(),
        }

    def _parts(self, state: State) -> list[Part]:
        """The parts to make, in the order of the columns."""
        if self.parts:
            return [p for p in ("since", *_ROUNDS) if p in self.parts]
        differ = [p for p in _ROUNDS if p in ("hour", "weekday", "day") and sum(n > 0 for n in state[p]) > 1]
        spans_a_year = state["n"] > state["missing"] and state["high"] - state["low"] >= 365 * DAY_US
        return ["since", *differ, "yearday"] if spans_a_year else ["since", *differ]

    def _rounds(self, state: State) -> list[Part]:
        return [p for p in self._parts(state) if p != "since"]

    def _scaling(self, state: State) -> Scaling:
        scaling = Scaling.learned(Bins.load(state["bins"]), "robust", _CLIP)
        return scaling._replace(centre=scaling.centre - _first_day(state))


def _each(hours: NDArray[np.int64], low: int, high: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each hour once, and how often it occurs: by counting, where they lie within a hundred years."""
    if not 0 <= high - low <= 1 << 20:
        distinct, n = np.unique(hours, return_counts=True)
        return distinct, n
    hours -= low
    counts = np.bincount(hours)
    there = np.flatnonzero(counts)
    return there + low, counts[there]


def _steps(part: Part, days: NDArray[np.int64], us: NDArray[np.int64], table: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """`_step` of many rows, or what a ``table`` has at those steps: the calendar is asked once for each day, where these are fewer than rows."""
    low, high = (int(days.min()), int(days.max())) if part != "hour" and len(days) else (0, len(days))
    each = np.arange(low, high + 1) if high - low < len(days) else days
    steps = _step(part, each, us)
    found = steps if table is None else table.take(steps)
    return found if each is days else found.take(days - low)


def _first_day(state: State) -> int:
    return 0 if state["low"] is None else int(state["low"]) // DAY_US


def _circles(rounds: list[Part]) -> tuple[NDArray[np.float32], list[int]]:
    """Sine and cosine of every step of these rounds, below each other, (T, 2) float32, and where each round starts.

    A table, so that Python and graph agree to the bit: sines of different libraries do not.
    """
    steps = [np.arange(_ROUNDS[p]) * (2 * np.pi / _ROUNDS[p]) for p in rounds]
    starts = np.cumsum([0, *(len(s) for s in steps[:-1])]).tolist()
    angles = np.concatenate(steps)
    return np.stack([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32), starts


def _us(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _int64(values: "pl.Series") -> NDArray[np.int64]:
    import polars as pl

    whole = values.cast(pl.Int64)
    return (whole.fill_null(MISSING_MOMENT) if whole.null_count() else whole).to_numpy()


def _since(days: NDArray[np.int64], us: NDArray[np.int64], first: int) -> NDArray[np.float64]:
    """Days since the start of day ``first``, with fraction: the difference of whole days comes first, which is exact."""
    found = us / float(DAY_US)
    found += days - first if first else days
    return found


def _drawn_since(days: "_Drawn", us: "_Drawn", first: int) -> str:
    graph = days.graph
    whole, part = (graph.op("Cast", d.tensor, to=graph.FLOAT64) for d in (days - first, us))
    return graph.op("Add", whole, graph.op("Div", part, graph.constant(float(DAY_US))))


class _Drawn(NamedTuple):
    """An int64 tensor that is reckoned with like an array: the calendar below is written once and both computes and draws."""

    graph: Graph
    tensor: str

    def _with(self, op: str, other: "_Drawn | int") -> "_Drawn":
        right = other.tensor if isinstance(other, _Drawn) else self.graph.constant(other, np.int64)
        return _Drawn(self.graph, self.graph.op(op, self.tensor, right))

    def __add__(self, other: "_Drawn | int") -> "_Drawn":  # type: ignore[override]  # not a tuple's +
        return self._with("Add", other)

    def __sub__(self, other: "_Drawn | int") -> "_Drawn":
        return self._with("Sub", other)

    def __mul__(self, other: "_Drawn | int") -> "_Drawn":  # type: ignore[override]
        return self._with("Mul", other)

    def __mod__(self, other: int) -> "_Drawn":
        return self._with("Mod", other)

    def __floordiv__(self, other: int) -> "_Drawn":
        # ONNX rounds towards zero, Python downwards: the same where nothing is negative, as everywhere below.
        return self._with("Div", other)


Whole = TypeVar("Whole", NDArray[np.int64], _Drawn)


def _split(x: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Whole days since 1970 and microseconds of the day."""
    days = x // DAY_US
    return days, x - days * DAY_US


def _drawn_split(x: _Drawn) -> tuple[_Drawn, _Drawn]:
    """Draws `_split`: rounding towards zero is one day too late for what lies before 1970, unless it is midnight."""
    graph = x.graph
    early = graph.op("Less", graph.op("Mod", x.tensor, graph.constant(DAY_US, np.int64), fmod=1), graph.constant(0, np.int64))
    return x // DAY_US - _Drawn(graph, graph.op("Cast", early, to=graph.INT64)), x % DAY_US


def _step(part: Part, days: Whole, us: Whole) -> Whole:
    """Where in the round of ``part``, from 0.

    Dates as Howard Hinnant counts them ("chrono-compatible low-level date algorithms"): years begin in March, so that the odd day comes last,
    and everything repeats after 400 years, so that after one remainder nothing is negative.
    """
    if part == "hour":
        minute: Whole = us // _MINUTE_US
        return minute
    if part == "weekday":
        weekday: Whole = (days + 3) % 7
        return weekday
    day = (days + 719_468) % 146_097
    year = (day - day // 1_460 + day // 36_524 - day // 146_096) // 365  # 0 to 399
    day = day - (year * 365 + year // 4 - year // 100)  # 0 (1 March) to 365
    if part == "yearday":
        after_new_year = day // 306
        leap = (year * -1 + 400) // 400 + (year % 4 * -1 + 4) // 4 - (year % 100 * -1 + 100) // 100
        yearday: Whole = day + 59 + leap - after_new_year * (leap + 365)
        return yearday
    month = (day * 5 + 2) // 153  # 0 is March
    if part == "month":
        january_first: Whole = (month + 2) % 12
        return january_first
    assert part == "day"
    of_month: Whole = day - (month * 153 + 2) // 5
    return of_month
