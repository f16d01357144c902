"""Content identity."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelinscale.core.identity import LENGTH, canonical, identity, sha256_file
from modelinscale.core.settings import Settings
from modelinscale.metrics.calibration_error import CalibrationError
from modelinscale.metrics.f1 import F1

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


class Knob(Settings):
    """A setting."""

    a: int = 1
    """A number."""
    b: str = "x"
    """A word."""


@given(PLAIN)
def test_the_same_value_has_the_same_identity_however_its_keys_are_ordered(value: object) -> None:
    def turned(v: object) -> object:
        if isinstance(v, dict):
            return {k: turned(x) for k, x in reversed(v.items())}
        return [turned(x) for x in v] if isinstance(v, list) else v

    assert identity(value) == identity(turned(value))
    assert len(identity(value)) == LENGTH


def test_every_part_counts_and_so_do_the_borders_between_parts() -> None:
    names = {identity(), identity("a"), identity("a", "b"), identity("ab"), identity(["a", "b"]), identity(1), identity("1"), identity(True), identity(None)}
    assert len(names) == 9


def test_defaults_count_as_if_written() -> None:
    assert identity(Knob()) == identity(Knob(a=1)) == identity({"a": 1, "b": "x"})
    assert identity(Knob()) != identity(Knob(a=2))


def test_the_type_of_a_kind_counts() -> None:
    assert canonical(F1()) == '{"type":"f1"}'
    assert identity(CalibrationError()) != identity(CalibrationError(n_bins=16))


def test_an_identity_never_changes_between_versions() -> None:
    assert identity("collect", {"source": "a.csv", "n": 1.5, "tags": [True, None, "é"]}) == "ccc870ad06a9b767"


def test_odd_values_have_an_identity() -> None:
    assert identity(Path("a/b")) == identity("a/b")
    assert identity({"b", "a"}) == identity(frozenset({"a", "b"})) == identity(["a", "b"])
    assert identity("\ud800") != identity("\ud801")  # halves of a pair, as they come out of broken files


def test_what_is_not_plain_is_refused() -> None:
    with pytest.raises(TypeError, match="bytes has no identity"):
        identity(b"x")


def test_a_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 9000  # more than one block
    (tmp_path / "f").write_bytes(content)
    assert sha256_file(tmp_path / "f") == hashlib.sha256(content).hexdigest()
