"""Nothing personal where nothing personal belongs."""

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field

from modelinscale.core.schema import Column
from modelinscale.data.checks import Check, Past, RowCheck, State, TableCheck, Verdict

if TYPE_CHECKING:
    import polars as pl

Found = Literal["email", "iban", "card", "national", "phone", "ip"]


class Personal(Check):
    """Refuses cells with an e-mail address, a phone, card, bank account or national number, or a network address in them; their values are not shown.

    What has check digits counts only when they are right. ``"*": personal`` looks into every text column.
    """

    hides: ClassVar[bool] = True

    kinds: tuple[Found, ...] = ()
    """What is looked for; left out: all of it."""
    share: float = Field(0.0, ge=0, lt=1)
    """The share of a collect's cells that may be so. 0: each such row is refused; above: the collect, once there are more."""

    @classmethod
    def short(cls, value: object) -> Self:
        if isinstance(value, str):
            value = [value]
        return super().short({"kinds": tuple(value)} if isinstance(value, list | tuple) else value)

    @classmethod
    def suits(cls, column: Column) -> bool:
        return column.type in ("string", "int")

    def settled(self) -> RowCheck | TableCheck:
        return _Share.model_validate(vars(self)) if self.share > 0 else _Cell.model_validate(vars(self))

    def demand(self) -> str:
        return f"free of personal data ({', '.join(self.kinds)})" if self.kinds else "free of personal data"

    def found(self, values: "pl.Series") -> "pl.Series":
        """The kind of what is in each cell, among those looked for; null where there is nothing."""
        import polars as pl

        from modelinscale.data._personal import column_hint, detect

        kinds = detect(values, column_hint(values.name))
        return kinds.set(~kinds.is_in(list(self.kinds)).fill_null(False), None) if self.kinds else kinds.cast(pl.String)


class _Cell(Personal, RowCheck):
    """No cell of a row may be so."""

    def settled(self) -> RowCheck:
        return self

    def failing(self, values: "pl.Series") -> "pl.Series":
        return self.found(values).is_not_null()


class _Share(Personal, TableCheck):
    """Not more than a share of the cells."""

    def settled(self) -> TableCheck:
        return self

    def observe(self, values: "pl.Series") -> State:
        counts = self.found(values).drop_nulls().alias("kind").value_counts(name="n")
        return {"n": len(values) - values.null_count(), "kinds": dict(sorted(counts.iter_rows()))}

    def merge(self, one: State, other: State) -> State:
        kinds = {k: one["kinds"].get(k, 0) + other["kinds"].get(k, 0) for k in sorted({*one["kinds"], *other["kinds"]})}
        return {"n": one["n"] + other["n"], "kinds": kinds}

    def verdict(self, state: State, past: Past) -> Verdict | None:
        n = sum(state["kinds"].values())
        if not past.final or n <= self.share * state["n"]:
            return None
        words = ", ".join(f"{n:,} × {kind}" for kind, n in sorted(state["kinds"].items(), key=lambda item: (-item[1], item[0])))
        return Verdict(f"{n / state['n']:.1%} of the cells are personal ({words}), allowed {self.share:.1%}", n)
