"""Follow: a collect that does not end. What arrives is committed every few seconds; a kill at any moment loses and doubles nothing."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from functools import partial
from threading import Event
from typing import Annotated, Any

from pydantic import Field

from modelinscale.compute import Compute
from modelinscale.compute.local import Local
from modelinscale.core.errors import DataError
from modelinscale.core.memory import block, room
from modelinscale.core.schema import Schema
from modelinscale.core.settings import Settings
from modelinscale.core.units import Duration, Size
from modelinscale.data._arriving import Arriving, Patience
from modelinscale.data._brought import Brought
from modelinscale.data._collecting import Collected, Collecting, Target
from modelinscale.data._follower import Follower, Hooks, Step
from modelinscale.data._units import Unit, piece_of
from modelinscale.data.contract import Contract
from modelinscale.data.sources import Source
from modelinscale.data.treatment import Treatment

__all__ = ["Follow", "Patience", "Step", "tail"]


class Follow(Settings):
    """How ``mis collect --follow`` keeps up with a source. A commit closes with the first of ``every``, ``rows`` and ``bytes`` to be reached."""

    every: Annotated[Duration, Field(ge=0.1, le=86_400)] = 5.0
    """How often rows are committed while they keep coming: how old the newest row in the lake may be, and what a kill has to read again."""
    rows: int = Field(100_000, ge=1)
    """Rows of a commit."""
    size: Annotated[Size, Field(ge=1024)] = Field(64 << 20, alias="bytes")
    """Bytes of a commit, in memory. One commit is gathered while the one before is written; more is not read ahead."""
    window: Annotated[Duration, Field(ge=0.1, le=86_400)] = 300.0
    """How long rows are gathered before checks of all rows together (`rows`, `fresh`, `distribution`) judge them: to a follower this is what one collect
    is to ``mis collect``. While it catches up there are no windows."""
    keep: Annotated[Duration, Field(ge=0.1)] = 86_400.0
    """How long versions of the table can be read that no model was trained on: older ones are removed while it follows."""
    pause: Annotated[Duration, Field(ge=0.1)] = 60.0
    """The longest pause between two attempts to reach a source that does not answer; the first is a second."""
    give_up: Annotated[Duration, Field(gt=0)] | None = None
    """How long a source may stay out of reach, or empty from the start, before that is an error. Left out: it is waited for as long as the command runs."""


def tail(
    source: Source,
    *,
    lake: str,
    quarantine: str,
    contract: Contract,
    stop: Event,
    settings: Follow | None = None,
    run: str = "",
    max_quarantined: float = 0.5,
    compute: Compute | None = None,
    news: Callable[[Step], None] = lambda step: None,
    reads: Schema | None = None,
    treatments: Sequence[Treatment] = (),
    facts: Mapping[str, Any] | None = None,
    report: Callable[[Collected, Brought], None] | None = None,
    vacuum: Callable[[timedelta], bool] | None = None,
    time: str | None = None,
) -> Collected | None:
    """Collects what the source has and then what arrives, until ``stop`` is set: what was read by then is committed. None if no row ever came.

    The rows are treated, judged and committed as by `collect`, whose arguments the others are; the share of bad rows is taken anew every 10,000 rows,
    and what is said of all rows together is judged window by window. ``report`` is called about once a minute and at the end, with all that came since
    the start. ``vacuum`` removes versions older than it is told, and says whether it could. ``time`` names a column of moments: how old rows are is told.
    A source out of reach is tried again, with growing pauses; any other error ends it, and what was committed stays. Memory is bounded: two commits,
    one summary a column.
    """
    how, memory = settings or Follow(), compute.memory if compute else None
    how = how.model_copy(update={"size": min(how.size, room(memory) // 6)})  # as a commit of `collect`
    state = Collecting(Target(lake, quarantine, contract, run, max_quarantined, reads, facts or {}), report=report is not None, stretch="catching up")
    arriving = Arriving(source, state, how, stop, block_bytes=block(memory))
    work, place = partial(piece_of, state.raw, tuple(treatments)), compute or Local()
    with ThreadPoolExecutor(1, thread_name_prefix="lake") as writer, closing(arriving.commits()) as commits:
        follower = Follower(state, arriving, how, writer, Hooks(news, report, vacuum, time))
        try:
            for chunks in commits:
                if chunks:
                    unit = Unit()
                    for piece in place.map(work, chunks):
                        unit.add(piece)
                    judged = state.judge(unit)
                    follower.settle(wait=True)
                    state.refuse(final=False)
                    follower.write(unit, judged)
                    del unit, judged
                else:
                    follower.settle(wait=False)
                follower.tend(idle=not chunks)
        except DataError:  # what it objects to is in the report
            follower.report()
            raise
        return follower.end()
