"""What a broken check does to a collect: warn and keep, quarantine, stop with nothing half-visible; and nothing personal is shown."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from modelinscale.core.errors import DataError, SpecError
from modelinscale.core.schema import Column, Schema
from modelinscale.data._brought import Brought
from modelinscale.data.arrow import arrow_schema
from modelinscale.data.collect import Collected, collect, open_quarantine
from modelinscale.data.contract import contract, parse_checks
from modelinscale.data.lake import open_table, table_exists
from modelinscale.data.sources.csv import Csv

SCHEMA = Schema(columns=(Column(name="id", type="int"), Column(name="note", type="string")))
NO_FAULTS = pa.table({"row": pa.array([], pa.int64()), **{n: pa.array([], pa.string()) for n in ("column", "reason", "value")}})


class Place:
    """A folder with rows, a lake and a quarantine."""

    def __init__(self, folder: Path, checks: Mapping[str, Any]) -> None:
        self.folder, self.lake, self.quarantine = folder, str(folder / "lake"), str(folder / "bad")
        self.checks = checks
        self.n_files = 0
        self.seen: list[Brought] = []

    def collect(self, ids: list[int], note: str = "x", *, commit_rows: int = 1 << 20) -> Collected:
        self.n_files += 1
        (self.folder / f"rows{self.n_files}.csv").write_text("id,note\n" + "".join(f"{i},{note}\n" for i in ids))
        rules = contract(SCHEMA, parse_checks(self.checks))
        source = Csv(path=(str(self.folder / "rows*.csv"),))
        return collect(
            source,
            lake=self.lake,
            quarantine=self.quarantine,
            contract=rules,
            commit_rows=commit_rows,
            report=lambda _, brought: self.seen.append(brought),
            max_quarantined=1.0,
        )


def test_a_warning_keeps_the_row_and_is_told(tmp_path: Path) -> None:
    found = Place(tmp_path, {"id": {"at_least": 0, "severity": "warn"}}).collect([1, -1, -2])
    assert (found.n_added, found.n_quarantined_now) == (3, 0)
    assert found.notes == ("a check warns: 2 × id: not at least 0 (-1, -2).",)


def test_a_stop_ends_the_collect_before_the_commit_and_the_cursor_stays(tmp_path: Path) -> None:
    place = Place(tmp_path, {"id": {"at_least": 0, "severity": "stop"}})
    place.collect([1, 2])
    with pytest.raises(DataError, match=r"(?s)a check stops this collect:\n  1 × id: not at least 0 \(-1\).*nothing of these rows was kept"):
        place.collect([3, -1])
    assert open_table(place.lake).n_rows == 2
    (tmp_path / "rows2.csv").write_text("id,note\n3,x\n4,x\n")
    place.n_files = 2
    assert place.collect([5]).n_rows == 5


def test_a_check_of_all_rows_stops_a_first_collect_and_there_is_no_table(tmp_path: Path) -> None:
    place = Place(tmp_path, {"*": {"rows": {"min": 3}}})
    with pytest.raises(DataError, match="2 × the table: 2 rows are fewer than 3"):
        place.collect([1, 2])
    assert not table_exists(place.lake)
    assert place.collect([3]).n_rows == 3


def test_the_last_commit_waits_for_what_is_said_of_all_rows(tmp_path: Path) -> None:
    place = Place(tmp_path, {"*": {"rows": {"max": 5}}})
    place.collect([1, 2, 3])
    with pytest.raises(DataError, match=r"8 rows are more than 5|6 rows are more than 5"):
        place.collect(list(range(10, 18)), commit_rows=2)
    assert place.seen[-1].n_good == 3


def test_a_collect_is_held_against_those_before(tmp_path: Path) -> None:
    place = Place(tmp_path, {"*": {"rows": {"change": 0.5, "severity": "warn"}}, "id": {"distribution": {"rows": 50, "severity": "warn"}}})
    for i in range(4):
        assert place.collect([*range(100)], note=str(i)).notes == ()
    found = place.collect([k + 500 for k in range(40)])
    assert "40 rows, where 100 are usual (the median of 4 collects)" in found.notes[0]
    assert "of the rows lie elsewhere than before (100 rows), allowed 10% (median 49, now 519)" in found.notes[1]
    assert open_table(place.lake).last.facts["collects"] == [100, 100, 100, 100, 40]


def test_nothing_new_is_judged_too(tmp_path: Path) -> None:
    place = Place(tmp_path, {"*": {"rows": {"min": 1}}})
    place.collect([1])
    with pytest.raises(DataError, match="0 rows are fewer than 1"):
        place.collect([])


def test_personal_values_are_masked_wherever_they_would_be_shown(tmp_path: Path) -> None:
    place = Place(tmp_path, {"note": ["personal", {"matches": "[a-z ]+"}]})
    (tmp_path / "broken.csv").write_text("")
    found = place.collect([1], note="jane@example.org")
    assert found.n_quarantined_now == 1
    lines = [line for batch in open_quarantine(place.quarantine, place.lake) for line in batch.to_pylist()]
    assert [(line["reason"], line["value"]) for line in lines] == [("not free of personal data", "(email)"), ("not like [a-z ]+", "(email)")]
    assert b"example" not in b"".join(p.read_bytes() for p in (tmp_path / "bad").rglob("*") if p.is_file())
    assert place.seen[0].examples == {("note", "not free of personal data"): ["(email)"], ("note", "not like [a-z ]+"): ["(email)"]}


def test_faults_of_reading_are_masked_too() -> None:
    rules = contract(SCHEMA, parse_checks({"note": "personal"}))
    rows = pa.table({"id": [1, 2], "note": [None, None]}, schema=arrow_schema(SCHEMA))
    faults = pa.table({"row": [0, 1], "column": ["note", ""], "reason": ["bad", "broken"], "value": ["a@b.co", "line 3: x,a@b.co"]})
    assert rules.apply(rows, faults).entries.column("value").to_pylist() == ["(email)", "(email)"]


def test_a_star_means_every_column_that_the_check_suits() -> None:
    rules = contract(SCHEMA, parse_checks({"*": [{"personal": ["email"]}, {"rows": {"min": 1}}], "note": "personal"}))
    assert [c.plain()["kinds"] for c in rules.checks["note"]] == [[]]
    assert [c.plain()["kinds"] for c in rules.checks["id"]] == [["email"]]
    assert [c.type for c in rules.of_table] == ["rows"]


@pytest.mark.parametrize(
    ("checks", "words"),
    [
        ({"id": {"unique": {"severity": "warn"}}}, "id: `unique` takes no severity"),
        ({"id": {"rows": {"min": 1}}}, r"id: `rows` is about the table: write it under `\*`"),
        ({"*": "positive"}, None),
        ({"*": {"matches": "(?=a)"}}, r"`\*`: there is no column for `matches`"),
        ({"id": {"distribution": {"severity": "quarantine"}}}, "cannot be put into quarantine"),
        ({"note": {"fresh": "1d"}}, "`fresh` cannot be held against a column of type string"),
    ],
)
def test_checks_that_cannot_be_held_so_are_told(checks: Any, words: str | None) -> None:
    if words is None:
        assert list(contract(SCHEMA, parse_checks(checks)).checks) == ["id"]
        return
    with pytest.raises(SpecError, match=words):
        contract(SCHEMA, parse_checks(checks))
