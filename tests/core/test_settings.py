"""Settings: frozen, closed, documented."""

import pytest
from pydantic import Field, ValidationError

from modelinscale.core.settings import Settings
from modelinscale.core.units import Duration


class Inner(Settings):
    """Inner."""

    n: int = Field(3, ge=0)
    """How many."""


class Outer(Settings):
    """Outer."""

    inner: Inner = Inner()
    """Deeper."""
    share: float = Field(0.5, alias="part")
    """A share."""
    budget: Duration = 60.0
    """A duration."""


def test_settings_are_frozen_and_closed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Inner().n = 4  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        Inner.model_validate({"m": 1})
    assert hash(Inner()) == hash(Inner(n=3))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_are_finite(bad: float) -> None:
    with pytest.raises(ValidationError, match="finite number"):
        Outer.model_validate({"part": bad})


def test_the_string_under_a_field_is_its_help() -> None:
    assert Inner.model_json_schema()["properties"]["n"]["description"] == "How many."


def test_plain_data_has_every_default_and_the_names_a_user_writes() -> None:
    assert Outer().plain() == {"inner": {"n": 3}, "part": 0.5, "budget": "1m"}
    assert Outer.model_validate(Outer().plain()) == Outer()


def test_a_changed_copy_is_checked_again() -> None:
    changed = Outer().but(inner=Inner(n=5), part=0.25)
    assert (changed.inner.n, changed.share, changed.budget) == (5, 0.25, 60.0)
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        Inner().but(n=-1)
    with pytest.raises(ValidationError, match="Extra inputs"):
        Inner().but(m=1)
