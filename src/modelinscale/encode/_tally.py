"""Words counted in many partitions, added up a few times rather than after each: ten thousand words a partition cost more than its numbers."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from modelinscale.features import State, Tallied

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

_MOST_WAITING, _MOST_WORDS = 1 << 17, 1 << 20
"""Counts that may wait beside twice as many as there were different words the last time; and words that are kept out of a state."""


class Tally(NamedTuple):
    """A state, and words and counts that are not in it yet."""

    state: State
    words: "tuple[pa.Array, ...]" = ()
    """Large strings, missing ones among them; alike ones may be in each and in several."""
    counts: tuple[NDArray[np.int64], ...] = ()
    n_distinct: int = 0
    """So many were left when they were added up last."""

    @classmethod
    def of(cls, feature: Tallied, words: "pa.Array", counts: NDArray[np.int64]) -> "Tally":
        import pyarrow as pa

        return cls(feature.empty(), (words.cast(pa.large_string()),), (counts,))

    def merged(self, feature: Tallied, other: "Tally") -> "Tally":
        """Both samples together; counts wait in memory, at most three times as many as there are different words."""
        both = Tally(feature.merge(self.state, other.state), self.words + other.words, self.counts + other.counts, max(self.n_distinct, other.n_distinct))
        if sum(map(len, both.counts)) <= 2 * both.n_distinct + _MOST_WAITING:
            return both
        words, counts = both._added()
        if len(words) > _MOST_WORDS:
            return Tally(feature.tally(both.state, _series(words), counts))
        return Tally(both.state, (words,), (counts,), len(words))

    def settled(self, feature: Tallied) -> State:
        """The state with all that was waiting."""
        if not self.words:
            return self.state
        words, counts = self._added()
        return feature.tally(self.state, _series(words), counts)

    def _added(self) -> "tuple[pa.Array, NDArray[np.int64]]":
        """Each word once, in the order they came, and how often it occurs."""
        import pyarrow as pa
        import pyarrow.compute as pc

        found = pc.dictionary_encode(pa.chunked_array(self.words), null_encoding="encode").combine_chunks()
        counts, words = np.concatenate(self.counts), found.dictionary
        if len(words) == len(counts):
            return words, counts
        added = np.zeros(len(words), np.int64)
        np.add.at(added, found.indices.to_numpy(), counts)
        return words, added


def _series(words: "pa.Array") -> "pl.Series":
    import polars as pl

    return pl.Series("", words)
