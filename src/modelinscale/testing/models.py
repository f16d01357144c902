"""What every model family must do: learn what is there, repeat itself, and draw a graph that answers as it does.

Each function takes a family (any settings) and a kind of task, and raises `AssertionError`. For a family of your own: ``all_of(MyFamily())``.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.encoded import Encoded, Form, Layout, Sparse, Values, block_name, feature_of, forms_of, rows_in
from modelinscale.core.errors import MisError, ModelError
from modelinscale.core.graph import Graph
from modelinscale.core.seeds import generator
from modelinscale.core.task import LEVELS, Task
from modelinscale.models import Effort, Examples, Model, Scores, Weights
from modelinscale.train import loss

Case = Literal["binary", "multiclass", "regression", "several", "multilabel", "quantiles"]
"""Kinds of task; several: a regression of three numbers at once."""
TASKS: dict[Case, Task] = {
    "binary": Task(type="binary", target="y", labels=("no", "yes")),
    "multiclass": Task(type="multiclass", target="y", labels=("a", "b", "c")),
    "regression": Task(type="regression", target="y"),
    "several": Task(type="regression", target="y", width=3),
    "multilabel": Task(type="multilabel", target="y", labels=("high", "low", "mid")),
    "quantiles": Task(type="quantiles", target="y", levels=LEVELS),
}
BOUNDS = {"linear": 1e-5, "trees": 1e-5, "mlp": 1e-4, "network": 1e-4, "ensemble": 1e-4}
"""Largest difference of a probability between graph and Python, by family; others: 1e-4."""
_KNOWN = 6
"""Ids of the planted category: missing, other, and four words."""


def all_of(model: Model) -> None:
    """The whole suite, on every kind of task that the family takes."""
    settings_round_trip(model)
    for type in taken(model):
        for one in SUITE:
            one(model, type)


def taken(model: Model) -> list[Case]:
    """Kinds of task that the family does not refuse: one class or one number it has to take."""
    few = {type: planted(model.form, type, n_rows=60) for type in TASKS}
    return [type for type, given in few.items() if not given.task.several or not model.accepts(given.task, given.layouts)]


@dataclass(frozen=True)
class Planted:
    """Made rows whose answer depends on known columns, and on nothing else."""

    task: Task
    train: Examples
    valid: Examples
    test: Examples

    @property
    def layouts(self) -> dict[str, Layout]:
        return self.train.rows.layouts


def planted(form: Form, type: Case, n_rows: int = 900, *, seed: int = 7, shift: float = 0.0) -> Planted:
    """``size`` (two numbers, the second sometimes missing), ``colour`` (ids) and ``note`` (words) decide, and for the form deep ``picture`` (an image),
    ``series`` (steps of two channels) and ``line`` (words in their order); ``noise`` and ``still`` do not.

    ``shift`` moves the answer of every row: another concept for updates to follow.
    """
    if "+" in form:
        return _beside(form, [planted(one, type, n_rows, seed=seed, shift=shift) for one in forms_of(form)])
    chance = generator(seed, "planted", type)
    size = chance.normal(size=(n_rows, 2)).astype(np.float32)
    gone = chance.random(n_rows) < 0.1
    colour = chance.integers(2, _KNOWN, n_rows).astype(np.int32)
    colour[chance.random(n_rows) < 0.05] = 0
    with_word = chance.random(n_rows) < 0.5
    effect = np.array([0.0, 0.0, -1.5, -0.5, 0.5, 1.5])
    pull = 2.0 * size[:, 0] + np.where(gone, 1.0, size[:, 1]) + effect[colour] + 2.0 * with_word + shift
    with_square = chance.random(n_rows) < 0.5 if form == "deep" else np.zeros(n_rows, bool)
    pull = pull + 2.0 * with_square
    blocks: dict[str, Values] = {
        "size": _numbers(size, gone, form),
        "colour": colour,
        "note": _words(with_word, chance),
        "noise": chance.normal(size=(n_rows, 1)).astype(np.float32),
        "still": np.full((n_rows, 1), 1.0, np.float32),
    }
    names = ("size 1", "size 2") if form == "plain" else ("size 1", "size 2", "size 2 missing")
    layouts = {
        "size": Layout("dense", len(names), names),
        "colour": Layout("ids", _KNOWN, ("(missing)", "(other)", "red", "green", "blue", "grey")),
        "note": Layout("sparse", 5, ("w0", "w1", "w2", "w3", "w4")),
        "noise": Layout("dense", 1, ("noise",)),
        "still": Layout("dense", 1, ("still",)),
    }
    if form == "deep":
        blocks["picture"], layouts["picture"] = _pictures(with_square, chance), Layout("image", 64, (), (8, 8, 1))
        with_peak, with_pair = chance.random(n_rows) < 0.5, chance.random(n_rows) < 0.5
        pull = pull + 2.0 * with_peak + 2.0 * with_pair - 2.0
        blocks["series"], layouts["series"] = _series(with_peak, chance), Layout("steps", 14, (), (7, 2))
        blocks["line"], layouts["line"] = _lines(with_pair, chance), Layout("tokens", 6, (), (5,))
    pull = pull + 0.3 * chance.normal(size=n_rows)
    target: NDArray[Any]
    if type in ("regression", "quantiles"):
        target = 1000.0 + 50.0 * pull
    elif type == "several":  # of different sizes, and one the other way
        target = np.stack([1000.0 + 50.0 * pull, 0.001 * pull, 3.0 - pull], axis=1)
    elif type == "multilabel":  # none, one or two of them
        target = np.stack([pull > 2.5, pull < 0.0, pull > 0.5], axis=1).astype(np.int64)
    elif type == "binary":
        target = (pull > 1.0).astype(np.int64)
    else:
        target = np.digitize(pull, [-0.5, 2.5]).astype(np.int64)
    rows, cut = Encoded(layouts, blocks), [0, n_rows * 6 // 10, n_rows * 8 // 10, n_rows]
    parts = [np.arange(a, b) for a, b in pairwise(cut)]
    train, valid, test = (Examples(rows.rows(index), target[index]) for index in parts)
    return Planted(TASKS[type], train, valid, test)


def _beside(form: Form, found: list[Planted]) -> Planted:
    """The same rows in several forms."""

    def part(name: str) -> Examples:
        layouts: dict[str, Layout] = {}
        blocks: dict[str, Values] = {}
        for one, given in zip(forms_of(form), found, strict=True):
            if one == "scaled" and "deep" in forms_of(form):  # texts are there in both: as words that occur, and in their order
                layouts["scaled/line"] = Layout("sparse", 6, tuple(f"scaled/word {i}" for i in range(6)))
                blocks["scaled/line"] = _occurring(np.asarray(getattr(found[-1], name).rows["line"]), 6)
            for feature, layout in given.layouts.items():
                names = layout.names if layout.role == "ids" else tuple(f"{one}/{column}" for column in layout.names)
                layouts[block_name(feature, one, form)] = replace(layout, names=names)
                blocks[block_name(feature, one, form)] = getattr(given, name).rows[feature]
        return Examples(Encoded(layouts, blocks), getattr(found[-1], name).target)

    return Planted(found[-1].task, part("train"), part("valid"), part("test"))


def settings_round_trip(model: Model) -> None:
    """`plain` holds all settings."""
    assert Model.parse(model.plain()) == model


def accepts_what_it_is_made_for(model: Model, type: Case) -> None:
    """It has no objection to an ordinary table."""
    given = planted(model.form, type)
    assert model.accepts(given.task, given.layouts) == ""


def learns_a_planted_signal(model: Model, type: Case) -> None:
    """Far better than always giving the base rate, on rows it never saw; scores have the promised shape."""
    given = planted(model.form, type)
    scores = model.predict(_fitted(model, type), given.test.rows)
    expected = (len(given.test),) if given.task.n_scores == 1 else (len(given.test), given.task.n_scores)
    assert scores.shape == expected, f"scores are {scores.shape}, not {expected}"
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    found, base = loss(scores, given.test.target, None, given.task), _base_loss(given)
    assert found < 0.6 * base, f"loss {found:.3f}, while always giving the base rate has {base:.3f}"


def same_seed_same_weights(model: Model, type: Case) -> None:
    """Bit for bit."""
    given = planted(model.form, type)
    a, b = _fitted(model, type), _fit(model, given)
    assert a.meta == b.meta
    assert a.arrays.keys() == b.arrays.keys()
    for name, array in a.arrays.items():
        assert np.array_equal(array, b.arrays[name]), f"{name} differs between two fits with one seed"


def fitting_leaves_the_rows_alone(model: Model, type: Case) -> None:
    """Nothing that went in is changed."""
    (weights, given), again = _known(model, type), planted(model.form, type)
    model.predict(weights, given.test.rows)
    for name, block in given.train.rows.items():
        before = again.train.rows[name]
        same = all(np.array_equal(x, y, equal_nan=x.dtype.kind == "f") for x, y in zip(_arrays(block), _arrays(before), strict=True))
        assert same, f"block {name!r} was changed"
    assert np.array_equal(given.train.target, again.train.target)


def weights_come_back_from_disk(model: Model, type: Case) -> None:
    """Saved and loaded, they answer the same to the bit."""
    given = planted(model.form, type)
    weights = _fitted(model, type)
    with tempfile.TemporaryDirectory() as folder:
        weights.save(Path(folder))
        loaded = Weights.load(Path(folder))
    assert np.array_equal(model.predict(weights, given.test.rows), model.predict(loaded, given.test.rows))
    assert np.array_equal(_drawn(model, weights, given, given.test.rows), _drawn(model, loaded, given, given.test.rows))


def graph_equals_python(model: Model, type: Case) -> None:
    """On ordinary rows, on ids and words never seen, and one float32 step either side of every value where it says that the answer may jump."""
    given = planted(model.form, type)
    weights = _fitted(model, type)
    bound = BOUNDS.get(model.type, 1e-4)
    for rows in (given.test.rows, _odd(given, model.form), _at_edges(given, model.edges(weights))):
        if not rows.n_rows:
            continue
        python, drawn = model.predict(weights, rows), _drawn(model, weights, given, rows)
        assert drawn.dtype == np.float32
        assert drawn.shape == python.shape, f"the graph gives {drawn.shape}, Python {python.shape}"
        away = float(np.abs(_probability(python, given) - _probability(drawn.astype(np.float64), given)).max())
        assert away <= bound, f"graph and Python differ by {away:.2g}, more than {bound}"
        if given.task.type == "multilabel":
            assert ((python > 0) == (drawn > 0))[np.abs(python) >= 1e-5].all(), "graph and Python decide differently"
        elif not given.task.numbers:
            close = np.abs(_margin(python)) < 1e-5
            assert (_choice(python) == _choice(drawn))[~close].all(), "graph and Python decide differently"


def edges_are_columns_it_knows(model: Model, type: Case) -> None:
    """Names of dense columns, with finite ascending float32 values."""
    given = planted(model.form, type)
    known = {name for layout in given.layouts.values() if layout.role == "dense" for name in layout.names}
    for name, values in model.edges(_fitted(model, type)).items():
        assert name in known, f"{name!r} is no dense column"
        assert values.dtype == np.float32
        assert (np.diff(values) > 0).all()


def importance_names_what_decides(model: Model, type: Case) -> None:
    """Shares that sum to 1, the planted feature first, noise and constants near nothing; or no answer at all."""
    given = planted(model.form, type)
    shares = model.importance(_fitted(model, type), given.layouts)
    if not shares:
        return
    assert shares.keys() == {feature_of(name, model.form) for name in given.layouts}
    assert abs(sum(shares.values()) - 1) < 1e-6
    assert max(shares, key=lambda name: shares[name]) == "size", f"{shares}"
    assert shares["noise"] < 0.2, f"{shares}"
    assert shares["still"] < 0.01, f"{shares}"


def rows_of_no_weight_do_not_count(model: Model, type: Case) -> None:
    """Lies of weight 0 among the training rows are not believed."""
    given = planted(model.form, type)
    lying = np.arange(len(given.train)) % 3 == 0
    target = given.train.target.copy()
    target[lying] = target.max(0) + target.min(0) - target[lying]
    train = Examples(given.train.rows, target, np.where(lying, 0.0, 1.0))
    scores = model.predict(model.fit(train, given.valid, given.task, Effort()), given.test.rows)
    found, base = loss(scores, given.test.target, None, given.task), _base_loss(given)
    assert found < 0.7 * base, f"loss {found:.3f} of {base:.3f}: rows of weight 0 were believed"


def a_weight_of_two_is_about_a_row_twice(model: Model, type: Case) -> None:
    """The two answers agree far better than either is right; exactly equal they need not be (leaves count rows, batches are drawn; outer quantiles most)."""
    given = planted(model.form, type)
    chosen = np.arange(len(given.train)) % 2 == 0
    twice = np.sort(np.concatenate([np.arange(len(given.train)), np.flatnonzero(chosen)]))
    weighted = Examples(given.train.rows, given.train.target, np.where(chosen, 2.0, 1.0))
    repeated = Examples(given.train.rows.rows(twice), given.train.target[twice])
    a, b = (_probability(model.predict(model.fit(t, given.valid, given.task, Effort()), given.test.rows), given) for t in (weighted, repeated))
    away = float(np.sqrt(np.mean((a - b) ** 2)))
    assert away < (0.25 if type == "quantiles" else 0.15), f"weights and repetition differ by {away:.3f} (root mean square)"


def any_one_block_is_enough(model: Model, type: Case) -> None:
    """Tables of numbers alone, of categories alone, of words alone."""
    given = planted(model.form, type, n_rows=200)
    for name in ("size", "colour", "note", *(["picture", "series", "line"] if model.form == "deep" else [])):
        train, valid, test = (_only(part, name, model.form) for part in (given.train, given.valid, given.test))
        alone = Planted(given.task, train, valid, test)
        weights = _fit(model, alone)
        python, drawn = model.predict(weights, test.rows), _drawn(model, weights, alone, test.rows)
        assert np.allclose(_probability(python, given), _probability(drawn.astype(np.float64), given), atol=1e-4), f"{name} alone: the graph differs"


def fits_without_validation_rows(model: Model, type: Case) -> None:
    """Early stopping is a help, not a need."""
    given = planted(model.form, type)
    scores = model.predict(model.fit(given.train, None, given.task, Effort()), given.test.rows)
    assert loss(scores, given.test.target, None, given.task) < 0.7 * _base_loss(given)


def little_to_learn_from_gives_an_answer_or_an_error(model: Model, type: Case) -> None:
    """One row, rows all of one class: finite answers, or an error of ours; nothing else."""
    given = planted(model.form, type)
    alike = given.train.target == given.train.target[0]
    one_class = np.flatnonzero(alike if alike.ndim == 1 else alike.all(1))[:40]
    for index in (np.array([0]), one_class, np.arange(12)):
        few = Examples(given.train.rows.rows(index), given.train.target[index])
        error, scores = _attempt(lambda few=few: model.predict(model.fit(few, None, given.task, Effort()), given.test.rows))  # type: ignore[misc]
        assert scores is None or np.isfinite(scores).all(), f"{len(index)} rows: answers that are not finite"
        assert error is None or error.fix, f"no advice in: {error}"


def no_rows_no_scores(model: Model, type: Case) -> None:
    """An empty table has an empty answer, in Python and in the graph."""
    given = planted(model.form, type)
    weights, none = _fitted(model, type), given.test.rows.rows(np.empty(0, np.int64))
    expected = (0,) if given.task.n_scores == 1 else (0, given.task.n_scores)
    assert model.predict(weights, none).shape == expected
    assert _drawn(model, weights, given, none).shape == expected


def the_budget_is_kept(model: Model, type: Case) -> None:
    """With no time at all it stops at once, with weights that answer."""
    given = planted(model.form, type)
    weights = model.fit(given.train, given.valid, given.task, Effort(budget_s=0.0))
    assert np.isfinite(model.predict(weights, given.test.rows)).all()


def rows_encoded_otherwise_are_refused(model: Model, type: Case) -> None:
    """A block of another width is an error of ours, not an answer."""
    given = planted(model.form, type)
    weights = _fitted(model, type)
    rows = given.test.rows
    wrong = [name for name in rows.layouts if feature_of(name, model.form) == "noise"]
    layouts = {**rows.layouts, **dict.fromkeys(wrong, Layout("dense", 2, ("noise", "more")))}
    wide = Encoded(layouts, {**rows.blocks, **dict.fromkeys(wrong, np.zeros((rows.n_rows, 2), np.float32))})
    error, _ = _attempt(lambda: model.predict(weights, wide))
    assert isinstance(error, ModelError), f"rows of another width: {error!r} instead of a ModelError"
    assert "noise" in error.message, f"which feature is wrong is not said: {error}"


def an_update_follows_and_forgets_little(model: Model, type: Case) -> None:
    """From rows of a moved concept alone it gets better on that concept; from more of the same it gets no worse to speak of. The old weights stay."""
    given, moved = planted(model.form, type), planted(model.form, type, seed=8, shift=1.0)
    more = planted(model.form, type, seed=9)
    weights = _fitted(model, type)
    kept = {name: array.copy() for name, array in weights.arrays.items()}

    def found(one: Weights, on: Planted) -> float:
        return loss(model.predict(one, on.test.rows), on.test.target, None, on.task)

    followed = model.update(weights, moved.train, moved.valid, given.task, Effort())
    assert found(followed, moved) < found(weights, moved), f"{found(weights, moved):.4f} became {found(followed, moved):.4f} on the new concept"
    steady = model.update(weights, more.train, more.valid, given.task, Effort())
    assert found(steady, given) < found(weights, given) + 0.1 * _base_loss(given), f"{found(weights, given):.4f} became {found(steady, given):.4f}"
    assert all(np.array_equal(kept[name], array) for name, array in weights.arrays.items()), "update changed the old weights"
    assert np.isfinite(_drawn(model, followed, given, given.test.rows)).all()


SUITE: tuple[Callable[[Model, Case], None], ...] = (
    accepts_what_it_is_made_for,
    learns_a_planted_signal,
    same_seed_same_weights,
    fitting_leaves_the_rows_alone,
    weights_come_back_from_disk,
    graph_equals_python,
    edges_are_columns_it_knows,
    importance_names_what_decides,
    rows_of_no_weight_do_not_count,
    a_weight_of_two_is_about_a_row_twice,
    any_one_block_is_enough,
    fits_without_validation_rows,
    little_to_learn_from_gives_an_answer_or_an_error,
    no_rows_no_scores,
    the_budget_is_kept,
    rows_encoded_otherwise_are_refused,
    an_update_follows_and_forgets_little,
)


def _fit(model: Model, given: Planted) -> Weights:
    return model.fit(given.train, given.valid, given.task, Effort())


@lru_cache(maxsize=16)
def _known(model: Model, type: Case) -> tuple[Weights, Planted]:
    """The weights most functions look at, learned once, and the very rows that they were learned from."""
    given = planted(model.form, type)
    return _fit(model, given), given


def _fitted(model: Model, type: Case) -> Weights:
    return _known(model, type)[0]


def _only(examples: Examples, feature: str, form: Form) -> Examples:
    rows = examples.rows
    kept = [name for name in rows.layouts if feature_of(name, form) == feature]
    return Examples(Encoded({name: rows.layouts[name] for name in kept}, {name: rows[name] for name in kept}), examples.target)


def _attempt(call: Callable[[], Scores]) -> tuple[MisError | None, Scores | None]:
    """An error of ours, or the answer."""
    try:
        return None, call()
    except MisError as error:
        return error, None


def _base_loss(given: Planted) -> float:
    """The loss of one answer for all: the base rate of the test rows."""
    n, target = len(given.test), given.test.target
    if given.task.numbers:
        return 1.0
    if given.task.type == "multilabel":
        odds = np.log(target.mean(0) / (1 - target.mean(0)))
        return loss(np.tile(odds, (n, 1)), target, None, given.task)
    share = np.log(np.maximum(np.bincount(target, minlength=len(given.task.labels)) / n, 1e-9))
    return loss(np.full(n, share[1] - share[0]) if given.task.type == "binary" else np.tile(share, (n, 1)), target, None, given.task)


def _numbers(size: NDArray[np.float32], gone: NDArray[np.bool_], form: Form) -> NDArray[np.float32]:
    if form == "plain":
        return np.where(np.stack([np.zeros_like(gone), gone], axis=1), np.float32(np.nan), size)
    return np.column_stack([size[:, 0], np.where(gone, 0, size[:, 1]), gone]).astype(np.float32)


def _words(with_word: NDArray[np.bool_], chance: np.random.Generator) -> Sparse:
    full = chance.integers(0, 3, (len(with_word), 5)) * (chance.random((len(with_word), 5)) < 0.4)
    full[:, 0] = with_word
    row, column = np.nonzero(full)
    starts = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(full)))]).astype(np.int64)
    return Sparse(starts, column.astype(np.int32), full[row, column].astype(np.float32), 5)


def _pictures(with_square: NDArray[np.bool_], chance: np.random.Generator) -> NDArray[np.uint8]:
    """(N, 8, 8, 1) of noise, in some of them a bright square of 3 x 3 somewhere."""
    found = chance.integers(0, 100, (len(with_square), 8, 8, 1)).astype(np.uint8)
    for i in np.flatnonzero(with_square).tolist():
        y, x = chance.integers(0, 6, 2)
        found[i, y : y + 3, x : x + 3] = 255
    return found


def _series(with_peak: NDArray[np.bool_], chance: np.random.Generator) -> NDArray[np.float32]:
    """(N, 7, 2) of noise, 0 to 7 steps of it, in some of them a peak somewhere (rows without steps get one then)."""
    found = chance.normal(size=(len(with_peak), 7, 2)).astype(np.float32) * np.float32(0.5)
    sizes = np.maximum(chance.integers(0, 8, len(with_peak)), with_peak)
    at = (chance.random(len(with_peak)) * sizes).astype(np.int64)
    found[np.flatnonzero(with_peak), at[with_peak], 0] = 3.0
    found[np.arange(7) >= sizes[:, None]] = np.nan
    return found


def _lines(with_word: NDArray[np.bool_], chance: np.random.Generator) -> NDArray[np.int32]:
    """(N, 5): 0 to 5 words of ids 1 to 4, in some the word 5 (texts without words get one then)."""
    found = chance.integers(1, 5, (len(with_word), 5)).astype(np.int32)
    sizes = np.maximum(chance.integers(0, 6, len(with_word)), with_word)
    at = (chance.random(len(with_word)) * sizes).astype(np.int64)
    found[np.flatnonzero(with_word), at[with_word]] = 5
    found[np.arange(5) >= sizes[:, None]] = 0
    return found


def _occurring(tokens: NDArray[Any], width: int) -> Sparse:
    """How often each word occurs in tokens (N, T)."""
    full = (tokens[:, :, None] == np.arange(width)).sum(axis=1)
    full[:, 0] = 0
    row, column = np.nonzero(full)
    starts = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(full)))]).astype(np.int64)
    return Sparse(starts, column.astype(np.int32), full[row, column].astype(np.float32), width)


def _odd(given: Planted, form: Form) -> Encoded:
    """Rows with ids never seen, without words, with far numbers, and for the plain form without any number."""
    if "+" in form:
        parts = [(one, _odd(replace(given, test=Examples(rows_in(given.test.rows, one, form), given.test.target)), one)) for one in forms_of(form)]
        odd = {block_name(name, one, form): block for one, rows in parts for name, block in rows.items()}
        return Encoded(given.layouts, {**odd, **({"scaled/line": _occurring(np.asarray(odd["deep/line"]), 6)} if "scaled/line" in given.layouts else {})})
    rows = given.test.rows.rows(np.arange(12))
    blocks = dict(rows.blocks)
    blocks["colour"] = (np.arange(12) % _KNOWN).astype(np.int32)
    if form == "deep":
        blocks["picture"] = np.arange(12, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2) * np.uint8(23)
        blocks["series"] = np.where(np.arange(12)[:, None, None] < 4, np.float32("nan"), np.array(blocks["series"]) * np.float32(5))
        blocks["line"] = np.where(np.arange(12)[:, None] < 6, np.int32(0), np.int32(1)) * (np.arange(5) < np.arange(12)[:, None]).astype(np.int32)
    blocks["note"] = Sparse(np.zeros(13, np.int64), np.empty(0, np.int32), np.empty(0, np.float32), 5)
    for name in ("size", "noise", "still"):
        block = np.array(blocks[name])
        block[0], block[1] = -10.0, 10.0
        if form == "plain":
            block[2], block[3], block[4] = np.nan, -3.0e38, 3.0e38
        blocks[name] = block
    return Encoded(rows.layouts, blocks)


def _at_edges(given: Planted, edges: dict[str, NDArray[np.float32]]) -> Encoded:
    """A row for each edge, one for each of its float32 neighbours; everything else as in the first test row."""
    rows = []
    for feature, layout in given.layouts.items():
        for at, name in enumerate(layout.names if layout.role == "dense" else ()):
            for edge in edges.get(name, np.empty(0, np.float32)):
                rows += [(feature, at, v) for v in (np.nextafter(edge, np.float32(-np.inf)), edge, np.nextafter(edge, np.float32(np.inf)))]
    same = given.test.rows.rows(np.zeros(len(rows), np.int64))
    blocks = {name: block if isinstance(block, Sparse) else block.copy() for name, block in same.blocks.items()}
    for i, (feature, at, value) in enumerate(rows):
        block = blocks[feature]
        assert not isinstance(block, Sparse)
        block[i, at] = value
    return Encoded(same.layouts, blocks)


def _drawn(model: Model, weights: Weights, given: Planted, rows: Encoded) -> NDArray[np.float32]:
    """The graph's answer."""
    import onnxruntime

    from modelinscale.export.proto import to_bytes

    graph, blocks, feeds = Graph(), {}, {}
    for name, layout in given.layouts.items():
        block = rows[name]
        blocks[name] = graph.block(name, layout)
        feeds[name] = block.dense() if isinstance(block, Sparse) else block.astype(np.int64 if layout.role in ("ids", "tokens") else np.float32)
    shape: tuple[int | str, ...] = ("N",) if given.task.n_scores == 1 else ("N", given.task.n_scores)
    graph.output("scores", model.graph(weights, given.task, given.layouts, graph, blocks), "float32", shape)
    session = onnxruntime.InferenceSession(to_bytes(graph, name="model"))
    found: NDArray[np.float32] = session.run(None, {i.name: feeds[i.name] for i in session.get_inputs()})[0]
    return found


def _probability(scores: Scores, given: Planted) -> NDArray[np.float64]:
    """Probabilities; for numbers the value in deviations of the target."""
    if given.task.numbers:
        return np.asarray(scores / np.std(given.train.target, axis=0))
    if given.task.type in ("binary", "multilabel"):
        return 0.5 * (1 + np.tanh(scores / 2))
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    found: NDArray[np.float64] = e / e.sum(axis=1, keepdims=True)
    return found


def _choice(scores: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(scores > 0) if scores.ndim == 1 else np.asarray(scores.argmax(axis=1))


def _margin(scores: Scores) -> NDArray[np.float64]:
    if scores.ndim == 1:
        return scores
    best = np.sort(scores, axis=1)
    return np.asarray(best[:, -1] - best[:, -2])


def _arrays(block: Values) -> list[NDArray[Any]]:
    return [block.starts, block.columns, block.values] if isinstance(block, Sparse) else [block]
