"""The page of a search: one HTML file that needs nothing else. What was found, what mattered, how trials went."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from modelinscale.core.units import show_seconds
from modelinscale.tune import _plots
from modelinscale.tune._rungs import Entry, ranked

if TYPE_CHECKING:
    from modelinscale.tune._search import Found

_SHOWN = 15
_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #6a737d; --line: #d8dee4; --back: #ffffff; --one: #2563b8; --two: #c2410c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9aa4af; --line: #333b45; --back: #14181d; --one: #6cb1ff; --two: #ff9d5c; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); max-width: 920px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; } p.soft { color: var(--soft); margin: .2rem 0 .6rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } th, td { padding: .15rem .9rem .15rem 0; text-align: left; }
th { color: var(--soft); font-weight: 600; } td.number { text-align: right; } .scroll { overflow-x: auto; }
svg { width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: var(--soft); }
.grid, .axis { stroke: var(--line); } .bar { fill: var(--one); } .part { fill: var(--one); opacity: .55; } .whole { fill: var(--two); }
.best { fill: none; stroke: var(--two); stroke-width: 2; }
.trial { fill: none; stroke: var(--one); } .winner { fill: none; stroke: var(--two); stroke-width: 2.5; }
"""


def page(name: str, facts: dict[str, Any], found: "Found") -> str:
    """The whole page; ``facts`` as the step keeps them."""
    entries, low_high = found.entries, _plots.bounds(found.entries)
    best, start = found.best, facts["start"]
    gained = f" The settings it began with have {start:.4g}: {(start - found.loss) / start:.1%} less." if start else ""
    parts = [
        f"<h1>{escape(name)}: the settings that learn best</h1>",
        f"<p>{escape(facts['family'])}, loss {found.loss:.4g} on the validation rows.{gained}</p>",
        f'<p class="soft">{facts["n_settings"]:,} settings in {facts["n_trials"]:,} trials ({facts["n_failed"]:,} could not learn), '
        f"searcher {escape(facts['searcher'])}, {show_seconds(facts['cpu_seconds'])} of CPU. Chosen on validation rows, so a little flattering: "
        "the test rows judge.</p>",
        _table(("setting", "best value"), [(key, _value(value)) for key, value in best.point.items()]),
        *_section(
            "What mattered", "Share of each setting in what makes trials good (PED-ANOVA).", _plots.importance(found.importance) if found.importance else ""
        ),
    ]
    for family in found.space.families:
        if found.space.flat(family) and any(e.loss is not None and found.space.family(e.point) == family for e in entries):
            plot = _plots.parallel(entries, found.space, family, *low_high, found.importance)
            parts += _section(f"All settings: {family}", "A line is a trial; the stronger, the better; the best on the right is low.", plot)
    parts += _section("How trials went", "Pale: on a part of the rows. Orange: on all, and the best so far.", _plots.history(entries, *low_high))
    if len(found.ladder) > 1:
        parts += _section("Learning curves", "The loss of each settings with more rows.", _plots.curves(entries, found.ladder, *low_high))
    parts += ["<h2>The best trials</h2>", f'<div class="scroll">{_trials(entries)}</div>']
    failed = [e for e in entries if e.state == "failed"]
    if failed:
        parts += ["<h2>Could not learn</h2>", _table(("trial", "why"), [(str(e.number), e.note) for e in failed[:_SHOWN]])]
    body = "\n".join(parts)
    title = f"Tuning of {escape(name)}"
    return f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style></head>\n<body>{body}</body></html>\n'


def _section(title: str, words: str, plot: str) -> list[str]:
    return [f"<h2>{escape(title)}</h2>", f'<p class="soft">{escape(words)}</p>', plot] if plot else []


def _trials(entries: Sequence[Entry]) -> str:
    shown = ranked(entries, 1.0)[:_SHOWN]
    names = list(dict.fromkeys(name for e in shown for name in e.point))
    rows = [(str(e.number), f"{e.loss:.5g}", f"{e.seconds:.1f}", *(_value(e.point[n]) if n in e.point else "" for n in names)) for e in shown]
    return _table(("trial", "loss", "seconds", *(name.rpartition(".")[2] for name in names)), rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
