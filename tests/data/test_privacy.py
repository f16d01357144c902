"""Privacy: what is personal is gone, the same person is the same word, and a treated row treated again is the same row."""

import pickle
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from pydantic import ValidationError

from modelinscale.core.errors import LakeError, SpecError, UsageError
from modelinscale.core.personal import Keys, Rule, mask, shape
from modelinscale.core.schema import Column, Schema
from modelinscale.core.secrets import MASK
from modelinscale.data.clean import clean
from modelinscale.data.lake import create_table
from modelinscale.data.privacy import Privacy, refuse_other_keys
from modelinscale.data.treatment import treat
from modelinscale.testing.examples import examples

KEY, OTHER = "k" * 32, "another key of thirty letters or so"


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIS_KEY", KEY)
    monkeypatch.setenv("MIS_KEY_2", OTHER)


def schema_of(**types: str) -> Schema:
    return Schema(columns=tuple(Column.model_validate({"name": name, "type": kind}) for name, kind in types.items()))


def treated(cells: dict[str, list[object]], rules: dict[str, Rule], **types: str) -> pa.RecordBatch:
    schema = schema_of(**types)
    privacy = Privacy(rules, ("${ENV:MIS_KEY}",))
    found = treat(clean(pa.record_batch({n: pa.array(v) for n, v in cells.items()}), schema), (privacy,)).batch
    assert [(c.name, c.type) for c in privacy.schema(schema).columns] == [
        (f.name, {"int64": "int", "double": "float", "string": "string", "timestamp[us]": "time"}[str(f.type)]) for f in found.schema
    ]
    return found


def test_a_dropped_column_is_gone_and_others_stay_as_they_are() -> None:
    found = treated({"name": ["Anna", "Ben"], "x": [1, 2]}, {"name": Rule(type="drop")}, name="string", x="int")
    assert found.to_pydict() == {"x": [1, 2]}


def test_the_same_person_is_the_same_word_whatever_the_type_of_the_column() -> None:
    cells: dict[str, list[object]] = {"card": ["7", "8", None, "7"], "number": [7, 8, None, 7], "real": [7.0, 8.0, None, 7.0]}
    found = treated(cells, dict.fromkeys(cells, Rule(type="pseudonym")), card="string", number="int", real="float").to_pydict()
    assert found["card"] == found["number"] == found["real"]
    first, second, none, again = found["card"]
    assert first == again != second
    assert none is None
    assert len(first) == 8 + 1 + 32


def test_masks_keep_what_was_asked_and_no_more() -> None:
    cells: dict[str, list[object]] = {
        "mail": ["Anna.Lee@Example.org", "nonsense", None],
        "card": ["4111 1111 1111 1234", "4111111111111234", "x"],
        "ip": ["10.1.2.3", "2001:db8:1:2::7", "?!"],
        "age": [37, 40, None],
        "born": ["1987-05-17", "2001-01-01T10:11:12", None],
        "pay": [1234.5, -0.1, None],
    }
    rules = {name: Rule(type="mask") for name in ("mail", "card", "born")}
    rules |= {"ip": Rule(type="mask", keep="network"), "age": Rule(type="mask", step=10), "pay": Rule(type="mask", step=500.0)}
    found = treated(cells, rules, mail="string", card="string", ip="string", age="int", born="time", pay="float").to_pydict()
    assert found["mail"] == ["***@example.org", MASK, None]
    assert found["card"] == ["***1234", "***1234", MASK]
    assert found["ip"] == ["10.1.*.*", "2001:0db8:0001::*", MASK]
    assert found["age"] == [30, 40, None]
    assert [None if v is None else v.isoformat() for v in found["born"]] == ["1987-01-01T00:00:00", "2001-01-01T00:00:00", None]
    assert found["pay"] == [1000.0, -500.0, None]


VALUES = some.one_of(some.text(max_size=40), some.emails(), some.ip_addresses().map(str), some.from_regex(r"\d{8,19}", fullmatch=True))


@settings(max_examples=examples(100), deadline=None)
@given(value=VALUES, keep=some.sampled_from([None, "domain", "last4", "network", "nothing"]))
def test_a_treated_text_treated_again_is_the_same(value: str, keep: str | None) -> None:
    assert mask(mask(value, keep), keep) == mask(value, keep)
    keys = Keys([KEY, OTHER])
    assert keys.pseudonym(keys.pseudonym(value)) == keys.pseudonym(value)


@settings(max_examples=examples(100), deadline=None)
@given(
    value=some.floats(-1e12, 1e12), step=some.floats(1e-3, 1e6), number=some.integers(-(2**62), 2**62), whole=some.integers(1, 1000),
    moment=some.integers(-62_135_596_800_000_000, 253_402_300_799_999_999), keep=some.sampled_from(["year", "month", "day"]),
)  # fmt: skip
def test_a_treated_number_or_moment_treated_again_is_the_same(value: float, step: float, number: int, whole: int, moment: int, keep: str) -> None:
    for rule, kind, cell in (
        (Rule(type="mask", step=step), "float", value),
        (Rule(type="mask", step=whole), "int", number),
        (Rule.model_validate({"type": "mask", "keep": keep}), "time", moment),
    ):
        one = rule.treatment(Column.model_validate({"name": "x", "type": kind}), None)
        assert one(one(cell)) == one(cell) <= cell


def test_what_is_shown_of_faults_tells_nothing_personal() -> None:
    """Neither in a personal column, nor elsewhere (cells slip into other columns), nor of a line that could not be taken apart."""
    schema = schema_of(mail="string", card="int", amount="float")
    batch = pa.record_batch(
        {
            "mail": ["a@b.org", None, None],
            "card": ["41x1", "5", None],
            "amount": ["anna@example.org", "Anna Lee 7", None],
            "_mis_broken": [None, None, "4 cells, expected 3: line 17: anna@example.org,4111,x,y"],
        }
    )
    privacy = Privacy({"mail": Rule(type="mask"), "card": Rule(type="pseudonym")}, ("${ENV:MIS_KEY}",))
    found = treat(clean(batch, schema), (privacy,)).faults.table().to_pylist()
    values = {(line["column"], line["row"]): line["value"] for line in found}
    assert values["", 2] == "line 17"
    assert values["amount", 0] == "aaaa@aaaaaaa.aaa"
    assert values["amount", 1] == "aaaa aaa 9"
    assert values["card", 0] == Keys([KEY]).pseudonym("41x1")
    assert shape("Zoë 1") == "aaa 9"


def test_a_rotated_pseudonym_is_the_one_that_new_rows_get() -> None:
    old, new = Keys([KEY]), Keys([KEY, OTHER])
    assert new.rotated(old.pseudonym("4111")) == new.pseudonym("4111")
    assert new.rotated(new.pseudonym("4111")) == new.pseudonym("4111")
    assert old.pseudonym("4111") != new.pseudonym("4111")
    with pytest.raises(UsageError, match="none of these keys makes"):
        Keys([OTHER]).rotated(old.pseudonym("4111"))


def test_no_key_no_pseudonyms(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = {"card": Rule(type="pseudonym")}
    with pytest.raises(SpecError, match="pseudonyms need a key"):
        Privacy(rule)
    monkeypatch.delenv("MIS_KEY")
    with pytest.raises(UsageError, match="'MIS_KEY' is not set"):
        Privacy(rule, ("${ENV:MIS_KEY}",))
    monkeypatch.setenv("MIS_KEY", "short")
    with pytest.raises(UsageError, match="fewer than 16 characters") as caught:
        Privacy(rule, ("${ENV:MIS_KEY}",))
    assert "short" not in str(caught.value)


def test_what_is_sent_to_other_machines_holds_no_key() -> None:
    privacy = Privacy({"card": Rule(type="pseudonym")}, ("${ENV:MIS_KEY}",))
    sent = pickle.dumps(privacy)
    assert KEY.encode() not in sent
    there = pickle.loads(sent)  # noqa: S301 - our own bytes
    assert there.keys.pseudonym("7") == Keys([KEY]).pseudonym("7")


@pytest.mark.parametrize(
    ("rule", "kind", "words"),
    [
        ({"type": "pseudonym"}, "vector", "can only be dropped"),
        ({"type": "mask"}, "bool", "can only be dropped"),
        ({"type": "mask", "keep": "last4"}, "time", "year, month or day"),
        ({"type": "mask", "keep": "year"}, "string", "is for moments"),
        ({"type": "mask", "step": 5}, "string", "is for numbers"),
        ({"type": "mask", "step": 2.5}, "int", "no whole number"),
    ],
)
def test_a_rule_that_does_not_fit_its_column_is_refused(rule: dict[str, object], kind: str, words: str) -> None:
    column = Column.model_validate({"name": "x", "type": kind, "width": 3 if kind == "vector" else None})
    with pytest.raises(SpecError, match=words):
        Privacy({"x": Rule.model_validate(rule)}, ("${ENV:MIS_KEY}",)).schema(Schema(columns=(column,)))


def test_a_rule_for_no_column_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SpecError, match=r"'emial' is not a column\. Did you mean 'email'"):
        Privacy({"emial": Rule(type="drop")}).schema(schema_of(email="string"))


@pytest.mark.parametrize(
    "rule", [{"type": "drop", "keep": "domain"}, {"type": "mask", "keep": "year", "step": 3}, {"type": "hide"}, {"type": "mask", "step": 0}]
)
def test_a_rule_that_says_two_things_or_none_is_refused(rule: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Rule.model_validate(rule)


def test_a_table_of_other_keys_is_not_added_to(tmp_path: Path) -> None:
    uri = str(tmp_path / "t.lance")
    rules = {"card": Rule(type="pseudonym")}
    create_table(uri, schema_of(card="string"), pa.table({"card": [None, Keys([KEY]).pseudonym("7")]}), batch="1")
    refuse_other_keys(uri, [Privacy(rules, ("${ENV:MIS_KEY}",))])
    with pytest.raises(LakeError, match="mis rotate"):
        refuse_other_keys(uri, [Privacy(rules, ("${ENV:MIS_KEY}", "${ENV:MIS_KEY_2}"))])
    with pytest.raises(LakeError, match="Name the keys that made them"):
        refuse_other_keys(uri, [Privacy(rules, ("${ENV:MIS_KEY_2}",))])
