"""The report of a collect, written into its step's folder and found again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelinscale.core.clock import now
from modelinscale.core.files import write_bytes, write_json
from modelinscale.pipeline._place import Place

if TYPE_CHECKING:
    from modelinscale.data._watch import Watch
    from modelinscale.data.collect import Collected
    from modelinscale.pipeline._collect import Job

PLAIN, MARKDOWN, HTML = "report.json", "report.md", "report.html"
N_REASONS = 30


def write_report(folder: Path, place: Place, job: Job, collected: Collected, watch: Watch) -> None:
    """``report.json``, ``report.md`` and ``report.html``, compared with the collect before into the same table."""
    from modelinscale import __version__
    from modelinscale.data import _report_page
    from modelinscale.data.report import report

    assert watch.columns is not None, "a report was asked for"
    watch.columns.hide(place.spec.data.personal)
    hidden = watch.columns.hidden
    reasons = [
        {"column": c, "reason": r, "n": n, "examples": [] if hidden.intersection(c.split(", ")) else watch.examples.get((c, r), [])}
        for c, r, n in collected.reasons[:N_REASONS]
    ]
    steps = {name: ", ".join(step["type"] for step in one["steps"]) for name, one in job.clean.items()}
    changed = [{"column": c, "n": n, "share": n / max(1, watch.n_read), "by": steps.get(c, "")} for c, n in watch.changed.most_common()]
    facts: dict[str, Any] = {
        "table": job.table,
        "time": now().isoformat(sep=" ", timespec="seconds"),
        "made_by": __version__,
        "n_read": watch.n_read,
        "n_added": collected.n_added,
        "n_quarantined": collected.n_quarantined_now,
        "n_dropped": collected.n_dropped,
        "n_rows": collected.n_rows,
        "reasons": reasons,
        "warnings": list(collected.notes),
        "changed": changed,
    }
    found = report(facts, watch.columns)
    last = newest_report(place)
    before = last[1] if last is not None and last[1]["table"] == job.table else None
    write_json(folder / PLAIN, found)
    write_bytes(folder / MARKDOWN, _report_page.markdown(found, before).encode("utf-8", "replace"))
    write_bytes(folder / HTML, _report_page.html(found, before).encode("utf-8", "replace"))


def newest_report(place: Place) -> tuple[Path, dict[str, Any]] | None:
    """The folder of the newest collect that has a report, and the report; None where there is none."""
    dated = [
        (path.stat().st_mtime_ns, path)
        for name in place.store.list("steps", "collect")
        if (path := place.store.path("steps", "collect", name) / PLAIN).is_file()
    ]
    if not dated:
        return None
    path = max(dated)[1]
    found = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return path.parent, found
