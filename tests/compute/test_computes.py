"""Every compute."""

import threading
from collections.abc import Callable

import pyarrow as pa
import pytest

from modelinscale.compute import Compute
from modelinscale.compute.local import Local
from modelinscale.core.kinds import names
from modelinscale.testing import compute as suite

COMPUTES: dict[str, Compute] = {"local-1": Local(workers=1), "local-2": Local(workers=2), "local-8": Local(workers=8)}


def test_every_compute_is_covered() -> None:
    elsewhere = {"ray"}  # test_ray.py, which starts a cluster
    assert sorted({name.split("-")[0] for name in COMPUTES} | elsewhere) == names("compute")


@pytest.mark.parametrize("name", sorted(COMPUTES))
@pytest.mark.parametrize("rule", suite.SUITE, ids=lambda rule: rule.__name__)
def test_a_compute(name: str, rule: Callable[[Compute], None]) -> None:
    rule(COMPUTES[name])


def test_an_error_never_shows_rows() -> None:
    def fail(batch: pa.RecordBatch) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no") as caught:
        list(Local().map(fail, [pa.record_batch({"name": ["Jane Doe"]})]))
    assert caught.value.__notes__ == ["while working on item 0 (RecordBatch)"]


def test_what_is_not_started_is_not_done_when_nobody_wants_it() -> None:
    begun: list[int] = []
    gate = threading.Event()

    def work(x: int) -> int:
        begun.append(x)
        gate.wait(5)
        return x

    results = Local(workers=1).map(work, range(100))
    gate.set()
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert len(begun) <= 3
