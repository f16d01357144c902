from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from modelinscale.core.kinds import load, names
from modelinscale.testing.trackers import SUITE
from modelinscale.track import Tracker


@pytest.mark.parametrize("kind", names("track.trackers"))
@pytest.mark.parametrize("demand", SUITE, ids=lambda f: f.__name__)
def test_every_tracker_does_what_trackers_must(kind: str, demand: Callable[[Tracker], None], tmp_path: Path) -> None:
    demand(cast("type[Tracker]", load("track.trackers", kind))(root=tmp_path / "store" / "track"))
