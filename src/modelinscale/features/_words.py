"""Text to words: lower case, then runs of letters and digits; the same words in Polars and in onnxruntime, for every text.

Both sides know Unicode from tables of different years, so nothing here asks them what a letter is: what separates words, and which signs are words by
themselves, is listed by code point. Lower case is asked of both (Rust here, the C library there); code points on which tables of
different years differ count as gaps. See docs/decisions/0005.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.graph import Graph

if TYPE_CHECKING:
    import polars as pl

GAPS = (
    r"\x00-\x20\x22\x26-\x2f\x3a-\x3e\x40\x5b-\x60\x7b-\x7f"  # ASCII without letters, digits and the signs below
    r"\x{80}-\x{a1}\x{a4}\x{a6}-\x{a9}\x{ab}-\x{b1}\x{b4}\x{b6}-\x{b8}\x{bb}\x{bf}\x{d7}\x{f7}"  # Latin-1
    r"\x{37e}\x{387}\x{55a}-\x{55f}\x{589}-\x{58a}\x{5be}\x{5c0}\x{5c3}\x{5f3}-\x{5f4}"  # Greek, Armenian, Hebrew
    r"\x{60c}\x{61b}-\x{61f}\x{66a}-\x{66d}\x{6d4}\x{700}-\x{70f}\x{964}-\x{965}\x{e4f}\x{e5a}-\x{e5b}"  # Arabic, Syriac, Devanagari, Thai
    r"\x{10fb}\x{1360}-\x{1368}\x{166e}\x{16eb}-\x{16ed}\x{17d4}-\x{17da}\x{1800}-\x{180e}"  # Georgian, Ethiopic, Khmer, Mongolian
    r"\x{2000}-\x{206f}\x{2e00}-\x{2e7f}\x{3000}-\x{303f}\x{30fb}\x{fe00}-\x{fe6f}\x{feff}"  # general and CJK marks, joiners, variants
    r"\x{ff00}-\x{ff0f}\x{ff1a}-\x{ff20}\x{ff3b}-\x{ff40}\x{ff5b}-\x{ff65}\x{ffe0}-\x{ffff}\x{1f3fb}-\x{1f3ff}\x{e0000}-\x{e0fff}"  # wide forms, tags
    # Letters that got their other case since Unicode 12 (2019): old and new tables lower them differently. Both cases are gaps.
    r"\x{1c89}-\x{1c8a}\x{2c2f}\x{2c5f}\x{19b}\x{264}\x{282}\x{1d8e}\x{a794}\x{a7ba}-\x{a7dc}\x{a7f5}-\x{a7f6}\x{10570}-\x{105bf}\x{10d50}-\x{10d8f}\x{16ea0}-\x{16edf}"
)
_ALONE = (
    r"\x21\x23-\x25\x3f\x{a2}-\x{a3}\x{a5}\x{20a0}-\x{20cf}"  # ! # $ % ? and money
    r"\x{2190}-\x{2bff}\x{1f000}-\x{1f3fa}\x{1f400}-\x{1faff}"  # arrows, signs, emoji
    r"\x{e00}-\x{e4e}\x{e50}-\x{e59}\x{e80}-\x{eff}\x{1000}-\x{109f}\x{1780}-\x{17d3}"  # scripts without blanks: Thai, Lao, Burmese, Khmer
    r"\x{3040}-\x{30fa}\x{30fc}-\x{30ff}\x{31f0}-\x{31ff}\x{3400}-\x{4dbf}\x{4e00}-\x{9fff}\x{f900}-\x{faff}\x{20000}-\x{3ffff}"  # kana, CJK
)
PATTERN = f"[^{GAPS}{_ALONE}]+|[{_ALONE}]"
"""A word. The same syntax in Rust's regex (Polars) and RE2 (onnxruntime): ranges of code points and nothing else."""


class Words(NamedTuple):
    """The words of N texts: M in all, W different ones."""

    distinct: "pl.Series"
    """(W,) each different word once."""
    ids: NDArray[np.int64]
    """(M,) which of them, text after text."""
    counts: NDArray[np.int64]
    """(N,) how many words each text has."""

    def rows(self) -> NDArray[np.int64]:
        """(M,) which text each word is from."""
        return np.repeat(np.arange(len(self.counts)), self.counts)


def words(texts: "pl.Series") -> Words:
    """The words of each text; a missing text has none."""
    import polars as pl

    found = lower(texts).str.extract_all(PATTERN).fill_null([])
    coded = found.list.explode(empty_as_null=False).to_arrow().dictionary_encode()
    distinct = pl.Series("word", coded.dictionary, dtype=pl.String)
    return Words(distinct, coded.indices.to_numpy().astype(np.int64), found.list.len().to_numpy().astype(np.int64))


def lower(texts: "pl.Series") -> "pl.Series":
    """Lower case as the graph has it."""
    import polars as pl

    # What Rust lowers by context or to two letters, and the C library one by one: the final sigma, the dotted capital I.
    return texts.cast(pl.String).str.replace_all("Σ", "σ", literal=True).str.replace_all("İ", "i", literal=True).str.to_lowercase()


def draw(graph: Graph, texts: str, longest_word: int | None = None) -> str:
    """Draws `words`: (N,) string to (N, T) string, T the most words in a text, filled up with "". ``longest_word``: one of more characters is several."""
    pattern = PATTERN if longest_word is None else PATTERN.replace("+|", f"{{1,{longest_word}}}|")
    return graph.op("Tokenizer", draw_lower(graph, texts), domain="com.microsoft", mark=0, pad_value="", mincharnum=1, tokenexp=pattern)


def draw_lower(graph: Graph, texts: str) -> str:
    """Draws `lower`."""
    return graph.op("StringNormalizer", texts, case_change_action="LOWER", is_case_sensitive=1, locale="C.UTF-8")
