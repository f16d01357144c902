"""Access: a role is shown the columns that its rules name and no cell of others, and what was refused is in the audit log."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from modelinscale.api import Project
from modelinscale.core.access import Access, Columns, Role, decide
from modelinscale.core.errors import SpecError, UsageError
from modelinscale.core.secrets import MASK
from modelinscale.spec import loads
from modelinscale.track.audit import actor

NAMES = some.lists(some.sampled_from("abcdef"), unique=True).map(tuple)
SPEC = "data: {source: rows.csv, columns: {card: int}, checks: {x: {between: [0, 50]}}}\ntarget: y\n"
ME = actor().partition("@")[0]


@given(columns=NAMES, deny=NAMES, mask=NAMES, only=some.none() | NAMES)
def test_every_column_is_shown_masked_or_hidden_and_what_is_denied_is_never_shown(
    columns: tuple[str, ...], deny: tuple[str, ...], mask: tuple[str, ...], only: tuple[str, ...] | None
) -> None:
    mask, only = tuple(m for m in mask if m not in deny), None if only is None else tuple(o for o in only if o not in deny)
    access = Access(roles={"analyst": Role(columns=Columns(deny=deny, mask=mask, only=only))})
    found = decide(access, "analyst", columns)
    assert sorted((*found.shown, *found.masked, *found.hidden)) == sorted(columns)
    assert not set(deny) & {*found.shown, *found.masked}
    assert set(found.masked) <= set(mask)
    if only is not None:
        assert set(found.shown) <= set(only)


def test_without_roles_everything_is_shown_and_with_roles_nobody_without_one_sees_a_cell() -> None:
    assert decide(Access(), None, ["a"]).shown == ("a",)
    roles = Access(roles={"admin": Role()}, users={"anna": "admin"})
    assert decide(roles, roles.role_of("anna"), ["a"]).shown == ("a",)
    assert decide(roles, roles.role_of("ben"), ["a"]).hidden == ("a",)
    with pytest.raises(UsageError, match="Did you mean 'admin'"):
        decide(roles, "admim", ["a"])


def test_cells_are_shown_masked_or_not_at_all() -> None:
    access = Access(roles={"analyst": Role(columns=Columns(deny=("card",), mask=("mail",)))})
    may = decide(access, "analyst", ["card", "mail", "x"])
    assert [may.cell(n, v) for n, v in (("card", 4111), ("mail", "a@b.org"), ("x", 3), ("x", None), ("other", 1))] == [MASK, "***@b.org", 3, None, MASK]


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("{default: analyst}", "names the role 'analyst', which is not there"),
        ("{roles: {analyst: {columns: {deny: [a], mask: [a]}}}}", "shown and denied at once"),
        ("{roles: {analyst: {colums: {}}}}", "Did you mean 'columns'"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(written: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        loads(f"{SPEC}access: {written}\n")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    lines = [f"a{i}@mail.org,{4111 + i},{i % 60},{'yes' if i % 2 else 'no'}" for i in range(120)]
    (tmp_path / "rows.csv").write_text("mail,card,x,y\n" + "\n".join(lines) + "\nb@mail.org,4x7,3,yes\n" + "broken@mail.org,5\n")
    (tmp_path / "model.yaml").write_text(SPEC)
    Project(tmp_path).run(until="collect")
    return tmp_path


def test_rows_and_quarantine_are_shown_by_the_rules_of_the_users_role(project: Path) -> None:
    assert Project(project).describe("rows").facts["rows"][-1]["mail"].endswith("@mail.org")
    before = {line["value"] for line in Project(project).describe("quarantine").facts["faults"]}
    assert "4x7" in before
    rules = f"access: {{roles: {{analyst: {{columns: {{deny: [card], mask: [mail]}}}}}}, users: {{{ME}: analyst}}}}\n"
    (project / "model.yaml").write_text(SPEC + rules)
    found = Project(project).describe("rows")
    assert found.facts["hidden"] == ["card"]
    assert {(tuple(row), row["mail"]) for row in found.facts["rows"]} == {(("mail", "x", "y"), "***@mail.org")}
    assert "not shown (role analyst): card" in found.notes
    values = {(line["column"], line["value"]) for line in Project(project).describe("quarantine").facts["faults"]}
    assert ("card", MASK) in values
    assert ("", MASK) in values
    assert {value for column, value in values if column == "x"} <= before
    refused = [(e.object, e.facts["columns"]) for e in Project(project).audit.entries() if e.action == "refuse"]
    assert [columns for _, columns in refused] == [["card"], ["card"]]


def test_who_has_no_role_sees_no_cell(project: Path) -> None:
    (project / "model.yaml").write_text(f"{SPEC}access: {{roles: {{admin: {{}}}}, users: {{somebody-else: admin}}}}\n")
    assert Project(project).describe("rows").facts["rows"] in ([], [{}] * 20)
    assert {line["value"] for line in Project(project).describe("quarantine").facts["faults"]} == {MASK}


def test_the_report_of_a_collect_is_shown_by_the_rules_as_well(project: Path) -> None:
    open_to_all = str(Project(project).describe("collect"))
    assert "'yes'" in open_to_all
    (project / "model.yaml").write_text(f"{SPEC}access: {{roles: {{analyst: {{columns: {{deny: [y, card], mask: [mail]}}}}}}, users: {{{ME}: analyst}}}}\n")
    found = Project(project).describe("collect")
    assert "'yes'" not in str(found)
    assert "4x7" not in str(found)
    assert "broken@mail" not in str(found)
    assert found.facts["report"]["columns"]["x"]["hidden"] is False
    assert next(e for e in reversed(list(Project(project).audit.entries()))).facts["columns"] == ["card", "y"]


@pytest.mark.parametrize("rule", ["{deny: [Card]}", "{only: [x, carde]}", "{mask: [mial]}"])
def test_a_rule_for_a_column_that_is_not_there_is_refused_because_it_protects_nothing(project: Path, rule: str) -> None:
    (project / "model.yaml").write_text(f"{SPEC}access: {{roles: {{analyst: {{columns: {rule}}}}}, default: analyst}}\n")
    with pytest.raises(SpecError, match=r"access\.roles\.analyst: '(Card|carde|mial)' .*Did you mean '(card|mail)'"):
        Project(project).describe("rows")
    with (project / "rows.csv").open("a") as file:
        file.write("c@mail.org,5000,3,yes\n")
    with pytest.raises(SpecError, match=r"access\.roles\.analyst: "):
        Project(project).run(until="collect")


def test_nobody_becomes_another_user_by_their_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "anna")
    assert actor().partition("@")[0] == ME != "anna"
