"""What the suite for all families does not say about encoders of images and what is done to training images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from modelinscale.core.encoded import Encoded, Layout
from modelinscale.core.graph import Graph
from modelinscale.core.seeds import generator
from modelinscale.export.proto import to_bytes
from modelinscale.models import Effort, Examples, Model, Weights
from modelinscale.models._deep import loop as looping
from modelinscale.models._deep import vary
from modelinscale.models._deep.feed import Step
from modelinscale.models._torch import torch
from modelinscale.models.network import Network
from modelinscale.testing import models as suite
from modelinscale.testing.kills import Killed, same
from modelinscale.testing.models import TASKS, planted

BINARY = TASKS["binary"]


def pictures(n_rows: int, side: int = 8, channels: int = 1, *, seed: int = 7) -> Examples:
    """Noise; in every second one a bright square somewhere."""
    chance = generator(seed, "pictures")
    target = (np.arange(n_rows) % 2).astype(np.int64)
    pixels = chance.integers(0, 120, (n_rows, side, side, channels), np.uint8)
    for i in np.flatnonzero(target):
        top, left = chance.integers(0, side - side // 2 + 1, 2)
        pixels[i, top : top + side // 2, left : left + side // 2] = 230
    return Examples(Encoded({"p": Layout("image", side * side * channels, (), (side, side, channels))}, {"p": pixels}), target)


def chance(seed: int = 1) -> "torch.Generator":
    return torch.Generator().manual_seed(seed)


def test_a_moved_image_has_its_own_border_beyond_the_border() -> None:
    image = torch.arange(25, dtype=torch.uint8).reshape(1, 5, 5, 1)
    found = {bytes(vary.shifted(image, 2, chance(i)).numpy().tobytes()) for i in range(200)}
    padded = np.pad(image[0, :, :, 0].numpy(), 2, mode="reflect")
    assert found == {padded[i : i + 5, j : j + 5].tobytes() for i in range(5) for j in range(5)}


def test_a_covered_square_has_the_colour_given_and_the_rest_is_as_it_was() -> None:
    image = torch.full((64, 9, 9, 3), 200, dtype=torch.uint8)
    found = vary.covered(image, 4, torch.tensor([1.0, 2.4, 3.6]), chance())
    hidden = (found != 200).any(-1).sum((1, 2))
    assert hidden.max() == 16
    assert hidden.min() >= 4, "a quarter of it is always inside"
    assert {tuple(pixel) for pixel in found[found[..., 0] != 200].tolist()} == {(1, 2, 4)}


def test_mixed_images_and_answers_come_from_the_same_two_rows() -> None:
    step = Step({"image0": torch.arange(6.0).reshape(6, 1, 1, 1)}, torch.arange(6.0), torch.arange(6.0))
    found = vary.mixed(step, ("image0",), 1.0, chance())
    assert found.other is not None
    expected = step.target * (1 - found.other.share) + found.other.target * found.other.share
    assert torch.allclose(found.batch["image0"].flatten(), expected)
    assert found.other.weight is not None
    assert torch.equal(found.other.weight, found.other.target)
    pieces = [piece.other for piece in found.pieces(4)]
    assert torch.equal(torch.cat([one.target for one in pieces if one is not None]), found.other.target)


@pytest.mark.parametrize("type", ["binary", *(pytest.param(one, marks=pytest.mark.slow) for one in ("multiclass", "regression"))])
def test_varied_images_are_learned_from_whatever_is_asked(type: str) -> None:
    given, task = pictures(160), TASKS[type]  # type: ignore[index]
    target = given.target.astype(np.float64) if type == "regression" else given.target
    given = Examples(given.rows, target)
    model = Network(maps=4, epochs=8, batch_rows=16, learning_rate=0.02, cut_out=0.3, mix_up=0.2, flip=True, shift=0.1)
    weights = model.fit(given, None, task, Effort(n_threads=1))
    test = pictures(100, seed=8)
    scores = model.predict(weights, test.rows)
    said = scores[:, 1] > scores[:, 0] if scores.ndim == 2 else scores > (0.5 if type == "regression" else 0)
    assert (said == test.target).mean() > 0.9


def test_killed_and_resumed_varied_images_end_at_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looping, "_TELL_S", 0.0)
    given = pictures(64)
    model = Network(maps=4, epochs=4, batch_rows=16, cut_out=0.4, mix_up=0.5, flip=True)

    def killed(share: float, note: str) -> None:
        if share > 0.4:
            raise Killed

    with pytest.raises(Killed):
        model.fit(given, None, BINARY, Effort(n_threads=1, checkpoints=tmp_path, checkpoint_s=0, progress=killed))
    resumed = model.fit(given, None, BINARY, Effort(n_threads=1, checkpoints=tmp_path))
    assert same(model.fit(given, None, BINARY, Effort(n_threads=1)), resumed)
    assert not same(model.model_copy(update={"mix_up": 0.0}).fit(given, None, BINARY, Effort(n_threads=1)), resumed)


def test_mixing_is_refused_where_there_are_other_columns() -> None:
    given = planted("deep", "binary", n_rows=60)
    assert "`mix_up` mixes images alone" in Network(mix_up=0.2).accepts(BINARY, given.layouts)
    assert Network(mix_up=0.2).accepts(BINARY, pictures(4).layouts) == ""


@pytest.mark.parametrize("side", [1, 2, 5, 8, 33, 130])
@pytest.mark.parametrize(("kind", "channels", "flip"), [("resnet", 1, False), ("resnet", 3, True), ("convnext", 3, False), ("convnext", 1, True)])
def test_graph_and_python_agree_for_each_encoder_and_size(kind: str, channels: int, flip: bool, side: int) -> None:
    given = pictures(4, side, channels)
    model = Network.parse({"type": "network", "image": kind, "maps": 4, "epochs": 1, "batch_rows": 4, "flip": flip})
    weights = shaken(model.fit(given, None, BINARY, Effort(n_threads=1)))
    expected = model.predict(weights, given.rows)
    assert np.ptp(expected) > 0
    assert np.abs(drawn(model, weights, given) - expected).max() <= 1e-4 * max(1.0, float(np.abs(expected).max()))


def shaken(weights: Weights) -> Weights:
    """Other weights of every sign, as long training might have left them; spreads stay positive."""
    noise = generator(7, "shaken")
    arrays = {name: values + (noise.normal(size=values.shape) * 0.3).astype(values.dtype) for name, values in weights.arrays.items()}
    return Weights({name: np.abs(v) + 0.1 if "running_var" in name or "deviation" in name else v for name, v in arrays.items()}, weights.meta)


def drawn(model: Network, weights: Weights, given: Examples) -> NDArray[np.float32]:
    """What the graph answers."""
    import onnxruntime

    graph = Graph()
    tensor = model.graph(weights, BINARY, given.layouts, graph, {"p": graph.block("p", given.layouts["p"])})
    graph.output("scores", tensor, "float32", ("N",))
    session = onnxruntime.InferenceSession(to_bytes(graph, name="m"))
    found: NDArray[np.float32] = session.run(None, {"p": np.asarray(given.rows["p"]).astype(np.float32)})[0]
    return found


def test_with_flip_an_image_and_its_mirror_image_get_the_same_answer_unless_told_otherwise() -> None:
    given = pictures(32)
    turned = Encoded(given.layouts, {"p": np.ascontiguousarray(np.asarray(given.rows["p"])[:, :, ::-1])})
    for mirror in (True, False):
        model = Network(maps=4, epochs=2, batch_rows=16, flip=True, mirror=mirror)
        weights = model.fit(given, None, BINARY, Effort(n_threads=1))
        assert np.allclose(model.predict(weights, given.rows), model.predict(weights, turned), atol=1e-5) == mirror


def test_large_images_go_through_another_encoder_than_small_ones() -> None:
    for side, kind in ((127, "resnet"), (128, "convnext")):
        weights = Network(maps=4, epochs=1).fit(pictures(2, side), None, BINARY, Effort(n_threads=1))
        assert weights.meta["ports"][0]["settings"]["encoder"] == kind


@pytest.mark.slow  # in fast runs its graph is held against Python for every size
def test_the_encoder_of_large_images_learns() -> None:
    model = Network(image="convnext", maps=4, epochs=8, batch_rows=16, learning_rate=0.01)
    weights = model.fit(pictures(160), None, BINARY, Effort(n_threads=1))
    test = pictures(100, seed=8)
    assert ((model.predict(weights, test.rows) > 0) == test.target).mean() > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("check", [suite.learns_a_planted_signal, suite.graph_equals_python], ids=lambda check: str(check.__name__))
def test_the_encoder_of_large_images_passes_the_suite_beside_all_other_columns(check: Callable[[Model, Any], None]) -> None:
    settings = {"image": "convnext", "maps": 8, "width": 32, "members": 2, "units": 16, "sequence": "tcn", "text": "bag", "epochs": 12, "bins": 8}
    check(Network.parse({"type": "network", "learning_rate": 0.02, "batch_rows": 64, **settings}), "binary")
