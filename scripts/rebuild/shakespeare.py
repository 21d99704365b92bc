"""From 37 plays as plain text to the speeches of their roles.

A play is read from its first act, prologue or induction on. Stage directions in brackets are taken
out. A paragraph that begins with a speaker's line begins a speech; later paragraphs belong to it
until the next speaker, act or scene. The plays name speakers in three ways:

- `HAMLET.` in capitals with a full stop (34 plays);
- `Ham.`, at most three words with a full stop, in Hamlet, King Lear, and Romeo and Juliet, where a
  line that is found once only is taken for text;
- `THESEUS` in capitals without a full stop, in A Midsummer Night's Dream.

Names are taken as they stand: Gloster and Gloucester are two roles, and so are the kings of two
plays. A role is kept if it has `LEAST` speeches or more.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from scripts.rebuild.common import to_csv

LEAST = 5
COLUMNS = ("Play", "Role", "Speech", "Text")
_START = re.compile(r"^(act|prologue|induction|the prologue)\b", re.IGNORECASE)
_HEADING = re.compile(r"^(act|scene)\b", re.IGNORECASE)
_DIRECTION = re.compile(r"\[[^\[\]]*?(?:\]|(?=\n[ \t]*\n|\s*\Z))")
_CAPITALS = re.compile(r"([A-Z][A-Z', &-]*[A-Z])\.")
_ABBREVIATED = re.compile(r"([A-Z0-9][A-Za-z0-9']*(?: [A-Za-z']+){0,2})\.")
_PLAIN = re.compile(r"([A-Z][A-Z', &-]*[A-Z])\.?")
_FORMS = {
    "hamlet": _ABBREVIATED,
    "lear": _ABBREVIATED,
    "romeo-and-juliet": _ABBREVIATED,
    "midsummer-nights-dream": _PLAIN,
}


def speeches(members: Mapping[str, bytes]) -> bytes:
    """CSV of all kept roles' speeches: plays by name, roles by name, speeches in their order."""
    rows: list[tuple[str, str, int, str]] = []
    for name, data in sorted(members.items()):
        play = PurePosixPath(name).name.removesuffix("_gut.txt").replace("_", "-")
        roles: dict[str, list[str]] = {}
        for role, text in parse(play, data.decode("ascii")):
            roles.setdefault(role, []).append(text)
        rows += [
            (play, role, number, text)
            for role, texts in sorted(roles.items())
            if len(texts) >= LEAST
            for number, text in enumerate(texts)
        ]
    return to_csv(COLUMNS, rows)


def parse(play: str, text: str) -> Iterator[tuple[str, str]]:
    """Role and words of each speech of a play, in order."""
    form, found = _FORMS.get(play, _CAPITALS), list(paragraphs(text))
    names = Counter(lines[0] for lines in found)
    role, held = "", list[str]()
    for lines in found:
        first, *rest = lines
        match = None if _HEADING.match(first) else form.fullmatch(first)
        if match is not None and form is _ABBREVIATED and names[first] == 1:
            match = None
        if match is None and not _HEADING.match(first):
            held += lines
            continue
        if role and held:
            yield role, "\n".join(held)
        role, held = "" if match is None else slug(match[1]), rest
    if role and held:
        yield role, "\n".join(held)


def paragraphs(text: str) -> Iterator[list[str]]:
    """The lines of each paragraph from the first act on, without directions and outer blanks."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if _START.match(line.strip()))
    spoken = _DIRECTION.sub(" ", "\n".join(lines[start:]))
    held: list[str] = []
    for line in [*spoken.split("\n"), ""]:
        words = " ".join(line.split())
        if words:
            held.append(words)
        elif held:
            yield held
            held = []


def slug(name: str) -> str:
    """A role's name in lower case, fit for a file name."""
    return "-".join(re.findall(r"[a-z0-9]+", name.lower().replace("'", "").replace("&", "and")))
