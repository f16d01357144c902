"""What is personal in the source is nowhere afterwards: every byte that a run, a server and its requests left is read, compressed blocks decoded."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from modelinscale.api import Project, predict
from modelinscale.core.errors import UsageError
from modelinscale.testing.traces import traces

_OIP = {"age": "INT64", "x": "FP64"}
KEY = "a-key-of-more-than-sixteen-letters"
NAME, MAIL, CARD = "Wilhelmina Quarrington", "w.quarrington@plantedmail.example", "4539578763621486"
PLANTED = (NAME, "Quarrington", MAIL, "w.quarrington", CARD, KEY)
SPEC = """
name: shop
data:
  source: rows.csv
  columns: {card: string, x: float}
  checks: {x: {between: [-100, 100]}}
  personal: {name: drop, card: pseudonym, mail: mask, age: {type: mask, step: 10}}
  pseudonym_key: ${ENV:MIS_KEY}
  person: card
target: y
features: {card: category, mail: category, age: number, x: number, shop: category}
model: linear
export: {golden_rows: 200}
"""


def rows(n: int = 500) -> list[str]:
    chance = np.random.default_rng(7)
    lines = []
    for i in range(n):
        x, shop = chance.normal(), "abc"[i % 3]
        y = "yes" if x + (shop == "a") + chance.normal() > 0.5 else "no"
        lines.append(f"Person {i % 40},4{i % 40:015d},p{i % 40}@mail{i % 3}.example,{20 + i % 40},{x:.3f},{shop},{y}")
    return lines


def planted() -> list[str]:
    """The person in good rows, and in every kind of bad one."""
    good = [f"{NAME},{CARD},{MAIL},44,{x},a,yes" for x in (0.5, -1.25, 3.0, 0.75)]
    return [
        *good,
        f"{NAME},{CARD}",  # too few cells
        f"{NAME},{CARD},{MAIL},44,1.0,a,yes,{MAIL}",  # too many
        f"{NAME},{CARD},{MAIL},44,{MAIL},a,yes",  # an address among numbers
        f"{NAME},{CARD},{MAIL},{NAME},1.0,a,yes",  # a name where an age should be
        f"{NAME},{CARD},{MAIL},44,{CARD},a,yes",  # a number that breaks the contract... and is a card's
        f'"{NAME},{CARD},{MAIL},44,1.0,a',  # a quote that is not closed
    ]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MIS_KEY", KEY)
    place = tmp_path / "project"
    place.mkdir()
    lines = rows()
    lines[300:300] = planted()[:-1]
    (tmp_path / "rows.csv").write_text("\n".join(["name,card,mail,age,x,shop,y", *lines, planted()[-1]]) + "\n")
    (place / "model.yaml").write_text(SPEC.replace("rows.csv", "../rows.csv"))
    return place


def mis(project: Path, *words: str, fails: bool = False) -> str:
    """What a command says, logs included."""
    done = subprocess.run([sys.executable, "-m", "modelinscale.cli", "--log", "debug", *words], cwd=project, capture_output=True, text=True, timeout=120)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def without_card_in_x(project: Path) -> None:
    """A check shows the number that breaks it; that a card's number is one cannot be known of a column without a rule."""
    file = project.parent / "rows.csv"
    file.write_text(file.read_text().replace(f"44,{CARD},a", "44,1000,a"))


def served(project: Path) -> str:
    """Everything that a server says while it is asked about the person, rightly and wrongly."""
    said = project / "server.txt"
    with said.open("w") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "modelinscale.cli", "--log", "debug", "serve", "--port", "0", "--json"], cwd=project, stdout=out, stderr=subprocess.STDOUT
        )
        try:
            while "address" not in said.read_text():
                assert server.poll() is None, said.read_text()
                time.sleep(0.1)
            address = next(json.loads(line)["address"] for line in said.read_text().splitlines() if line.startswith("{") and "address" in line)
            person = {"name": NAME, "card": CARD, "mail": MAIL, "age": 44, "x": 0.5, "shop": "a"}
            probabilities: dict[str, float] = {}
            for row, status in ((person, 200), ({**person, "card": {"n": CARD}}, 422), ({**person, "age": NAME}, 422), ({**person, "mail": [MAIL]}, 422)):
                request = urllib.request.Request(f"{address}/predict", json.dumps({"rows": [row]}).encode(), {"content-type": "application/json"})
                try:
                    with urllib.request.urlopen(request) as answer:
                        found, body = answer.status, answer.read().decode()
                except urllib.error.HTTPError as error:
                    with error:
                        found, body = error.code, error.read().decode()
                assert found == status, body
                probabilities = json.loads(body)["predictions"][0]["probabilities"] if found == 200 else probabilities
                assert not any(word in body for word in PLANTED), body
            tensors = [{"name": n, "shape": [1], "datatype": _OIP.get(n, "BYTES"), "data": [person[n]]} for n in ("card", "mail", "age", "x", "shop")]
            request = urllib.request.Request(f"{address}/v2/models/shop/infer", json.dumps({"inputs": tensors}).encode(), {"content-type": "application/json"})
            with urllib.request.urlopen(request) as answer:
                assert json.load(answer)["outputs"][1]["data"] == pytest.approx(list(probabilities.values()))
            for page in ("/", "/metrics", "/docs"):
                with urllib.request.urlopen(address + page) as answer:
                    assert not any(word in answer.read().decode() for word in PLANTED)
        finally:
            os.kill(server.pid, signal.SIGTERM)
            server.wait(30)
    return said.read_text()


@pytest.mark.slow
def test_nothing_personal_is_in_any_byte_that_was_written_or_said(project: Path) -> None:
    without_card_in_x(project)
    said = mis(project, "run", "--json") + str(Project(project).describe("quarantine")) + str(Project(project).check())
    predict(str(project.parent / "rows.csv"), out=project / "answers.csv", file=project)
    said += mis(project, "predict", "../rows.csv", "--out", "strict.csv", "--strict", fails=True)
    said += served(project)
    (project / "said.txt").write_text(said)
    assert traces(project, PLANTED) == []
    assert Project(project).describe("quarantine").facts["n_rows"] >= 5
    # The reader of bytes finds what is there: what replaced the person.
    pseudonym = _pseudonym(project)
    assert any(line.startswith("lake/") or "/lake/" in line for line in traces(project, [pseudonym]))
    assert any("golden.json" in line for line in traces(project, ["***@plantedmail.example"]))


def _pseudonym(project: Path) -> str:
    from modelinscale.core.personal import Keys

    return Keys([KEY]).pseudonym(CARD)


@pytest.mark.slow
def test_a_raw_row_is_answered_as_its_treated_form_and_needs_the_same_key(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_card_in_x(project)
    Project(project).run()
    package = Project(project).package()
    raw = {"name": NAME, "card": CARD, "mail": MAIL, "age": 44, "x": 0.5, "shop": "a"}
    clean = {"card": _pseudonym(project), "mail": "***@plantedmail.example", "age": 40, "x": 0.5, "shop": "a"}
    assert package.predict([raw]) == package.predict([clean])
    assert package.predict([raw] * 20) == package.predict([clean]) * 20
    monkeypatch.setenv("MIS_KEY", "another-key-of-enough-letters")
    with pytest.raises(UsageError, match="it is another key"):
        Project(project).package()
    monkeypatch.delenv("MIS_KEY")
    with pytest.raises(UsageError, match="'MIS_KEY' is not set"):
        Project(project).package()


def test_an_error_that_stops_a_collect_shows_nothing_personal(project: Path) -> None:
    (project / "model.yaml").write_text((project / "model.yaml").read_text().replace("between: [-100, 100]", "between: [0, 0.001]"))
    without_card_in_x(project)
    said = mis(project, "run", fails=True)
    assert "break the contract" in said
    (project / "said.txt").write_text(said)
    assert traces(project, PLANTED) == []
