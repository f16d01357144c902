"""Servers shared by the tests of serving."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from modelinscale.testing.packages import write_package
from modelinscale.testing.servers import Running, running


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A package of every task, each named after it, and one that needs a column."""
    folder = tmp_path_factory.mktemp("packages")
    made = {task: write_package(folder / task, task=task, name=task) for task in ("binary", "multiclass", "regression")}
    return {**made, "strict": write_package(folder / "strict", name="strict", required=("count",), version=None)}


@pytest.fixture(scope="session")
def server(packages: dict[str, Path]) -> Iterator[Running]:
    """One server for all tests that leave it as it was: four models, short waits."""
    waits: dict[str, Any] = {"header_timeout": 1, "body_timeout": 1.5, "idle_timeout": 2, "timeout": 5}
    amounts: dict[str, Any] = {"max_rows": 2000, "max_body": "1MiB", "max_waiting": "8MiB", "max_connections": 200}
    with running(*packages.values(), **waits, **amounts) as up:
        yield up


@pytest.fixture(scope="session")
def start() -> Callable[..., AbstractContextManager[Running]]:
    """Starts a server with settings of one's own."""
    return running
