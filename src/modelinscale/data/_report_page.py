"""A collect's report as one HTML page that needs nothing else: `_report_words` with a histogram or the frequent values of every column."""

from collections.abc import Mapping
from html import escape
from typing import Any

from modelinscale.core import page as p
from modelinscale.data._report_words import NONE, Report, compared, counts, figures, notes, number, part, share


def html(found: Report, before: Report | None = None) -> str:
    """The page, without scripts; every text of the data is escaped. ``before``: the report of the collect before, to compare with."""
    reasons, changed = found["reasons"], found["changed"]
    most = max((r["n"] for r in reasons), default=1)
    refused = [(f"{r['n']:,}", _bar(r["n"] / most), r["column"] or "whole row", r["reason"], ", ".join(r["examples"])) for r in reasons]
    cleaned = [(c["column"], f"{c['n']:,}", share(c["share"]), c["by"]) for c in changed]
    columns = [_row(name, c, before) for name, c in found["columns"].items()]
    header = ("column", "values", "missing", "different", "low", "mean", "high", *(("since the collect before",) if before else ()))
    parts = [
        p.cards((f"{n:,}", name) for name, n in counts(found)),
        p.section("Warnings", p.notes(found["warnings"])),
        p.section("Quarantine", p.table(("times", "", "column", "reason", "examples"), refused, text=(1, 2, 3, 4))),
        p.section("Cleaned", p.table(("column", "cells changed", "share", "by"), cleaned, text=(0, 3))),
        p.section(
            "Columns of the rows added", p.table(header, columns, text=(0, 1, 7)), *(f"<p class=dim>{escape(note)}</p>" for note in notes(found, before))
        ),
    ]
    return p.page(found["table"], f"{found['time']} · modelinscale {found['made_by']}", parts, style=_STYLE)


def _row(name: str, column: Mapping[str, Any], before: Report | None) -> tuple[str, ...]:
    title = p.Html(f"<b>{escape(name)}</b><br><span class=dim>{column['type']}</span>")
    since = (compared(column, before, name),) if before else ()
    return title, _plot(column, before["columns"].get(name) if before else None), *figures(column), *since


def _bar(length: float) -> p.Html:
    return p.Html(f'<svg width=90 height=10 role=img><rect class=bad width="{max(1.0, 90 * length):.1f}" height=10 rx=2 /></svg>')


def _plot(column: Mapping[str, Any], old: Mapping[str, Any] | None) -> p.Html:
    if column["hidden"]:
        return p.Html("<span class=dim>personal: not shown</span>")
    if column.get("bars"):
        return _histogram(column["bars"], old.get("bars") if old else None, column["type"])
    return _top(column) if column.get("top") else p.Html(f"<span class=dim>{NONE}</span>")


def _histogram(bars: Mapping[str, Any], old: Mapping[str, Any] | None, type: str) -> p.Html:
    """Bars, and the collect before as a line over the same span."""
    width, height, heights = 216, 44, bars["counts"]
    total, most, step = sum(heights) or 1, max(heights) or 1, width / len(heights)
    scale = height / (most / total)
    rects = "".join(
        f'<rect x="{i * step:.1f}" y="{height - n / total * scale:.1f}" width="{max(0.5, step - 1):.1f}" height="{n / total * scale:.1f}" />'
        for i, n in enumerate(heights)
        if n
    )
    line = ""
    if old and old["low"] < old["high"] and bars["low"] < bars["high"]:
        n_old, per = sum(old["counts"]) or 1, (bars["high"] - bars["low"]) / len(heights)
        each = (old["high"] - old["low"]) / len(old["counts"])
        points = []
        for i, n in enumerate(old["counts"]):
            x = (old["low"] + (i + 0.5) * each - bars["low"]) / (bars["high"] - bars["low"]) * width
            y = height - min(height, n / n_old * (per / each) * scale)
            points.append(f"{x:.1f},{y:.1f}")
        line = f'<polyline points="{" ".join(points)}" />'
    ends = f"<span class=ends><i>{escape(number(bars['low'], type))}</i><i>{escape(number(bars['high'], type))}</i></span>"
    return p.Html(f'<svg class=small viewBox="0 0 {width} {height}" width={width} height={height} role=img overflow=hidden>{rects}{line}</svg>{ends}')


def _top(column: Mapping[str, Any]) -> p.Html:
    total = max(1, sum(n for _, n in column["top"]) + column.get("n_rest", 0))
    rows = ""
    for value, n in column["top"][:5]:
        bar = f'<svg width=80 height=9 role=img><rect width="{max(1.0, 80 * n / total):.1f}" height=9 rx=2 /></svg>'
        rows += f'<tr><td class=value title="{escape(value)}">{escape(value)}<td>{bar}<td class=n>{escape(part(n / total))}'
    return p.Html(f"<table class=top>{rows}</table>")


_STYLE = """
rect{fill:var(--a)}rect.bad{fill:var(--b)}.small{border-bottom:1px solid var(--line)}.small polyline{stroke:var(--b);stroke-width:1.6}
.ends{display:flex;justify-content:space-between;width:216px}.ends i{font-style:normal;color:var(--dim);font-size:11px}
.top{margin:0}.top td,.top td:first-child{border:0;padding:0 8px 1px 0;vertical-align:middle;min-width:0}
.top .value{max-width:150px;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
"""
