"""Checks: what a contract demands of each row (those that fail go to quarantine with the reason), and of the rows of a collect together."""

from abc import abstractmethod
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from modelinscale.core.kinds import Kind
from modelinscale.core.schema import Column
from modelinscale.data.by_column import fields

if TYPE_CHECKING:
    import polars as pl

State = dict[str, Any]
"""What a check of the table has seen, as plain JSON."""
Severity = Literal["warn", "quarantine", "stop"]

N_EXAMPLES = 3
"""Examples that a verdict gives."""


@dataclass(frozen=True)
class Past:
    """What a verdict on all rows of a collect, or of a follower's window, may look at besides them."""

    now: datetime
    """In UTC, without zone."""
    final: bool = True
    """Whether these are all rows of the collect; otherwise more may come."""
    kept: State | None = None
    """What the check had the table keep after the collects before (see `TableCheck.keeps`)."""
    n_rows: tuple[int, ...] = ()
    """Rows that each collect before read, the newest last."""
    catching_up: bool = False
    """Whether a follower is reading what piled up before: many rows, and old ones, are no fault of the source then."""


@dataclass(frozen=True)
class Verdict:
    """Why the rows of a collect as a whole break a demand."""

    reason: str
    """In words, after the column's name."""
    n: int
    """Rows that it is about."""
    examples: tuple[str, ...] = ()
    """Up to three values, masked where they are personal."""


class Check(Kind):
    """One demand. What is held against rows is a `RowCheck` or a `TableCheck`; `settled` says which of the two these settings are."""

    folder: ClassVar[str] = "data.checks"
    common: ClassVar[tuple[str, ...]] = ("severity",)

    hides: ClassVar[bool] = False
    """Whether the column's values must not be shown."""

    severity: Severity | None = None
    """``warn``: the rows are kept and it is told; ``quarantine``: they are not (the default for rows); ``stop``: the collect ends before it commits them
    (the default for what is said of all rows together, which cannot be put into quarantine)."""

    @classmethod
    def short(cls, value: object) -> Self:
        """The check from what stands behind its name in model.yaml: ``present: true``, ``{between: {low: 0}}``. Raises `SpecError`."""
        return fields(cls, value)

    def plain(self) -> dict[str, Any]:
        found = super().plain()
        return found if self.severity is not None else {k: v for k, v in found.items() if k != "severity"}

    def at(self, base: Path) -> Self:
        """The same with relative paths taken from ``base``, the folder of model.yaml."""
        return self

    @abstractmethod
    def settled(self) -> "RowCheck | TableCheck":
        """The check as one of the two kinds; a `RowCheck` or a `TableCheck` is itself."""

    def renew(self) -> None:
        """Forgets what was read from elsewhere, for it may have changed: a follower asks for it at every window."""
        return

    def ready(self) -> None:
        """Raises `SpecError`, or what the source raises, where what the check reads from elsewhere is not there; for `mis check`."""
        return

    @property
    def weighs(self) -> Severity:
        """The severity that holds."""
        return self.severity or self.settled().usual

    @classmethod
    @abstractmethod
    def suits(cls, column: Column) -> bool:
        """Whether the demand makes sense for a column of this type."""

    def objection(self, column: Column) -> str:
        """Why these settings cannot be held against this column, in words; empty if they can. Asked only when the check suits."""
        return ""

    @abstractmethod
    def demand(self) -> str:
        """The demand in words, for reasons: ``between 0 and 120``."""


class RowCheck(Check):
    """A demand that each row meets or breaks by itself (`across_rows`: given the rows before it)."""

    usual: ClassVar[Severity] = "quarantine"
    """The severity where the settings name none."""
    across_rows: ClassVar[bool] = False
    """Whether the verdict on a row depends on the rows before it, in the lake and in this batch: the contract then keeps an index of the column."""

    def settled(self) -> "RowCheck":
        return self

    @abstractmethod
    def failing(self, values: "pl.Series") -> "pl.Series":
        """A boolean for each row, never null: true where the demand is broken. A missing cell breaks only `present`. Vectorised."""


class TableCheck(Check):
    """A demand that only the rows of a collect together can meet or break; for a follower, those of one window (`data.follow.window`).

    What it has seen is a `State` that merges, so that memory does not grow with the rows.
    """

    usual: ClassVar[Severity] = "stop"
    """The severity where the settings name none."""
    columnless: ClassVar[bool] = False
    """Whether it is about no column: written under ``"*"``."""

    def settled(self) -> "TableCheck":
        return self

    def objection(self, column: Column) -> str:
        return "rows cannot be put into quarantine for what is said of all together: choose warn or stop" if self.severity == "quarantine" else ""

    @abstractmethod
    def observe(self, values: "pl.Series") -> State:
        """What must be known of these rows: of bounded size."""

    @abstractmethod
    def merge(self, one: State, other: State) -> State:
        """Of both together, in any order."""

    @abstractmethod
    def verdict(self, state: State, past: Past) -> Verdict | None:
        """Why the demand is broken; None if it is not, or cannot be told."""

    def keeps(self, state: State, kept: State | None) -> State | None:
        """What the table keeps for the collects to come; None: nothing."""
        return None
