"""Texts as numbers of words in their order; the same in Python and in the graph. N texts, T words of each at most, V known words."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.graph import Graph
from modelinscale.features._words import draw, words

if TYPE_CHECKING:
    import polars as pl

_UNSEEN, _FIRST = 1, 2


def tokens(texts: "pl.Series", known: list[str], longest: int) -> NDArray[np.int32]:
    """(N, T): 0 behind a text's end, 1 for a word that is not known, from 2 on the known ones in their order."""
    found = words(texts)
    number = {word: i for i, word in enumerate(known, _FIRST)}
    ids = np.array([number.get(word, _UNSEEN) for word in found.distinct.to_list()] or [0], np.int32)
    place = np.arange(len(found.ids)) - np.repeat(np.cumsum(found.counts) - found.counts, found.counts)
    kept = place < longest
    whole = np.zeros((len(found.counts), longest), np.int32)
    whole[found.rows()[kept], place[kept]] = ids[found.ids[kept]]
    return whole


def draw_tokens(graph: Graph, texts: str, known: list[str], longest: int) -> str:
    """Draws `tokens`: (N,) string to (N, T) int64."""
    numbers = {"": 0, **{word: i for i, word in enumerate(known, _FIRST)}}
    keys, values = list(numbers), list(numbers.values())
    found = graph.op("Cast", draw(graph, texts), to=graph.STRING)  # says that they are strings: the checker cannot know it of another domain's operator
    ids = graph.op("LabelEncoder", found, domain="ai.onnx.ml", keys_strings=keys, values_int64s=values, default_int64=_UNSEEN)
    size = graph.op("Concat", graph.op("Shape", texts, start=0, end=1), graph.constant([longest], np.int64), axis=0)
    ids = graph.op("Concat", ids, graph.op("Expand", graph.constant(0, np.int64), size), axis=1)
    zero, one = graph.constant([0], np.int64), graph.constant([1], np.int64)
    return graph.op("Slice", ids, zero, graph.constant([longest], np.int64), one)
