"""Texts: which words and pairs of words occur, and how telling they are.

N texts, V terms (words and pairs), M words in all texts.
"""

from math import ceil
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from modelinscale.core.bins import Bins
from modelinscale.core.elsewhere import Elsewhere, short
from modelinscale.core.encoded import Form, InputType, Layout, Sparse, Values
from modelinscale.core.graph import Graph
from modelinscale.core.schema import Column
from modelinscale.core.settings import Also
from modelinscale.core.tokenizer import Tokenizer, tokenizer, tokens_of
from modelinscale.features import Feature, State, _tallies
from modelinscale.features._lengths import MOST, usual
from modelinscale.features._pieces import draw_pieces, learned, per_word, piece_tokens
from modelinscale.features._runs import SIGN, draw_characters, n_characters, runs
from modelinscale.features._taught import read_tokenizer, same
from modelinscale.features._tokens import draw_tokens, tokens
from modelinscale.features._words import Words, draw, words

if TYPE_CHECKING:
    import polars as pl

_EXACT_BITS = 8
_FEWEST = 8
"""Tokens of a text, where nobody says: signs for its beginning and end among them."""
_NEVER = "."
"""A term that no text has, for a column of zeros where nothing was learned."""


class Text(Feature):
    """Free text: messages, descriptions, titles.

    Words are runs of letters and digits in lower case; signs such as ``!``, ``$``, emoji, and the characters of scripts without blanks stand alone.
    plain: how often each known term occurs. scaled: ``sqrt(count / n_words) * idf``, where ``idf = 1 + log((1 + n) / (1 + n_with_term))``:
    before the factor idf a row's words have length 1, and a word said twice does not count double. A missing text is all 0.
    deep: as scaled, or with `in_order` the number of each word: 0 behind the end, 1 unseen, from 2 on the known words, the most frequent first.
    With a `tokenizer` they are that one's numbers and two, cut on the host (`core.tokenizer`), before the graph and in Python alike.
    Python and graph give the same bits (scaled: up to 65,536 occurrences of a term in one text).

    >>> import polars as pl
    >>> text, lines = Text(at_least=1), pl.Series(["Free entry!", "free lunch"])
    >>> state = text.observe(text.empty(), lines)
    >>> text.layout(state, "plain").names
    ('free', '!', 'entry', 'lunch', 'entry !', 'free entry', 'free lunch')
    >>> text.encode(state, pl.Series(["Free FREE lunch"]), "plain").dense().tolist()
    [[2.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0]]
    """

    input: ClassVar[InputType] = "string"
    deep: ClassVar[bool] = True

    keep: int = Field(20_000, ge=1, le=_tallies.COUNTED)
    """How many words become columns, and how many pairs besides: those in most texts (ties in alphabetical order)."""
    pairs: bool = True
    """Whether two words side by side are a term too (``not good``), `keep` of them besides the words."""
    at_least: int = Field(2, ge=1)
    """In how many training texts a term must occur to become a column."""
    characters: int = Field(0, ge=0, le=8)
    """Longest run of characters that is a term too, the shortest being two (4: runs of 2, 3 and 4), `keep` of them besides; 0: none. Good for short texts,
    misspelt words, and languages that glue words together."""
    in_order: bool = False
    """Whether a network is shown the words in their order, as tokens, instead of which terms occur; better only with many or long texts."""
    pieces: Literal["words", "subwords"] = "words"
    """What a text is made of `in_order`: whole words, or pieces of words learned from the training texts, so that a word never seen is no riddle."""
    n_pieces: int = Field(4_000, ge=2, le=60_000)
    """How many `subwords` there are at most."""
    tokenizer: Annotated[Elsewhere | None, BeforeValidator(short), Also({"type": "string"})] = None
    """A folder with the ``tokenizer.json`` of an encoder learned elsewhere (``./bert``), or ``{hub: NAME}``: a network is shown the texts in their order, cut
    as that encoder was taught (`language` of `network`)."""
    longest: int | None = Field(None, ge=1, le=100_000)
    """Words (pieces) of a text that a network is shown `in_order` at most, the first ones; null: from the training texts, at most 512."""

    @model_validator(mode="after")
    def _cut_one_way(self) -> Self:
        if self.tokenizer is not None and self.pieces != "words":
            raise ValueError("give either `tokenizer` (pieces as an encoder was taught) or `pieces: subwords` (learned from these texts)")
        return self

    @classmethod
    def suits(cls, column: Column) -> bool:
        return column.type == "string"

    def empty(self) -> State:
        found = {"n": 0, "missing": 0, "tallies": {kind: _tallies.nothing() for kind in self._kinds}, "lengths": Bins.of(np.zeros(0)).plain()}
        return found if self.tokenizer is None else found | {"tokenizer": None}

    def begun(self) -> State:
        return self.empty() if self.tokenizer is None else self.empty() | {"tokenizer": read_tokenizer(self.tokenizer)}

    def observe(self, state: State, values: "pl.Series") -> State:
        """Counts in how many texts each term occurs: see `features._tallies`."""
        found = words(values)
        if len(values) > 1 and len(found.distinct) ** 2 * len(values) >= 1 << 63:  # a text and a pair must fit into one int64
            half = len(values) // 2
            return self.observe(self.observe(state, values[:half]), values[half:])
        missing = int(values.is_null().sum()) + int((values == "").sum())
        levels = _tallies.levels_of(values)
        terms = {"words": _tallies.words_in(found, levels)}
        if self.pairs:
            terms["pairs"] = _tallies.pairs_in(found, levels)
        if self.characters:
            terms["runs"] = _tallies.runs_in(runs(values, self.characters), levels)
        tallies = {kind: _tallies.tally(levels, one) for kind, one in terms.items()}
        sizes, own = found.counts, {}
        if self.tokenizer is not None:
            own = {"tokenizer": state["tokenizer"] or read_tokenizer(self.tokenizer)}
            sizes = tokenizer(own["tokenizer"]["content"]).sizes(values.to_list())
        lengths = Bins.of(sizes.astype(np.float64)).plain()
        return self.merge(state, {"n": len(values), "missing": missing, "tallies": tallies, "lengths": lengths, **own})

    def merge(self, a: State, b: State) -> State:
        ours, theirs = self._tallied(a), self._tallied(b)
        tallies = {kind: _tallies.merged(ours[kind], theirs[kind]) for kind in self._kinds}
        lengths = Bins.load(a["lengths"]).merged(Bins.load(b["lengths"])).plain()
        own = {} if self.tokenizer is None else {"tokenizer": same(a["tokenizer"], b["tokenizer"])}
        return {"n": a["n"] + b["n"], "missing": a["missing"] + b["missing"], "tallies": tallies, "lengths": lengths, **own}

    def settled(self, state: State) -> State:
        learned = {"pieces": self._pieces(state)} if self._cuts else {} if self.tokenizer is None else {"tokenizer": self._taught(state)}
        found = {kind: _tallies.settled(one, dict(self._common(one))) for kind, one in self._tallied(state).items()}
        return {**{key: one for key, one in state.items() if key not in ("level", "samples")}, "tallies": found, **learned}

    def layout(self, state: State, form: Form) -> Layout:
        if (cutter := self.hosted(state, form)) is not None:
            return Layout("tokens", cutter.n_ids, (cutter.sha256,), (self._longest(state),))
        if form == "deep" and self.in_order:
            n_known = len(self._pieces(state)["known"] if self._cuts else self._words(state))
            return Layout("tokens", n_known + 2, (), (self._longest(state),))
        names = tuple(self._known(state)) or ("(no term)",)
        return Layout("sparse", len(names), names)

    def encode(self, state: State, values: "pl.Series", form: Form) -> Values:
        if (cutter := self.hosted(state, form)) is not None:
            return cutter.ids(values.to_list())
        if form == "deep" and self.in_order:
            longest = self._longest(state)
            return piece_tokens(values, self._pieces(state)["known"], longest) if self._cuts else tokens(values, self._words(state), longest)
        known = self._known(state)
        V = max(1, len(known))
        found = words(values)
        vocabulary = _Vocabulary.of([term for term in known if term[0] != SIGN])
        row, column = vocabulary.occurrences(found)
        if self.characters:
            number = {term: i for i, term in enumerate(known)}
            parts = [(row, column)]
            for one in runs(values, self.characters):
                columns = np.array([number.get(name, -1) for name in one.names] or [0], np.int64)[one.ids]
                parts.append((one.rows[columns >= 0], columns[columns >= 0]))
            row, column = (np.concatenate(both) for both in zip(*parts, strict=True))
        place, counts = np.unique(row * V + column, return_counts=True)
        rows, columns = np.divmod(place, V)
        starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(values)))]).astype(np.int64)
        numbers = counts.astype(np.float32)
        if form != "plain":
            length = np.sqrt(np.maximum(found.counts, 1).astype(np.float32))[rows]
            if self.characters:
                n_words = sum(term[0] != SIGN for term in known)
                length = np.where(columns < n_words, length, np.sqrt(n_characters(values).astype(np.float32))[rows])
            numbers = np.sqrt(numbers * self._weights(state, known)[columns]) / length
        return Sparse(starts, columns.astype(np.int32), numbers, V)

    def graph(self, state: State, form: Form, graph: Graph, tensor: str) -> str:
        if self.hosted(state, form) is not None:
            return graph.beside(tensor, tokens_of, "int64", self._longest(state))
        if form == "deep" and self.in_order:
            longest = self._longest(state)
            return draw_pieces(graph, tensor, self._pieces(state)["known"], longest) if self._cuts else draw_tokens(graph, tensor, self._words(state), longest)
        known, scaled = self._known(state), form != "plain"
        weights = self._weights(state, known)
        split = [term.split(" ") for term in known if term[0] != SIGN]
        pieces = [list(term[1:]) for term in known if term[0] == SIGN]
        blocks = []
        if split or not pieces:
            blocks.append(_draw_terms(graph, draw(graph, tensor), split or [[_NEVER]], weights[: max(1, len(split))], scaled=scaled))
        if pieces:
            blocks.append(_draw_terms(graph, draw_characters(graph, tensor), pieces, weights[len(split) :], scaled=scaled))
        return blocks[0] if len(blocks) == 1 else graph.op("Concat", *blocks, axis=1)

    def hosted(self, state: State, form: Form) -> Tokenizer | None:
        if form != "deep" or self.tokenizer is None:
            return None
        return tokenizer(self._taught(state)["content"], self._longest(state))

    def notes(self, state: State, form: Form) -> tuple[str, ...]:
        if "deep" not in form or not (self.in_order or self.tokenizer):
            return ()
        T, lengths, each = self._longest(state), Bins.load(state["lengths"]), self._pieces(state)["per_word"] if self._cuts else 1.0
        n, most = int(lengths.counts[lengths.middles() * each > T].sum()), int(lengths.quantile(1.0) * each)
        if not n:
            return ()
        what, about = ("words", "") if not (self._cuts or self.tokenizer) else ("tokens", "about " if self._cuts else "")
        share = n / int(lengths.counts.sum())
        cut = f"{about}{n:,} texts to learn from ({share:.1%}) are cut to their first {T:,} {what}; the longest has {about}{most:,}."
        return (f"{cut} `longest` lets a network see more.",)

    def examples(self, state: State | None = None) -> list[Any]:
        plain = [None, "", " ", "a", "free entry", "Free entry in 2 a weekly competition!", "the the the the", "don't", "e-mail", "£5 or $10?", "1,234.5"]
        cased = ["ÉTÉ été", "e\u0301", "ΣΑΣ σας", "İstanbul IĞDIR ısı", "Straße STRASSE ẞ", "ǅ ǆ", "Привет мир", "ﬁ ﬂ", "\u1c89\u1c8a", "\ua7cb\u0264"]
        uncased = ["שלום עולם", "مرحبا بالعالم", "日本語のテキスト", "ภาษาไทย", "한국어 문장"]
        signs = ["😀😀 👩\u200d👩\u200d👧 👍🏽", "🇫🇷", "a\x00b", "\u202eabc", "zero\u200bwidth", "tab\tnew\nline\u00a0blank", "\ufeffbom"]
        terms = list(self._known(state)) if state else []
        known = [" ".join(terms[:200]), ", ".join(terms[-50:]).upper()]
        long = ["word " * 2_000, "x" * 100_000, "ab!" * 5_000]
        return [*plain, *cased, *uncased, *signs, *long, *known]

    def _known(self, state: State) -> dict[str, int]:
        """The known terms and how many texts have them, in the order of their columns: words, pairs, then runs of 2, 3, … characters, each the most
        frequent first."""
        tallies = self._tallied(state)
        # Each kind has places of its own: common pairs (of the, in a) would take those of rare words, which tell more (docs/decisions/0050).
        kept = [item for kind in self._kinds for item in self._common(tallies[kind])]
        return dict(sorted(kept, key=lambda item: len(item[0]) if item[0][0] == SIGN else " " in item[0]))

    def _common(self, one: _tallies.Tally) -> list[tuple[str, int]]:
        """Terms of a kind that become columns, those in most texts first. By name then: ties must not depend on arrival order."""
        found = [(term, n) for term, n in _tallies.counts(one).items() if n >= self.at_least]
        return sorted(found, key=lambda item: (-item[1], item[0]))[: self.keep]

    def _words(self, state: State) -> list[str]:
        """The known words, the most frequent first."""
        return [term for term in self._known(state) if _tallies.kind_of(term) == "words"]

    @property
    def _kinds(self) -> tuple[str, ...]:
        return ("words", *(("pairs",) if self.pairs else ()), *(("runs",) if self.characters else ()))

    def _tallied(self, state: State) -> dict[str, _tallies.Tally]:
        found: dict[str, _tallies.Tally] = state["tallies"] if "tallies" in state else _tallies.apart(state, self._kinds)
        return found

    @property
    def _cuts(self) -> bool:
        return self.in_order and self.pieces == "subwords"

    def _pieces(self, state: State) -> dict[str, Any]:
        """known: the pieces, in the order of their numbers; per_word: how many a word has on average."""
        if "pieces" in state:
            found: dict[str, Any] = state["pieces"]
            return found
        counts = _tallies.counts(self._tallied(state)["words"])
        known = learned(counts, self.n_pieces)
        return {"known": known, "per_word": per_word(counts, known)}

    def _taught(self, state: State) -> dict[str, Any]:
        """content: of the tokenizer's file; limit: tokens of a text that it is made for, at most."""
        assert self.tokenizer is not None
        found: dict[str, Any] = state["tokenizer"] or read_tokenizer(self.tokenizer)
        return found

    def _longest(self, state: State) -> int:
        if self.longest is not None:
            return self.longest
        n_words = usual(Bins.load(state["lengths"]))
        if self.tokenizer is not None:
            limit: int = self._taught(state)["limit"]
            return max(_FEWEST, min(n_words, limit))
        return min(MOST, ceil(n_words * max(1.0, self._pieces(state)["per_word"]))) if self._cuts else n_words

    def _weights(self, state: State, known: dict[str, int]) -> NDArray[np.float32]:
        """(V,) the square of each term's idf, under the root the idf again; V at least 1.

        Rounded to 8 binary digits: the operator adds a weight once for each occurrence, and such sums are exact up to 65,536 of them.
        """
        seen = {kind: _tallies.n_texts(one) for kind, one in self._tallied(state).items()}
        n = np.array([seen[_tallies.kind_of(term)] for term in known] or [0], np.float64)
        square = np.square(1.0 + np.log((1.0 + n) / (1.0 + np.array(list(known.values()) or [0], np.float64))))
        digits, exponent = np.frexp(square)
        weights: NDArray[np.float32] = np.ldexp(np.round(digits * 2**_EXACT_BITS), exponent - _EXACT_BITS).astype(np.float32)
        return weights


def _draw_terms(graph: Graph, tokens: str, terms: list[list[str]], weights: NDArray[np.float32], *, scaled: bool) -> str:
    """How often each term occurs among tokens (N, T), filled up with ""; ``scaled``: as `Text` says. ``terms``: the tokens of each, the shortest first."""
    sizes = [len(term) for term in terms]
    starts = [sum(n * (n < size) for n in sizes) for size in range(1, max(sizes) + 1)]
    attributes: dict[str, Any] = {"weights": weights.tolist()} if scaled else {}
    counts = graph.op(
        "TfIdfVectorizer",
        tokens,
        mode="TFIDF" if scaled else "TF",
        min_gram_length=min(sizes),
        max_gram_length=max(sizes),
        max_skip_count=0,
        ngram_counts=starts,
        ngram_indexes=list(range(len(terms))),
        pool_strings=[token for term in terms for token in term],
        **attributes,
    )
    if not scaled:
        return counts
    there = graph.op("Not", graph.op("Equal", tokens, graph.constant(np.array("", dtype=object))))
    n = graph.op("ReduceSum", graph.op("Cast", there, to=graph.FLOAT32), graph.constant([1], np.int64), keepdims=1)  # (N, 1)
    return graph.op("Div", graph.op("Sqrt", counts), graph.op("Sqrt", graph.op("Max", n, graph.constant(np.float32(1)))))


class _Vocabulary(NamedTuple):
    """Terms arranged for looking up many words at once. W different words occur in them."""

    words: list[str]  # (W,)
    single: NDArray[np.int64]  # (W,) the column of the word itself, or -1
    pairs: NDArray[np.int64]  # (P,) first word * W + second word, ascending
    pair_columns: NDArray[np.int64]  # (P,)

    @classmethod
    def of(cls, terms: list[str]) -> "_Vocabulary":
        split = [term.split(" ") for term in terms]
        number = {word: i for i, word in enumerate(dict.fromkeys(word for term in split for word in term))}
        single = np.full(len(number), -1, np.int64)
        keys, columns = [], []
        for column, term in enumerate(split):
            if len(term) == 1:
                single[number[term[0]]] = column
            else:
                keys.append(number[term[0]] * len(number) + number[term[1]])
                columns.append(column)
        pairs = np.array(keys, np.int64)
        order = np.argsort(pairs)
        return cls(list(number), single, pairs[order], np.array(columns, np.int64)[order])

    def occurrences(self, found: Words) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column of every occurrence of a known term, in no order."""
        import polars as pl

        if not self.words or not len(found.ids):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        W, rows = len(self.words), found.rows()
        known = found.distinct.cast(pl.Enum(self.words), strict=False).to_physical().cast(pl.Int64).fill_null(-1).to_numpy()
        ids = known[found.ids]  # (M,) place in our words, -1 for others
        columns = np.where(ids >= 0, self.single[ids], -1)
        if not len(self.pairs):
            return rows[columns >= 0], columns[columns >= 0]
        near = np.flatnonzero((rows[:-1] == rows[1:]) & (ids[:-1] >= 0) & (ids[1:] >= 0))
        keys = ids[near] * W + ids[near + 1]
        place = np.minimum(np.searchsorted(self.pairs, keys), len(self.pairs) - 1)
        hit = self.pairs[place] == keys
        return np.concatenate([rows[columns >= 0], rows[near][hit]]), np.concatenate([columns[columns >= 0], self.pair_columns[place[hit]]])
