"""A collect's report in words: as Markdown, and as lines for a terminal. `_report_page` draws the same figures."""

from collections.abc import Mapping, Sequence
from typing import Any

Report = Mapping[str, Any]
NONE = "–"


def markdown(found: Report, before: Report | None = None) -> str:
    """The report as Markdown; ``before``: that of the collect before, to compare with."""
    lines = [f"# Collect: {found['table']}", "", f"{found['time']} · modelinscale {found['made_by']}", ""]
    lines += [*_table(("", "rows"), [(name, f"{n:,}") for name, n in counts(found)]), ""]
    if found["warnings"]:
        lines += ["## Warnings", "", *(f"- {_plain(w)}" for w in found["warnings"]), ""]
    if found["reasons"]:
        rows = [(f"{r['n']:,}", r["column"] or "whole row", r["reason"], ", ".join(r["examples"])) for r in found["reasons"]]
        lines += ["## Quarantine", "", *_table(("times", "column", "reason", "examples"), rows), ""]
    if found["changed"]:
        lines += ["## Cleaned", "", *_table(("column", "cells changed", "by"), [(c["column"], f"{c['n']:,}", c["by"]) for c in found["changed"]]), ""]
    rows = [(name, c["type"], *figures(c), compared(c, before, name), _values(c)) for name, c in found["columns"].items()]
    lines += ["## Columns of the rows added", "", *_table(("column", "type", "missing", "different", "low", "mean", "high", "since", "values"), rows), ""]
    return "\n".join([*lines, *(f"{note}\n" for note in notes(found, before))])


def summary(found: Report) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    """A title, a header and a line for each column: the report on a terminal."""
    title = f"{found['table']}, {found['time']}: " + ", ".join(f"{n:,} {name}" for name, n in counts(found))
    rows = [(name, c["type"], *figures(c), _values(c)) for name, c in found["columns"].items()]
    return title, ("name", "type", "missing", "different", "low", "mean", "high", "values"), rows


def counts(found: Report) -> list[tuple[str, int]]:
    """What became of the rows, in the order of their way."""
    rows = [("read", found["n_read"]), ("added", found["n_added"]), ("in quarantine", found["n_quarantined"])]
    return [*rows, *([("equal to earlier rows, taken away", found["n_dropped"])] if found["n_dropped"] else []), ("in the table now", found["n_rows"])]


def figures(column: Mapping[str, Any]) -> tuple[str, ...]:
    """Missing, different, low, mean, high."""
    if not column["n"]:
        return (NONE,) * 5
    distinct = f"{'≈ ' if column['about'] else ''}{column['n_distinct']:,}"
    return (share(column["missing_share"]), distinct, *(number(column.get(name), column["type"]) for name in ("low", "mean", "high")))


def share(value: float) -> str:
    """A share with one digit behind the point."""
    return "0" if value == 0 else "100 %" if value == 1 else "< 0.1 %" if value < 0.001 else f"{value:.1%}".replace("%", " %")


def part(value: float) -> str:
    """A share in whole percents."""
    return "< 1%" if 0 < value < 0.005 else f"{value:.0%}"


def number(value: Any, type: str) -> str:
    """A number of a column of ``type``; of times the day, with the minute where there is one."""
    if value is None:
        return NONE
    if type == "time":
        from datetime import datetime, timedelta

        return (datetime(1970, 1, 1) + timedelta(microseconds=int(value))).isoformat(sep=" ", timespec="minutes").removesuffix(" 00:00")
    return f"{value:,}" if isinstance(value, int) and abs(value) < 10**9 else f"{value:.4g}"


def compared(column: Mapping[str, Any], before: Report | None, name: str) -> str:
    """What moved since the collect before, in words."""
    old = before["columns"].get(name) if before else None
    if not old or not old["n"] or not column["n"]:
        return ""
    words = []
    if abs(old["missing_share"] - column["missing_share"]) >= 0.005:
        words.append(f"missing {share(old['missing_share'])} → {share(column['missing_share'])}")
    one, two = old.get("mean"), column.get("mean")
    if one is not None and two is not None and column["type"] != "time" and abs(two - one) > 0.05 * max(abs(one), 1e-12):
        words.append(f"mean {number(one, 'float')} → {number(two, 'float')}")
    if old.get("top") and column.get("top"):
        new = [v for v, _ in column["top"][:3] if v not in {v for v, _ in old["top"]}]
        words += [f"new: {', '.join(new)}"] if new else []
    return "; ".join(words)


def _values(column: Mapping[str, Any]) -> str:
    if column["hidden"]:
        return "(personal: not shown)"
    total = max(1, sum(n for _, n in column.get("top", ())) + column.get("n_rest", 0))
    return ", ".join(f"{value} {part(n / total)}" for value, n in column.get("top", ())[:5])


def notes(found: Report, before: Report | None) -> list[str]:
    """What a reader has to know of how the figures came about."""
    said = [f"Compared with the collect of {before['time']} (in the page: the lines over the histograms)."] if before else []
    if any(c.get("sampled") for c in found["columns"].values()):
        said.append("Missing, low, mean and high are of all rows; different values, frequent values and histograms of an even sample of them.")
    return said


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *(f"| {' | '.join(map(_plain, row))} |" for row in rows)]


def _plain(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
