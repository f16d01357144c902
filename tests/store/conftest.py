"""Disks that refuse."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelinscale.testing import disks


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
