"""What honest people do: shop near home at their hours, travel now and then, buy online, change their phone."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from modelinscale.data.sources._payments.world import (
    CATEGORIES,
    CHIP,
    CONTACTLESS,
    CONTACTLESS_LIMIT,
    DAY_S,
    ONLINE,
    RHYTHMS,
    WEEKDAYS,
    Floats,
    Ints,
    World,
)

_TYPICAL = np.array([c.typical for c in CATEGORIES])
_SPREAD = np.array([c.spread for c in CATEGORIES])
_ONLINE = np.array([c.online for c in CATEGORIES])
_CASH = [c.name for c in CATEGORIES].index("cash")
_FUEL = [c.name for c in CATEGORIES].index("fuel")


@dataclass(frozen=True)
class Payments:
    """Some payments, in no order; N of them, every field (N,)."""

    moment: Ints
    """Seconds since the first day began."""
    card: Ints
    shop: Ints
    amount: Floats
    channel: Ints
    device: Ints
    """Kind of device for online payments, else -1."""
    device_since: Floats
    """When the bank first saw that device, in seconds since the first day began; NaN where no device is used."""
    from_country: Ints
    """Where the device connects from; -1 where none is used."""
    scenario: Ints
    """0 is honest; otherwise which fraud."""
    reported: Floats
    """When the victim reports it, in seconds since the first day began; NaN for honest payments."""

    def __len__(self) -> int:
        return len(self.moment)

    def plus(self, other: "Payments") -> "Payments":
        return Payments(**{f.name: np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)})

    def at(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> "Payments":
        return Payments(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


class Habits:
    """Draws the honest payments of one day after another; remembers who is away and which device is whose."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.away_until = np.full(world.n_customers, -1)  # (C,) day of return
        self.town = world.home.copy()  # (C,) where they are
        self.device_since = -world.device_age * DAY_S  # (C,)
        self.device = world.device.copy()  # (C,)

    def payments(self, day: int) -> Payments:
        """All honest payments of the day."""
        world, chance = self.world, self.world.chance("day", day)
        self._travel(day, chance)
        self._change_devices(day, chance)

        weekday = (world.weekday + day) % 7
        payday = 1.12 if day % 30 >= 26 or day % 30 < 2 else 0.98
        who = np.repeat(np.arange(world.n_customers), chance.poisson(world.rate * WEEKDAYS[weekday] * payday * (1 + 0.0004 * day)))
        n = len(who)
        kind = (chance.random(n)[:, None] > world.taste[who]).sum(1).clip(max=len(CATEGORIES) - 1)  # (N,)
        second = self._second_of_day(who, int(weekday >= 5), chance)
        online = (chance.random(n) < _ONLINE[kind] * world.online[who]) | (_ONLINE[kind] == 1)
        second = self._within_opening(second, kind, online, chance)
        amount = price(_TYPICAL[kind] * world.level[who] * np.exp(_SPREAD[kind] * chance.normal(size=n)), kind, chance)

        habit = chance.random(n) < 0.62  # the usual shop, or another
        pick = np.where(habit & (self.away_until[who] < day), world.usual[who, kind], chance.random(n))
        shop = np.where(online, world.shop_online(kind, pick), world.shop_in(self.town[who], kind, pick))
        tap = (amount <= CONTACTLESS_LIMIT) & (kind != _CASH) & (chance.random(n) < 0.86)
        channel = np.where(online, ONLINE, np.where(tap, CONTACTLESS, CHIP))

        n_cards = world.first_card[who + 1] - world.first_card[who]
        card = world.first_card[who] + (n_cards * chance.random(n) ** 2.4).astype(np.int64)  # most people have a favourite
        moment = day * DAY_S + second.astype(np.int64)
        device, since, origin = self._devices(who, moment, online, chance)
        return Payments(moment, card, shop, amount, channel, device, since, origin, np.zeros(n, np.int64), np.full(n, np.nan))

    def _travel(self, day: int, chance: np.random.Generator) -> None:
        world = self.world
        home_again = self.away_until == day
        self.town[home_again] = world.home[home_again]
        leaves = (self.away_until < day) & (chance.random(world.n_customers) < 1 / 60)
        where = chance.choice(len(world.town_names), world.n_customers)
        nights = 1 + chance.geometric(0.28, world.n_customers)
        self.town[leaves] = where[leaves]
        self.away_until[leaves] = day + nights[leaves]

    def _change_devices(self, day: int, chance: np.random.Generator) -> None:
        new = chance.random(self.world.n_customers) < 1 / 240
        kind = chance.choice(3, self.world.n_customers, p=[0.7, 0.22, 0.08])
        self.device_since[new] = day * DAY_S
        self.device[new] = kind[new]

    def _second_of_day(self, who: Ints, weekend: int, chance: np.random.Generator) -> Floats:
        cumulative = np.cumsum(RHYTHMS[:, weekend], axis=1)[self.world.rhythm[who]]  # (N, 24)
        hour = (chance.random(len(who))[:, None] > cumulative).sum(1).clip(max=23)
        return np.asarray((hour + chance.random(len(who))) * 3600.0)

    def _within_opening(self, second: Floats, kind: Ints, online: NDArray[np.bool_], chance: np.random.Generator) -> Floats:
        opens, closes = (edge[kind] for edge in self.world.open_s)
        shut = ~online & ((second < opens) | (second >= closes))
        return np.where(shut, opens + (closes - opens) * chance.random(len(second)), second)

    def _devices(self, who: Ints, moment: Ints, online: NDArray[np.bool_], chance: np.random.Generator) -> tuple[Ints, Floats, Ints]:
        """Mostly one's own device; now and then a borrowed or freshly wiped one the bank has never seen."""
        n = len(who)
        guest = chance.random(n) < 0.07
        device = np.where(online, np.where(guest, chance.integers(0, 3, n), self.device[who]), -1)
        since = np.where(online, np.where(guest, moment, self.device_since[who]), np.nan)
        here = self.world.town_country[self.town[who]]
        elsewhere = chance.random(n) < 0.04  # relays and company networks
        origin = np.where(online, np.where(elsewhere, chance.integers(0, 5, n), here), -1)
        return device, since, origin


def price(amount: Floats, kind: Ints, chance: np.random.Generator) -> Floats:
    """Amounts as they are charged: cash in tens, some prices ending in .99 or .00, at least 0.50."""
    u = chance.random(len(amount))
    nice = np.where(u < 0.3, np.floor(amount) + 0.99, np.where(u < 0.45, np.round(amount), np.round(amount, 2)))
    nice = np.where(kind == _CASH, 10 * np.ceil(amount / 10), nice)
    nice = np.where((kind == _FUEL) & (u < 0.3), 5 * np.ceil(amount / 5), nice)
    return np.asarray(np.maximum(np.round(nice, 2), 0.5))
