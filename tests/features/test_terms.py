"""Which terms of texts become columns."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from modelinscale.features import _tallies
from modelinscale.features.text import Text

LINES = some.lists(some.text("abcd  ", max_size=30), min_size=1, max_size=12)


def _names(text: Text, lines: list[str]) -> tuple[str, ...]:
    return text.layout(text.observe(text.empty(), pl.Series(lines, dtype=pl.String)), "plain").names


def test_common_pairs_take_no_places_of_rarer_words() -> None:
    lines = ["it is of the one", "it is of the one", "it is of the one", "it is of the other rare", "zebra rare", "zebra"]
    words = {"it", "is", "of", "the", "one", "rare", "zebra"}
    found = _names(Text(keep=7), lines)
    assert {name for name in found if " " not in name} == words
    assert {name for name in found if " " in name} == {"it is", "is of", "of the", "the one"}


@given(LINES, some.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_pairs_and_runs_never_change_which_words_are_columns(lines: list[str], keep: int) -> None:
    alone = _names(Text(keep=keep, at_least=1, pairs=False), lines)
    both = _names(Text(keep=keep, at_least=1, characters=3), lines)
    assert [name for name in both if " " not in name and name[0] != "~"] == [name for name in alone if name != "(no term)"]
    for kind in (lambda name: name[0] == "~", lambda name: name[0] != "~" and " " in name and name != "(no term)"):
        assert sum(map(kind, both)) <= keep


@given(LINES, LINES, some.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_parts_merged_and_settled_have_the_columns_of_the_whole(a: list[str], b: list[str], keep: int) -> None:
    text = Text(keep=keep, at_least=1, characters=2)
    first, second = (text.observe(text.empty(), pl.Series(lines, dtype=pl.String)) for lines in (a, b))
    merged = text.merge(first, second)
    assert text.layout(text.settled(merged), "scaled").names == text.layout(merged, "scaled").names == _names(text, a + b)


def test_a_state_settled_when_words_and_pairs_shared_their_places_keeps_its_columns() -> None:
    text = Text(keep=3, at_least=1)
    whole = text.observe(text.empty(), pl.Series(["a b c", "a b", "a b"]))
    together = {"level": 32, "samples": [{"texts": 3, "terms": {"a": 3, "b": 3, "a b": 3}}]}
    old = {**{key: one for key, one in whole.items() if key != "tallies"}, **together}
    assert text.layout(old, "plain").names == ("a", "b", "a b")
    assert text.layout(text.settled(old), "plain").names == ("a", "b", "a b")
    more = text.merge(old, text.settled(text.observe(text.empty(), pl.Series(["c d"]))))
    assert set(text.layout(more, "plain").names) == {"a", "b", "c", "a b", "c d"}


def test_pairs_that_are_many_cost_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tallies, "COUNTED", 400)
    text, chance = Text(at_least=1), np.random.default_rng(7)
    lines = pl.Series([" ".join(chance.choice([f"w{i}" for i in range(40)], 12)) for _ in range(200)])
    found = text.observe(text.empty(), lines)["tallies"]
    assert _tallies.n_texts(found["words"]) == len(lines)
    assert _tallies.n_texts(found["pairs"]) < len(lines)
    rare = text.observe(text.empty(), pl.Series([*lines.to_list(), "once"]))
    assert "once" in text.layout(rare, "plain").names
