"""A graph as plain data."""

import numpy as np
import pytest

from modelinscale.core.graph import Graph


def test_a_column_enters_once_and_under_one_type() -> None:
    graph = Graph()
    assert graph.input("a", "float64") == graph.input("a", "float64")
    assert len(graph.inputs) == 1
    with pytest.raises(AssertionError, match="enters as two types"):
        graph.input("a", "string")


def test_no_column_name_can_be_taken_for_a_tensor_of_ours() -> None:
    graph = Graph()
    tensors = [graph.input(name, "float64") for name in ("t1", "c2", "column c2", "")]
    tensors += [graph.constant(1.0), graph.op("Neg", tensors[0])]
    assert len(set(tensors)) == len(tensors)


def test_small_constants_are_kept_once_large_ones_and_other_types_apart() -> None:
    graph = Graph()
    assert graph.constant([1], np.int64) == graph.constant([1], np.int64)
    assert graph.constant(1, np.int64) != graph.constant([1], np.int64)
    assert graph.constant(1.0, np.float32) != graph.constant(1.0, np.float64)
    assert graph.constant(0.0) != graph.constant(-0.0)
    assert graph.constant(np.zeros(1000)) != graph.constant(np.zeros(1000))


def test_the_same_call_is_the_same_tensor_and_another_attribute_another() -> None:
    graph = Graph()
    x = graph.input("x", "float64")
    assert graph.op("Cast", x, to=1) == graph.op("Cast", x, to=1)
    assert graph.op("Cast", x, to=1) != graph.op("Cast", x, to=7)
    assert graph.op("Neg", x) != graph.op("Neg", x, domain="com.microsoft")
    assert graph.ops("Split", x, n_outputs=2, axis=1) != graph.ops("Split", x, n_outputs=3, axis=1)


def test_a_split_of_one_is_the_matrix_itself() -> None:
    graph = Graph()
    x = graph.input("x", "float32", width=4)
    assert graph.split(x, [4]) == [x]
    assert len(graph.split(x, [1, 3])) == 2
