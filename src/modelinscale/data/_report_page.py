"""A collect's report for people: Markdown, and one HTML file that needs nothing else and follows the reader's light or dark."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

Report = Mapping[str, Any]
_NONE = "–"


def markdown(found: Report, before: Report | None = None) -> str:
    """The report as Markdown; ``before``: that of the collect before, to compare with."""
    lines = [f"# Collect: {found['table']}", "", f"{found['time']} · modelinscale {found['made_by']}", ""]
    lines += [*_table(("", "rows"), [(name, f"{n:,}") for name, n in _counts(found)]), ""]
    if found["warnings"]:
        lines += ["## Warnings", "", *(f"- {_plain(w)}" for w in found["warnings"]), ""]
    if found["reasons"]:
        rows = [(f"{r['n']:,}", r["column"] or "whole row", r["reason"], ", ".join(r["examples"])) for r in found["reasons"]]
        lines += ["## Quarantine", "", *_table(("times", "column", "reason", "examples"), rows), ""]
    if found["changed"]:
        lines += ["## Cleaned", "", *_table(("column", "cells changed", "by"), [(c["column"], f"{c['n']:,}", c["by"]) for c in found["changed"]]), ""]
    rows = [(name, c["type"], *_cells(c), _compared(c, before, name), _values(c)) for name, c in found["columns"].items()]
    lines += ["## Columns of the rows added", "", *_table(("column", "type", "missing", "different", "low", "mean", "high", "since", "values"), rows), ""]
    return "\n".join([*lines, *(f"{note}\n" for note in _notes(found, before))])


def summary(found: Report) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    """A title, a header and a line for each column: the report on a terminal."""
    title = f"{found['table']}, {found['time']}: " + ", ".join(f"{n:,} {name}" for name, n in _counts(found))
    rows = [(name, c["type"], *_cells(c), _values(c)) for name, c in found["columns"].items()]
    return title, ("name", "type", "missing", "different", "low", "mean", "high", "values"), rows


def _counts(found: Report) -> list[tuple[str, int]]:
    counts = [("read", found["n_read"]), ("added", found["n_added"]), ("in quarantine", found["n_quarantined"])]
    return [*counts, *([("equal to earlier rows, taken away", found["n_dropped"])] if found["n_dropped"] else []), ("in the table now", found["n_rows"])]


def _cells(column: Mapping[str, Any]) -> tuple[str, ...]:
    """Missing, different, low, mean, high."""
    if not column["n"]:
        return (_NONE,) * 5
    distinct = f"{'≈ ' if column['about'] else ''}{column['n_distinct']:,}"
    return (_share(column["missing_share"]), distinct, *(_number(column.get(name), column["type"]) for name in ("low", "mean", "high")))


def _share(share: float) -> str:
    return "0" if share == 0 else "100 %" if share == 1 else "< 0.1 %" if share < 0.001 else f"{share:.1%}".replace("%", " %")


def _part(share: float) -> str:
    return "< 1%" if 0 < share < 0.005 else f"{share:.0%}"


def _number(value: Any, type: str) -> str:
    if value is None:
        return _NONE
    if type == "time":
        from datetime import datetime, timedelta

        return (datetime(1970, 1, 1) + timedelta(microseconds=int(value))).isoformat(sep=" ", timespec="minutes").removesuffix(" 00:00")
    return f"{value:,}" if isinstance(value, int) and abs(value) < 10**9 else f"{value:.4g}"


def _compared(column: Mapping[str, Any], before: Report | None, name: str) -> str:
    """What moved since the collect before, in words."""
    old = before["columns"].get(name) if before else None
    if not old or not old["n"] or not column["n"]:
        return ""
    words = []
    if abs(old["missing_share"] - column["missing_share"]) >= 0.005:
        words.append(f"missing {_share(old['missing_share'])} → {_share(column['missing_share'])}")
    one, two = old.get("mean"), column.get("mean")
    if one is not None and two is not None and column["type"] != "time" and abs(two - one) > 0.05 * max(abs(one), 1e-12):
        words.append(f"mean {_number(one, 'float')} → {_number(two, 'float')}")
    if old.get("top") and column.get("top"):
        new = [v for v, _ in column["top"][:3] if v not in {v for v, _ in old["top"]}]
        words += [f"new: {', '.join(new)}"] if new else []
    return "; ".join(words)


def _values(column: Mapping[str, Any]) -> str:
    if column["hidden"]:
        return "(personal: not shown)"
    total = max(1, sum(n for _, n in column.get("top", ())) + column.get("n_rest", 0))
    return ", ".join(f"{value} {_part(n / total)}" for value, n in column.get("top", ())[:5])


def _notes(found: Report, before: Report | None) -> list[str]:
    notes = [f"Compared with the collect of {before['time']} (in the page: the lines over the histograms)."] if before else []
    if any(c.get("sampled") for c in found["columns"].values()):
        notes.append("Missing, low, mean and high are of all rows; different values, frequent values and histograms of an even sample of them.")
    return notes


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *(f"| {' | '.join(map(_plain, row))} |" for row in rows)]


def _plain(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


# HTML


def html(found: Report, before: Report | None = None) -> str:
    """The report as one HTML page, without scripts; every text of the data is escaped."""
    cards = "".join(f"<div class=card><b>{n:,}</b><span>{escape(name)}</span></div>" for name, n in _counts(found))
    parts = [
        f"<h1>{escape(found['table'])}</h1><p class=dim>{escape(found['time'])} · modelinscale {escape(found['made_by'])}</p><div class=cards>{cards}</div>"
    ]
    if found["warnings"]:
        parts.append("<h2>Warnings</h2><ul class=warn>" + "".join(f"<li>{escape(w)}</li>" for w in found["warnings"]) + "</ul>")
    if found["reasons"]:
        most = max(r["n"] for r in found["reasons"])
        rows = [
            f"<tr><td class=n>{r['n']:,}<td>{_bar(r['n'] / most)}<td>{escape(r['column'] or 'whole row')}<td>{escape(r['reason'])}"
            f"<td class=dim>{escape(', '.join(r['examples']))}"
            for r in found["reasons"]
        ]
        parts.append("<h2>Quarantine</h2>" + _grid(("times", "", "column", "reason", "examples"), rows, numbers=("times",), fit=True))
    if found["changed"]:
        rows = [f"<tr><td>{escape(c['column'])}<td class=n>{c['n']:,}<td class=n>{_share(c['share'])}<td>{escape(c['by'])}" for c in found["changed"]]
        parts.append("<h2>Cleaned</h2>" + _grid(("column", "cells changed", "share", "by"), rows, numbers=("cells changed", "share"), fit=True))
    rows = [_row(name, c, before) for name, c in found["columns"].items()]
    header = ("column", "values", "missing", "different", "low", "mean", "high", *(("since the collect before",) if before else ()))
    parts.append("<h2>Columns of the rows added</h2>" + _grid(header, rows, numbers=("missing", "different", "low", "mean", "high")))
    parts += [f"<p class=dim>{escape(note)}</p>" for note in _notes(found, before)]
    head = "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width,initial-scale=1'>"
    head += f"<title>{escape(found['table'])}</title>"
    return f"{head}<style>{_STYLE}</style><main>{''.join(parts)}</main></html>\n"


def _row(name: str, column: Mapping[str, Any], before: Report | None) -> str:
    cells = _cells(column)
    old = before["columns"].get(name) if before else None
    since = f"<td>{escape(_compared(column, before, name))}" if before else ""
    numbers = "".join(f"<td class=n>{escape(c)}" for c in cells)
    return f"<tr><td><b>{escape(name)}</b><br><span class=dim>{column['type']}</span><td>{_plot(column, old)}{numbers}{since}"


def _grid(header: Sequence[str], rows: Sequence[str], *, numbers: Sequence[str], fit: bool = False) -> str:
    heads = "".join(f"<th{' class=n' if h in numbers else ''}>{h}" for h in header)
    return f"<div class=wide><table{' class=fit' if fit else ''}><tr>{heads}{''.join(rows)}</table></div>"


def _bar(share: float) -> str:
    return f'<svg width=90 height=10 role=img><rect class=bad width="{max(1.0, 90 * share):.1f}" height=10 rx=2 /></svg>'


def _plot(column: Mapping[str, Any], old: Mapping[str, Any] | None) -> str:
    if column["hidden"]:
        return "<span class=dim>personal: not shown</span>"
    if column.get("bars"):
        return _histogram(column["bars"], old.get("bars") if old else None, column["type"])
    return _top(column) if column.get("top") else f"<span class=dim>{_NONE}</span>"


def _histogram(bars: Mapping[str, Any], old: Mapping[str, Any] | None, type: str) -> str:
    """Bars, and the collect before as a line over the same span."""
    width, height, counts = 216, 44, bars["counts"]
    total, most, step = sum(counts) or 1, max(counts) or 1, width / len(counts)
    scale = height / (most / total)
    rects = "".join(
        f'<rect x="{i * step:.1f}" y="{height - n / total * scale:.1f}" width="{max(0.5, step - 1):.1f}" height="{n / total * scale:.1f}" />'
        for i, n in enumerate(counts)
        if n
    )
    line = ""
    if old and old["low"] < old["high"] and bars["low"] < bars["high"]:
        n_old, per = sum(old["counts"]) or 1, (bars["high"] - bars["low"]) / len(counts)
        each = (old["high"] - old["low"]) / len(old["counts"])
        points = []
        for i, n in enumerate(old["counts"]):
            x = (old["low"] + (i + 0.5) * each - bars["low"]) / (bars["high"] - bars["low"]) * width
            y = height - min(height, n / n_old * (per / each) * scale)
            points.append(f"{x:.1f},{y:.1f}")
        line = f'<polyline points="{" ".join(points)}" />'
    ends = f"<span class=ends><i>{escape(_number(bars['low'], type))}</i><i>{escape(_number(bars['high'], type))}</i></span>"
    return f'<svg class=plot viewBox="0 0 {width} {height}" width={width} height={height} role=img overflow=hidden>{rects}{line}</svg>{ends}'


def _top(column: Mapping[str, Any]) -> str:
    top = column["top"][:5]
    total = max(1, sum(n for _, n in column["top"]) + column.get("n_rest", 0))
    rows = ""
    for value, n in top:
        bar = f'<svg width=80 height=9 role=img><rect width="{max(1.0, 80 * n / total):.1f}" height=9 rx=2 /></svg>'
        rows += f'<tr><td class=value title="{escape(value)}">{escape(value)}<td>{bar}<td class=n>{escape(_part(n / total))}'
    return f"<table class=top>{rows}</table>"


_STYLE = """
:root{color-scheme:light dark;--ink:#1d2430;--dim:#667085;--ground:#fff;--card:#f4f6f9;--line:#dfe3ea;--bar:#3b74c4;--old:#d0762b;--bad:#c4483b}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--dim:#98a2b3;--ground:#14181f;--card:#1e242e;--line:#303846;--bar:#6c9fe4;--old:#e8a05c;--bad:#e57a6d}}
body{margin:0;background:var(--ground);color:var(--ink);font:14px/1.45 system-ui,sans-serif}main{max-width:1180px;margin:0 auto;padding:24px}
h1{font-size:22px;margin:0}h2{font-size:16px;margin:28px 0 8px}.dim{color:var(--dim)}p{margin:4px 0}
.cards{display:flex;flex-wrap:wrap;gap:12px;margin:16px 0}
.card{background:var(--card);border-radius:8px;padding:10px 16px;display:flex;flex-direction:column}
.card b{font-size:20px;font-variant-numeric:tabular-nums}.card span{color:var(--dim)}.wide{overflow-x:auto}.fit{width:auto}.fit td,.fit th{padding-right:28px}
table{border-collapse:collapse;width:100%}th{text-align:left;white-space:nowrap;color:var(--dim);font-weight:500}
td,th{padding:6px 10px 6px 0;border-bottom:1px solid var(--line);vertical-align:top}
.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}rect{fill:var(--bar)}rect.bad{fill:var(--bad)}
polyline{fill:none;stroke:var(--old);stroke-width:1.6}svg{display:block}.plot{border-bottom:1px solid var(--line)}
.ends{display:flex;justify-content:space-between;width:216px}
.ends i{font-style:normal;color:var(--dim);font-size:11px}.top{width:auto}.top td{border:0;padding:0 8px 1px 0;vertical-align:middle}
.value{max-width:150px;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}.warn li{color:var(--bad)}
"""
