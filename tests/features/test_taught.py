"""Texts cut by a tokenizer that came with an encoder: whatever its kind, the numbers are those of the library it came from, in Python and before the graph."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from modelinscale.core.errors import ModelError
from modelinscale.core.tokenizer import FIRST, Tokenizer
from modelinscale.features.text import Text
from modelinscale.testing import features as suite
from modelinscale.testing.encoders import LINES, LONGEST, MAKERS, save_tokenizer

pytest.importorskip("tokenizers")
Saved = Callable[[str], Path]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    root = tmp_path_factory.mktemp("tokenizers")

    def save(kind: str) -> Path:
        folder: Path = root / kind
        if not folder.exists():
            save_tokenizer(folder, kind)
        return folder

    return save


def text(folder: Path, **settings: object) -> Text:
    found = Text.parse({"type": "text", "tokenizer": str(folder), "at_least": 1, **settings})
    assert isinstance(found, Text)
    return found


@pytest.mark.slow
def test_it_passes_the_suite_of_features(saved: Saved) -> None:
    """Of one kind; the others, tried as well, differ in the library alone."""
    suite.all_of(text(saved("wordpiece"), longest=20), LINES)


@pytest.mark.parametrize("kind", list(MAKERS))
def test_graph_and_python_have_the_same_tokens(saved: Saved, kind: str) -> None:
    feature = text(saved(kind))
    odd = [value for value in feature.examples() if value is None or len(value) < 1_000]
    column = suite.as_column(feature, [*odd, *LINES])
    state = feature.observe(feature.empty(), column)
    found = suite.session(feature, state, "deep")(np.array([value or "" for value in column.to_list()], object))
    np.testing.assert_array_equal(found, feature.encode(state, column, "deep"))


@pytest.mark.parametrize("kind", list(MAKERS))
def test_tokens_are_those_of_the_library_that_saved_it(saved: Saved, kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    feature, lines = text(saved(kind), longest=9), pl.Series([*LINES, "", "ab " * 50])
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(saved(kind) / "tokenizer.json"))
    expected = theirs(lines.to_list(), truncation=True, max_length=9)["input_ids"]
    state = feature.observe(feature.empty(), lines)
    for row, ids in zip(np.asarray(feature.encode(state, lines, "deep")), expected, strict=True):
        assert [token - FIRST for token in row[: len(ids)].tolist()] == ids
        assert not row[len(ids) :].any()


def test_what_somebody_writes_is_text_and_no_sign(saved: Saved) -> None:
    cutter = Tokenizer((saved("wordpiece") / "tokenizer.json").read_text(), 12)
    (ids,) = cutter.ids(["a [SEP] b [PAD]"])
    signs = {number + FIRST for number in (0, 2, 3)}
    assert [place for place, token in enumerate(ids.tolist()) if token in signs] == [0, int((ids > 0).sum()) - 1]


def test_a_state_needs_the_folder_no_more(saved: Saved, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(saved("wordpiece"), tmp_path / "bert"))
    feature, lines = text(folder), pl.Series(LINES)
    state = feature.observe(feature.empty(), lines)
    before = feature.encode(state, lines, "deep")
    shutil.rmtree(folder)
    np.testing.assert_array_equal(feature.encode(feature.settled(state), lines, "deep"), before)


def test_length_is_what_the_rows_have_and_the_tokenizer_is_made_for(saved: Saved) -> None:
    feature = text(saved("wordpiece"))
    for lines, expected in ((["the seat"] * 3, (4, 20)), (["late " * 300] * 3, (LONGEST - 4, LONGEST - 4))):
        state = feature.observe(feature.empty(), pl.Series(lines))
        (T,) = feature.layout(state, "deep").shape
        assert expected[0] <= T <= expected[1]
    (note,) = feature.notes(state, "deep")
    assert note.startswith("3 texts to learn from (100.0%) are cut to their first 60 tokens; the longest has ")


def test_words_in_order_that_are_cut_are_told() -> None:
    for settings, said in (
        ({}, "2 texts to learn from (50.0%) are cut to their first 4 words; the longest has 9."),
        ({"pieces": "subwords"}, "tokens; the longest has about "),
    ):
        feature = Text.parse({"type": "text", "in_order": True, "longest": 4, "at_least": 1, **settings})
        state = feature.observe(feature.empty(), pl.Series(["one two three four five six seven eight nine"] * 2 + ["a b", None]))
        assert any(said in note for note in feature.notes(state, "deep"))
        assert feature.notes(state, "plain") == ()


def test_mistakes_are_told(saved: Saved, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="either `tokenizer`"):
        text(saved("wordpiece"), pieces="subwords")
    with pytest.raises(ModelError, match="`longest: 2` leaves no room for a text: this tokenizer adds 2 signs"):
        suite.encodings_fit_their_layout(text(saved("wordpiece"), longest=2), pl.Series(LINES))
    (tmp_path / "tokenizer.json").write_text("[1]")
    feature = text(tmp_path)
    with pytest.raises(ModelError, match=r"no tokenizer.json that `tokenizers` .* reads"):
        feature.observe(feature.empty(), pl.Series(LINES))


def test_it_is_read_once_before_rows_are_and_sent_to_where_they_are_read(saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes of a cluster have no such folder."""
    import shutil

    from modelinscale.encode import observe_all, observe_piece
    from modelinscale.features import text as module

    folder = Path(shutil.copytree(saved("wordpiece"), tmp_path / "bert"))
    features = {"m": text(folder)}
    begun, frame = {"m": features["m"].begun()}, pl.DataFrame({"m": LINES})
    whole = observe_all(features, frame)
    monkeypatch.setattr(module, "read_tokenizer", None)
    shutil.rmtree(folder)

    class Piece:
        def read_coded(self, names: list[str], coded: list[str]) -> tuple[pl.DataFrame, dict[str, object]]:
            return frame, {}

    assert observe_piece(features, Piece(), begun=begun).settled(features) == whole  # type: ignore[arg-type]


def test_samples_cut_by_different_tokenizers_are_not_merged(saved: Saved) -> None:
    lines = pl.Series(LINES)
    one, other = (text(saved(kind)) for kind in ("wordpiece", "bytes"))
    with pytest.raises(ModelError, match="texts of one column were cut by two tokenizers"):
        one.merge(one.observe(one.empty(), lines), other.observe(other.empty(), lines))


def test_a_package_says_the_name_of_a_folder_and_not_where_it_lay(saved: Saved) -> None:
    from modelinscale.core.elsewhere import unplaced

    plain = text(saved("wordpiece"), longest=9).plain()
    found = unplaced({"m": plain, "path": "/kept", "members": [{"language": {"path": "./a/bert", "share": 1}}]})
    assert found == {
        "m": {**plain, "tokenizer": {**plain["tokenizer"], "path": "wordpiece"}},
        "path": "/kept",
        "members": [{"language": {"path": "bert", "share": 1}}],
    }
    assert isinstance(Text.parse(found["m"]), Text)
