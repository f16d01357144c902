from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest

from modelinscale.track import Main, Version, place
from modelinscale.track._history import KEPT_CHARS, Move, before, parse, render, stack


def version(main: Main | None) -> Version:
    return Version(4, "a1", Path("4"), datetime(2024, 5, 1, tzinfo=UTC), ("champion",), main, None)


@pytest.mark.parametrize(
    ("better", "new", "old", "alias"),
    [
        ("higher", 0.9, 0.8, "champion"),
        ("higher", 0.8, 0.8, "champion"),
        ("higher", 0.7999, 0.8, "challenger"),
        ("lower", 0.7999, 0.8, "champion"),
        ("lower", 0.9, 0.8, "challenger"),
        ("higher", float("nan"), 0.8, "challenger"),
        ("higher", 0.9, float("nan"), "challenger"),
        ("lower", float("-inf"), 0.8, "challenger"),
    ],
)
def test_a_new_version_leads_when_it_is_no_worse(better: Literal["higher", "lower"], new: float, old: float, alias: str) -> None:
    found = place(Main("m", new, better), version(Main("m", old, better)))
    assert found.alias == alias
    assert "version 4" in found.because


def test_the_first_version_leads_and_what_cannot_be_compared_waits() -> None:
    assert place(None, None).alias == "champion"
    assert place(None, version(Main("m", 1.0, "higher"))).alias == "challenger"
    assert place(Main("m", 1.0, "higher"), version(None)).alias == "challenger"
    other = place(Main("m", 9.0, "higher"), version(Main("n", 1.0, "higher")))
    assert other.alias == "challenger"
    assert "measured by m, the champion, version 4, by n" in other.because


@pytest.mark.parametrize(
    ("better", "new", "constant", "alias"),
    [
        ("higher", 0.4, 0.5, "challenger"),
        ("higher", 0.5, 0.5, "champion"),
        ("higher", 0.6, 0.5, "champion"),
        ("lower", 0.6, 0.5, "challenger"),
        ("lower", 0.4, 0.5, "champion"),
        ("lower", 0.6, None, "champion"),
    ],
)
@pytest.mark.parametrize("there_is_one", [False, True])
def test_what_is_worse_than_always_the_same_answer_never_leads(
    better: Literal["higher", "lower"], new: float, constant: float | None, alias: str, there_is_one: bool
) -> None:
    old = None if not there_is_one else version(Main("m", 0.0 if better == "higher" else 1.0, better))
    found = place(Main("m", new, better, constant), old)
    assert found.alias == alias
    assert ("always the same answer: m" in found.because) == (alias == "challenger")


def moves(*numbers: int) -> tuple[Move, ...]:
    return tuple(Move(n, "2024-05-01T00:00:00+00:00") for n in numbers)


@pytest.mark.parametrize(
    ("made", "expected"),
    [((), []), ((1,), [1]), ((1, 2, 3), [1, 2, 3]), ((1, 2, 3, 2), [1, 2]), ((1, 2, 3, 2, 1), [1]), ((1, 2, 3, 1), [1, 2, 3, 1]), ((1, 1, 2, 2), [1, 2])],
)
def test_going_back_walks_on_to_older_versions(made: tuple[int, ...], expected: list[int]) -> None:
    assert stack(moves(*made)) == expected


def test_a_move_made_elsewhere_can_be_taken_back() -> None:
    assert before(moves(1, 2), 3) == 2
    assert before(moves(1, 2), 2) == 1
    assert before(moves(1, 2), None) == 2
    assert before((), 3) is None
    assert before(moves(3), 3) is None


def test_moves_survive_as_text_and_the_newest_are_kept() -> None:
    assert parse(render(moves(1, 2))) == moves(1, 2)
    kept = render(moves(*range(1000)))
    assert len(kept) <= KEPT_CHARS
    assert parse(kept)[-1].number == 999


@pytest.mark.parametrize("text", [None, "", "not json", "{}", "[1]", '[["x", "y"]]', "null"])
def test_a_history_somebody_wrote_over_counts_as_none(text: str | None) -> None:
    assert parse(text) == ()
