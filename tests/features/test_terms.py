"""Which terms of texts become columns."""

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as some

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
    old = {**whole, "samples": [{"texts": 3, "terms": {"a": 3, "b": 3, "a b": 3}}, *whole["samples"][1:]]}
    old["samples"][1:] = [{"texts": 0, "terms": {}} for _ in old["samples"][1:]]
    assert text.layout(old, "plain").names == ("a", "b", "a b")
