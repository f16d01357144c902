"""Checks of all rows together, and what rows that stay are warned of, while the rows of a collect, or of a follower's window, pass by."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC
from typing import TYPE_CHECKING, Any, Literal

from modelinscale.core.clock import Clock, now
from modelinscale.core.errors import DataError
from modelinscale.data.checks import Past, State
from modelinscale.data.contract import Contract, Finding, Judged

if TYPE_CHECKING:
    import pyarrow as pa

KEPT_CHECKS, KEPT_ROWS = "checks", "collects"
"""Under these names a table keeps what checks of the table remember, and the rows of the last collects."""
N_COLLECTS = 10
N_EXAMPLES = 3
Stretch = Literal["collect", "window", "catching up"]
"""What is judged together: all that a collect reads, what a follower commits in a window, or what it reads until it has caught up."""


class Watch:
    """One stretch of rows. Its states are of bounded size."""

    def __init__(self, contract: Contract, kept: Mapping[str, State], n_rows: tuple[int, ...], stretch: Stretch, *, clock: Clock = now) -> None:
        """``kept``: what the table keeps for each check; ``n_rows``: of the stretches before."""
        self._contract, self._clock, self._stretch = contract, clock, stretch
        self._kept, self._n_rows = kept, n_rows
        self._states: dict[str, State] = {}
        self._findings: dict[tuple[str, str], Finding] = {}
        self._n_good = 0

    @classmethod
    def first(cls, contract: Contract, facts: Mapping[str, Any], stretch: Stretch) -> "Watch":
        """``facts``: what the table keeps of earlier collects."""
        return cls(contract, facts.get(KEPT_CHECKS, {}), tuple(facts.get(KEPT_ROWS, ())), stretch)

    def next(self, stretch: Stretch, *, counts: bool) -> "Watch":
        """That of the stretch after this one. ``counts``: whether this one was whole, and its number of rows says what is usual."""
        rows = (*self._n_rows, self._n_good)[-N_COLLECTS:] if counts else self._n_rows
        return Watch(self._contract, self._keeps(), rows, stretch, clock=self._clock)

    @property
    def needs_end(self) -> bool:
        """Whether a verdict must wait until all rows were read, so that the last commit has to wait for it."""
        return bool(self._contract.table_checks)

    def see(self, judged: Judged) -> None:
        """The rows of one commit."""
        self._n_good += judged.good.num_rows
        for found in judged.findings:
            before = self._findings.get((found.column, found.reason), replace(found, n=0, examples=()))
            shown = tuple(dict.fromkeys((*before.examples, *found.examples)))[:N_EXAMPLES]
            self._findings[found.column, found.reason] = replace(found, n=found.n + before.n, examples=shown)
        self._observe(judged.good)

    def _observe(self, rows: "pa.Table") -> None:
        import polars as pl

        for name, check in self._contract.table_checks:
            values = pl.Series(name, rows.column(name)) if name else pl.Series(name, [False], dtype=pl.Boolean).new_from_index(0, rows.num_rows)
            state = check.observe(values)
            place = f"{name}.{check.type}"
            self._states[place] = check.merge(self._states[place], state) if place in self._states else state

    def refuse(self, kept: str, *, final: bool) -> None:
        """Raises `DataError` when a demand that must stop it is broken; ``kept`` says what is in the lake by now, ``final`` that all was read."""
        stops = [f for f in self._found(final=final) if f.severity == "stop"]
        if stops:
            what = "this collect" if self._stretch == "collect" else "this follower"
            raise DataError(
                f"a check stops {what}:\n" + "\n".join(f"  {f.words()}" for f in stops) + "\n",
                fix=f"Mend the source, or change the check or its `severity`; {kept}.",
            )

    def warnings(self, *, final: bool = True) -> tuple[str, ...]:
        """What is told when the stretch is over, in words; ``final``: whether it was whole."""
        return tuple(f"a check warns: {f.words()}." for f in self._found(final=final) if f.severity == "warn")

    def _found(self, *, final: bool) -> tuple[Finding, ...]:
        return (*self._findings.values(), *self._verdicts(final=final))

    def _verdicts(self, *, final: bool) -> list[Finding]:
        """What checks of all rows together find broken."""
        found = []
        for name, check in self._contract.table_checks:
            place = f"{name}.{check.type}"
            if place not in self._states:
                import polars as pl

                self._states[place] = check.observe(pl.Series(name, [], dtype=_dtype(self._contract, name)))
            moment = self._clock().astimezone(UTC).replace(tzinfo=None)
            past = Past(moment, final, self._kept.get(place), self._n_rows, catching_up=self._stretch == "catching up")
            verdict = check.verdict(self._states[place], past)
            if verdict is not None:
                found.append(Finding(name, verdict.reason, verdict.n, verdict.examples, check.weighs))
        return found

    def facts(self) -> dict[str, Any]:
        """What the table keeps for the collects to come; empty where nothing asks for it. A window counts once it is whole."""
        if not self._contract.table_checks:
            return {}
        rows = [*self._n_rows, self._n_good] if self._stretch == "collect" else self._n_rows
        return {KEPT_CHECKS: self._keeps(), KEPT_ROWS: list(rows[-N_COLLECTS:])}

    def _keeps(self) -> dict[str, State]:
        kept = dict(self._kept)
        for name, check in self._contract.table_checks:
            place = f"{name}.{check.type}"
            state = check.keeps(self._states[place], self._kept.get(place)) if place in self._states else None
            if state is not None:
                kept[place] = state
        return kept


def _dtype(contract: Contract, name: str) -> Any:
    import polars as pl
    import pyarrow as pa

    from modelinscale.data.arrow import arrow_type

    return pl.Series(pa.array([], arrow_type(contract.schema[name]))).dtype if name else pl.Boolean
