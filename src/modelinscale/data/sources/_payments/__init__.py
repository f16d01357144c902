"""A made-up world of card payments, one day after another: people and shops, their habits, fraudsters, and what a bank would know at each payment.

Everything is drawn from one seed, and a day depends only on the days before it: however many days are asked for, the first ones stay the same.
"""

from collections.abc import Iterator

from modelinscale.data.sources._payments.frauds import Fraudsters
from modelinscale.data.sources._payments.habits import Habits
from modelinscale.data.sources._payments.history import Books, Day
from modelinscale.data.sources._payments.world import World

__all__ = ["Day", "World", "days"]


def days(world: World, *, fraud: float, report_within_s: float) -> Iterator[Day]:
    """Day after day without end, from the first. ``fraud`` scales how often fraudsters act; victims report within ``report_within_s`` seconds."""
    habits, fraudsters, books = Habits(world), Fraudsters(world, fraud, report_within_s), Books(world)
    number = 0
    while True:
        genuine = habits.payments(number)
        crimes = fraudsters.payments(number, genuine)
        yield books.record(number, genuine.plus(crimes))
        number += 1
