"""A run does what is not done yet and nothing else, and what it made answers the same everywhere."""

import contextlib
import json
import threading
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from modelinscale.api import Project, init, predict
from modelinscale.core.errors import DataError, StoreError

N = 600
SPEC = "data: {source: rows.csv}\ntarget: y\nmodel: trees\nfeatures: {x: number, shop: category, note: text}\n"


def rows(n: int = N, seed: int = 7) -> pl.DataFrame:
    chance = np.random.default_rng(seed)
    x, shop = chance.normal(size=n), chance.choice(["a", "b", "c"], n)
    good = chance.random(n) < 0.5
    return pl.DataFrame(
        {
            "x": pl.Series(np.where(chance.random(n) < 0.1, np.nan, x.round(3))).fill_nan(None),
            "shop": shop,
            "note": np.where(good, "quick and friendly service today", "slow and late delivery again"),
            "y": np.where(x + (shop == "a") + 2 * good + chance.normal(size=n) > 1, "yes", "no"),
        }
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    rows().write_csv(tmp_path / "rows.csv")
    (tmp_path / "model.yaml").write_text(SPEC)
    return tmp_path


def done_now(project: Path) -> list[str]:
    return [s.step for s in Project(project).run().steps if s.fresh]


def test_the_second_run_does_nothing_and_a_changed_field_redoes_only_what_depends_on_it(project: Path) -> None:
    assert done_now(project) == ["collect", "prepare", "train", "evaluate", "export", "register"]
    assert done_now(project) == []
    (project / "model.yaml").write_text(SPEC + "evaluate: {main: pr_auc}\n")
    assert [s.step for s in Project(project).plan().steps if not s.done] == ["evaluate", "export", "register"]
    assert done_now(project) == ["evaluate", "export", "register"]
    (project / "model.yaml").write_text(SPEC + "serve: {port: 9000}\n")
    assert done_now(project) == []


def test_a_plan_says_what_changed_and_changes_nothing(project: Path) -> None:
    assert [s.why for s in Project(project).plan().steps][:2] == ["not done yet", "after collect"]
    assert not (project / ".mis").exists()
    Project(project).run(until="train")
    (project / "model.yaml").write_text(SPEC.replace("model: trees", "model: {type: trees, leaves: 7}"))
    train = Project(project).plan().steps[2]
    assert not train.done
    assert "model.leaves" in train.why


def test_new_rows_make_a_new_version_of_table_and_model(project: Path) -> None:
    first = Project(project).run()
    with (project / "rows.csv").open("a") as file:
        file.write(rows(300, seed=8).write_csv(include_header=False))
    second = Project(project).run()
    assert second.collected["n_rows"] == N + 300
    assert second.collected["version"] > first.collected["version"]
    assert second.version == "2"
    assert Project(project).package_folder("1").is_dir()


def test_the_same_file_gives_the_same_model_to_the_last_bit(project: Path, tmp_path: Path) -> None:
    other = tmp_path / "again"
    other.mkdir()
    for name in ("rows.csv", "model.yaml"):
        (other / name).write_bytes((project / name).read_bytes())
    graphs = [(Project(place).run().package or Path()) / "model.onnx" for place in (project, other)]
    assert graphs[0].read_bytes() == graphs[1].read_bytes()


@pytest.mark.parametrize(
    "family", ["linear", "trees", pytest.param("mlp", marks=pytest.mark.slow), pytest.param("{type: ensemble, shares: [1, 1]}", marks=pytest.mark.slow)]
)
def test_training_code_file_scoring_and_package_answer_alike(family: str, project: Path) -> None:
    from modelinscale.core.decision import Decision
    from modelinscale.encode import encode
    from modelinscale.pipeline import learned as of

    (project / "model.yaml").write_text(SPEC.replace("model: trees", f"model: {family}"))
    Project(project).run()
    context = of(Project(project).spec, project)
    learned = context.learned("model")
    scores = learned.model.predict(learned.weights, encode(context.features, context.states, context.rows.head(N), learned.model.form))
    decided, probability = Decision.model_validate(context.facts("evaluate")["decision"]).answer(scores, context.task)
    assert probability is not None
    labels = np.array(context.task.labels)[decided.astype(int)]

    predict(str(project / "rows.csv"), out=project / "o.csv", file=project)
    scored = pl.read_csv(project / "o.csv")
    assert (scored["prediction"].to_numpy() == labels).all()
    np.testing.assert_allclose(scored["probability_yes"].to_numpy(), probability[:, 1], atol=1e-4 if family == "mlp" else 1e-5)

    answers = Project(project).package().predict(rows().drop("y").to_dicts())
    assert [a["prediction"] for a in answers] == labels.tolist()
    np.testing.assert_allclose([a["probabilities"]["yes"] for a in answers], probability[:, 1], atol=1e-4 if family == "mlp" else 1e-5)


@pytest.mark.slow  # the choice itself is tried beside the training, without a project around it
def test_auto_tries_three_families_and_keeps_the_best(project: Path) -> None:
    (project / "model.yaml").write_text(SPEC.replace("model: trees", "model: auto") + "train: {budget: 20s}\n")
    outcome = Project(project).run(until="train")
    trials = outcome.steps[2].facts["trials"]
    tried = dict.fromkeys(t["model"]["type"] for t in trials if t["model"]["type"] != "ensemble")  # where there is time, once more in folds
    assert list(tried) == ["linear", "trees", "mlp"]
    losses = {t["model"]["type"]: t["loss"] for t in trials if t["loss"] is not None}
    assert outcome.family == min(losses, key=lambda name: losses[name])


def test_regression_and_many_classes_go_the_whole_way(tmp_path: Path) -> None:
    chance = np.random.default_rng(3)
    x = chance.normal(size=(500, 3))
    table = pl.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2]})
    for name, target in {"price": x[:, 0] * 3 + x[:, 1] + 10, "kind": np.array(["red", "green", "blue"])[x.argmax(1)]}.items():
        folder = tmp_path / name
        folder.mkdir()
        table.with_columns(pl.Series(name, target)).write_parquet(folder / "rows.parquet")
        init([str(folder / "rows.parquet")], target=name, out=folder, model="trees")
        outcome = Project(folder).run()
        main = next(iter(outcome.metrics.values()))
        assert outcome.version == "1"
        assert main["value"] is not None
        assert main["value"] < 1.5 if name == "price" else main["value"] > 0.8


def test_promotion_and_rollback_move_the_champion(project: Path) -> None:
    Project(project).run()
    (project / "model.yaml").write_text(SPEC.replace("model: trees", "model: {type: trees, leaves: 2, rounds: 3}"))
    Project(project).run()
    opened = Project(project)
    assert opened.promote("2")["champion"] == 2
    assert opened.package().manifest.version == 2
    assert opened.rollback()["champion"] == 1
    assert Project(project).package().manifest.version == 1


def test_two_runs_at_once_give_one_model(project: Path) -> None:
    outcomes = []
    threads = [threading.Thread(target=lambda: outcomes.append(Project(project).run())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [o.version for o in outcomes] == ["1", "1"]
    assert sum(o.fresh for o in outcomes) == 1


def test_a_run_that_may_not_wait_names_the_holder(project: Path) -> None:
    from modelinscale.pipeline import run

    spec = Project(project).spec
    with spec.store_at(project).lock("lock"), pytest.raises(StoreError, match=r"is in use by process \d+"):
        run(spec, project, wait_s=0.0)


def test_a_table_without_rows_left_says_to_look_into_quarantine(project: Path) -> None:
    (project / "model.yaml").write_text("data: {source: rows.csv, checks: {x: {between: [100, 200]}}}\ntarget: y\n")
    with pytest.raises(DataError, match="break the contract"):
        Project(project).run()


def test_the_card_and_the_lineage_say_where_the_model_comes_from(project: Path) -> None:
    outcome = Project(project).run()
    card = Project(project).card()
    manifest = Project(project).package().manifest
    assert outcome.collected["table"] in card
    assert manifest.lineage.table_version == outcome.collected["version"]
    assert manifest.lineage.n_rows["train"] > 0
    assert json.loads((outcome.package / "golden.json").read_text())["rows"] if outcome.package else False


def test_a_table_made_again_under_the_same_name_is_learned_from_anew(project: Path) -> None:
    Project(project).run()
    import shutil

    shutil.rmtree(project / ".mis" / "lake")
    rows(300, seed=9).write_csv(project / "rows.csv")
    again = Project(project).run()
    assert again.collected["n_rows"] == 300
    assert [s.step for s in again.steps if s.fresh] == ["collect", "prepare", "train", "evaluate", "export", "register"]
    assert again.version == "2"


@pytest.mark.parametrize(("gone", "redone"), [("lake", "collect"), ("packages", "register"), ("track", "register")])
def test_what_was_removed_by_hand_is_made_again(gone: str, redone: str, project: Path) -> None:
    import shutil

    first = Project(project).run()
    shutil.rmtree(project / ".mis" / gone)
    assert [s.step for s in Project(project).plan().steps if not s.done][:1] == [redone]
    again = Project(project).run()
    assert [s.step for s in again.steps if s.fresh] == [redone]
    assert again.collected["n_rows"] == N
    assert Project(project).package().manifest.identity == (first.steps[4].identity)
    assert done_now(project) == []


def test_columns_are_looked_for_also_when_the_table_is_there_already(project: Path) -> None:
    from modelinscale.core.errors import SpecError

    Project(project).run(until="collect")
    for more, expected in {"evaluate: {slices: shopp}": "'shopp'", "train: {weight: w}": "'w'"}.items():
        (project / "model.yaml").write_text(SPEC + more + "\n")
        with pytest.raises(SpecError, match=expected):
            Project(project).run()
    (project / "model.yaml").write_text(SPEC.replace("rows.csv}", "rows.csv, leave_out: nott}"))
    with pytest.raises(SpecError, match="'nott'"):
        Project(project).run()


def test_a_second_run_tells_no_old_news(project: Path) -> None:
    assert Project(project).run().plain()["table"]["n_added"] == N
    again = Project(project).run()
    assert again.plain()["table"]["n_added"] == 0
    assert not [note for note in again.notes if "champion" in note]


def test_check_refuses_what_a_run_would_refuse(project: Path) -> None:
    from modelinscale.core.errors import MisError

    for text in (
        SPEC.replace("rows.csv}", "rows.csv, checks: {x: {matches: 'a+'}}}"),
        SPEC.replace("rows.csv}", "rows.csv, split: {type: time}}"),
        SPEC.replace("rows.csv}", "rows.csv, split: {type: column, column: shop}}"),
        SPEC + "train: {weight: shop}\n",
    ):
        (project / "model.yaml").write_text(text)
        with pytest.raises(MisError):
            Project(project).check()


@pytest.mark.parametrize("after", ["", *(pytest.param(step, marks=pytest.mark.slow) for step in ("collect", "train", "evaluate"))])
def test_a_full_disk_is_told_wherever_it_fills_and_the_next_run_goes_on(after: str, project: Path, small_disk: Path) -> None:
    (project / "model.yaml").write_text(SPEC + f"store: {small_disk}\n")
    if after:
        Project(project).run(until=after)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 512)
    with pytest.raises(StoreError, match="No space left"):
        Project(project).run()
    filler.unlink()
    assert Project(project).run().version == "1"


def test_a_store_that_may_not_be_written_is_told(project: Path, read_only: Path) -> None:
    (project / "model.yaml").write_text(SPEC + f"store: {read_only}\n")
    with pytest.raises(StoreError, match=r"(?i)read-only"):
        Project(project).run()
