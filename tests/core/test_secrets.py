"""Secrets: written as references, known only at the moment of use, told never."""

import json
import logging
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from html import escape
from pathlib import Path
from urllib.parse import quote

import pytest
from pydantic import TypeAdapter, ValidationError

from modelinscale.core.errors import SourceError, SpecError, UsageError
from modelinscale.core.logs import _Json, _Text
from modelinscale.core.secrets import MASK, Address, Reference, anchored, reveal, veil


def test_a_reference_is_replaced_at_the_moment_of_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", "tops3cret")
    (tmp_path / "token").write_text("other s3cret\n")
    assert reveal(f"a ${{ENV:SHOP_PASSWORD}} and ${{FILE:{tmp_path}/token}}") == "a tops3cret and other s3cret"
    assert reveal("nothing here") == "nothing here"


def test_in_an_address_a_value_is_percent_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", "p/w@x y")
    assert reveal("postgresql://mis:${ENV:SHOP_PASSWORD}@db/shop", in_url=True) == "postgresql://mis:p%2Fw%40x%20y@db/shop"


def test_a_value_once_revealed_is_in_no_error_and_no_log_in_any_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", "p/w@x 'y'")
    value = reveal("${ENV:SHOP_PASSWORD}")
    for form in (value, "p%2Fw%40x%20%27y%27", "p/w%40x%20%27y%27", "p%2Fw%40x+%27y%27"):
        error = SourceError(f"refused: {form}", fix=f"not {form}")
        assert str(error) == f"refused: {MASK} not {MASK}"
        assert form not in str(error.args)
        record = logging.LogRecord("modelinscale.x", logging.INFO, "", 0, "opened %s", (form,), None)
        record.url = f"db://{form}"
        assert _Text().format(record).count(MASK) == 2
        assert form not in json.loads(_Json().format(record))["url"]
    assert veil("nothing to hide") == "nothing to hide"


def test_what_is_not_there_is_told_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOT_THERE", raising=False)
    monkeypatch.setenv("EMPTY", "")
    for name in ("NOT_THERE", "EMPTY"):
        with pytest.raises(UsageError, match=f"'{name}' is not set or empty.*export {name}="):
            reveal(f"${{ENV:{name}}}")
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        reveal(f"${{FILE:{tmp_path}/none}}")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(UsageError, match="is empty"):
        reveal(f"${{FILE:{tmp_path}/empty}}")


@pytest.mark.parametrize("text", ["hunter2", "x${ENV:A}", "", "${ENV:}", "${VAULT:a}"])
def test_a_secret_written_down_is_refused(text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Reference).validate_python(text)
    assert isinstance(caught.value.errors()[0]["ctx"]["error"], SpecError)


@pytest.mark.parametrize("text", ["postgresql://mis:hunter2@db/shop", "redis://:hunter2@db", "s3://a:b${ENV:C}@x/y"])
def test_a_password_in_an_address_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Address).validate_python(text)
    told = str(caught.value.errors()[0]["ctx"]["error"])
    assert "must not hold a password" in told
    assert "hunter2" not in told


@pytest.mark.parametrize("text", ["postgresql://mis:${ENV:PW}@db/shop", "https://example.org/a?b=c", "kafka.example.org:9092", "redis://[::1]:6379/0"])
def test_an_address_stays_as_it_was_written(text: str) -> None:
    assert TypeAdapter(Address).validate_python(text) == text


def test_files_of_secrets_lie_beside_the_file_that_names_them() -> None:
    settings = {"url": "db://u:${FILE:secrets/pw}@h", "headers": [{"token": "${ENV:T}"}, "${FILE:/abs}"], "n": 3}
    assert anchored(settings, Path("/home/me")) == {"url": "db://u:${FILE:/home/me/secrets/pw}@h", "headers": [{"token": "${ENV:T}"}, "${FILE:/abs}"], "n": 3}


@pytest.mark.parametrize(
    "written",
    [
        lambda v: re.sub("%..", lambda found: found[0].lower(), quote(v, safe="")),
        lambda v: json.dumps({"error": v}),
        lambda v: json.dumps({"error": v}, ensure_ascii=False),
        lambda v: f"<b>{escape(v)}</b>",
        lambda v: "Basic " + b64encode(f"mis:{v}".encode()).decode(),
        lambda v: "Basic " + b64encode(f"an:{v}".encode()).decode(),
        lambda v: "Basic " + b64encode(f"anna:{v}".encode()).decode(),
        lambda v: urlsafe_b64encode(v.encode()).decode(),
        lambda v: repr([v]),
        lambda v: repr(v.encode()),
    ],
    ids=["lower %", "JSON", "JSON in letters", "HTML", "basic, user of 3", "basic, user of 2", "basic, user of 4", "base64 of addresses", "Python", "bytes"],
)
def test_a_value_is_taken_out_however_a_server_says_it_back(written: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    value = 'hunter2/"w@rd<\\%41?>ö-long-enough'
    monkeypatch.setenv("PW", value)
    reveal("${ENV:PW}")
    said = veil(f"refused: {written(value)}.")
    assert MASK in said
    assert not any(part in said for part in ("hunter2", "w@rd", "w%40rd", "long-enough"))
    # What base64 keeps at either end is at most two bytes of the value.
    assert all(b64encode(value.encode()[i : i + 6]).decode()[:8] not in said for i in range(len(value) - 6))
