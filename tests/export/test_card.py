from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from modelinscale.core.decision import Decision
from modelinscale.core.encoded import InputType
from modelinscale.core.schema import Column
from modelinscale.core.task import Task
from modelinscale.export import Story
from modelinscale.export._card import Inside, card
from modelinscale.package import InputColumn, Lineage, Manifest, Parity

GOLDEN = Path(__file__).parent.parent / "golden" / "card.md"


def column(name: str, type: Any, input: InputType, *, required: bool = False) -> InputColumn:
    return InputColumn(column=Column(name=name, type=type), input=input, required=required)


MANIFEST = Manifest(
    name="churn",
    identity="abcdef0123456789",
    created="2024-05-01T00:00:00+00:00",
    family="trees",
    main="roc_auc",
    task=Task(type="binary", target="left", labels=("no", "yes")),
    inputs=(column("age", "int", "float64", required=True), column("city", "string", "string"), column("a|b`c", "float", "float64")),
    lineage=Lineage(table="t1", table_version=41, data="d1", spec="s1", code="0.1.0", seed=7, n_rows={"train": 6000, "valid": 2000, "test": 2000}),
    parity=Parity(n_rows=2000, n_odd=462, n_edges=894, n_edges_left_out=12, largest_difference=1.1e-7, bound=1e-5),
)


def estimate(value: float | None, low: float | None = None, high: float | None = None) -> dict[str, float | None]:
    return {"value": value, "low": low, "high": high}


STORY = Story(
    purpose="Finds customers who are about to leave.",
    split="by a row's place in the table",
    n_collected=10_345,
    n_quarantined=345,
    quarantine={"age: not a whole number": 300, "the whole row: 4 cells, expected 3 <b>": 45},
    left_out={"id": "an identifier"},
    evaluation={
        "main": "roc_auc",
        "n_rows": 2000,
        "confidence": 0.95,
        "metrics": {"roc_auc": estimate(0.9123, 0.9, 0.924), "log_loss": estimate(0.31), "f1": estimate(None)},
        "baselines": {"constant": {"roc_auc": estimate(0.5), "log_loss": estimate(0.61)}, "linear": {"roc_auc": estimate(0.88), "log_loss": estimate(0.35)}},
        "differences": {"linear": {"roc_auc": estimate(0.0323, 0.02, 0.04)}},
        "slices": [
            {"column": "city", "value": "O|slo", "n_rows": 120, "main": estimate(0.8, 0.75, 0.85), "worse": True},
            {"column": "city", "value": "Paris", "n_rows": 900, "main": estimate(0.92, 0.9, 0.94), "worse": False},
        ],
        "confusion": {"labels": ["no", "yes"], "counts": [[1500, 100], [80, 320]]},
        "reliability": [{"n_rows": 1000, "said": 0.05, "came": 0.051, "low": 0.04, "high": 0.065}],
        "thresholds": [{"threshold": 0.3, "called": 0.25, "precision": 0.7, "recall": None, "cost": 0.12}],
        "cost": {"model": estimate(0.09, 0.08, 0.1), "always_no": 0.2, "always_yes": 0.8, "saving": estimate(0.11, 0.1, 0.12)},
        "notes": ["f1 is not defined on these rows"],
    },
    trials=[
        {"model": "linear", "loss": 0.35, "note": ""},
        {"model": "trees", "loss": 0.31, "note": ""},
        {"model": "mlp", "loss": None, "note": "the budget was spent"},
    ],
    notes=["two columns are nearly the same"],
)
DECISION = Decision(calibration="temperature", temperature=1.2, threshold=0.31, because="threshold 0.31: least cost")
INSIDE = Inside(DECISION, {"age": 0.75, "city": 0.25, "a|b`c": 0.0}, 183_000)


def test_the_card_reads_as_it_is_kept() -> None:
    found = card(MANIFEST, STORY, INSIDE)
    assert found == GOLDEN.read_text(encoding="utf-8"), "if the change is meant, look at the card and keep it: write it to tests/golden/card.md"


def test_a_linear_model_is_not_held_against_itself() -> None:
    found = card(MANIFEST.but(family="linear"), STORY, INSIDE)
    assert "constant baseline |" in found
    assert "linear baseline" not in found
    assert "Against the linear baseline" not in found


def test_every_table_of_the_card_has_rows_of_one_width() -> None:
    lines = card(MANIFEST, STORY, INSIDE).splitlines()
    for above, below in pairwise(lines):
        if above.startswith("|") and below.startswith("|"):
            assert above.replace("\\|", "").count("|") == below.replace("\\|", "").count("|")


def test_foreign_words_cannot_write_the_card() -> None:
    hostile = "x](http://evil) | # <script> `rm` **bold**\n# headline"
    story = Story(quarantine={hostile: 1}, n_quarantined=1, n_collected=2, left_out={hostile: hostile}, notes=[hostile], split="s")
    lines = card(MANIFEST, story, INSIDE).splitlines()
    assert not [line for line in lines if line.startswith("# ") and "churn" not in line]
    assert not [line for line in lines if "<script>" in line.replace(f"`{hostile}`", "") and "`" not in line]


@pytest.mark.parametrize("type", ["multiclass", "regression"])
def test_a_card_without_an_evaluation_is_still_a_card(type: Any) -> None:
    labels = ("a", "b", "c") if type == "multiclass" else ()
    manifest = MANIFEST.but(task={"type": type, "target": "y", "labels": labels}, main="")
    found = card(manifest, Story(), Inside(Decision(), {}, 10))
    assert found.startswith("# churn\n")
    assert "## How good" not in found
    assert "## Lineage" in found
    assert "None" not in found
    assert "nan" not in found
