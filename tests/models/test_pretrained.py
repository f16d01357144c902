"""A network begins with weights from a file: checked, fine-tuned or left as they are, drawn into the graph, refused with a reason where they do not fit."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from modelinscale.core.encoded import Encoded, Layout
from modelinscale.core.errors import ModelError
from modelinscale.core.graph import Graph
from modelinscale.core.seeds import generator
from modelinscale.export.proto import to_bytes
from modelinscale.models import Effort, Examples
from modelinscale.models._deep.feed import Step
from modelinscale.models._deep.pretrained import Body, _timm
from modelinscale.models._deep.strategy import across_processes
from modelinscale.models.network import Network
from modelinscale.testing.models import TASKS

pytest.importorskip("onnxscript")
BINARY = TASKS["binary"]
SIDE = 32


@pytest.fixture(scope="module")
def timm() -> Any:
    return _timm()


@pytest.fixture(scope="module")
def saved(timm: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A file of an architecture's weights, as they are before any training, its last layer of ten classes included."""
    from safetensors.torch import save_file

    root = tmp_path_factory.mktemp("weights")

    def save(architecture: str) -> Path:
        file: Path = root / f"{architecture}.safetensors"
        if not file.exists():
            save_file(timm.create_model(architecture, pretrained=False, num_classes=10).state_dict(), file)
        return file

    return save


def pictures(n_rows: int, channels: int, side: int = SIDE, *, seed: int = 7) -> Examples:
    """Noise; in every second one a bright square somewhere."""
    chance = generator(seed, "pictures")
    target = (np.arange(n_rows) % 2).astype(np.int64)
    pixels = chance.integers(0, 120, (n_rows, side, side, channels), np.uint8)
    for i in np.flatnonzero(target):
        top, left = chance.integers(0, side // 2, 2)
        pixels[i, top : top + side // 2, left : left + side // 2] = 230
    return Examples(Encoded({"p": Layout("image", side * side * channels, (), (side, side, channels))}, {"p": pixels}), target)


def network(file: Path, architecture: str, **settings: Any) -> Network:
    share = settings.pop("share", 0.5)
    pretrained = {"architecture": architecture, "path": str(file), "share": share}
    return Network.parse({"type": "network", "pretrained": pretrained, "epochs": 2, "batch_rows": 8, "shift": 0, **settings})


def drawn(model: Network, weights: Any, given: Examples) -> NDArray[np.float32]:
    """What the graph answers."""
    import onnxruntime

    graph = Graph()
    tensor = model.graph(weights, BINARY, given.layouts, graph, {"p": graph.block("p", given.layouts["p"])})
    graph.output("scores", tensor, "float32", ("N",))
    found: NDArray[np.float32] = onnxruntime.InferenceSession(to_bytes(graph, name="m")).run(None, {"p": np.asarray(given.rows["p"]).astype(np.float32)})[0]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "channels", "settings"), [("test_resnet", 3, {}), ("test_vit", 1, {"share": 0.0, "flip": True})])
def test_weights_of_a_file_are_trained_on_and_the_graph_answers_as_python(
    saved: Callable[[str], Path], architecture: str, channels: int, settings: dict[str, Any]
) -> None:
    given = pictures(12, channels, 160 if architecture == "test_vit" else SIDE)
    model = network(saved(architecture), architecture, **settings)
    weights = model.fit(given, None, BINARY, Effort(n_threads=1))
    scores = model.predict(weights, given.rows)
    assert np.ptp(scores) > 0
    assert np.abs(drawn(model, weights, given) - scores).max() <= 1e-4
    assert np.abs(drawn(model, weights, Examples(given.rows.slice(0, 1), given.target[:1])) - scores[:1]).max() <= 1e-4, "a row by itself"


def test_frozen_weights_stay_and_others_move_a_little_while_the_head_learns(saved: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.numpy import load_file

    monkeypatch.setattr(Body, "draw_seen", lambda self, graph, tensor: tensor)  # another test draws
    file, given = saved("test_resnet"), pictures(16, 3)
    before = load_file(file)
    moved = {}
    for share in (0.0, 0.01, 1.0):
        weights = network(file, "test_resnet", share=share).fit(given, None, BINARY, Effort(n_threads=1))
        body = {name.partition("body.")[2]: values for name, values in weights.arrays.items() if "body." in name}
        moved[share] = max(float(np.abs(body[name] - before[name]).max()) for name in body if name.endswith("conv1.weight"))
        if share == 0:
            assert all(np.array_equal(body[name], before[name]) for name in body), "what it knows of batches too"
    assert 0 == moved[0.0] < moved[0.01] < moved[1.0]


def test_more_rows_bring_it_up_to_date(saved: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Body, "draw_seen", lambda self, graph, tensor: tensor)
    given, model = pictures(16, 3), network(saved("test_resnet"), "test_resnet", epochs=1)
    weights = model.fit(given, None, BINARY, Effort(n_threads=1))
    newer = model.update(weights, given, None, BINARY, Effort(n_threads=1))
    assert any(not np.array_equal(newer.arrays[name], weights.arrays[name]) for name in weights.arrays if "body." in name)


@pytest.fixture
def group_of_one(tmp_path: Path) -> Iterator[None]:
    """As far as layers know, a process of several."""
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("architecture", ["test_resnet", "test_efficientnet", "mobilenetv3_small_050"])
def test_several_processes_keep_what_follows_a_normalisation_in_the_same_layer(timm: Any, group_of_one: None, architecture: str) -> None:
    import torch

    torch.manual_seed(0)
    alone = timm.create_model(architecture, num_classes=0, drop_rate=0.0, drop_path_rate=0.0).train()
    together = copy.deepcopy(alone)
    across_processes(together)
    x = torch.randn(4, 3, 64, 64)
    for mode in (True, False):
        one, other = alone.train(mode)(x), together.train(mode)(x)
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4 * float(one.detach().abs().max()))
    assert list(together.state_dict()) == list(alone.state_dict())


def test_several_processes_refuse_a_normalisation_that_does_what_they_do_not_know() -> None:
    import torch

    class Shouting(torch.nn.BatchNorm2d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) * 100

    with pytest.raises(ModelError, match=r"1: several processes cannot normalise together by .*Shouting, which does more"):
        across_processes(torch.nn.Sequential(torch.nn.Identity(), Shouting(2)))


@pytest.mark.parametrize(("n_rows", "settings"), [(9, {"batch_rows": 8}), (9, {"batch_rows": 9, "accumulate": 4}), (6, {"batch_rows": 3, "accumulate": 3})])
def test_a_row_by_itself_is_learned_from_by_what_is_known_of_batches(
    saved: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, n_rows: int, settings: dict[str, int]
) -> None:
    monkeypatch.setattr(Body, "draw_seen", lambda self, graph, tensor: tensor)
    given = pictures(n_rows, 3)  # of 32 pixels: test_resnet ends in one place, so a batch of one row leaves one value a map
    weights = network(saved("test_resnet"), "test_resnet", **{"epochs": 1, **settings}).fit(given, None, BINARY, Effort(n_threads=1))
    assert all(np.isfinite(values).all() for values in weights.arrays.values())


@pytest.mark.parametrize(("n_rows", "n", "sizes"), [(9, 4, [2, 2, 2, 3]), (10, 3, [3, 3, 4]), (3, 3, [3]), (1, 4, [1]), (20, 24, [2] * 10)])
def test_pieces_of_a_step_have_two_rows_or_more(n_rows: int, n: int, sizes: list[int]) -> None:
    import torch

    step = Step({"x": torch.arange(n_rows)}, torch.arange(n_rows), None)
    pieces = list(step.pieces(n))
    assert [len(piece) for piece in pieces] == sizes
    assert torch.equal(torch.cat([piece.target for piece in pieces]), step.target)


def fit(file: Path, architecture: str, side: int = SIDE) -> None:
    network(file, architecture).fit(pictures(4, 3, side), None, BINARY, Effort(n_threads=1))


def test_weights_that_do_not_fit_are_refused_with_a_reason(saved: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no architecture 'test_resnit'.* Did you mean 'test_resnet'"):
        fit(saved("test_vit"), "test_resnit")
    with pytest.raises(ModelError, match=r"there is no file .*nowhere"):
        fit(tmp_path / "nowhere.safetensors", "test_vit")
    with pytest.raises(ModelError, match=r"holds no weights of test_resnet: it lacks .* more; it has .* besides"):
        fit(saved("test_vit"), "test_resnet")
    (tmp_path / "cut.safetensors").write_bytes(saved("test_vit").read_bytes()[:999])
    with pytest.raises(ModelError, match="cannot be read as weights"):
        fit(tmp_path / "cut.safetensors", "test_vit")


def test_a_file_that_would_run_code_is_not_loaded(tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "touched",))

    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ModelError, match="cannot be read as weights"):
        fit(tmp_path / "evil.pth", "test_vit")
    assert not (tmp_path / "touched").exists()


def test_positions_for_another_size_are_refused_with_the_size(saved: Callable[[str], Path]) -> None:
    with pytest.raises(ModelError, match=r"pos_embed is .* here") as caught:
        fit(saved("test_vit"), "test_vit", side=64)
    assert "`size: 160`" in str(caught.value.fix)


def test_one_source_of_weights_is_wanted() -> None:
    for wrong in ({"architecture": "resnet18"}, {"architecture": "resnet18", "path": "x", "hub": True}):
        with pytest.raises(ValidationError, match="either `path`"):
            Network.parse({"type": "network", "pretrained": wrong})


def test_the_hub_is_asked_only_where_told_and_says_when_it_cannot_be_reached(timm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    model = Network.parse({"type": "network", "pretrained": {"architecture": "test_resnet.r160_in1k", "hub": True}})
    with pytest.raises(ModelError, match="its weights cannot be fetched"):
        model.fit(pictures(4, 3), None, BINARY, Effort(n_threads=1))
