"""The report of an evaluation is one file that needs nothing else, and says what the facts say."""

import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from modelinscale.core.decision import Decision
from modelinscale.core.seeds import generator
from modelinscale.core.task import Task
from modelinscale.evaluate import Evaluate, evaluate, report
from modelinscale.evaluate._curves import curves
from modelinscale.evaluate._page import About
from modelinscale.metrics import Answers

CURVE = [{"epoch": e, "train_loss": 1 / e, "valid_loss": 1 / e + 0.1, "rate": 0.01} for e in range(1, 6)]


def classes(labels: tuple[str, ...], n: int = 300) -> tuple[Answers, Task]:
    chance = generator(1, "report")
    z = chance.normal(size=(n, len(labels)))
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    truth = (chance.random((n, 1)) > p.cumsum(1)).sum(1).astype(np.int64)
    task = Task(type="binary" if len(labels) == 2 else "multiclass", target="y", labels=labels)
    return Answers(truth, p.argmax(1).astype(np.int64), p), task


def numbers(n: int = 300) -> tuple[Answers, Task]:
    chance = generator(1, "report")
    answer = chance.normal(size=n)
    return Answers(answer + chance.normal(size=n), answer, None), Task(type="regression", target="y")


def page(answers: Answers, task: Task, **about: Any) -> str:
    constant = [0.0] if task.type == "regression" else [1 / len(task.labels)] * len(task.labels)
    found = evaluate(answers, task, Evaluate(), decision=Decision(), constant=constant, valid=answers)
    return report(found, answers, task, About("a <model>", "trees", **about))


class Open(HTMLParser):
    """Addresses a page asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.asked += [value or "" for name, value in attrs if name in ("src", "href")]


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_a_report_asks_for_nothing_and_runs_nothing(kind: str) -> None:
    answers, task = {"binary": classes(("no", "yes")), "multiclass": classes(("a", "b", "c")), "regression": numbers()}[kind]
    found = page(answers, task, curve=CURVE)
    read = Open()
    read.feed(found)
    assert "script" not in read.tags
    assert not [one for one in read.asked if not one.startswith("data:")]
    assert "url(" not in found
    assert "nan" not in re.sub(r"<style>.*?</style>", "", found).lower().replace("meaning", "")


def test_a_report_shows_every_part() -> None:
    two, many, number = (page(*classes(("no", "yes"))), page(*classes(("a", "b", "c"))), page(*numbers()))
    for words in ("ROC", "Precision and recall", "Probabilities against what came", "What other thresholds would cost", "constant baseline"):
        assert words in two, words
    assert "Sets of classes that hold the truth" in many
    for words in ("Answer and truth", "Truth less answer", "Intervals that hold the truth"):
        assert words in number, words


def test_learning_curves_are_there_where_the_family_tells_them() -> None:
    assert "validation rows</span>" in page(*numbers(), curve=CURVE)
    assert "Loss" not in page(*numbers())


def test_foreign_words_are_harmless() -> None:
    found = page(*classes(("<b>no", "<script>alert(1)</script>")), notes=["<img src=x>"])
    assert "<script>" not in found
    assert "<img" not in found
    assert "<b>no" not in found
    assert "a &lt;model&gt;" in found


def test_the_area_under_the_points_is_the_metric() -> None:
    answers, task = classes(("no", "yes"))
    points = np.array(curves(answers, ["no", "yes"]).roc["yes"])
    area = float(np.trapezoid(points[:, 1], points[:, 0]))
    found = evaluate(answers, task, Evaluate(), decision=Decision(), constant=[0.5, 0.5])
    assert area == pytest.approx(found.metrics["roc_auc"].value, abs=0.005)


def test_one_class_alone_makes_a_report_without_curves() -> None:
    answers, task = classes(("no", "yes"))
    alone = Answers(np.zeros(300, np.int64), answers.decision, answers.probability)
    assert "ROC</h3>" not in page(alone, task)
