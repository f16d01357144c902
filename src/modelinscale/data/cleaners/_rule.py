"""Whole columns by the rule for one cell: each different cell is looked at once."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from modelinscale.package._cell_words import Unreadable

if TYPE_CHECKING:
    import polars as pl

    from modelinscale.data.cleaners import Cleaner


def by_rule(
    values: "pl.Series", cleaner: "Cleaner", dtype: "type[pl.DataType] | pl.DataType", where: "pl.Series | None" = None
) -> "tuple[pl.Series, pl.Series | None]":
    """What `Cleaner.apply` gives, by the served rule; ``where``: only for these rows, null elsewhere."""
    import polars as pl

    from modelinscale.package._clean import rule_of

    some = values if where is None else pl.select(pl.when(pl.lit(where)).then(pl.lit(values)).otherwise(None)).to_series()
    return by_distinct(some.rename(values.name), rule_of(cleaner.step()), dtype)


def by_distinct(values: "pl.Series", rule: Callable[[Any], Any], dtype: "type[pl.DataType] | pl.DataType") -> "tuple[pl.Series, pl.Series | None]":
    """What a rule makes of each cell that is there, and why it cannot."""
    import polars as pl

    if values.dtype.is_float():
        values = one_zero(values)
    distinct = values.unique().drop_nulls()
    made, reasons = _each(distinct.to_list(), rule)
    found = (
        values.replace_strict(distinct, pl.Series(made, dtype=dtype, strict=False), default=None, return_dtype=dtype)
        if len(distinct)
        else pl.Series(values.name, [None] * len(values), dtype=dtype)
    )
    if not any(reasons):
        return found.rename(values.name), None
    why = values.replace_strict(distinct, pl.Series(reasons, dtype=pl.String), default=None, return_dtype=pl.String)
    return found.rename(values.name), why


def one_zero(values: "pl.Series") -> "pl.Series":
    """With 0.0 for -0.0: no set of different cells tells them apart, so rules take and give only one. (Polars leaves out the addition of 0.0.)"""
    zero = (values == 0.0).fill_null(False)
    return values.set(zero, 0.0) if zero.any() else values


def _each(cells: list[Any], rule: Callable[[Any], Any]) -> tuple[list[Any], list[str | None]]:
    made: list[Any] = []
    reasons: list[str | None] = []
    for cell in cells:
        try:
            made.append(rule(cell))
            reasons.append(None)
        except Unreadable as error:
            made.append(None)
            reasons.append(f"not {error}")
    return made, reasons
