"""Runs of characters of a text, as many as they are long: what is left of a word that is spelt otherwise; the same in Python and in the graph.

Lower case, and every gap between words (see `_words`) is one blank, one before and one after the text, so that a run tells where words begin and end.
N texts, M characters in all.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.graph import Graph
from modelinscale.features._words import GAPS, draw_lower, lower

if TYPE_CHECKING:
    import polars as pl

SHORTEST = 2
SIGN = "~"
"""Before a run among other terms: no word has it, so ``~free`` is a run and ``free`` a word."""


class Runs(NamedTuple):
    """All runs of one length."""

    names: list[str]
    """Each different run once, with `SIGN` before it."""
    ids: NDArray[np.int64]
    """(R,) which of them, text after text."""
    rows: NDArray[np.int64]
    """(R,) which text each is from."""


def runs(texts: "pl.Series", longest: int) -> Iterator[Runs]:
    """Runs of 2, 3, … ``longest`` characters."""
    cells = _spaced(texts)
    flat = "".join(cells)
    sizes = np.array([len(cell) for cell in cells], np.int64)
    rows = np.repeat(np.arange(len(cells)), sizes)  # (M,)
    points = np.frombuffer(flat.encode("utf-32-le"), np.uint32)
    known, character = np.unique(points, return_inverse=True)
    run = character.astype(np.int64)
    for n in range(SHORTEST, longest + 1):
        there = np.flatnonzero(rows[: max(0, len(rows) - n + 1)] == rows[n - 1 :])
        # A run is the number of the run one shorter, and one more character; numbered anew each time, so that it stays small.
        key = run[there] * max(1, len(known)) + character[there + n - 1]
        _, first, ids = np.unique(key, return_index=True, return_inverse=True)
        yield Runs([SIGN + flat[i : i + n] for i in there[first].tolist()], ids.astype(np.int64), rows[there])
        run = np.zeros(len(rows), np.int64)
        run[there] = ids


def n_characters(texts: "pl.Series") -> NDArray[np.int64]:
    """(N,) how many characters each text has, blanks included."""
    return np.array([len(cell) for cell in _spaced(texts)], np.int64)


def draw_characters(graph: Graph, texts: str) -> str:
    """Draws the characters that runs are made of: (N,) string to (N, C) string, filled up with ""."""
    blank = graph.constant(np.array(" ", dtype=object))
    spaced = graph.op("StringConcat", graph.op("StringConcat", blank, draw_lower(graph, texts)), blank)
    found = graph.op("Tokenizer", spaced, domain="com.microsoft", mark=0, pad_value="", mincharnum=1, tokenexp=f"[{GAPS}]+|[^{GAPS}]")
    found = graph.op("Cast", found, to=graph.STRING)  # says that they are strings: the checker cannot know it of another domain's operator
    return graph.op("Where", graph.op("RegexFullMatch", found, pattern=f"[{GAPS}]+"), blank, found)


def _spaced(texts: "pl.Series") -> list[str]:
    import polars as pl

    blank = pl.lit(" ")
    spaced = pl.select(pl.concat_str(blank, lower(texts.fill_null("")), blank)).to_series() if len(texts) else texts
    return spaced.str.replace_all(f"[{GAPS}]+", " ").to_list() if len(texts) else []
