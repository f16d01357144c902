"""Structured logs."""

import json
import logging
from collections.abc import Iterator
from typing import Literal

import pytest

from modelinscale.core.logs import log, to_stderr


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    logger = logging.getLogger("modelinscale")
    kept = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = kept


def _line(capsys: pytest.CaptureFixture[str], form: Literal["text", "json"]) -> str:
    to_stderr("info", form)
    log("modelinscale.data.lake").info("table opened", extra={"version": 3, "note": "a\nb"})
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_text_has_the_event_and_its_fields_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert _line(capsys, "text") == 'info    table opened  version=3 note="a\\nb"\n'


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    text = _line(capsys, "json")
    assert text.count("\n") == 1
    found = json.loads(text)
    assert found.pop("time").endswith("+00:00")
    assert found == {"level": "info", "from": "modelinscale.data.lake", "event": "table opened", "version": 3, "note": "a\nb"}


def test_levels_below_the_one_asked_for_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    to_stderr("warning")
    log("modelinscale.x").info("nothing")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_exception_is_logged_with_its_traceback(capsys: pytest.CaptureFixture[str], form: Literal["text", "json"]) -> None:
    to_stderr("info", form)
    try:
        raise ValueError("broken")
    except ValueError:
        log("modelinscale.x").exception("failed")
    text = capsys.readouterr().err
    assert "ValueError: broken" in (json.loads(text)["error"] if form == "json" else text)


def test_configuring_twice_does_not_log_twice(capsys: pytest.CaptureFixture[str]) -> None:
    to_stderr("info")
    assert _line(capsys, "text").count("\n") == 1


def test_what_other_libraries_add_to_a_record_is_no_field(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    made = logging.getLogRecordFactory()

    def marked(*args: object, **more: object) -> logging.LogRecord:
        record = made(*args, **more)
        record._their_clock = 17
        return record

    logging.setLogRecordFactory(marked)
    try:
        assert "17" not in _line(capsys, "text")
    finally:
        logging.setLogRecordFactory(made)
