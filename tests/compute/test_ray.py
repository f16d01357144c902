"""Ray on a real cluster of two nodes: what every compute must do, the same answers as here, and nodes that die."""

from collections.abc import Callable

import pytest

from modelinscale.compute import Compute
from modelinscale.compute.ray import Ray
from modelinscale.testing import compute as suite

from .conftest import TwoNodes

pytestmark = pytest.mark.slow  # a cluster takes five seconds of the processor


@pytest.fixture
def ray(two_nodes: TwoNodes) -> Ray:
    return Ray(address=two_nodes.address)


@pytest.mark.parametrize("rule", suite.SUITE, ids=lambda rule: rule.__name__)
def test_ray_does_what_every_compute_must(ray: Ray, rule: Callable[[Compute], None]) -> None:
    rule(ray)
