"""A person who is forgotten is in no byte of the store, compressed blocks decoded; what learned from their rows is named and made again."""

import json
from pathlib import Path

import numpy as np
import pytest

from modelinscale.api import Project
from modelinscale.core.errors import LakeError, SpecError, UsageError
from modelinscale.core.personal import Keys
from modelinscale.data.lake import Table, open_table
from modelinscale.pipeline._forget import _Forgetting
from modelinscale.testing.traces import traces

KEY = "a-key-of-more-than-sixteen-letters"
PERSON, OTHER = "person-unlike-any-other", "person-7"
SPEC = """
name: shop
data:
  source: rows.csv
  key: row
  checks: {x: {between: [-50, 50]}}
  person: who
  PERSONAL
target: y
features: {x: number, shop: category}
model: linear
export: {golden_rows: 300}
"""
PSEUDONYM = "personal: {who: pseudonym}\n  pseudonym_key: ${ENV:MIS_KEY}"


def lines(n: int = 400) -> list[str]:
    chance = np.random.default_rng(3)
    found = []
    for i in range(n):
        x, shop = chance.normal(), "abc"[i % 3]
        found.append(f"{i},person-{i % 40},{x:.4f},{shop},{'yes' if x + (shop == 'a') + chance.normal() > 0.5 else 'no'}")
    theirs = [f"{1000 + i},{PERSON},{31.4159 + i},b,yes" for i in range(12)]
    return [*found[:200], *theirs, f"2000,{PERSON},77,b,yes", f"{PERSON},broken", *found[200:]]


@pytest.fixture(params=["pseudonym", "raw"])
def project(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """A project, and the word that stands for the person in its lake."""
    monkeypatch.setenv("MIS_KEY", KEY)
    place = tmp_path / "project"
    place.mkdir()
    (tmp_path / "rows.csv").write_text("row,who,x,shop,y\n" + "\n".join(lines()) + "\n")
    is_raw = request.param == "raw"
    (place / "model.yaml").write_text(SPEC.replace("rows.csv", "../rows.csv").replace("PERSONAL", "" if is_raw else PSEUDONYM))
    return place, PERSON if is_raw else Keys([KEY]).pseudonym(PERSON)


@pytest.mark.slow
def test_a_forgotten_person_is_in_no_byte_of_the_store(project: tuple[Path, str]) -> None:
    place, word = project
    Project(place).run()
    golden = place / ".mis" / "packages" / "shop" / "1" / "golden.json"
    theirs = [row for row in json.loads(golden.read_text())["rows"] if row.get("x", 0) > 30]
    before = traces(place / ".mis", [word, PERSON])
    assert any("lake" in line for line in before), "the reader of bytes must find what is there"

    dry = Project(place).forget([PERSON], dry_run=True)
    assert sum(dry.rows.values()) == 12
    assert traces(place / ".mis", [word, PERSON]) == before, "a dry run changes nothing"

    found = Project(place).forget([PERSON])
    assert (sum(found.rows.values()), [m.version for m in found.models]) == (12, [1])
    assert found.models[0].golden_rows == len(theirs) > 0
    assert found.models[0].sure
    assert found.steps == dry.steps == 6
    assert found.quarantined >= (1 if word == PERSON else 0)
    assert traces(place / ".mis", [word, PERSON]) == []
    assert not [row for row in json.loads(golden.read_text())["rows"] if row.get("x", 0) > 30]

    package = Project(place).package("1")
    assert "erased" in package.manifest.refit
    assert Project(place).audit.verify().whole
    entry = list(Project(place).audit.entries())[-1]
    assert (entry.action, entry.facts["refit"]) == ("forget", [1])

    again = Project(place).run()
    assert again.version == "2"
    assert again.collected["n_rows"] == 400
    assert traces(place / ".mis", [word, PERSON]) == []
    assert Project(place).package("2").manifest.refit == ""
    assert sum(Project(place).forget([PERSON]).rows.values()) == 0
    assert sum(Project(place).forget([OTHER], dry_run=True).rows.values()) == 10


def test_who_cannot_be_found_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text("data: {source: rows.csv}\ntarget: y\n")
    with pytest.raises(SpecError, match="does not say which column names a person"):
        Project(tmp_path).forget(["x"])
    (tmp_path / "model.yaml").write_text("data: {source: rows.csv, person: who}\ntarget: y\n")
    with pytest.raises(UsageError, match="nobody is named"):
        Project(tmp_path).forget([])
    assert sum(Project(tmp_path).forget(["nobody"]).rows.values()) == 0


def test_a_champion_that_learned_from_erased_rows_is_pointed_out_until_another_is_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("row,who,x,shop,y\n" + "\n".join(lines()) + "\n")
    (tmp_path / "model.yaml").write_text(SPEC.replace("PERSONAL", ""))
    assert Project(tmp_path).run().notes[-1].startswith("version 1 is champion")
    Project(tmp_path).forget([PERSON])
    told = "the champion, version 1, learned from rows that were erased since, and is still the one that answers: "
    assert Project(tmp_path).describe().notes[-1] == f"{told}`mis run` makes a version without them."
    Project(tmp_path).run()
    todo = f"{told}`mis promote 2` puts one without them in its place."
    assert Project(tmp_path).promote("1")["notes"] == [todo]
    assert Project(tmp_path).run().notes[-1] == todo
    assert Project(tmp_path).describe().facts["refit"] == todo
    assert Project(tmp_path).promote("2")["notes"] == []
    assert todo not in Project(tmp_path).run().notes


def test_nobody_is_looked_for_under_other_keys_than_those_that_made_the_pseudonyms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIS_KEY", KEY)
    (tmp_path / "rows.csv").write_text("row,who,x,shop,y\n" + "\n".join(lines()) + "\n")
    (tmp_path / "model.yaml").write_text(SPEC.replace("PERSONAL", PSEUDONYM))
    Project(tmp_path).run(until="collect")
    monkeypatch.setenv("MIS_KEY", "another-key-of-enough-letters")
    for dry_run in (True, False):
        with pytest.raises(LakeError, match=f"made by other keys \\({Keys([KEY]).id}\\).*nothing was removed"):
            Project(tmp_path).forget([PERSON], dry_run=dry_run)
    assert sum(Project(tmp_path).forget([Keys([KEY]).pseudonym(PERSON)], dry_run=True).rows.values()) == 12, "a word as the table writes it needs no key"
    (tmp_path / "model.yaml").write_text(SPEC.replace("PERSONAL", PSEUDONYM).replace("${ENV:MIS_KEY}", "['${ENV:MIS_FIRST}', '${ENV:MIS_KEY}']"))
    monkeypatch.setenv("MIS_FIRST", KEY)
    assert sum(Project(tmp_path).forget([PERSON]).rows.values()) == 12


@pytest.mark.slow
def test_a_rotated_key_leaves_no_old_pseudonym_and_the_same_persons_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIS_KEY", KEY)
    monkeypatch.setenv("MIS_KEY_2", "another-key-of-enough-letters")
    (tmp_path / "rows.csv").write_text("row,who,x,shop,y\n" + "\n".join(lines()) + "\n")
    spec = SPEC.replace("PERSONAL", PSEUDONYM).replace("checks: {x: {between: [-50, 50]}}", "checks: {who: {matches: '.*[0-9a-f]{31}[0-8]'}}")
    (tmp_path / "model.yaml").write_text(spec)
    first = Project(tmp_path).run()
    old, new = Keys([KEY]), Keys([KEY, "another-key-of-enough-letters"])
    assert Project(tmp_path).describe("quarantine").facts["n_rows"] > 1
    assert traces(tmp_path / ".mis", [old.id])
    (tmp_path / "model.yaml").write_text(spec.replace("pseudonym_key: ${ENV:MIS_KEY}", "pseudonym_key: ['${ENV:MIS_KEY}', '${ENV:MIS_KEY_2}']"))
    with (tmp_path / "rows.csv").open("a") as file:
        file.write(f"3000,{PERSON},1.5,a,yes\n")
    with pytest.raises(LakeError, match="Run `mis rotate`"):
        Project(tmp_path).run(until="collect")

    rotated = Project(tmp_path).rotate()
    assert (rotated.key_id, sum(rotated.rows.values()), rotated.steps) == (new.id, first.collected["n_rows"], 6)
    assert traces(tmp_path / ".mis" / "lake", [old.id]) == []
    assert all(line["value"].startswith(new.id) for line in Project(tmp_path).describe("quarantine").facts["faults"] if line["column"] == "who")
    assert Project(tmp_path).rotate().rows == {}
    again = Project(tmp_path).run(until="collect")
    assert again.collected["n_added"] + again.collected["n_quarantined_now"] == 1
    rows = Project(tmp_path).describe("rows").facts["rows"]
    if again.collected["n_added"]:
        assert rows[-1]["who"] == new.pseudonym(PERSON) == new.rotated(old.pseudonym(PERSON))
    assert [e.action for e in Project(tmp_path).audit.entries()].count("rotate") == 1


def test_a_person_is_found_as_the_source_writes_them_whatever_cleaning_made_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIS_KEY", KEY)
    names = ["Ann", " B-en ", "C-arl", ""]
    (tmp_path / "rows.csv").write_text("row,who,x,y\n" + "".join(f"{i},{names[i % 4]},{i},{'yes' if i % 3 else 'no'}\n" for i in range(80)))
    clean = "clean: {who: [trim, {replace: {'B-en': Benjamin}}, {fill: nobody}]}"
    (tmp_path / "model.yaml").write_text(
        f"name: shop\ndata: {{source: rows.csv, person: who, {clean}, personal: {{who: pseudonym}}, pseudonym_key: '${{ENV:MIS_KEY}}'}}\ntarget: y\n"
    )
    Project(tmp_path).run(until="collect")
    assert sum(Project(tmp_path).forget([" B-en "], dry_run=True).rows.values()) == 20
    assert sum(Project(tmp_path).forget([" C-arl"]).rows.values()) == 20
    assert Project(tmp_path).describe("rows").facts["n_rows"] == 60
    assert sum(Project(tmp_path).forget(["   "], dry_run=True).rows.values()) == 0, "a cell that says nothing is nobody"


def test_a_short_name_takes_nobody_else_out_of_quarantine(tmp_path: Path) -> None:
    bad = "".join(f"{i},{i},a{i}7,yes\n" for i in range(100, 120))
    (tmp_path / "rows.csv").write_text("row,who,x,y\n" + "".join(f"{i},{i % 20},{i},{'yes' if i % 3 else 'no'}\n" for i in range(80)) + bad)
    (tmp_path / "model.yaml").write_text("name: shop\ndata: {source: rows.csv, person: who, columns: {x: int}}\ntarget: y\n")
    Project(tmp_path).run(until="collect")
    found = Project(tmp_path).forget(["7"])
    assert (sum(found.rows.values()), found.quarantined) == (4, 0)
    assert Project(tmp_path).describe("quarantine").facts["n_rows"] == 20


@pytest.mark.slow
def test_a_call_killed_before_its_end_is_ended_by_the_next_one(project: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    place, word = project
    Project(place).run(until="prepare")

    class Killed(Exception):
        pass

    def stop(self: Table, *args: object, **more: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Table, "erase", stop)
        with pytest.raises(Killed):
            Project(place).forget([PERSON])
    assert not list((place / ".mis" / "steps" / "prepare").glob("[!.]*")), "nothing made from the rows outlives them"
    with monkeypatch.context() as patch:
        patch.setattr(_Forgetting, "_begin", stop)
        with pytest.raises(Killed):
            Project(place).forget([PERSON])
    assert sum(Project(place).forget([PERSON]).rows.values()) == 12
    assert traces(place / ".mis", [word, PERSON]) == []


@pytest.mark.slow
def test_rows_that_a_killed_writer_left_and_packages_of_versions_that_are_gone_are_looked_through(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("row,who,x,shop,y\n" + "\n".join(lines()) + "\n")
    (tmp_path / "model.yaml").write_text(SPEC.replace("  PERSONAL\n", "").replace("features: {x: number,", "features: {who: category, x: number,"))
    Project(tmp_path).run()
    table = open_table(str(next((tmp_path / ".mis" / "lake").glob("shop-????????"))))
    table.stage(table.slice(0, table.n_rows, table.schema.names))
    golden = tmp_path / ".mis" / "packages" / "shop" / "1" / "golden.json"
    other = next(row["who"] for row in json.loads(golden.read_text())["rows"] if len(row["who"]) == len("person-18"))
    Project(tmp_path).forget([PERSON])  # with it goes the version that the package was made from
    table = open_table(table.uri)
    table.erase("who", [other])  # as if a later row had taken the place of each
    assert [m.golden_rows > 0 for m in Project(tmp_path).forget([other]).models] == [True]
    assert traces(tmp_path / ".mis" / "lake", [PERSON, other]) == []
    assert not any(row.get("who") == other for row in json.loads(golden.read_text())["rows"])
