"""An explanation for people: one HTML page that needs nothing else."""

import base64
import struct
import zlib
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core import page as p
from modelinscale.explain import Attribution, Explained, Explanation, Rows, Subject

MOST_FEATURES, MOST_ROWS = 40, 50


def html(found: Explanation, made: Explained, subject: Subject, rows: Rows, name: str) -> str:
    """The page; ``made`` and ``rows`` are for images."""
    parts = [p.cards(_facts(found)), p.notes(found.notes)]
    if found.importance:
        shown = [(e.feature, e.value, e.low, e.high) for e in found.importance[:MOST_FEATURES]]
        more = f" {len(found.importance) - MOST_FEATURES} more columns weigh less." if len(found.importance) > MOST_FEATURES else ""
        note = f"Over {found.n_rows:,} rows, with intervals of 95 %. It says what the model uses, not what causes {found.target}.{more}"
        parts.append(p.section("What the answers rest on", p.ranked(shown, found.unit), note=note))
    for feature, maps in made.maps.items():
        parts.append(p.section(f"Where {feature} raises the score", _heat(found, subject, rows, feature, maps), note="Bright: what raises the score most."))
    told = "".join(_row(one, found.by) for one in found.rows[:MOST_ROWS])
    more = f" The first {MOST_ROWS} of {len(found.rows)}; all are in the JSON file." if len(found.rows) > MOST_ROWS else ""
    parts.append(p.section("Row by row", told, note=f"What each cell adds to the score (blue) or takes from it (orange).{more}") if found.rows else "")
    return p.page(f"{name}: why the answers", f"{found.model}, explained by {found.by}, {found.n_rows:,} rows", parts)


def _facts(found: Explanation) -> list[tuple[str, str]]:
    facts = [] if found.faithful is None else [("stood its checks" if found.faithful else "not faithful", "this explanation")]
    if found.check is not None:
        facts.append((f"{found.check.gap:.2f}", f"insertion less deletion; random order {found.check.random:.2f} ± {found.check.random_spread:.2f}"))
    if found.error is not None:
        facts.append((f"{found.error:.1e}", "contributions miss the score by, as a share of its size"))
    if found.similarity is not None:
        facts.append((f"{found.similarity:.2f}", "SSIM to the maps of random weights (below 0.5 is good)"))
    return facts


def _row(one: Attribution, by: str) -> str:
    base = "" if one.base is None else f", counted from {p.number(one.base)}"
    head = f"row {one.row}: {one.answer} (score of {one.output} {p.number(one.score)}{base})"
    if one.changes is not None:
        changed = p.table(("column", "is", "would have to be"), [(c.feature, c.was, c.to) for c in one.changes], text=3)
        body = changed + f"<p>Then the answer is {escape(one.would_be)}.</p>"
    elif one.effects:
        order = sorted(one.effects, key=lambda name: (-abs(one.effects[name]), name))[:12]
        body = p.ranked([(f"{name} = {one.cells.get(name, '')}", one.effects[name], 0.0, 0.0) for name in order], "")
    else:
        body = "<p>No other answer was found within these limits.</p>" if by == "counterfactual" else ""
    return f"<details{' open' if one.row < 5 else ''}><summary>{escape(head)}</summary>{body}</details>"


def _heat(found: Explanation, subject: Subject, rows: Rows, feature: str, maps: NDArray[np.float64]) -> str:
    block = next(one for one in subject.features[feature] if subject.background.encoded.layouts[one].role == "image")
    images, shown = np.asarray(rows.encoded[block]), ""
    for i in range(min(len(maps), MOST_ROWS)):
        pair = "".join(f'<img width=112 height=112 style="image-rendering:pixelated" alt="" src="{png(one)}">' for one in (images[i], _coloured(maps[i])))
        answer = escape(found.rows[i].answer) if i < len(found.rows) else ""
        shown += f"<div><span style='display:flex;gap:2px'>{pair}</span>row {i}: {answer}</div>"
    return f"<div class=heat>{shown}</div>"


def _coloured(heat: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Dark blue to bright yellow, told apart by brightness alone."""
    stops = np.array([[0, 32, 77], [65, 77, 107], [124, 123, 120], [188, 175, 111], [255, 234, 70]], np.float64)  # cividis, Nuñez et al. 2018
    share = heat / max(float(heat.max()), 1e-12)
    return np.stack([np.interp(share, np.linspace(0, 1, len(stops)), stops[:, c]) for c in range(3)], axis=-1).round().astype(np.uint8)


def png(pixels: NDArray[Any]) -> str:
    """(height, width, channels) uint8, 1 or 3 channels, as a data URL."""
    height, width, channels = pixels.shape

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    lines = b"".join(b"\0" + row.tobytes() for row in np.ascontiguousarray(pixels, np.uint8))
    head = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b"")
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
