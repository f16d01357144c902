"""What is seen of a whole collect while its rows pass by: checks of all rows together, warnings, and the summaries of its report."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC
from typing import TYPE_CHECKING, Any

from modelinscale.core.clock import Clock, now
from modelinscale.core.errors import DataError
from modelinscale.data.checks import Past, State
from modelinscale.data.contract import Contract, Finding, Judged
from modelinscale.data.report import Columns

if TYPE_CHECKING:
    import pyarrow as pa

KEPT_CHECKS, KEPT_ROWS = "checks", "collects"
"""Under these names a table keeps what checks of the whole remember, and the rows of the last collects."""
N_COLLECTS = 10
N_EXAMPLES = 3


class Watch:
    """One collect. Its states are of bounded size."""

    def __init__(self, contract: Contract, kept: Mapping[str, Any], *, clock: Clock = now, report: bool = False) -> None:
        """``kept``: what the table keeps of earlier collects; ``report``: whether columns are summarised."""
        self._contract, self._clock = contract, clock
        self._kept: Mapping[str, State] = kept.get(KEPT_CHECKS, {})
        self._n_rows: tuple[int, ...] = tuple(kept.get(KEPT_ROWS, ()))
        self._states: dict[str, State] = {}
        self._findings: dict[tuple[str, str], Finding] = {}
        self.n_read = self.n_good = 0
        self.changed: Counter[str] = Counter()
        """Cells that cleaners changed, by column."""
        self.examples: dict[tuple[str, str], list[str]] = {}
        """Values of quarantined cells, some for each column and reason."""
        self.columns = Columns(contract.schema, contract.hidden) if report else None

    @property
    def needs_end(self) -> bool:
        """Whether a verdict must wait until all rows were read, so that the last commit has to wait for it."""
        return bool(self._contract.table_checks)

    def see(self, judged: Judged, n_rows: int, changed: Mapping[str, int]) -> None:
        """The rows of one commit, of which ``n_rows`` were read."""
        self.n_read += n_rows
        self.n_good += judged.good.num_rows
        self.changed.update(changed)
        self._note_examples(judged.entries)
        for found in judged.findings:
            before = self._findings.get((found.column, found.reason))
            shown = tuple(dict.fromkeys((*(before.examples if before else ()), *found.examples)))[:N_EXAMPLES]
            n = found.n + (before.n if before else 0)
            self._findings[found.column, found.reason] = Finding(found.column, found.reason, n, shown, found.severity)
        self._observe(judged.good)
        if self.columns is not None:
            self.columns.see(judged.good)

    def _observe(self, rows: "pa.Table") -> None:
        import polars as pl

        for name, check in self._contract.table_checks:
            values = pl.Series(name, rows.column(name)) if name else pl.Series(name, [False], dtype=pl.Boolean).new_from_index(0, rows.num_rows)
            state = check.observe(values)
            place = f"{name}.{check.type}"
            self._states[place] = check.merge(self._states[place], state) if place in self._states else state

    def _note_examples(self, entries: "pa.Table") -> None:
        for line in entries.slice(0, 2000).to_pylist():
            some = self.examples.setdefault((line["column"], line["reason"]), [])
            if len(some) < N_EXAMPLES and line["value"] and line["value"] not in some:
                some.append(line["value"])

    def refuse(self, kept: str, *, final: bool) -> None:
        """Raises `DataError` when a demand that must stop the collect is broken; ``kept`` says what is in the lake by now, ``final`` that all was read."""
        stops = [f for f in (*self._findings.values(), *self.verdicts(final=final)) if f.severity == "stop"]
        if stops:
            raise DataError(
                "a check stops this collect:\n" + "\n".join(f"  {f.words()}" for f in stops) + "\n",
                fix=f"Mend the source, or change the check or its `severity`; {kept}.",
            )

    def verdicts(self, *, final: bool) -> list[Finding]:
        """What checks of all rows together find broken."""
        found = []
        for name, check in self._contract.table_checks:
            place = f"{name}.{check.type}"
            if place not in self._states:
                import polars as pl

                self._states[place] = check.observe(pl.Series(name, [], dtype=_dtype(self._contract, name)))
            past = Past(self._clock().astimezone(UTC).replace(tzinfo=None), final, self._kept.get(place), self._n_rows)
            verdict = check.verdict(self._states[place], past)
            if verdict is not None:
                found.append(Finding(name, verdict.reason, verdict.n, verdict.examples, check.weighs))
        return found

    def warnings(self) -> tuple[Finding, ...]:
        """What is told, the collect being over."""
        return tuple(f for f in (*self._findings.values(), *self.verdicts(final=True)) if f.severity == "warn")

    def facts(self) -> dict[str, Any]:
        """What the table keeps for the collects to come; empty where nothing asks for it."""
        if not self._contract.table_checks:
            return {}
        kept = dict(self._kept)
        for name, check in self._contract.table_checks:
            place = f"{name}.{check.type}"
            state = check.keeps(self._states[place], self._kept.get(place)) if place in self._states else None
            if state is not None:
                kept[place] = state
        return {KEPT_CHECKS: kept, KEPT_ROWS: [*self._n_rows, self.n_good][-N_COLLECTS:]}


def _dtype(contract: Contract, name: str) -> Any:
    import polars as pl
    import pyarrow as pa

    from modelinscale.data.arrow import arrow_type

    return pl.Series(pa.array([], arrow_type(contract.schema[name]))).dtype if name else pl.Boolean
