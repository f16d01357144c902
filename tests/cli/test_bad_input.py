"""What a user can get wrong, from the command line down: each case says what, where, what was expected and what to do; nothing shows a traceback."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from modelinscale.cli import main

Mis = Callable[..., tuple[int, str, str]]
ROWS = "\n".join(f"{i},{i % 7},{'ab'[i % 2]},{(i * 37) % 101},{'yes' if (i * 37) % 101 > 50 else 'no'}" for i in range(300))
HEADER = "id,x,shop,z,y"
SPEC = "data: {source: rows.csv}\ntarget: y\nmodel: linear\nfeatures: {x: number, shop: category, z: number}\n"


@pytest.fixture
def mis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Mis:
    """Runs a command line in a folder of its own that holds rows.csv; returns exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text(f"{HEADER}\n{ROWS}\n")

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["mis", *words])
        with pytest.raises(SystemExit) as stopped:
            main()
        said = capsys.readouterr()
        return int(stopped.value.code or 0), said.out, said.err

    return call


def spec(text: str) -> None:
    Path("model.yaml").write_text(text)


INIT = {
    "a file that is not there": ("nothing.csv", "y", None, r"nothing\.csv"),
    "an empty file": ("rows.csv", "y", b"", r"empty|no rows"),
    "a header alone": ("rows.csv", "y", b"a,y\n", r"no rows"),
    "a folder": (".", "y", None, r"cannot be told from its suffix|folder"),
    "another suffix": ("rows.xlsx", "y", b"x", r"cannot be told from its suffix"),
    "no such target": ("rows.csv", "yy", None, r"there is no column 'yy' to predict\. Did you mean 'y'"),
    "one class": ("rows.csv", "y", b"x,y\n" + b"".join(b"%d,a\n" % i for i in range(60)), r"one|only|same"),
    "a target without values": ("rows.csv", "y", b"x,y\n" + b"".join(b"%d,\n" % i for i in range(60)), r"no row has a value of 'y'"),
    "a constant number as target": ("rows.csv", "y", b"x,y\n" + b"".join(b"%d,3.5\n" % i for i in range(60)), r"one|only|same|constant"),
    "one row": ("rows.csv", "y", b"x,y\n1,a\n", r"one|only|same|rows"),
    "a target column alone": ("rows.csv", "y", b"y\n" + b"".join(b"%d\n" % (i % 2) for i in range(60)), r"no column is left"),
    "a moment as target": ("rows.csv", "y", b"x,y\n" + b"".join(b"%d,2024-01-%02d\n" % (i, i % 28 + 1) for i in range(60)), r"moments"),
    "a picture": ("rows.csv", "y", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00" * 50, r"."),
    "a truncated archive": ("rows.csv.gz", "y", gzip.compress((HEADER + "\n" + ROWS).encode())[:-300], r"rows\.csv\.gz.*(cut|trunc|end|damaged)"),
    "a Parquet file that is none": ("rows.parquet", "y", b"PAR1 but not really", r"rows\.parquet"),
    "JSON lines that are none": ("rows.jsonl", "y", b"{not json\n" * 10, r"rows\.jsonl"),
}


CHECKED = {
    "a file that is not there": ("{file: shopps.csv, column: id}", r"data\.checks: shop: there is no file .*shopps\.csv.*Did you mean 'shops\.csv'"),
    "a column that is not there": (
        "{file: shops.csv, column: idd}",
        r"data\.checks: shop: `refers`: .*shops\.csv has no column 'idd'\. Did you mean 'id'\?.*It has: id, n",
    ),
    "a table that is not there": ("{table: lake/shops, column: id}", r"data\.checks: shop: .*shops"),
}


@pytest.mark.parametrize("name", CHECKED)
def test_check_refuses_what_a_demand_refers_to_and_is_not_there(name: str, mis: Mis) -> None:
    import re

    Path("shops.csv").write_text("id,n\na,1\nb,2\n")
    refers, expected = CHECKED[name]
    spec(SPEC.replace("rows.csv}", f"rows.csv, checks: {{shop: {{refers: {refers}}}}}}}"))
    code, _, err = mis("check")
    assert code == 2
    assert re.search(expected, err, re.DOTALL), err
    code, _, err = mis("collect", "--quiet")
    assert code in (1, 2), err
    assert "Traceback" not in err
    assert "did not foresee" not in err
    spec(SPEC.replace("rows.csv}", "rows.csv, checks: {shop: {refers: {file: shops.csv, column: id}}}}"))
    assert mis("check")[0] == 0


def test_messages_name_the_file_that_was_given(mis: Mis) -> None:
    Path("t.yaml").write_text(SPEC)
    code, out, err = mis("check", "-f", "t.yaml")
    assert (code, out.splitlines()[-1], err) == (0, "t.yaml is in order.", "")
    for wrong in (SPEC.replace("target: y", "target: yy"), SPEC.replace("shop: category", "shop: number"), SPEC):
        Path("t.yaml").write_text(wrong)
        said = mis("forget", "-f", "t.yaml", "--key", "1")[2] if wrong == SPEC else mis("check", "-f", "t.yaml")[2]
        assert said.startswith("error: ")
        assert "model.yaml" not in said


def test_a_contract_that_is_not_there_is_told_by_what_named_it(mis: Mis) -> None:
    code, _, err = mis("contract", "import", "nope.yaml")
    assert (code, err.splitlines()) == (2, ["error: the contract nope.yaml cannot be read: No such file or directory.", "  Check the path."])
    spec(SPEC.replace("rows.csv}", "rows.csv, contract: nope.yaml}"))
    assert "Check the path under `data.contract`." in mis("check")[2]


def test_rows_that_dedupe_took_away_are_told(mis: Mis) -> None:
    Path("rows.csv").write_text("x,y\n" + "".join(f"{i % 16},{'yes' if i % 16 > 7 else 'no'}\n" for i in range(1201)))
    spec('data: {source: rows.csv, clean: {"*": dedupe}}\ntarget: y\nmodel: linear\n')
    code, out, err = mis("collect")
    assert code == 0, err
    assert out == "table version 1: 16 rows, 1,185 equal to earlier ones taken away (`dedupe`)\n"
    assert "16 rows, 1,185 equal to earlier ones taken away" in err
    assert "taken away" not in mis("collect")[1]


@pytest.mark.parametrize("name", INIT)
def test_data_that_cannot_be_used_is_refused_before_anything_is_written(name: str, mis: Mis) -> None:
    data, target, content, expected = INIT[name]
    if content is not None:
        Path(data).write_bytes(content)
    code, _, err = mis("init", data, "--target", target)
    assert code in (1, 2)
    assert err.startswith("error: ")
    import re

    assert re.search(expected, err, re.DOTALL), err
    assert not Path("model.yaml").exists()


def test_an_error_in_json_is_one_object(mis: Mis) -> None:
    code, out, _ = mis("init", "nothing.csv", "--target", "y", "--json")
    found = json.loads(out)["error"]
    assert code != 0
    assert set(found) == {"type", "message", "fix"}
    assert "nothing.csv" in found["message"]


def test_a_model_yaml_is_not_written_over_unless_forced(mis: Mis) -> None:
    spec("mine")
    code, _, err = mis("init", "rows.csv", "--target", "y")
    assert code == 2
    assert "is there already" in err
    assert Path("model.yaml").read_text() == "mine"
    assert mis("init", "rows.csv", "--target", "y", "--force")[0] == 0


SPECS = {
    "columns that are not there": (
        "data: {source: rows.csv, key: idd, time: when}\ntarget: y\nfeatures: {xx: number}\nevaluate: {slices: shopp}\n",
        r"data\.key: 'idd'.*data\.time: 'when'.*features: 'xx'.*evaluate\.slices: 'shopp'.*Columns: id, x, shop, z, y",
    ),
    "a target that is not there": (SPEC.replace("target: y", "target: yy"), r"target: 'yy'.*Did you mean 'y'"),
    "a check on a column that is not there": (SPEC.replace("rows.csv}", "rows.csv, checks: {xx: present}}"), r"'xx'"),
    "a feature that cannot read its column": (SPEC.replace("x: number", "x: vector"), r"features\.x: vector cannot read a column of type int"),
    "a moment of words": (SPEC.replace("shop: category", "shop: moment"), r"features\.shop: moment cannot read a column of type string"),
    "numbers from words": (SPEC.replace("shop: category", "shop: number"), r"features\.shop: number cannot read a column of type string"),
    "a contract nobody fulfils": (SPEC.replace("rows.csv}", "rows.csv, checks: {x: {between: [100, 200]}}}"), r"break the contract.*x.*between 100 and 200"),
    "a check for words on numbers": (SPEC.replace("rows.csv}", "rows.csv, checks: {x: {matches: 'a+'}}}"), r"matches"),
    "a key that is not unique": (SPEC.replace("rows.csv}", "rows.csv, key: x}"), r"break the contract.*x"),
    "a split in time without one": (SPEC.replace("rows.csv}", "rows.csv, split: {type: time}}"), r"time"),
    "a split in time by words": (SPEC.replace("rows.csv}", "rows.csv, time: shop, split: {type: time}}"), r"shop"),
    "a column that does not say the part": (SPEC.replace("rows.csv}", "rows.csv, split: {type: column, column: shop}}"), r"shop"),
    "a task the target cannot be": (SPEC + "task: regression\n", r"regression"),
    "a class that does not occur": (SPEC + "positive: maybe\n", r"maybe"),
    "a weight of words": (SPEC + "train: {weight: shop}\n", r"shop"),
    "a class weight for nobody": (SPEC + "train: {class_weight: {yess: 2}}\n", r"yess"),
    "a metric of another task": (SPEC + "evaluate: {main: rmse}\n", r"rmse.*binary"),
    "a cost in words": (SPEC + "evaluate: {cost: {false_negative: shop}}\n", r"shop"),
    "a source that went away": (SPEC.replace("rows.csv", "gone.csv"), r"gone\.csv"),
    "a pattern that matches nothing": (SPEC.replace("rows.csv", "gone-*.csv"), r"gone-\*\.csv"),
}


@pytest.mark.parametrize("name", SPECS)
def test_a_run_that_cannot_work_says_why_and_registers_nothing(name: str, mis: Mis) -> None:
    import re

    text, expected = SPECS[name]
    spec(text)
    code, _, err = mis("run", "--quiet")
    assert code in (1, 2), err
    assert err.startswith("error: ")
    assert re.search(expected, err, re.DOTALL), err
    assert not Path(".mis/packages").exists()


def test_rows_of_the_wrong_length_and_unreadable_cells_go_to_quarantine(mis: Mis) -> None:
    with Path("rows.csv").open("a") as file:
        file.write("301,1,a,5\n302,1,a,5,yes,extra,more\n303,oops,b,7,no\n")
    spec(SPEC)
    assert mis("run", "--quiet")[0] == 0
    code, out, _ = mis("show", "quarantine", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["n_rows"] == 3
    assert {r["column"] for r in found["reasons"]} == {"", "x"}
    assert any(f["value"] == "oops" for f in found["faults"])


def test_rows_without_a_label_stay_in_the_table_and_are_not_learned_from(mis: Mis) -> None:
    with Path("rows.csv").open("a") as file:
        file.write("".join(f"{i},1,a,5,\n" for i in range(400, 420)))
    spec(SPEC)
    code, out, _ = mis("run", "--json")
    assert code == 0
    assert json.loads(out)["table"]["n_rows"] == 320


@pytest.mark.slow
def test_a_hundred_thousand_categories_are_learned_from(mis: Mis) -> None:
    Path("rows.csv").write_text("c,x,y\n" + "".join(f"word{i % 100_000},{i % 13},{int(i % 13 > 6)}\n" for i in range(120_000)))
    spec("data: {source: rows.csv}\ntarget: y\nmodel: trees\nfeatures: {c: category, x: number}\n")
    code, out, err = mis("run", "--json")
    assert code == 0, err
    assert json.loads(out)["metrics"]["roc_auc"]["value"] > 0.99


def test_a_file_that_shrank_since_the_last_collect_is_told(mis: Mis) -> None:
    spec(SPEC)
    assert mis("collect", "--quiet")[0] == 0
    Path("rows.csv").write_text(f"{HEADER}\n" + "\n".join(ROWS.splitlines()[:50]) + "\n")
    code, _, err = mis("collect", "--quiet")
    assert code == 1
    assert "rows.csv" in err
    assert json.loads(mis("show", "lake", "--json")[1])["n_rows"] == 300


def test_a_random_split_of_rows_that_repeat_is_refused_and_when_forced_its_flattery_is_told(mis: Mis) -> None:
    lines = "\n".join(f"{i % 60},{(i % 60) * 7 % 11},{(i % 60) * 37 % 101},{'yes' if (i % 60) % 3 else 'no'}" for i in range(600))
    Path("rows.csv").write_text(f"x,w,z,y\n{lines}\n")
    text = "data: {source: rows.csv, split: {type: random%s}}\ntarget: y\nmodel: trees\nfeatures: {x: number, w: number, z: number}\n"
    spec(text % "")
    code, _, err = mis("run", "--quiet")
    assert code == 1
    assert "equal row" in err
    assert "force: true" in err
    spec(text % ", force: true" + "evaluate: {slices: w}\n")
    code, out, err = mis("run", "--json")
    assert code == 0, err
    assert any("forced although it leaks" in note and "apart" in note for note in json.loads(out)["notes"])


@pytest.fixture
def ran(mis: Mis) -> Mis:
    spec(SPEC)
    code, _, err = mis("run", "--quiet")
    assert code == 0, err
    return mis


def test_what_is_asked_of_a_model_wrongly_is_refused(ran: Mis) -> None:
    Path("short.csv").write_text("x,shop\n1,a\n")
    Path("strange").mkdir()
    cases = {
        ("predict", "short.csv", "--out", "o.csv"): r"z",
        ("predict", "gone.csv", "--out", "o.csv"): r"gone\.csv",
        ("predict", "rows.csv", "--out", "o.xlsx"): r"cannot be written as '\.xlsx'.*\.parquet",
        ("predict", "rows.csv", "--out", "o.csv", "--version", "9"): r"9",
        ("predict", "rows.csv", "--out", "o.csv", "--package", "strange"): r"strange is not a package",
        ("promote", "7"): r"7",
        ("rollback",): r"before|champion",
        ("serve", "--version", "nobody"): r"nobody",
        ("show", "everything"): r"everything",
    }
    import re

    for words, expected in cases.items():
        code, _, err = ran(*words)
        assert code in (1, 2), words
        assert err.startswith("error: "), err
        assert re.search(expected, err, re.DOTALL), err
    assert not Path("o.csv").exists()


def test_a_package_that_was_altered_is_not_opened(ran: Mis) -> None:
    model = next(Path(".mis/packages").rglob("model.onnx"))
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    code, _, err = ran("predict", "rows.csv", "--out", "o.csv")
    assert code == 1
    assert "was altered" in err


def test_strict_prediction_stops_at_a_cell_that_cannot_be_read(ran: Mis) -> None:
    Path("odd.csv").write_text("x,shop,z\n1,a,2\nmany,a,2\n")
    code, _, err = ran("predict", "odd.csv", "--out", "o.csv", "--strict")
    assert code == 1
    assert "many" in err
    assert not Path("o.csv").exists()
    assert ran("predict", "odd.csv", "--out", "o.csv", "--quiet")[0] == 0
    assert len(Path("o.csv").read_text().splitlines()) == 3
