"""What all tests share."""

from pathlib import Path

import pytest

REAL = Path(__file__).parent.parent.parent / "shared" / "data"


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets; they are large and under licences of their own, so they are not part of the project."""
    if not REAL.is_dir():
        pytest.skip(f"the real data sets are not here (looked for {REAL.name}/ beside the project): see CONTRIBUTING.md")
    return REAL
