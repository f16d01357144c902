"""What every cleaner must do."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelinscale.core.kinds import load
from modelinscale.core.schema import Column
from modelinscale.data.cleaners import Cleaner

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Case:
    """A cleaner with a column it can clean, cells with what becomes of them, and cells it cannot clean (none of them missing)."""

    cleaner: Cleaner
    column: Column
    cells: tuple[tuple[Any, Any], ...]
    bad: tuple[Any, ...] = ()


def series(column: Column, cells: list[Any]) -> "pl.Series":
    """Cells in the lake's type of their column."""
    import polars as pl
    import pyarrow as pa

    from modelinscale.data.arrow import arrow_type

    return pl.Series(column.name, pa.array(cells, arrow_type(column)))


def applied(cleaner: Cleaner, column: Column, cells: list[Any]) -> tuple[list[Any], list[bool]]:
    """The cells after it, and which could not be cleaned; checked to be as many, in the type it says."""
    from modelinscale.data.arrow import arrow_type

    values, why = cleaner.apply(series(column, cells), column)
    assert len(values) == len(cells), f"{cleaner.type}: {len(values)} cells of {len(cells)}"
    wanted = series(cleaner.gives(column), []).dtype
    assert values.dtype == wanted, f"{cleaner.type}: gives {values.dtype}, says {arrow_type(cleaner.gives(column))}"
    bad = [False] * len(cells) if why is None else [w is not None for w in why.to_list()]
    assert len(bad) == len(cells), f"{cleaner.type}: {len(bad)} reasons for {len(cells)} cells"
    return values.to_list(), bad


def served(cleaner: Cleaner, column: Column, cell: Any) -> tuple[Any, bool]:
    """What a served row's cell becomes, and whether it is refused."""
    from modelinscale.package._cell_words import Unreadable
    from modelinscale.package._clean import Chain

    try:
        return Chain(column, [cleaner.step()], cleaner.gives(column))(cell), False
    except Unreadable:
        return None, True


def has_no_objection_to_its_column(case: Case) -> None:
    """It says that it can clean its own example."""
    assert case.cleaner.objection(case.column) == ""


def cleans_each_cell_as_it_says(case: Case) -> None:
    """Whatever stands beside it; missing cells and cells that cannot be cleaned between them."""
    cells, expected = [c for c, _ in case.cells], [w for _, w in case.cells]
    assert applied(case.cleaner, case.column, cells) == (expected, [False] * len(cells))
    mixed = [x for cell in cells for x in (cell, *case.bad)]
    values, bad = applied(case.cleaner, case.column, mixed)
    step = 1 + len(case.bad)
    assert values[::step] == expected
    assert bad == [i % step > 0 for i in range(len(mixed))]


def no_rows_are_cleaned_too(case: Case) -> None:
    """An empty part is fine."""
    assert applied(case.cleaner, case.column, []) == ([], [])


def what_is_clean_stays_as_it_is(case: Case) -> None:
    """Cleaned again, nothing changes."""
    if not case.cleaner.repeats or case.cleaner.gives(case.column).type != case.column.type:
        return
    once, _ = applied(case.cleaner, case.column, [c for c, _ in case.cells])
    assert applied(case.cleaner, case.column, once)[0] == once


def parts_are_cleaned_as_the_whole(case: Case) -> None:
    """Where a part ends makes no difference."""
    cells = [c for c, _ in case.cells] + list(case.bad)
    whole = applied(case.cleaner, case.column, cells)
    for cut in range(len(cells) + 1):
        one, two = applied(case.cleaner, case.column, cells[:cut]), applied(case.cleaner, case.column, cells[cut:])
        assert (one[0] + two[0], one[1] + two[1]) == whole


def a_served_row_is_cleaned_the_same(case: Case) -> None:
    """The rule of the package gives what the lake got."""
    from datetime import datetime

    if case.cleaner.across_rows:
        return
    for cell in [c for c, _ in case.cells] + list(case.bad):
        values, bad = applied(case.cleaner, case.column, [cell])
        expected = values[0]
        if isinstance(expected, datetime):
            expected = (expected - datetime(1970, 1, 1)).total_seconds() * 1e6
        found, refused = served(case.cleaner, case.column, cell)
        if getattr(case.cleaner, "to", None) != "quarantine":
            assert refused == bad[0], f"{cell!r}: {'refused' if refused else 'taken'} when served, but not at collection"
        assert found == expected, f"{cell!r}: {found!r} when served, {expected!r} in the lake"


def settings_round_trip(case: Case) -> None:
    """As plain data and back, also through the short form with the same fields."""
    assert Cleaner.parse(case.cleaner.plain()) == case.cleaner
    fields = {k: v for k, v in case.cleaner.plain().items() if k != "type"}
    found = load(Cleaner.folder, case.cleaner.type)
    assert issubclass(found, Cleaner)
    assert found.short(fields or True) == case.cleaner


SUITE = (
    has_no_objection_to_its_column,
    cleans_each_cell_as_it_says,
    no_rows_are_cleaned_too,
    what_is_clean_stays_as_it_is,
    parts_are_cleaned_as_the_whole,
    a_served_row_is_cleaned_the_same,
    settings_round_trip,
)
