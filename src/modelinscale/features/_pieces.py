"""Words as pieces of words, so that one never seen is not one unknown; the same pieces in Python and in the graph.

Which pieces there are is learned by byte-pair encoding from the words of the training texts (Sennrich et al., Neural Machine Translation of Rare Words with
Subword Units, 2016). A word is then cut from its start, each time into the longest piece that is known: unlike the merges that learning went through this
is a look-up, so that the graph can do it, and serving needs nothing more. Such cuts do well beside replayed merges in measures of
English vocabularies (Uzan et al., Greed is All You Need, 2024); what models make of the two was not compared here.
A word begins with a blank unless it is one character; only so do the letters at its start differ from those inside.
N texts, T words of each at most, W different words, C characters of a word, V pieces.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import ceil, log2
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.errors import needs
from modelinscale.core.graph import Graph
from modelinscale.features._words import draw, words

if TYPE_CHECKING:
    import polars as pl

LONGEST_WORD = 32
"""A word of more characters is taken as several."""
_LONGEST_PIECE = 12
_SHOWN = 1_000_000
"""Words that pieces are learned from at most, besides each different one once: counts are brought down to as many."""
_ALPHABET_SHARE = 0.75
"""Of all pieces, those that may be single characters (the most frequent): the rest of the characters count as unseen."""
UNSEEN, FIRST = 1, 2


def learned(counts: Mapping[str, int], n_pieces: int) -> list[str]:
    """At most ``n_pieces`` pieces, from words and how often each occurs; the same whatever the order of the words. Very long ones teach nothing."""
    counts = {word: n for word, n in counts.items() if len(word) <= LONGEST_WORD}
    tokenizers = needs("tokenizers", extra="subwords")
    learner = tokenizers.Tokenizer(tokenizers.models.BPE())
    learner.pre_tokenizer = tokenizers.pre_tokenizers.Split("\n", "removed")
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=n_pieces, max_token_length=_LONGEST_PIECE, show_progress=False)
    learner.train_from_iterator(_shown(counts, _alphabet(counts, max(1, int(n_pieces * _ALPHABET_SHARE)))), trainer)
    numbers = learner.get_vocab()
    return sorted(numbers, key=lambda piece: int(numbers[piece]))[:n_pieces]


def _alphabet(counts: Mapping[str, int], most: int) -> set[str]:
    """The most frequent characters; of equally frequent ones those first in Unicode."""
    found: Counter[str] = Counter()
    for word, n in counts.items():
        for character in _marked(word):
            found[character] += n
    return set(sorted(found, key=lambda one: (-found[one], one))[:most])


def _shown(counts: Mapping[str, int], alphabet: set[str]) -> Iterator[str]:
    """Lines of words without other characters, each as often as its share asks for."""
    share = min(1.0, _SHOWN / max(1, sum(counts.values())))
    for word, n in sorted(counts.items()):
        line = "".join(one if one in alphabet else "\n" for one in _marked(word))
        for _ in range(max(1, round(n * share))):
            yield line


def cut(word: str, numbers: Mapping[str, int], most: int | None = None) -> list[int]:
    """The pieces of a word as numbers, the first ``most`` at least; `UNSEEN` for a character of none.

    >>> cut("lowest", {" low": 2, "est": 3, "e": 4}), cut("lös", {" ": 2, "l": 3, "s": 4})
    ([2, 3], [2, 3, 1, 4])
    """
    found: list[int] = []
    for part in _parts(word if most is None else word[: most * _LONGEST_PIECE]):
        text, at = _marked(part), 0
        while at < len(text):
            size = next((k for k in range(min(_LONGEST_PIECE, len(text) - at), 1, -1) if text[at : at + k] in numbers), 1)
            found.append(numbers.get(text[at : at + size], UNSEEN))
            at += size
    return found


def per_word(counts: Mapping[str, int], pieces: Sequence[str]) -> float:
    """How many pieces a word has, on average."""
    numbers = numbered(pieces)
    return sum(n * len(cut(word, numbers)) for word, n in counts.items() if len(word) <= LONGEST_WORD) / max(1, sum(counts.values()))


def numbered(pieces: Sequence[str]) -> dict[str, int]:
    return {piece: i for i, piece in enumerate(pieces, FIRST)}


def piece_tokens(texts: "pl.Series", pieces: Sequence[str], longest: int) -> NDArray[np.int32]:
    """(N, longest): 0 behind a text's end, 1 for a character that is in no piece, from 2 on the pieces in their order."""
    found, numbers = words(texts), numbered(pieces)
    each = [cut(word, numbers, longest) for word in found.distinct.to_list()]
    sizes = np.array([len(one) for one in each] or [0], np.int64)
    starts, flat = np.cumsum(sizes) - sizes, np.array([i for one in each for i in one] or [0], np.int32)
    near = np.arange(len(found.ids)) - np.repeat(np.cumsum(found.counts) - found.counts, found.counts) < longest  # later words have no room
    ids, rows = found.ids[near], found.rows()[near]
    n = sizes[ids]  # pieces of each word
    inside = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
    row = np.repeat(rows, n)
    n_row = np.bincount(row, minlength=len(found.counts))
    place = np.arange(len(row)) - np.repeat(np.cumsum(n_row) - n_row, n_row)
    whole = np.zeros((len(found.counts), longest), np.int32)
    kept = place < longest
    whole[row[kept], place[kept]] = flat[np.repeat(starts[ids], n) + inside][kept]
    return whole


def draw_pieces(graph: Graph, texts: str, pieces: Sequence[str], longest: int) -> str:
    """Draws `piece_tokens`: (N,) string to (N, longest) int64. Each different word of a call is cut once."""
    zero, one, end = (graph.constant([i], np.int64) for i in (0, 1, longest))
    none = graph.constant(np.array([""], dtype=object))
    found = graph.op("Slice", graph.op("Cast", draw(graph, texts, LONGEST_WORD), to=graph.STRING), zero, end, one)  # (N, T)
    flat = graph.op("Concat", graph.op("Reshape", found, graph.constant([-1], np.int64)), none, axis=0)
    distinct, _, places, _ = graph.ops("Unique", flat, n_outputs=4, sorted=0)  # (W,), the last one ""
    ids, n_chars = _draw_cut(graph, distinct, numbered(pieces))  # (W, C)
    shape = graph.op("Concat", graph.op("Shape", texts, start=0, end=1), graph.op("Mul", graph.op("Shape", found, start=1, end=2), n_chars), axis=0)
    ids = graph.op("Gather", ids, graph.op("Slice", places, zero, graph.constant([-1], np.int64), zero), axis=0)
    ids = graph.op("Reshape", ids, shape, allowzero=1)  # (N, T * C), 0 between pieces
    there = graph.op("Cast", graph.op("Greater", ids, graph.constant(0, np.int64)), to=graph.INT64)
    place = graph.op("Mul", graph.op("CumSum", there, graph.constant(1, np.int64)), there)  # from 1 on; 0 is let go below
    place = graph.op("Where", graph.op("LessOrEqual", place, end), place, graph.constant(0, np.int64))
    size = graph.op("Concat", graph.op("Shape", texts, start=0, end=1), graph.constant([longest + 1], np.int64), axis=0)
    packed = graph.op("ScatterElements", graph.op("Expand", graph.constant(0, np.int64), size), place, ids, axis=1)
    return graph.op("Slice", packed, one, graph.constant([longest + 1], np.int64), one)


def _draw_cut(graph: Graph, distinct: str, numbers: Mapping[str, int]) -> tuple[str, str]:
    """Draws `cut` of (W,) words: int64 (W, C), a piece's number where it begins and 0 elsewhere; and C."""
    axis = graph.constant([1], np.int64)
    none = graph.constant(np.array("", dtype=object))
    bare = graph.op("RegexFullMatch", distinct, pattern="(?s).?")
    marked = graph.op("Where", bare, distinct, graph.op("StringConcat", graph.constant(np.array(" ", dtype=object)), distinct))
    chars = graph.op("Cast", graph.op("Tokenizer", marked, domain="com.microsoft", mark=0, pad_value="", mincharnum=1, tokenexp="(?s)."), to=graph.STRING)
    W, C = graph.op("Shape", distinct, start=0, end=1), graph.op("Add", graph.op("Shape", chars, start=1, end=2), axis)
    chars = graph.op("Concat", chars, graph.op("Expand", none, graph.op("Concat", W, graph.constant([_LONGEST_PIECE], np.int64), axis=0)), axis=1)
    text, ids, size = "", "", ""
    for k in range(1, max((len(piece) for piece in numbers), default=1) + 1):  # the longest piece that begins at each character
        seen = graph.op("Slice", chars, graph.constant([k - 1], np.int64), graph.op("Add", C, graph.constant([k - 1], np.int64)), axis)
        text = seen if k == 1 else graph.op("StringConcat", text, seen)
        known = {piece: number for piece, number in numbers.items() if len(piece) == k} | ({"": 0} if k == 1 else {})
        if not known:
            continue
        default = UNSEEN if k == 1 else 0
        found = graph.op("LabelEncoder", text, domain="ai.onnx.ml", keys_strings=list(known), values_int64s=list(known.values()), default_int64=default)
        longer = graph.op("Greater", found, graph.constant(0, np.int64))
        size = graph.op("Where", longer, graph.constant(k, np.int64), size) if size else graph.constant(1, np.int64)
        ids = graph.op("Where", longer, found, ids) if ids else found
    return graph.op("Mul", ids, _draw_begins(graph, size, W, C)), C


def _draw_begins(graph: Graph, size: str, W: str, C: str) -> str:
    """Where pieces begin: int64 (W, C) of 0 and 1, from how long the piece is that would begin at each character. One begins at 0, the next at its end, …:
    who is reached in 1, 2, 4, … steps."""
    zero, one = graph.constant(0, np.int64), graph.constant([1], np.int64)
    n = graph.op("Squeeze", C, graph.constant([0], np.int64))
    at = graph.op("Range", zero, n, graph.constant(1, np.int64))
    jump = graph.op("Min", graph.op("Add", at, size), n)  # (W, C), or (C,) where all pieces are characters
    jump = graph.op("Expand", jump, graph.op("Concat", W, C, axis=0))
    column = graph.op("Concat", W, one, axis=0)
    jump = graph.op("Concat", jump, graph.op("Expand", n, column), axis=1)  # (W, C + 1): the last one stays
    begins = graph.op("Concat", graph.op("Expand", graph.constant(1, np.int64), column), graph.op("Expand", zero, graph.op("Concat", W, C, axis=0)), axis=1)
    for _ in range(ceil(log2(LONGEST_WORD + 2))):
        begins = graph.op("ScatterElements", begins, jump, begins, axis=1, reduction="max")
        jump = graph.op("GatherElements", jump, jump, axis=1)
    return graph.op("Slice", begins, graph.constant([0], np.int64), C, one)


def _marked(word: str) -> str:
    return word if len(word) == 1 else f" {word}"


def _parts(word: str) -> list[str]:
    return [word[i : i + LONGEST_WORD] for i in range(0, len(word), LONGEST_WORD)]
