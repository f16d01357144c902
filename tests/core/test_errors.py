"""Errors as small lessons."""

import pickle

import pytest
from pydantic import ValidationError, model_validator

from modelinscale.core import errors
from modelinscale.core.errors import MisError, RequestError, SpecError, UsageError, did_you_mean, needs
from modelinscale.core.settings import Settings


def test_an_error_shows_what_happened_and_what_to_do() -> None:
    error = MisError("there is no row.", fix="Bring one.")
    assert str(error) == "there is no row. Bring one."
    assert str(MisError("there is no row.")) == "there is no row."
    assert (error.message, error.fix) == ("there is no row.", "Bring one.")


def _all(cls: type[MisError] = MisError) -> list[type[MisError]]:
    return [cls, *(deeper for one in cls.__subclasses__() if one.__module__ == errors.__name__ for deeper in _all(one))]


@pytest.mark.parametrize("cls", _all(), ids=lambda c: c.__name__)
def test_every_error_travels_between_processes_whole(cls: type[MisError]) -> None:
    error = cls("what.", fix="do.")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 — our own bytes
    assert type(again) is cls
    assert vars(again) == vars(error)
    assert str(again) == "what. do."


def test_wrong_use_exits_with_two_and_failure_with_one() -> None:
    codes = {cls.__name__: cls.exit_code for cls in _all()}
    assert {name for name, code in codes.items() if code == 2} == {"UsageError", "SpecError"}
    assert set(codes.values()) == {1, 2}


def test_pydantic_gathers_spec_errors_with_the_others() -> None:
    class Two(Settings):
        a: int = 1
        """A number."""

        @model_validator(mode="after")
        def _refuse(self) -> "Two":
            raise SpecError("never good.")

    with pytest.raises(ValidationError, match=r"never good\."):
        Two()
    with pytest.raises(ValidationError) as caught:
        Two.model_validate({"a": "x", "b": 2})
    assert {e["loc"] for e in caught.value.errors()} == {("a",), ("b",)}


def test_a_request_error_carries_its_status() -> None:
    assert RequestError("no.", status=422).status == 422
    assert RequestError("no.").status == 400


def test_a_missing_package_is_told_with_its_extra() -> None:
    with pytest.raises(UsageError, match="needs the package 'no_such_package'") as caught:
        needs("no_such_package", extra="kafka")
    assert caught.value.fix == "pip install 'modelinscale[kafka]'"
    with pytest.raises(UsageError, match=r"'no_such_package\.inner'"):
        needs("no_such_package.inner", extra="x")


def test_a_package_that_is_there_but_broken_shows_its_own_error(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    from pathlib import Path

    assert isinstance(tmp_path, Path)
    (tmp_path / "half_there.py").write_text("import what_it_needs\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="what_it_needs"):
        needs("half_there", extra="x")


@pytest.mark.parametrize(("word", "expected"), [("numbr", " Did you mean 'number'?"), ("zzz", ""), ("", "")])
def test_the_nearest_word_is_suggested(word: str, expected: str) -> None:
    assert did_you_mean(word, ("number", "text")) == expected
