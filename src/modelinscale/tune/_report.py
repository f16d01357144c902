"""The page of a search: one HTML file that needs nothing else. What was found, what mattered, how trials went."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from modelinscale.core import page as p
from modelinscale.core.units import show_seconds
from modelinscale.tune import _plots
from modelinscale.tune._rungs import Entry, ranked

if TYPE_CHECKING:
    from modelinscale.tune._search import Found

_SHOWN = 15
_STYLE = """
.wide-plot{width:100%;height:auto}.wide-plot text{font-size:12px;fill:var(--dim)}rect.bar,.part{fill:var(--a)}.part{opacity:.55}.whole{fill:var(--b)}
.wide-plot .axis{stroke:var(--line)}polyline.best,polyline.trial,polyline.winner{fill:none;stroke:var(--b);stroke-width:2}
polyline.trial{stroke:var(--a);stroke-width:1}polyline.winner{stroke-width:2.5}
"""


def page(name: str, facts: dict[str, Any], found: "Found") -> str:
    """The whole page; ``facts`` as the step keeps them."""
    entries, low_high = found.entries, _plots.bounds(found.entries)
    best, start = found.best, facts["start"]
    gained = f" The settings it began with have {start:.4g}: {(start - found.loss) / start:.1%} less." if start else ""
    tried = (
        f"{facts['n_settings']:,} settings in {facts['n_trials']:,} trials ({facts['n_failed']:,} could not learn), searcher {facts['searcher']}, "
        f"{show_seconds(facts['cpu_seconds'])} of CPU. Chosen on validation rows, so a little flattering: the test rows judge."
    )
    chosen = [(key, _value(value)) for key, value in best.point.items()]
    weights = _plots.importance(found.importance) if found.importance else ""
    parts = [
        f"<p>{escape(facts['family'])}, loss {found.loss:.4g} on the validation rows.{gained}</p>",
        p.table(("setting", "best value"), chosen, text=2),
        p.section("What mattered", weights, note="Share of each setting in what makes trials good (PED-ANOVA)."),
    ]
    for family in found.space.families:
        if found.space.flat(family) and any(e.loss is not None and found.space.family(e.point) == family for e in entries):
            plot = _plots.parallel(entries, found.space, family, *low_high, found.importance)
            parts.append(p.section(f"All settings: {family}", plot, note="A line is a trial; the stronger, the better; the best on the right is low."))
    went = _plots.history(entries, *low_high)
    parts.append(p.section("How trials went", went, note="Pale: on a part of the rows. Orange: on all, and the best so far."))
    if len(found.ladder) > 1:
        parts.append(p.section("Learning curves", _plots.curves(entries, found.ladder, *low_high), note="The loss of each settings with more rows."))
    failed = [(str(e.number), e.note) for e in entries if e.state == "failed"][:_SHOWN]
    parts += [p.section("The best trials", _trials(entries)), p.section("Could not learn", p.table(("trial", "why"), failed, text=2))]
    return p.page(f"{name}: the settings that learn best", tried, parts, style=_STYLE)


def _trials(entries: Sequence[Entry]) -> str:
    shown = ranked(entries, 1.0)[:_SHOWN]
    names = list(dict.fromkeys(name for e in shown for name in e.point))
    rows = [(str(e.number), f"{e.loss:.5g}", f"{e.seconds:.1f}", *(_value(e.point[n]) if n in e.point else "" for n in names)) for e in shown]
    return p.table(("trial", "loss", "seconds", *(name.rpartition(".")[2] for name in names)), rows)


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
