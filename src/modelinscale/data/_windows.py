"""A follower's windows: what is said of the rows of a collect is said of what was committed in one of them."""

from time import monotonic

from modelinscale.data._collecting import Collecting


class Windows:
    """Stretches of time one after the other. While the follower catches up there are none: many rows, and old ones, are no fault of the source then."""

    def __init__(self, state: Collecting, length_s: float) -> None:
        """``state`` must have begun with a stretch that catches up."""
        self._state, self._length_s = state, length_s
        self._begun: float | None = None

    @property
    def due(self) -> bool:
        """Whether a window is over. The next `turn` judges it: what was judged so far must be written by then."""
        return self._begun is not None and monotonic() - self._begun >= self._length_s

    def turn(self, *, caught_up: bool, away: bool) -> tuple[str, ...]:
        """Ends the stretch that is over, if one is, and begins the next; gives its warnings in words.

        ``away``: the source is out of reach, so this window says nothing. Raises `DataError` when a check of the window must stop the follower.
        """
        state, is_due = self._state, self.due
        if self._begun is None and (away or not caught_up):
            return ()
        if self._begun is not None and not (away or is_due):
            return ()
        whole = is_due and not away
        if whole:
            state.watch.refuse("the rows of this window are in the lake and stay", final=True)
        told = state.watch.warnings(final=whole)
        state.next_stretch("catching up" if away else "window", counts=whole)
        self._begun = None if away else monotonic()
        return told
