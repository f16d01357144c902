"""What there is: versions of the model, versions of the table, quarantined rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from modelinscale.core.task import words_of
from modelinscale.core.units import show_bytes
from modelinscale.pipeline import _collect, _register
from modelinscale.pipeline._place import Place
from modelinscale.pipeline._quarantine import faults, reasons

if TYPE_CHECKING:
    from modelinscale.data.lake import HistoryEntry

SHOWN_ROWS = 20
"""Quarantined rows shown to people; `--json` has them up to `KEPT_ROWS`."""
KEPT_ROWS = 1000
KEPT_VERSIONS = 1000
"""Versions of the table that `--json` has, the newest."""


@dataclass(frozen=True)
class Table:
    """A part of a description."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class Described:
    """A description: for people (title, tables, notes) and as plain facts."""

    title: str
    facts: dict[str, Any]
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def describe(what: str, place: Place) -> Described:
    """``project``, ``lake``, ``rows``, ``collect`` or ``quarantine``, for people and as facts."""
    return {"project": _project, "lake": _lake, "rows": _rows, "collect": _collected, "quarantine": _quarantine}[what](place)


def _project(place: Place) -> Described:

    spec, table = place.spec, _table_facts(place)
    versions: list[dict[str, Any]] = [
        {
            "version": v.number,
            "aliases": list(v.aliases),
            "created": v.created.isoformat(timespec="seconds"),
            "main": None if v.main is None else {"metric": v.main.metric, "value": v.main.value},
            "identity": v.identity,
            "package": str(v.folder),
        }
        for v in reversed(_register.tracker(place).versions(spec.name))
    ]
    rows = [
        (
            str(v["version"]),
            ", ".join(v["aliases"]),
            v["created"][:16].replace("T", " "),
            f"{v['main']['metric']} {v['main']['value']:.4f}" if v["main"] else "",
            v["package"],
        )
        for v in versions
    ]
    refit = _register.refit_note(place)
    notes = [refit] if refit else [] if versions else ["no version yet: `mis run` makes one."]
    if table:
        notes.insert(0, f"table {table['table']}: {table['n_rows']:,} rows in version {table['version']}")
    return Described(
        f"{spec.name}: predicts {words_of(spec.target)}",
        {"name": spec.name, "target": words_of(spec.target), "table": table, "versions": versions, "refit": refit},
        [Table("", ("version", "alias", "made", "on test rows", "package"), rows)],
        notes,
    )


def _table_facts(place: Place) -> dict[str, Any] | None:
    from modelinscale.data.lake import open_table, table_exists

    name = _collect.table_name(place)
    uri = place.store.uri("lake", name)
    if not table_exists(uri):
        return None
    table = open_table(uri)
    return {"table": name, "uri": uri, "version": table.rows_version, "n_rows": table.n_rows}


def _lake(place: Place) -> Described:
    from modelinscale.data.lake import open_table

    facts = _table_facts(place)
    if facts is None:
        return Described("no table yet.", {"table": None}, [], ["`mis collect` makes it."])
    table = open_table(facts["uri"])
    past = table.history(KEPT_VERSIONS)
    versions: list[dict[str, Any]] = [_past(one) for one in past]
    rows = [
        (
            str(v["version"]),
            v["time"][:19].replace("T", " "),
            v["what"],
            f"{v['n_rows']:,}",
            f"+{v['n_added']:,}" if v["n_added"] else "",
            f"-{v['n_removed']:,}" if v["n_removed"] else "",
            show_bytes(v["size_bytes"]),
            v["by"],
            ", ".join((*v["tags"], *([f"run {v['run']}"] if v["run"] else []))),
        )
        for v in reversed(versions[-SHOWN_ROWS:])
    ]
    columns = [{"name": c.name, "type": c.type} for c in table.schema.columns]
    header = ("version", "time (UTC)", "what", "rows", "added", "removed", "size", "by", "for")
    return Described(
        f"{facts['table']}: {facts['n_rows']:,} rows, {len(columns)} columns, at {facts['uri']}",
        {**facts, "columns": columns, "versions": versions, "cursor": table.cursor, "tags": table.tags},
        [Table("", header, rows), Table("columns", ("name", "type"), [(c["name"], c["type"]) for c in columns])],
        [] if len(versions) <= SHOWN_ROWS else [f"the newest {SHOWN_ROWS} versions; `mis show lake --json` gives up to {KEPT_VERSIONS}"],
    )


def _past(one: HistoryEntry) -> dict[str, Any]:
    """A version of the table as plain facts."""
    v, commit = one.version, one.commit
    known = commit is not None and bool(commit.by)
    return {
        "version": v.number,
        "time": v.time.isoformat(timespec="seconds"),
        "n_rows": v.n_rows,
        # Records of format 1 do not say how many rows came: there, what there are more.
        "n_added": commit.n_added if known and commit else max(0, v.n_added),
        "n_removed": commit.n_removed if known and commit else max(0, -v.n_added),
        "size_bytes": v.size_bytes,
        "what": one.what,
        "by": one.by,
        "run": commit.run if commit else "",
        "tags": list(one.tags),
    }


def _collected(place: Place) -> Described:
    from modelinscale.data._report_words import summary
    from modelinscale.pipeline._access import report_shown
    from modelinscale.pipeline._report import HTML, newest_report

    last = newest_report(place)
    if last is None:
        return Described("no collect has been reported yet.", {"report": None}, [], ["`mis collect` makes one."])
    folder, found = last[0], report_shown(place, last[1])
    title, header, rows = summary(found)
    notes = [*found["warnings"], f"whole report: {folder / HTML}"]
    return Described(title, {"report": found, "folder": str(folder)}, [Table("columns of the rows added", header, rows)], notes)


def _rows(place: Place) -> Described:
    from modelinscale.pipeline._access import rows

    return rows(place)


def _quarantine(place: Place) -> Described:
    from modelinscale.pipeline._access import faults_shown

    counts, lines, n_faults = reasons(place), list[dict[str, Any]](), 0
    rows: set[int] = set()
    for line in faults(place):
        n_faults += 1
        rows.add(line["row"])
        if len(lines) < KEPT_ROWS:
            lines.append(line)
    if not n_faults:
        return Described("nothing is in quarantine.", {"n_rows": 0, "reasons": [], "faults": []})
    lines = faults_shown(place, lines)
    reasons_shown = [(f"{n:,}", column or "whole row", reason) for (column, reason), n in counts]
    shown = [(line["place"], f"{line['row_in_place']:,}", line["column"] or "", line["reason"], line["value"] or "") for line in lines[:SHOWN_ROWS]]
    return Described(
        f"{len(rows):,} row{'s' * (len(rows) != 1)} in quarantine, {n_faults:,} fault{'s' * (n_faults != 1)}",
        {"n_rows": len(rows), "n_faults": n_faults, "reasons": [{"column": c, "reason": r, "n": n} for (c, r), n in counts], "faults": lines},
        [Table("", ("times", "column", "reason"), reasons_shown), Table("the first of them", ("where", "row", "column", "reason", "value"), shown)],
        [] if n_faults <= SHOWN_ROWS else [f"`mis show quarantine --json` gives the first {min(n_faults, KEPT_ROWS):,}"],
    )
