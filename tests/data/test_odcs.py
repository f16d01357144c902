"""Contracts to and from the Open Data Contract Standard: nothing is lost on the way there and back, and what cannot be said is told."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from modelinscale.core.errors import SpecError
from modelinscale.core.schema import Column, Schema
from modelinscale.data.contract import parse_checks
from modelinscale.data.odcs import as_plain, export, load
from modelinscale.spec import load as load_spec
from modelinscale.spec._contract import merged

SCHEMA = Schema(
    columns=(
        Column(name="id", type="int", nullable=False),
        Column(name="shop", type="string"),
        Column(name="amount", type="float"),
        Column(name="n", type="int"),
        Column(name="paid_at", type="time"),
        Column(name="fraud", type="bool"),
        Column(name="email", type="string"),
        Column(name="face", type="vector", width=4),
    )
)
CHECKS: dict[str, Any] = {
    "id": ["present", "unique"],
    "shop": ["present", {"matches": "[A-Z]{2}|x"}, {"refers": {"file": "shops.csv", "column": "id"}}],
    "amount": [{"between": [0, 10.5]}, {"distribution": {"moved": 0.2, "severity": "warn"}}],
    "n": ["positive", {"at_most": 99}, {"one_of": [1, 2, 3]}],
    "paid_at": [{"fresh": "2d"}, {"at_least": "2020-01-01"}],
    "fraud": [{"present": {"severity": "warn"}}],
    "email": [{"personal": {"kinds": ["card"], "share": 0.1}}],
    "*": [{"rows": {"min": 10, "max": 5000}}],
}
PERSONAL = {"email": {"type": "mask", "keep": "domain"}}


def there_and_back(checks: dict[str, Any], personal: Any = PERSONAL) -> Any:
    found = export("shop", SCHEMA, parse_checks(checks), ("id", "shop"), personal)
    return load(yaml.safe_load(yaml.safe_dump(as_plain(found.document))))


def test_a_contract_comes_back_as_it_went() -> None:
    back = there_and_back(CHECKS)
    wanted = parse_checks(CHECKS)
    assert {name: set(map(repr, checks)) for name, checks in parse_checks(back.checks).items()} == {n: set(map(repr, c)) for n, c in wanted.items()}
    assert back.key == ("id", "shop")
    assert back.personal == PERSONAL
    assert back.columns == {c.name: c.type for c in SCHEMA.columns if c.type != "vector"}
    assert back.told == ()


@pytest.mark.parametrize(
    "check",
    [
        *["present", "unique", "positive", {"at_least": 3}, {"at_most": -2.5}, {"between": [1, 2]}, {"one_of": [1.5, 2]}],
        *[{"at_least": {"bound": 0, "severity": "stop"}}, {"present": {"severity": "warn"}}, {"distribution": "previous"}, "personal"],
    ],
    ids=str,
)
def test_each_check_comes_back(check: Any) -> None:
    column = "shop" if check == "personal" else "amount"
    assert parse_checks(there_and_back({column: check}).checks)[column] == parse_checks({column: check})[column]


@pytest.mark.parametrize("rows", [{"min": 1}, {"max": 9}, {"min": 1, "max": 9}, {"min": 4, "max": 4}, {"change": 0.5}, {"min": 1, "severity": "warn"}], ids=str)
def test_numbers_of_rows_come_back(rows: Any) -> None:
    assert parse_checks(there_and_back({"*": {"rows": rows}}).checks)["*"] == parse_checks({"*": {"rows": rows}})["*"]


FOREIGN = """
apiVersion: v3.1.0
kind: DataContract
id: urn:x
version: 1.0.0
status: active
team: {name: crew}
schema:
  - name: orders
    logicalType: object
    properties:
      - {name: id, logicalType: string, required: true, unique: true, primaryKey: true}
      - {name: zip, logicalType: string, logicalTypeOptions: {minLength: 5, maxLength: 5}}
      - {name: code, logicalType: string, logicalTypeOptions: {pattern: '[0-9]+', format: uuid}}
      - {name: n, logicalType: integer, logicalTypeOptions: {exclusiveMinimum: 1, exclusiveMaximum: 10, multipleOf: 2, format: i64}}
      - {name: x, logicalType: number, logicalTypeOptions: {exclusiveMaximum: 1}}
      - {name: mail, logicalType: string, classification: PII}
      - name: unit
        logicalType: string
        quality:
          - {metric: invalidValues, mustBe: 0, arguments: {validValues: [kg, lb]}}
          - {metric: nullValues, mustBeLessThan: 1, unit: percent, description: few are missing}
          - {type: sql, query: SELECT 1, mustBe: 1}
          - {type: custom, engine: soda, implementation: 'type: x'}
      - {name: nested, logicalType: object}
      - {name: shop, logicalType: string, relationships: [{to: shops.id}]}
    quality:
      - {metric: rowCount, mustBeGreaterThan: 0}
      - {metric: duplicateValues, mustBe: 0, arguments: {properties: [id, unit]}}
slaProperties:
  - {property: latency, value: 4, unit: d, element: orders.id}
  - {property: retention, value: 3, unit: y, element: orders}
"""


def test_what_others_wrote_is_taken_over_or_told() -> None:
    found = load(yaml.safe_load(FOREIGN))
    assert found.key == ("id",)
    assert found.checks == {
        "id": ["present", "unique", {"fresh": "345600s"}],
        "zip": [{"matches": "(?s).{5,5}"}],
        "code": [{"matches": "(?s).*(?:[0-9]+).*"}],
        "n": [{"between": [2, 9]}],
        "unit": [{"one_of": ["kg", "lb"]}],
        "*": [{"rows": {"min": 1}}],
    }
    assert found.personal == {"mail": "mask"}
    told = "\n".join(found.told)
    for words in (
        *("code: `format: uuid`", "n: `multipleOf: 2`", "x: below 1", "mail is classified as PII", "few are missing", "SELECT 1", "type: x", "'object'"),
        *("shop: refers to shops.id", "the table: a quality rule", "service level 'retention' (3 y)", "not about rows, so not taken over: team"),
    ):
        assert words in told, words


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("just text", "is not a contract of the Open Data Contract Standard"),
        ({"kind": "DataContract", "apiVersion": "v2.2.2"}, r"has version 'v2.2.2' of the standard. Known: v3.0.0"),
        ({"kind": "DataContract", "apiVersion": "v3.1.0", "schema": []}, "has 0 tables"),
        ({"kind": "DataContract", "apiVersion": "v3.1.0", "schema": [{"name": "a"}, {"name": "b"}]}, r"has 2 tables \(a, b\). Name one of them"),
    ],
)
def test_what_is_no_contract_is_refused(document: Any, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        load(document)


def test_a_model_yaml_takes_a_contract_in_and_its_own_words_win(tmp_path: Path) -> None:
    document = as_plain(export("shop", SCHEMA, parse_checks(CHECKS), ("id",), PERSONAL).document)
    (tmp_path / "shop.odcs.yaml").write_text(yaml.safe_dump(document))
    (tmp_path / "model.yaml").write_text(
        "data:\n  source: rows.csv\n  contract: shop.odcs.yaml\n  columns: {n: float}\n  clean: {shop: trim, amount: {units: kg}}\n"
        "  checks: {amount: {at_least: 1}, n: {one_of: [5]}}\ntarget: fraud\n"
    )
    data = load_spec(tmp_path).data
    assert data.key == ("id",)
    assert data.columns["n"] == "float"
    assert "amount" not in data.columns
    assert [c.type for c in data.checks["amount"]] == ["at_least", "distribution"]
    assert [c.plain() for c in data.checks["n"] if c.type == "one_of"] == [{"type": "one_of", "values": [5]}]
    assert data.checks["shop"] == parse_checks(CHECKS)["shop"]
    assert data.personal["email"].type == "mask"


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "the contract .* cannot be read: No such file"), ("a: [", "is not YAML"), ("kind: Other", "shop.odcs.yaml: this is not a contract")],
)
def test_a_contract_that_cannot_be_taken_in_is_told(tmp_path: Path, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / "shop.odcs.yaml").write_text(text)
    with pytest.raises(SpecError, match=words):
        merged({"data": {"contract": "shop.odcs.yaml"}}, tmp_path)


def test_what_is_written_fits_the_standards_own_schema() -> None:
    standard = pytest.importorskip("open_data_contract_standard", reason="the standard's own package (with its JSON Schema) is not installed")
    schema = json.loads((Path(standard.__file__).parent / "schema.json").read_text())
    document = json.loads(json.dumps(as_plain(export("shop", SCHEMA, parse_checks(CHECKS), ("id",), PERSONAL).document)))
    jsonschema.Draft201909Validator(schema).validate(document)
    assert schema["properties"]["apiVersion"]["enum"].count(document["apiVersion"]) == 1
