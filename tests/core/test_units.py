"""Units as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from modelinscale.core.errors import SpecError
from modelinscale.core.settings import Settings
from modelinscale.core.units import Duration, Size, seconds, show_bytes, show_seconds, size_bytes


class Limits(Settings):
    """Something with units."""

    budget: Duration = 600.0
    """A duration."""
    memory: Size = 1 << 20
    """A size."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [("500ms", 0.5), ("30s", 30), ("10m", 600), ("2h", 7200), ("7d", 604800), ("4w", 2419200), ("1h30m", 5400), ("1.5 h", 5400), (12, 12), (0.25, 0.25)],
)
def test_durations_are_read(text: str | float, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "7", "7 days", "d", "-5s", "5s!", "1.5.2s", "1e3s", True])
def test_what_is_no_duration_says_how_to_write_one(text: str) -> None:
    with pytest.raises(SpecError, match="is not a duration") as caught:
        seconds(text)
    assert "10m" in caught.value.fix


@pytest.mark.parametrize("value", [-1, -0.5, float("nan"), float("inf")])
def test_a_number_that_is_no_duration_is_refused(value: float) -> None:
    with pytest.raises(SpecError, match="number of seconds from 0 up"):
        seconds(value)


@given(st.floats(0, 1e12, allow_subnormal=False))
def test_a_duration_written_is_read_back_exactly(value: float) -> None:
    text = Limits(budget=value).plain()["budget"]
    assert isinstance(text, str)
    assert seconds(text) == value


@pytest.mark.parametrize(
    ("value", "text"), [(600.0, "10m"), (604800.0, "1w"), (90.0, "90s"), (0.005, "5ms"), (0.0, "0s"), (1.5, "1.5s"), (0.1, "100ms"), (5400.0, "90m")]
)
def test_durations_are_written_as_people_would(value: float, text: str) -> None:
    assert Limits(budget=value).plain()["budget"] == text


@pytest.mark.parametrize(
    ("text", "expected"), [("512MiB", 512 * 2**20), ("2GiB", 2**31), ("5GB", 5 * 10**9), ("1.5KiB", 1536), ("10 B", 10), (4096, 4096), ("1KB", 1000)]
)
def test_sizes_are_read(text: str | int, expected: int) -> None:
    assert size_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "2", "2gb", "GiB", "-2GiB", "2 GiB x", True, 1.5])
def test_what_is_no_size_says_how_to_write_one(text: str) -> None:
    with pytest.raises(SpecError, match="is not a size"):
        size_bytes(text)


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(SpecError, match="cannot be negative"):
        size_bytes(-1)


def test_all_mistakes_in_units_are_told_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        Limits.model_validate({"budget": "ten minutes", "memory": "much"})
    assert [e["loc"] for e in caught.value.errors()] == [("budget",), ("memory",)]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.44, "0.4 s"), (59.96, "1 min 0 s"), (125, "2 min 5 s"), (3599.9, "1 h 0 min"), (3700, "1 h 2 min"), (7 * 86400, "7 d"), (100_000, "1.2 d")],
)
def test_seconds_are_shown_as_people_read_them(value: float, text: str) -> None:
    assert show_seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (12.3 * 2**20, "12.3 MiB"), (2**20 - 1, "1.0 MiB"), (3 * 2**40, "3.0 TiB"), (2**50, "1024.0 TiB")],
)
def test_bytes_are_shown_as_people_read_them(value: float, text: str) -> None:
    assert show_bytes(value) == text
