"""Every check, and how they are written in model.yaml."""

import atexit
import shutil
import tempfile
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from modelinscale.core.bins import Bins
from modelinscale.core.errors import SpecError
from modelinscale.core.kinds import names
from modelinscale.core.schema import Column, ColumnType
from modelinscale.data.checks import Past
from modelinscale.data.checks.at_least import AtLeast
from modelinscale.data.checks.at_most import AtMost
from modelinscale.data.checks.between import Between
from modelinscale.data.checks.distribution import Distribution
from modelinscale.data.checks.fresh import Fresh
from modelinscale.data.checks.matches import Matches
from modelinscale.data.checks.one_of import OneOf
from modelinscale.data.checks.personal import Personal
from modelinscale.data.checks.positive import Positive
from modelinscale.data.checks.present import Present
from modelinscale.data.checks.refers import Refers
from modelinscale.data.checks.rows import Rows
from modelinscale.data.checks.unique import Unique
from modelinscale.data.contract import parse_checks
from modelinscale.testing import checks as suite
from modelinscale.testing.checks import RowCase, TableCase


def column(kind: ColumnType) -> Column:
    return Column(name="c", type=kind)


FILE = Path(tempfile.mkdtemp()) / "known.csv"
FILE.write_text("id,n\na,1\nb,2\n,\nb,2\n")
atexit.register(shutil.rmtree, FILE.parent)
JANUARY, JUNE = datetime(2024, 1, 1), datetime(2024, 6, 1)
ROWS = {
    "present": RowCase(Present(), column("string"), ("a", "", " "), ()),
    "unique": RowCase(Unique(), column("string"), ("a", "b", ""), ()),
    "between": RowCase(Between(low=0, high=10), column("float"), (0.0, 10.0, 5.5, -0.0), (-0.1, 10.000001, float("inf"), float("-inf"))),
    "between whole": RowCase(Between(low=0.5, high=1.5), column("int"), (1,), (0, 2, 2**62)),
    "between times": RowCase(Between(low=JANUARY, high=JUNE), column("time"), (JANUARY, JUNE), (datetime(1, 1, 1), datetime(9999, 1, 1))),
    "at_least": RowCase(AtLeast(bound=0), column("int"), (0, 1), (-1, -(2**63))),
    "at_most": RowCase(AtMost(bound=120), column("float"), (120.0, float("-inf")), (120.5, float("inf"))),
    "positive": RowCase(Positive(), column("float"), (0.1, float("inf")), (0.0, -0.0, -3.0)),
    "one_of": RowCase(OneOf(values=("EUR", "USD")), column("string"), ("EUR", "USD"), ("eur", "", "EUR ", "🙂")),
    "one_of numbers": RowCase(OneOf(values=(1, 2)), column("int"), (1, 2), (0, 3)),
    "one_of decimals": RowCase(OneOf(values=(1, 2.5)), column("float"), (1.0, 2.5), (1.5,)),
    "one_of flags": RowCase(OneOf(values=(True,)), column("bool"), (True,), (False,)),
    "matches": RowCase(Matches(pattern="[A-Z]{2}[0-9]+"), column("string"), ("DE1", "FR22"), ("de1", "DE", "xDE1", "DE1x", "DE1\n", "")),
    "personal": RowCase(Personal(), column("string"), ("fine", "", "12:30"), ("a@b.co", "call +49 30 1234567", "4111 1111 1111 1111")),
    "personal e-mail only": RowCase(Personal(kinds=("email",)), column("string"), ("fine", "4111 1111 1111 1111"), ("a@b.co",)),
    "refers": RowCase(Refers(file=FILE, column="id"), column("string"), ("a", "b"), ("c", "A", "")),
    "refers to numbers": RowCase(Refers(file=FILE, column="n"), column("int"), (1, 2), (3, -1)),
    "matches any": RowCase(Matches(pattern="a|b"), column("string"), ("a", "b"), ("ab", "ca")),
}


NOW = datetime(2024, 6, 1)
STEADY = tuple(float(i % 97) for i in range(3000))
WORDS = tuple("abcd"[i % 4] for i in range(3000))


def past(check: Any, kind: ColumnType, cells: tuple[Any, ...]) -> Past:
    return Past(NOW, True, check.keeps(suite.seen(check, column(kind), cells), None), (100, 120, 110))


TOGETHER = {
    "rows": TableCase(Rows(min=2, max=4), column("bool"), (False,) * 3, (False,) * 5, Past(NOW)),
    "rows as usual": TableCase(Rows(change=0.2), column("bool"), (False,) * 105, (False,) * 60, Past(NOW, n_rows=(100, 120, 110))),
    "fresh": TableCase(Fresh(within=86400), column("time"), (JANUARY, datetime(2024, 5, 31, 12)), (JANUARY, None), Past(NOW)),
    "fresh without moments": TableCase(Fresh(within=86400), column("time"), (JUNE,), (None,), Past(NOW)),
    "distribution": TableCase(Distribution(), column("float"), STEADY[500:1500], tuple(v + 30 for v in STEADY[:1000]), past(Distribution(), "float", STEADY)),
    "distribution of text": TableCase(Distribution(), column("string"), WORDS[:900], ("a",) * 500 + ("z",) * 400, past(Distribution(), "string", WORDS)),
    "distribution of missing": TableCase(Distribution(), column("int"), (1,) * 400, (1,) * 300 + (None,) * 100, past(Distribution(), "int", (1,) * 2000)),
    "personal": TableCase(Personal(share=0.5), column("string"), ("a@b.co", "x", None), ("a@b.co", "b@c.de", "x"), Past(NOW)),
}


def test_every_check_is_covered() -> None:
    assert sorted({name.split()[0] for name in (*ROWS, *TOGETHER)}) == names("data.checks")


@pytest.mark.parametrize("name", sorted(TOGETHER))
@pytest.mark.parametrize("rule", suite.TABLE_SUITE, ids=lambda rule: rule.__name__)
def test_a_check_of_all_rows_together(name: str, rule: Callable[[TableCase], None]) -> None:
    rule(TOGETHER[name])


@pytest.mark.slow
def test_a_still_distribution_is_hardly_ever_refused_and_a_moved_one_is() -> None:
    chance = np.random.default_rng(5)
    check = Distribution(chance=0.01, moved=0.02)
    kept = check.keeps(suite.seen(check, column("float"), tuple(chance.normal(size=20_000))), None)
    alarms = {0.0: 0, 0.5: 0}
    for shift in alarms:
        for _ in range(200):
            state = check.observe(pl.Series("c", chance.normal(shift, size=1000)))
            alarms[shift] += check.verdict(state, Past(NOW, True, kept)) is not None
    assert alarms[0.0] <= 7  # 200 × 0.01, and three standard deviations
    assert alarms[0.5] == 200


def test_a_small_difference_does_not_matter_however_sure_it_is() -> None:
    chance = np.random.default_rng(5)
    check = Distribution()
    kept = check.keeps(check.observe(pl.Series("c", chance.normal(size=200_000))), None)
    state = check.observe(pl.Series("c", chance.normal(0.05, size=200_000)))
    assert check.verdict(state, Past(NOW, True, kept)) is None
    found = check.but(moved=0.01).verdict(state, Past(NOW, True, kept))
    assert found is not None
    assert "of the rows lie elsewhere than before (200,000 rows), allowed 1%" in found.reason


def test_a_reference_is_the_first_rows_or_the_collect_before() -> None:
    one, two = ({"n": n, "missing": 0, "bins": Bins.of(np.full(n, v)).plain()} for n, v in ((1500, 1.0), (1500, 2.0)))
    assert Distribution().keeps(two, one) == one
    assert Distribution(against="previous").keeps(two, one) == two
    few = {"n": 10, "missing": 0, "bins": Bins.of(np.full(10, 3.0)).plain()}
    assert (Distribution().keeps(two, few) or {})["n"] == 1510
    assert Distribution(against="previous").keeps(few, one) == one


@pytest.mark.parametrize("name", sorted(ROWS))
@pytest.mark.parametrize("rule", suite.ROW_SUITE, ids=lambda rule: rule.__name__)
def test_a_check(name: str, rule: Callable[[RowCase], None]) -> None:
    rule(ROWS[name])


def test_a_value_is_unique_until_it_comes_again() -> None:
    assert Unique().failing(pl.Series(["a", None, "b", "a", None, "a"])).to_list() == [False, False, False, True, False, True]


@pytest.mark.parametrize(
    ("check", "kind"),
    [
        (Between(low=0, high=1), "string"),
        (Positive(), "time"),
        (Positive(), "bool"),
        (Matches(pattern="a"), "int"),
        (OneOf(values=("a",)), "time"),
        (Unique(), "vector"),
    ],
)
def test_a_check_says_what_it_does_not_suit(check: Any, kind: ColumnType) -> None:
    assert not check.suits(Column(name="c", type=kind, width=2 if kind == "vector" else None))


@pytest.mark.parametrize(
    ("check", "kind", "words"),
    [
        (Between(low=0, high=1), "time", "0 cannot bound a column of type time"),
        (AtLeast(bound=JANUARY), "int", "2024-01-01 cannot bound a column of type int"),
        (OneOf(values=(1,)), "string", "1 cannot be in a column of type string. Quote it: '1'"),
        (OneOf(values=(True,)), "int", "True cannot be in a column of type int"),
        (Matches(pattern=r"(?=a)b"), "string", "cannot be run: look-around"),
    ],
)
def test_a_check_objects_to_settings_that_the_column_cannot_meet(check: Any, kind: ColumnType, words: str) -> None:
    assert words in check.objection(column(kind))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("present", (Present(),)),
        (["present", "unique"], (Present(), Unique())),
        ({"between": [0, 10]}, (Between(low=0, high=10),)),
        ({"between": {"low": 0, "high": 10.5}, "present": True}, (Between(low=0, high=10.5), Present())),
        (["present", {"one_of": ["a", "b"]}], (Present(), OneOf(values=("a", "b")))),
        ({"at_least": 0, "at_most": 5}, (AtLeast(bound=0), AtMost(bound=5))),
        ({"at_least": "2024-01-31"}, (AtLeast(bound=datetime(2024, 1, 31)),)),
        ({"at_least": date(2024, 1, 31)}, (AtLeast(bound=datetime(2024, 1, 31)),)),
        ({"at_least": "2024-01-31T12:00:00+02:00"}, (AtLeast(bound=datetime(2024, 1, 31, 10)),)),
        ({"matches": "a+"}, (Matches(pattern="a+"),)),
        ({"type": "between", "low": 0, "high": 1}, (Between(low=0, high=1),)),
        (Present(), (Present(),)),
        ({"at_least": 10**30}, (AtLeast(bound=1e30),)),
        ({"between": [0, 10], "severity": "warn"}, (Between(low=0, high=10, severity="warn"),)),
        ({"at_least": {"bound": 0, "severity": "stop"}}, (AtLeast(bound=0, severity="stop"),)),
        ({"fresh": "2d"}, (Fresh(within=172800),)),
        ({"rows": {"min": 1}}, (Rows(min=1),)),
        ({"rows": [1, 5]}, (Rows(min=1, max=5),)),
        ({"distribution": "previous"}, (Distribution(against="previous"),)),
        ("distribution", (Distribution(),)),
        ("personal", (Personal(),)),
        ({"personal": ["email", "card"]}, (Personal(kinds=("email", "card")),)),
        ({"refers": {"file": "a.csv", "column": "id"}}, (Refers(file=Path("a.csv"), column="id"),)),
    ],
)
def test_checks_as_they_are_written(written: Any, expected: Any) -> None:
    assert parse_checks({"c": written}) == {"c": expected}


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("presnt", r"c: unknown check type 'presnt'. Did you mean 'present'\? Known: at_least"),
        ({"betwen": [0, 1]}, r"c: unknown check type 'betwen'. Did you mean 'between'\?"),
        ("between", r"c: .*between.* two bounds|c\.low: `between` requires this, and it is missing"),
        ({"between": [10, 0]}, r"c: `between` leaves nothing: 10 is above 0\. Write `between: \[0, 10\]`"),
        ({"between": [0, 1, 2]}, "c: `between` needs two bounds, found"),
        ({"between": 5}, "for one bound `at_least: 0`"),
        ({"between": [0, "2024-01-01"]}, "mixes a number and a date: 0, 2024-01-01"),
        ({"between": ["low", 1]}, r"c\.low: a bound is a number or a date, found 'low'"),
        ({"at_least": True}, "a bound is a number or a date, found True"),
        ({"one_of": "EUR"}, r"`one_of` needs a list, found 'EUR'\. Write `one_of: \[EUR, \.\.\.\]`"),
        ({"one_of": []}, "c.values"),
        ({"one_of": ["a", "a"]}, "lists 'a' twice"),
        ({"matches": "["}, "is not a regular expression: unterminated character set"),
        ({"matches": 5}, "`matches` needs a pattern in quotes, found 5"),
        ({"present": False}, "`present: false` checks nothing"),
        ({"present": "very"}, "`present` cannot be 'very'. Write `present: true`"),
        ({"positive": {"strictly": True}}, "c.strictly"),
        (["present", "present"], "c: `present` is there twice"),
        ({"present": True, "severity": "shout"}, "c.severity|severity"),
        ("rows", "`rows` demands nothing"),
        ({"rows": [5, 1]}, "`rows` leaves nothing: 5 is above 1"),
        ("fresh", "within"),
        ("refers", "c.column: `refers` requires this, and it is missing"),
        ({"at_most": {"boud": 3}}, r"c\.boud: `at_most` does not know this key\. Did you mean 'bound'\? Known here: severity, bound\."),
        ({"at_most": {"than": 3}}, r"c\.than: `at_most` does not know this key\. Known here: severity, bound\."),
        ({"present": True, "severity": "shout"}, r"c\.severity: expected 'warn', 'quarantine' or 'stop', found 'shout'\."),
        ({"refers": {"column": "id"}}, "`refers` needs a `file` or a `table`, one of the two"),
        ({"refers": {"column": "id", "file": "a.xls"}}, "cannot tell what kind of file a.xls is"),
        ({"personal": ["face"]}, "kinds"),
        (5, "expected a check's name"),
        (None, "no check is named. Known: at_least"),
        ([[]], "no check is named"),
    ],
)
def test_mistakes_in_checks_say_where_what_and_what_to_do(written: Any, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        parse_checks({"c": written})


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        parse_checks({"a": "presnt", "b": {"between": [2, 1]}, "c": "present", "d": ["unique", {"one_of": "x"}]})
    assert all(words in str(caught.value) for words in ("a: unknown check", "b: `between` leaves nothing", "d: `one_of` needs a list"))
