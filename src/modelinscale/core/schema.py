"""What columns a table has, and how their cells are written in text. Needs no Arrow: the served side reads it too."""

from typing import Literal, Self

from pydantic import Field, model_validator

from modelinscale.core.errors import SpecError, did_you_mean
from modelinscale.core.settings import Settings

ColumnType = Literal["int", "float", "bool", "string", "time", "vector", "sequence", "binary"]
"""int: int64 · float: float64 · bool · string: UTF-8 · time: microseconds since 1970 in UTC, no zone kept · vector: float32, one width ·
sequence: any number of steps, each of ``width`` float32 numbers (its channels), NaN where one is missing · binary: bytes as they are (an encoded image)."""


NESTED: tuple[ColumnType, ...] = ("vector", "sequence", "binary")
"""Types whose cells are no single values: they are no keys, no classes, and hold nothing personal that a rule could find."""


class Column(Settings):
    """One column: its type, and the habits of whoever wrote its cells as text (found by inference, used again at every later read)."""

    name: str = Field(min_length=1)
    """Its name, exactly as in the source; duplicate headers got a suffix ``_2``."""
    type: ColumnType
    """What its cells are, once parsed."""
    nullable: bool = True
    """Whether a cell may be missing."""
    width: int | None = Field(None, gt=0)
    """Numbers in each cell of a vector, or in each step of a sequence; nothing for other types."""
    format: str | None = None
    """How moments are written: a strptime pattern (``%d/%m/%Y``), ``iso``, or ``epoch_s`` / ``epoch_ms``; nothing: ISO 8601."""
    nulls: tuple[str, ...] = ()
    """Words that mean missing in this column, besides the empty string: ``NA``, ``?``, ``-``. Compared after trimming."""
    decimal: Literal[".", ","] = "."
    """The decimal mark of numbers in text."""
    thousands: Literal["", ",", ".", " ", "'", "_"] = ""
    """The mark between thousands of numbers in text."""
    affixes: tuple[str, ...] = ()
    """What stands before or after a number and is cut off: ``$``, ``%``, ``oz``."""
    true_words: tuple[str, ...] = ()
    """Words that mean true (``yes``), lower case; with ``false_words`` they make a text column a flag."""
    false_words: tuple[str, ...] = ()
    """Words that mean false (``no``), lower case."""

    @model_validator(mode="after")
    def _width_is_for_vectors(self) -> Self:
        if (self.type in ("vector", "sequence")) != (self.width is not None):
            raise SpecError(f"column {self.name!r}: `width` is for vectors and sequences, and every one of them needs it.")
        return self


class Schema(Settings):
    """The columns of a table, in order, names unique."""

    columns: tuple[Column, ...]

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [c.name for c in self.columns]
        if len(set(names)) != len(names):
            doubled = sorted({n for n in names if names.count(n) > 1})
            raise SpecError(f"column names occur twice: {', '.join(doubled)}.")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.columns)

    def __contains__(self, name: object) -> bool:
        return any(c.name == name for c in self.columns)

    def __getitem__(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise SpecError(f"there is no column {name!r}.{did_you_mean(name, self.names)}", fix=f"Columns: {', '.join(self.names[:30])}.")

    def only(self, names: tuple[str, ...] | list[str]) -> "Schema":
        """The named columns, in that order."""
        return Schema(columns=tuple(self[n] for n in names))
