"""Which alias a new version gets: a pure decision with its reason."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from modelinscale.track.trackers import Main, Version


@dataclass(frozen=True)
class Placed:
    """An alias and why."""

    alias: Literal["champion", "challenger"]
    because: str


def place(new: "Main | None", champion: "Version | None") -> Placed:
    """Champion when there is none yet, or when the main metric on test rows is no worse than the champion's; else challenger.

    One that is worse than always the same answer on those rows is never made champion here, the first version neither: nobody gains from its answers.
    Plain comparison of the recorded values, without a margin: a model that is worse by chance waits as challenger until somebody promotes it.
    What cannot be compared waits too.
    """
    if new is not None and new.constant is not None and new.worse_than(new.constant):
        return Placed("challenger", f"worse than always the same answer: {new.metric} {new.value:.6g} against {new.constant:.6g} for that")
    if champion is None:
        return Placed("champion", "the first version")
    there = f"version {champion.number}"
    old = champion.main
    if new is None or old is None or not math.isfinite(new.value) or not math.isfinite(old.value):
        return Placed("challenger", f"it cannot be compared with the champion, {there}: no main metric was recorded for both")
    if new.metric != old.metric:
        return Placed("challenger", f"it was measured by {new.metric}, the champion, {there}, by {old.metric}")
    found = f"{new.metric} {new.value:.6g} against {old.value:.6g} of the champion, {there}"
    return Placed("challenger", f"worse: {found}") if new.worse_than(old.value) else Placed("champion", f"no worse: {found}")
