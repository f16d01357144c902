"""A person whom a running server was asked about: forgotten while it runs, they are in no byte of its log, and readers of it lose and double nothing."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelinscale.api import Project
from modelinscale.core.personal import Keys
from modelinscale.core.predictions import is_open, segments
from modelinscale.data.sources import Source
from modelinscale.testing import waits
from modelinscale.testing.traces import traces

KEY = "a-key-of-more-than-sixteen-letters"
PERSON, MAIL = "person-unlike-any-other", "p.unlike@plantedmail.example"
SPEC = """
name: shop
data:
  source: ../rows.csv
  person: who
  PERSONAL
target: y
features: {x: number, shop: category, who: category, note: text}
model: linear
"""
PERSONAL = "personal: {who: pseudonym, mail: drop}\n  pseudonym_key: ${ENV:MIS_KEY}"
HEAVY = ("pyarrow", "polars", "lance", "torch", "lightgbm", "sklearn", "deltalake")


def made(tmp_path: Path, spec: str) -> Path:
    """A project with a model."""
    place, chance = tmp_path / "project", np.random.default_rng(5)
    place.mkdir()
    lines = ["who,mail,x,shop,note,y"]
    for i in range(300):
        x, shop = chance.normal(), "abc"[i % 3]
        lines.append(f"person-{i % 40},m{i}@mail.example,{x:.3f},{shop},some words {i % 7},{'yes' if x + (shop == 'a') + chance.normal() > 0.5 else 'no'}")
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    (place / "model.yaml").write_text(spec)
    Project(place).run()
    return place


@contextmanager
def serving(place: Path) -> Iterator[tuple[str, int]]:
    """The server of a project: its address and process."""
    words = [sys.executable, "-m", "modelinscale.cli", "serve", "--port", "0", "--json"]
    with subprocess.Popen(words, cwd=place, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield json.loads(server.stdout.readline())["address"], server.pid
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 0


def ask(address: str, rows: list[dict[str, Any]], id: str) -> None:
    request = urllib.request.Request(f"{address}/predict", json.dumps({"rows": rows}).encode(), {"content-type": "application/json", "x-request-id": id})
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200


def ids(source: Source, after: Any = None) -> tuple[list[str], Any]:
    chunks = list(source.read(after, source.columns()))
    return [id for chunk in chunks for id in chunk.batch.column("id").to_pylist()], chunks[-1].cursor if chunks else after


@pytest.mark.slow
@pytest.mark.parametrize("is_raw", [False, True], ids=["pseudonym", "raw"])
def test_a_person_is_forgotten_under_a_running_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_raw: bool) -> None:
    monkeypatch.setenv("MIS_KEY", KEY)
    place = made(tmp_path, SPEC.replace("PERSONAL", "" if is_raw else PERSONAL))
    word = PERSON if is_raw else Keys([KEY]).pseudonym(PERSON)
    log = place / ".mis" / "predictions"
    source = Source.parse({"type": "predictions", "model": "shop", "path": str(log)})
    other = {"who": "person-3", "x": 0.5, "shop": "a", "note": "some words"}
    theirs = {"who": PERSON, "x": 31.4159, "shop": "b", "note": "some words", "mail": MAIL}
    with serving(place) as (address, pid):
        for i in range(10):
            ask(address, [other, theirs, other], f"one-{i}")
        ask(address, [other | {"note": f"said {PERSON}, twice"}], "text")
        ask(address, [other], f"{PERSON}.5")
        waits.until(lambda: sum(s.read_bytes().count(b"\n") - 1 for s in segments(log / "shop")) >= 32, "the log of 32 rows")
        first, cursor = ids(source)
        assert len(first) == 32
        assert any("predictions" in line for line in traces(place / ".mis", [word])), "the reader of bytes must find what is there"
        assert traces(log, [MAIL, KEY]) == [], "what is dropped, or is no input, is not logged"
        ask(address, [theirs, other], "late")  # may still wait in the server's memory when forgetting begins

        assert Project(place).forget([PERSON], dry_run=True).logged in (12, 13)
        found = Project(place).forget([PERSON])
        assert found.logged == 13
        assert all(map(is_open, segments(log / "shop"))), "the server writes on"
        assert traces(place / ".mis", [word, PERSON, MAIL]) == []
        ask(address, [other], "after")
        waits.until(lambda: len(ids(source, cursor)[0]) >= 2, "the log of the rows that came later")
        rest, _ = ids(source, cursor)
        assert rest == ["late/1", "after/0"]
        assert len(ids(source)[0]) == 32 - 12 + 2
        loaded = {Path(line.split()[-1]).parts[-2] for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "site-packages" in line}
        assert not loaded & set(HEAVY)
        rss = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        assert rss < 110 << 20
    assert traces(place / ".mis", [word, PERSON, MAIL]) == []
    assert Project(place).forget([PERSON]).logged == 0
    watch = tmp_path / "watch"
    watch.mkdir()
    (watch / "model.yaml").write_text("data: {source: {type: predictions, model: shop, path: ../project/.mis/predictions}, key: id}\ntarget: prediction\n")
    assert Project(watch).run(until="collect").collected["n_rows"] == 22
    if not is_raw:
        mends_pseudonyms(place, monkeypatch)
        return
    assert list(Project(place).audit.entries())[-2].facts["logged"] in (12, 13)


def mends_pseudonyms(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key of pseudonyms is rotated: the log has none of the old key left, and every row it had."""
    monkeypatch.setenv("MIS_KEY_2", "another-key-of-enough-letters")
    spec = (place / "model.yaml").read_text()
    (place / "model.yaml").write_text(spec.replace("pseudonym_key: ${ENV:MIS_KEY}", "pseudonym_key: ['${ENV:MIS_KEY}', '${ENV:MIS_KEY_2}']"))
    old, new = Keys([KEY]), Keys([KEY, "another-key-of-enough-letters"])
    log = place / ".mis" / "predictions"
    assert traces(log, [old.pseudonym("person-3")])
    assert Project(place).rotate().logged == 22
    assert traces(log, [old.id]) == []
    chunks = list((source := Source.parse({"type": "predictions", "model": "shop", "path": str(log)})).read(None, source.columns()))
    assert {who for chunk in chunks for who in chunk.batch.column("who").to_pylist()} == {new.pseudonym("person-3")}
    assert Project(place).rotate().logged == 0
    assert Project(place).forget(["person-3"]).logged == 22


@pytest.mark.slow
def test_a_log_in_which_nobody_is_named_says_so(tmp_path: Path) -> None:
    place = made(tmp_path, SPEC.replace("PERSONAL", "").replace(" who: category,", ""))
    with serving(place) as (address, _):
        ask(address, [{"who": PERSON, "x": 1.0}], "r")
    found = Project(place).forget([PERSON])
    assert found.logged == 0
    assert any("do not say whose they are" in note for note in found.notes)
    assert traces(place / ".mis" / "predictions", [PERSON]) == []
