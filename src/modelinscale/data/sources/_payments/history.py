"""What a bank knows at the moment of a payment: distances, gaps, counts and averages from the payments before it, and frauds reported by then."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelinscale.data.sources._payments.habits import Payments
from modelinscale.data.sources._payments.world import DAY_S, HOUR_S, Floats, Ints, World

REPORTS_DAYS = 28
"""How long a report of fraud counts against a terminal."""

_WIDE = 2**36  # more seconds than any world lasts: card * _WIDE + second sorts by card, then time


@dataclass(frozen=True)
class Day:
    """The payments of one day in order of time, with what was known at each; N of them, every field (N,)."""

    number: int
    paid: Payments
    km_from_home: Floats
    """Between the terminal and the customer's home; NaN online."""
    km_from_last: Floats
    """Between this terminal and the one the card was last used at; NaN online and at first."""
    s_since_last: Floats
    """Since the card's last payment; NaN at first."""
    n_last_hour: Ints
    """The card's payments in the hour before."""
    n_last_day: Ints
    """The card's payments in the 24 hours before."""
    amount_last_day: Floats
    """What the card paid in the 24 hours before."""
    mean_amount: Floats
    """Average of all the card's payments before; NaN at first."""
    device_age_days: Floats
    """Since the bank first saw the device; NaN where none is used."""
    terminal_reports: Ints
    """Payments at this terminal that were reported as fraud in the 28 days before."""


class Books:
    """Remembers, for each card, its last payments and its totals, and for each terminal the reports."""

    def __init__(self, world: World) -> None:
        self.world = world
        m = world.n_cards
        self.last_moment = np.full(m, np.nan)  # (M,)
        self.last_xy = np.full((m, 2), np.nan)  # (M, 2)
        self.n = np.zeros(m, np.int64)  # (M,)
        self.total = np.zeros(m)  # (M,)
        nothing = np.empty(0, np.int64)
        self.recent = (nothing, nothing, np.empty(0))  # card, moment, amount of the last 24 hours
        self.reports = np.empty((0, 2), np.int64)  # shop, moment of the report

    def record(self, number: int, payments: Payments) -> Day:
        """The day's payments with what was known at each, which then becomes part of what is known."""
        # By card, then time: each card's payments of the day stand together.
        order = np.lexsort((payments.moment, payments.card))  # stable, like every sort here: ties keep their order
        paid = payments.at(order)
        card, first = paid.card, _firsts(paid.card)
        self._hear(number, paid)

        s_since_last = paid.moment - _before(paid.moment.astype(np.float64), first, self.last_moment[card])
        earlier, spent = self._totals(paid, first)
        counted = self.n[card] + earlier
        with np.errstate(invalid="ignore", divide="ignore"):
            mean_amount: Floats = np.where(counted > 0, (self.total[card] + spent) / counted, np.nan)
        n_hour, n_day, amount_day = self._recent(paid)
        km_from_last = self._moved(paid, first)
        home = self.world.home_xy[self.world.owner[card]]
        km_from_home = np.hypot(*(self.world.shop_xy[paid.shop] - home).T)
        reports = self._reported(paid)
        self._remember(paid)
        by_time = np.argsort(paid.moment, kind="stable")
        return Day(
            number=number,
            paid=paid.at(by_time),
            km_from_home=np.round(km_from_home, 1)[by_time],
            km_from_last=np.round(km_from_last, 1)[by_time],
            s_since_last=s_since_last[by_time],
            n_last_hour=n_hour[by_time],
            n_last_day=n_day[by_time],
            amount_last_day=np.round(amount_day, 2)[by_time],
            mean_amount=np.round(mean_amount, 2)[by_time],
            device_age_days=np.round((paid.moment - paid.device_since) / DAY_S, 2)[by_time],
            terminal_reports=reports[by_time],
        )

    def _totals(self, paid: Payments, first: Ints) -> tuple[Ints, Floats]:
        """How many payments the card made earlier on the same day, and what they came to."""
        running = np.concatenate([[0.0], np.cumsum(paid.amount)])
        return np.arange(len(paid)) - first, running[:-1] - running[first]

    def _recent(self, paid: Payments) -> tuple[Ints, Ints, Floats]:
        card = np.concatenate([self.recent[0], paid.card])
        moment = np.concatenate([self.recent[1], paid.moment])
        amount = np.concatenate([self.recent[2], paid.amount])
        # Stable: of two payments of a card in the same second the one recorded first counts as earlier.
        order = np.argsort(card * _WIDE + moment, kind="stable")
        key = (card * _WIDE + moment)[order]
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        here = place[len(self.recent[0]) :]
        running = np.concatenate([[0.0], np.cumsum(amount[order])])
        own = paid.card * _WIDE + paid.moment
        hour, day = (np.minimum(np.searchsorted(key, own - span, side="left"), here) for span in (HOUR_S, DAY_S))
        return here - hour, here - day, running[here] - running[day]

    def _moved(self, paid: Payments, first: Ints) -> Floats:
        xy = self.world.shop_xy[paid.shop]  # (N, 2) NaN online
        local = np.flatnonzero(~np.isnan(xy[:, 0]))
        km = np.full(len(paid), np.nan)
        firsts = _firsts(paid.card[local])
        before = np.where((np.arange(len(local)) == firsts)[:, None], self.last_xy[paid.card[local]], xy[local][np.arange(len(local)) - 1])
        km[local] = np.hypot(*(xy[local] - before).T)
        return km

    def _reported(self, paid: Payments) -> Ints:
        key = np.sort(self.reports[:, 0] * _WIDE + self.reports[:, 1])
        own = paid.shop * _WIDE + paid.moment
        return np.asarray(np.searchsorted(key, own, side="left") - np.searchsorted(key, np.maximum(own - REPORTS_DAYS * DAY_S, paid.shop * _WIDE), side="left"))

    def _hear(self, number: int, paid: Payments) -> None:
        """Notes when each fraud of the day will be reported; a payment counts only the reports before its own moment."""
        fraud = paid.scenario > 0
        fresh = np.stack([paid.shop[fraud], paid.reported[fraud].astype(np.int64)], axis=1)
        kept = self.reports[self.reports[:, 1] >= (number - REPORTS_DAYS) * DAY_S]
        self.reports = np.concatenate([kept, fresh])

    def _remember(self, paid: Payments) -> None:
        np.add.at(self.n, paid.card, 1)
        np.add.at(self.total, paid.card, paid.amount)
        self.last_moment[paid.card] = paid.moment  # sorted by time within a card: the last one wins
        local = paid.shop < self.world.n_local
        self.last_xy[paid.card[local]] = self.world.shop_xy[paid.shop[local]]
        self.recent = (paid.card, paid.moment, paid.amount)


def _firsts(group: Ints) -> Ints:
    """For each place in a sorted array, the place its group begins."""
    starts: NDArray[np.int64] = np.searchsorted(group, group, side="left")
    return starts


def _before(values: Floats, first: Ints, otherwise: Floats) -> Floats:
    """The value one place before, within the group; ``otherwise`` at its first place."""
    row = np.arange(len(values))
    return np.where(row == first, otherwise, values[row - 1])
