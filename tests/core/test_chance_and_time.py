"""Seeds and clocks."""

from datetime import UTC, datetime

import numpy as np

from modelinscale.core.clock import Stopwatch, fixed, now
from modelinscale.core.seeds import derive, generator


def test_seeds_are_the_same_for_ever() -> None:
    assert derive(7, "split") == 1105137867662287046
    assert generator(7, "split").integers(0, 1000, 5).tolist() == generator(7, "split").integers(0, 1000, 5).tolist()


def test_purposes_and_seeds_do_not_share_chance() -> None:
    seeds = {derive(seed, *names) for seed in range(50) for names in ((), ("a",), ("b",), ("a", 1), ("a", 2))}
    assert len(seeds) == 250
    assert all(0 <= s < 1 << 63 for s in seeds)
    draws = np.stack([generator(seed, name).random(2000) for seed in range(3) for name in "ab"])
    assert np.abs(np.corrcoef(draws) - np.eye(6)).max() < 0.1


def test_a_fixed_clock_stands_and_the_real_one_is_in_utc() -> None:
    moment = datetime(2026, 11, 25, tzinfo=UTC)
    assert fixed(moment)() == fixed(moment)() == moment
    assert now().tzinfo is UTC


def test_a_stopwatch_does_not_run_backwards() -> None:
    watch = Stopwatch()
    a = watch.seconds()
    assert 0 <= a <= watch.seconds()
