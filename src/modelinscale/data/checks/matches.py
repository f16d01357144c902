"""Text that follows a pattern."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

from pydantic import field_validator

from modelinscale.core.errors import SpecError
from modelinscale.core.schema import Column
from modelinscale.data.checks import RowCheck

if TYPE_CHECKING:
    import polars as pl


_FIX = r"Special characters: . * + ? ( ) [ ] { } | ^ $ \ ; put \ before one meant as itself."


class Matches(RowCheck):
    """Refuses text that the pattern does not fit as a whole: ``matches: '[A-Z]{2}[0-9]+'``."""

    pattern: str
    """A regular expression for the whole cell (RE2-like syntax of Rust's regex: no look-around, no back-references)."""

    @classmethod
    def short(cls, value: object) -> Self:
        if isinstance(value, str):
            value = {"pattern": value}
        if not isinstance(value, Mapping):
            raise SpecError(f"`matches` needs a pattern in quotes, found {value!r}.", fix="Write `matches: '[A-Z]+'`.")
        return super().short(value)

    @field_validator("pattern")
    @classmethod
    def _reads(cls, pattern: str) -> str:
        # With Python's own engine, which needs no import worth mentioning; the one that runs over the rows is asked in `objection`.
        try:
            re.compile(pattern)
        except re.error as error:
            raise SpecError(f"{pattern!r} is not a regular expression: {error}.", fix=_FIX) from None
        return pattern

    @classmethod
    def suits(cls, column: Column) -> bool:
        return column.type == "string"

    def objection(self, column: Column) -> str:
        import polars as pl
        from polars.exceptions import ComputeError

        try:
            pl.Series([""]).str.contains(_whole(self.pattern), strict=True)
        except ComputeError as error:
            # The engine draws the place over several lines, then names the reason.
            reason = re.search(r"^error: (.*)", str(error), re.MULTILINE)
            return f"the pattern {self.pattern!r} cannot be run: {reason[1] if reason else str(error).splitlines()[0]}"
        return ""

    def failing(self, values: "pl.Series") -> "pl.Series":
        return ~values.str.contains(_whole(self.pattern)).fill_null(True)

    def demand(self) -> str:
        return f"like {self.pattern}"


def _whole(pattern: str) -> str:
    return f"^(?:{pattern})$"
