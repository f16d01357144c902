"""A network begins with an encoder of texts from a folder: cut by its own tokenizer, fine-tuned or left, drawn into the graph, refused with a reason."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from modelinscale.core.encoded import Encoded, Layout
from modelinscale.core.errors import ModelError
from modelinscale.core.graph import Graph
from modelinscale.export.proto import to_bytes
from modelinscale.features.text import Text
from modelinscale.models import Effort, Examples, Weights
from modelinscale.models._deep.languages import Reader
from modelinscale.models.ensemble import Ensemble
from modelinscale.models.network import Network
from modelinscale.testing.encoders import LONGEST, save_encoder
from modelinscale.testing.models import TASKS

pytest.importorskip("transformers")
pytest.importorskip("onnxscript")
BINARY = TASKS["binary"]
TOKENIZERS = {"roberta": "bytes", "xlm-roberta": "unigram", "modernbert": "bytes"}
Saved = Callable[[str], Path]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """A folder of a small encoder of an architecture."""
    root = tmp_path_factory.mktemp("encoders")

    def save(architecture: str) -> Path:
        folder: Path = root / architecture
        return folder if folder.exists() else save_encoder(folder, architecture, TOKENIZERS.get(architecture, "wordpiece"))

    return save


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is exported: another test does that."""
    monkeypatch.setattr(Reader, "draw", lambda self, graph, tensor: tensor)


def messages(folder: Path, n_rows: int = 12, **settings: Any) -> Examples:
    """Every second one is unhappy; the longest has 14 words, one is empty, one is missing."""
    texts: list[str | None] = [f"the {'unhappy' if i % 2 else 'friendly'} driver was late " + "and late " * (i % 5) for i in range(n_rows)]
    texts[3], texts[4] = "", None
    text, values = Text.parse({"type": "text", "tokenizer": str(folder), "at_least": 1, **settings}), pl.Series(texts)
    state = text.observe(text.empty(), values)
    layouts = {"m": text.layout(state, "deep")}
    return Examples(Encoded(layouts, {"m": text.encode(state, values, "deep")}), (np.arange(n_rows) % 2).astype(np.int64))


def network(folder: Path, **settings: Any) -> Network:
    language = {"path": str(folder), "share": settings.pop("share", 0.5)}
    return Network.parse({"type": "network", "language": language, "epochs": 2, "batch_rows": 4, "width": 8, **settings})


def fit(folder: Path, given: Examples | None = None, **settings: Any) -> Weights:
    return network(folder, **settings).fit(given or messages(folder), None, BINARY, Effort(n_threads=1))


def drawn(model: Network, weights: Weights, given: Examples) -> Callable[[Any], NDArray[np.float32]]:
    """The graph, as a function of rows' tokens."""
    import onnxruntime

    graph = Graph()
    tensor = model.graph(weights, BINARY, given.layouts, graph, {"m": graph.block("m", given.layouts["m"])})
    graph.output("scores", tensor, "float32", ("N",))
    session = onnxruntime.InferenceSession(to_bytes(graph, name="m"))

    def run(rows: Any) -> NDArray[np.float32]:
        found: NDArray[np.float32] = session.run(None, {"m": np.asarray(rows).astype(np.int64)})[0]
        return found

    return run


_ARCHITECTURES = ["roberta", "modernbert"]
"""Places from behind the padding, and turned; distilbert's, from the first token, goes the whole road in tests/pipeline."""


@pytest.mark.slow
@pytest.mark.parametrize("architecture", _ARCHITECTURES)
def test_an_encoder_of_a_folder_is_trained_on_and_the_graph_answers_as_python(saved: Saved, architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(architecture)
    given, model = messages(folder), network(folder)
    with monkeypatch.context() as patched:
        patched.setattr(Reader, "draw", lambda self, graph, tensor: tensor)  # once is enough here
        weights = fit(folder, given)
    scores, run = model.predict(weights, given.rows), drawn(model, weights, given)
    assert np.ptp(scores) > 0
    rows = np.asarray(given.rows["m"])
    assert np.abs(run(rows) - scores).max() <= 1e-4
    assert np.abs(run(rows[:1]) - scores[:1]).max() <= 1e-4, "a row by itself"
    short = np.asarray([3, 4])
    assert np.abs(run(rows[short]) - scores[short]).max() <= 1e-4, "texts that are empty or missing, among themselves"
    one = np.zeros_like(rows[:2])
    one[0, 0] = rows[0, 0]
    expected = model.predict(weights, Encoded(given.layouts, {"m": one}))
    assert np.isfinite(expected).all()
    assert np.abs(run(one) - expected).max() <= 1e-4, "a text of one token, and one of none"
    assert run(rows[:0]).shape == (0,)


def test_frozen_weights_stay_and_others_move_a_little_while_the_head_learns(saved: Saved, undrawn: None) -> None:
    from safetensors.numpy import load_file

    folder = saved("distilbert")
    before, moved = load_file(folder / "model.safetensors"), {}
    for share in (0.0, 0.01, 1.0):
        weights = fit(folder, share=share)
        body = {name.partition("body.inner.")[2]: values for name, values in weights.arrays.items() if "body.inner." in name}
        assert set(body) == set(before)
        moved[share] = max(float(np.abs(body[name] - before[name]).max()) for name in body)
    assert 0 == moved[0.0] < moved[0.01] < moved[1.0]


def test_a_frozen_encoder_answers_the_same_in_training_and_afterwards(saved: Saved, undrawn: None) -> None:
    import torch

    folder = saved("distilbert")
    given = messages(folder)
    settings = {name: value for port in fit(folder, given, share=0).meta["ports"] for name, value in port["settings"].items()}
    reader, rows = Reader(LONGEST, settings["config"], 0.0, {}), torch.from_numpy(np.asarray(given.rows["m"]).astype(np.int64))
    assert torch.equal(reader.train()(rows), reader.eval()(rows)), "nothing of it is left out at random"
    assert not any(one.requires_grad for one in reader.parameters())


def test_what_stands_behind_an_end_changes_nothing(saved: Saved, undrawn: None) -> None:
    folder = saved("distilbert")
    model, given, wider = network(folder), messages(folder), messages(folder, longest=50)
    weights = fit(folder, given)
    a = model.predict(weights, given.rows)
    meta = {**weights.meta, "ports": [{**port, "shape": [50]} for port in weights.meta["ports"]]}
    assert np.abs(model.predict(Weights(weights.arrays, meta), wider.rows) - a).max() <= 1e-5


def test_more_rows_bring_it_up_to_date_without_its_folder(saved: Saved, undrawn: None, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved("distilbert"), tmp_path / "bert"))
    given, model = messages(folder), network(folder)
    weights = model.fit(given, None, BINARY, Effort(n_threads=1))
    shutil.rmtree(folder)
    newer = model.update(weights, given, None, BINARY, Effort(n_threads=1))
    assert any(not np.array_equal(newer.arrays[name], weights.arrays[name]) for name in weights.arrays if "body." in name)


def test_killed_and_resumed_it_ends_at_the_same_bits(saved: Saved, undrawn: None, tmp_path: Path) -> None:
    folder = saved("distilbert")
    given, model = messages(folder), network(folder, epochs=3)

    class Killed(Exception):
        pass

    def kill(share: float, note: str) -> None:
        if share > 0.5:
            raise Killed

    with pytest.raises(Killed):
        model.fit(given, None, BINARY, Effort(n_threads=1, checkpoints=tmp_path, checkpoint_s=0, progress=kill))
    resumed = model.fit(given, None, BINARY, Effort(n_threads=1, checkpoints=tmp_path))
    straight = model.fit(given, None, BINARY, Effort(n_threads=1))
    assert all(np.array_equal(resumed.arrays[name], straight.arrays[name]) for name in straight.arrays)


def test_memory_is_told_before_a_step_is_taken(saved: Saved, undrawn: None) -> None:
    folder = saved("distilbert")
    with pytest.raises(ModelError, match=r"a step of 4 rows needs about .* are left for it"):
        network(folder).fit(messages(folder), None, BINARY, Effort(n_threads=1, memory=1 << 20))


def test_weights_that_came_are_held_once_and_drawn_by_one_process(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    import weakref

    from modelinscale.models._deep import languages, learn, size

    came: list[weakref.ref[NDArray[Any]]] = []
    held: list[weakref.ref[NDArray[Any]]] = []
    drawn: list[str] = []
    read, fitting = languages.reader_of, size.fitting

    def reading(*given: Any) -> Any:
        settings, known = read(*given)
        came.extend(weakref.ref(values) for values in known.values())
        return settings, known

    def before_the_first_step(*given: Any, **more: Any) -> Any:
        held.extend(one for one in came if one() is not None)
        return fitting(*given, **more)

    monkeypatch.setattr(languages, "reader_of", reading)
    monkeypatch.setattr(learn, "fitting", before_the_first_step)
    monkeypatch.setattr(Reader, "draw", lambda self, graph, tensor: drawn.append(tensor))
    folder = saved("distilbert")
    given = messages(folder)
    fit(folder, given)
    assert came
    assert not held
    assert len(drawn) == 1
    learn._ports(network(folder), given, draws=False)  # as those do that do not lead
    assert len(drawn) == 1


def test_it_is_named_with_its_license(saved: Saved, undrawn: None) -> None:
    folder = saved("distilbert")
    weights = fit(folder)
    (origin,) = network(folder).origins(weights)
    assert {name: value for name, value in origin.items() if name != "sha256"} == {
        "column": "m",
        "architecture": "distilbert",
        "source": "distilbert",
        "license": "apache-2.0",
        "revision": None,
    }
    assert origin["sha256"] == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:16]
    assert str(folder.parent) not in json.dumps(weights.meta), "where it lay on this machine is nobody's business"


def changed(folder: Path, target: Path, **settings: Any) -> Path:
    """A copy with other settings of the architecture."""
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | settings))
    return target


def test_folders_that_do_not_do_are_refused_with_a_reason(saved: Saved, tmp_path: Path) -> None:
    good = saved("distilbert")
    given = messages(good)
    with pytest.raises(ModelError, match=r"there is no folder .*nowhere"):
        fit(tmp_path / "nowhere", given)
    for name in ("config.json", "tokenizer.json"):
        less = Path(shutil.copytree(good, tmp_path / f"no-{name}"))
        (less / name).unlink()
        with pytest.raises(ModelError, match=rf"has no {name}, .*; there: .*model.safetensors"):
            fit(less, given)
    (less / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"no tokenizer.json that `tokenizers` .* reads"):
        messages(less)
    cut = Path(shutil.copytree(good, tmp_path / "cut"))
    (cut / "model.safetensors").write_bytes((good / "model.safetensors").read_bytes()[:999])
    with pytest.raises(ModelError, match="its weights cannot be read"):
        fit(cut, given)
    with pytest.raises(ModelError, match=r"not those of its config.json .*they lack transformer.layer.2"):
        fit(changed(good, tmp_path / "deeper", n_layers=3), given)
    with pytest.raises(ModelError, match=r"not those of its config.json .*of another size"):
        fit(changed(good, tmp_path / "wider", hidden_dim=48), given)
    smaller = save_encoder(tmp_path / "smaller", "distilbert", vocab_size=40)
    shutil.copy(good / "tokenizer.json", smaller)
    with pytest.raises(ModelError, match=r"tokenizer has \d+ pieces, and its encoder knows 40"):
        fit(smaller, given)


def test_pickled_weights_are_never_read(saved: Saved, tmp_path: Path) -> None:
    good = saved("distilbert")
    given = messages(good)
    pickled = Path(shutil.copytree(good, tmp_path / "pickled"))
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"has no model.safetensors; there is only pytorch_model.bin, which is pickled"):
        fit(pickled, given)


def test_an_index_names_safetensors_of_its_own_folder_and_nothing_else(saved: Saved, undrawn: None, tmp_path: Path) -> None:
    """Weights in several files, with the heads that they were trained with, learn as one file does; pickled ones are not opened, whatever names them."""
    import torch
    import transformers

    good = saved("distilbert")
    given = messages(good)
    whole = transformers.AutoModelForMaskedLM.from_pretrained(good)
    parts = Path(shutil.copytree(good, tmp_path / "parts"))
    (parts / "model.safetensors").unlink()
    whole.save_pretrained(parts, max_shard_size="20KB")
    assert len(list(parts.glob("model-*.safetensors"))) > 1
    one, several = (network(folder).fit(given, None, BINARY, Effort(n_threads=1)) for folder in (good, parts))
    assert all(np.array_equal(one.arrays[name], several.arrays[name]) for name in one.arrays)
    bad = Path(shutil.copytree(parts, tmp_path / "bad"))
    ran = tmp_path / "ran"
    torch.save({"a": _Runs(ran)}, bad / "w.bin")
    (tmp_path / "w.safetensors").write_bytes(b"")
    index = json.loads((bad / "model.safetensors.index.json").read_text())
    for name, said in (
        ("w.bin", "names 'w.bin', which is no safetensors file"),
        ("../w.safetensors", "names '../w.safetensors', which is no safetensors"),
        ("/w.safetensors", "which is no safetensors file of its folder"),
        (7, "names '7', which"),
        ("gone.safetensors", "has no gone.safetensors, a file of weights that its model.safetensors.index.json names"),
    ):
        (bad / "model.safetensors.index.json").write_text(json.dumps({**index, "weight_map": {**index["weight_map"], "x": name}}))
        with pytest.raises(ModelError, match=said):
            fit(bad, given)
    (bad / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(index["weight_map"], "w.bin")}))
    with pytest.raises(ModelError, match=r"names 'w.bin'"):
        fit(bad, given)
    (bad / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ModelError, match="names no files of weights"):
        fit(bad, given)
    config = json.loads((good / "config.json").read_text())
    shutil.copy(good / "model.safetensors", bad)
    (bad / "config.json").write_text(json.dumps({**config, "transformers_weights": "w.bin"}))
    fit(bad, given, epochs=1)  # whatever else the folder says to load
    assert not ran.exists()


class _Runs:
    """Pickled, it says so when it is read."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def test_an_encoder_that_no_column_goes_to_is_refused_with_what_to_write(saved: Saved) -> None:
    """Instead of a network that learns without it."""
    model, taught = network(saved("distilbert")), messages(saved("distilbert"))
    assert model.accepts(BINARY, taught.layouts) == ""
    for settings in ({}, {"in_order": True}):
        text = Text.parse({"type": "text", "at_least": 1, **settings})
        state = text.observe(text.empty(), pl.Series(["a b", "c"]))
        why = model.accepts(BINARY, {"size": Layout("dense", 1, ("",)), "m": text.layout(state, "deep")})
        assert f'write `features: {{m: {{type: text, tokenizer: "{saved("distilbert")}"}}}}`' in why
    assert "features: {message: {type: text" in model.accepts(BINARY, {"size": Layout("dense", 1, ("",))})
    seen = Network.parse({"type": "network", "pretrained": {"architecture": "resnet18", "path": "w.safetensors"}})
    assert "`pretrained` is an encoder of images, and there are none: write `features: {photo: image}`" in seen.accepts(BINARY, taught.layouts)
    assert seen.accepts(BINARY, {"photo": Layout("image", 48, (), (4, 4, 3))}) == ""


def test_decoders_and_code_of_strangers_are_refused(saved: Saved, tmp_path: Path) -> None:
    good = saved("distilbert")
    given = messages(good)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"model_type": "gpt2"}, "gpt2 is a decoder, which sees a text only up to each word"),
        ({"model_type": "bert", "is_decoder": True}, "bert is a decoder"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "t5 is an encoder and a decoder"),
        ({"model_type": "mine", "auto_map": {"AutoModel": "mine.Mine"}}, "no architecture 'mine'; it would run code of its own, which is never done"),
        ({"model_type": "distilbertt"}, "no architecture 'distilbertt'.* Did you mean 'distilbert'"),
    ]
    for i, (settings, said) in enumerate(refused):
        with pytest.raises(ModelError, match=said):
            fit(changed(good, tmp_path / str(i), **settings), given)


def test_tokens_of_another_tokenizer_are_refused_with_what_to_write(saved: Saved) -> None:
    with pytest.raises(ModelError, match="column 'm' is cut into another tokenizer's pieces") as caught:
        fit(saved("distilbert"), messages(saved("roberta")))
    assert f'm: {{type: text, tokenizer: "{saved("distilbert")}"}}' in str(caught.value.fix)


@pytest.mark.parametrize(("architecture", "most"), [("distilbert", LONGEST), ("roberta", LONGEST - 2)])
def test_texts_longer_than_there_are_places_for_are_refused_with_the_number(saved: Saved, undrawn: None, architecture: str, most: int) -> None:
    folder = saved(architecture)
    with pytest.raises(ModelError, match=rf"has up to {most + 1} tokens a text, and {architecture} has places for {most}") as caught:
        fit(folder, messages(folder, longest=most + 1))
    assert f"longest: {most}" in str(caught.value.fix)
    fit(folder, messages(folder, longest=most), epochs=1)


def test_one_place_is_wanted() -> None:
    for wrong in ({}, {"path": "x", "hub": "y"}, {"path": "x", "revision": "z"}, {"hub": "a b"}):
        with pytest.raises(ValidationError, match=r"either `path`|belongs to `hub`|pattern"):
            Network.parse({"type": "network", "language": wrong})
    assert Network.parse({"type": "network", "language": "./bert"}).language == Network.parse({"type": "network", "language": {"path": "./bert"}}).language


def test_the_hub_is_asked_only_where_told_and_says_when_it_cannot_be_reached(saved: Saved, undrawn: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    given = messages(saved("distilbert"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    model = Network.parse({"type": "network", "language": {"hub": "someone/some-bert-nobody-has", "revision": "v1"}, "epochs": 1})
    with pytest.raises(ModelError, match="'someone/some-bert-nobody-has' at 'v1' cannot be fetched from the hub"):
        model.fit(given, None, BINARY, Effort(n_threads=1))
    asked: list[Any] = []

    def fetched(name: str, **more: Any) -> str:
        asked.append((name, more["revision"]))
        return str(saved("distilbert"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    (origin,) = model.origins(model.fit(given, None, BINARY, Effort(n_threads=1)))
    assert asked == [("someone/some-bert-nobody-has", "v1")]
    assert (origin["source"], origin["revision"]) == ("someone/some-bert-nobody-has", "v1")


def test_places_are_taken_from_where_model_yaml_lies(tmp_path: Path) -> None:
    from modelinscale.pipeline._place import Place
    from modelinscale.spec import loads

    network = "{type: network, language: ./bert, pretrained: {architecture: resnet18, path: w.safetensors}}"
    for model in (network, f"{{type: ensemble, members: [linear, {network}]}}"):
        spec = loads(
            f"data: {{source: a.csv}}\ntarget: y\nfeatures: {{m: {{type: text, tokenizer: bert}}, s: {{type: text, tokenizer: {{hub: b}}}}}}\nmodel: {model}\n"
        )
        found = spec.model_at(tmp_path)
        found = found.members[-1] if isinstance(found, Ensemble) else found
        assert isinstance(found, Network)
        assert found.language is not None
        assert found.pretrained is not None
        assert (found.language.path, found.pretrained.path) == (str(tmp_path / "bert"), str(tmp_path / "w.safetensors"))
        features = Place.of(spec, tmp_path).located(spec.features)
        assert [one.tokenizer.path for one in features.values() if isinstance(one, Text) and one.tokenizer] == [str(tmp_path / "bert"), None]
        assert spec.features["m"].plain()["tokenizer"]["path"] == "bert", "what is written down stays as it was written"
