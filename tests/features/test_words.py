"""The same words in Polars and onnxruntime, for every code point there is."""

import numpy as np
import onnxruntime
import polars as pl
import pytest

from modelinscale.core.graph import Graph
from modelinscale.export.proto import to_bytes
from modelinscale.features._words import draw, words


@pytest.fixture(scope="module")
def tokenizer() -> onnxruntime.InferenceSession:
    graph = Graph()
    graph.output("words", draw(graph, graph.input("x", "string")), "string", ("N", "T"))
    return onnxruntime.InferenceSession(to_bytes(graph, name="words"))


def in_python(texts: list[str]) -> list[list[str]]:
    found = words(pl.Series(texts, dtype=pl.String))
    flat = found.distinct.gather(found.ids).to_list()
    ends = np.cumsum(found.counts).tolist()
    return [flat[i:j] for i, j in zip([0, *ends], ends, strict=False)]


def in_graph(session: onnxruntime.InferenceSession, texts: list[str]) -> list[list[str]]:
    rows = session.run(None, {"x": np.array(texts, dtype=object)})[0]
    return [[word for word in row if word] for row in rows.tolist()]


def _code_points(low: int, high: int) -> list[str]:
    return [chr(c) for c in range(low, high) if not 0xD800 <= c <= 0xDFFF]


def _assert_equal_everywhere(session: onnxruntime.InferenceSession, points: list[str]) -> None:
    for start in range(0, len(points), 20_000):
        some = points[start : start + 20_000]
        texts = [*some, *(f"a{c}b" for c in some), *(f"Σ{c}Σ {c}{c}" for c in some)]
        wrong = [(hex(ord(some[i % len(some)])), p, g) for i, (p, g) in enumerate(zip(in_python(texts), in_graph(session, texts), strict=True)) if p != g]
        assert not wrong, f"{len(wrong)} texts differ: {wrong[:5]}"


def test_letters_of_the_common_scripts_give_the_same_words_on_both_sides(tokenizer: onnxruntime.InferenceSession) -> None:
    _assert_equal_everywhere(tokenizer, _code_points(0, 0x3000))
    _assert_equal_everywhere(tokenizer, [*_code_points(0xA640, 0xAC00), *_code_points(0xFB00, 0x10600), *_code_points(0x1E900, 0x1F000)])


@pytest.mark.slow
def test_every_code_point_gives_the_same_words_on_both_sides(tokenizer: onnxruntime.InferenceSession) -> None:
    _assert_equal_everywhere(tokenizer, _code_points(0, 0x110000))


def test_words_are_what_a_reader_would_say() -> None:
    said = {
        "Free entry, 2 weeks!": ["free", "entry", "2", "weeks", "!"],
        "don't e-mail": ["don", "t", "e", "mail"],
        "ÉTÉ à la plage": ["été", "à", "la", "plage"],
        "£5 or $10?": ["£", "5", "or", "$", "10", "?"],
        "日本語 text": ["日", "本", "語", "text"],
        "👍🏽👍": ["👍", "👍"],
        "naïve nai\u0308ve": ["naïve", "nai\u0308ve"],
        " \t\n\u00a0": [],
        "": [],
    }
    assert dict(zip(said, in_python(list(said)), strict=True)) == said


def test_a_text_of_a_megabyte_gives_the_same_words_on_both_sides(tokenizer: onnxruntime.InferenceSession) -> None:
    texts = ["word, " * 175_000, "x" * (1 << 20)]
    assert in_python(texts[:1]) == in_graph(tokenizer, texts[:1])
    assert in_python(texts[1:]) == in_graph(tokenizer, texts[1:]) == [texts[1:]]
