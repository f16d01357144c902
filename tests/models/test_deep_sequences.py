"""What the suite for all families does not say of encoders of sequences and texts: each of them drawn, padded, emptied."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from modelinscale.core.encoded import Encoded, Layout, Role
from modelinscale.core.graph import Graph
from modelinscale.export.proto import to_bytes

torch = pytest.importorskip("torch")
onnxruntime = pytest.importorskip("onnxruntime")

from modelinscale.models._deep.along import ALONG  # noqa: E402 — needs torch
from modelinscale.models._deep.parts import Part  # noqa: E402
from modelinscale.models._deep.sequences import Steps, in_step, together  # noqa: E402
from modelinscale.models._deep.texts import Tokens  # noqa: E402

KINDS = list(ALONG)


def steps(sizes: list[int], T: int = 9, D: int = 3) -> NDArray[Any]:
    x = np.random.default_rng(7).normal(size=(len(sizes), T, D)).astype(np.float32)
    x[np.arange(T) >= np.array(sizes, int)[:, None]] = np.nan
    return x


def tokens(sizes: list[int], T: int = 9, n_ids: int = 12) -> NDArray[Any]:
    x = np.random.default_rng(7).integers(1, n_ids, (len(sizes), T))
    return np.where(np.arange(T) < np.array(sizes, int)[:, None], x, 0)


def asked(part: Part, x: NDArray[Any]) -> NDArray[Any]:
    with torch.no_grad():
        found: NDArray[Any] = part.eval()(torch.from_numpy(x)).numpy()
    return found


def drawn(part: Part, x: NDArray[Any]) -> NDArray[Any]:
    graph = Graph()
    role: Role = "steps" if x.ndim == 3 else "tokens"
    tensor = graph.block("x", Layout(role, 12, (), x.shape[1:]))
    graph.output("y", part.eval().draw(graph, tensor), "float32", ("N", part.width))
    found: NDArray[Any] = onnxruntime.InferenceSession(to_bytes(graph, name="part")).run(None, {"x": x})[0]
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [[9, 1, 4, 0, 7], [0, 0], [3], [], [9] * 4], ids=str)
def test_a_drawn_encoder_of_steps_answers_as_the_trained_one(kind: str, sizes: list[int]) -> None:
    torch.manual_seed(7)
    part, x = Steps(3, 9, kind=kind, units=16), steps(sizes)
    if sizes:
        np.testing.assert_allclose(drawn(part, x), asked(part, x), atol=2e-5)
    assert drawn(part, x).shape == (len(sizes), part.width)


@pytest.mark.parametrize("kind", ["bag", *KINDS])
@pytest.mark.parametrize("sizes", [[9, 1, 4, 0, 7], [0, 0], []], ids=str)
def test_a_drawn_encoder_of_words_answers_as_the_trained_one(kind: str, sizes: list[int]) -> None:
    torch.manual_seed(7)
    part, x = Tokens(12, 9, kind=kind, units=16), tokens(sizes)
    if sizes:
        np.testing.assert_allclose(drawn(part, x), asked(part, x), atol=2e-5)
    assert drawn(part, x).shape == (len(sizes), part.width)


@pytest.mark.parametrize("kind", ["rnn", "lstm", "tcn"])
def test_ten_thousand_steps_and_none_side_by_side_are_answered_as_in_training(kind: str) -> None:
    torch.manual_seed(7)
    part, x = Steps(2, 10_000, kind=kind, units=8), steps([10_000, 0, 3], 10_000, 2)
    np.testing.assert_allclose(drawn(part, x), asked(part, x), atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_behind_the_end_changes_nothing(kind: str) -> None:
    torch.manual_seed(7)
    part, x = Steps(3, 9, kind=kind, units=16), steps([4, 2, 0])
    np.testing.assert_allclose(asked(part, x), asked(part, x[:, :4]), atol=1e-6)
    np.testing.assert_allclose(asked(part, x)[1:2], asked(part, x[1:2, :2]), atol=1e-5)
    assert (asked(part, x)[2] == 0).all(), "a row without steps is 0"


def test_a_missing_number_within_the_steps_is_at_the_mean_and_the_row_goes_on() -> None:
    torch.manual_seed(7)
    part, x = Steps(3, 9, kind="rnn", units=16), steps([4])
    x[0, 1, 0] = 0.0
    gap = x.copy()
    gap[0, 1, 0] = np.nan
    assert np.array_equal(asked(part, x), asked(part, gap))


def test_a_batch_is_cut_at_its_longest_row() -> None:
    assert together([steps([4, 2, 0])]).shape == (3, 4, 3)
    assert together([steps([4, 2]), steps([1, 5])]).shape == (2, 5, 6)
    assert together([steps([0, 0])]).shape == (2, 1, 3)
    assert together([tokens([3, 0])]).shape == (2, 3)


def test_columns_that_end_together_are_one_sequence() -> None:
    blocks = {"a": steps([4, 2, 0]), "b": steps([4, 2, 1]), "c": steps([4, 2, 0], D=1), "d": steps([4, 2, 0], T=5)}
    assert in_step(blocks) == [("a", "c"), ("b",), ("d",)]


def test_channels_of_one_sequence_may_come_as_columns_of_their_own() -> None:
    from modelinscale.core.task import Task
    from modelinscale.models import Effort, Examples, Model
    from modelinscale.models._deep.learn import built

    chance = np.random.default_rng(7)
    sizes = chance.integers(1, 7, 60).tolist()
    a, b = steps(sizes, 6, 1), steps(sizes, 6, 1)
    layouts = {name: Layout("steps", 6, (), (6, 1)) for name in "ab"}
    target = (np.nan_to_num(a[:, 0, 0]) > 0).astype(np.int64)
    model = Model.parse({"type": "network", "epochs": 1, "units": 8, "width": 8})
    weights = model.fit(Examples(Encoded(layouts, {"a": a, "b": b}), target), None, Task(type="binary", target="y", labels=("no", "yes")), Effort())
    assert [(port.features, port.shape) for port in built(weights).ports] == [(("a", "b"), (6, 2))]


@pytest.mark.parametrize("sizes", [[9, 1, 4, 0, 7], [3], []], ids=str)
def test_attention_in_parts_answers_as_attention_at_once(sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    from modelinscale.models._deep import along

    torch.manual_seed(7)
    part, x = Steps(3, 9, kind="transformer", units=16), steps(sizes)
    whole = drawn(part, x)
    monkeypatch.setattr(along, "_ASKING", 2)
    np.testing.assert_allclose(drawn(part, x), whole, atol=1e-6)


_TEN_THOUSAND = """
import resource, sys
import numpy as np, onnxruntime, torch
from modelinscale.core.encoded import Layout
from modelinscale.core.graph import Graph
from modelinscale.export.proto import to_bytes
from modelinscale.models._deep.sequences import Steps

torch.manual_seed(7)
x = np.random.default_rng(7).normal(size=(1, 10_000, 1)).astype(np.float32)
part, graph = Steps(1, 10_000, kind="transformer", units=16), Graph()
expected = part.train()(torch.from_numpy(x))
expected.sum().backward()
graph.output("y", part.eval().draw(graph, graph.block("x", Layout("steps", 10_000, (), x.shape[1:]))), "float32", ("N", part.width))
found = onnxruntime.InferenceSession(to_bytes(graph, name="part")).run(None, {"x": x})[0]
np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-4)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_attention_over_ten_thousand_steps_holds_no_square_of_them() -> None:
    """Ten thousand steps that look at as many would be 1.6 GB for each product."""
    done = subprocess.run([sys.executable, "-c", _TEN_THOUSAND], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1_500 << 20
