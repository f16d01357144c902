"""What every check must do: `ROW_SUITE` for checks of each row, `TABLE_SUITE` for checks of all rows together."""

from dataclasses import dataclass
from typing import Any

from modelinscale.core.kinds import load
from modelinscale.core.schema import Column
from modelinscale.data.checks import Check, Past, RowCheck, State, TableCheck


@dataclass(frozen=True)
class RowCase:
    """A check of each row with a column it suits, and cells that fulfil and break it (no missing ones)."""

    written: Check
    """As it is written; settles to a `RowCheck`."""
    column: Column
    good: tuple[Any, ...]
    bad: tuple[Any, ...]

    @property
    def check(self) -> RowCheck:
        found = self.written.settled()
        assert isinstance(found, RowCheck), f"{found.type} settles to a check of all rows together"
        return found


@dataclass(frozen=True)
class TableCase:
    """A check of all rows of a collect together, with rows that fulfil and rows that break it."""

    written: Check
    """As it is written; settles to a `TableCheck`."""
    column: Column
    good: tuple[Any, ...]
    bad: tuple[Any, ...]
    past: Past
    """What came before, and the hour."""

    @property
    def check(self) -> TableCheck:
        found = self.written.settled()
        assert isinstance(found, TableCheck), f"{found.type} settles to a check of each row"
        return found


def seen(check: TableCheck, column: Column, cells: tuple[Any, ...]) -> State:
    """What the check knows of these cells."""
    import polars as pl
    import pyarrow as pa

    from modelinscale.data.arrow import arrow_type

    return check.observe(pl.Series(column.name, pa.array(list(cells), arrow_type(column))))


def together_suits_the_column(case: TableCase) -> None:
    """It suits its own example, stops the collect unless told otherwise, and sends no row to quarantine."""
    assert case.check.suits(case.column)
    assert case.check.objection(case.column) == ""
    assert case.written.weighs == case.check.weighs == (case.written.severity or "stop")
    assert "choose warn or stop" in case.check.but(severity="quarantine").objection(case.column)


def together_tells_good_from_bad(case: TableCase) -> None:
    """It says why, how many rows, at most three examples; of good rows it says nothing."""
    assert case.check.verdict(seen(case.check, case.column, case.good), case.past) is None
    found = case.check.verdict(seen(case.check, case.column, case.bad), case.past)
    assert found is not None
    assert found.reason
    assert found.n >= 0
    assert len(found.examples) <= 3


def together_merges(case: TableCase) -> None:
    """Parts merged are the whole seen at once, in any order, through JSON too."""
    import json

    for cells in (case.good, case.bad):
        all_at_once = seen(case.check, case.column, cells)
        for cut in (0, 1, len(cells) // 3, len(cells)):
            one, two = seen(case.check, case.column, cells[:cut]), seen(case.check, case.column, cells[cut:])
            assert case.check.merge(one, two) == all_at_once
            assert case.check.merge(json.loads(json.dumps(two)), one) == all_at_once


def together_keeps_plain_data_of_bounded_size(case: TableCase) -> None:
    """What the table keeps is JSON, and small."""
    import json

    kept = case.check.keeps(seen(case.check, case.column, case.good), None)
    assert kept is None or len(json.dumps(kept)) < 100_000


def together_settings_round_trip(case: TableCase) -> None:
    """As plain data and back; settled once is settled."""
    assert Check.parse(case.written.plain()) == case.written
    assert case.check.plain() == case.written.plain()
    assert case.check.settled() == case.check


TABLE_SUITE = (
    together_suits_the_column,
    together_tells_good_from_bad,
    together_merges,
    together_keeps_plain_data_of_bounded_size,
    together_settings_round_trip,
)


def _failing(case: RowCase, cells: list[Any]) -> list[bool]:
    import polars as pl
    import pyarrow as pa

    from modelinscale.data.arrow import arrow_type

    values = pl.Series(case.column.name, pa.array(cells, arrow_type(case.column)))
    found = case.check.failing(values)
    assert found.dtype == pl.Boolean, f"{case.check.type}: `failing` gives {found.dtype}, not booleans"
    assert len(found) == len(cells), f"{case.check.type}: {len(found)} verdicts for {len(cells)} cells"
    assert not found.null_count(), f"{case.check.type}: a verdict is missing"
    return found.to_list()


def suits_the_column(case: RowCase) -> None:
    """It says that it suits its own example and has no objection; rows that break it go to quarantine unless told otherwise."""
    assert case.check.suits(case.column)
    assert case.written.weighs == case.check.weighs == (case.written.severity or "quarantine")
    assert case.check.objection(case.column) == ""


def marks_exactly_what_breaks_it(case: RowCase) -> None:
    """Good cells pass, bad ones do not, in any order."""
    assert _failing(case, list(case.good)) == [False] * len(case.good)
    if not case.check.across_rows:
        assert _failing(case, [*case.bad, *case.good, *case.bad]) == [True] * len(case.bad) + [False] * len(case.good) + [True] * len(case.bad)


def a_missing_cell_breaks_only_present(case: RowCase) -> None:
    """Missing cells are the business of one check."""
    assert _failing(case, [None, *case.good, None]) == [case.check.type == "present", *[False] * len(case.good), case.check.type == "present"]


def nothing_breaks_it_in_no_rows(case: RowCase) -> None:
    """An empty column is fine, and so is one of nothing but missing cells for all but `present`."""
    assert _failing(case, []) == []
    assert _failing(case, [None, None]) == [case.check.type == "present"] * 2


def settings_round_trip(case: RowCase) -> None:
    """As plain data and back, also through the short form with the same fields; settled once is settled."""
    assert Check.parse(case.written.plain()) == case.written
    fields = {k: v for k, v in case.written.plain().items() if k != "type"}
    found = load(Check.folder, case.written.type)
    assert issubclass(found, Check)
    assert found.short(fields or True) == case.written
    assert case.check.plain() == case.written.plain()
    assert case.check.settled() == case.check


def says_its_demand_in_a_few_words(case: RowCase) -> None:
    """The demand completes the sentence `not ...`."""
    words = case.check.demand()
    assert words == words.strip()
    assert "\n" not in words
    assert 0 < len(words) < 500


ROW_SUITE = (
    suits_the_column,
    marks_exactly_what_breaks_it,
    a_missing_cell_breaks_only_present,
    nothing_breaks_it_in_no_rows,
    settings_round_trip,
    says_its_demand_in_a_few_words,
)
