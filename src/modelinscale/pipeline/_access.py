"""What of stored cells is shown to whoever asks, and the newest rows of the table as an example of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from modelinscale.core.access import Allowed, decide
from modelinscale.core.errors import StoreError
from modelinscale.core.logs import log
from modelinscale.pipeline import _collect
from modelinscale.pipeline._lineage import audit_of
from modelinscale.pipeline._look import named_by_roles
from modelinscale.pipeline._place import Place
from modelinscale.track.audit import actor

if TYPE_CHECKING:
    from modelinscale.pipeline._describe import Described

SHOWN_ROWS = 20


def allowed(place: Place, columns: Sequence[str], what: str) -> Allowed:
    """What the user at work sees of columns; cells that are not shown are a line in the audit log."""
    access = place.spec.access
    user = actor().partition("@")[0]
    found = decide(access, access.role_of(user), columns)
    if found.hidden:
        try:
            with place.store.shared(wait_s=5.0):
                audit_of(place).write("refuse", what, columns=list(found.hidden), because=found.because)
        except StoreError as error:  # who may only read is still refused
            log(__name__).warning("a refusal could not be written to the audit log", extra={"reason": str(error)})
    return found


def faults_shown(place: Place, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of the quarantine with the values that the user may see; that of a whole row only where every column is shown."""
    columns = list(dict.fromkeys(name for line in lines for name in (line["column"] or "").split(", ") if name))
    may = allowed(place, columns, "values in quarantine")
    all_shown = not may.hidden and not may.masked

    def value(line: dict[str, Any]) -> Any:
        name = line["column"] or ""
        return line["value"] if all_shown and (name or not place.spec.access.roles) else may.cell(name, line["value"])

    return [{**line, "value": value(line)} for line in lines]


def report_shown(place: Place, found: dict[str, Any]) -> dict[str, Any]:
    """The report of a collect with values of columns that the user sees in full only, and none of whole rows unless those are all."""
    may = allowed(place, list(found["columns"]), f"values in the report of {found['table']}")
    unseen = {*may.hidden, *may.masked}
    if not unseen:
        return found
    counts = ("type", "n", "missing_share", "n_distinct", "about", "sampled")
    columns = {name: {**{k: one[k] for k in counts}, "hidden": True} if name in unseen else one for name, one in found["columns"].items()}
    reasons = [{**one, "examples": [] if not one["column"] or unseen.intersection(one["column"].split(", ")) else one["examples"]} for one in found["reasons"]]
    warnings = [words for words in found["warnings"] if not any(name in words for name in unseen)]
    return {**found, "columns": columns, "reasons": reasons, "warnings": warnings}


def rows(place: Place) -> Described:
    """The newest rows of the table, as far as the user may see them."""
    from modelinscale.data.lake import open_table, table_exists
    from modelinscale.pipeline._describe import Described, Table

    name = _collect.table_name(place)
    uri = place.store.uri("lake", name)
    if not table_exists(uri):
        return Described("no table yet.", {"table": None}, [], ["`mis collect` makes it."])
    table = open_table(uri)
    named_by_roles(place.spec, table.schema)
    may = allowed(place, table.schema.names, f"rows of {name}")
    columns = [n for n in table.schema.names if n not in may.hidden]
    found = table.slice(max(0, table.n_rows - SHOWN_ROWS), SHOWN_ROWS, columns).to_pylist() if columns else []
    shown: list[dict[str, Any]] = [{n: may.cell(n, row[n]) for n in columns} for row in found]
    cells = [tuple("" if row[n] is None else str(row[n])[:40] for n in columns) for row in shown]
    notes = [f"not shown ({may.because}): {', '.join(may.hidden)}"] if may.hidden else []
    facts = {"table": name, "n_rows": table.n_rows, "rows": shown, "hidden": list(may.hidden), "masked": list(may.masked)}
    return Described(f"{name}: the newest {len(shown)} of {table.n_rows:,} rows", facts, [Table("", tuple(columns), cells)], notes)
