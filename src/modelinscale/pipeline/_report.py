"""The report of a collect, written into its step's folder, or of a follower, written again and again; and the newest of them found again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelinscale.core.clock import now
from modelinscale.core.files import told, write_bytes, write_json
from modelinscale.pipeline._place import Place

if TYPE_CHECKING:
    from modelinscale.data._brought import Brought
    from modelinscale.data.collect import Collected
    from modelinscale.pipeline._collect import Job

PLAIN, MARKDOWN, HTML = "report.json", "report.md", "report.html"
N_REASONS = 30


def follower_folder(place: Place) -> Path:
    """Where a follower of this project writes its report."""
    return place.store.path("follow", f"{place.spec.name}.report")


def write_report(folder: Path, place: Place, job: Job, collected: Collected, brought: Brought, before: dict[str, Any] | None) -> None:
    """``report.json``, ``report.md`` and ``report.html``, compared with ``before`` (`report_before` as this collect or follower began)."""
    from modelinscale.data import _report_page, _report_words
    from modelinscale.data.report import report

    assert brought.columns is not None, "a report was asked for"
    brought.columns.hide(place.spec.data.personal)
    found = report(_facts(job, collected, brought), brought.columns)
    with told(folder, "write"):
        folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / MARKDOWN, _report_words.markdown(found, before).encode("utf-8", "replace"))
    write_bytes(folder / HTML, _report_page.html(found, before).encode("utf-8", "replace"))
    write_json(folder / PLAIN, found)


def _facts(job: Job, collected: Collected, brought: Brought) -> dict[str, Any]:
    from modelinscale import __version__

    assert brought.columns is not None, "a report was asked for"
    hidden = brought.columns.hidden
    steps = {name: ", ".join(step["type"] for step in one["steps"]) for name, one in job.clean.items()}
    return {
        "table": job.table,
        "time": now().isoformat(sep=" ", timespec="seconds"),
        "made_by": __version__,
        "n_read": brought.n_read,
        "n_added": collected.n_added,
        "n_quarantined": collected.n_quarantined_now,
        "n_dropped": collected.n_dropped,
        "n_rows": collected.n_rows,
        "reasons": [
            {"column": c, "reason": r, "n": n, "examples": [] if hidden.intersection(c.split(", ")) else brought.examples.get((c, r), [])}
            for c, r, n in collected.reasons[:N_REASONS]
        ],
        "warnings": list(collected.notes),
        "changed": [{"column": c, "n": n, "share": n / max(1, brought.n_read), "by": steps.get(c, "")} for c, n in brought.changed.most_common()],
    }


def report_before(place: Place, table: str) -> dict[str, Any] | None:
    """The newest report, if it is of this table."""
    last = newest_report(place)
    return last[1] if last is not None and last[1]["table"] == table else None


def newest_report(place: Place) -> tuple[Path, dict[str, Any]] | None:
    """The folder of the newest report of a collect or a follower, and the report; None where there is none."""
    folders = [follower_folder(place), *(place.store.path("steps", "collect", name) for name in place.store.list("steps", "collect"))]
    dated = [(path.stat().st_mtime_ns, path) for folder in folders if (path := folder / PLAIN).is_file()]
    if not dated:
        return None
    path = max(dated)[1]
    found = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return path.parent, found
