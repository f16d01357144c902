"""What all tests share."""

import gc
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from modelinscale.core import secrets
from modelinscale.testing import brokers, clusters, disks, sources
from modelinscale.testing.examples import examples

# No test may fail because the machine was busy: what a draw or an example takes is not judged by the clock. Nor by chance: each run tries the same examples;
# `--hypothesis-profile explore` tries others.
_ANY: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("any machine", **_ANY, derandomize=True)
settings.register_profile("fast", **_ANY, derandomize=True, max_examples=33)
settings.register_profile("explore", **_ANY, derandomize=False)


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--hypothesis-profile"):
        settings.load_profile("fast" if config.option.markexpr == "not slow" else "any machine")
    sources.MOST_CURSORS = examples(sources.MOST_CURSORS)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What importing makes stays: looking for garbage in it, again and again, takes each process two seconds."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


REAL = Path(__file__).parent.parent.parent / "shared" / "data"


@pytest.fixture(autouse=True)
def _secrets_of_a_test_stay_its_own() -> Iterator[None]:
    """A value once revealed is taken out of everything a process says; a test's own must not be missed in the words of the next."""
    kept = dict(secrets._revealed)
    yield
    secrets._revealed.clear()
    secrets._revealed.update(kept)


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets; they are large and under licences of their own, so they are not part of the project."""
    if not REAL.is_dir():
        pytest.skip(f"the real data sets are not here (looked for {REAL.name}/ beside the project): see CONTRIBUTING.md")
    return REAL


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """4 MiB."""
    try:
        with disks.small(tmp_path / "small", 4 << 20) as folder:
            yield folder
    except disks.NoMount as reason:
        pytest.skip(f"this machine lets nothing be mounted: {reason}")


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """An empty folder that nobody can write to."""
    try:
        with disks.read_only(tmp_path / "read_only") as folder:
            yield folder
    except disks.NoMount as reason:
        pytest.skip(f"this machine lets nothing be mounted: {reason}")


@pytest.fixture
def redis_client(tmp_path: Path) -> Iterator[Any]:
    """A client of a Redis server with nothing in it; its ``address`` is the server's."""
    library = pytest.importorskip("redis", reason="the extra `redis` is not installed")
    (tmp_path / "redis").mkdir()
    with ExitStack() as stack:
        try:
            address = stack.enter_context(brokers.redis(tmp_path / "redis"))
        except brokers.NoServer as reason:
            pytest.skip(f"no server to test with: {reason}")
        client = stack.enter_context(library.Redis.from_url(address))
        client.address = address
        yield client


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[clusters.TwoNodes]:
    """Takes five seconds of the processor, once."""
    pytest.importorskip("ray", reason="needs `pip install 'modelinscale[ray]'`")
    with clusters.two_nodes() as running:
        yield running


@pytest.fixture(scope="module")
def two_nodes(ray_cluster: clusters.TwoNodes) -> Iterator[clusters.TwoNodes]:
    """A Ray cluster of two nodes, whose token this process has; its connection ends with the module."""
    from modelinscale.compute.ray import Ray

    with pytest.MonkeyPatch.context() as patch:
        for name, value in ray_cluster.token.items():
            patch.setenv(name, value)
        yield ray_cluster
        Ray().close()
