"""Text without needless space, in one Unicode form."""

from typing import TYPE_CHECKING, Literal

from modelinscale.core.schema import Column
from modelinscale.data.cleaners import Cleaner
from modelinscale.data.cleaners._rule import by_rule

if TYPE_CHECKING:
    import polars as pl


class Trim(Cleaner):
    """Cuts space off both ends (no-break and zero-width space too), makes runs of space one blank, composes characters (Unicode NFC); empty is missing."""

    case: Literal["lower", "upper"] | None = None
    """Write every letter so."""
    inner: bool = True
    """Whether runs of space inside become one blank too."""

    def objection(self, column: Column) -> str:
        return "" if column.type == "string" else f"`trim` is for text, and the cells of a column of type {column.type} are read without their space anyway"

    def apply(self, values: "pl.Series", column: Column) -> "tuple[pl.Series, pl.Series | None]":
        plain = values.str.strip_chars(" ")
        if self.case is not None:
            plain = plain.str.to_lowercase() if self.case == "lower" else plain.str.to_uppercase()
        found = plain.set(plain == "", None)
        odd = values.str.contains(r"[^ -~]|  " if self.inner else r"[^ -~]").fill_null(False)
        if not odd.any():
            return found, None
        import polars as pl

        return found.zip_with(~odd, by_rule(values, self, pl.String, odd)[0]), None
