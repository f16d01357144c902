"""Plots of a search as inline SVG: they need nothing from elsewhere and follow the page's light or dark."""

from collections.abc import Sequence
from html import escape

from modelinscale.core.space import Range, Span
from modelinscale.tune._rungs import Entry, ranked
from modelinscale.tune._space import FAMILY, Space

W, H, LEFT, TOP, BOTTOM = 860, 260, 60, 16, 34
_MOST_LINES, _MOST_AXES = 400, 9


def history(entries: Sequence[Entry], low: float, high: float) -> str:
    """Loss of every trial in the order they began, and the best on all rows so far."""
    known = [e for e in entries if e.loss is not None]
    n = max(2, len(entries))
    best, steps = None, []
    marks = [f'<circle cx="{_x(e.number, n)}" cy="{_y(e.loss, low, high)}" r="3.5" class="{_kind(e)}">{_tip(e)}</circle>' for e in known]
    for e in known:
        if e.share == 1.0 and e.loss is not None and (best is None or e.loss < best):
            if best is not None:
                steps.append(f"{_x(e.number, n)},{_y(best, low, high)}")
            best = e.loss
            steps.append(f"{_x(e.number, n)},{_y(best, low, high)}")
    if best is not None:
        steps.append(f"{_x(n - 1, n)},{_y(best, low, high)}")
    line = f'<polyline points="{" ".join(steps)}" class="best"/>'
    return _svg([*_loss_axis(low, high), line, *marks, _text(LEFT, H - 8, "first trial"), _text(W - 10, H - 8, "last", "end")])


def importance(shares: dict[str, float]) -> str:
    """A bar for each setting."""
    height = 24 * len(shares) + 8
    parts = []
    for i, (name, share) in enumerate(shares.items()):
        y = 4 + 24 * i
        parts += [
            _text(200, y + 15, name, "end"),
            f'<rect x="208" y="{y + 3}" width="{max(1.0, 560 * share):.1f}" height="16" class="bar"/>',
            _text(214 + 560 * share, y + 15, f"{share:.0%}"),
        ]
    return _svg(parts, height)


def parallel(entries: Sequence[Entry], space: Space, family: str, low: float, high: float, shares: dict[str, float]) -> str:
    """A line for each trial through the settings of one family, the weightiest first, to its loss; the better, the stronger."""
    spans = space.flat(family)
    names = sorted(spans, key=lambda name: -shares.get(name, 0.0))[: _MOST_AXES - 1]
    lines = [e for e in entries if e.loss is not None and e.point.get(FAMILY, family) == family]
    lines = sorted(lines, key=lambda e: -(e.loss or 0.0))[-_MOST_LINES:]
    height, step = 330, (W - 140) / len(names)
    xs = [70 + i * step for i in range(len(names) + 1)]
    parts = []
    for rank, e in enumerate(lines):
        ys = [_up(spans[name].share(e.point[name]), height) for name in names] + [_up((e.loss - low) / (high - low), height)]  # type: ignore[operator]
        strength = ((rank + 1) / len(lines)) ** 3
        kind = "winner" if rank == len(lines) - 1 else "trial"
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
        parts.append(f'<polyline points="{points}" class="{kind}" style="opacity:{0.08 + 0.72 * strength:.2f}">{_tip(e)}</polyline>')
    for i, (x, name) in enumerate(zip(xs, [*names, "loss"], strict=True)):
        ends = (f"{low:.4g}", f"{high:.4g}") if name == "loss" else _ends(spans[name])
        label = name.removeprefix(f"{family}.")
        parts += [
            f'<line x1="{x:.1f}" y1="40" x2="{x:.1f}" y2="{height - 44}" class="axis"/>',
            _text(x, 16 if i % 2 else 30, label, "middle"),
            _text(x, height - 28, ends[0], "middle"),
            _text(x, height - 12, f"to {ends[1]}", "middle"),
        ]
    return _svg(parts, height)


def curves(entries: Sequence[Entry], ladder: Sequence[float], low: float, high: float) -> str:
    """The loss of each settings on each rung: how they learn with more rows."""
    at = {share: LEFT + 40 + i * (W - LEFT - 120) / max(1, len(ladder) - 1) for i, share in enumerate(ladder)}
    parts, best = [*_loss_axis(low, high)], next(iter(ranked(entries, 1.0)), None)
    for draw in dict.fromkeys(e.draw for e in entries):
        own = sorted((e.share, e) for e in entries if e.draw == draw and e.loss is not None and e.share in at)
        kind = "winner" if best is not None and draw == best.draw else "trial"
        points = " ".join(f"{at[share]:.1f},{_y(e.loss, low, high)}" for share, e in own)
        if len(own) > 1:
            parts.append(f'<polyline points="{points}" class="{kind}" style="opacity:.7"/>')
        parts += [f'<circle cx="{at[share]:.1f}" cy="{_y(e.loss, low, high)}" r="3" class="{_kind(e)}">{_tip(e)}</circle>' for share, e in own]
    parts += [_text(x, H - 8, f"{share:.0%} of the rows", "middle") for share, x in at.items()]
    return _svg(parts)


def bounds(entries: Sequence[Entry]) -> tuple[float, float]:
    """From the least loss to one above most of them: a few that did not learn at all must not flatten the rest."""
    known = sorted(e.loss for e in entries if e.loss is not None)
    low, high = known[0], known[min(len(known) - 1, int(len(known) * 0.9))]
    return (low, high) if high > low else (low - 0.5 * abs(low) - 1e-9, low + 0.5 * abs(low) + 1e-9)


def _kind(entry: Entry) -> str:
    return "whole" if entry.share == 1.0 else "part"


def _tip(entry: Entry) -> str:
    values = ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in entry.point.items())
    return f"<title>{escape(f'trial {entry.number} ({entry.share:.0%} of the rows): loss {entry.loss:.5g}; {values}')}</title>"


def _ends(span: Span) -> tuple[str, str]:
    if isinstance(span, Range):
        return f"{span.low:.4g}", f"{span.high:.4g}"
    return str(span.values[0]).lower(), str(span.values[-1]).lower()


def _x(number: int, n: int) -> str:
    return f"{LEFT + 10 + number * (W - LEFT - 30) / (n - 1):.1f}"


def _y(loss: float | None, low: float, high: float) -> str:
    assert loss is not None
    share = min(1.0, (loss - low) / (high - low))
    return f"{TOP + 8 + (1 - share) * (H - TOP - BOTTOM - 16):.1f}"


def _up(share: float, height: int) -> float:
    return 48 + (1 - min(1.0, max(0.0, share))) * (height - 100)


def _loss_axis(low: float, high: float) -> list[str]:
    found = []
    for i in range(5):
        value = low + i * (high - low) / 4
        y = _y(value, low, high)
        found += [f'<line x1="{LEFT}" y1="{y}" x2="{W - 10}" y2="{y}" class="grid"/>', _text(LEFT - 6, float(y) + 4, f"{value:.4g}", "end")]
    return found


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _svg(parts: Sequence[str], height: int = H) -> str:
    return f'<svg class=wide-plot viewBox="0 0 {W} {height}" role="img">{"".join(parts)}</svg>'
