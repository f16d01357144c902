"""In how many texts each term occurs, in bounded memory; words, pairs and runs of characters count each for themselves.

Different terms, above all pairs, grow without end, so texts are laid in samples by a hash of theirs: half of them in the first, a quarter in the next, and
so on. When a kind has more than `COUNTED` different terms in all samples, its first is let go. How many go depends on the set of texts alone, so parts merged
equal the whole seen at once, and what is kept is a random half (quarter, …) of the texts, counted exactly. That pairs are many never costs a word.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from modelinscale.features._runs import SIGN, Runs
from modelinscale.features._words import Words

if TYPE_CHECKING:
    import polars as pl

COUNTED = 500_000
"""Terms of a kind that are counted at most."""
LEVELS = 33

Tally = dict[str, Any]
"""``level``: the first sample that is kept; ``samples``: from there on ``texts``, and ``terms`` with how many of these each occurs in."""
Found = Iterator[tuple[int, dict[str, int]]]
"""Of each sample with texts, the smallest (highest) first: its terms, and in how many of its texts each occurs."""


def nothing() -> Tally:
    """Of no text."""
    return {"level": 0, "samples": [{"texts": 0, "terms": {}} for _ in range(LEVELS)]}


def tally(levels: NDArray[np.int64], found: Found) -> Tally:
    """Of texts (N,) in these samples."""
    samples = [{"texts": n, "terms": {}} for n in np.bincount(levels, minlength=LEVELS).tolist()]
    first, n_terms = 0, 0
    for level, terms in found:  # the smallest samples come first: what would be let go is not even counted
        samples[level]["terms"] = terms
        n_terms += len(terms)
        if n_terms > COUNTED and level < LEVELS - 1:
            first = level + 1
            break
    return {"level": first, "samples": samples[first:]}


def merged(a: Tally, b: Tally) -> Tally:
    """Of the texts of both."""
    level = max(a["level"], b["level"])
    samples = [_together(*pair) for pair in zip(a["samples"][level - a["level"] :], b["samples"][level - b["level"] :], strict=True)]
    while len(samples) > 1 and sum(len(s["terms"]) for s in samples) > COUNTED:
        level, samples = level + 1, samples[1:]
    return {"level": level, "samples": samples}


def settled(one: Tally, known: dict[str, int]) -> Tally:
    """As small as may be: nothing but these terms."""
    return {"level": LEVELS - 1, "samples": [{"texts": n_texts(one), "terms": known}]}


def counts(one: Tally) -> dict[str, int]:
    """In how many of the texts that are kept each term occurs."""
    found: dict[str, int] = {}
    for sample in one["samples"]:
        _add(found, sample["terms"])
    return found


def n_texts(one: Tally) -> int:
    """How many texts are kept."""
    return sum(sample["texts"] for sample in one["samples"])


def kind_of(term: str) -> str:
    """``words``, ``pairs`` or ``runs``."""
    return "runs" if term[0] == SIGN else "pairs" if " " in term else "words"


def apart(together: Tally, kinds: Iterable[str]) -> dict[str, Tally]:
    """Tallies by kind of one in which all kinds were counted together, as they were once."""

    def own(terms: dict[str, int], kind: str) -> dict[str, int]:
        return {term: n for term, n in terms.items() if kind_of(term) == kind}

    return {kind: {"level": together["level"], "samples": [{**s, "terms": own(s["terms"], kind)} for s in together["samples"]]} for kind in kinds}


def levels_of(texts: "pl.Series") -> NDArray[np.int64]:
    """(N,) how many zeros a hash of each text ends with: 0 for half of them, 1 for a quarter, … at most 32."""
    # CRC-32 and not the hash of the table engine: it must be the same in every version and on every machine.
    sums = np.array([crc32(text.encode()) for text in texts.fill_null("").to_list()], np.int64)
    lowest = np.bitwise_and(sums, -sums)
    return np.where(sums == 0, LEVELS - 1, np.log2(np.maximum(lowest, 1)).astype(np.int64))


def words_in(found: Words, levels: NDArray[np.int64]) -> Found:
    """Single words."""
    W = max(1, len(found.distinct))
    keys = _once(found.rows() * W + found.ids)  # a text and a word in one number
    for level, ids, n_with in _by_level(keys % W, levels[keys // W], levels):
        yield level, dict(zip(found.distinct.gather(ids).to_list(), n_with, strict=True))


def pairs_in(found: Words, levels: NDArray[np.int64]) -> Found:
    """Two words side by side."""
    W, rows = max(1, len(found.distinct)), found.rows()
    near = np.flatnonzero(rows[:-1] == rows[1:])
    keys = _once((rows[near] * W + found.ids[near]) * W + found.ids[near + 1])
    for level, ids, n_with in _by_level(keys % (W * W), levels[keys // (W * W)], levels):
        names = found.distinct.gather(ids // W) + " " + found.distinct.gather(ids % W)
        yield level, dict(zip(names.to_list(), n_with, strict=True))


def runs_in(found: Iterator[Runs], levels: NDArray[np.int64]) -> Found:
    """Runs of characters, of every length."""
    each = []
    for one in found:
        G = max(1, len(one.names))
        keys = _once(one.rows * G + one.ids)
        each.append((one.names, keys % G, levels[keys // G]))
    for level in np.unique(levels)[::-1].tolist():
        terms: dict[str, int] = {}
        for names, ids, levels_run in each:
            there, n_with = np.unique(ids[levels_run == level], return_counts=True)
            terms.update(zip([names[i] for i in there.tolist()], n_with.tolist(), strict=True))
        yield level, terms


def _by_level(ids: NDArray[np.int64], each: NDArray[np.int64], levels: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64], list[int]]]:
    """Of each sample with texts, the highest first: its different ids, ascending, and how often each is there. ``each`` (K,): the sample of an id."""
    for level in np.unique(levels)[::-1].tolist():
        there, n_with = np.unique(ids[each == level], return_counts=True)
        yield level, there, n_with.tolist()


def _once(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each key once, ascending."""
    keys = np.sort(keys)
    return keys[np.flatnonzero(np.diff(keys, prepend=-1))]


def _together(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    large, small = (a["terms"], b["terms"]) if len(a["terms"]) >= len(b["terms"]) else (b["terms"], a["terms"])
    terms = dict(large)
    _add(terms, small)
    return {"texts": a["texts"] + b["texts"], "terms": terms}


def _add(counts: dict[str, int], more: dict[str, int]) -> None:
    for term, count in more.items():
        counts[term] = counts.get(term, 0) + count
