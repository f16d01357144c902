"""A part of a text."""

import re
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import field_validator

from modelinscale.core.errors import SpecError
from modelinscale.core.schema import Column
from modelinscale.data.cleaners import Cleaner
from modelinscale.data.cleaners._rule import by_rule

if TYPE_CHECKING:
    import polars as pl


class Extract(Cleaner):
    """Keeps what a pattern's one group finds: ``extract: 'no\\. (\\d+)'``. A cell without it is missing; one that is such a part already stays."""

    reads_text: ClassVar[bool] = True
    repeats: ClassVar[bool] = False

    pattern: str
    """A regular expression with one group, as Python reads it; tried on cells of up to 500 characters."""

    @classmethod
    def short(cls, value: object) -> Self:
        return super().short({"pattern": value} if isinstance(value, str) else value)

    @field_validator("pattern")
    @classmethod
    def _reads(cls, pattern: str) -> str:
        try:
            n_groups = re.compile(pattern).groups
        except re.error as error:
            raise SpecError(f"{pattern!r} is not a regular expression: {error}.", fix="Put \\ before a special character meant as itself.") from None
        if n_groups != 1:
            raise SpecError(f"{pattern!r} has {n_groups} groups, and needs one.", fix="Put ( ) around the part to keep; (?: ) groups without keeping.")
        if re.search(r"[+*}]\)[+*{]", pattern):
            raise SpecError(
                f"{pattern!r} repeats what repeats itself, which may take for ever on some text.", fix="Repeat only once: `(a+)` rather than `(a+)+`."
            )
        return pattern

    def objection(self, column: Column) -> str:
        return "" if column.type == "string" else f"`extract` is for text, and the column is {column.type}"

    def apply(self, values: "pl.Series", column: Column) -> "tuple[pl.Series, pl.Series | None]":
        import polars as pl

        return by_rule(values, self, pl.String)
