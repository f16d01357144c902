"""Forecasts from a list of last numbers: whatever level and scale a series has, and as the graph draws them."""

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from modelinscale.core.encoded import Encoded, Layout, Sparse, Values
from modelinscale.core.graph import Graph
from modelinscale.core.task import Task
from modelinscale.export.proto import to_bytes
from modelinscale.models import Effort, Examples
from modelinscale.models.forecast import Forecast

T, H = 24, 6
TASK = Task(type="regression", target="next", width=H)
LAYOUT = Layout("dense", T, tuple(str(i) for i in range(T)))


def waves(n_rows: int = 600, seed: int = 7) -> NDArray[np.float64]:
    """(N, T + H) of waves of period 12, each at a level and of a height of its own."""
    chance = np.random.default_rng(seed)
    phase, level, height = chance.uniform(0, 12, n_rows), chance.normal(0, 100, n_rows), 10 ** chance.uniform(-2, 2, n_rows)
    wave = np.sin((phase[:, None] + np.arange(T + H)) * np.pi / 6) + 0.05 * chance.normal(size=(n_rows, T + H))
    return level[:, None] + height[:, None] * wave


def examples(both: NDArray[np.float64]) -> Examples:
    x = both[:, :T].astype(np.float32)
    return Examples(Encoded({"plain/past": LAYOUT, "scaled/past": LAYOUT}, {"plain/past": x, "scaled/past": x}), both[:, T:])


def test_series_of_any_level_and_height_share_one_map() -> None:
    model, both = Forecast(), waves()
    weights = model.fit(examples(both[:400]), examples(both[400:500]), TASK, Effort())
    test = examples(both[500:])
    height = both[500:, :T].std(axis=1, keepdims=True)
    away = (model.predict(weights, test.rows) - test.target) / height
    assert np.sqrt((away**2).mean()) < 0.2


def test_moved_and_stretched_history_moves_and_stretches_the_forecast() -> None:
    model, both = Forecast(), waves()
    weights = model.fit(examples(both), None, TASK, Effort())
    few = np.round(waves(20, seed=8) * 64) / 64
    straight, moved = (model.predict(weights, examples(one).rows) for one in (few, few * 4 + 1024))
    height = few[:, :T].std(axis=1, keepdims=True)
    kept = height[:, 0] > 1  # none at the least deviation
    np.testing.assert_allclose(((moved - 1024) / 4)[kept], straight[kept], atol=1e-3)


@pytest.mark.parametrize("width", [H, None], ids=["several", "one"])
def test_the_graph_forecasts_as_python_does_with_gaps_and_without_any_number(width: int | None) -> None:
    task, model, both = TASK.but(width=width), Forecast(), waves()
    train = examples(both)
    weights = model.fit(train if width else Examples(train.rows, train.target[:, 0]), None, task, Effort())
    x = np.asarray(examples(waves(30, seed=9)).rows["plain/past"]).copy()
    x[0], x[1, -3:], x[2, ::2], x[3], x[4, 5] = np.nan, np.nan, np.nan, 5.0, np.inf
    rows = Encoded(train.layouts, {"plain/past": x, "scaled/past": x})
    graph = Graph()
    blocks = {name: graph.block(name, layout) for name, layout in train.layouts.items()}
    graph.output("scores", model.graph(weights, task, train.layouts, graph, blocks), "float32", ("N", H) if width else ("N",))
    drawn = onnxruntime.InferenceSession(to_bytes(graph, name="model")).run(None, {"plain/past": x, "scaled/past": x})[0]
    found = model.predict(weights, rows)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(drawn, found, rtol=1e-5, atol=1e-3)


def test_a_history_that_is_no_list_is_refused_by_name() -> None:
    assert Forecast(history="pasd").accepts(TASK, examples(waves(5)).layouts) == "there is no column 'pasd' that holds a list of numbers"


def with_holidays(n_rows: int = 500, seed: int = 11, effect: float = -2.0) -> tuple[Examples, NDArray[np.bool_]]:
    """Waves that some days move by ``effect`` heights, and a list that says on which of all T + H steps; (N, H) which of those to come."""
    chance, both = np.random.default_rng(seed), waves(n_rows, seed)
    days = chance.random((n_rows, T + H)) < 0.1
    height = both[:, :T].std(axis=1, keepdims=True)
    both = both + effect * height * days
    x, known = both[:, :T].astype(np.float32), days.astype(np.float32)
    layouts = {name: Layout("dense", T + H if "holiday" in name else T, tuple(map(str, range(T + H if "holiday" in name else T)))) for name in BLOCKS}
    scaled = (known - known.mean(0)) / np.maximum(known.std(0), 0.1)
    blocks: dict[str, Values] = {"plain/history": x, "scaled/history": x, "plain/holiday": known, "scaled/holiday": scaled.astype(np.float32)}
    return Examples(Encoded(layouts, blocks), both[:, T:]), days[:, T:]


BLOCKS = ("plain/history", "scaled/history", "plain/holiday", "scaled/holiday")


def without_days_to_come(given: Examples) -> Examples:
    """The same with no such day to come."""
    blocks = dict(given.rows.blocks)
    for name in ("plain/holiday", "scaled/holiday"):
        known = np.array(blocks[name])
        known[:, T:] = 0
        blocks[name] = known
    return Examples(Encoded(given.rows.layouts, blocks), given.target)


def test_what_is_known_ahead_of_a_step_moves_the_forecast_of_that_step_and_no_other() -> None:
    train, _ = with_holidays()
    test, days = with_holidays(200, seed=12)
    model = Forecast()
    weights = model.fit(train, None, TASK, Effort())
    height = np.asarray(test.rows["plain/history"]).std(axis=1, keepdims=True)
    told, untold = model.predict(weights, test.rows), model.predict(weights, without_days_to_come(test).rows)
    moved = (told - untold) / height
    assert np.abs(moved[~days]).max() < 1e-9
    assert moved[days].mean() == pytest.approx(-1.6, abs=0.4)  # in deviations of histories that such days have widened
    assert ((told - test.target) ** 2 / height**2).mean() < 0.3 * ((untold - test.target) ** 2 / height**2).mean()
    assert 0.01 < model.importance(weights, train.layouts)["holiday"] < 0.9


def test_a_forecast_never_looks_at_what_comes_in_a_column_that_is_not_known_ahead() -> None:
    """Neither while it learns, where the days off to come move the answers, nor when it is asked, nor as it is drawn."""
    train, model = with_holidays()[0], Forecast(ahead=())
    told, untold = (model.fit(given, None, TASK, Effort()) for given in (train, without_days_to_come(train)))
    assert "ahead" not in told.meta
    for name, array in told.arrays.items():
        np.testing.assert_array_equal(untold.arrays[name], array)
    for rows in (train.rows, without_days_to_come(train).rows):
        np.testing.assert_array_equal(model.predict(told, rows), model.predict(told, train.rows))
    updated = model.update(told, train, None, TASK, Effort())
    np.testing.assert_array_equal(model.update(told, without_days_to_come(train), None, TASK, Effort()).arrays["coefficients"], updated.arrays["coefficients"])
    graph = Graph()
    blocks = {name: graph.block(name, layout) for name, layout in train.layouts.items()}
    graph.output("scores", model.graph(told, TASK, train.layouts, graph, blocks), "float32", ("N", H))
    session = onnxruntime.InferenceSession(to_bytes(graph, name="model"))
    drawn = session.run(None, {i.name: np.asarray(train.rows[i.name]) for i in session.get_inputs()})[0]
    np.testing.assert_allclose(drawn, model.predict(told, train.rows), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("width", [H, None], ids=["several", "one"])
def test_the_graph_adds_what_is_known_ahead_as_python_does(width: int | None) -> None:
    task, model = TASK.but(width=width), Forecast()
    train, _ = with_holidays()
    if not width:  # the list then ends with the one step to come
        layouts = {name: Layout("dense", T + ("holiday" in name), tuple(map(str, range(T + ("holiday" in name))))) for name in BLOCKS}
        blocks: dict[str, Values] = {name: np.asarray(block)[:, : layouts[name].width] for name, block in train.rows.items()}
        train = Examples(Encoded(layouts, blocks), train.target[:, 0])
    weights = model.fit(train, train, task, Effort())
    assert weights.meta["ahead"] == ["holiday"]
    weights = model.update(weights, train, None, task, Effort())
    rows = train.rows.slice(0, 30)
    feeds = {name: np.array(block) for name, block in rows.items()}
    feeds["plain/holiday"][0], feeds["plain/holiday"][1, -2:], feeds["plain/history"][2] = np.nan, np.inf, np.nan
    rows = Encoded(rows.layouts, dict[str, Values](feeds))
    graph = Graph()
    blocks_of = {name: graph.block(name, layout) for name, layout in rows.layouts.items()}
    graph.output("scores", model.graph(weights, task, rows.layouts, graph, blocks_of), "float32", ("N", H) if width else ("N",))
    session = onnxruntime.InferenceSession(to_bytes(graph, name="model"))
    drawn = session.run(None, {i.name: feeds[i.name] for i in session.get_inputs()})[0]
    found = model.predict(weights, rows)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(drawn, found, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(("ahead", "task"), [(("history",), TASK), (("holiday",), TASK.but(width=H + 1)), (("hollyday",), TASK)])
def test_a_column_that_does_not_reach_over_the_steps_to_come_is_refused_as_known_ahead(ahead: tuple[str, ...], task: Task) -> None:
    train, _ = with_holidays(30)
    why = Forecast(history="history", ahead=ahead).accepts(task, train.layouts)
    assert why == f"the column {ahead[0]!r} is known ahead and needs lists of {T} + {task.width} numbers, those of the history and of the steps to come"


def called(given: Examples, **names: str) -> Examples:
    """The same with other names of features."""
    of = {name: "/".join((form, names[feature])) for name in given.layouts for form, feature in [name.split("/")]}
    layouts = {of[name]: layout for name, layout in given.layouts.items()}
    return Examples(Encoded(layouts, {of[name]: block for name, block in given.rows.items()}), given.target)


def test_a_list_that_goes_on_over_the_steps_to_come_is_not_taken_for_the_history() -> None:
    train, said = called(with_holidays(100)[0], history="load", holiday="holiday"), list[str]()
    assert Forecast().accepts(TASK, train.layouts) == ""
    weights = Forecast().fit(train, None, TASK, Effort(tell=said.append))
    assert (weights.meta["history"], weights.meta["ahead"]) == ("plain/load", ["holiday"])
    assert [note.split(" taken as ")[0] for note in said] == ["'load' is", "'holiday' is"]
    named = list[str]()
    Forecast(history="load", ahead=("holiday",)).fit(train, None, TASK, Effort(tell=named.append))
    assert not named


def test_where_several_lists_may_be_the_history_it_must_be_named() -> None:
    train, _ = with_holidays(30)
    layouts = {f"{form}/{name}": Layout("dense", T, tuple(map(str, range(T)))) for form in ("plain", "scaled") for name in ("load", "visitors")}
    assert "'load', 'visitors' are lists of numbers, and each may be the history: name `history`" in Forecast().accepts(TASK, layouts)
    assert Forecast(history="load").accepts(TASK, layouts) == ""
    other = called(train, history="load", holiday="holiday").layouts  # of other steps than the holidays go on over
    assert "name `history`" in Forecast().accepts(TASK.but(width=H + 1), other)


def test_an_update_with_the_same_rows_moves_nothing_words_included() -> None:
    """What is learned is then where the update begins and ends, if both hold every column back as much."""
    chance, both = np.random.default_rng(3), waves(300)
    word = chance.integers(0, 4, 300)
    both[:, T:] += both[:, :T].std(axis=1, keepdims=True) * word[:, None]
    plain = examples(both)
    words = Sparse(np.arange(301), word.astype(np.int32), np.ones(300, np.float32), 4)
    layouts = {**plain.layouts, "scaled/note": Layout("sparse", 4, tuple("abcd"))}
    train = Examples(Encoded(layouts, {**plain.rows.blocks, "scaled/note": words}), plain.target)
    model = Forecast(strength=0.1)
    first = model.fit(train, None, TASK, Effort())
    again = model.update(first, train, None, TASK, Effort())
    np.testing.assert_allclose(again.arrays["coefficients"], first.arrays["coefficients"], atol=1e-4)


def test_ahead_is_for_forecasts_of_numbers() -> None:
    task = Task(type="binary", target="y", labels=(False, True))
    assert Forecast(ahead=("holiday",)).accepts(task, with_holidays(30)[0].layouts) == "`ahead` is for numbers that are forecast"
