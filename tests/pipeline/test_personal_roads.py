"""Side roads by which something personal might get out: a joined source, a cursor, a server's own words, folders for scratch, a report."""

import sqlite3
from pathlib import Path

import pytest

from modelinscale.api import Project
from modelinscale.core.errors import DataError, MisError, SpecError
from modelinscale.data.sources._sql import dead
from modelinscale.testing.databases import PASSWORD as DATABASE_PASSWORD
from modelinscale.testing.databases import NoServer, Server, postgres
from modelinscale.testing.traces import traces

NAME, CARD = "Wilhelmina Quarrington", "4539578763621486"
PLANTED = (NAME, "Quarrington", CARD)


def project(folder: Path, data: str, more: str = "") -> Project:
    (folder / "model.yaml").write_text(f"name: shop\ndata: {{{data}}}\ntarget: y\n{more}")
    return Project(folder)


def rows(folder: Path, n: int = 60) -> None:
    lines = [f"{i},Person {i},4{i:015d},{'yes' if i % 2 else 'no'}" for i in range(n)]
    (folder / "rows.csv").write_text("\n".join(["id,name,card,y", *lines, f"{n},{NAME},{CARD},yes"]) + "\n")


def test_a_key_that_names_several_rows_of_a_joined_source_is_not_told(tmp_path: Path) -> None:
    rows(tmp_path)
    (tmp_path / "people.csv").write_text(f"card,name,city\n{CARD},{NAME},Ghent\n{CARD},{NAME},Bruges\n")
    source = "source: [rows.csv, {type: csv, path: people.csv, join: {on: [card, name], columns: [city]}}], columns: {card: string}"
    one = project(tmp_path, f"{source}, personal: {{name: drop, card: {{type: mask}}}}")
    with pytest.raises(DataError, match="1 keys name several rows") as caught:
        one.run(until="collect")
    assert not any(word in str(caught.value) for word in PLANTED)
    assert traces(tmp_path / ".mis", PLANTED) == []


@pytest.mark.parametrize(("table", "settings"), [("card TEXT PRIMARY KEY, name TEXT, y TEXT", ""), ("card TEXT, name TEXT, y TEXT", ", cursor: card")])
def test_a_personal_column_cannot_be_what_the_cursor_remembers(tmp_path: Path, table: str, settings: str) -> None:
    with sqlite3.connect(tmp_path / "shop.db") as db:
        db.execute(f"CREATE TABLE t ({table})")
        db.executemany("INSERT INTO t VALUES (?, ?, ?)", [(f"4{i:015d}", f"Person {i}", "no") for i in range(60)] + [(CARD, NAME, "yes")])
    db.close()
    source = f"source: {{type: sql, url: 'sqlite:///{tmp_path / 'shop.db'}', table: t{settings}}}"
    with pytest.raises(SpecError, match=r"remembers by 'card'.*would stand in the lake"):
        project(tmp_path, f"{source}, personal: {{name: drop, card: mask}}").run(until="collect")
    assert traces(tmp_path / ".mis", PLANTED) == []


@pytest.mark.parametrize(
    "cell",
    ["name::int", "tell(name)"],
    ids=["a cast", "a function of its own"],
)
@pytest.mark.slow
def test_a_databases_own_words_about_a_cell_are_not_repeated(tmp_path: Path, cell: str, pg: Server) -> None:
    pg.run(
        "CREATE TABLE IF NOT EXISTS person (id int primary key, name text, y text);"
        f"INSERT INTO person VALUES (1, '{NAME}', 'yes') ON CONFLICT DO NOTHING;"
        "CREATE OR REPLACE FUNCTION tell(text) RETURNS text AS $$ BEGIN RAISE EXCEPTION 'no such person: %', $1; END $$ LANGUAGE plpgsql;"
    )
    source = f"source: {{type: sql, url: '{pg.url()}', query: \"SELECT id, {cell} AS z, y FROM person\", key: id}}".replace('"a"', '\\"a\\"')
    one = project(tmp_path, f"{source}, personal: {{z: drop}}")
    with pytest.raises(MisError) as caught:
        one.run(until="collect")
    assert not any(word in str(caught.value) for word in PLANTED), str(caught.value)
    assert not (tmp_path / ".mis").exists() or traces(tmp_path / ".mis", PLANTED) == []


@pytest.fixture(scope="module")
def pg() -> object:
    import os

    os.environ["MIS_TEST_PASSWORD"] = DATABASE_PASSWORD
    try:
        with postgres() as server:
            yield server
    except NoServer as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize(
    "words",
    ["Incorrect datetime value: 'Mary O'Brien 4111' for column `x` at row 1", "Duplicate entry 'O'Brien' for key 'x'", "bad cell \"O'Brien", "no: O'Brien"],
)
def test_a_cell_with_quotes_in_it_is_not_told_either(words: str) -> None:
    assert "Brien" not in str(dead("mysql://db/shop", "read", RuntimeError(words), of_cells=True))
