"""What all tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelinscale.testing import disks

REAL = Path(__file__).parent.parent.parent / "shared" / "data"


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
