"""Writes customers.csv: made-up customers of a made-up telephone company, with the small mess real exports have.

python examples/churn/make.py
"""

import csv
import io
import math
import random
from datetime import date, timedelta
from pathlib import Path

HERE = Path(__file__).parent
N_CUSTOMERS = 3000
COMPLAINTS = ("the line drops every evening", "the bill was wrong again", "no signal at home", "support never called back", "too expensive for what it is")
PRAISE = ("all fine so far", "friendly support", "fast and cheap", "set up in five minutes", "works well while travelling")


def customers() -> str:
    """The whole file as text; always the same."""
    chance = random.Random(7)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["customer", "joined", "plan", "region", "monthly_fee", "paid_so_far", "data_gb", "support_calls", "paperless", "last_comment", "churned"],
    )
    for number in range(1, N_CUSTOMERS + 1):
        joined = date(2022, 1, 3) + timedelta(days=int(1300 * chance.random() ** 1.3))
        months = (date(2026, 1, 1) - joined).days / 30.4
        plan = chance.choices(("basic", "plus", "family"), (5, 3, 2))[0]
        region = chance.choices(("north", "south", "east", "west"), (3, 3, 2, 2))[0]
        fee = {"basic": 14.9, "plus": 24.9, "family": 39.9}[plan] + chance.choice((0, 0, 0, 5, 10))
        gb = chance.gammavariate(2.0, {"basic": 4, "plus": 11, "family": 22}[plan])
        calls = min(int(chance.expovariate(0.9)), 9)
        paperless = chance.random() < 0.6
        unhappy = chance.random() < 0.1 + 0.12 * calls
        comment = "" if chance.random() < 0.4 else chance.choice(COMPLAINTS if unhappy else PRAISE)
        score = -1.1 + 0.55 * calls + 1.1 * unhappy - 0.035 * months + 0.05 * (fee - 20) * (gb < 6) + 0.5 * (region == "east") - 0.3 * paperless
        churned = chance.random() < 1 / (1 + math.exp(-score))
        writer.writerow(
            [
                f"C{number:05d}",
                joined.strftime("%d/%m/%Y"),
                plan,
                "?" if chance.random() < 0.02 else region,
                f"{fee:.2f}",
                f"{fee * months:,.2f}",
                "n/a" if chance.random() < 0.05 else f"{gb:.1f}",
                calls,
                "yes" if paperless else "no",
                comment,
                "yes" if churned else "no",
            ]
        )
    return out.getvalue()


if __name__ == "__main__":
    (HERE / "customers.csv").write_text(customers(), encoding="utf-8")
