"""Categories: words from a set, each with an id of its own; rare and unseen ones share one."""

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from modelinscale.core.encoded import Form, InputType, Layout
from modelinscale.core.graph import Graph
from modelinscale.core.schema import NESTED, Column
from modelinscale.features import State, Tallied

if TYPE_CHECKING:
    import polars as pl

MISSING, OTHER, FIRST = 0, 1, 2
"""The ids of a missing value, of a rare or unseen one, and of the most frequent word."""
COUNTED = 1_000_000
"""Different words counted at most. Up to here parts merged equal the whole seen at once; beyond, the rarest are dropped as they come."""


class Category(Tallied):
    """A word (or a number that only names something): country, product, zip code.

    Both forms: int32 ids; 0 missing, 1 rare or unseen, 2 … the known words, most frequent first. Words are compared as they stand, byte for byte:
    blanks around them, upper case and accents count. Python and graph give the same ids.

    >>> import polars as pl
    >>> category = Category(at_least=1)
    >>> state = category.observe(category.empty(), pl.Series(["b", "a", "b", None]))
    >>> category.encode(state, pl.Series(["a", "b", "c", None, ""]), "plain").tolist()
    [3, 2, 1, 0, 0]
    """

    input: ClassVar[InputType] = "string"

    keep: int = Field(1000, ge=1, le=COUNTED)
    """How many words get an id of their own, the most frequent first (ties in alphabetical order)."""
    at_least: int = Field(2, ge=1)
    """How often a word must occur in the training rows to get an id of its own; the others teach the model what to do with unseen ones."""

    @classmethod
    def suits(cls, column: Column) -> bool:
        return column.type not in NESTED

    def empty(self) -> State:
        return {"n": 0, "missing": 0, "dropped": 0, "counts": {}}

    def tally(self, state: State, distinct: "pl.Series", counts: NDArray[np.int64]) -> State:
        words = distinct.to_list()
        found = dict(zip(words, counts.tolist(), strict=True))
        if len(found) < len(words):  # two cells written alike
            found = {}
            for word, n in zip(words, counts.tolist(), strict=True):
                found[word] = found.get(word, 0) + n
        missing = found.pop(None, 0) + found.pop("", 0)
        return self.merge(state, {"n": int(counts.sum()), "missing": missing, "dropped": 0, "counts": found})

    def merge(self, a: State, b: State) -> State:
        large, small = (a["counts"], b["counts"]) if len(a["counts"]) >= len(b["counts"]) else (b["counts"], a["counts"])
        counts = dict(large)
        for word, count in small.items():
            counts[word] = counts.get(word, 0) + count
        dropped = a["dropped"] + b["dropped"]
        if len(counts) > COUNTED:
            kept = dict(_ordered(counts)[:COUNTED])
            dropped += sum(counts.values()) - sum(kept.values())
            counts = kept
        return {"n": a["n"] + b["n"], "missing": a["missing"] + b["missing"], "dropped": dropped, "counts": counts}

    def settled(self, state: State) -> State:
        known = {word: state["counts"][word] for word in self._words(state)}
        rest = sum(state["counts"].values()) - sum(known.values())
        return {"n": state["n"], "missing": state["missing"], "dropped": state["dropped"] + rest, "counts": known}

    def layout(self, state: State, form: Form) -> Layout:
        words = ("(missing)", "(other)", *self._words(state))
        return Layout("ids", len(words), words)

    def encode(self, state: State, values: "pl.Series", form: Form) -> NDArray[np.int32]:
        import polars as pl

        words = self._words(state)
        # A word's id is its place in this list; the place of `OTHER` is held by a word that is none of them, whose id it is.
        filler = "x" * (1 + max((len(word) for word in words), default=0))
        places = values.cast(pl.Enum(["", filler, *words]), strict=False).to_physical()
        ids = places.fill_null(OTHER).to_numpy().astype(np.int32)
        if values.null_count():
            ids[values.is_null().to_numpy()] = MISSING
        return ids

    def graph(self, state: State, form: Form, graph: Graph, tensor: str) -> str:
        words = self._words(state)
        return graph.op(
            "LabelEncoder",
            tensor,
            domain="ai.onnx.ml",
            keys_tensor=np.array(["", *words], dtype=object),
            values_tensor=np.array([MISSING, *range(FIRST, FIRST + len(words))], np.int64),
            default_tensor=np.array([OTHER], np.int64),
        )

    def examples(self, state: State | None = None) -> list[Any]:
        plain = [None, "", " ", "a", "A", "b", "a ", " a", "0", "1", "nan", "None", "null", "true", "(missing)", "(other)", "x" * 100_000, "no such word"]
        odd = ["é", "e\u0301", "😀", "👩\u200d👩\u200d👧", "日本", "ß", "İ", "a\x00b", "\x00", "line\nbreak", "\u202eright to left", "\ufeff"]
        known = self._words(state)[:10] if state else []
        return [*plain, *odd, *known, *(f"{word} " for word in known[:3])]

    def _words(self, state: State) -> list[str]:
        """The known words, id `FIRST` first."""
        common = {word: count for word, count in state["counts"].items() if count >= self.at_least}
        return [word for word, _ in _ordered(common)[: self.keep]]


def _ordered(counts: dict[str, int]) -> list[tuple[str, int]]:
    """By count, then name: ties must not depend on arrival order."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
