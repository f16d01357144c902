"""What every check must do."""

from dataclasses import dataclass
from typing import Any

from modelinscale.core.kinds import load
from modelinscale.core.schema import Column
from modelinscale.data.checks import Check


@dataclass(frozen=True)
class Case:
    """A check with a column it suits, and cells that fulfil and break it (no missing ones)."""

    check: Check
    column: Column
    good: tuple[Any, ...]
    bad: tuple[Any, ...]


def _failing(case: Case, cells: list[Any]) -> list[bool]:
    import polars as pl
    import pyarrow as pa

    from modelinscale.data.arrow import arrow_type

    values = pl.Series(case.column.name, pa.array(cells, arrow_type(case.column)))
    found = case.check.failing(values)
    assert found.dtype == pl.Boolean, f"{case.check.type}: `failing` gives {found.dtype}, not booleans"
    assert len(found) == len(cells), f"{case.check.type}: {len(found)} verdicts for {len(cells)} cells"
    assert not found.null_count(), f"{case.check.type}: a verdict is missing"
    return found.to_list()


def suits_the_column(case: Case) -> None:
    """It says that it suits its own example and has no objection."""
    assert case.check.suits(case.column)
    assert case.check.objection(case.column) == ""


def marks_exactly_what_breaks_it(case: Case) -> None:
    """Good cells pass, bad ones do not, in any order."""
    assert _failing(case, list(case.good)) == [False] * len(case.good)
    if not case.check.across_rows:
        assert _failing(case, [*case.bad, *case.good, *case.bad]) == [True] * len(case.bad) + [False] * len(case.good) + [True] * len(case.bad)


def a_missing_cell_breaks_only_present(case: Case) -> None:
    """Missing cells are the business of one check."""
    assert _failing(case, [None, *case.good, None]) == [case.check.type == "present", *[False] * len(case.good), case.check.type == "present"]


def nothing_breaks_it_in_no_rows(case: Case) -> None:
    """An empty column is fine, and so is one of nothing but missing cells for all but `present`."""
    assert _failing(case, []) == []
    assert _failing(case, [None, None]) == [case.check.type == "present"] * 2


def settings_round_trip(case: Case) -> None:
    """As plain data and back, also through the short form with the same fields."""
    assert Check.parse(case.check.plain()) == case.check
    fields = {k: v for k, v in case.check.plain().items() if k != "type"}
    found = load(Check.folder, case.check.type)
    assert issubclass(found, Check)
    assert found.short(fields or True) == case.check


def says_its_demand_in_a_few_words(case: Case) -> None:
    """The demand completes the sentence `not ...`."""
    words = case.check.demand()
    assert words == words.strip()
    assert "\n" not in words
    assert 0 < len(words) < 500


SUITE = (
    suits_the_column,
    marks_exactly_what_breaks_it,
    a_missing_cell_breaks_only_present,
    nothing_breaks_it_in_no_rows,
    settings_round_trip,
    says_its_demand_in_a_few_words,
)
