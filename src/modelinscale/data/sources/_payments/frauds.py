"""What fraudsters do: five scenarios that come and go, one of which slowly changes its shape, and frauds that look like anybody's payment.

Every payment of a fraud gets a moment at which its victim reports it, some hours to a week later.
"""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from modelinscale.data.sources._payments.habits import Payments, price
from modelinscale.data.sources._payments.world import (
    CATEGORIES,
    CHIP,
    CONTACTLESS,
    COUNTRIES,
    DAY_S,
    HOUR_S,
    NAMES,
    ONLINE,
    Floats,
    Ints,
    World,
)

SCENARIOS = ("honest", "stolen_card", "tampered_terminal", "card_testing", "account_takeover", "plain_sight")
STOLEN, TAMPERED, TESTING, TAKEOVER, PLAIN = range(1, 6)

_A_DAY = {STOLEN: 0.85, TAMPERED: 0.1, TESTING: 0.85, TAKEOVER: 1.1, PLAIN: 1.0}
"""New events a day for 2,500 customers, while the scenario is about."""
_ABOUT = {STOLEN: (60.0, 6.0), TAMPERED: (45.0, 12.0), TESTING: (24.0, 14.0), TAKEOVER: (40.0, 12.0), PLAIN: (1000.0, 1.0)}
"""Average days a scenario stays, and stays away."""
DRIFT_DAYS = 420
"""Days in which account takeover goes from crude to subtle and back."""

_SOLD_ON = np.array([NAMES.index(n) for n in ("electronics", "clothing", "home", "fuel", "grocery")])
_CASHED_OUT = np.array([NAMES.index(n) for n in ("electronics", "travel", "clothing", "digital")])
_TESTED_AT = np.array([NAMES.index(n) for n in ("digital", "leisure")])
_TYPICAL = np.array([c.typical for c in CATEGORIES])


@dataclass
class _Tampered:
    """A shop's terminal under a fraudster's control, and the cards it has seen since."""

    shop: int
    until: int
    charges_a_day: float
    seen: list[Ints] = field(default_factory=list)


class Fraudsters:
    """Draws the fraudulent payments of one day after another; remembers what was begun and goes on over the next days."""

    def __init__(self, world: World, fraud: float, report_within_s: float) -> None:
        self.world, self.fraud, self.report_within_s = world, fraud, report_within_s
        self.waves = {s: _wave(world.chance("wave", s), *_ABOUT[s]) for s in _ABOUT}
        self.tampered: list[_Tampered] = []
        self.pending: defaultdict[int, list[Payments]] = defaultdict(list)

    def payments(self, day: int, genuine: Payments) -> Payments:
        """All fraudulent payments of the day. ``genuine`` is what honest people do on it: a tampered terminal sees their cards."""
        for scenario, begin in ((STOLEN, self._steal), (TESTING, self._test), (TAKEOVER, self._take_over), (PLAIN, self._hide)):
            chance = self.world.chance("fraud", SCENARIOS[scenario], day)
            for _ in range(self._n_events(scenario, day, chance)):
                self._plan(begin(day, chance), scenario, chance)
        self._tamper(day, genuine)
        today = [_none(), *self.pending.pop(day, [])]
        result = today[0]
        for more in today[1:]:
            result = result.plus(more)
        return result

    def _n_events(self, scenario: int, day: int, chance: np.random.Generator) -> int:
        level = self.waves[scenario][day % len(self.waves[scenario])]
        return int(chance.poisson(_A_DAY[scenario] * self.fraud * level * self.world.n_customers / 2500))

    def _plan(self, made: Payments, scenario: int, chance: np.random.Generator) -> None:
        """Puts an event's payments into the days they fall on, with the moments they will be reported."""
        n = len(made)
        # A victim notices at some moment and reports the lot; a few payments are only found later.
        notice = made.moment[-1] + self.report_within_s * chance.beta(1.3, 3.5) * 0.8
        later = np.where(chance.random(n) < 0.15, self.report_within_s * 0.15 * chance.random(n), 0.0)
        reported = np.minimum(np.maximum(notice, made.moment + 600.0) + later, made.moment + self.report_within_s - 1.0)
        whole = Payments(**{**vars(made), "scenario": np.full(n, scenario), "reported": reported})
        for day in np.unique(made.moment // DAY_S):
            self.pending[int(day)].append(whole.at(made.moment // DAY_S == day))

    def _victim(self, chance: np.random.Generator) -> tuple[int, int]:
        """A card and its owner; busy cards are met more often."""
        card = int(chance.integers(self.world.n_cards))
        return card, int(self.world.owner[card])

    def _steal(self, day: int, chance: np.random.Generator) -> Payments:
        """A card in a thief's hands: for some hours a run of larger payments, mostly far from its home."""
        world = self.world
        card, owner = self._victim(chance)
        n = int(chance.integers(3, 9))
        start = day * DAY_S + chance.uniform(9, 21) * HOUR_S
        moment = (start + np.cumsum(chance.gamma(1.3, 22 * 60, n))).astype(np.int64)
        far = np.linalg.norm(world.town_xy - world.home_xy[owner], axis=1)
        weight = np.where(far > 60, world.town_size, world.town_size * 0.2)
        town = np.full(n, chance.choice(len(far), p=weight / weight.sum()))
        kind = _SOLD_ON[chance.choice(len(_SOLD_ON), n, p=[0.3, 0.25, 0.15, 0.1, 0.2])]
        amount = _TYPICAL[kind] * np.exp(chance.normal(0.85, 0.6, n))
        tapped = chance.random(n) < 0.35  # without the PIN only small ones pass
        amount = np.where(tapped, np.minimum(amount, chance.uniform(18, 50, n)), amount)
        shop = world.shop_in(town, kind, chance.random(n))
        return _made(moment, np.full(n, card), shop, price(amount, kind, chance), np.where(tapped, CONTACTLESS, CHIP))

    def _tamper(self, day: int, genuine: Payments) -> None:
        """Terminals under control for some weeks: charges on cards they saw, at usual hours, for somewhat more than usual."""
        world, chance = self.world, self.world.chance("fraud", SCENARIOS[TAMPERED], day)
        for _ in range(self._n_events(TAMPERED, day, chance)):
            busy = genuine.shop[genuine.shop < world.n_local]
            if len(busy):
                self.tampered.append(_Tampered(int(chance.choice(busy)), day + int(chance.integers(9, 30)), float(chance.gamma(4.0, 0.4))))
        self.tampered = [t for t in self.tampered if t.until >= day]
        for terminal in self.tampered:
            seen = np.concatenate(terminal.seen) if terminal.seen else np.empty(0, np.int64)
            n = int(chance.poisson(terminal.charges_a_day)) if len(seen) else 0
            terminal.seen.append(genuine.card[genuine.shop == terminal.shop])
            if not n:
                continue
            kind = int(world.shop_kind[terminal.shop])
            moment = day * DAY_S + np.sort(chance.uniform(CATEGORIES[kind].opens, CATEGORIES[kind].closes, n) * HOUR_S).astype(np.int64)
            amount = price(_TYPICAL[kind] * np.exp(chance.normal(0.9, 0.5, n)), np.full(n, kind), chance)
            self._plan(_made(moment, chance.choice(seen, n), np.full(n, terminal.shop), amount, np.full(n, CHIP)), TAMPERED, chance)

    def _test(self, day: int, chance: np.random.Generator) -> Payments:
        """Card numbers bought in bulk: tiny online amounts within minutes to see which work, then a big one."""
        world = self.world
        card, _ = self._victim(chance)
        n = int(chance.integers(2, 6))
        start = day * DAY_S + chance.uniform(0, 24) * HOUR_S
        tries = start + np.cumsum(chance.gamma(1.5, 150, n))
        big = tries[-1] + chance.gamma(1.5, 2 * HOUR_S)
        kind = np.append(_TESTED_AT[chance.integers(0, 2, n)], _CASHED_OUT[chance.integers(0, 3)])
        amount = np.append(chance.uniform(0.5, 4.0, n), chance.gamma(3.0, 95.0) + 40)
        shop = world.shop_online(kind, chance.random(n + 1) ** 0.6)  # less known shops check less
        moment = np.append(tries, big).astype(np.int64)
        origin = np.full(n + 1, chance.choice(len(COUNTRIES), p=[0.4, 0.15, 0.15, 0.15, 0.15]))
        return _made(moment, np.full(n + 1, card), shop, amount, np.full(n + 1, ONLINE), device=1, since=moment[0], origin=origin)

    def _take_over(self, day: int, chance: np.random.Generator) -> Payments:
        """Somebody else logs in: a new device, night hours, several purchases; over the months they learn to look like the owner."""
        world = self.world
        card, owner = self._victim(chance)
        subtle = 0.5 - 0.5 * np.cos(2 * np.pi * day / DRIFT_DAYS)  # 0 crude, 1 subtle
        n = int(chance.integers(2, 6))
        hour = chance.normal(2.5, 1.3) if chance.random() > 0.85 * subtle else chance.normal(19.0, 3.0)
        start = day * DAY_S + np.clip(hour, 0, 23) * HOUR_S
        moment = (start + np.cumsum(chance.gamma(1.4, (15 + 70 * subtle) * 60, n))).astype(np.int64)
        kind = _CASHED_OUT[chance.choice(4, n, p=[0.4, 0.2, 0.25, 0.15])]
        amount = price(_TYPICAL[kind] * world.level[owner] * np.exp(chance.normal(1.1 - 0.7 * subtle, 0.55, n)), kind, chance)
        shop = world.shop_online(kind, chance.random(n))
        home = int(world.town_country[world.home[owner]])
        abroad = chance.random() < 0.6 - 0.35 * subtle
        origin = np.full(n, int(chance.integers(len(COUNTRIES))) if abroad else home)
        known_for_s = 0.0 if chance.random() > 0.5 * subtle else float(chance.gamma(1.5, 4 * DAY_S))  # later they sign in days before they buy
        device = int(chance.choice(3, p=[0.4, 0.55, 0.05]))
        return _made(moment, np.full(n, card), shop, amount, np.full(n, ONLINE), device=device, since=moment[0] - known_for_s, origin=origin)

    def _hide(self, day: int, chance: np.random.Generator) -> Payments:
        """One payment that could be the owner's: found by nobody but the owner."""
        world = self.world
        card, owner = self._victim(chance)
        kind = _CASHED_OUT[chance.integers(0, 4, 1)]
        moment = np.array([day * DAY_S + int(chance.uniform(8, 23) * HOUR_S)])
        amount = price(_TYPICAL[kind] * world.level[owner] * np.exp(chance.normal(0.35, 0.6, 1)), kind, chance)
        shop = world.shop_online(kind, chance.random(1))
        own = chance.random() < 0.7  # the owner's own device, or one that passes for a guest's
        since = -float(world.device_age[owner]) * DAY_S if own else float(moment[0])
        origin = np.array([int(world.town_country[world.home[owner]])])
        return _made(moment, np.array([card]), shop, amount, np.array([ONLINE]), device=int(world.device[owner]), since=since, origin=origin)


def _made(
    moment: Ints, card: Ints, shop: Ints, amount: Floats, channel: Ints, *, device: int = -1, since: float = np.nan, origin: Ints | None = None
) -> Payments:
    n = len(moment)
    nowhere = np.full(n, -1)
    return Payments(
        moment=moment,
        card=card,
        shop=shop,
        amount=np.round(amount, 2),
        channel=channel,
        device=np.full(n, device),
        device_since=np.full(n, since, np.float64),
        from_country=origin if origin is not None else nowhere,
        scenario=np.zeros(n, np.int64),
        reported=np.full(n, np.nan),
    )


def _none() -> Payments:
    nothing, none = np.empty(0, np.int64), np.empty(0)
    return Payments(nothing, nothing, nothing, none, nothing, nothing, none, nothing, nothing, none)


def _wave(chance: np.random.Generator, stays: float, away: float) -> Floats:
    """How strongly a scenario is about on each day (0, or 0.6 to 1.4), for about 20 years, then again from the start."""
    runs = 200
    on, off, level = chance.gamma(4.0, stays / 4, runs), chance.gamma(4.0, away / 4, runs), chance.uniform(0.6, 1.4, runs)
    lengths = np.maximum(np.round(np.stack([on, off], axis=1).ravel()), 1).astype(np.int64)
    return np.repeat(np.stack([level, np.zeros(runs)], axis=1).ravel(), lengths)
