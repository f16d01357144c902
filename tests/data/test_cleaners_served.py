"""One file from dirty rows to a server: what was done to a row at collection is done to the row that is asked about."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest

from modelinscale.api import Project, predict
from modelinscale.core.errors import RequestError
from modelinscale.package import Package

MODEL = """
name: parcels
target: late
data:
  source: rows.csv
  key: id
  leave_out: [note, town]
  clean:
    weight: [{units: {to: kg, bare: g}}, {outliers: {spread: 8}}]
    city: [{trim: {case: lower}}, {replace: {n/a: null, "st. ives": saint ives}}, {fill: {column: town}}, {fill: nowhere}]
    price: {cast: {to: float, decimal: ",", thousands: "."}}
    sent: {cast: {to: time, format: "%d.%m.%Y"}}
    "*": trim
features: {weight: number, city: category, price: number, sent: moment}
model: linear
train: {budget: 5s}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("parcels")
    chance = random.Random(3)
    with (folder / "rows.csv").open("w", newline="") as file:
        write = csv.writer(file)
        write.writerow(["id", "weight", "city", "price", "sent", "note", "late", "town"])
        for i in range(1200):
            kg, city = chance.gauss(50, 10), chance.choice([" Berlin", "St. Ives", "n/a", "Paris\u00a0", "LONDON"])
            weight = [f"{kg:.1f} kg", f"{kg / 0.45359237:.2f} lb", f"{kg * 1000:.0f}", "", "9 t"][min(4, int(chance.random() * 4.06))]
            price = f"{chance.lognormvariate(7, 0.5):,.2f}".replace(",", "_").replace(".", ",").replace("_", ".")
            late = "yes" if kg + 10 * ("Berlin" in city) + chance.gauss(0, 3) > 55 else "no"
            write.writerow(
                [
                    i,
                    weight,
                    city,
                    price,
                    f"{chance.randrange(1, 28):02}.{chance.randrange(1, 13):02}.2024",
                    f" n{i} ",
                    late,
                    chance.choice(["", "N/A", " Bonn"]),
                ]
            )
    (folder / "model.yaml").write_text(MODEL)
    project = Project(folder)
    project.run()
    return project


@pytest.fixture(scope="module")
def package(project: Project) -> Package:
    return project.package()


def raw(project: Project) -> list[dict[str, Any]]:
    with (project.base / "rows.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k in ("weight", "city", "price", "sent", "town")} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_served_rows_become_what_the_lake_holds(project: Project, package: Package) -> None:
    import numpy as np
    import polars as pl

    from modelinscale.data.lake import open_table
    from modelinscale.encode.tensors import to_input, to_numpy

    facts = project.describe("lake").facts
    lake = pl.concat([pl.DataFrame(b) for b in open_table(facts["uri"]).blocks()])
    rows = raw(project)
    assert len(lake) == len(rows)
    tensors = package.tensors(rows)
    for column in package.inputs:
        expected = to_numpy(to_input(lake[column.name], column.input), column.input)
        np.testing.assert_array_equal(tensors[column.name], expected, err_msg=column.name)
    assert lake["weight"].max() < 200  # type: ignore[operator]
    assert set(lake["city"]) == {"berlin", "saint ives", "nowhere", "paris", "london", "bonn"}


@pytest.mark.slow
def test_one_row_and_a_whole_file_are_answered_the_same(project: Project, package: Package, tmp_path: Path) -> None:
    found = predict(str(project.base / "rows.csv"), out=tmp_path / "answers.jsonl", file=project.file)
    assert found.n_faults == 0
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    served = package.predict(raw(project))
    assert [a["prediction"] for a in answers] == [s["prediction"] for s in served]
    assert max(abs(a["probability_yes"] - s["probabilities"]["yes"]) for a, s in zip(answers, served, strict=True)) < 1e-6
    assert package.predict(raw(project)[:1]) == served[:1]


@pytest.mark.slow
def test_a_missing_cell_is_filled_from_a_column_that_is_no_feature(package: Package) -> None:
    from modelinscale.serve._oip import Translator
    from modelinscale.serve._oip_form import model_metadata

    row = {"weight": "50 kg", "price": "1,5", "sent": "01.02.2024"}
    assert package.predict([{**row, "city": "n/a", "town": " BONN"}]) == package.predict([{**row, "city": "Bonn"}])
    assert package.predict([{**row, "town": "n/a"}]) == package.predict([{**row, "city": "nowhere", "town": "Bonn"}])
    rows = [{**row, "city": city, "town": town} for city in ("Bonn", "n/a", None) for town in ("Berlin", "n/a", None)]
    inputs = [{"name": name, "shape": [9], "datatype": "BYTES", "data": [r[name] for r in rows]} for name in ("town", "weight", "city", "price", "sent")]
    asked = Translator(package, max_rows=100).read(json.dumps({"inputs": inputs}).encode(), None)
    expected = package.tensors(rows)
    assert {name: values.tolist() for name, values in asked.tensors.items()} == {name: values.tolist() for name, values in expected.items()}
    assert [one["name"] for one in model_metadata(package)["inputs"]][-1] == "town"


@pytest.mark.slow
def test_what_cannot_be_cleaned_is_refused_by_name(package: Package) -> None:
    row = {"weight": "3 furlongs", "city": "Bonn", "price": "1,5", "sent": "01.02.2024"}
    with pytest.raises(RequestError, match=r"column 'weight': found \"3 furlongs\", expected a number with a unit of mass \(kg\)"):
        package.predict([row])
    with pytest.raises(RequestError, match=r"column 'sent': found \"2024/02/01\", expected a moment written %d.%m.%Y, or as ISO 8601"):
        package.predict([{**row, "weight": 500, "sent": "2024/02/01"}])
    assert package.predict([{**row, "weight": 500, "sent": "2024-02-01T00:00:00Z"}]) == package.predict([{**row, "weight": 500}])
    assert package.predict([{**row, "weight": "0.5 kg"}]) == package.predict([{**row, "weight": 500}])


@pytest.mark.slow
def test_the_contract_goes_out_and_comes_in_by_command(project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from modelinscale.cli import contract

    out = tmp_path / "parcels.odcs.yaml"
    contract.write(project.file, out, json=False)
    assert capsys.readouterr().out == f"wrote {out}\n"
    contract.read(out, json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["told"] == []
    assert found["document"]["data"]["columns"] == {
        **{"id": "int", "weight": "float", "city": "string", "price": "float", "sent": "time", "note": "string", "late": "string", "town": "string"},
    }
    assert found["document"]["data"]["key"] == ["id"]


@pytest.mark.slow
def test_bounds_of_the_first_collect_stay_with_the_table(project: Project) -> None:
    from modelinscale.data.lake import open_table

    facts = project.describe("lake").facts
    kept = open_table(facts["uri"]).last.facts["clean"]["weight"][1]
    assert kept["spread"] is None
    with (project.base / "rows.csv").open("a") as file:
        file.write("".join(f'{5000 + i},{90 + i} kg,Bonn,"1,0",01.01.2025,x,yes,\n' for i in range(300)))
    project.run(until="collect")
    assert open_table(facts["uri"]).last.facts["clean"]["weight"][1] == kept
    report = project.describe("collect").facts["report"]
    assert (report["n_added"], report["columns"]["weight"]["high"]) == (300, pytest.approx(kept["high"]))
