"""Numbers and names as a report shows them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, Final

NAME_LENGTH: Final = 80
"""Characters of a client's, population's or approver's name that are shown."""
SENTENCE_LENGTH: Final = 600
"""Characters of a note, reason or description that are shown."""
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")

ARMS: Final = {
    "no_adaptation": "meta-model, no adaptation",
    "local_k": "alone, on k examples",
    "local_all": "alone, on all own examples",
    "fedavg_ft": "FedAvg, fine-tuned on k examples",
    "meta": "meta-model, adapted on k examples",
}
"""The arms of the held-out table."""
METRICS: Final = {
    "auc": "AUC",
    "average_precision": "average precision",
    "mse": "mean squared error",
    "accuracy": "accuracy",
}
LOWER_IS_BETTER: Final = ("mse",)
PROTECTED: Final = {
    "query_loss": "training loss after adaptation",
    "query_loss_unadapted": "training loss before adaptation",
    "unclipped": "share of units within the clip",
}
"""Private metrics in words."""


def plain(text: object, length: int = NAME_LENGTH) -> str:
    """Text from elsewhere on one line: what cannot be seen is written out, and the rest cut.

    Control characters, marks that turn the direction of writing, lone surrogates and line ends
    become their code points: a name can neither hide nor reorder what stands beside it.
    """
    shown = "".join(
        f"\\u{{{ord(one):x}}}" if unicodedata.category(one) in _UNSEEN else one
        for one in str(text)[: length + 1]
    )
    if not shown.strip():
        return "(empty)"
    return shown if len(shown) <= length else shown[: length - 1] + "…"


def sentence(text: object) -> str:
    """A sentence from elsewhere, begun with a capital and ended with a full stop."""
    shown = plain(text, SENTENCE_LENGTH).strip()
    return shown[0].upper() + shown[1:] + ("" if shown[-1] in ".!?…" else ".")


def epsilon(value: float | None) -> str:
    """An epsilon; None is no bound."""
    return "infinite" if value is None else f"{value:.3f}"


def score(value: float | None) -> str:
    """A score; None is one that diverged or was never had."""
    if value is None:
        return "none"
    return f"{value:.3f}" if abs(value) < 1e4 else f"{value:.3g}"


def signed(value: float | None) -> str:
    """A difference with its sign."""
    if value is None:
        return "none"
    return f"{value:+.3f}".replace("-", "−") if abs(value) < 1e4 else f"{value:+.3g}"


def interval(found: dict[str, Any]) -> str:
    """Half the width of a mean's 95 % interval, or in words why there is none."""
    if found["mean"] is None:
        return "diverged"
    if found["ci95"] is None or len(found["per_client"]) == 1:
        return "one client" if len(found["per_client"]) == 1 else "none"
    return f"± {found['ci95']:.3f}"


def percent(share: float | None) -> str:
    """A share in whole percent."""
    return "none" if share is None else f"{share:.0%}".replace("%", " %")


def count(number: int, one: str, more: str | None = None) -> str:
    """A number and what it counts: 1 client, 2 clients."""
    return f"{number:,} {one if number == 1 else more or one + 's'}"


def size(number: float) -> str:
    """Bytes for people."""
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= step:
            return f"{number / step:.1f} {unit}"
    return f"{number:,.0f} bytes"


def listed(names: Sequence[object], most: int = 12) -> str:
    """Names in a row, and how many more there are."""
    shown = ", ".join(plain(name) for name in names[:most])
    more = len(names) - most
    return f"{shown} and {more:,} more" if more > 0 else shown or "none"


def words(name: str) -> str:
    """An identifier as words."""
    return plain(name).replace("_", " ")


def at_most(items: Iterable[str], most: int, what: str) -> tuple[str, ...]:
    """The first of many sentences, and how many were left out."""
    every = tuple(items)
    if len(every) <= most:
        return every
    return (*every[:most], f"And {len(every) - most:,} more {what}; report.json has them all.")
