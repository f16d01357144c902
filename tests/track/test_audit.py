"""The audit log: every line follows from the one before, whatever writers do at once and wherever one is killed."""

import json
import multiprocessing
import os
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from modelinscale.core.clock import fixed
from modelinscale.core.errors import StoreError
from modelinscale.core.secrets import reveal
from modelinscale.testing.examples import examples
from modelinscale.track.audit import START, Audit, actor

NOON = fixed(datetime(2026, 11, 5, 12, tzinfo=UTC))


def filled(file: Path, n: int = 5) -> Audit:
    audit = Audit(file, NOON)
    for i in range(n):
        audit.write("promote", f"fraud version {i}", before=i - 1)
    return audit


def test_lines_say_who_did_what_when_and_the_chain_holds(tmp_path: Path) -> None:
    audit = filled(tmp_path / "log.jsonl")
    entries = list(audit.entries())
    assert [(e.seq, e.action, e.object, e.facts) for e in entries] == [(i + 1, "promote", f"fraud version {i}", {"before": i - 1}) for i in range(5)]
    assert {e.actor for e in entries} == {actor()}
    assert {e.time for e in entries} == {"2026-11-05T12:00:00.000+00:00"}
    verdict = audit.verify([entries[0].hash, entries[4].hash])
    assert verdict.whole
    assert (verdict.n_lines, verdict.head, verdict.torn_bytes) == (5, audit.head(), 0)


def test_an_empty_log_is_whole(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "log.jsonl")
    assert audit.verify().whole
    assert audit.head() == START
    assert list(audit.entries()) == []
    assert not (tmp_path / "log.jsonl").exists()


@settings(max_examples=examples(60), deadline=None)
@given(line=some.integers(0, 4), change=some.sampled_from(["alter", "remove", "double", "swap", "insert"]), at=some.floats(0, 0.999))
def test_any_change_to_a_line_but_the_last_is_found_with_its_place(tmp_path_factory: pytest.TempPathFactory, line: int, change: str, at: float) -> None:
    file = tmp_path_factory.mktemp("log") / "log.jsonl"
    audit = filled(file, 6)
    head = audit.head()
    lines = file.read_bytes().splitlines()
    if change == "alter":
        place = int(at * len(lines[line]))
        lines[line] = lines[line][:place] + bytes([lines[line][place] ^ 1]) + lines[line][place + 1 :]
    elif change == "remove":
        del lines[line]
    elif change == "double":
        lines.insert(line, lines[line])
    elif change == "swap":
        lines[line], lines[line + 1] = lines[line + 1], lines[line]
    else:
        made = json.loads(lines[line])
        lines.insert(line, json.dumps({**made, "object": "something else"}).encode())
    file.write_bytes(b"\n".join(lines) + b"\n")
    verdict = audit.verify([head])
    assert not verdict.whole
    assert verdict.broken_line is not None
    assert line + 1 <= verdict.broken_line <= line + 2


def test_lines_cut_off_or_written_anew_at_the_end_are_found_by_an_anchor(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    audit = filled(file)
    head = audit.head()
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:3]))
    assert audit.verify().whole, "the chain alone cannot know"
    assert audit.verify([head]).missing_anchors == (head,)
    audit.write("promote", "another history")
    assert audit.verify([head]).missing_anchors == (head,)


def test_a_line_cut_off_by_a_crash_is_no_tampering_and_is_noted_by_the_next_writer(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    audit = filled(file)
    whole = file.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    for cut in (1, len(last) // 2, len(last) - 1):
        file.write_bytes(whole[: len(whole) - cut])
        verdict = audit.verify()
        assert verdict.whole
        assert (verdict.n_lines, verdict.torn_bytes) == (4, len(last) - cut)
    audit.write("promote", "after the crash")
    entries = list(audit.entries())
    assert [e.action for e in entries[-2:]] == ["repair", "promote"]
    assert entries[-2].facts["bytes"] == 1
    assert audit.verify().whole


def test_a_last_line_that_is_none_of_ours_is_not_written_after(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    audit = filled(file)
    file.write_bytes(file.read_bytes() + b"something\n")
    with pytest.raises(StoreError, match=r"last line of the audit log.*--verify"):
        audit.write("promote", "x")
    assert audit.verify().broken_line == 6


def _write_many(file: Path, n: int) -> None:
    for i in range(n):
        Audit(file).write("run", f"process {os.getpid()}", number=i)


@pytest.mark.slow  # four processes; that the lock holds between two is tried beside it, in core
def test_writers_in_several_processes_lose_and_double_nothing(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_write_many, args=(file, 25)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    entries = list(Audit(file).entries())
    assert Audit(file).verify().whole
    assert sorted((e.object, e.facts["number"]) for e in entries) == sorted((e, i) for e in {e.object for e in entries} for i in range(25))


def test_no_secret_gets_into_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", 'pa"ss\\wörd')
    url = reveal("db://mis:${ENV:DB_PASSWORD}@host")
    audit = Audit(tmp_path / "log.jsonl")
    audit.write("collect", url, reason=url)
    assert audit.verify().whole
    assert not re.search("wörd|rd@host|u00f6rd", (tmp_path / "log.jsonl").read_text())


def test_a_short_secret_that_is_part_of_a_hash_does_not_break_the_chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIN", "0000")
    reveal("${ENV:PIN}")
    audit = filled(tmp_path / "log.jsonl")
    audit.write("collect", "pin 0000")
    assert audit.verify().whole
    assert "0000" not in list(audit.entries())[-1].object
