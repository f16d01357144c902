"""The different words of a text column with their counts: inference looks at each word once, however often it stands there."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

from modelinscale.data._cells import is_null_word, number_pattern, plain

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

BAD_SHARE = 0.02
"""The largest share of a column's present cells that may fail to fit its type; more, and the column is text."""
_WORDS = "unknown missing undefined n.a. n.a na. tbd tba x . .. * *** #value! #div/0! #ref! #num! #name? blank empty"
PLACEHOLDERS = frozenset({*_WORDS.split(), "not available", "not applicable", "not known", "no data", "n / a"})
"""Words that stand for a missing number or moment in a column that otherwise fits, lower case."""


@dataclass(frozen=True)
class Words:
    """The words of a column after trimming, U of them, without the empty one and without those that mean missing."""

    text: "pa.StringArray"  # (U,) plain forms: no full-width digits, no odd spaces
    count: "NDArray[np.int64]"  # (U,)
    used_nulls: tuple[str, ...]
    """Null words that occur, sorted."""

    @classmethod
    def of(cls, array: "pa.ChunkedArray") -> Self:
        import pyarrow as pa
        import pyarrow.compute as pc

        if pa.types.is_dictionary(array.type):
            array = array.cast(pa.string())
        counts = pc.value_counts(pc.utf8_trim_whitespace(array.cast(pa.string()).combine_chunks()))
        text, count = counts.field(0), counts.field(1)
        present = pc.fill_null(pc.greater(pc.binary_length(text), 0), False)
        text, count = text.filter(present), count.filter(present)
        null = is_null_word(text)
        used = tuple(sorted(text.filter(null).to_pylist()))
        text, count = text.filter(pc.invert(null)), count.filter(pc.invert(null))
        if not pc.all(pc.string_is_ascii(text)).as_py():
            text = plain(text)
        return cls(text, count.to_numpy(), used)

    @property
    def n_present(self) -> int:
        return int(self.count.sum())

    def share(self, mask: "pa.BooleanArray") -> float:
        """The share of present cells whose word is marked; null counts as not marked."""
        import pyarrow.compute as pc

        return float(self.count[pc.fill_null(mask, False).to_numpy(zero_copy_only=False)].sum()) / max(1, self.n_present)

    @cached_property
    def share_with_digit(self) -> float:
        import pyarrow.compute as pc

        return self.share(pc.match_substring_regex(self.text, r"\d"))

    @cached_property
    def share_of_numbers(self) -> float:
        import pyarrow.compute as pc

        return self.share(pc.match_substring_regex(self.text, number_pattern(".", "")))

    @cached_property
    def share_of_capital_pairs(self) -> float:
        import pyarrow.compute as pc

        return self.share(pc.match_substring_regex(self.text, r"^[A-Z]{2}$"))

    def lowered(self) -> dict[str, int]:
        """Counts by lower-case word; empty where there are too many words for a flag."""
        if len(self.text) > 40:
            return {}
        found: dict[str, int] = {}
        for word, n in zip(self.text.to_pylist(), self.count.tolist(), strict=True):
            found[word.lower()] = found.get(word.lower(), 0) + n
        return found

    def without(self, gone: "pa.BooleanArray") -> "Words":
        """Without the marked words, which join those that mean missing."""
        import pyarrow.compute as pc

        keep = pc.invert(gone)
        nulls = tuple(sorted({*self.used_nulls, *self.text.filter(gone).to_pylist()}))
        return Words(self.text.filter(keep), self.count[keep.to_numpy(zero_copy_only=False)], nulls)

    def placeholders(self, fits: "pa.BooleanArray") -> "pa.BooleanArray":
        """Which words do not fit and are known to stand for a missing number or moment."""
        import pyarrow as pa
        import pyarrow.compute as pc

        known = pc.is_in(pc.utf8_lower(self.text), value_set=pa.array(sorted(PLACEHOLDERS), pa.string()))
        return pc.and_(known, pc.invert(pc.fill_null(fits, False)))
