"""Write examples/own_table/loans.csv: 2,400 loans of eight banks, generated, about nobody.

    python scripts/build_own_table.py

The numbers follow from SHAKE-256 over public labels, so that every machine writes the same bytes.
Whether a loan is repaid depends on income, amount, home and history, and on each bank in its own
way. A few incomes are missing and a few lie above the declared bound, as in real tables.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path

from secure_fedmeta.tasks.drawing import keyed, uniforms

TARGET = Path(__file__).resolve().parent.parent / "examples" / "own_table" / "loans.csv"
BANKS = ("alder", "birch", "cedar", "elm", "fir", "hazel", "larch", "oak")
LOANS = 300
HOMES = ("own", "rent", "other")
COLUMNS = ("bank", "loan", "income", "amount", "years_employed", "home", "defaulted")


def loans(bank: str) -> Iterator[tuple[str, ...]]:
    """The rows of one bank."""
    lean = 2.0 * uniforms(keyed(b"own-table", "bank", bank), 4) - 1.0
    for number in range(1, LOANS + 1):
        draw = uniforms(keyed(b"own-table", "loan", bank, str(number)), 6)
        income = 8_000.0 * math.exp(3.0 * draw[0])
        amount = 1_000.0 * math.exp(3.0 * draw[1])
        years = 40.0 * draw[2] ** 2
        home = HOMES[int(3 * draw[3])]
        burden = math.log(amount / income) + 2.0
        logit = (1.0 + 0.5 * lean[0]) * burden - (0.08 + 0.04 * lean[1]) * years
        logit += (0.6 + lean[2]) * (home == "rent") - 0.8 + 0.5 * lean[3]
        defaulted = draw[4] < 1.0 / (1.0 + math.exp(-logit))
        shown = "" if draw[5] < 0.02 else f"{income:.0f}"
        yield (
            bank,
            f"L{number:04d}",
            shown,
            f"{amount:.0f}",
            f"{years:.1f}",
            home,
            "yes" if defaulted else "no",
        )


def table() -> bytes:
    """The file's bytes."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for bank in BANKS:
        writer.writerows(loans(bank))
    return text.getvalue().encode()


if __name__ == "__main__":
    TARGET.write_bytes(table())
    print(f"Wrote {TARGET}")
