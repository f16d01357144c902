"""Reports as one HTML file that needs nothing else, with plots as SVG; readable in light and dark, in narrow windows and without telling red from green.

Curves differ by colour and by dashes (colours of Okabe and Ito, Color Universal Design, 2008), and every plot names its axes.
"""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from html import escape

At = Callable[[float, float], tuple[float, float]]
WIDTH, HEIGHT = 420, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 12, 42


class Html(str):
    """Text that is HTML already; all other text is escaped."""

    __slots__ = ()


@dataclass(frozen=True)
class Curve:
    """A line or points of a plot."""

    points: Sequence[tuple[float, float]]
    name: str = ""
    style: int = 0
    """0, 1, 2: blue solid, orange dashed, green dotted; 3: grey thin, for what is compared with."""
    dots: bool = False
    """Points rather than a line."""
    ranges: Sequence[tuple[float, float]] = ()
    """The interval of each point."""


def page(title: str, under: str, parts: Iterable[str], *, style: str = "") -> str:
    """A whole page; ``parts`` are HTML, title and the line under it plain text, ``style`` the CSS of drawings that only this page has."""
    head = "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width,initial-scale=1'>"
    head += f"<title>{escape(title)}</title><style>{_STYLE}{style}</style>"
    return f"{head}<main><h1>{escape(title)}</h1><p class=dim>{escape(under)}</p>{''.join(parts)}</main></html>\n"


def section(title: str, *parts: str, note: str = "") -> str:
    """A heading with what belongs to it; nothing where there is nothing."""
    body = "".join(parts)
    return f"<section><h2>{escape(title)}</h2>{f'<p class=dim>{escape(note)}</p>' if note else ''}{body}</section>" if body else ""


def side_by_side(*figures: str) -> str:
    """Figures in as many columns as the window has room for."""
    found = "".join(f for f in figures if f)
    return f"<div class=figures>{found}</div>" if found else ""


def figure(title: str, svg: str, note: str = "") -> str:
    """A plot with its title above and what to look for below."""
    under = f"<figcaption>{escape(note)}</figcaption>" if note else ""
    return f"<figure><h3>{escape(title)}</h3>{svg}{under}</figure>"


def cards(pairs: Iterable[tuple[str, str]]) -> str:
    """(figure, what it is), large."""
    return "<div class=cards>" + "".join(f"<div class=card><b>{escape(value)}</b><span>{escape(name)}</span></div>" for value, name in pairs) + "</div>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, text: int | Collection[int] = 1, marked: Iterable[int] = ()) -> str:
    """Cells of plain text or `Html`; of the columns the first ``text``, or those it names, are words, the others numbers; ``marked`` rows stand out."""
    if not rows:
        return ""
    stand_out, words = set(marked), range(text) if isinstance(text, int) else text

    def cells(row: Sequence[str], tag: str) -> str:
        return "".join(f"<{tag}{'' if i in words else ' class=n'}>{cell if isinstance(cell, Html) else escape(cell)}" for i, cell in enumerate(row))

    body = "".join(f"<tr{' class=mark' if i in stand_out else ''}>{cells(row, 'td')}" for i, row in enumerate(rows))
    return f"<div class=wide><table><tr>{cells(header, 'th')}{body}</table></div>"


def notes(lines: Sequence[str]) -> str:
    """What must be known."""
    return "<ul class=notes>" + "".join(f"<li>{escape(one)}</li>" for one in lines) + "</ul>" if lines else ""


def plot(curves: Sequence[Curve], x: str, y: str, *, x_range: tuple[float, float] | None = None, y_range: tuple[float, float] | None = None) -> str:
    """Curves in one frame; ``x`` and ``y`` name the axes."""
    points = [p for c in curves for p in c.points if math.isfinite(p[0]) and math.isfinite(p[1])]
    if not points:
        return ""
    ends = [v for c in curves for pair in c.ranges for v in pair]
    (x0, x1), (y0, y1) = _span([p[0] for p in points], x_range), _span([*(p[1] for p in points), *ends], y_range)

    def at(px: float, py: float) -> tuple[float, float]:
        return _LEFT + (px - x0) / (x1 - x0) * (WIDTH - _LEFT - _RIGHT), HEIGHT - _BOTTOM - (py - y0) / (y1 - y0) * (HEIGHT - _TOP - _BOTTOM)

    drawn = [_axes(x, y, (x0, x1), (y0, y1), at)]
    for curve in curves:
        kept = [at(*p) for p in curve.points if math.isfinite(p[0]) and math.isfinite(p[1])]
        for (px, _), (low, high) in zip(curve.points, curve.ranges, strict=False):
            (a, b), (_, c) = at(px, low), at(px, high)
            drawn.append(f'<path class="s{curve.style}" d="M{a:.1f} {b:.1f}V{c:.1f}"/>')
        if curve.dots:
            drawn += [f'<circle class="d{curve.style}" cx="{a:.1f}" cy="{b:.1f}" r="{3.5 if len(kept) < 60 else 1.6}"/>' for a, b in kept]
        else:
            drawn.append(f'<polyline class="s{curve.style}" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in kept)}"/>')
    return f'<svg class=plot viewBox="0 0 {WIDTH} {HEIGHT}" role=img aria-label="{escape(y)} by {escape(x)}">{"".join(drawn)}</svg>{_legend(curves)}'


def bars(heights: Sequence[float], low: float, high: float, x: str, y: str) -> str:
    """A histogram between ``low`` and ``high``."""
    most = max(heights, default=0)
    if not most or not low < high:
        return ""

    def at(px: float, py: float) -> tuple[float, float]:
        return _LEFT + (px - low) / (high - low) * (WIDTH - _LEFT - _RIGHT), HEIGHT - _BOTTOM - py / (1.05 * most) * (HEIGHT - _TOP - _BOTTOM)

    step, drawn = (WIDTH - _LEFT - _RIGHT) / len(heights), [_axes(x, y, (low, high), (0, 1.05 * most), at)]
    for i, n in enumerate(heights):
        top = at(low, n)[1]
        drawn.append(f'<rect class=bar x="{_LEFT + i * step + 0.5:.1f}" y="{top:.1f}" width="{step - 1:.1f}" height="{HEIGHT - _BOTTOM - top:.1f}"/>')
    return f'<svg class=plot viewBox="0 0 {WIDTH} {HEIGHT}" role=img aria-label="{escape(y)} by {escape(x)}">{"".join(drawn)}</svg>'


def ranked(rows: Sequence[tuple[str, float, float, float]], unit: str) -> str:
    """Names with a bar from 0 to a value (left: negative) and its interval: (name, value, low, high)."""
    if not rows:
        return ""
    low, high = min(0.0, *(r[2] for r in rows), *(r[1] for r in rows)), max(0.0, *(r[3] for r in rows), *(r[1] for r in rows))
    width, left, right, step = 640, 190, 90, 22
    scale = (width - left - right) / ((high - low) or 1.0)
    zero, drawn = left - low * scale, []
    for i, (name, value, a, b) in enumerate(rows):
        y = i * step + 4
        drawn.append(f'<text class=name x="{left - 8}" y="{y + 12}">{escape(name if len(name) <= 26 else name[:25] + "…")}<title>{escape(name)}</title></text>')
        kind = "bar" if value >= 0 else "bar less"
        drawn.append(f'<rect class="{kind}" x="{min(zero, zero + value * scale):.1f}" y="{y}" width="{abs(value) * scale:.1f}" height="15"/>')
        if b > a:
            drawn.append(f'<path class=range d="M{zero + a * scale:.1f} {y + 7.5}H{zero + b * scale:.1f}"/>')
        drawn.append(f'<text x="{width - right + 8}" y="{y + 12}">{escape(number(value))}</text>')
    drawn.append(f'<path class=axis d="M{zero:.1f} 0V{len(rows) * step}"/>')
    label = f'<svg class="plot long" viewBox="0 0 {width} {len(rows) * step + 6}" role=img aria-label="{escape(unit)}">'
    return f"{label}{''.join(drawn)}</svg><p class=dim>{escape(unit)}</p>"


def shaded(labels: Sequence[str], counts: Sequence[Sequence[int]], down: str, across: str) -> str:
    """A table of counts whose cells are the darker the larger their share of the row."""
    heads = "".join(f"<th class=n>{escape(label)}" for label in labels)
    body = ""
    for label, row in zip(labels, counts, strict=True):
        total = sum(row) or 1
        body += f"<tr><th>{escape(label)}" + "".join(f'<td class="n shade" style="--p:{n / total:.3f}">{n:,}<i>{n / total:.0%}</i>' for n in row)
    return f"<p class=dim>{escape(down)} down, {escape(across)} across</p><div class=wide><table class=fit><tr><th>{heads}{body}</table></div>"


def number(value: float | None) -> str:
    """A number in few digits."""
    if value is None or value != value:
        return "–"
    size = abs(value)
    if size and (size >= 1e7 or size < 1e-4):
        return f"{value:.3g}"
    return f"{value:,.0f}" if size >= 10_000 else f"{value:,.1f}" if size >= 100 else f"{value:.2f}" if size >= 10 else f"{value:.4f}"


def _span(values: Sequence[float], given: tuple[float, float] | None) -> tuple[float, float]:
    low, high = given or (min(values), max(values))
    if low < high:
        return low, high
    return low - 0.5, high + 0.5


def _ticks(low: float, high: float) -> list[float]:
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(k for k in (1, 2, 5, 10) if (high - low) / (k * step) <= 6)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _axes(x: str, y: str, xs: tuple[float, float], ys: tuple[float, float], at: At) -> str:
    drawn = ""
    for value in _ticks(*xs):
        a, _ = at(value, ys[0])
        drawn += f'<path class=grid d="M{a:.1f} {_TOP}V{HEIGHT - _BOTTOM}"/><text class=mid x="{a:.1f}" y="{HEIGHT - _BOTTOM + 15}">{value:.6g}</text>'
    for value in _ticks(*ys):
        _, b = at(xs[0], value)
        drawn += f'<path class=grid d="M{_LEFT} {b:.1f}H{WIDTH - _RIGHT}"/><text class=name x="{_LEFT - 6}" y="{b + 4:.1f}">{value:.6g}</text>'
    middle = (HEIGHT - _BOTTOM + _TOP) / 2
    drawn += f'<text class="mid label" x="{(WIDTH + _LEFT - _RIGHT) / 2}" y="{HEIGHT - 6}">{escape(x)}</text>'
    return drawn + f'<text class="mid label" transform="translate(12 {middle}) rotate(-90)">{escape(y)}</text>'


def _legend(curves: Sequence[Curve]) -> str:
    named = [c for c in curves if c.name]
    keys = "".join(
        f'<span><svg width=28 height=10>{"<circle cx=14 cy=5 r=3.5" if c.dots else "<path d=M0,5H28"} class="{"d" if c.dots else "s"}{c.style}"/></svg>'
        f"{escape(c.name)}</span>"
        for c in named
    )
    return f"<div class=legend>{keys}</div>" if keys else ""


_STYLE = """
:root{color-scheme:light dark;--ink:#1d2430;--dim:#5b6577;--ground:#fff;--card:#f4f6f9;--line:#dfe3ea;--a:#0072b2;--b:#d55e00;--c:#007a5a;--shade:0,114,178}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--dim:#a3adbd;--ground:#14181f;--card:#1e242e;--line:#303846;--a:#56b4e9;--b:#e69f00;--c:#2fbf93;--shade:86,180,233}}
*{box-sizing:border-box}body{margin:0;background:var(--ground);color:var(--ink);font:14px/1.5 system-ui,sans-serif}
main{max-width:1180px;margin:0 auto;padding:24px 20px 60px}h1{font-size:22px;margin:0}h2{font-size:17px;margin:34px 0 6px}h3{font-size:14px;margin:0 0 4px}
.dim,figcaption{color:var(--dim)}p{margin:4px 0}figcaption{font-size:13px}.cards{display:flex;flex-wrap:wrap;gap:12px;margin:16px 0}
.card{background:var(--card);border-radius:8px;padding:10px 16px;display:flex;flex-direction:column}.card b{font-size:20px;font-variant-numeric:tabular-nums}
.card span{color:var(--dim)}.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,350px),1fr));gap:26px 30px;margin-top:10px}
figure{margin:0;min-width:0}.wide{overflow-x:auto}table{border-collapse:collapse;margin:8px 0}th{text-align:left;color:var(--dim);font-weight:500}
td:first-child{min-width:8em}.fit td:first-child{min-width:0}
td,th{padding:4px 22px 4px 0;border-bottom:1px solid var(--line);vertical-align:top}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}.mark td{font-weight:700}.mark td:first-child::after{content:" ◂"}
.shade{background:rgba(var(--shade),calc(var(--p)*.5));padding:6px 12px}.shade i{display:block;font-style:normal;font-size:11px;opacity:.75}
svg{display:block}.plot{width:100%;height:auto;max-width:520px}.plot.long{max-width:760px}text{font:11px system-ui,sans-serif;fill:var(--ink)}
.mid{text-anchor:middle}.name{text-anchor:end}.label{fill:var(--dim);font-size:12px}
.grid{stroke:var(--line)}.axis{stroke:var(--dim)}.range{stroke:var(--ink);stroke-width:1.6}
polyline,path.s0,path.s1,path.s2,path.s3{fill:none;stroke-width:2}.s0{stroke:var(--a)}.s1{stroke:var(--b);stroke-dasharray:7 4}
.s2{stroke:var(--c);stroke-dasharray:2 3}.s3{stroke:var(--dim);stroke-width:1;stroke-dasharray:4 4}
.d0{fill:var(--a);fill-opacity:.65}.d1{fill:var(--b)}.d2{fill:var(--c)}.d3{fill:var(--dim)}.bar{fill:var(--a)}.bar.less{fill:var(--b)}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:13px;padding-left:10px}.legend span{display:flex;align-items:center;gap:6px}
.notes li{margin:3px 0}.heat{display:flex;flex-wrap:wrap;gap:14px}.heat div{font-size:12px;color:var(--dim)}details{margin:8px 0}summary{cursor:pointer}
"""
