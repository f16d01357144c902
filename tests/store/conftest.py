"""What tests of stores share: a server of each kind of object store, its credentials in the environment."""

from collections.abc import Iterator

import pytest

from modelinscale.testing.buckets import Server
from modelinscale.testing.clouds import CLOUDS


@pytest.fixture(params=sorted(CLOUDS))
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with CLOUDS[request.param]() as found:
        monkeypatch.setenv("MIS_TEST_ID", "test")
        monkeypatch.setenv("MIS_TEST_SECRET", found.secret)
        yield found
