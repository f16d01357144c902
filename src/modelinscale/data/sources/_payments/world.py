"""Where everybody lives and what is sold where: drawn once, never changed.

C customers, M cards, T towns, K categories, S shops (those in towns first, then those online).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.seeds import generator

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DAY_S = 86_400
HOUR_S = 3_600


@dataclass(frozen=True)
class Category:
    """What a kind of shop sells for, and when."""

    name: str
    typical: float
    """Median amount of a payment."""
    spread: float
    """Standard deviation of the logarithm of the amount."""
    online: float
    """How readily people buy this online: 0 never, 1 always."""
    opens: int
    """Hour of the day."""
    closes: int
    """Hour of the day; 24 is midnight."""
    shops: float
    """Share of the shops in a town."""


CATEGORIES = (
    Category("grocery", 24.0, 0.75, 0.08, 7, 22, 0.24),
    Category("restaurant", 21.0, 0.65, 0.10, 9, 24, 0.20),
    Category("fuel", 46.0, 0.35, 0.00, 0, 24, 0.08),
    Category("pharmacy", 16.0, 0.65, 0.10, 8, 20, 0.08),
    Category("clothing", 52.0, 0.75, 0.45, 10, 20, 0.12),
    Category("electronics", 95.0, 1.00, 0.55, 10, 20, 0.07),
    Category("home", 48.0, 0.95, 0.35, 8, 20, 0.08),
    Category("leisure", 22.0, 0.70, 0.35, 9, 24, 0.08),
    Category("cash", 70.0, 0.55, 0.00, 0, 24, 0.05),
    Category("travel", 130.0, 0.95, 0.75, 0, 24, 0.04),
    Category("digital", 8.5, 0.80, 1.00, 0, 24, 0.02),
)
NAMES = tuple(c.name for c in CATEGORIES)
COUNTRIES = ("Arden", "Belmar", "Corvia", "Dovan", "Estrel")
_CENTRES = np.array([(400.0, 300.0), (820.0, 260.0), (620.0, 640.0), (150.0, 720.0), (1100.0, 600.0)])  # km
_TOWNS = (
    *("Ardenhall", "Brinmoor", "Calder", "Dunwick", "Eastmere", "Fenbridge", "Glaston", "Hollin", "Islay Cross", "Juniper Bay", "Kestrel", "Larchford"),
    *("Belmar City", "Montrel", "Port Navarre", "Quillon", "Corvia Nova", "Rasken", "Silvern", "Dovanport", "Tarn", "Uldra", "Estrel", "Vey"),
)
_COUNTRY_OF_TOWN = np.array([0] * 12 + [1] * 4 + [2] * 3 + [3] * 3 + [4] * 2)


# When people pay: weights of the 24 hours, on working days and at weekends.
def _rhythm(*peaks: tuple[float, float, float]) -> Floats:
    hours = np.arange(24) + 0.5
    total = np.full(24, 0.02)
    for at, width, height in peaks:
        gap = np.abs(hours - at)
        total += height * np.exp(-0.5 * (np.minimum(gap, 24 - gap) / width) ** 2)
    return np.asarray(total / total.sum())


RHYTHMS = np.stack(
    [
        _rhythm((8, 1.2, 0.6), (12.5, 1.2, 1.0), (18, 1.8, 1.3)),  # office, working day
        _rhythm((11.5, 2.5, 1.0), (16, 2.5, 1.0)),
        _rhythm((7, 1.5, 0.8), (10, 2.0, 1.0), (15, 2.0, 0.8)),  # early
        _rhythm((9, 2.0, 1.0), (14, 2.5, 0.8)),
        _rhythm((11, 2.5, 0.8), (15, 2.5, 0.9), (20, 2.0, 0.8)),  # at home
        _rhythm((12, 3.0, 1.0), (19, 2.5, 0.8)),
        _rhythm((14, 2.5, 0.7), (20, 2.5, 1.0), (0.5, 2.2, 0.7)),  # late
        _rhythm((15, 2.5, 0.7), (21, 2.5, 1.0), (1.5, 2.2, 0.9)),
    ]
).reshape(4, 2, 24)
"""(4 kinds of people, working day or weekend, 24 hours), each summing to 1."""

WEEKDAYS = np.array([0.92, 0.93, 0.97, 1.02, 1.22, 1.20, 0.74])
"""Payments on Monday to Sunday against the average."""


class World:
    """People, cards, towns and shops of one seed."""

    def __init__(self, *, seed: int, customers: int, shops: int, weekday: int) -> None:
        """``weekday`` of the first day: 0 is Monday."""
        self.seed, self.weekday = seed, weekday
        self._lay_out_towns()
        self._open_shops(shops)
        self._settle(customers)
        self._form_habits(customers)

    def chance(self, *names: str | int) -> np.random.Generator:
        """The generator for one purpose in this world."""
        return generator(self.seed, "payments", *names)

    @property
    def n_customers(self) -> int:
        return len(self.home)

    @property
    def n_cards(self) -> int:
        return len(self.owner)

    def _lay_out_towns(self) -> None:
        chance = self.chance("towns")
        self.town_names = _TOWNS
        self.town_country = _COUNTRY_OF_TOWN  # (T,)
        self.town_xy = _CENTRES[_COUNTRY_OF_TOWN] + chance.normal(0, 95, (len(_TOWNS), 2))  # (T, 2) km
        size = 1 / (1 + np.arange(len(_TOWNS))) ** 0.6
        self.town_size = chance.permutation(size) / size.sum()  # (T,)

    def _open_shops(self, shops: int) -> None:
        chance = self.chance("shops")
        n_towns, n_kinds = len(self.town_names), len(CATEGORIES)
        online_kinds = np.array([c.online for c in CATEGORIES])
        kinds = np.array([c.shops for c in CATEGORIES])
        n_online = max(shops // 6, 2 * n_kinds)
        n_local = max(shops - n_online, n_towns * n_kinds)
        # Every town has one of each, the rest go where people are.
        town = np.concatenate([np.repeat(np.arange(n_towns), n_kinds), chance.choice(n_towns, n_local - n_towns * n_kinds, p=self.town_size)])
        kind = np.concatenate([np.tile(np.arange(n_kinds), n_towns), chance.choice(n_kinds, n_local - n_towns * n_kinds, p=kinds / kinds.sum())])
        order = np.lexsort((kind, town))
        online = np.sort(np.concatenate([np.flatnonzero(online_kinds), chance.choice(n_kinds, n_online, p=online_kinds / online_kinds.sum())]))
        self.n_local = n_local
        self.shop_town = np.concatenate([town[order], np.full(len(online), -1)])  # (S,) -1: online
        self.shop_kind = np.concatenate([kind[order], online])  # (S,)
        scatter = chance.normal(0, 4.0, (n_local, 2))
        self.shop_xy = np.concatenate([self.town_xy[town[order]] + scatter, np.full((len(online), 2), np.nan)])  # (S, 2) km
        abroad = chance.choice(len(COUNTRIES), len(online), p=[0.56, 0.14, 0.12, 0.08, 0.10])
        self.shop_country = np.concatenate([self.town_country[town[order]], abroad])  # (S,)
        # Shops of one town and category stand together; so do the online shops of one category.
        places = self.shop_town * n_kinds + self.shop_kind
        self._local_start = np.searchsorted(places[:n_local], np.arange(n_towns * n_kinds + 1))
        self._online_start = n_local + np.searchsorted(online, np.arange(n_kinds + 1))

    def shop_in(self, town: Ints, kind: Ints, u: Floats) -> Ints:
        """A shop of that category in that town; ``u`` (0 to 1) picks it, well-known ones more often."""
        at = town * len(CATEGORIES) + kind
        start, end = self._local_start[at], self._local_start[at + 1]
        return np.asarray(start + ((end - start) * u**1.7).astype(np.int64))

    def shop_online(self, kind: Ints, u: Floats) -> Ints:
        """An online shop of that category, well-known ones more often."""
        start, end = self._online_start[kind], self._online_start[kind + 1]
        return np.asarray(start + ((end - start) * u**2.2).astype(np.int64))

    def _settle(self, customers: int) -> None:
        chance = self.chance("customers")
        self.home = chance.choice(len(self.town_names), customers, p=self.town_size)  # (C,) town
        self.home_xy = self.town_xy[self.home] + chance.normal(0, 5.0, (customers, 2))  # (C, 2) km
        n_cards = 1 + (chance.random(customers) < 0.45).astype(np.int64) + (chance.random(customers) < 0.12)
        self.owner = np.repeat(np.arange(customers), n_cards)  # (M,)
        self.first_card = np.concatenate([[0], np.cumsum(n_cards)])  # (C + 1,)

    def _form_habits(self, customers: int) -> None:
        chance = self.chance("habits")
        self.rate = chance.gamma(2.2, 0.31, customers)  # (C,) payments a day
        self.level = np.exp(chance.normal(0, 0.38, customers))  # (C,) spending against the typical
        self.rhythm = chance.choice(4, customers, p=[0.45, 0.2, 0.22, 0.13])  # (C,)
        liking = np.array([6.0, 4.0, 1.6, 1.0, 1.1, 0.7, 0.8, 1.3, 1.0, 0.45, 1.5])
        taste = chance.gamma(liking, 1.0, (customers, len(CATEGORIES))) + 0.02
        self.taste = np.cumsum(taste / taste.sum(1, keepdims=True), axis=1)  # (C, K) cumulative
        self.online = chance.beta(2.0, 2.2, customers) * 2.0  # (C,) liking for buying online, 1 is average
        self.device = chance.choice(3, customers, p=[0.62, 0.31, 0.07])  # (C,)
        self.device_age = chance.gamma(1.6, 220.0, customers)  # (C,) days before the first day
        self.usual = chance.random((customers, len(CATEGORIES)))  # (C, K) picks the shop one usually goes to

    @cached_property
    def open_s(self) -> tuple[Floats, Floats]:
        """Opening and closing of each category, seconds of the day."""
        return np.array([c.opens for c in CATEGORIES]) * float(HOUR_S), np.array([c.closes for c in CATEGORIES]) * float(HOUR_S)


DEVICES = ("phone", "computer", "tablet")
CHANNELS = ("chip", "contactless", "online")
CHIP, CONTACTLESS, ONLINE = range(3)
CONTACTLESS_LIMIT = 50.0
"""Above this a contactless payment asks for the card to be inserted."""
