"""Pieces of words: learned the same whatever comes first, cut as the reference cuts, drawn as Python has them."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelinscale.features import Feature, State
from modelinscale.features._pieces import LONGEST_WORD, UNSEEN, cut, learned, numbered
from modelinscale.features.text import Text
from modelinscale.testing import features as suite
from modelinscale.testing.examples import examples

tokenizers = pytest.importorskip("tokenizers", reason="pip install 'modelinscale[subwords]'")

TEXTS = [
    "the lowest of the low, the newest of the new",
    "slow and slower, widest and newest",
    "今天天气很好,我们去公园",
    "ذهبت إلى السوق واشتريت خبزا",
    "🎉🎉 party 👩\u200d👩\u200d👧 tonight",
    "re\u0301sume\u0301 naïve Straße",
    "Donaudampfschifffahrtsgesellschaft",
]


def subwords(**more: object) -> Text:
    found = Feature.parse({"type": "text", "in_order": True, "pieces": "subwords", "at_least": 1, **more})
    assert isinstance(found, Text)
    return found


def state_of(text: Text, texts: list[str | None] = TEXTS) -> State:  # type: ignore[assignment]
    return text.settled(text.observe(text.empty(), pl.Series(texts, dtype=pl.String)))


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"n_pieces": 2}, {"n_pieces": 60, "longest": 7}], ids=str)
def test_few_pieces_fulfil_the_contract_of_features(more: dict[str, int]) -> None:
    suite.all_of(subwords(**more), TEXTS)


@given(counts=st.dictionaries(st.text("abcdéß天", min_size=1, max_size=12), st.integers(1, 50), max_size=20), n=st.integers(2, 60))
@settings(max_examples=examples(20), deadline=None)
def test_pieces_do_not_depend_on_the_order_of_words(counts: dict[str, int], n: int) -> None:
    found = learned(counts, n)
    assert found == learned(dict(reversed(counts.items())), n)
    assert len(found) == len(set(found)) <= n


@given(words=st.lists(st.text("lowestnr ", min_size=1, max_size=20).map(lambda w: w.replace(" ", "")).filter(len), max_size=8))
@settings(max_examples=examples(30), deadline=None)
def test_words_are_cut_as_the_reference_cuts_them(words: list[str]) -> None:
    pieces = learned({"lowest": 9, "newest": 7, "low": 5, "slower": 5, "towns": 2}, 40)
    assert set("lowestnr ") <= set(pieces)
    model = tokenizers.models.WordPiece(dict(numbered(pieces)) | {"[UNK]": 1}, unk_token="[UNK]", continuing_subword_prefix="", max_input_chars_per_word=100)
    for word in words:
        marked = word if len(word) == 1 else f" {word}"
        assert cut(word, numbered(pieces)) == [token.id for token in model.tokenize(marked)]


def test_a_word_never_seen_is_told_by_its_pieces_and_only_a_character_never_seen_is_unseen() -> None:
    text = subwords()
    state = state_of(text)
    names = ["", "?", *state["pieces"]["known"]]
    found = text.encode(state, pl.Series(["slowest", "lows", "жизнь", "天", "a"]), "deep")
    said = [[names[i] for i in row if i] for row in np.asarray(found)]
    assert "".join(said[0]) == " slowest"
    assert len(said[0]) < len("slowest")
    assert said[2] == [" ", "?", "?", "?", "?", "?"]
    assert said[3] == ["天"]


def test_the_most_frequent_words_become_one_piece() -> None:
    pieces = learned({"the": 1000, "there": 10, "zebra": 1}, 20)
    assert " the" in pieces
    assert cut("the", numbered(pieces)) == [numbered(pieces)[" the"]]


def test_texts_of_ten_thousand_words_and_words_of_ten_thousand_characters_are_cut_alike_in_the_graph() -> None:
    text = subwords(longest=10_000)
    state = state_of(text)
    long = ["the slowest 天🎉 " * 2_500, "x" * 10_000, "", "low" * 5_000 + " new", "a\u0301" * 3_000]
    expected = text.encode(state, pl.Series(long), "deep")
    found = suite.session(text, state, "deep")(np.array(long, object))
    np.testing.assert_array_equal(found, expected)
    assert np.asarray(expected)[0, -1] != 0, "all room is used"


def test_texts_without_words_are_all_zero() -> None:
    text = subwords(longest=3)
    state = state_of(text)
    for some in ([""], ["", " ,. "], [None, ""]):
        fed = np.array([one or "" for one in some], object)
        assert suite.session(text, state, "deep")(fed).tolist() == [[0, 0, 0]] * len(some)


def test_how_many_pieces_a_network_is_shown_follows_from_how_many_a_word_has() -> None:
    text, words = subwords(n_pieces=12), Feature.parse({"type": "text", "in_order": True})
    n_words = words.layout(state_of(words), "deep").shape[0]  # type: ignore[arg-type]
    state = state_of(text)
    assert state["pieces"]["per_word"] > 2
    assert text.layout(state, "deep").shape[0] == int(np.ceil(n_words * state["pieces"]["per_word"]))


def test_a_long_word_is_cut_in_parts_that_each_begin_like_a_word() -> None:
    assert cut("a" * (LONGEST_WORD + 1), {"a": 2, " ": 3}) == [3, *[2] * LONGEST_WORD, 2]
    assert cut("é" * 3, {}) == [UNSEEN] * 4
