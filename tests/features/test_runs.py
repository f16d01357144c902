"""Runs of characters: counted as a reader would, whatever the text, and drawn as Python has them."""

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelinscale.core.encoded import Sparse
from modelinscale.features import Feature
from modelinscale.features._runs import SIGN, n_characters, runs
from modelinscale.features.text import Text
from modelinscale.testing import features as suite
from modelinscale.testing.examples import examples


def text_of(**more: object) -> Text:
    found = Feature.parse({"type": "text", "at_least": 1, **more})
    assert isinstance(found, Text)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"characters": 3}, {"characters": 2, "keep": 5, "pairs": False}], ids=str)
def test_runs_fulfil_the_contract_of_features(more: dict[str, object]) -> None:
    suite.all_of(text_of(**more))


@given(texts=st.lists(st.text("ab é天🎉.", max_size=9), max_size=5), longest=st.integers(2, 8))
@example(texts=["a"], longest=8)
@settings(max_examples=examples(30), deadline=None)
def test_runs_are_counted_as_a_loop_over_each_text_counts_them(texts: list[str], longest: int) -> None:
    spaced = [f" {' '.join(text.replace('.', ' ').split())} " if text.strip(" .") else " " for text in texts]
    found: list[Counter[str]] = [Counter() for _ in texts]
    for one in runs(pl.Series(texts, dtype=pl.String), longest):
        for i, row in zip(one.ids.tolist(), one.rows.tolist(), strict=True):
            found[row][one.names[i]] += 1
    assert found == [Counter(SIGN + text[i : i + n] for n in range(2, longest + 1) for i in range(len(text) - n + 1)) for text in spaced]
    assert n_characters(pl.Series(texts, dtype=pl.String)).tolist() == [len(text) for text in spaced]


def test_what_was_spelt_otherwise_still_shares_runs() -> None:
    text = text_of(characters=4)
    state = text.settled(text.observe(text.empty(), pl.Series(["viagra for free", "see you at lunch"])))
    block = text.encode(state, pl.Series(["V1agra", "vi-agra"]), "plain")
    assert isinstance(block, Sparse)
    names = text.layout(state, "plain").names
    shared = [{names[i] for i in np.flatnonzero(row)} for row in block.dense()]
    assert {"~agra", "~gra "} <= shared[0]
    assert "~agra" in shared[1]
    assert "viagra" not in shared[0]


def test_words_keep_their_columns_beside_runs_and_as_many_runs_are_kept() -> None:
    texts = pl.Series(["the cat sat", "the cat ran", "a dog ran"])
    words, both = text_of(keep=4), text_of(keep=4, characters=3)
    plain, more = (one.layout(one.observe(one.empty(), texts), "plain").names for one in (words, both))
    assert len(plain) == 8  # four words, four pairs
    assert more[:8] == plain
    assert len(more) == 12
    assert all(name.startswith(SIGN) for name in more[8:])


def test_the_graph_counts_runs_as_python_does() -> None:
    text = text_of(characters=5, keep=300)
    odd = [None, "", " ", "a", "Free!! Entry…", "天気がいい", "🎉 👍🏽", "e\u0301te\u0301", "ΣΑΣ İ", "tab\tnew\nline", "a\x00b", "~~ ~", "word " * 2_000]
    column = suite.as_column(text, odd)
    state = text.observe(text.empty(), column)
    fed = np.array([one or "" for one in odd], object)
    for form in suite.FORMS:
        block = text.encode(state, column, form)
        assert isinstance(block, Sparse)
        np.testing.assert_array_equal(suite.session(text, state, form)(fed), block.dense())
