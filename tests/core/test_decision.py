"""From scores to an answer: NumPy and the ONNX graph say the same."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from modelinscale.core.decision import Decision, sigmoid
from modelinscale.core.errors import ModelError
from modelinscale.core.graph import Graph
from modelinscale.core.task import Task

BINARY = Task(type="binary", target="y", labels=("no", "yes"))
MANY = Task(type="multiclass", target="y", labels=("a", "b", "c"))
NUMBER = Task(type="regression", target="y")

LEVELS = Task(type="quantiles", target="y", levels=(0.1, 0.5, 0.9))
ISOTONIC = Decision(
    calibration="isotonic", temperature=1.7, shift=(-0.3,), knots=(-4.0, -1.0, -0.5, 2.0, 3.0), levels=(-6.0, -1.5, -1.4, 0.9, 4.5), threshold=0.31
)
DECISIONS = [
    (BINARY, Decision()),
    (BINARY, Decision(threshold=0.0123, shift=(0.7,))),
    (BINARY, Decision(calibration="temperature", temperature=0.3, shift=(-2.0,), threshold=0.9)),
    (BINARY, ISOTONIC),
    (MANY, Decision()),
    (MANY, Decision(calibration="temperature", temperature=2.5, shift=(0.5, -1.0, 0.5))),
    (NUMBER, Decision()),
    (NUMBER, Decision(low=0.0)),
    (NUMBER, Decision(high=3.5)),
    (NUMBER, Decision(low=-1.25, high=1.75)),
    (LEVELS, Decision()),
    (LEVELS, Decision(calibration="conformal", shift=(1.0, 0.0, -1.0), low=-2.0)),
]


def _run(decision: Decision, task: Task, scores: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """The answers of the ONNX graph, drawn onto a raw float64 column (or vector) of scores."""
    import onnxruntime

    from modelinscale.export.proto import to_bytes

    graph = Graph()
    if task.n_scores > 1:
        raw = graph.input("score", "float32", width=scores.shape[1])
        probability, decided = decision.graph(graph, raw, task)
        feed: NDArray[Any] = scores
    else:
        raw = graph.input("score", "float64")
        probability, decided = decision.graph(graph, graph.op("Cast", raw, to=1), task)
        feed = scores.astype(np.float64)
    graph.output("decision", decided, "float32" if task.numbers else "int64", ("N", 3) if task.levels else ("N",))
    if probability is not None:
        graph.output("probability", probability, "float32", ("N", len(task.labels)))
    session = onnxruntime.InferenceSession(to_bytes(graph, name="decision"), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, {"score": feed}), strict=True))


def _scores(task: Task, n: int = 4000) -> NDArray[np.float32]:
    chance = np.random.default_rng(1)
    shape = (n, 3) if task.n_scores > 1 else (n,)
    scores = (chance.standard_t(2, shape) * 3).astype(np.float32)
    flat = scores.reshape(-1)
    flat[:12] = [0, -0.0, 1e-30, -1e-30, 1e4, -1e4, 50, -50, 3e38, -3e38, 1e-7, 709.9]
    return scores


@pytest.mark.parametrize(("task", "decision"), DECISIONS)
def test_the_graph_says_what_numpy_says(task: Task, decision: Decision) -> None:
    scores = _scores(task)
    found = _run(decision, task, scores)
    decided, probability = decision.answer(scores.astype(np.float64), task)
    if task.levels and decision.shift:  # a shift is added in 32 bits there
        np.testing.assert_allclose(found["decision"], decided, rtol=1e-6, atol=1e-6)
        return
    if task.numbers:
        np.testing.assert_array_equal(found["decision"], decided.astype(np.float32))
        assert probability is None
        return
    assert probability is not None
    np.testing.assert_array_equal(found["decision"], decided)
    assert found["decision"].dtype == np.int64
    np.testing.assert_allclose(found["probability"], probability, rtol=0, atol=6e-8)  # half a float32 step below 1
    np.testing.assert_allclose(probability.sum(1), 1, atol=1e-12)


@pytest.mark.parametrize(("task", "decision"), DECISIONS[:6])
def test_a_score_that_moves_by_a_millionth_moves_no_probability_by_more(task: Task, decision: Decision) -> None:
    scores = np.random.default_rng(2).normal(0, 4, (20_000, 3) if task.type == "multiclass" else 20_000)
    moved = np.abs(decision.probability(scores, task) - decision.probability(scores + 1e-6, task)).max()
    assert moved <= 1.0001e-6 / min(1.0, decision.temperature)


def test_an_isotonic_map_keeps_the_order_of_all_scores() -> None:
    scores = np.sort(np.random.default_rng(3).normal(0, 3, 5000))
    assert (np.diff(ISOTONIC.logits(scores, BINARY)) > 0).all()


def test_equally_likely_classes_give_the_first_in_numpy_and_in_the_graph() -> None:
    scores = np.array([[1, 1, 1], [0, 2, 2], [3, 0, 3]], np.float32)
    assert Decision().answer(scores.astype(np.float64), MANY)[0].tolist() == [0, 1, 0]
    assert _run(Decision(), MANY, scores)["decision"].tolist() == [0, 1, 0]


def test_a_probability_on_the_threshold_is_not_above_it() -> None:
    scores = np.array([0.0, 1e-3, -1e-3])
    assert Decision().answer(scores, BINARY)[0].tolist() == [0, 1, 0]
    assert _run(Decision(), BINARY, scores.astype(np.float32))["decision"].tolist() == [0, 1, 0]


def test_a_decision_survives_as_plain_data() -> None:
    assert Decision.model_validate(ISOTONIC.plain()) == ISOTONIC


def test_the_sigmoid_has_no_overflow() -> None:
    assert sigmoid(np.array([-1e308, 0.0, 1e308])).tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"knots": (0.0, 1.0), "levels": (0.0, 1.0)}, "at least two knots"),
        ({"calibration": "isotonic"}, "at least two knots"),
        ({"calibration": "isotonic", "knots": (0.0,), "levels": (0.0,)}, "at least two knots"),
        ({"calibration": "isotonic", "knots": (0.0, 1.0), "levels": (0.0, 5.0)}, "must rise"),
        ({"calibration": "isotonic", "knots": (0.0, 1.0), "levels": (1.0, 0.0)}, "must rise"),
        ({"low": 2.0, "high": 1.0}, "above the upper limit"),
        ({"temperature": 0.0}, "greater than 0"),
        ({"threshold": 1.5}, "less than or equal to 1"),
    ],
)
def test_a_decision_that_makes_no_sense_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Decision.model_validate(change)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_an_error_that_counts_rows(bad: float) -> None:
    with pytest.raises(ModelError, match=r"not a finite number for 2 of 3 rows"):
        Decision().answer(np.array([bad, 1.0, bad]), BINARY)
    with pytest.raises(ModelError, match=r"for 1 of 2 rows"):
        Decision().answer(np.array([[bad, bad, 0.0], [0.0, 1.0, 2.0]]), MANY)
    with pytest.raises(ModelError, match=r"for 1 of 1 rows"):
        Decision(low=0.0).answer(np.array([bad]), NUMBER)
