"""Other words for the same thing."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from modelinscale.core.errors import SpecError
from modelinscale.core.schema import Column
from modelinscale.data.cleaners import Cleaner
from modelinscale.data.cleaners._rule import by_rule

if TYPE_CHECKING:
    import polars as pl

Value = bool | int | float | str


class Replace(Cleaner):
    """Puts one value for another: ``replace: {n/a: null, "St.": Saint}``."""

    values: tuple[tuple[Value, Value | None], ...] = Field(min_length=1)
    """Pairs of a value and what takes its place; null: the cell is missing then."""
    ignore_case: bool = False
    """Whether ``N/A`` is found by ``n/a``."""
    within: bool = False
    """Whether it is looked for anywhere in a text, rather than as the whole cell; one pair after the other."""

    @classmethod
    def short(cls, value: object) -> Self:
        if not isinstance(value, Mapping) or not value:
            raise SpecError(f"`replace` needs old and new values, found {value!r}.", fix="Write `replace: {n/a: null, old: new}`.")
        full = dict(value) if "values" in value and isinstance(value["values"], Mapping | list | tuple) else {"values": value}
        pairs = full["values"]
        return cls.model_validate({**full, "values": tuple(pairs.items()) if isinstance(pairs, Mapping) else tuple(map(tuple, pairs))})

    @model_validator(mode="after")
    def _settles(self) -> Self:
        from modelinscale.package._clean import rule_of

        if self.within and (self.ignore_case or any(not isinstance(v, str) or (w is not None and not isinstance(w, str)) or not v for v, w in self.values)):
            raise SpecError("`within` is for pairs of texts as they stand.", fix="Leave `ignore_case` out, and quote numbers.")
        rule = rule_of(self.step())
        for old, new in self.values:
            if new is not None and old != new and rule(new) != new:
                raise SpecError(f"`replace` gives {new!r} for {old!r}, and would replace that again.", fix="Name the last value for both.")
        return self

    def objection(self, column: Column) -> str:
        fitting: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "string": (str,)}
        if column.type not in fitting:
            return f"`replace` cannot be used on a column of type {column.type}"
        for value in (v for pair in self.values for v in pair if v is not None):
            if not isinstance(value, fitting[column.type]) or (isinstance(value, bool) and column.type != "bool"):
                how = f"quote it: {str(value)!r}" if column.type == "string" else "for text put `cast` behind it"
                return f"{value!r} cannot be in a column of type {column.type} ({how})"
        return ""

    def apply(self, values: "pl.Series", column: Column) -> "tuple[pl.Series, pl.Series | None]":

        if not self.within:
            return self._whole(values)
        for old, new in self.values:
            values = values.str.replace_all(str(old), str(new or ""), literal=True)
        return values.set(values == "", None), None

    def _whole(self, values: "pl.Series") -> "tuple[pl.Series, pl.Series | None]":
        import polars as pl

        if self.ignore_case:
            return by_rule(values, self, values.dtype)
        pairs = dict(reversed(self.values))
        old = pl.Series(list(pairs), dtype=values.dtype, strict=False)
        new = pl.Series(list(pairs.values()), dtype=values.dtype, strict=False)
        if not values.is_in(old.implode()).any():
            return values, None
        return values.replace(old, new), None
