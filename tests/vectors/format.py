"""What a format of the frozen vectors is made of, and its two files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
Case = dict[str, Any]


@dataclass(frozen=True)
class Format:
    """One format: cases that must be read, cases that must be refused, and how to tell.

    Attributes:
        name: of the files good_<name>.json and bad_<name>.json.
        about: the layout, for readers who write a decoder of their own.
        bugs: class of bug -> what goes wrong in a decoder that has it.
        good: makes the good cases; each has a name.
        bad: makes the bad ones; each has name, bug, error (type) and reason (part of its text).
        check: reads a good case and compares everything that is in it.
        refuse: reads a bad case, which must raise.
    """

    name: str
    about: str
    bugs: Mapping[str, str]
    good: Callable[[], list[Case]]
    bad: Callable[[], list[Case]]
    check: Callable[[Case], None]
    refuse: Callable[[Case], object]

    def files(self) -> dict[Path, str]:
        """The two files as they have to be."""
        head = {"format": self.name, "about": self.about}
        return {
            self.path("good"): _dumps({**head, "cases": self.good()}),
            self.path("bad"): _dumps({**head, "notes": dict(self.bugs), "cases": self.bad()}),
        }

    def path(self, kind: str) -> Path:
        """Where the good or the bad cases are."""
        return FOLDER / f"{kind}_{self.name}.json"

    def cases(self, kind: str) -> list[Case]:
        """The cases as they are stored."""
        found: list[Case] = json.loads(self.path(kind).read_text())["cases"]
        return found


def bad(name: str, bug: str, error: str, reason: str, **content: Any) -> Case:
    """A case that must be refused with this type of error and these words."""
    return {"name": name, "bug": bug, "error": error, "reason": reason, **content}


def _dumps(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=True) + "\n"
